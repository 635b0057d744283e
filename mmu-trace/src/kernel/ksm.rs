//! What KSM says of itself: `/sys/kernel/mm/ksm` and the files of a process.
//!
//! A file that this kernel lacks is `None`. Every number stands alone in its file (`mm/ksm.c`), but for
//! those of `/proc/PID/ksm_stat`, one line each (`fs/proc/base.c`, `proc_pid_ksm_stat`).

use std::{fs, path::Path, str::FromStr};

use super::read_small;
use crate::model::{Ksm, KsmAccount};

/// Where KSM tells of the whole host.
pub const KSM_ROOT: &str = "/sys/kernel/mm/ksm";

/// Reads the state of KSM below `root`, normally [`KSM_ROOT`], and what `proc_root` says of processes;
/// `None` if this kernel has no KSM.
#[must_use]
pub fn load(root: &Path, proc_root: &Path) -> Option<Ksm> {
    let count = |file: &str| number::<u64>(&root.join(file));
    let own = proc_root.join("self");
    Some(Ksm {
        run: count("run")?,
        pages_shared: count("pages_shared")?,
        pages_sharing: count("pages_sharing")?,
        pages_unshared: count("pages_unshared")?,
        pages_volatile: count("pages_volatile")?,
        full_scans: count("full_scans")?,
        pages_to_scan: count("pages_to_scan")?,
        sleep_ms: count("sleep_millisecs")?,
        merge_across_nodes: count("merge_across_nodes"),
        general_profit_bytes: number(&root.join("general_profit")),
        counts_by_process: merging_pages(&own).is_some(),
        profit_by_process: profit_bytes(&own).is_some(),
    })
}

/// The thread id of `ksmd`; `None` if it cannot be seen, say from inside a container. It starts with the kernel
/// and never ends, so it is among the first processes.
#[must_use]
pub fn ksmd(proc_root: &Path) -> Option<u32> {
    let pids = fs::read_dir(proc_root).ok()?.flatten();
    let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.find(|pid| {
        read_small(&proc_root.join(pid.to_string()).join("stat")).is_ok_and(|stat| is_ksmd(&stat))
    })
}

/// Whether a process with this `stat` file is `ksmd`: anybody may call himself so, but not be a kernel thread.
fn is_ksmd(stat: &str) -> bool {
    /// `include/linux/sched.h`.
    const PF_KTHREAD: u32 = 0x0020_0000;
    let flags = stat
        .split_once(" (ksmd) ")
        .and_then(|(_, fields)| fields.split_ascii_whitespace().nth(6)?.parse::<u32>().ok());
    flags.is_some_and(|flags| flags & PF_KTHREAD != 0)
}

/// KSM's account for process `pid`, as far as `ksm` says that this kernel keeps one.
#[must_use]
pub fn account(proc_root: &Path, pid: u32, ksm: &Ksm) -> KsmAccount {
    let process = proc_root.join(pid.to_string());
    let stat = if ksm.profit_by_process { read_small(&process.join("ksm_stat")).ok() } else { None };
    let stat = stat.unwrap_or_default();
    // From 6.6 on one file has both.
    let merging = || line::<u64>(&stat, "ksm_merging_pages").or_else(|| merging_pages(&process));
    KsmAccount {
        merging_pages: ksm.counts_by_process.then(merging).flatten(),
        profit_bytes: line(&stat, "ksm_process_profit"),
    }
}

fn merging_pages(process: &Path) -> Option<u64> {
    number(&process.join("ksm_merging_pages"))
}

fn profit_bytes(process: &Path) -> Option<i64> {
    line(&read_small(&process.join("ksm_stat")).ok()?, "ksm_process_profit")
}

/// The number behind `name` in `ksm_stat`.
fn line<N: FromStr>(ksm_stat: &str, name: &str) -> Option<N> {
    ksm_stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

fn number<N: FromStr>(file: &Path) -> Option<N> {
    read_small(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_kernel_thread_is_ksmd() {
        assert!(is_ksmd("39 (ksmd) S 2 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 25 5 1 0 31 0 0"));
        assert!(!is_ksmd("39 (ksmd) S 1 39 39 0 -1 4194304 0 0 0 0 0 0 0 0 25 5 1 0 31 0 0"));
        assert!(!is_ksmd("38 (ksmd2) S 2 0 0 0 -1 2129984 0"));
        assert!(!is_ksmd(""));
    }

    #[test]
    fn the_profit_may_be_negative() {
        let stat = "ksm_rmap_items 10\nksm_zero_pages 0\nksm_merging_pages 0\nksm_process_profit -640\n";
        assert_eq!(line::<i64>(stat, "ksm_process_profit"), Some(-640));
        assert_eq!(line::<i64>("ksm_rmap_items 10\n", "ksm_process_profit"), None);
    }

    #[test]
    fn what_an_old_kernel_lacks_is_unknown() {
        let root = tempfile::tempdir().unwrap();
        let (ksm, proc_root) = (root.path().join("ksm"), root.path().join("proc"));
        assert_eq!(load(&ksm, &proc_root), None);
        fs::create_dir_all(&ksm).unwrap();
        fs::create_dir_all(proc_root.join("self")).unwrap();
        fs::create_dir_all(proc_root.join("7")).unwrap();
        let files = ["run", "pages_shared", "pages_sharing", "pages_unshared", "pages_volatile"];
        for file in files.into_iter().chain(["full_scans", "pages_to_scan", "sleep_millisecs"]) {
            fs::write(ksm.join(file), "3\n").unwrap();
        }
        let old = load(&ksm, &proc_root).unwrap();
        assert_eq!((old.run, old.sleep_ms, old.general_profit_bytes), (3, 3, None));
        assert_eq!(account(&proc_root, 7, &old), KsmAccount::default());

        fs::write(proc_root.join("self/ksm_merging_pages"), "0\n").unwrap();
        fs::write(proc_root.join("7/ksm_merging_pages"), "512\n").unwrap();
        fs::write(proc_root.join("7/ksm_stat"), "ksm_process_profit 2\n").unwrap();
        let newer = load(&ksm, &proc_root).unwrap();
        let expected = KsmAccount { merging_pages: Some(512), profit_bytes: None };
        assert_eq!(account(&proc_root, 7, &newer), expected);
    }
}
