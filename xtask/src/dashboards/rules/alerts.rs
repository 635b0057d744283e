//! Alerts: few, each with something to do. None is critical: a guest that is slower still runs.

use mmu_trace::metrics::table;

use super::recording::{self as recorded, Recorded};
use crate::dashboards::{
    dashboard::Scope,
    figures::{self, NO_VM},
    promql::{Expr, HOST, Selector, VM},
};

/// The scrape job that the alert for a missing daemon expects.
const JOB: &str = "mmu-trace";

/// Causes of invalidations that are neither KSM's nor a guest's own doing.
const HOST_CAUSES: &str = "numa_balancing|migrate|thp_collapse|thp_split|reclaim|dirty_tracking|protect|fork";

/// How soon somebody should look.
#[derive(Clone, Copy, Debug)]
pub(super) enum Severity {
    /// Today: a guest pays.
    Warning,
    /// When there is time: the figures are not what they could be.
    Info,
}

/// One alert.
#[derive(Clone, Debug)]
pub(in crate::dashboards) struct Alert {
    /// Its name, which is its runbook's.
    pub(in crate::dashboards) name: &'static str,
    /// What must have data for it to be able to fire.
    pub(in crate::dashboards) watched: Expr,
    /// When it fires.
    pub(in crate::dashboards) expr: Expr,
    /// For how long that must be so.
    pub(super) pending: &'static str,
    pub(super) severity: Severity,
    pub(super) summary: &'static str,
    pub(super) description: &'static str,
}

impl Severity {
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// Every alert.
pub(in crate::dashboards) fn all() -> Vec<Alert> {
    vec![
        down(),
        scrape_errors(),
        hook_missing(),
        data_incomplete(),
        untraced(),
        vm_refault_cost(),
        ksm_churn(),
        ksm_not_worth_it(),
        invalidation_storm(),
        fault_retries(),
    ]
}

fn of(series: &table::Series) -> Selector {
    Scope::All.of(series)
}

fn recorded(recorded: &Recorded) -> Expr {
    recorded.selector().value()
}

fn down() -> Alert {
    let up = Selector::named("up", &[]).is("job", JOB);
    Alert {
        name: "MmuTraceDown",
        watched: up.value(),
        expr: up.value().down_or_absent(),
        pending: "5m",
        severity: Severity::Warning,
        summary: "mmu-trace is not scraped",
        description: "No figures from {{ with $labels.instance }}{{ . }}{{ else }}any host{{ end }}: the \
                      daemon has ended, or its counters cannot be read.",
    }
}

fn scrape_errors() -> Alert {
    let errors = of(&table::SCRAPE_ERRORS).increase("15m").sum_by(HOST);
    Alert {
        name: "MmuTraceScrapeErrors",
        watched: errors.clone(),
        expr: errors.above(0.0),
        pending: "5m",
        severity: Severity::Info,
        summary: "mmu-trace on {{ $labels.instance }} cannot always read its counters",
        description: "{{ $value | humanize }} scrapes failed in 15 minutes.",
    }
}

fn hook_missing() -> Alert {
    // Without KVM nothing is attached, which is another alert.
    let untraced = of(&table::UNTRACED_SECONDS).rate("5m").above(0.0);
    let missing = recorded(&recorded::HOST_MISSING_HOOKS);
    Alert {
        name: "MmuTraceHookMissing",
        watched: missing.clone(),
        expr: missing.above(0.0).except_hosts_with(&untraced),
        pending: "10m",
        severity: Severity::Info,
        summary: "mmu-trace on {{ $labels.instance }} lacks hooks that its figures need",
        description: "{{ $value | humanize }} hooks are not attached: figures are too low or absent.",
    }
}

fn data_incomplete() -> Alert {
    let losses = recorded(&recorded::HOST_LOSSES);
    Alert {
        name: "MmuTraceDataIncomplete",
        watched: losses.clone(),
        expr: losses.above(0.0),
        pending: "30m",
        severity: Severity::Info,
        summary: "mmu-trace on {{ $labels.instance }} keeps losing data",
        description: "{{ $value | humanize }} returns, entries or pages were lost in 15 minutes: the \
                      figures are too low.",
    }
}

fn untraced() -> Alert {
    let share = of(&table::UNTRACED_SECONDS).rate("10m").sum_by(HOST);
    Alert {
        name: "MmuTraceUntraced",
        watched: share.clone(),
        expr: share.above(0.5),
        pending: "10m",
        severity: Severity::Info,
        summary: "mmu-trace on {{ $labels.instance }} traces nothing",
        description: "Nothing was traced for {{ $value | humanizePercentage }} of the last 10 minutes: KVM \
                      is not loaded again, or the daemon was told to let go.",
    }
}

fn vm_refault_cost() -> Alert {
    let cost = recorded(&recorded::VM_REFAULT_SECONDS);
    Alert {
        name: "MmuTraceVmRefaultCost",
        watched: cost.clone(),
        expr: cost.above(0.02),
        pending: "15m",
        severity: Severity::Warning,
        summary: "VM {{ $labels.domain }} on {{ $labels.instance }} spends much time in refaults",
        description: "{{ $value | humanizePercentage }} of a vCPU goes into faults on pages that the host \
                      had torn down.",
    }
}

fn ksm_churn() -> Alert {
    let rate = |series: &table::Series| of(series).unlike("domain", NO_VM).rate("30m").sum_by(VM);
    let breaks = || rate(&table::KSM_COW_BREAKS);
    let churn = figures::share(breaks(), rate(&table::KSM_MERGES));
    Alert {
        name: "MmuTraceKsmChurn",
        watched: breaks(),
        expr: churn.above(0.5).where_also(breaks().above(10.0)),
        pending: "30m",
        severity: Severity::Warning,
        summary: "KSM merges pages of VM {{ $labels.domain }} on {{ $labels.instance }} that are soon \
                  written to",
        description: "{{ $value | humanizePercentage }} as many copies on write as merges over 30 minutes, \
                      more than 10 a second: work for nothing.",
    }
}

fn ksm_not_worth_it() -> Alert {
    let cost = || recorded(&recorded::HOST_KSM_REFAULT_SECONDS);
    let saved_gib = recorded(&recorded::HOST_KSM_SAVED_BYTES).scaled_down(1 << 30);
    Alert {
        name: "MmuTraceKsmNotWorthIt",
        watched: cost(),
        expr: cost().per(saved_gib).above(0.1).where_also(cost().above(0.05)),
        pending: "1h",
        severity: Severity::Warning,
        summary: "KSM on {{ $labels.instance }} saves little memory for what its guests pay",
        description: "{{ $value | humanize }} vCPUs are spent in refaults for each GiB saved.",
    }
}

fn invalidation_storm() -> Alert {
    let by_vm_and_cause = &["job", "instance", "domain", "uuid", "cause"];
    let zapping = of(&table::INVALIDATIONS_ZAPPED).unlike("domain", NO_VM).rate("5m");
    let by_host = of(&table::INVALIDATIONS_ZAPPED)
        .unlike("domain", NO_VM)
        .like("cause", HOST_CAUSES)
        .rate("5m")
        .sum_by(by_vm_and_cause);
    Alert {
        name: "MmuTraceInvalidationStorm",
        watched: zapping,
        expr: by_host.above(100.0),
        pending: "15m",
        severity: Severity::Warning,
        summary: "The host keeps tearing down memory of VM {{ $labels.domain }} on {{ $labels.instance }}",
        description: "{{ $value | humanize }} zapping invalidations a second, cause {{ $labels.cause }}.",
    }
}

fn fault_retries() -> Alert {
    let faults = || of(&table::PAGE_FAULTS).unlike("domain", NO_VM);
    let retries = || faults().is("result", "retry").rate("5m").sum_by(VM);
    let all = faults().rate("5m").sum_by(VM);
    Alert {
        name: "MmuTraceFaultRetries",
        watched: retries(),
        expr: retries().per(all).above(0.3).where_also(retries().above(100.0)),
        pending: "15m",
        severity: Severity::Warning,
        summary: "Faults of VM {{ $labels.domain }} on {{ $labels.instance }} must often be taken again",
        description: "{{ $value | humanizePercentage }} of its faults are retried, more than 100 a second: \
                      they meet running invalidations.",
    }
}
