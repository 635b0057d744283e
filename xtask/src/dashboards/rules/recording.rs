//! Recording rules: the few sums that the fleet dashboard and the alerts ask for again and again.

use mmu_trace::metrics::table;

use crate::dashboards::{
    dashboard::Scope,
    figures,
    promql::{Expr, HOST, Selector, VM},
};

/// The window of rates: four scrapes of a minute fit in it.
const WINDOW: &str = "5m";

/// A series that a rule records.
#[derive(Clone, Copy, Debug)]
pub(in crate::dashboards) struct Recorded {
    /// Its name: prefix, what it is of whom, and how it is computed.
    pub(in crate::dashboards) name: &'static str,
    /// Its labels.
    labels: &'static [&'static str],
    /// What it holds.
    expr: fn() -> Expr,
}

impl Recorded {
    /// What it holds.
    pub(in crate::dashboards) fn expr(&self) -> Expr {
        (self.expr)()
    }

    /// Its samples.
    pub(in crate::dashboards) fn selector(&self) -> Selector {
        Selector::named(self.name, self.labels)
    }
}

macro_rules! recorded {
    ($($(#[$doc:meta])+ $id:ident = $name:literal $labels:ident $expr:expr;)+) => {
        $($(#[$doc])+ pub(in crate::dashboards) const $id: Recorded =
            Recorded { name: $name, labels: $labels, expr: $expr };)+
        /// All of them, in the order of the file.
        pub(in crate::dashboards) const ALL: &[Recorded] = &[$($id,)+];
    };
}

recorded! {
    /// vCPU time in refaults of each VM, seconds per second.
    VM_REFAULT_SECONDS = "mmu_trace:vm_refault_seconds:rate5m" VM || of_vms(&table::REFAULT_SECONDS_TOTAL);
    /// Refaults of each VM.
    VM_REFAULTS = "mmu_trace:vm_refaults:rate5m" VM || of_vms(&table::REFAULTS);
    /// Pages of each VM that KSM merged.
    VM_KSM_MERGES = "mmu_trace:vm_ksm_merges:rate5m" VM || of_vms(&table::KSM_MERGES);
    /// KSM pages of each VM copied on write.
    VM_KSM_COW_BREAKS = "mmu_trace:vm_ksm_cow_breaks:rate5m" VM || of_vms(&table::KSM_COW_BREAKS);
    /// vCPU time in refaults on each host, seconds per second.
    HOST_REFAULT_SECONDS = "mmu_trace:host_refault_seconds:rate5m" HOST
        || Scope::All.of(&table::REFAULT_SECONDS_TOTAL).rate(WINDOW).sum_by(HOST);
    /// The part of it that KSM is behind.
    HOST_KSM_REFAULT_SECONDS = "mmu_trace:host_ksm_refault_seconds:rate5m" HOST
        || figures::ksm_refault_seconds(Scope::All, WINDOW);
    /// Memory that KSM saves on each host.
    HOST_KSM_SAVED_BYTES = "mmu_trace:host_ksm_saved_bytes:product" HOST
        || figures::saved_bytes(Scope::All).sum_by(HOST);
    /// VMs on each host.
    HOST_VMS = "mmu_trace:host_vms:sum" HOST || Scope::All.of(&table::VM_INFO).value().sum_by(HOST);
    /// Hooks that are needed and not attached.
    HOST_MISSING_HOOKS = "mmu_trace:host_missing_hooks:sum" HOST || figures::missing_hooks(Scope::All);
    /// What was lost or missed.
    HOST_LOSSES = "mmu_trace:host_losses:increase15m" HOST || figures::losses(Scope::All, "15m");
}

fn of_vms(series: &table::Series) -> Expr {
    Scope::All.of(series).unlike("domain", figures::NO_VM).rate(WINDOW).sum_by(VM)
}
