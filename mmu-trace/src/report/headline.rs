//! The first lines of a report: the answer to the question, in words.

use super::{
    layout::{count, percent, plural, seconds},
    schema::{Mode, Outcomes, Report, Vm},
};
use crate::model::{Figure, Snapshot};

/// The answer, what it costs, and a warning where figures are missing.
pub(super) fn headline(snapshot: &Snapshot, report: &Report) -> Vec<String> {
    let mut lines = answers(snapshot, report);
    if !report.quality.complete {
        lines.push("These figures are incomplete, see Data below.".to_owned());
    }
    lines
}

/// The answer, then what it leaves out and what it costs.
pub(super) fn answers(snapshot: &Snapshot, report: &Report) -> Vec<String> {
    let mut lines = vec![answer(snapshot, report)];
    lines.extend(elsewhere(&outcomes(report)).filter(|_| report.host.mode == Mode::Direct));
    lines.extend(cost(report));
    lines
}

fn answer(snapshot: &Snapshot, report: &Report) -> String {
    if nothing_seen(snapshot) {
        return format!(
            "No VM was seen in {}, so nothing can be said about change_pte. Run a guest, or trace for longer.",
            seconds(report.window.seconds)
        );
    }
    match report.host.mode {
        Mode::Counterfactual => counterfactual(report),
        Mode::Direct => match snapshot.unknown(Figure::ChangePte) {
            Some(reason) => format!("Whether change_pte is a no-op on this host is unknown: {reason}."),
            None => direct(&outcomes(report), report.window.seconds),
        },
    }
}

fn nothing_seen(snapshot: &Snapshot) -> bool {
    snapshot.vms.is_empty() && snapshot.unattributed.is_empty()
}

fn direct(outcomes: &Outcomes, window_seconds: f64) -> String {
    let decided = outcomes.decided();
    if outcomes.total() == 0 {
        return format!(
            "change_pte was not called in {}, so this trace cannot tell whether it is a no-op here. It is called \
             when KSM merges pages and when a shared page is copied on write.",
            seconds(window_seconds)
        );
    }
    if decided == 0 {
        return format!(
            "Of {}, none is known to concern a guest's memory: this trace cannot tell whether it is a no-op here.",
            plural(outcomes.total(), "change_pte call", "change_pte calls")
        );
    }
    if outcomes.effective() == 0 { always_noop(outcomes) } else { sometimes_effective(outcomes) }
}

fn always_noop(outcomes: &Outcomes) -> String {
    let decided = outcomes.decided();
    let claim = format!(
        "change_pte was a no-op in {0} of {0} {1} (100 %) on this host",
        count(decided),
        calls(outcomes)
    );
    format!("{claim}: {}.", why_noop(outcomes))
}

fn why_noop(outcomes: &Outcomes) -> String {
    match (outcomes.zapped_before(), outcomes.noop_not_mapped) {
        (_, 0) => "KVM had already torn the mapping down in invalidate_range_start".to_owned(),
        (0, _) => "the guest had not mapped the pages".to_owned(),
        (zapped, unmapped) => format!(
            "in {} KVM had already torn the mapping down in invalidate_range_start, in {} the guest had not \
             mapped the page",
            count(zapped),
            count(unmapped)
        ),
    }
}

fn sometimes_effective(outcomes: &Outcomes) -> String {
    let (effective, decided) = (outcomes.effective(), outcomes.decided());
    let mut text = format!(
        "change_pte was effective in {} of {} {} ({}) on this host: {}.",
        count(effective),
        count(decided),
        calls(outcomes),
        percent(effective, decided),
        what_changed(outcomes),
    );
    if outcomes.noop() > 0 {
        text.push_str(&format!(
            " It was a no-op in {} ({}): {}.",
            count(outcomes.noop()),
            percent(outcomes.noop(), decided),
            why_noop(outcomes)
        ));
    }
    text
}

fn what_changed(outcomes: &Outcomes) -> String {
    match (outcomes.effective_updated, outcomes.effective_dropped) {
        (_, 0) => "KVM took over the new PTE".to_owned(),
        (0, _) => "KVM dropped its mapping".to_owned(),
        (updated, dropped) => format!(
            "KVM took over the new PTE in {} and dropped its mapping in {}",
            count(updated),
            count(dropped)
        ),
    }
}

fn calls(outcomes: &Outcomes) -> &'static str {
    if outcomes.decided() == outcomes.total() { "calls" } else { "calls for guest memory" }
}

/// The calls that are in neither part of the ratio.
fn elsewhere(outcomes: &Outcomes) -> Option<String> {
    let parts: Vec<String> = [
        (outcomes.not_guest_memory, "for memory of a VMM that is not guest memory"),
        (outcomes.no_subscriber, "for processes without a VM"),
        (outcomes.unbracketed, "that could not be judged, because their bracket was not seen"),
    ]
    .into_iter()
    .filter(|&(n, _)| n > 0)
    .map(|(n, what)| format!("{} {what}", plural(n, "call", "calls")))
    .collect();
    (!parts.is_empty()).then(|| format!("Not counted there: {}.", parts.join("; ")))
}

fn counterfactual(report: &Report) -> String {
    let Some(would_be) =
        all(report).map(|vm| vm.would_be_change_pte.map(|causes| causes.total())).sum::<Option<u64>>()
    else {
        return "This kernel has no change_pte, and how often it would have been called is unknown: the hooks on \
                the invalidations are not attached."
            .to_owned();
    };
    format!(
        "This kernel has no change_pte (Linux 6.10 removed it). What its guests and KSM did in {} would have \
         called it {}.",
        seconds(report.window.seconds),
        plural(would_be, "time", "times")
    )
}

/// What the torn-down mappings cost the guests.
fn cost(report: &Report) -> Option<String> {
    let refaults = || all(report).filter_map(|vm| vm.refaults.as_ref());
    let total: u64 = refaults().map(|r| r.total).sum();
    let avoidable: u64 = refaults().map(|r| r.avoidable).sum();
    let time: f64 = refaults().map(|r| r.seconds).sum();
    let avoidable_time: f64 = refaults().map(|r| r.avoidable_seconds).sum();
    (total > 0).then(|| {
        format!(
            "Guests faulted {} on pages torn down before ({} of vCPU time). A change_pte that works would have \
             saved {} of them ({}, {}).",
            plural(total, "time", "times"),
            seconds(time),
            count(avoidable),
            percent(avoidable, total),
            seconds(avoidable_time)
        )
    })
}

fn outcomes(report: &Report) -> Outcomes {
    all(report).filter_map(|vm| vm.change_pte.as_ref()).fold(Outcomes::default(), |sum, calls| {
        let o = calls.outcomes;
        Outcomes {
            effective_updated: sum.effective_updated + o.effective_updated,
            effective_dropped: sum.effective_dropped + o.effective_dropped,
            noop_zapped_by_bracket: sum.noop_zapped_by_bracket + o.noop_zapped_by_bracket,
            noop_zapped_by_same_op: sum.noop_zapped_by_same_op + o.noop_zapped_by_same_op,
            noop_not_mapped: sum.noop_not_mapped + o.noop_not_mapped,
            not_guest_memory: sum.not_guest_memory + o.not_guest_memory,
            no_subscriber: sum.no_subscriber + o.no_subscriber,
            unbracketed: sum.unbracketed + o.unbracketed,
        }
    })
}

fn all(report: &Report) -> impl Iterator<Item = &Vm> {
    report.vms.iter().chain(std::iter::once(&report.unattributed))
}
