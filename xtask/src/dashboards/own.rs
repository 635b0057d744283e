//! The dashboard `self`: what the tracer costs, what it can see, and what it lost.

use mmu_trace::metrics::table;

use super::{
    dashboard::{Dashboard, Row, Scope},
    figures::NO_KSM_STATE,
    panel::{Column, Expect, Kind, Limits, Panel},
    promql::{Expr, HOST, RANGE, RATE, Selector},
};

/// What a replay cannot have.
const NO_ATTACHMENT: &str = "a replay attaches nothing";

/// The dashboard.
pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "self",
        description: "What mmu-trace itself costs, what it can see on this kernel, and what it lost.",
        has_domain: false,
        rows: vec![
            Row { title: "Is it well?", panels: health() },
            Row { title: "What does it cost?", panels: cost() },
            Row { title: "What did it lose?", panels: losses() },
            Row { title: "What can it see?", panels: sight() },
        ],
    }
}

fn of(series: &table::Series) -> Selector {
    Scope::Host.of(series)
}

fn health() -> Vec<Panel> {
    vec![
        Panel::new(
            Kind::Stat,
            "Up",
            "none",
            "Whether Prometheus reaches the daemon. Good: up. Bad: DOWN: the service has ended, or its \
             counters cannot be read.",
        )
        .ask("{{instance}}", Scope::Host.narrow(Selector::named("up", &[])).value())
        .names(&[("1", "up", "green"), ("0", "DOWN", "red")])
        .limits(Limits::Good(1.0))
        .or_say("no job of this name is scraped"),
        Panel::new(
            Kind::Table,
            "Version",
            "none",
            "The running version. Bad: different ones on hosts that are compared.",
        )
        .ask("", of(&table::BUILD_INFO).value())
        .columns(&[Column::label("instance", "Host", 0), Column::label("version", "Version", 0)])
        .size(4, 4)
        .or_say("no mmu-trace daemon is scraped"),
        Panel::new(
            Kind::Stat,
            "Errors",
            "short",
            "Scrapes without counters in the time shown, text files not written, and requests that the web \
             configuration did not let in. Good: 0. Bad: any; the \
             daemon's log says why.",
        )
        .ask("scrapes", of(&table::SCRAPE_ERRORS).increase(RANGE).sum())
        .ask_if(
            Expect::Never("only with --textfile"),
            "text files",
            of(&table::TEXTFILE_ERRORS).increase(RANGE).sum(),
        )
        .ask_if(
            Expect::Never("only with a web configuration"),
            "rejected",
            of(&table::HTTP_REJECTIONS).increase(RANGE).sum(),
        )
        .limits(Limits::Bad(1.0))
        .or_say("no mmu-trace daemon is scraped"),
        Panel::new(
            Kind::Stat,
            "Running for",
            "s",
            "Time since the daemon started. Bad: minutes, again and again: something restarts it, and its \
             counters begin at 0 each time.",
        )
        .ask("{{instance}}", age())
        .or_say("the figures come from a text file: node_exporter has its own"),
        Panel::new(
            Kind::Stat,
            "Attachments",
            "none",
            "How often tracing began. Good: 1. More: KVM was reloaded or let go that often, and the counters \
             began at 0 each time.",
        )
        .ask_if(Expect::Never(NO_ATTACHMENT), "{{instance}}", of(&table::ATTACHMENTS).value().max_by(HOST))
        .limits(Limits::Above(2.0, 10.0))
        .or_say("a replay: nothing is attached"),
        Panel::new(
            Kind::Stat,
            "kvm held",
            "none",
            "Whether the module kvm cannot be unloaded because of the daemon. Neither is bad; kill -USR1 \
             makes it let go before an update of KVM.",
        )
        .ask_if(Expect::Never(NO_ATTACHMENT), "{{instance}}", of(&table::KVM_HELD).value().max_by(HOST))
        .names(&[("1", "held", "blue"), ("0", "free", "green")])
        .or_say("a replay: nothing is attached"),
    ]
}

/// Seconds since the daemon started.
fn age() -> Expr {
    of(&table::PROCESS_START).value().max_by(HOST).age()
}

fn cost() -> Vec<Panel> {
    vec![
        Panel::new(
            Kind::Lines,
            "CPU of the daemon",
            "percentunit",
            "100 % is one CPU. Good: below 1 %. Bad: above 5 %: scrape less often. The probes' time is not \
             in it: it is spent in the tasks that hit them.",
        )
        .ask("{{instance}}", of(&table::PROCESS_CPU).rate(RATE).sum_by(&["instance"]))
        .size(8, 7)
        .or_say("the figures come from a text file: node_exporter has its own"),
        Panel::new(
            Kind::Lines,
            "CPU of the probes",
            "percentunit",
            "Time inside our BPF programs on all CPUs, by program. Good: below 1 % of a CPU. Bad: above 5 %; \
             the hits per second say whether a hook is hot. Measuring it costs too: switch \
             kernel.bpf_stats_enabled off again.",
        )
        .ask("{{program}}", of(&table::BPF_RUN_SECONDS).rate(RATE).sum_by(&["program"]).above(0.0))
        .size(8, 7)
        .or_say("unknown: sysctl kernel.bpf_stats_enabled=1 makes the kernel measure it"),
        Panel::new(
            Kind::Lines,
            "Hits of the probes",
            "ops",
            "How often each program ran. Good: no more than the faults and invalidations on the host \
             dashboard. Bad: one that runs a million times a second.",
        )
        .ask("{{program}}", of(&table::BPF_RUNS).rate(RATE).sum_by(&["program"]).above(0.0))
        .size(8, 7)
        .or_say("unknown: sysctl kernel.bpf_stats_enabled=1 makes the kernel count it"),
        Panel::new(
            Kind::Lines,
            "Time to read the counters",
            "s",
            "Good: milliseconds. Bad: near the scrape timeout: fewer VMs (--max-vms) or a longer interval.",
        )
        .ask("{{instance}}", of(&table::SCRAPE_DURATION).value().max_by(&["instance"]))
        .size(8, 7)
        .or_say("no mmu-trace daemon is scraped"),
        Panel::new(
            Kind::Lines,
            "Memory of the daemon",
            "bytes",
            "Resident memory. Good: tens of MiB and level. Bad: it grows while the number of VMs does not.",
        )
        .ask("{{instance}}", of(&table::PROCESS_MEMORY).value().max_by(&["instance"]))
        .size(8, 7)
        .or_say("the figures come from a text file: node_exporter has its own"),
        Panel::new(
            Kind::Lines,
            "Open files of the daemon",
            "short",
            "Good: level, somewhat above the number of hooks. Bad: it grows: a leak.",
        )
        .ask("{{instance}}", of(&table::PROCESS_FDS).value().max_by(&["instance"]))
        .size(8, 7)
        .or_say("the figures come from a text file: node_exporter has its own"),
    ]
}

fn losses() -> Vec<Panel> {
    let grown = |series: &table::Series, by| of(series).increase(RANGE).sum_by(by);
    vec![
        Panel::new(
            Kind::Bars,
            "Returns missed, by hook",
            "short",
            "Returns that no probe saw, in the time shown. Good: 0. Bad: any that keeps growing, mostly with \
             kprobes: their kretprobes are limited; fentry has no such limit.",
        )
        .ask("{{hook}}", grown(&table::MISSED_RETURNS, &["hook"]))
        .limits(Limits::Bad(1.0))
        .whole()
        .size(8, 7)
        .or_say("no mmu-trace daemon is scraped"),
        Panel::new(
            Kind::Bars,
            "Maps full",
            "short",
            "Entries that found a map full, pages evicted, and events that a recording lost, in the time \
             shown. Good: 0. Bad: vms: raise --max-vms; the others: the figures are too low.",
        )
        .ask("{{map}}", grown(&table::MAP_FULL, &["map"]))
        .ask("pages evicted", grown(&table::EVICTED_PAGES, &[]))
        .ask("events of a recording, {{stage}}", grown(&table::LOST_EVENTS, &["stage"]))
        .limits(Limits::Bad(1.0))
        .whole()
        .size(8, 7)
        .or_say("no mmu-trace daemon is scraped"),
        Panel::new(
            Kind::Bars,
            "Not followed, by kind",
            "short",
            "What the kernel side could not follow, in the time shown. Good: 0; before_start and \
             abandoned_bracket are no loss. Bad: orphan_bracket, unbracketed, nested_too_deep or \
             unknown_caller that grow.",
        )
        .ask("{{gap}}", grown(&table::DATA_GAPS, &["gap"]))
        .whole()
        .size(8, 7)
        .or_say("no mmu-trace daemon is scraped"),
        Panel::new(
            Kind::Lines,
            "Hits that the kernel dropped, by hook",
            "ops",
            "Good: none. Bad: a steady rate: the figures are too low by it. Kernels that do not count them \
             (kprobes before 6.7) show none either.",
        )
        .ask("{{hook}}", of(&table::PROBE_MISSES).rate(RATE).sum_by(&["hook"]))
        .size(24, 5)
        .or_say("none, or this kernel does not count them"),
    ]
}

fn sight() -> Vec<Panel> {
    vec![
        Panel::new(
            Kind::Table,
            "Sources",
            "none",
            "What is known on this kernel. Good: 1. A 0 has its reason beside it, and the series of that \
             source are absent; of change_pte it is normal from Linux 6.10 on.",
        )
        .ask("", of(&table::SOURCE_AVAILABLE).value())
        .columns(&[
            Column::label("source", "Source", 180),
            Column::value("Value #A", "Known", "none").limits(Limits::Good(1.0)).wide(70),
            Column::label("reason", "Reason", 0),
            Column::label("instance", "Host", 150),
        ])
        .size(12, 10)
        .or_say("no mmu-trace daemon is scraped"),
        Panel::new(
            Kind::Table,
            "Hooks",
            "none",
            "How each hook is attached. Good: 1 for those that this kernel has, best by fentry. A 0 of \
             change_pte, kvm_change_pte and kvm_set_spte is normal from Linux 6.10 on; for others ask \
             mmu-trace doctor.",
        )
        .ask("", of(&table::PROBE_ATTACHED).value())
        .columns(&[
            Column::label("hook", "Hook", 180),
            Column::value("Value #A", "Attached", "none").limits(Limits::Good(1.0)).wide(80),
            Column::label("backend", "How", 110),
            Column::label("symbol", "Kernel function", 0),
            Column::label("instance", "Host", 120),
        ])
        .size(12, 10)
        .or_say("no mmu-trace daemon is scraped"),
        Panel::new(
            Kind::Table,
            "Settings of KSM",
            "none",
            "How hard ksmd works: pages between two sleeps, and the sleep. 4 KiB pages times pages to scan \
             by sleep is the scan rate. Bad: thousands of pages every few milliseconds on a busy host; \
             merging across nodes on a NUMA host, which makes guests read remote memory.",
        )
        .ask("", of(&table::KSM_PAGES_TO_SCAN).value().max_by(HOST))
        .ask("", of(&table::KSM_SLEEP).value().max_by(HOST))
        .ask("", of(&table::KSM_MERGE_ACROSS_NODES).value().max_by(HOST))
        .ask_if(Expect::Recent, "", of(&table::KSM_GENERAL_PROFIT).value().max_by(HOST))
        .columns(&[
            Column::label("instance", "Host", 0),
            Column::value("Value #A", "Pages to scan", "short"),
            Column::value("Value #B", "Sleep", "s"),
            Column::value("Value #C", "Across nodes", "none"),
            Column::value("Value #D", "Profit", "bytes"),
        ])
        .size(24, 4)
        .or_say(NO_KSM_STATE),
    ]
}
