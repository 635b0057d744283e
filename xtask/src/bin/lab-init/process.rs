//! Programs that run inside the lab, and where they put their results.

use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use xtask::phase::Step;

/// The directory that is shipped out of the lab.
pub(crate) const OUT: &str = "/out";
const MMU_TRACE: &str = "/bin/mmu-trace";

/// Whether this lab has a tracer.
pub(crate) fn has_tracer() -> bool {
    Path::new(MMU_TRACE).exists()
}

/// An `mmu-trace` command.
pub(crate) fn mmu_trace(args: &[&str]) -> Command {
    let mut command = Command::new(MMU_TRACE);
    command.args(args);
    command
}

/// `uname -r`.
pub(crate) fn kernel_release() -> Result<String> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").context("cannot read osrelease")?;
    Ok(release.trim().to_owned())
}

/// Runs `command` to its end.
pub(crate) fn run(name: &str, command: &mut Command) -> Result<Step> {
    eprintln!("lab: {name}");
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    Ok(step(name, status))
}

/// Sends SIGTERM and waits; kills after `patience`, which shows in the exit code.
pub(crate) fn terminate(name: &str, mut child: Child, patience: Duration) -> Result<Step> {
    let pid = rustix::process::Pid::from_child(&child);
    // A child that has ended already is still ours until it is waited for.
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(step(name, status));
        }
        if start.elapsed() > patience {
            child.kill()?;
            return Ok(step(name, child.wait()?));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A step that has no process of its own, and ended well.
pub(crate) fn step_of(name: &str) -> Step {
    Step { name: name.to_owned(), exit: 0 }
}

/// How `name` ended.
pub(crate) fn step(name: &str, status: ExitStatus) -> Step {
    use std::os::unix::process::ExitStatusExt;
    let exit = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    Step { name: name.to_owned(), exit }
}
