//! This process as the kernel sees it.

use std::{fs, time::Duration};

use rustix::param::{clock_ticks_per_second, page_size};

/// What `/proc/self` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// User and system CPU time.
    pub cpu: Duration,
    /// Resident memory.
    pub resident_bytes: u64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// Start, since the Unix epoch.
    pub start_unix: Duration,
}

impl Process {
    /// Reads `/proc/self`; `None` if it cannot be read.
    #[must_use]
    pub fn load() -> Option<Self> {
        let stat = Stat::parse(&fs::read_to_string("/proc/self/stat").ok()?)?;
        let boot = boot_seconds(&fs::read_to_string("/proc/stat").ok()?)?;
        let statm = fs::read_to_string("/proc/self/statm").ok()?;
        let resident_pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
        Some(Self {
            cpu: ticks(stat.cpu_ticks),
            resident_bytes: resident_pages * page_size() as u64,
            // The directory itself is open while it is listed.
            open_fds: (fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1),
            start_unix: Duration::from_secs(boot) + ticks(stat.start_ticks),
        })
    }
}

struct Stat {
    cpu_ticks: u64,
    start_ticks: u64,
}

impl Stat {
    /// Fields 14, 15 and 22; the second one, in parentheses, may hold anything.
    fn parse(stat: &str) -> Option<Self> {
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self { cpu_ticks: field(14)? + field(15)?, start_ticks: field(22)? })
    }
}

fn boot_seconds(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn ticks(n: u64) -> Duration {
    Duration::from_secs_f64(n as f64 / clock_ticks_per_second().max(1) as f64)
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn describes_this_process() {
        let process = Process::load().unwrap();
        let age = SystemTime::now().duration_since(UNIX_EPOCH + process.start_unix).unwrap_or_default();
        assert!(process.open_fds >= 3 && process.resident_bytes > 100_000);
        assert!(age < Duration::from_secs(3600), "{age:?}");
    }
}
