//! Which states, read and not traced, a snapshot has, and why it lacks the others.

use super::Snapshot;

/// A group of states that the kernel offers or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// KSM on the whole host.
    KsmState,
    /// Merged pages of each process.
    KsmMergingPages,
    /// KSM's profit of each process.
    KsmProfit,
    /// What our BPF programs cost.
    BpfRunTime,
}

impl Reading {
    /// Every one.
    pub const ALL: &[Self] = &[Self::KsmState, Self::KsmMergingPages, Self::KsmProfit, Self::BpfRunTime];

    /// The name used in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::KsmState => "ksm_state",
            Self::KsmMergingPages => "ksm_merging_pages",
            Self::KsmProfit => "ksm_profit",
            Self::BpfRunTime => "bpf_run_time",
        }
    }

    /// Why a snapshot has none.
    const fn reason(self) -> &'static str {
        match self {
            Self::KsmState => "/sys/kernel/mm/ksm says nothing: this kernel has no KSM",
            Self::KsmMergingPages => "this kernel has no /proc/PID/ksm_merging_pages (Linux 5.19)",
            Self::KsmProfit => "this kernel has no ksm_process_profit in /proc/PID/ksm_stat (Linux 6.4)",
            Self::BpfRunTime => "the kernel measures it only while kernel.bpf_stats_enabled is 1",
        }
    }
}

impl Snapshot {
    /// Why `reading` is not in this snapshot; `None` if it is.
    #[must_use]
    pub fn unread(&self, reading: Reading) -> Option<&'static str> {
        let is_known = match reading {
            Reading::KsmState => self.ksm.is_some(),
            Reading::KsmMergingPages => self.ksm.is_some_and(|ksm| ksm.counts_by_process),
            Reading::KsmProfit => self.ksm.is_some_and(|ksm| ksm.profit_by_process),
            Reading::BpfRunTime => self.programs.is_some(),
        };
        (!is_known).then(|| reading.reason())
    }
}
