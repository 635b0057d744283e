//! The dashboard `fleet`: the worst VMs and hosts of all, from recorded series only.

use super::{
    dashboard::{Dashboard, Row, Scope},
    host::{COST, TO_VM},
    panel::{Column, Kind, Limits, Panel},
    promql::{Expr, HOST, Selector, VM},
    rules::recording::{self as recorded, Recorded},
};

/// What to say without recorded series.
const NO_RULES: &str = "no data: is recording.yml loaded into Prometheus?";

/// The dashboard.
pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "fleet",
        description: "The hosts and VMs that pay most, of all that are scraped; needs the recording rules.",
        has_domain: false,
        rows: vec![
            Row { title: "All hosts", panels: totals() },
            Row { title: "Hosts", panels: hosts() },
            Row { title: "VMs", panels: vms() },
        ],
    }
}

fn of(recorded: &Recorded) -> Selector {
    Scope::Host.narrow(recorded.selector())
}

fn totals() -> Vec<Panel> {
    vec![
        Panel::new(
            Kind::Stat,
            "VMs",
            "none",
            "Running VMs on all hosts. Bad: fewer than the hypervisors say.",
        )
        .ask("VMs", of(&recorded::HOST_VMS).value().sum())
        .or_say(NO_RULES),
        Panel::new(
            Kind::Stat,
            "Hooks missing",
            "none",
            "Needed hooks that are not attached, on all hosts. Good: 0. Bad: any: the figures of that host \
             are too low.",
        )
        .ask("hooks", of(&recorded::HOST_MISSING_HOOKS).value().sum())
        .limits(Limits::Bad(1.0))
        .or_say(NO_RULES),
        Panel::new(
            Kind::Stat,
            "Lost or missed",
            "short",
            "In the last 15 minutes, on all hosts. Good: 0. Bad: any: the table of hosts says where.",
        )
        .ask("lost", of(&recorded::HOST_LOSSES).value().sum())
        .limits(Limits::Bad(1.0))
        .or_say(NO_RULES),
        Panel::new(
            Kind::Stat,
            "KSM saves",
            "bytes",
            "Memory that KSM saves on all hosts. Good: much for what the guests pay beside it. Bad: little.",
        )
        .ask("saved", of(&recorded::HOST_KSM_SAVED_BYTES).value().sum())
        .or_say("not known: no KSM on these hosts, or recording.yml is not loaded"),
        Panel::new(
            Kind::Stat,
            "Guests pay",
            "percentunit",
            "vCPU time in refaults that KSM is behind, in vCPUs (100 % is one). Good: far below 1 % for each \
             GiB saved.",
        )
        .ask("vCPUs", of(&recorded::HOST_KSM_REFAULT_SECONDS).value().sum())
        .or_say(NO_RULES),
        Panel::new(
            Kind::Stat,
            "All refaults",
            "percentunit",
            "vCPU time in refaults of any cause, in vCPUs. Bad: far above what KSM is behind: the hosts move \
             memory.",
        )
        .ask("vCPUs", of(&recorded::HOST_REFAULT_SECONDS).value().sum())
        .or_say(NO_RULES),
    ]
}

fn hosts() -> Vec<Panel> {
    vec![
        Panel::new(
            Kind::Lines,
            "vCPU time in refaults, the ten worst hosts",
            "percentunit",
            "Good: level and low. Bad: one host that leaves the others behind: look at its VMs and at its \
             KSM.",
        )
        .ask("{{instance}}", of(&recorded::HOST_REFAULT_SECONDS).value().top(10))
        .size(8, 8)
        .or_say(NO_RULES),
        Panel::new(
            Kind::Table,
            "Hosts",
            "none",
            "The most expensive host first. Bad: hooks missing or losses above 0, or a high cost with little \
             saved.",
        )
        .ask("", of(&recorded::HOST_REFAULT_SECONDS).value().max_by(HOST))
        .ask("", of(&recorded::HOST_KSM_SAVED_BYTES).value().max_by(HOST))
        .ask("", of(&recorded::HOST_VMS).value().max_by(HOST))
        .ask("", of(&recorded::HOST_MISSING_HOOKS).value().max_by(HOST))
        .ask("", of(&recorded::HOST_LOSSES).value().max_by(HOST))
        .columns(&[
            Column::label("instance", "Host", 0),
            Column::value("Value #A", "Cost (vCPUs)", "percentunit").wide(120),
            Column::value("Value #B", "KSM saves", "bytes").wide(110),
            Column::value("Value #C", "VMs", "none").wide(70),
            Column::value("Value #D", "Hooks missing", "none").limits(Limits::Bad(1.0)).wide(120),
            Column::value("Value #E", "Lost", "short").limits(Limits::Bad(1.0)).wide(80),
        ])
        .size(16, 8)
        .or_say(NO_RULES),
    ]
}

fn vms() -> Vec<Panel> {
    vec![
        Panel::new(
            Kind::Lines,
            "vCPU time in refaults, the ten worst VMs",
            "percentunit",
            "Good: nobody above 1 % of a vCPU. Bad: a VM that stays above 2 %: open it from the table.",
        )
        .ask("{{domain}} ({{instance}})", of(&recorded::VM_REFAULT_SECONDS).value().top(10))
        .limits(COST)
        .size(8, 10)
        .or_say(NO_RULES),
        Panel::new(
            Kind::Table,
            "The twenty worst VMs",
            "none",
            "A click on a name opens the VM. Bad: a cost of 1 % and more, or breaks near merges: keep KSM \
             away from it.",
        )
        .ask("", worst())
        .ask("", of_worst(&recorded::VM_REFAULTS))
        .ask("", of_worst(&recorded::VM_KSM_MERGES))
        .ask("", of_worst(&recorded::VM_KSM_COW_BREAKS))
        .columns(&[
            Column::label("domain", "VM", 0),
            Column::label("instance", "Host", 150),
            Column::value("Value #A", "Cost (of a vCPU)", "percentunit").limits(COST).wide(140),
            Column::value("Value #B", "Refaults", "ops").wide(110),
            Column::value("Value #C", "Merges", "ops").wide(110),
            Column::value("Value #D", "Breaks", "ops").wide(110),
        ])
        .link(TO_VM)
        .size(16, 10)
        .or_say(NO_RULES),
    ]
}

/// The twenty VMs that pay most. Aggregated, so that no name of a series keeps the columns from joining.
fn worst() -> Expr {
    of(&recorded::VM_REFAULT_SECONDS).value().max_by(VM).top(20)
}

/// Another figure of these.
fn of_worst(recorded: &Recorded) -> Expr {
    of(recorded).value().max_by(VM).where_also(worst())
}
