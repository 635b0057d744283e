//! The workload: ksmd merges all pages of the guest, which reads and then writes them.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result};
use xtask::cost::{N_PAGES, Spent, Workload};

use crate::ksm;
use crate::vmm::Vmm;

/// Runs it once. Before and after it the guest has every page mapped writable, all of one content.
pub(super) fn run(vmm: &mut Vmm) -> Result<Workload> {
    vmm.command("mergeable")?;
    let clock = Clock { ksmd: ksmd()?, vcpu: vmm.pid() };
    let merge = clock.time(|| ksm::merge_once(N_PAGES as i64))?;
    let read = clock.time(|| vmm.command("read"))?;
    let write = clock.time(|| vmm.command("write 2"))?;
    // What ksmd knows of the pages would make the next merge another one.
    ksm::set_mode(ksm::Mode::Unmerge)?;
    ksm::set_mode(ksm::Mode::Stop)?;
    Ok(Workload { merge, read, write })
}

/// Whose CPU time is taken.
struct Clock {
    ksmd: u32,
    vcpu: u32,
}

impl Clock {
    fn time(&self, action: impl FnOnce() -> Result<()>) -> Result<Spent> {
        let (ksmd, vcpu) = (cpu_ns(self.ksmd)?, cpu_ns(self.vcpu)?);
        let start = Instant::now();
        action()?;
        let wall_ns = u64::try_from(start.elapsed().as_nanos())?;
        Ok(Spent { wall_ns, ksmd_ns: cpu_ns(self.ksmd)? - ksmd, vcpu_ns: cpu_ns(self.vcpu)? - vcpu })
    }
}

/// CPU time of all threads of a process, nanoseconds: what the scheduler has accounted, which
/// `/proc/PID/stat` shows in ticks only.
pub(super) fn cpu_ns(pid: u32) -> Result<u64> {
    let folder = format!("/proc/{pid}/task");
    let mut total = 0;
    for task in fs::read_dir(&folder).with_context(|| format!("cannot list {folder}"))? {
        let path = task?.path().join("schedstat");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let ran = text.split_whitespace().next().and_then(|n| n.parse::<u64>().ok());
        total += ran.with_context(|| format!("{} holds no time", path.display()))?;
    }
    Ok(total)
}

/// The process id of ksmd.
fn ksmd() -> Result<u32> {
    for process in fs::read_dir("/proc").context("cannot list /proc")? {
        let process = process?;
        let comm = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        if comm.trim_end() == "ksmd" {
            return process.file_name().to_string_lossy().parse().context("ksmd has no process id");
        }
    }
    anyhow::bail!("this kernel has no ksmd")
}
