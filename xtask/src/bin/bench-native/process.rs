//! What this process, its threads and its children take.

use std::{fs, process::Child, thread, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use rustix::thread::{CpuSet, sched_setaffinity};

/// How often the memory of another process is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Lets the calling thread run on one CPU only.
pub(crate) fn pin(cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    sched_setaffinity(None, &cpus).with_context(|| format!("cannot run on CPU {cpu} alone"))
}

/// CPU time of the calling thread.
pub(crate) fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}

/// CPU time, user's and kernel's, of all children that have ended.
pub(crate) fn children_cpu() -> Duration {
    // SAFETY: integers only, for which 0 is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is valid for writes.
    unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) };
    let time = |time: libc::timeval| Duration::new(time.tv_sec.cast_unsigned(), time.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// A line of `/proc/PID/status`, such as `VmHWM`, in bytes; `process` may be `self`.
pub(crate) fn memory(process: &str, line: &str) -> Result<u64> {
    let path = format!("/proc/{process}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let value = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
    let kib = value.and_then(|value| value.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kib.with_context(|| format!("{path} has no {line}"))? * 1024)
}

/// Waits for `child` to succeed; the most memory it ever had, as far as it was seen: bytes.
pub(crate) fn wait_and_watch(child: &mut Child) -> Result<u64> {
    let process = child.id().to_string();
    let mut peak = 0;
    loop {
        // When it has ended there is nothing to be read.
        peak = memory(&process, "VmHWM").unwrap_or(peak);
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "it ended with {status}");
            break;
        }
        thread::sleep(LOOK_EVERY);
    }
    if peak == 0 {
        bail!("it ended before its memory was seen");
    }
    Ok(peak)
}
