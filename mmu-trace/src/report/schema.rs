//! The types of schema `mmu-trace-report/1`: their field names and order are the contract.
//!
//! A change that readers can notice raises the number in [`SCHEMA`]; a further optional field does
//! not.

use std::collections::BTreeMap;

use mmu_trace_ebpf::kind::{Cause, Initiator};
use serde::{Deserialize, Serialize};

use crate::model::{Backend, HookState, Mmu};

/// The schema's name and version.
pub const SCHEMA: &str = "mmu-trace-report/1";

/// The name under which events of no known VM are reported.
pub const UNATTRIBUTED: &str = "unattributed";

/// Everything `mmu-trace report --format json` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// The traced kernel.
    pub host: Host,
    /// The time covered.
    pub window: Window,
    /// What may be missing.
    pub quality: Quality,
    /// The VMs, oldest first.
    pub vms: Vec<Vm>,
    /// Events of no known VM.
    pub unattributed: Vm,
}

/// The traced kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// `uname -r`.
    pub kernel: String,
    /// `uname -m`.
    pub arch: String,
    /// Whether the kernel has the callback.
    pub change_pte: ChangePtePresence,
    /// How the question was answered.
    pub mode: Mode,
}

/// Whether the kernel has `__mmu_notifier_change_pte`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangePtePresence {
    /// Up to Linux 6.9.
    Present,
    /// From Linux 6.10 on.
    Absent,
}

/// How the question was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// From the `change_pte` calls themselves.
    Direct,
    /// From the brackets in which older kernels would have called it.
    Counterfactual,
}

impl Mode {
    /// The label used in reports and metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Counterfactual => "counterfactual",
        }
    }
}

/// The time covered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// RFC 3339, UTC.
    pub start: String,
    /// Length.
    pub seconds: f64,
}

/// What may be missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quality {
    /// Nothing is missing from the counters.
    pub complete: bool,
    /// Events the recording lost; the counters do not come from them.
    pub lost_events: u64,
    /// Hits of probes that nobody saw, mostly returns of functions that sleep.
    pub missed_returns: u64,
    /// Entries that found a map full, evicted page records included.
    pub map_full: u64,
    /// Brackets that ended without a known start.
    pub orphan_brackets: u64,
    /// `change_pte` calls outside every known bracket.
    pub unbracketed: u64,
    /// Whether KVM was unloaded meanwhile: nothing of it is seen since.
    #[serde(default)]
    pub kvm_replaced: bool,
    /// Every hook.
    pub hooks: Vec<Hook>,
}

/// One hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Its name in the catalogue.
    pub hook: String,
    /// The kernel symbol.
    pub symbol: String,
    /// How it is attached.
    pub backend: Backend,
    /// Whether it is.
    pub state: HookState,
    /// Why not, or what is degraded.
    pub reason: Option<String>,
}

/// One VM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Vm {
    /// Its name.
    pub name: String,
    /// Its UUID, if known.
    pub uuid: Option<String>,
    /// The VMM's process id, if known.
    pub pid: Option<u32>,
    /// The VMM, if known.
    pub vmm: Option<String>,
    /// KVM's page-table implementation, if known.
    pub mmu: Option<Mmu>,
    /// VMs in this process, the most seen at a time, if known; all of them share these figures.
    #[serde(default)]
    pub vms_in_process: Option<u32>,
    /// `null` where the kernel has no such callback or its hook is not attached.
    pub change_pte: Option<ChangePte>,
    /// `null` in direct mode.
    pub would_be_change_pte: Option<Causes>,
    /// Most frequent first; `null` if the hooks are not attached.
    pub invalidations: Option<Vec<Invalidation>>,
    /// `null` if the hook is not attached.
    pub page_faults: Option<PageFaults>,
    /// `null` if a hook they need is not attached.
    pub refaults: Option<Refaults>,
    /// What KSM did with its pages.
    pub ksm: Ksm,
}

/// `change_pte` calls.
///
/// `noop` and `noop_ratio` are about guest memory: the ratio is noop / (noop + effective), where
/// effective is `effective_*` and noop is `noop_*`. Calls that reached no memslot, no KVM or no
/// known bracket are part of `calls` and of neither side of the ratio.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChangePte {
    /// All calls: the sum of the outcomes, and of the causes.
    pub calls: u64,
    /// Calls that found nothing to change in a guest's memory.
    pub noop: u64,
    /// `null` if no call concerned guest memory.
    pub noop_ratio: Option<f64>,
    /// Calls by outcome.
    pub outcomes: Outcomes,
    /// Calls by cause.
    pub causes: Causes,
    /// Time inside the callback; `null` if it was not measured.
    pub seconds: Option<f64>,
}

/// `change_pte` calls by outcome, see [`mmu_trace_ebpf::kind::Outcome`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the labels of Outcome and documented there")]
pub struct Outcomes {
    pub effective_updated: u64,
    pub effective_dropped: u64,
    pub noop_zapped_by_bracket: u64,
    pub noop_zapped_by_same_op: u64,
    pub noop_not_mapped: u64,
    pub not_guest_memory: u64,
    pub no_subscriber: u64,
    pub unbracketed: u64,
}

/// Counts by the causes that lead to `change_pte`, see [`Cause`]; every further cause is in `other`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the labels of Cause and documented there")]
pub struct Causes {
    pub ksm_write_protect: u64,
    pub ksm_replace: u64,
    pub ksm_unmerge: u64,
    pub cow_guest: u64,
    pub cow_host: u64,
    pub uprobe: u64,
    pub migrate: u64,
    pub other: u64,
}

/// Refaults by cause: the keys of [`Causes`], then every further cause that is not 0 (here `other`
/// is only what it says).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefaultCauses {
    /// The causes that lead to `change_pte`.
    #[serde(flatten)]
    pub change_pte: Causes,
    /// The others, where not 0.
    #[serde(flatten)]
    pub further: BTreeMap<Cause, u64>,
}

/// One row of the invalidation table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Invalidation {
    /// Why.
    pub cause: Cause,
    /// Who.
    pub initiator: Initiator,
    /// The kernel's event, lower case.
    pub event: String,
    /// Finished brackets.
    pub ranges: u64,
    /// Their length in 4 KiB pages.
    pub pages: u64,
    /// Brackets in which KVM zapped something.
    pub zapped: u64,
    /// From start to end, summed.
    pub seconds: f64,
    /// A caller behind the cause `other`, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
}

/// Guest faults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PageFaults {
    /// Entries of the fault handler.
    pub total: u64,
    /// Those of them that are in no result: still inside the handler, or their return was missed.
    #[serde(default)]
    pub unfinished: u64,
    /// Those of the total that hit a mapping which did not allow the access: P=1 on x86-64, permission
    /// and access flag faults on arm64.
    pub permission: u64,
    /// A mapping was installed.
    pub fixed: u64,
    /// The vCPU must fault again.
    pub retry: u64,
    /// Somebody else had installed the mapping.
    pub spurious: u64,
    /// The access was emulated.
    pub emulate: u64,
    /// MMIO, exits to userspace, results nobody saw.
    pub other: u64,
    /// Time inside the handler; `null` if it was not measured.
    pub seconds: Option<f64>,
    /// Median duration, nanoseconds; `null` without a histogram of this VM.
    pub p50_ns: Option<u64>,
    /// 99th percentile.
    pub p99_ns: Option<u64>,
}

/// Guest faults on pages whose mapping an invalidation had torn down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refaults {
    /// All of them.
    pub total: u64,
    /// Those a working `change_pte` would have saved.
    pub avoidable: u64,
    /// By the cause of the zap.
    pub causes: RefaultCauses,
    /// Time inside the handler.
    pub seconds: f64,
    /// The part of it in avoidable ones.
    pub avoidable_seconds: f64,
    /// Median duration, nanoseconds; `null` without a histogram of this VM.
    pub p50_ns: Option<u64>,
    /// 99th percentile.
    pub p99_ns: Option<u64>,
    /// Median time from the zap to the refault, nanoseconds.
    pub delay_p50_ns: Option<u64>,
    /// 99th percentile.
    pub delay_p99_ns: Option<u64>,
}

/// What KSM did; `null` where the hook is not attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ksm {
    /// Pages merged.
    pub merges: Option<u64>,
    /// Copy-on-write breaks of merged pages.
    pub cow_breaks: Option<u64>,
    /// Pages taken out again.
    pub unmerges: Option<u64>,
    /// Attempts that zapped the mapping and then gave up.
    pub failed_attempts: Option<u64>,
}

impl Outcomes {
    /// Calls that changed a mapping.
    #[must_use]
    pub const fn effective(&self) -> u64 {
        self.effective_updated + self.effective_dropped
    }

    /// Calls for guest memory that found nothing to change.
    #[must_use]
    pub const fn noop(&self) -> u64 {
        self.zapped_before() + self.noop_not_mapped
    }

    /// Calls made a no-op by an `invalidate_range_start`.
    #[must_use]
    pub const fn zapped_before(&self) -> u64 {
        self.noop_zapped_by_bracket + self.noop_zapped_by_same_op
    }

    /// Calls for guest memory: the denominator of the ratio.
    #[must_use]
    pub const fn decided(&self) -> u64 {
        self.effective() + self.noop()
    }

    /// All calls.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.decided() + self.not_guest_memory + self.no_subscriber + self.unbracketed
    }
}

impl Causes {
    /// The sum.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.ksm_write_protect
            + self.ksm_replace
            + self.ksm_unmerge
            + self.cow_guest
            + self.cow_host
            + self.uprobe
            + self.migrate
            + self.other
    }
}
