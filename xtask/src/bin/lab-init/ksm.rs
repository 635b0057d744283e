//! KSM's controls in sysfs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// What `/sys/kernel/mm/ksm/run` takes.
#[derive(Clone, Copy)]
pub(crate) enum Mode {
    /// ksmd sleeps. The write returns only after the batch in progress, so nothing runs afterwards.
    Stop = 0,
    /// ksmd scans.
    Run = 1,
    /// Every merged page is taken apart, in the task that writes this.
    Unmerge = 2,
}

/// A merge needs two scans (checksum, then merge); `pages_sharing` is right only some scans later.
const SCANS_TO_SETTLE: i64 = 6;
/// Far above what an emulated CPU needs for those.
const PATIENCE: Duration = Duration::from_secs(60);

/// Settings under which one scan covers all of the lab's pages and one stable node holds them all.
pub(crate) fn set_up() -> Result<()> {
    set_mode(Mode::Unmerge)?;
    set_mode(Mode::Stop)?;
    set("max_page_sharing", "65536")?;
    set("use_zero_pages", "0")?;
    set("pages_to_scan", "10000")?;
    set("sleep_millisecs", "10")
}

/// Writes `run`.
pub(crate) fn set_mode(mode: Mode) -> Result<()> {
    set("run", &(mode as u8).to_string())
}

/// Reads one of KSM's files.
pub(crate) fn read(name: &str) -> Result<i64> {
    crate::oracle::number(&file(name))
}

/// Merged pages of the one process that has some; 0 where the kernel does not count them. A forked child
/// takes its parent's count over, so there is no sum to be had.
pub(crate) fn merging_pages() -> Result<i64> {
    let mut most = 0;
    for process in fs::read_dir("/proc").context("cannot list /proc")? {
        let file = process.context("cannot list /proc")?.path().join("ksm_merging_pages");
        // Most of what is in /proc is no process, a process may end meanwhile, and the kernel's own have no
        // memory to say anything of.
        let text = fs::read_to_string(&file).unwrap_or_default();
        if !text.is_empty() {
            let pages: i64 =
                text.trim().parse().with_context(|| format!("{} is no number", file.display()))?;
            most = most.max(pages);
        }
    }
    Ok(most)
}

/// KSM pages that were copied since boot; `None` where the kernel does not count them.
pub(crate) fn copies() -> Result<Option<i64>> {
    let vmstat = fs::read_to_string("/proc/vmstat").context("cannot read /proc/vmstat")?;
    let line = vmstat.lines().find_map(|line| line.strip_prefix("cow_ksm "));
    line.map(|n| n.trim().parse().context("cow_ksm in /proc/vmstat is no number")).transpose()
}

/// Lets ksmd run until `pages` pages are merged and its counters have settled, then stops it.
pub(crate) fn merge(pages: i64) -> Result<()> {
    merge_in(pages, SCANS_TO_SETTLE)
}

/// Lets ksmd run until `pages` pages are merged, of which none was when it began, then stops it.
pub(crate) fn merge_once(pages: i64) -> Result<()> {
    merge_in(pages, 0)
}

fn merge_in(pages: i64, least_scans: i64) -> Result<()> {
    let first_scan = read("full_scans")?;
    let start = Instant::now();
    set_mode(Mode::Run)?;
    loop {
        let merged = read("pages_shared")? + read("pages_sharing")?;
        let scans = read("full_scans")? - first_scan;
        if merged == pages && scans >= least_scans {
            return set_mode(Mode::Stop);
        }
        if start.elapsed() > PATIENCE {
            set_mode(Mode::Stop)?;
            bail!("ksmd merged {merged} of {pages} pages in {scans} scans and {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn set(name: &str, value: &str) -> Result<()> {
    let path = file(name);
    fs::write(&path, value).with_context(|| format!("cannot write {value:?} to {}", path.display()))
}

fn file(name: &str) -> PathBuf {
    Path::new("/sys/kernel/mm/ksm").join(name)
}
