//! The positive control: the same phases on the same kernel with a working `change_pte`, beside those
//! without. The tracer must say that it worked, and which refaults it saved, and nothing else.

use serde_json::Value;
use xtask::phase::{Phase, PhaseKind, Run, SUPPRESSED, Series};

use super::{Check, Group, formula, report, series::sum, workload};

const EFFECTIVE: &str = "change_pte_effective_total";

/// One phase of one of the two runs.
#[derive(Clone, Copy)]
struct Side<'r> {
    run: &'r Run,
    phase: &'r Phase,
    moved: &'r Series,
}

impl Side<'_> {
    fn sum(self, name: &str, labels: &[(&str, &str)]) -> Option<i64> {
        Some(sum(self.moved, name, labels))
    }

    fn page_faults(self) -> Option<i64> {
        self.phase.calls("page_fault")
    }

    /// The `change_pte` calls in guest memory that the phase must have cost.
    fn in_guest(self) -> Option<i64> {
        formula::change_pte_in_guest(self.run, self.phase)
    }

    fn noop(self) -> Option<i64> {
        let of = |reason| self.sum("change_pte_noop_total", &[("reason", reason)]);
        ["noop_zapped_by_bracket", "noop_zapped_by_same_op", "noop_not_mapped"].map(of).into_iter().sum()
    }
}

/// Every comparison.
pub(super) fn check(stock: &Run, control: &Run, recorded: &Value) -> Vec<Group> {
    let mut groups = vec![workload(control)];
    for (index, (before, phase)) in stock.phases.iter().zip(&control.phases).enumerate() {
        let checks = match (&before.daemon, &phase.daemon) {
            (Some(moved_before), Some(moved)) => {
                let side = Side { run: control, phase, moved };
                let mut checks = sound(side);
                checks.extend(expected(Side { run: stock, phase: before, moved: moved_before }, side));
                checks
            }
            _ => vec![Check::equal("daemon scraped", &"yes", &"no")],
        };
        groups.push(Group { name: format!("phase {:2} {}", index + 1, phase.kind.label()), checks });
    }
    groups.push(Group { name: "report".to_owned(), checks: report::check_control(control, recorded) });
    for group in &mut groups {
        group.name.insert_str(0, "control: ");
    }
    groups
}

/// What holds in every phase.
fn sound(side: Side) -> Vec<Check> {
    let is = |title: &str, expected: Option<i64>, got: Option<i64>| Check::numbers(title, expected, got);
    let Side { phase, .. } = side;
    let total = |name: &str| side.sum(name, &[]);
    let fixed = phase.oracle.get("kvm:pf_fixed").copied();
    let mut checks = vec![
        is("change_pte_total = kernel's calls", phase.calls("change_pte"), total("change_pte_total")),
        is("invalidations_total = kernel's calls", phase.calls("range_start"), total("invalidations_total")),
        is("page_faults_total = kernel's calls", side.page_faults(), total("page_faults_total")),
        is("pages fixed = KVM's pf_fixed", fixed, side.sum("page_faults_total", &[("result", "fixed")])),
    ];
    checks.extend(
        ["lost_events_total", "missed_returns_total", "map_full_total"]
            .map(|gap| is(gap, Some(0), total(gap))),
    );
    checks
}

/// What a working `change_pte` makes of a phase, and what it must leave as it was.
fn expected(stock: Side, control: Side) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut expect = |title: &str, expected: Option<i64>, got: Option<i64>| {
        checks.push(Check::numbers(title, expected, got));
    };
    let Side { run, phase, .. } = control;
    let calls = phase.calls("change_pte");
    let updated = control.sum(EFFECTIVE, &[("reason", "effective_updated")]);
    let dropped = control.sum(EFFECTIVE, &[("reason", "effective_dropped")]);
    let refaults = control.sum("refaults_total", &[]);
    if phase.kind == PhaseKind::LiveMerge {
        // A few faults remain: the rmap MMU clears an entry before it sets it anew, and a vCPU may look
        // in between. Nothing was torn down for them.
        expect("effective_updated", calls, updated);
        expect("refaults", Some(0), refaults);
        return checks;
    }
    let in_guest = control.in_guest();
    let read_only = phase.kind == PhaseKind::Merge;
    if let Some(expected) = formula::change_pte(run, phase) {
        expect("change_pte", Some(expected), calls);
    }
    expect("effective_updated", if read_only { in_guest } else { Some(0) }, updated);
    expect("effective_dropped", if read_only { Some(0) } else { in_guest }, dropped);
    expect("no-op", Some(0), control.noop());
    expect("no-op without it", stock.in_guest(), stock.noop());
    expect("effective without it", Some(0), stock.sum(EFFECTIVE, &[]));
    // Older kernels ask KVM about any memory of the VMM.
    let asked = if run.handlers_see_guest_memory_only() { in_guest } else { calls };
    expect("unmaps suppressed", asked, phase.oracle.get(SUPPRESSED).copied());
    expect("attempts of KSM that gave up", Some(0), control.sum("ksm_failed_attempts_total", &[]));

    let refaults_before = stock.sum("refaults_total", &[]);
    if phase.kind == PhaseKind::ReadAfterMerge {
        expect("refaults without it", Some(run.pages), refaults_before);
        expect("refaults", Some(0), refaults);
        expect("page faults", Some(0), control.page_faults());
    } else {
        expect("refaults as without it", refaults_before, refaults);
        expect("page faults as without it", stock.page_faults(), control.page_faults());
    }
    if phase.kind == PhaseKind::ReadAfterUnmappedWrite {
        // Mapped all the time, so that the write is the first to tear it down.
        expect("refaults after the write", refaults, control.sum("refaults_total", &[("cause", "cow_host")]));
    }
    expect("avoidable refaults", Some(0), control.sum("avoidable_refaults_total", &[]));
    checks
}

#[cfg(test)]
mod tests {
    use super::super::formula::tests::{merge, run_of};
    use super::*;

    fn series(reason: &str) -> Series {
        let name = if reason.starts_with("noop") { "change_pte_noop_total" } else { EFFECTIVE };
        let entries = [
            ("mmu_trace_change_pte_total".to_owned(), 15.0),
            ("mmu_trace_invalidations_total".to_owned(), 15.0),
            (format!("mmu_trace_{name}{{reason=\"{reason}\"}}"), 15.0),
        ];
        entries.into_iter().collect()
    }

    fn failures(stock: &str, control: &str) -> Vec<String> {
        let run = run_of(merge());
        let mut phase = merge();
        phase.oracle.insert(SUPPRESSED.to_owned(), 15);
        let (moved_stock, moved) = (series(stock), series(control));
        let control = Side { run: &run, phase: &phase, moved: &moved };
        let stock = Side { run: &run, phase: &run.phases[0], moved: &moved_stock };
        let checks = [sound(control), expected(stock, control)].concat();
        checks.into_iter().filter(|check| !check.passed()).map(|check| check.name).collect()
    }

    #[test]
    fn a_merge_is_a_no_op_without_it_and_effective_with_it() {
        assert_eq!(failures("noop_zapped_by_bracket", "effective_updated"), Vec::<String>::new());
    }

    #[test]
    fn the_same_answer_twice_fails() {
        let noop = "noop_zapped_by_bracket";
        assert_eq!(failures(noop, noop), ["effective_updated", "no-op"]);
        let effective = "effective_updated";
        assert_eq!(failures(effective, effective), ["no-op without it", "effective without it"]);
        assert_eq!(failures(noop, "effective_dropped"), ["effective_updated", "effective_dropped"]);
    }
}
