//! The lab's workload: its phases in order, and the record that each run leaves of them.
//!
//! `lab-init` executes [`PLAN`] and writes a [`Run`] as `phases.json`; the checks on the other side
//! hold the formula of every [`PhaseKind`] against it. The two share nothing but this file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::arch::Arch;

/// The kernel's own counts, by counter name. Deltas, so a gauge may fall.
pub type Counts = BTreeMap<String, i64>;

/// The daemon's counters, by series (`name{label="value",...}`). Deltas.
pub type Series = BTreeMap<String, f64>;

/// Where the daemon listens inside the lab.
pub const DAEMON_PORT: u16 = 9948;

/// Who a VM is, on its VMM's command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its name.
    pub name: &'static str,
    /// Its UUID.
    pub uuid: &'static str,
}

/// The VM that the phases are about.
pub const LAB_VM: Identity = Identity { name: "lab", uuid: "11111111-2222-3333-4444-555555555555" };

/// The VM of the run with a working `change_pte`.
pub const CONTROL_VM: Identity = Identity { name: "control", uuid: "11111111-2222-3333-4444-666666666666" };

/// The VM that shares a CPU with everything else.
pub const CROWD_VM: Identity = Identity { name: "crowd", uuid: "11111111-2222-3333-4444-777777777777" };

/// A VM with a page that is alone in its page table, and one with two.
pub const LONE_VMS: [Identity; 2] = [
    Identity { name: "lone1", uuid: "11111111-2222-3333-4444-888888888881" },
    Identity { name: "lone2", uuid: "11111111-2222-3333-4444-888888888882" },
];

/// An idle VM that runs before the tracer does, and must be found all the same.
pub const EARLY_VM: Identity = Identity { name: "early", uuid: "66666666-7777-8888-9999-000000000000" };

/// A function whose calls the kernel itself counts for us, through tracefs kprobe events.
///
/// Entry probes only. A return probe would replace the return address, and the tracer reads callers.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    /// The counter's name.
    pub name: &'static str,
    /// What kernels call the function; the first that a kernel has is counted.
    pub symbols: &'static [&'static str],
    /// Whether it came and went with `change_pte`. Every other one must exist: without it there is
    /// nothing to compare with.
    pub belongs_to_change_pte: bool,
    /// The only architecture that has it.
    pub only: Option<Arch>,
}

impl Counted {
    /// All that an architecture has.
    pub fn on(arch: Arch) -> impl Iterator<Item = &'static Self> {
        COUNTED.iter().filter(move |counted| counted.only.is_none_or(|only| only == arch))
    }
}

/// All of them.
const COUNTED: &[Counted] = &[
    Counted { belongs_to_change_pte: true, ..counted("change_pte", &["__mmu_notifier_change_pte"]) },
    counted("range_start", &["__mmu_notifier_invalidate_range_start"]),
    counted("range_end", &["__mmu_notifier_invalidate_range_end"]),
    counted("write_protect_page", &["write_protect_page", "write_protect_page.constprop.0"]),
    counted("break_cow", &["break_cow"]),
    counted("page_fault", &["kvm_mmu_page_fault", "kvm_handle_guest_abort"]),
    counted("kvm_unmap", &["kvm_unmap_gfn_range", UNMAP_BY_HVA]),
    Counted {
        belongs_to_change_pte: true,
        ..counted("kvm_set_spte", &["kvm_set_spte_gfn", SET_SPTE_BY_HVA])
    },
    Counted { only: Some(Arch::Amd64), ..counted("kvm_flush", &["kvm_flush_remote_tlbs"]) },
    Counted { only: Some(Arch::Arm64), ..counted("stage2_map", &["kvm_pgtable_stage2_map"]) },
    Counted { only: Some(Arch::Arm64), ..counted("stage2_relax", &["kvm_pgtable_stage2_relax_perms"]) },
    Counted { only: Some(Arch::Arm64), ..counted("stage2_put", &["kvm_s2_put_page"]) },
];

/// Up to 5.12 KVM's handlers take any range of the VMM's address space, guest memory or not.
const UNMAP_BY_HVA: &str = "kvm_unmap_hva_range";
const SET_SPTE_BY_HVA: &str = "kvm_set_spte_hva";

const fn counted(name: &'static str, symbols: &'static [&'static str]) -> Counted {
    Counted { name, symbols, belongs_to_change_pte: false, only: None }
}

/// KVM's statistics in debugfs, summed over all VMs, as far as a kernel has them.
pub const KVM_COUNTERS: &[&str] = &["pf_fixed", "exits", "irq_exits", "halt_exits"];

/// Leaf SPTEs that the TDP MMU has zapped, by its own tracepoint `kvm_tdp_mmu_spte_changed` (from 5.13
/// on).
pub const SPTES_ZAPPED: &str = "spte:zapped";

/// Guest faults that hit a mapping which did not allow the access, by KVM's own tracepoints
/// `kvm_page_fault` (x86-64) and `kvm_guest_fault` (arm64).
pub const PERMISSION_FAULTS: &str = "faults:permission";

/// Calls of KVM's unmap that the control module had do nothing.
pub const SUPPRESSED: &str = "control:suppressed";

/// Merged pages of the VMM (`/proc/PID/ksm_merging_pages`, from 5.19 on).
pub const MERGING_PAGES: &str = "ksm:merging_pages";

/// KSM pages that were copied, whatever for (`cow_ksm` in `/proc/vmstat`, from 5.19 on).
pub const KSM_COPIES: &str = "ksm:cow_ksm";

/// KSM's files in sysfs.
pub const KSM_COUNTERS: &[&str] = &["pages_shared", "pages_sharing", "full_scans"];

/// One step of the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PhaseKind {
    /// The guest reads every page for the first time.
    FirstTouch,
    /// ksmd merges all of the guest's pages, which the guest has mapped.
    Merge,
    /// The guest reads every page that a merge tore down.
    ReadAfterMerge,
    /// The guest writes every merged page.
    GuestWrite,
    /// The guest reads every page that it has just written: nothing is torn down any more.
    ReadAfterGuestWrite,
    /// The VMM writes every merged page, which the guest has mapped.
    HostWriteMapped,
    /// The guest reads every page that a write from the host tore down.
    ReadAfterHostWrite,
    /// The VMM writes every merged page, which the guest has not touched since the merge.
    HostWriteUnmapped,
    /// The guest reads every page whose mapping went with the merge, not with the write after it.
    ReadAfterUnmappedWrite,
    /// `echo 2 > /sys/kernel/mm/ksm/run`.
    UnmergeRun,
    /// `MADV_UNMERGEABLE`.
    UnmergeMadvise,
    /// The guest reads every page that an unmerge tore down.
    ReadAfterUnmerge,
    /// ksmd merges pages of the VMM that no memslot covers.
    OutsideMerge,
    /// The VMM writes those.
    OutsideWrite,
    /// The VMM forks; the child lives until [`PhaseKind::HostWriteAfterFork`] is over.
    Fork,
    /// The guest reads every page that the fork tore down.
    ReadAfterFork,
    /// The VMM writes every page that it shares with its child.
    HostWriteAfterFork,
    /// The VMM takes write access from its own mapping and gives it back, with `mprotect`.
    Protect,
    /// The guest reads every page that `mprotect` tore down.
    ReadAfterProtect,
    /// `MADV_DONTNEED` over the guest's pages.
    Discard,
    /// The guest reads every discarded page and gets the zero page.
    ReadAfterDiscard,
    /// The guest writes every page that maps the zero page.
    ZeroPageWrite,
    /// The guest reads its pages again and again while ksmd merges them. No formula, but every count
    /// of the tracer must still be the kernel's.
    LiveMerge,
}

impl PhaseKind {
    /// The name used in `phases.json` and in what is printed.
    #[must_use]
    pub fn label(self) -> String {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::String(label)) => label,
            _ => format!("{self:?}"),
        }
    }
}

/// The workload.
pub const PLAN: &[PhaseKind] = &[
    PhaseKind::FirstTouch,
    PhaseKind::Merge,
    PhaseKind::ReadAfterMerge,
    PhaseKind::GuestWrite,
    PhaseKind::ReadAfterGuestWrite,
    PhaseKind::Merge,
    PhaseKind::ReadAfterMerge,
    PhaseKind::HostWriteMapped,
    PhaseKind::ReadAfterHostWrite,
    PhaseKind::Merge,
    PhaseKind::HostWriteUnmapped,
    PhaseKind::ReadAfterUnmappedWrite,
    PhaseKind::Merge,
    PhaseKind::ReadAfterMerge,
    PhaseKind::UnmergeRun,
    PhaseKind::ReadAfterUnmerge,
    PhaseKind::Merge,
    PhaseKind::ReadAfterMerge,
    PhaseKind::UnmergeMadvise,
    PhaseKind::ReadAfterUnmerge,
    PhaseKind::OutsideMerge,
    PhaseKind::OutsideWrite,
    PhaseKind::Fork,
    PhaseKind::ReadAfterFork,
    PhaseKind::HostWriteAfterFork,
    PhaseKind::ReadAfterHostWrite,
    PhaseKind::Protect,
    PhaseKind::ReadAfterProtect,
    PhaseKind::Discard,
    PhaseKind::ReadAfterDiscard,
    PhaseKind::ZeroPageWrite,
    PhaseKind::LiveMerge,
];

/// What one phase did to the counters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// Which phase.
    pub kind: PhaseKind,
    /// How long it took, waiting for ksmd included.
    pub seconds: f64,
    /// The kernel's counts: every counter, those that did not move included.
    pub oracle: Counts,
    /// The daemon's counters that moved; `None` where no daemon ran.
    pub daemon: Option<Series>,
}

impl Phase {
    /// How often the kernel called the function counted as `name`, if it has it.
    #[must_use]
    pub fn calls(&self, name: &str) -> Option<i64> {
        self.oracle.get(&format!("calls:{name}")).copied()
    }
}

/// One pass through [`PLAN`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// `uname -r` of the lab.
    pub kernel: String,
    /// The architecture of the lab.
    pub arch: Arch,
    /// The MMU that KVM gives new VMs; on x86-64 there are two.
    pub mmu: Option<Mmu>,
    /// Counter name to the function that was counted.
    pub functions: BTreeMap<String, String>,
    /// N, the pages of the guest.
    pub pages: i64,
    /// M, the mergeable pages outside its memslots.
    pub outside_pages: i64,
    /// The phases, in the order they ran.
    pub phases: Vec<Phase>,
    /// The kernel's counts from before the VM was created until after it was gone.
    pub totals: Counts,
    /// KVM's statistics at the end of the VM's life (they go with it).
    pub kvm_at_end: Counts,
    /// Hits that the kernel's own kprobes missed; anything but 0 makes the counts worthless.
    pub oracle_misses: i64,
}

impl Run {
    /// Whether this kernel still has `change_pte`.
    #[must_use]
    pub fn has_change_pte(&self) -> bool {
        self.functions.contains_key("change_pte")
    }

    /// Whether this kernel's `change_pte` maps a page itself, so that no fault follows (arm64 up to 6.9).
    #[must_use]
    pub fn installs(&self) -> bool {
        self.arch == Arch::Arm64 && self.has_change_pte()
    }

    /// Whether KVM's handlers are called for guest memory only.
    #[must_use]
    pub fn handlers_see_guest_memory_only(&self) -> bool {
        let seen = |symbol: &str| self.functions.values().any(|function| function == symbol);
        !seen(UNMAP_BY_HVA) && !seen(SET_SPTE_BY_HVA)
    }
}

/// Which of KVM's MMUs builds a VM's page tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Mmu {
    /// The one of two-dimensional paging, the default from 5.15 on.
    Tdp,
    /// The older one, with reverse maps.
    Rmap,
}

impl Mmu {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tdp => "tdp",
            Self::Rmap => "rmap",
        }
    }
}

/// How a program that `lab-init` started ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What it was for.
    pub name: String,
    /// Its exit code; a signal counts as 128 plus its number.
    pub exit: i32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_those_of_the_file() {
        assert_eq!(PhaseKind::ReadAfterMerge.label(), "read_after_merge");
    }
}
