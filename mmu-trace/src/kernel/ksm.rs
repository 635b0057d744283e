//! What KSM says of itself: `/sys/kernel/mm/ksm` and the files of a process.
//!
//! A file that this kernel lacks is `None`. Every number stands alone in its file (`mm/ksm.c`), but for
//! those of `/proc/PID/ksm_stat`, one line each (`fs/proc/base.c`, `proc_pid_ksm_stat`).

use std::{fs, path::Path, str::FromStr};

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

/// KSM's account for process `pid`, as far as `ksm` says that this kernel keeps one.
#[must_use]
pub fn account(proc_root: &Path, pid: u32, ksm: &Ksm) -> KsmAccount {
    let process = proc_root.join(pid.to_string());
    KsmAccount {
        merging_pages: ksm.counts_by_process.then(|| merging_pages(&process)).flatten(),
        profit_bytes: ksm.profit_by_process.then(|| profit_bytes(&process)).flatten(),
    }
}

fn merging_pages(process: &Path) -> Option<u64> {
    number(&process.join("ksm_merging_pages"))
}

fn profit_bytes(process: &Path) -> Option<i64> {
    parse_profit(&fs::read_to_string(process.join("ksm_stat")).ok()?)
}

fn parse_profit(ksm_stat: &str) -> Option<i64> {
    ksm_stat.lines().find_map(|line| line.strip_prefix("ksm_process_profit ")?.trim().parse().ok())
}

fn number<N: FromStr>(file: &Path) -> Option<N> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profit_may_be_negative() {
        let stat = "ksm_rmap_items 10\nksm_zero_pages 0\nksm_merging_pages 0\nksm_process_profit -640\n";
        assert_eq!(parse_profit(stat), Some(-640));
        assert_eq!(parse_profit("ksm_rmap_items 10\n"), None);
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
