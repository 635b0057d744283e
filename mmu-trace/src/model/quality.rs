//! How far a snapshot can be trusted.

use std::collections::BTreeMap;

use mmu_trace_ebpf::kind::Gap;
use serde::{Deserialize, Serialize};

/// What may be missing from the figures. Every gap that exists is counted here and nowhere hidden.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quality {
    /// The kernel side's own counters; only what is not zero.
    pub gaps: BTreeMap<Gap, u64>,
    /// Hits that the kernel says its probes dropped (`recursion_misses`, `nmissed`), by hook, of the
    /// hooks for which it counts them: those of fentry and fexit from Linux 5.12 on, of kprobes from 6.7
    /// on.
    pub probe_misses: BTreeMap<String, u64>,
    /// Page records evicted before their refault came: those refaults are not counted.
    pub evicted_pages: u64,
    /// Every hook and its state.
    pub hooks: Vec<Hook>,
    /// Whether KVM was unloaded while its functions were hooked: what came after that is missing, also
    /// if it was loaded again.
    #[serde(default)]
    pub kvm_replaced: bool,
    /// Set where the end of a capture is missing or damaged: the snapshot is the last one before that.
    pub truncated: bool,
}

/// One logical hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Its name in the catalogue, e.g. `invalidate_range_start`.
    pub hook: String,
    /// The kernel symbol it is attached to, or was looked for.
    pub symbol: String,
    /// How it is attached.
    pub backend: Backend,
    /// Whether it is.
    pub state: HookState,
    /// Whether the main figures are wrong without it (then the snapshot is not complete).
    pub required: bool,
    /// Why it is not attached, or what is degraded.
    pub reason: Option<String>,
}

impl Hook {
    /// Whether the figures need it and it is not attached.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.required && self.state != HookState::Attached
    }
}

/// How a hook is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// fentry or fexit.
    Fentry,
    /// kprobe or kretprobe.
    Kprobe,
    /// Raw tracepoint.
    RawTracepoint,
    /// Not at all.
    None,
}

impl Backend {
    /// Every one, the best first.
    pub const ALL: &[Self] = &[Self::Fentry, Self::Kprobe, Self::RawTracepoint, Self::None];

    /// The label used in reports and metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::RawTracepoint => "raw_tracepoint",
            Self::None => "none",
        }
    }
}

/// Whether a hook is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookState {
    /// It works.
    Attached,
    /// This kernel has no such function; normal, see the reason.
    Absent,
    /// The kernel has it and attaching failed.
    Failed,
}

impl Quality {
    /// The counter of `gap`.
    #[must_use]
    pub fn gap(&self, gap: Gap) -> u64 {
        self.gaps.get(&gap).copied().unwrap_or(0)
    }

    /// Hits of our probes that nobody saw, mostly returns of functions that sleep.
    #[must_use]
    pub fn missed_returns(&self) -> u64 {
        let seen_by_kernel: u64 = self.probe_misses.values().sum();
        let seen_by_us: u64 = self.missed_returns_by_hook().iter().map(|(_, n)| n).sum();
        // The kernel counts a miss when it happens, we count it when the task comes back or exits: the
        // same misses, so the larger figure, never the sum.
        seen_by_kernel.max(seen_by_us)
    }

    /// Those that we noticed ourselves, because the task did what it can do only afterwards, by the hook
    /// that they belong to.
    #[must_use]
    pub fn missed_returns_by_hook(&self) -> [(&'static str, u64); 4] {
        [
            ("invalidate_range_end", self.gap(Gap::MissedRangeEnd)),
            ("page_fault", self.gap(Gap::MissedFaultReturn) + self.gap(Gap::MissedFaultEntry)),
            ("page_fault_result", self.gap(Gap::MissedResultReturn)),
            ("ksm", self.gap(Gap::MissedKsmReturn)),
        ]
    }

    /// Entries that found a map full, page records evicted included.
    #[must_use]
    pub fn map_full(&self) -> u64 {
        self.gap(Gap::TasksFull)
            + self.gap(Gap::PagesFull)
            + self.gap(Gap::VmsFull)
            + self.gap(Gap::InvalidationsFull)
            + self.evicted_pages
    }

    /// The hooks that the figures need and that are not attached.
    pub fn missing_hooks(&self) -> impl Iterator<Item = &Hook> {
        self.hooks.iter().filter(|hook| hook.is_missing())
    }

    /// Whether nothing is missing from the counters: no loss, no miss, every required hook attached.
    ///
    /// Lost events of a recording do not count against it: the counters do not come from them.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let no_gap = [Gap::OrphanBracket, Gap::Unbracketed, Gap::NestedTooDeep, Gap::UnknownCaller]
            .into_iter()
            .all(|gap| self.gap(gap) == 0);
        no_gap
            && self.missed_returns() == 0
            && self.map_full() == 0
            && !self.kvm_replaced
            && !self.truncated
            && self.missing_hooks().next().is_none()
    }
}
