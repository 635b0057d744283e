//! How many leaf SPTEs the TDP MMU zaps: records of `kvmmmu:kvm_tdp_mmu_spte_changed` that pass a filter,
//! in a trace instance of their own. Nobody reads the records; the buffer counts what went into it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

const EVENT: &str = "events/kvmmmu/kvm_tdp_mmu_spte_changed";
/// A leaf that was present (`SPTE_MMU_PRESENT_MASK`, bit 11) and is not any more.
const FILTER: &str = "level == 1 && old_spte & 2048 && !(new_spte & 2048)";
/// Lines of a buffer's statistics that add up to the records written.
const WRITTEN: [&str; 4] = ["entries", "overrun", "commit overrun", "dropped events"];

fn instance() -> PathBuf {
    Path::new(super::TRACEFS).join("instances/lab")
}

/// Begins to count, if this kernel has the tracepoint.
pub(super) fn set_up() -> Result<()> {
    if !Path::new(super::TRACEFS).join(EVENT).exists() {
        return Ok(());
    }
    let instance = instance();
    fs::create_dir(&instance).context("cannot make a trace instance")?;
    fs::write(instance.join("buffer_size_kb"), "4").context("cannot shrink the trace buffers")?;
    let event = instance.join(EVENT);
    fs::write(event.join("filter"), FILTER).context("cannot filter kvm_tdp_mmu_spte_changed")?;
    fs::write(event.join("enable"), "1").context("cannot enable kvm_tdp_mmu_spte_changed")
}

/// Ends it.
pub(super) fn tear_down() -> Result<()> {
    let instance = instance();
    if !instance.exists() {
        return Ok(());
    }
    fs::write(instance.join(EVENT).join("enable"), "0").context("cannot disable kvm_tdp_mmu_spte_changed")?;
    fs::remove_dir(instance).context("cannot remove the trace instance")
}

/// The zaps so far; `None` if they are not counted.
pub(super) fn read() -> Result<Option<i64>> {
    let instance = instance();
    if !instance.exists() {
        return Ok(None);
    }
    let cpus = fs::read_dir(instance.join("per_cpu")).context("the trace instance has no CPUs")?;
    let mut written = 0;
    for cpu in cpus {
        let path = cpu?.path().join("stats");
        let stats = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        written += parse(&stats);
    }
    Ok(Some(written))
}

/// The records written to the buffer of one CPU.
fn parse(stats: &str) -> i64 {
    let lines = stats.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(name, _)| WRITTEN.contains(name)).filter_map(|(_, n)| n.trim().parse::<i64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overwritten_records_count() {
        let stats = "entries: 78\noverrun: 900\ncommit overrun: 0\nbytes: 4004\noldest event ts:  1.5\n\
            now ts:     9.1\ndropped events: 0\nread events: 12\n";
        assert_eq!(parse(stats), 978);
    }
}
