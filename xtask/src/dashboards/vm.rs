//! The dashboard `vm`: one VM, what it pays and who makes it pay.

use mmu_trace::metrics::table;

use super::{
    dashboard::{Dashboard, Row, Scope},
    figures::{self, PAGE_BYTES},
    host::COST,
    panel::{Column, Expect, Kind, Limits, Panel},
    promql::{Expr, RANGE, RATE, Selector, VM},
};

/// The dashboard.
pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "vm",
        description: "What one VM pays for KSM, change_pte and invalidations, and who makes it pay.",
        has_domain: true,
        rows: vec![
            Row { title: "What does it pay?", panels: summary() },
            Row { title: "Refaults", panels: refaults() },
            Row { title: "Who tears its memory down?", panels: invalidations() },
            Row { title: "KSM", panels: ksm() },
            Row { title: "change_pte", panels: change_pte() },
        ],
    }
}

fn of(series: &table::Series) -> Selector {
    Scope::Vm.of(series)
}

fn summary() -> Vec<Panel> {
    let grown = |series| of(series).increase(RANGE).sum();
    vec![
        Panel::new(
            Kind::Stat,
            "Refault cost",
            "percentunit",
            "Time in refaults over the time shown, as part of one vCPU. Good: below 1 %. Bad: above 2 %.",
        )
        .ask("of a vCPU", of(&table::REFAULT_SECONDS_TOTAL).rate(RANGE).sum())
        .limits(COST)
        .or_say("the VM is gone, or refaults are unknown on this kernel"),
        Panel::new(
            Kind::Stat,
            "Avoidable",
            "percentunit",
            "The share of refaults that a change_pte that works would have saved. High: the guest reads \
             pages that KSM has just merged. Low: it writes to them, or the host does something else to \
             them.",
        )
        .ask("of refaults", figures::share(grown(&table::AVOIDABLE_REFAULTS), grown(&table::REFAULTS)))
        .or_say("no refaults"),
        Panel::new(
            Kind::Stat,
            "Breaks per merge",
            "percentunit",
            "Copies on write of its KSM pages for each merge. Good: below 20 %. Bad: near 100 %: sharing \
             this VM's memory is work for nothing.",
        )
        .ask("breaks / merges", figures::share(grown(&table::KSM_COW_BREAKS), grown(&table::KSM_MERGES)))
        .limits(Limits::Above(0.2, 0.5))
        .or_say("nothing was merged"),
        Panel::new(
            Kind::Stat,
            "Shared with KSM",
            "bytes",
            "Memory of the VMM that shares a KSM page now. Good: much, if the cost is green. Bad: little, \
             while the cost is yellow or red: keep KSM away from this VM.",
        )
        .ask("shared", of(&table::KSM_MERGING_PAGES).value().sum().scaled(PAGE_BYTES))
        .or_say("needs Linux 5.19"),
        Panel::new(
            Kind::Table,
            "Who it is",
            "none",
            "The VM's process. Bad: more than one VM in a process where they should be told apart: they \
             share all figures.",
        )
        .ask("", of(&table::VM_INFO).value().max_by(&["job", "instance", "domain", "uuid", "pid", "vmm"]))
        .ask("", of(&table::VMS_IN_PROCESS).value().max_by(VM))
        .columns(&[
            Column::label("pid", "PID", 80),
            Column::label("vmm", "VMM", 100),
            Column::value("Value #B", "VMs", "none").wide(60),
            Column::label("instance", "Host", 160),
            Column::label("uuid", "UUID", 0),
        ])
        .size(8, 4)
        .or_say("the VM is gone"),
    ]
}

fn refaults() -> Vec<Panel> {
    let per_refault = |seconds: &table::Series, n: &table::Series| {
        figures::share(of(seconds).rate(RATE).sum(), of(n).rate(RATE).sum())
    };
    vec![
        Panel::new(
            Kind::Stack,
            "Refaults by cause",
            "ops",
            "Faults on pages that were torn down before, by what did it. Good: few. Bad: a steady rate: the \
             cause says whose (ksm_*, cow_*: KSM; numa_balancing, migrate, thp_*: the host's memory \
             management).",
        )
        .ask_parts(Expect::Always, "{{cause}}", of(&table::REFAULTS).rate(RATE).sum_by(&["cause"]))
        .size(8, 8)
        .or_say("no refaults, or they are unknown on this kernel"),
        Panel::new(
            Kind::Lines,
            "vCPU time in faults",
            "percentunit",
            "100 % is one whole vCPU. Good: refaults below 1 %. Bad: refaults above 2 %, or most of all \
             faults. The avoidable part is what a change_pte that works would give back.",
        )
        .ask("all faults", of(&table::PAGE_FAULT_SECONDS_TOTAL).rate(RATE).sum())
        .ask("refaults", of(&table::REFAULT_SECONDS_TOTAL).rate(RATE).sum())
        .ask("avoidable refaults", of(&table::AVOIDABLE_REFAULT_SECONDS).rate(RATE).sum())
        .size(8, 8)
        .or_say("the VM is gone, or faults are unknown on this kernel"),
        Panel::new(
            Kind::Stack,
            "Faults by result",
            "ops",
            "Good: nearly all fixed, and few once the guest has touched its memory. Bad: many retry, which \
             means that faults meet running invalidations and must be taken again.",
        )
        .ask_parts(Expect::Always, "{{result}}", of(&table::PAGE_FAULTS).rate(RATE).sum_by(&["result"]))
        .size(8, 8)
        .or_say("no faults, or they are unknown on this kernel"),
        Panel::new(
            Kind::Lines,
            "Duration of one refault",
            "s",
            "Good: microseconds. Bad: a p99 in the milliseconds: faults wait for a lock or for memory. The \
             mean is always there; the VM's quantiles need a daemon with --vm-histograms.",
        )
        .ask("mean", per_refault(&table::REFAULT_SECONDS_TOTAL, &table::REFAULTS))
        .ask("p99 of the host", host_quantile(&table::REFAULT_SECONDS, 0.99))
        .ask("p50", quantile(&table::VM_REFAULT_SECONDS, 0.5))
        .ask("p99", quantile(&table::VM_REFAULT_SECONDS, 0.99))
        .ask("p99 of all faults", quantile(&table::VM_PAGE_FAULT_SECONDS, 0.99))
        .size(12, 7)
        .or_say("no refaults"),
        Panel::new(
            Kind::Lines,
            "Delay from the teardown to the refault",
            "s",
            "How soon the guest wants back what was taken. Good: minutes, the page was idle. Bad: \
             milliseconds: pages are merged or moved while in use. The host's figure covers all its VMs; the \
             VM's own needs a daemon with --vm-histograms.",
        )
        .ask("p50 of the host", host_quantile(&table::REFAULT_DELAY_SECONDS, 0.5))
        .ask("p50 of this VM", quantile(&table::VM_REFAULT_DELAY_SECONDS, 0.5))
        .ask("p99 of this VM", quantile(&table::VM_REFAULT_DELAY_SECONDS, 0.99))
        .size(12, 7)
        .or_say("no refaults"),
    ]
}

fn quantile(series: &table::Series, q: f64) -> Expr {
    Scope::Vm.buckets(series).rate(RATE).sum_by(&["le"]).quantile(q)
}

fn host_quantile(series: &table::Series, q: f64) -> Expr {
    Scope::Host.buckets(series).rate(RATE).sum_by(&["le"]).quantile(q)
}

fn invalidations() -> Vec<Panel> {
    let rate = |series: &table::Series, by| of(series).rate(RATE).sum_by(by);
    vec![
        Panel::new(
            Kind::Stack,
            "Zapping invalidations, by cause and initiator",
            "ops",
            "Invalidations that took mappings from this guest. Good: few, from causes that somebody wants. \
             Bad: a steady rate, above all by ksmd, khugepaged, kcompactd, or numa_balancing.",
        )
        .ask_parts(
            Expect::Always,
            "{{cause}} by {{initiator}}",
            rate(&table::INVALIDATIONS_ZAPPED, &["cause", "initiator"]),
        )
        .size(8, 8)
        .or_say("nothing was torn down, or the brackets are not hooked"),
        Panel::new(
            Kind::Lines,
            "Pages invalidated, by cause",
            "ops",
            "4 KiB pages covered by invalidations, zapping or not. Good: as few as brackets. Bad: far more: \
             large ranges (fork, protect, discard, numa_balancing) after which the guest faults its memory \
             in again.",
        )
        .ask_parts(Expect::Always, "{{cause}}", rate(&table::INVALIDATED_PAGES, &["cause"]))
        .size(8, 8)
        .or_say("nothing was invalidated, or the brackets are not hooked"),
        Panel::new(
            Kind::Lines,
            "Time inside invalidations, by cause",
            "percentunit",
            "While an invalidation is open, faults on its range retry. Good: below 1 %. Bad: near 100 %: \
             some range is always being invalidated.",
        )
        .ask_parts(Expect::Always, "{{cause}}", rate(&table::INVALIDATION_SECONDS, &["cause"]))
        .size(8, 8)
        .or_say("nothing was invalidated, or the brackets are not hooked"),
    ]
}

fn ksm() -> Vec<Panel> {
    vec![
        Panel::new(
            Kind::Lines,
            "Merges and breaks",
            "ops",
            "Good: merges after the VM has started, then little. Bad: breaks as high as merges all the time, \
             or failed attempts: each cost the guest a mapping for nothing.",
        )
        .ask("merges", of(&table::KSM_MERGES).rate(RATE).sum())
        .ask("breaks (copy on write)", of(&table::KSM_COW_BREAKS).rate(RATE).sum())
        .ask("unmerges", of(&table::KSM_UNMERGES).rate(RATE).sum())
        .ask("failed attempts", of(&table::KSM_FAILED_ATTEMPTS).rate(RATE).sum())
        .or_say("the VM is gone, or KSM's functions are not hooked"),
        Panel::new(
            Kind::Lines,
            "Memory shared, and KSM's profit",
            "bytes",
            "Profit is what sharing saves less KSM's own records. Good: profit near what is shared. Bad: \
             profit below 0: KSM spends more on this VM than it saves.",
        )
        .ask("shared", of(&table::KSM_MERGING_PAGES).value().sum().scaled(PAGE_BYTES))
        .ask_if(Expect::Recent, "profit", of(&table::KSM_PROFIT).value().sum())
        .signed()
        .or_say("needs Linux 5.19, the profit 6.4"),
    ]
}

fn change_pte() -> Vec<Panel> {
    let calls = |series: &table::Series, by| of(series).rate(RATE).sum_by(by);
    vec![
        Panel::new(
            Kind::Stack,
            "Calls by outcome",
            "ops",
            "What change_pte came to. On x86-64 every call for guest memory is a noop_*: the mapping was \
             gone already. On arm64 up to 6.9 effective_*: KVM changed it. Neither is a fault of this host.",
        )
        .ask_parts(
            Expect::Direct,
            "{{reason}}",
            calls(&table::CHANGE_PTE_NOOP, &["reason"]).or(calls(&table::CHANGE_PTE_EFFECTIVE, &["reason"])),
        )
        .size(8, 8)
        .or_say("no calls, or this kernel has no change_pte"),
        Panel::new(
            Kind::Stack,
            "Calls by cause",
            "ops",
            "Who called change_pte. Good: few. Bad: a steady rate of ksm_* with as much cow_*: churn.",
        )
        .ask_parts(Expect::Direct, "{{cause}}", calls(&table::CHANGE_PTE, &["cause"]))
        .size(8, 8)
        .or_say("no calls, or this kernel has no change_pte"),
        Panel::new(
            Kind::Stack,
            "Calls there would be, by cause",
            "ops",
            "Invalidations in which kernels up to 6.9 call change_pte; on these kernels it agrees with the \
             calls. Bad: the same as of the calls.",
        )
        .ask_parts(Expect::Always, "{{cause}}", calls(&table::WOULD_BE_CHANGE_PTE, &["cause"]))
        .size(8, 8)
        .or_say("there would be none, or the brackets are not hooked"),
    ]
}
