//! Counts by KVM's own tracepoints: records that pass a filter, each kind in a trace instance of its own.
//! Nobody reads the records; the buffers count what went into them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use xtask::phase::{Counts, PERMISSION_FAULTS, SPTES_ZAPPED};

/// One kind of record.
struct Kind {
    /// The counter's name.
    counter: &'static str,
    /// Its trace instance.
    instance: &'static str,
    /// The tracepoint, which not every kernel has.
    event: &'static str,
    /// What counts.
    filter: &'static str,
}

/// All of them. Several kinds may be of one counter, as long as a kernel has one of them only.
const KINDS: &[Kind] = &[
    // A leaf that was present (`SPTE_MMU_PRESENT_MASK`, bit 11) and is not any more.
    Kind {
        counter: SPTES_ZAPPED,
        instance: "lab_zaps",
        event: "kvmmmu/kvm_tdp_mmu_spte_changed",
        filter: "level == 1 && old_spte & 2048 && !(new_spte & 2048)",
    },
    // `PFERR_PRESENT_MASK`.
    Kind {
        counter: PERMISSION_FAULTS,
        instance: "lab_faults",
        event: "kvm/kvm_page_fault",
        filter: "error_code & 1",
    },
    // The mapping was there: the fault status is 0b0010xx for an access flag fault (`ESR_ELx_FSC_ACCESS`),
    // 0b0011xx for a permission fault (`ESR_ELx_FSC_PERM`).
    Kind {
        counter: PERMISSION_FAULTS,
        instance: "lab_faults",
        event: "kvm/kvm_guest_fault",
        filter: "hsr & 8",
    },
];

/// Lines of a buffer's statistics that add up to the records written.
const WRITTEN: [&str; 4] = ["entries", "overrun", "commit overrun", "dropped events"];

impl Kind {
    /// Those that this kernel has.
    fn all() -> impl Iterator<Item = &'static Self> {
        KINDS.iter().filter(|kind| Path::new(super::TRACEFS).join("events").join(kind.event).exists())
    }

    fn folder(&self) -> PathBuf {
        Path::new(super::TRACEFS).join("instances").join(self.instance)
    }

    fn set_up(&self) -> Result<()> {
        let folder = self.folder();
        fs::create_dir(&folder).context("cannot make a trace instance")?;
        fs::write(folder.join("buffer_size_kb"), "4").context("cannot shrink the trace buffers")?;
        let event = folder.join("events").join(self.event);
        fs::write(event.join("filter"), self.filter).context("cannot filter")?;
        fs::write(event.join("enable"), "1").context("cannot enable")
    }

    fn tear_down(&self) -> Result<()> {
        let folder = self.folder();
        let enable = folder.join("events").join(self.event).join("enable");
        fs::write(enable, "0").context("cannot disable")?;
        fs::remove_dir(folder).context("cannot remove the trace instance")
    }

    fn read(&self) -> Result<i64> {
        let cpus = fs::read_dir(self.folder().join("per_cpu")).context("the trace instance has no CPUs")?;
        let mut written = 0;
        for cpu in cpus {
            let path = cpu?.path().join("stats");
            let stats =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            written += parse(&stats);
        }
        Ok(written)
    }
}

/// Begins to count.
pub(super) fn set_up() -> Result<()> {
    Kind::all().try_for_each(|kind| kind.set_up().context(kind.event))
}

/// Ends it.
pub(super) fn tear_down() -> Result<()> {
    Kind::all().try_for_each(|kind| kind.tear_down().context(kind.event))
}

/// Adds the counts so far.
pub(super) fn read_into(counts: &mut Counts) -> Result<()> {
    for kind in Kind::all() {
        counts.insert(kind.counter.to_owned(), kind.read().context(kind.event)?);
    }
    Ok(())
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
