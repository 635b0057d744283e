//! The dashboard `host`: is the data good, does KSM pay, who suffers, and why.

use mmu_trace::metrics::table;

use super::{
    dashboard::{Dashboard, Row, Scope},
    figures::{self, NO_KSM_STATE, NO_VM},
    panel::{Column, Expect, Kind, Limits, Panel},
    promql::{Expr, HOST, RANGE, RATE, Selector, VM},
};

/// Opens the VM of a table's line.
pub(super) const TO_VM: &str = "/d/mmu-trace-vm?${__url_time_range}&${datasource:queryparam}&${job:queryparam}\
                                &var-instance=${__data.fields.Host}&var-domain=${__value.raw}";

/// What a vCPU notices, and what is much: seconds of refaults per second.
pub(super) const COST: Limits = Limits::Above(0.01, 0.02);

/// The dashboard.
pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "host",
        description: "What KSM, change_pte and invalidations cost the guests of a KVM host.",
        has_domain: false,
        rows: vec![
            Row { title: "Is the data good?", panels: data() },
            Row { title: "Does KSM pay?", panels: ksm() },
            Row { title: "Who suffers?", panels: vms() },
            Row { title: "Why?", panels: causes() },
        ],
    }
}

fn of(series: &table::Series) -> Selector {
    Scope::Host.of(series)
}

fn data() -> Vec<Panel> {
    vec![
        Panel::new(
            Kind::Stat,
            "Data",
            "none",
            "Good: complete, every figure below is true. Bad: INCOMPLETE, figures below are too low; the \
             panels beside say whether hooks are missing or something was lost in the time shown.",
        )
        .ask("{{instance}}", figures::complete(Scope::Host, RANGE))
        .names(&[("1", "complete", "green"), ("0", "INCOMPLETE", "red")])
        .limits(Limits::Good(1.0))
        .size(6, 5)
        .or_say("no mmu-trace daemon is scraped"),
        Panel::new(
            Kind::Stat,
            "Hooks missing",
            "none",
            "Hooks that the figures need on this kernel and that are not attached. Good: 0. Bad: any; the \
             dashboard of the tracer itself names them, mmu-trace doctor says why.",
        )
        .ask("{{instance}}", figures::missing_hooks(Scope::Host))
        .limits(Limits::Bad(1.0))
        .size(4, 5)
        .or_say("no mmu-trace daemon is scraped"),
        Panel::new(
            Kind::Stat,
            "Lost or missed",
            "short",
            "Returns missed, entries that found a map full, pages evicted and brackets not understood, in \
             the time shown. Good: 0. Bad: any that keeps growing: the figures are too low by about that \
             many.",
        )
        .ask("{{instance}}", figures::losses(Scope::Host, RANGE))
        .limits(Limits::Bad(1.0))
        .size(4, 5)
        .or_say("no mmu-trace daemon is scraped"),
        Panel::new(
            Kind::Stat,
            "Untraced",
            "s",
            "Time within the time shown in which nothing was traced, because KVM was replaced or the daemon \
             was told to let go. Good: 0. Bad: more than a reload of KVM takes.",
        )
        .ask_if(
            Expect::Never("a replay attaches nothing"),
            "{{instance}}",
            of(&table::UNTRACED_SECONDS).increase(RANGE).sum_by(HOST),
        )
        .limits(Limits::Above(1.0, 60.0))
        .size(4, 5)
        .or_say("a replay: nothing is attached"),
        Panel::new(
            Kind::Table,
            "Kernels",
            "none",
            "The kernel and how it is traced. direct: it has change_pte, and its calls are counted. \
             counterfactual: it has none (6.10 and later), and the calls it would make are counted.",
        )
        .ask("", of(&table::KERNEL_INFO).value())
        .columns(&[
            Column::label("instance", "Host", 90),
            Column::label("release", "Kernel", 185),
            Column::label("mode", "Traced", 0),
        ])
        .size(6, 5)
        .or_say("no mmu-trace daemon is scraped"),
    ]
}

fn ksm() -> Vec<Panel> {
    let cost = || of(&table::REFAULT_SECONDS_TOTAL).rate(RATE).sum();
    let avoidable = of(&table::AVOIDABLE_REFAULT_SECONDS).rate(RATE).sum();
    vec![
        Panel::new(
            Kind::Stat,
            "KSM saves",
            "bytes",
            "Memory that sharing saves now (pages_sharing, as 4 KiB pages). Good: gigabytes. Bad: little, \
             while the cost beside it is yellow or red: then KSM does not pay on this host.",
        )
        .ask("saved", figures::saved_bytes(Scope::Host).sum())
        .or_say(NO_KSM_STATE),
        Panel::new(
            Kind::Stat,
            "Guests pay",
            "percentunit",
            "vCPU time in refaults after KSM's operations and copies on write, in vCPUs: 100 % is one whole \
             vCPU. Estimated from the share of such refaults. Good: far below 1 % for each GiB saved. Bad: \
             10 % and more.",
        )
        .ask("vCPUs", figures::ksm_refault_seconds(Scope::Host, RATE).sum())
        .limits(Limits::Above(0.02, 0.1))
        .or_say("refaults are unknown on this kernel: see the sources of the tracer itself"),
        Panel::new(
            Kind::Stat,
            "Breaks per merge",
            "percentunit",
            "Copies on write of KSM pages for each merge, in the time shown. Good: below 20 %, merges last. \
             Bad: near 100 %: every page merged is soon written to and copied again, work for nothing.",
        )
        .ask(
            "breaks / merges",
            figures::share(
                of(&table::KSM_COW_BREAKS).increase(RANGE).sum(),
                of(&table::KSM_MERGES).increase(RANGE).sum(),
            ),
        )
        .limits(Limits::Above(0.2, 0.5))
        .or_say("nothing was merged"),
        Panel::new(
            Kind::Stat,
            "KSM",
            "none",
            "Whether ksmd runs. merging: good. stopped: what is merged stays so, nothing new is. unmerging: \
             every page is being taken out again, which costs memory and faults.",
        )
        .ask("{{instance}}", of(&table::KSM_RUN).value().max_by(&["instance"]))
        .names(&[("0", "stopped", "yellow"), ("1", "merging", "green"), ("2", "UNMERGING", "red")])
        .limits(Limits::Good(1.0))
        .or_say(NO_KSM_STATE),
        Panel::new(
            Kind::Stat,
            "Full scans",
            "short",
            "How often ksmd went through all mergeable memory in the time shown; the second scan after a VM \
             has started is the first that can merge it. Bad: none in an hour, or one each few seconds: then \
             raise sleep_millisecs.",
        )
        .ask("scans", of(&table::KSM_FULL_SCANS).increase(RANGE).sum())
        .whole()
        .or_say(NO_KSM_STATE),
        Panel::new(
            Kind::Stat,
            "change_pte without effect",
            "percentunit",
            "Calls of change_pte for guest memory that found nothing to change. Normal on x86-64: 100 %, the \
             callback is a no-op there. On arm64 up to 6.9: 0 %.",
        )
        .ask_if(Expect::Direct, "no-op", noop_share(RANGE, &[]))
        .or_say("no calls, or this kernel has no change_pte"),
        Panel::new(
            Kind::Lines,
            "vCPU time in refaults",
            "percentunit",
            "Time guests spend in faults on pages that were torn down before; 100 % is one whole vCPU. Good: \
             well below 2 %. Bad: steadily above. The avoidable part is what a change_pte that works would \
             give back.",
        )
        .ask("all refaults", cost())
        .ask("avoidable", avoidable)
        .size(8, 8)
        .or_say("refaults are unknown on this kernel: see the sources of the tracer itself"),
        Panel::new(
            Kind::Lines,
            "KSM: merges and breaks",
            "ops",
            "Good: merges after a VM has started, then little. Bad: breaks as high as merges all the time \
             (churn), or failed attempts, each of which cost a guest its mapping for nothing.",
        )
        .ask("merges", of(&table::KSM_MERGES).rate(RATE).sum())
        .ask("breaks (copy on write)", of(&table::KSM_COW_BREAKS).rate(RATE).sum())
        .ask("unmerges", of(&table::KSM_UNMERGES).rate(RATE).sum())
        .ask("failed attempts", of(&table::KSM_FAILED_ATTEMPTS).rate(RATE).sum())
        .size(8, 8)
        .or_say("KSM's functions are not hooked: see the sources of the tracer itself"),
        Panel::new(
            Kind::Lines,
            "KSM: pages",
            "short",
            "sharing: pages saved. Good: far more than shared. Bad: many unshared, which are scanned again \
             and again for nothing, or many volatile, which change too fast to be merged.",
        )
        .ask("sharing", of(&table::KSM_PAGES_SHARING).value().sum())
        .ask("shared", of(&table::KSM_PAGES_SHARED).value().sum())
        .ask("unshared", of(&table::KSM_PAGES_UNSHARED).value().sum())
        .ask("volatile", of(&table::KSM_PAGES_VOLATILE).value().sum())
        .size(8, 8)
        .or_say(NO_KSM_STATE),
    ]
}

/// The share of `change_pte` calls for guest memory that found nothing to change.
fn noop_share(window: &str, by: &[&'static str]) -> Expr {
    let noop = || of(&table::CHANGE_PTE_NOOP).increase(window).sum_by(by);
    let effective = of(&table::CHANGE_PTE_EFFECTIVE).increase(window).sum_by(by);
    figures::share(noop(), noop().plus(effective))
}

fn vms() -> Vec<Panel> {
    let vm = |series| of(series).unlike("domain", NO_VM);
    let cost = || vm(&table::REFAULT_SECONDS_TOTAL).rate(RATE);
    let grown = |series| vm(series).increase(RANGE).sum_by(VM);
    vec![
        Panel::new(
            Kind::Lines,
            "vCPU time in refaults, the ten worst VMs",
            "percentunit",
            "Good: nobody above 1 % of a vCPU. Bad: one VM that stays above 2 %: open it from the table \
             below.",
        )
        .ask("{{domain}} ({{instance}})", cost().sum_by(&["instance", "domain"]).top(10))
        .limits(COST)
        .size(24, 7)
        .or_say("no VM runs, or refaults are unknown on this kernel"),
        Panel::new(
            Kind::Table,
            "VMs",
            "short",
            "Sums over the time shown, the most expensive VM first; a click on a name opens it. Bad: a cost \
             of 1 % and more, and breaks near merges. No-op is empty where nothing was called or the kernel \
             has no change_pte; shared pages are empty before Linux 5.19.",
        )
        .ask("", cost_over_range())
        .ask("", grown(&table::REFAULTS))
        .ask("", figures::share(grown(&table::AVOIDABLE_REFAULTS), grown(&table::REFAULTS)))
        .ask_if(Expect::Direct, "", noop_share(RANGE, VM))
        .ask("", grown(&table::KSM_MERGES))
        .ask("", grown(&table::KSM_COW_BREAKS))
        .ask("", vm(&table::KSM_MERGING_PAGES).value().sum_by(VM))
        .columns(&[
            Column::label("domain", "VM", 200),
            Column::label("instance", "Host", 180),
            Column::value("Value #A", "Cost (of a vCPU)", "percentunit").limits(COST),
            Column::value("Value #B", "Refaults", "short"),
            Column::value("Value #C", "Avoidable", "percentunit"),
            Column::value("Value #D", "change_pte no-op", "percentunit"),
            Column::value("Value #E", "Merges", "short"),
            Column::value("Value #F", "Breaks", "short"),
            Column::value("Value #G", "Shared pages", "short"),
            Column::label("uuid", "UUID", 330),
        ])
        .link(TO_VM)
        .or_say("no VM runs"),
    ]
}

/// What refaults cost each VM: seconds per second over the whole time shown.
fn cost_over_range() -> Expr {
    of(&table::REFAULT_SECONDS_TOTAL).unlike("domain", NO_VM).rate(RANGE).sum_by(VM)
}

fn causes() -> Vec<Panel> {
    let zapped = |by| of(&table::INVALIDATIONS_ZAPPED).rate(RATE).sum_by(by);
    vec![
        Panel::new(
            Kind::Stack,
            "Refaults by cause",
            "ops",
            "What the guests fault on again. ksm_*: merges of pages in use. cow_*: pages written to after a \
             merge or a fork. numa_balancing, migrate, thp_*: the host moves memory about. Bad: any that \
             stays high.",
        )
        .ask_parts(Expect::Always, "{{cause}}", of(&table::REFAULTS).rate(RATE).sum_by(&["cause"]))
        .size(8, 9)
        .or_say("no refaults, or they are unknown on this kernel"),
        Panel::new(
            Kind::Stack,
            "Zapping invalidations by cause",
            "ops",
            "Invalidations that took mappings from a guest, by the kernel function that asked. Good: few, \
             from causes that somebody wants. Bad: a steady rate from numa_balancing, migrate, thp_collapse \
             or reclaim.",
        )
        .ask_parts(Expect::Always, "{{cause}}", zapped(&["cause"]))
        .size(8, 9)
        .or_say("nothing was torn down, or the brackets are not hooked"),
        Panel::new(
            Kind::Stack,
            "Zapping invalidations by initiator",
            "ops",
            "The same by whose task it was. vcpu: the guest's own writes. vmm: QEMU, NUMA balancing's scan \
             included. ksmd, khugepaged, kcompactd, kswapd: the kernel's own threads. Bad: one of these that \
             never rests.",
        )
        .ask_parts(Expect::Always, "{{initiator}}", zapped(&["initiator"]))
        .size(8, 9)
        .or_say("nothing was torn down, or the brackets are not hooked"),
    ]
}
