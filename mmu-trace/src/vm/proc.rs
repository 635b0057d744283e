//! Bounded reads of single files of a process.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// No file read here is taken further than this; a VMM's command line has a few kilobytes.
const MAX_BYTES: u64 = 1 << 20;

/// Far more than the start time is behind in `stat`, which is handed out at once.
const MAX_STAT_BYTES: usize = 1024;

/// A process or the proc file system could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ProcError {
    /// A file or directory could not be read.
    #[error("reading {}", .path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The `stat` line of a process is not one.
    #[error("process {pid} has no start time in its stat file")]
    Stat {
        /// The process.
        pid: u32,
    },
    /// The helper that reads descriptors does not answer.
    #[error("the helper that looks at the descriptors of VMMs does not answer; start mmu-trace again")]
    Helper(#[source] io::Error),
}

/// When process `pid` started, in clock ticks since boot.
///
/// # Errors
/// If the process is gone, or its `stat` file makes no sense.
pub fn start_time_ticks(proc_root: &Path, pid: u32) -> Result<u64, ProcError> {
    let path = proc_root.join(pid.to_string()).join("stat");
    let mut stat = [0; MAX_STAT_BYTES];
    let read = File::open(&path).and_then(|mut file| file.read(&mut stat));
    let n = read.map_err(|source| ProcError::Read { path, source })?;
    parse_start_time(&String::from_utf8_lossy(&stat[..n])).ok_or(ProcError::Stat { pid })
}

/// Field 22 of `stat`. The second one, the command in parentheses, may hold anything.
fn parse_start_time(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// The first megabyte of a file of process `pid`.
pub(super) fn load(proc_root: &Path, pid: u32, file: &str) -> Result<Vec<u8>, ProcError> {
    let path = proc_root.join(pid.to_string()).join(file);
    let read = || {
        let mut bytes = Vec::new();
        File::open(&path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|source| ProcError::Read { path: path.clone(), source })
}

/// Whether `/proc` shows a process only those that it may trace.
#[must_use]
pub fn hides_processes() -> bool {
    is_proc_hidden(&std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
}

/// By the options of the mount.
fn is_proc_hidden(mountinfo: &str) -> bool {
    let is_proc = |line: &&str| line.split(' ').nth(4) == Some("/proc");
    let options = mountinfo.lines().rfind(is_proc).and_then(|line| line.split(' ').next_back());
    let hidden = options.and_then(|all| all.split(',').find_map(|option| option.strip_prefix("hidepid=")));
    hidden.is_some_and(|value| !matches!(value, "0" | "off"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_processes_are_told_by_the_mount() {
        let line = |options: &str| {
            format!(
                "22 1 0:20 / /sys rw - sysfs sysfs rw\n23 1 0:21 / /proc rw,nosuid shared:5 - proc proc {options}\n"
            )
        };
        for options in ["rw", "rw,hidepid=0", "rw,hidepid=off"] {
            assert!(!is_proc_hidden(&line(options)), "{options}");
        }
        for options in ["rw,hidepid=1", "rw,gid=3,hidepid=invisible", "rw,hidepid=ptraceable"] {
            assert!(is_proc_hidden(&line(options)), "{options}");
        }
        assert!(!is_proc_hidden(""));
    }

    #[test]
    fn a_command_may_look_like_fields() {
        let stat = "7 (x) S 1) S 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 777 21";
        assert_eq!(parse_start_time(stat), Some(777));
        assert_eq!(parse_start_time("7 (x) S 2 3"), None);
        assert_eq!(parse_start_time(""), None);
    }

    #[test]
    fn reads_our_own_start_time() {
        assert!(start_time_ticks(Path::new("/proc"), std::process::id()).unwrap() > 0);
    }
}
