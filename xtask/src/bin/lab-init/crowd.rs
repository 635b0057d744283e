//! Misses that the kernel counts, provoked: a guest that faults, ksmd, the tracers and a scraper that never
//! rests share one CPU.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, RawPid};
use rustix::thread::{CpuSet, sched_setaffinity};
use xtask::crowd::Crowd;
use xtask::phase::CROWD_VM;

use crate::vmm::Vmm;
use crate::{ksm, metrics, oracle, process};

/// Long enough for dozens of time slices.
const TIME: Duration = Duration::from_secs(3);
/// Faults on every page by the guest, and brackets by the VMM, over and over.
const BUSY: [&str; 4] = ["read", "host-write 9", "discard", "write 8"];

/// Runs it and writes `crowd.json`.
pub(crate) fn run() -> Result<()> {
    let first = oracle::read()?;
    let mut vmm = Vmm::start(CROWD_VM)?;
    vmm.command("fill 1")?;
    vmm.command("mergeable")?;
    confine(&[0])?;
    let (before, daemon_before) = (oracle::read()?, scrape()?);
    let scrapes = crowd(&mut vmm)?;
    let (after, daemon_after) = (oracle::read()?, scrape()?);
    confine(&[0, 1])?;
    vmm.stop()?;
    let last = oracle::read()?;
    let crowd = Crowd {
        whole: oracle::delta(&first.counts, &last.counts),
        scraped: oracle::delta(&before.counts, &after.counts),
        daemon: metrics::delta(&daemon_before, &daemon_after),
        scrapes,
        oracle_misses: last.misses - first.misses,
    };
    let path = Path::new(process::OUT).join("crowd.json");
    fs::write(&path, serde_json::to_vec_pretty(&crowd)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

fn scrape() -> Result<xtask::phase::Series> {
    metrics::parse(&metrics::get("/metrics").context("cannot scrape the daemon")?)
}

/// The guest and the scraper at work; how many scrapes there were.
fn crowd(vmm: &mut Vmm) -> Result<u64> {
    let done = AtomicBool::new(false);
    ksm::set_mode(ksm::Mode::Run)?;
    let outcome = std::thread::scope(|scope| {
        let scraper = scope.spawn(|| scrape_until(&done));
        let start = Instant::now();
        let mut busy = Ok(());
        while busy.is_ok() && start.elapsed() < TIME {
            busy = BUSY.iter().try_for_each(|command| vmm.command(command));
        }
        done.store(true, Ordering::Relaxed);
        let scrapes = scraper.join().unwrap_or_else(|_| anyhow::bail!("the scraper panicked"));
        busy.and(scrapes)
    });
    ksm::set_mode(ksm::Mode::Stop)?;
    outcome
}

fn scrape_until(done: &AtomicBool) -> Result<u64> {
    let mut n = 0;
    while !done.load(Ordering::Relaxed) {
        scrape()?;
        n += 1;
    }
    Ok(n)
}

/// Confines every thread to these CPUs. Kernel threads of one CPU stay where they are.
fn confine(cpus: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    cpus.iter().for_each(|&cpu| set.set(cpu));
    let ids = |dir: &Path| -> Result<Vec<RawPid>> {
        let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
        let names = entries.flatten().map(|entry| entry.file_name());
        Ok(names.filter_map(|name| name.to_str()?.parse().ok()).collect())
    };
    for pid in ids(Path::new("/proc"))? {
        // A process may have ended in between.
        for tid in ids(&Path::new("/proc").join(pid.to_string()).join("task")).unwrap_or_default() {
            let _ = sched_setaffinity(Pid::from_raw(tid), &set);
        }
    }
    Ok(())
}
