//! The tracers: how each is started, how it is known that it has attached everything, how it ends.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use xtask::cost::Arm;
use xtask::phase::{DAEMON_PORT, LAB_VM};

use super::workload;
use crate::bpf::{self, PROG_GET_NEXT_ID};
use crate::process::{mmu_trace, terminate};
use crate::{metrics, oracle};

/// What a process says on its standard output once everything is attached.
const READY: &str = "ready";
/// A compiler in an emulator.
const ATTACH_PATIENCE: Duration = Duration::from_secs(120);
const DETACH_PATIENCE: Duration = Duration::from_secs(30);

const FLOOR: &str = "/bin/bench-floor";
const BPFTRACE: &str = "/bpftrace";
/// `RET_PF_FIXED` up to Linux 6.9, and from 6.12 on (`arch/x86/kvm/mmu/mmu_internal.h`).
const FIXED_WITH_CHANGE_PTE: &str = "4";
const FIXED_WITHOUT: &str = "5";
const SCRIPT: &str = "/tmp/outcomes.bt";
const CAPTURE: &str = "/tmp/bench.mmt";

/// A tracer that has attached everything; nothing is one too.
pub(super) struct Attached {
    process: Option<Process>,
    /// From its start until it had attached everything, nanoseconds.
    pub(super) attach_ns: u64,
    /// Programs that were there before.
    programs_before: usize,
}

/// How the process of a tracer ends.
enum Process {
    /// With SIGTERM.
    Terminated(Child),
    /// When its standard input does.
    Held(Child, JoinHandle<String>),
}

impl Attached {
    /// Starts it and waits until it has attached everything.
    pub(super) fn attach(arm: Arm) -> Result<Self> {
        let programs_before = n_programs()?;
        let start = Instant::now();
        let process = match arm {
            Arm::Nothing => None,
            Arm::Floor => Some(hold_open(Command::new(FLOOR))?),
            Arm::Daemon => Some(start_daemon()?),
            Arm::Record => Some(hold_open(mmu_trace(&["record", "-o", CAPTURE, "--", "/init", "hold"]))?),
            Arm::Bpftrace => Some(hold_open(bpftrace()?)?),
        };
        let attach_ns = u64::try_from(start.elapsed().as_nanos())?;
        Ok(Self { process, attach_ns, programs_before })
    }

    /// CPU time of its process, nanoseconds.
    pub(super) fn cpu_ns(&self) -> Result<u64> {
        match &self.process {
            None => Ok(0),
            Some(Process::Terminated(child) | Process::Held(child, _)) => workload::cpu_ns(child.id()),
        }
    }

    /// Ends it and waits until its programs are gone; what it printed.
    pub(super) fn detach(self) -> Result<String> {
        let mut printed = String::new();
        match self.process {
            None => {}
            Some(Process::Terminated(child)) => {
                let step = terminate("daemon", child, DETACH_PATIENCE)?;
                ensure!(step.exit == 0, "it ended with {}", step.exit);
            }
            Some(Process::Held(mut child, said)) => {
                drop(child.stdin.take());
                let status = child.wait()?;
                printed = said.join().map_err(|_| anyhow!("the listener panicked"))?;
                ensure!(status.success(), "it ended with {status}: {printed}");
            }
        }
        let start = Instant::now();
        while n_programs()? > self.programs_before {
            ensure!(start.elapsed() < DETACH_PATIENCE, "its programs are there after {DETACH_PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(printed)
    }
}

fn n_programs() -> Result<usize> {
    Ok(bpf::ids(PROG_GET_NEXT_ID).context("cannot count BPF programs")?.len())
}

fn start_daemon() -> Result<Process> {
    let listen = format!("127.0.0.1:{DAEMON_PORT}");
    let mut child = mmu_trace(&["daemon", "--listen", &listen]).spawn().context("cannot run mmu-trace")?;
    metrics::wait_until_healthy(ATTACH_PATIENCE, || matches!(child.try_wait(), Ok(None)))?;
    ensure!(metrics::get("/metrics")?.contains(LAB_VM.name), "the daemon does not see the VM");
    Ok(Process::Terminated(child))
}

/// bpftrace with the script for this kernel; it runs a command of ours once everything is attached, and
/// ends with it.
fn bpftrace() -> Result<Command> {
    let has_change_pte = oracle::functions()?.contains_key("change_pte");
    let mut script = include_str!("outcomes.bt").to_owned();
    if has_change_pte {
        script += include_str!("change_pte.bt");
    }
    fs::write(SCRIPT, script).with_context(|| format!("cannot write {SCRIPT}"))?;
    let folder = Path::new(BPFTRACE);
    let mut command = Command::new(folder.join("lib/ld-linux-x86-64.so.2"));
    command
        .arg("--library-path")
        .arg(folder.join("lib"))
        .arg(folder.join("bin/bpftrace"))
        .args(["-f", "json", "-c", "/init hold", SCRIPT])
        .arg(if has_change_pte { FIXED_WITH_CHANGE_PTE } else { FIXED_WITHOUT });
    Ok(command)
}

fn hold_open(mut command: Command) -> Result<Process> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {command:?}"))?;
    let stdout = child.stdout.take().context("it has no standard output")?;
    let (sender, ready) = mpsc::channel();
    // In the background to its end, so that nothing it says can block it.
    let said = std::thread::spawn(move || listen(stdout, &sender));
    if let Err(error) = ready.recv_timeout(ATTACH_PATIENCE) {
        if error == mpsc::RecvTimeoutError::Timeout {
            child.kill().context("cannot end it")?;
        }
        let said = said.join().map_err(|_| anyhow!("the listener panicked"))?;
        bail!("it did not attach: {error}; {}, and it said {said:?}", child.wait()?);
    }
    Ok(Process::Held(child, said))
}

/// What it says, up to its end; tells `ready` when it says that it is.
fn listen(stdout: ChildStdout, ready: &mpsc::Sender<()>) -> String {
    let mut said = String::new();
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        if line == READY {
            // Nobody waits any more once it was too late.
            let _ = ready.send(());
        } else {
            said += &line;
            said.push('\n');
        }
    }
    said
}

/// The command that tracers run: says that they are ready, and ends with its standard input.
pub(crate) fn hold() -> Result<()> {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{READY}")?;
    stdout.flush()?;
    std::io::stdin().read_to_end(&mut Vec::new()).context("cannot wait")?;
    Ok(())
}
