//! The tracer under bad input: what it must refuse, wait for or survive on a kernel that it can trace.
//!
//! None of it runs while the phases are counted: what needs a kernel without KVM comes before them,
//! everything else after them.

mod attempt;
mod before_kvm;
mod bpf;

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::Signal;
use xtask::phase::DAEMON_PORT;
use xtask::refusal::{BpfObjects, Case, CaseKind, Refusals, WaitingDaemon};

use crate::metrics;
use crate::process::{OUT, mmu_trace};
use crate::vmm::Vmm;
use attempt::{Attempt, PATIENCE};

pub(crate) use attempt::n_blocks;
pub(crate) use before_kvm::BeforeKvm;

/// Where captures and messages go; they stay in the lab.
const DIR: &str = "/tmp/refusals";
/// A filesystem that takes the first snapshot and not many events.
const FULL: &str = "/tmp/refusals/full";
const FULL_SIZE: &std::ffi::CStr = c"size=8k";
/// `nobody`.
const NOT_ROOT: u32 = 65534;
/// From a capture's first snapshot to the signal.
const BEFORE_SIGNAL: Duration = Duration::from_millis(200);
/// The kernel frees BPF objects some time after their last user.
const FREED_WITHIN: Duration = Duration::from_secs(2);

/// What is known so far.
pub(crate) struct Stage {
    cases: Vec<Case>,
    waiting_daemon: WaitingDaemon,
    first_daemon_serves: bool,
    bpf_before: BpfObjects,
    bpf_during: BpfObjects,
}

impl Stage {
    /// Starts a second daemon beside the one that serves.
    pub(crate) fn second_daemon(&mut self) -> Result<()> {
        eprintln!("lab: refusals beside the daemon");
        let listen = format!("{}:{DAEMON_PORT}", Ipv4Addr::LOCALHOST);
        let second =
            Attempt::start(CaseKind::SecondDaemon, &mut mmu_trace(&["daemon", "--listen", &listen]), None)?;
        self.cases.push(second.end()?);
        self.bpf_during = bpf::count()?;
        self.first_daemon_serves = metrics::get("/healthz").is_ok() && metrics::get("/metrics").is_ok();
        Ok(())
    }

    /// Everything that needs a kernel with KVM and nothing else; no other tracer may run. Writes
    /// `refusals.json`.
    pub(crate) fn finish(mut self, vm: &mut Vmm) -> Result<()> {
        eprintln!("lab: refusals");
        self.bad_arguments()?;
        self.signals()?;
        self.cases.push(full_disk(vm)?);
        let refusals = Refusals {
            bpf_after: freed(self.bpf_before)?,
            cases: self.cases,
            waiting_daemon: self.waiting_daemon,
            first_daemon_serves: self.first_daemon_serves,
            bpf_before: self.bpf_before,
            bpf_during: self.bpf_during,
        };
        let path = Path::new(OUT).join("refusals.json");
        fs::write(&path, serde_json::to_vec_pretty(&refusals)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Two at a time: the lab has two CPUs, and each of them attaches.
    fn bad_arguments(&mut self) -> Result<()> {
        let unknown = Attempt::record(CaseKind::UnknownVm, &["--vm", "nosuch", "--duration", "1s"])?;
        let program = Attempt::record(CaseKind::NoProgram, &["--", "/no/such/program"])?;
        let missing = Path::new(DIR).join("missing/x.mmt");
        let missing = Attempt::record_to(CaseKind::MissingDirectory, &missing, &["--duration", "1s"])?;
        let mut as_user = mmu_trace(&["record", "--duration", "1s", "-o", "/tmp/not-root.mmt"]);
        as_user.uid(NOT_ROOT).gid(NOT_ROOT);
        let capture = Path::new("/tmp/not-root.mmt").to_owned();
        let as_user = Attempt::start(CaseKind::NotRoot, &mut as_user, Some(capture))?;
        for attempt in [unknown, program, missing, as_user] {
            self.cases.push(attempt.end()?);
        }
        Ok(())
    }

    /// Ends three recordings, each by another signal.
    fn signals(&mut self) -> Result<()> {
        let signals = [
            (CaseKind::Interrupt, Signal::INT),
            (CaseKind::Terminate, Signal::TERM),
            (CaseKind::Kill, Signal::KILL),
        ];
        let mut attempts = Vec::new();
        for (kind, signal) in signals {
            attempts.push((Attempt::record(kind, &[])?, signal));
        }
        for (mut attempt, signal) in attempts {
            attempt.wait_until_recording()?;
            std::thread::sleep(BEFORE_SIGNAL);
            attempt.signal(signal);
            self.cases.push(attempt.end()?);
        }
        Ok(())
    }
}

/// Records a busy VM until there is no room.
fn full_disk(vm: &mut Vmm) -> Result<Case> {
    fs::create_dir_all(FULL).with_context(|| format!("cannot create {FULL}"))?;
    mount("tmpfs", FULL, "tmpfs", MountFlags::empty(), FULL_SIZE)
        .with_context(|| format!("cannot mount a small tmpfs on {FULL}"))?;
    let capture = Path::new(FULL).join("x.mmt");
    let mut attempt = Attempt::record_to(CaseKind::FullDisk, &capture, &[])?;
    attempt.wait_until_recording()?;
    let start = Instant::now();
    while attempt.runs()? && start.elapsed() < PATIENCE {
        for command in ["write 9", "discard", "read"] {
            vm.command(command)?;
        }
    }
    let case = attempt.end()?;
    unmount(FULL, UnmountFlags::empty()).with_context(|| format!("cannot unmount {FULL}"))?;
    Ok(case)
}

/// The BPF objects left once they are down to `before`, or patience is over.
fn freed(before: BpfObjects) -> Result<BpfObjects> {
    let start = Instant::now();
    loop {
        let left = bpf::count()?;
        if left == before || start.elapsed() > FREED_WITHIN {
            return Ok(left);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
