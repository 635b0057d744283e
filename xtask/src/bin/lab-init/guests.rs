//! Four Linux guests in Debian's QEMU, and the program that each of them runs.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::mount::{MountFlags, mount};
use xtask::guests::{GUESTS, Guest, Guests, READY, RENAMED, RESET};
use xtask::phase::Series;

use crate::process::{OUT, mmu_trace, terminate};
use crate::vm::Pages;
use crate::{ksm, metrics, oracle};

/// What the image holds.
const QEMU: &str = "/qemu/bin/qemu-system-x86_64";
const FIRMWARE: &str = "/qemu/firmware";
const KERNEL: &str = "/guest/vmlinuz";
const INITRD: &str = "/guest/initrd.cpio";
/// A serial port for the console, no other device; the i8042 driver waits long for one that is not there.
const MACHINE: &str = "microvm,rtc=on";
const COMMAND_LINE: &str = "console=ttyS0 quiet nokaslr panic=-1 initcall_blacklist=i8042_init lab.guest=1";
/// Equal pages of each guest.
const EQUAL_PAGES: usize = 2048;

/// Four kernels that boot at once on two emulated CPUs.
const BOOT_PATIENCE: Duration = Duration::from_secs(240);
const PATIENCE: Duration = Duration::from_secs(60);
const POLL_EVERY: Duration = Duration::from_millis(250);
/// Scrapes after which the series of a VM that has died must be gone.
const MOST_SCRAPES: u32 = 20;

/// Runs them and writes `guests.json`.
pub(crate) fn run() -> Result<()> {
    let first = oracle::read()?;
    ksm::set_mode(ksm::Mode::Run)?;
    let mut children =
        GUESTS.iter().enumerate().map(|(n, guest)| start(n, guest)).collect::<Result<Vec<_>>>()?;
    let pids: Vec<u32> = children.iter().map(Child::id).collect();
    if let Err(error) = wait_until_all_ready(&mut children) {
        // A guest that stays would keep the later stages from unloading KVM.
        for child in &mut children {
            child.kill().context("cannot kill a guest")?;
            child.wait()?;
        }
        return Err(error);
    }
    let running = wait_for_merges()?;
    let vms = list()?;
    let (killed, scrapes_until_gone) = kill(children.pop().context("no guest to kill")?)?;
    for (n, child) in children.into_iter().enumerate() {
        terminate(&format!("guest {n}"), child, PATIENCE)?;
    }
    ksm::set_mode(ksm::Mode::Stop)?;
    let last = oracle::read()?;
    let guests = Guests {
        pids,
        running,
        vms,
        killed,
        scrapes_until_gone,
        whole: oracle::delta(&first.counts, &last.counts),
        oracle_misses: last.misses - first.misses,
    };
    let path = Path::new(OUT).join("guests.json");
    fs::write(&path, serde_json::to_vec_pretty(&guests)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

fn start(number: usize, guest: &Guest) -> Result<Child> {
    let program = if guest.is_renamed { rename()? } else { QEMU.to_owned() };
    let log = File::create(console(number)).context("cannot create a console log")?;
    Command::new(&program)
        .args(["-name", &format!("guest={},debug-threads=on", guest.identity.name)])
        .args(["-uuid", guest.identity.uuid, "-accel", "kvm", "-machine", MACHINE, "-m", "112"])
        .args(["-L", FIRMWARE, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .args(["-kernel", KERNEL, "-initrd", INITRD, "-append", COMMAND_LINE, "-serial", "stdio"])
        .stdin(Stdio::null())
        .stderr(log.try_clone()?)
        .stdout(log)
        .spawn()
        .with_context(|| format!("cannot run {program}"))
}

/// The same program under another name.
fn rename() -> Result<String> {
    let renamed = format!("/qemu/bin/{RENAMED}");
    fs::hard_link(QEMU, &renamed).context("cannot rename QEMU")?;
    Ok(renamed)
}

fn console(number: usize) -> String {
    format!("{OUT}/guest{number}.log")
}

fn wait_until_all_ready(children: &mut [Child]) -> Result<()> {
    children.iter_mut().enumerate().try_for_each(|(n, child)| wait_until_ready(n, child))
}

fn wait_until_ready(number: usize, child: &mut Child) -> Result<()> {
    let start = Instant::now();
    loop {
        let said = fs::read(console(number)).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        if said.contains(READY) {
            return Ok(());
        }
        if let Some(status) = child.try_wait()? {
            if said.is_empty() {
                let what = format!("guest {number} was reset before it said a word ({status})");
                fs::write(Path::new(OUT).join(RESET), what).context("cannot write of a reset guest")?;
            }
            bail!("guest {number} ended with {status}: {said}");
        }
        ensure!(
            start.elapsed() < BOOT_PATIENCE,
            "guest {number} was not ready within {BOOT_PATIENCE:?}: {said}"
        );
        std::thread::sleep(POLL_EVERY);
    }
}

/// The daemon's series once each guest has had pages merged.
fn wait_for_merges() -> Result<Series> {
    let start = Instant::now();
    loop {
        let series = scrape()?;
        let merged = series.iter().filter(|(key, n)| {
            let of_guest =
                GUESTS.iter().any(|guest| key.contains(guest.identity.uuid)) || key.contains(RENAMED);
            key.starts_with("mmu_trace_ksm_merges_total{") && of_guest && **n > 0.0
        });
        if merged.count() == GUESTS.len() {
            return Ok(series);
        }
        ensure!(start.elapsed() < PATIENCE, "ksmd did not merge pages of every guest within {PATIENCE:?}");
        std::thread::sleep(POLL_EVERY);
    }
}

fn list() -> Result<serde_json::Value> {
    let output = mmu_trace(&["vms", "--format", "json"]).output().context("cannot run mmu-trace vms")?;
    serde_json::from_slice(&output.stdout).context("the list of VMs is no JSON")
}

/// Kills the last guest, and scrapes until its series are gone.
fn kill(mut child: Child) -> Result<(Series, u32)> {
    child.kill().context("cannot kill a guest")?;
    child.wait()?;
    let uuid = GUESTS[GUESTS.len() - 1].identity.uuid;
    for n in 1..=MOST_SCRAPES {
        let series = scrape()?;
        if !series.keys().any(|key| key.contains(uuid)) {
            return Ok((series, n));
        }
        std::thread::sleep(POLL_EVERY);
    }
    Ok((scrape()?, MOST_SCRAPES + 1))
}

fn scrape() -> Result<Series> {
    metrics::parse(&metrics::get("/metrics").context("cannot scrape the daemon")?)
}

/// Whether this is such a guest: process 1 of a kernel that was told so.
pub(crate) fn is_inside() -> bool {
    mount("proc", "/proc", "proc", MountFlags::empty(), None::<&std::ffi::CStr>).is_ok()
        && fs::read_to_string("/proc/cmdline").is_ok_and(|line| line.contains("lab.guest=1"))
}

/// The life of a guest: pages that are equal to those of the others, read again and again.
pub(crate) fn live() -> Result<()> {
    let pages = Pages::map(EQUAL_PAGES, libc::MAP_PRIVATE)?;
    pages.fill(0x5a);
    println!("{READY}");
    loop {
        pages.read_each();
        std::thread::sleep(Duration::from_millis(100));
    }
}
