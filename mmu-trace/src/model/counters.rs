//! The counters of one VM.

use std::collections::BTreeMap;

use mmu_trace_ebpf::kind::{Cause, FaultResult, Initiator, Outcome};
use serde::{Deserialize, Serialize};

/// Everything counted for one VM. Maps hold only what is not zero.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// `change_pte` calls by cause, then outcome.
    pub change_pte: BTreeMap<Cause, BTreeMap<Outcome, u64>>,
    /// Calls whose duration is known.
    pub change_pte_timed: u64,
    /// Time of those, nanoseconds.
    pub change_pte_ns: u64,
    /// `change_pte` calls that the brackets imply, whether or not the kernel has the callback.
    pub would_be: BTreeMap<Cause, u64>,
    /// The invalidation table.
    pub invalidations: Vec<Invalidation>,
    /// Entries of `kvm_mmu_page_fault`.
    pub faults_entered: u64,
    /// Those of them that hit a mapping which did not allow the access.
    pub permission_faults: u64,
    /// Finished faults by result.
    pub faults: BTreeMap<FaultResult, u64>,
    /// Faults whose duration is known.
    pub faults_timed: u64,
    /// Time of those, nanoseconds.
    pub faults_ns: u64,
    /// Refaults by the cause of the zap.
    pub refaults: BTreeMap<Cause, Refaults>,
    /// Pages merged by KSM.
    pub ksm_merges: u64,
    /// Copy-on-write breaks of KSM pages.
    pub ksm_cow_breaks: u64,
    /// Pages taken out of KSM by `break_ksm`.
    pub ksm_unmerges: u64,
    /// `write_protect_page` calls that tore the mapping down and then gave up.
    pub ksm_failed_attempts: u64,
}

/// Refaults of one cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refaults {
    /// How many.
    pub n: u64,
    /// Those that a working `change_pte` would have saved.
    pub avoidable: u64,
    /// Time inside `kvm_mmu_page_fault`, nanoseconds.
    pub ns: u64,
    /// The part of `ns` spent in avoidable ones.
    pub avoidable_ns: u64,
}

/// One row of the invalidation table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invalidation {
    /// What the row is about.
    #[serde(flatten)]
    pub key: InvalidationKey,
    /// Finished brackets.
    pub ranges: u64,
    /// Their length in 4 KiB pages.
    pub pages: u64,
    /// Brackets in which KVM zapped at least one SPTE.
    pub zapped: u64,
    /// Time between start and end, nanoseconds.
    pub ns: u64,
    /// A caller behind the cause `other`, symbolised; `None` for named causes and unknown callers.
    pub caller: Option<String>,
}

/// What a row of the invalidation table is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InvalidationKey {
    /// Why.
    pub cause: Cause,
    /// Who.
    pub initiator: Initiator,
    /// The kernel's `enum mmu_notifier_event`, lower case without prefix (`clear`, `protection_vma`).
    pub event: String,
}

/// Sparse histograms: bucket index of `mmu_trace_ebpf::histogram` to count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histograms {
    /// Time inside `kvm_mmu_page_fault`.
    pub fault: BTreeMap<u16, u64>,
    /// The same for refaults.
    pub refault: BTreeMap<u16, u64>,
    /// From the end of the bracket that zapped a page to its refault.
    pub refault_delay: BTreeMap<u16, u64>,
}

impl Counters {
    /// All `change_pte` calls.
    #[must_use]
    pub fn change_pte_calls(&self) -> u64 {
        self.change_pte.values().flat_map(BTreeMap::values).sum()
    }

    /// `change_pte` calls with `outcome`, over all causes.
    #[must_use]
    pub fn change_pte_outcome(&self, outcome: Outcome) -> u64 {
        self.change_pte.values().filter_map(|by_outcome| by_outcome.get(&outcome)).sum()
    }

    /// `change_pte` calls of `cause`, over all outcomes.
    #[must_use]
    pub fn change_pte_cause(&self, cause: Cause) -> u64 {
        self.change_pte.get(&cause).map_or(0, |by_outcome| by_outcome.values().sum())
    }

    /// All refaults, whatever zapped the page.
    #[must_use]
    pub fn refaults_total(&self) -> Refaults {
        self.refaults.values().fold(Refaults::default(), |sum, r| Refaults {
            n: sum.n + r.n,
            avoidable: sum.avoidable + r.avoidable,
            ns: sum.ns + r.ns,
            avoidable_ns: sum.avoidable_ns + r.avoidable_ns,
        })
    }

    /// Whether nothing at all was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
