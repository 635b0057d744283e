//! What a scrape costs: a process that serves the metrics of many VMs, as the daemon does, and one that
//! asks. Each VM has a process of its own, whose `/proc` files are read, and has seen every usual event.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use mmu_trace::{
    bpf::{BackendChoice, Live, Options},
    http::Server,
    memory,
    model::Snapshot,
    scrape::Scraper,
    source::Source,
};
use mmu_trace_ebpf::{abi::driver_op as op, kind::FaultResult};
use xtask::figure::{Figure, median};

use crate::process;

/// Numbers of VMs.
const SIZES: [u32; 2] = [210, 1_000];
/// Numbers of places that the counters of a VM are in: as on two CPUs, at most, and one for each of 256 CPUs.
const SHARDS: [u32; 3] = [2, 16, 256];
const SCRAPES: usize = 30;
/// Where addresses of the kernel's data are.
const KERNEL: u64 = 0xffff_8880_0000_0000;
/// The argument that makes this program the server.
pub(crate) const SERVE: &str = "serve-vms";
/// What the processes of VMs are called.
pub(crate) const VMM: &str = "/usr/bin/qemu-system-x86_64";

const TIME: &str = "median of 30 GET /metrics over loopback, from connect to the last byte, of a process that serves \
    that many VMs as the daemon does, each with a process of its own and all usual series";

const SHARDED: &str = "median of 30 snapshots of the counters alone, without processes and without text";

/// Measures.
pub(crate) fn measure() -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for n_vms in SIZES {
        figures.extend(measure_size(n_vms)?);
    }
    for n_shards in SHARDS {
        figures.push(measure_shards(n_shards)?);
    }
    Ok(figures)
}

/// What a snapshot costs by how many places each VM's counters are in.
fn measure_shards(n_shards: u32) -> Result<Figure> {
    let options =
        Options { backend: BackendChoice::Auto, recording: false, vm_histograms: false, max_vms: SIZES[0] };
    let mut live = Live::unattached_with_shards(options, n_shards)?;
    let driver = live.driver("driver")?;
    // Processes that are not there: what they would be asked does not depend on the shards.
    for number in 0..u64::from(SIZES[0]) {
        driver.run(&[op::VM_START, KERNEL + number * 0x1000, KERNEL, 0])?;
    }
    let mut times = Vec::new();
    for _ in 0..SCRAPES {
        let start = Instant::now();
        let snapshot = live.snapshot()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
        ensure!(snapshot.vms.len() == SIZES[0] as usize, "{} VMs", snapshot.vms.len());
    }
    let name = format!("scrape/{} VMs, counters in {n_shards} places/snapshot", SIZES[0]);
    Ok(Figure::new(name, median(&times).unwrap_or(f64::NAN), "ms", SHARDED))
}

fn measure_size(n_vms: u32) -> Result<Vec<Figure>> {
    let server = Serving::start(n_vms)?;
    let mut times = Vec::new();
    let mut body = String::new();
    for _ in 0..SCRAPES {
        let start = Instant::now();
        body = server.scrape()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let vms = body.lines().filter(|line| line.starts_with("mmu_trace_vm_info{")).count();
    ensure!(vms == n_vms as usize, "{vms} VMs are served instead of {n_vms}");
    let series = body.lines().filter(|line| !line.starts_with('#')).count();
    let name = |what: &str| format!("scrape/{n_vms} VMs/{what}");
    let resident = server.resident_bytes()? as f64 / f64::from(1 << 20);
    let (bpf_calls, calls) = server.system_calls()?;
    Ok(vec![
        Figure::new(name("time"), median(&times).unwrap_or(f64::NAN), "ms", TIME),
        Figure::new(name("series"), series as f64, "series", "lines of the response that are samples"),
        Figure::new(name("response"), body.len() as f64, "B", "length of the response, not compressed"),
        Figure::new(name("resident memory"), resident, "MiB", "VmRSS of the server after the scrapes"),
        Figure::new(name("bpf(2) calls"), bpf_calls, "calls", "strace -c of one scrape"),
        Figure::new(
            name("system calls for each VM"),
            calls / f64::from(n_vms),
            "calls",
            "strace -c of one scrape",
        ),
    ])
}

/// The server's process.
struct Serving {
    child: Child,
    address: SocketAddr,
}

impl Serving {
    fn start(n_vms: u32) -> Result<Self> {
        let program = std::env::current_exe()?;
        let mut child = Command::new(program)
            .args([SERVE, &n_vms.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the server")?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("the server has no output")?;
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)?;
        let address = line.trim().parse().with_context(|| format!("the server said {line:?}"))?;
        Ok(Self { child, address })
    }

    fn scrape(&self) -> Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        let (head, body) = response.split_once("\r\n\r\n").context("no HTTP response")?;
        ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
        Ok(body.to_owned())
    }

    fn resident_bytes(&self) -> Result<u64> {
        process::memory(&self.child.id().to_string(), "VmRSS")
    }

    /// `bpf(2)` and all system calls of one scrape.
    fn system_calls(&self) -> Result<(f64, f64)> {
        let counts = tempfile::NamedTempFile::new()?;
        let mut strace = Command::new("strace")
            .args(["-c", "-f", "-qq", "-p", &self.child.id().to_string(), "-o"])
            .arg(counts.path())
            .spawn()
            .context("cannot run strace (Debian: strace)")?;
        std::thread::sleep(Duration::from_millis(500));
        self.scrape()?;
        std::thread::sleep(Duration::from_millis(200));
        let pid = rustix::process::Pid::from_raw(strace.id().cast_signed()).context("no pid")?;
        rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
        strace.wait()?;
        let table = std::fs::read_to_string(counts.path())?;
        Ok((calls(&table, "bpf"), calls(&table, "total")))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // The server ends with its standard input.
        drop(self.child.stdin.take());
        _ = self.child.wait();
    }
}

/// The count of a system call in the table of `strace -c`; 0 if it is not there.
fn calls(table: &str, name: &str) -> f64 {
    let line = table.lines().find(|line| line.split_whitespace().next_back() == Some(name));
    line.and_then(|line| line.split_whitespace().nth(3)?.parse().ok()).unwrap_or(0.0)
}

/// The unattached tracer as a source.
struct Unattached(Live);

impl Source for Unattached {
    fn snapshot(&mut self) -> Result<Snapshot> {
        self.0.reap_ended_vms()?;
        self.0.snapshot()
    }
}

/// The server: prints its address, and serves until its standard input ends.
pub(crate) fn serve(n_vms: &str) -> Result<()> {
    memory::keep_little();
    let n_vms: u32 = n_vms.parse()?;
    let vmms = start_vmms(n_vms)?;
    let options =
        Options { backend: BackendChoice::Auto, recording: false, vm_histograms: false, max_vms: 1_000 };
    let mut live = Live::unattached(options)?;
    let driver = live.driver("driver")?;
    for (number, vmm) in (1..).zip(&vmms.0) {
        let mm = KERNEL + number * 0x1000;
        driver.run(&[op::VM_START, mm, mm, vmm.id().into()])?;
        for page in 1..=4 {
            let start = page << 12;
            driver.run(&[op::RANGE_START, mm, start, start + 4096, 0x103, 0])?;
            driver.run(&[op::UNMAP, 1])?;
            driver.run(&[op::CHANGE_PTE, mm, start, 0x25, 0])?;
            driver.run(&[op::RANGE_END, mm, start])?;
            driver.run(&[op::FAULT, mm, start, 0])?;
            driver.run(&[op::FAULT_END, FaultResult::Fixed as u64, start])?;
        }
    }
    drop(driver);
    memory::give_back();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let scraper = Arc::new(Scraper::new(Box::new(Unattached(live))));
        let server = Server::bind(SocketAddr::from(([127, 0, 0, 1], 0)), scraper)?;
        println!("{}", server.local_addr()?);
        let (stop, stopped) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            _ = std::io::stdin().read_to_end(&mut Vec::new());
            _ = stop.send(());
        });
        server.serve(async { _ = stopped.await }).await;
        Ok(())
    })
}

/// The processes of VMs.
struct Vmms(Vec<Child>);

impl Drop for Vmms {
    fn drop(&mut self) {
        for child in &mut self.0 {
            _ = child.kill();
            _ = child.wait();
        }
    }
}

fn start_vmms(n_vms: u32) -> Result<Vmms> {
    let program = std::env::current_exe()?;
    let mut vmms = Vmms(Vec::new());
    for number in 1..=n_vms {
        let child = Command::new(&program)
            .arg0(VMM)
            .args(["-name", &format!("guest=vm-{number:04},debug-threads=on")])
            .args(["-uuid", &format!("c0000000-0000-0000-0000-{number:012}")])
            .stdin(Stdio::null())
            .spawn();
        vmms.0.push(child.context("cannot start the process of a VM")?);
    }
    Ok(vmms)
}

/// The life of such a process.
pub(crate) fn be_vmm() -> ! {
    loop {
        std::thread::park();
    }
}
