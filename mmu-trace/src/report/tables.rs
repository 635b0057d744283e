//! What the tables of a report hold, whether they are shown as text or as HTML.

use std::collections::BTreeMap;

use mmu_trace_ebpf::kind::{Cause, Outcome};

use super::{
    layout::{
        Align, Column, Table, cause_with_caller, count, duration, known, percent, seconds, short_count,
    },
    schema::{Causes, ChangePte, Invalidation, Ksm, PageFaults, Quality, Vm},
};
use crate::model::{Counters, HookState, Refaults};

/// Rows of the invalidation table that are shown; the JSON report has them all.
const MAX_INVALIDATION_ROWS: usize = 20;

/// What stands for an unknown number in a narrow column.
const UNKNOWN: &str = "?";

/// One row for each VM.
pub(super) fn vms(vms: &[Vm]) -> Table {
    let mut table = Table::new([
        ("VM", Align::Text),
        ("pid", Align::Number),
        ("VMM", Align::Text),
        (calls_head(vms), Align::Number),
        ("no-op", Align::Number),
        ("refaults", Align::Number),
        ("avoidable", Align::Number),
        ("time", Align::Number),
        ("faults", Align::Number),
        ("merges", Align::Number),
        ("breaks", Align::Number),
    ]);
    for vm in vms {
        table.row(vm_row(vm));
    }
    table
}

/// What the columns of [`vms`] mean.
pub(super) fn vms_legend(vms: &[Vm]) -> String {
    format!("{}: of change_pte; time: in refaults; breaks: KSM pages copied on write", calls_head(vms))
}

fn calls_head(vms: &[Vm]) -> &'static str {
    if vms.iter().any(|vm| vm.would_be_change_pte.is_some()) { "would-be" } else { "calls" }
}

fn vm_row(vm: &Vm) -> [String; 11] {
    let number = |n: Option<u64>| n.map_or_else(|| UNKNOWN.to_owned(), short_count);
    let calls = vm.change_pte.as_ref().map(|c| c.calls).or(vm.would_be_change_pte.map(|c| c.total()));
    let refaults = vm.refaults.as_ref();
    [
        vm.name.clone(),
        vm.pid.map_or_else(|| UNKNOWN.to_owned(), |pid| pid.to_string()),
        known(vm.vmm.clone(), |vmm| vmm),
        number(calls),
        noop_share(vm),
        number(refaults.map(|r| r.total)),
        number(refaults.map(|r| r.avoidable)),
        refaults.map_or_else(|| UNKNOWN.to_owned(), |r| seconds(r.seconds)),
        number(vm.page_faults.as_ref().map(|f| f.total)),
        number(vm.ksm.merges),
        number(vm.ksm.cow_breaks),
    ]
}

fn noop_share(vm: &Vm) -> String {
    match (&vm.change_pte, vm.would_be_change_pte) {
        (Some(calls), _) => percent(calls.noop, calls.outcomes.decided()),
        (None, Some(_)) => "-".to_owned(),
        (None, None) => UNKNOWN.to_owned(),
    }
}

/// `change_pte` calls by outcome, in words.
pub(super) fn outcomes(calls: &ChangePte, counters: &Counters) -> Table {
    let mut table =
        Table::new([("calls", Align::Number), ("share", Align::Number), ("outcome", Align::Text)]);
    for &outcome in Outcome::ALL {
        let n = counters.change_pte_outcome(outcome);
        if n > 0 {
            table.row([count(n), percent(n, calls.calls), outcome_words(outcome).to_owned()]);
        }
    }
    table
}

const fn outcome_words(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::EffectiveUpdated => "effective: KVM took over the new PTE, read-only",
        Outcome::EffectiveDropped => "effective: KVM dropped its mapping, the new PTE is writable",
        Outcome::NoopZappedByBracket => "no-op: its own invalidate_range_start had torn the mapping down",
        Outcome::NoopZappedBySameOp => "no-op: an earlier invalidation of the same KSM operation had",
        Outcome::NoopNotMapped => "no-op: the guest had not mapped the page",
        Outcome::NotGuestMemory => "not guest memory: no memslot covers the address",
        Outcome::NoSubscriber => "no subscriber: the process has no VM",
        Outcome::Unbracketed => "not judged: the enclosing invalidation was not seen",
    }
}

const fn outcome_head(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::EffectiveUpdated => "updated",
        Outcome::EffectiveDropped => "dropped",
        Outcome::NoopZappedByBracket => "bracket",
        Outcome::NoopZappedBySameOp => "same op",
        Outcome::NoopNotMapped => "unmapped",
        Outcome::NotGuestMemory => "outside",
        Outcome::NoSubscriber => "no VM",
        Outcome::Unbracketed => "unjudged",
    }
}

/// `change_pte` calls by cause, then outcome.
pub(super) fn causes_by_outcome(counters: &Counters) -> Table {
    let present: Vec<Outcome> =
        Outcome::ALL.iter().copied().filter(|&outcome| counters.change_pte_outcome(outcome) > 0).collect();
    let heads = present.iter().map(|&outcome| (outcome_head(outcome), Align::Number));
    let first: [Column; 2] = [("cause", Align::Text), ("calls", Align::Number)];
    let mut table = Table::new(first.into_iter().chain(heads));
    for (&cause, by_outcome) in &counters.change_pte {
        let n = |outcome: &Outcome| short_count(by_outcome.get(outcome).copied().unwrap_or(0));
        let first = [cause.label().to_owned(), short_count(counters.change_pte_cause(cause))];
        table.row(first.into_iter().chain(present.iter().map(n)));
    }
    table
}

/// The `change_pte` calls that the brackets imply, by cause.
pub(super) fn would_be(causes: &Causes) -> Table {
    let mut table = Table::new([("cause", Align::Text), ("calls", Align::Number)]);
    let rows = [
        (Cause::KsmWriteProtect, causes.ksm_write_protect),
        (Cause::KsmReplace, causes.ksm_replace),
        (Cause::KsmUnmerge, causes.ksm_unmerge),
        (Cause::CowGuest, causes.cow_guest),
        (Cause::CowHost, causes.cow_host),
        (Cause::Uprobe, causes.uprobe),
        (Cause::Migrate, causes.migrate),
        (Cause::Other, causes.other),
    ];
    for (cause, n) in rows.into_iter().filter(|&(_, n)| n > 0) {
        table.row([cause.label().to_owned(), count(n)]);
    }
    table
}

/// Refaults by the cause of the zap.
pub(super) fn refaults(refaults: &BTreeMap<Cause, Refaults>) -> Table {
    let mut table = Table::new([
        ("cause", Align::Text),
        ("refaults", Align::Number),
        ("avoidable", Align::Number),
        ("time", Align::Number),
        ("mean", Align::Number),
    ]);
    for (cause, r) in refaults.iter().filter(|(_, r)| r.n > 0) {
        table.row([
            cause.label().to_owned(),
            count(r.n),
            count(r.avoidable),
            duration(r.ns),
            duration(r.ns / r.n),
        ]);
    }
    table
}

/// The most frequent rows of the invalidation table.
pub(super) fn invalidations(rows: &[Invalidation]) -> Table {
    let mut table = Table::new([
        ("cause", Align::Text),
        ("initiator", Align::Text),
        ("event", Align::Text),
        ("ranges", Align::Number),
        ("pages", Align::Number),
        ("zapped", Align::Number),
        ("time", Align::Number),
    ]);
    for row in rows.iter().take(MAX_INVALIDATION_ROWS) {
        table.row(invalidation(row));
    }
    table
}

fn invalidation(row: &Invalidation) -> [String; 7] {
    [
        cause_with_caller(row.cause, row.caller.as_deref()),
        row.initiator.label().to_owned(),
        row.event.clone(),
        short_count(row.ranges),
        short_count(row.pages),
        short_count(row.zapped),
        seconds(row.seconds),
    ]
}

/// What [`invalidations`] leaves out, in words.
pub(super) fn further_invalidations(rows: &[Invalidation]) -> Option<String> {
    let rest = rows.get(MAX_INVALIDATION_ROWS..).filter(|rest| !rest.is_empty())?;
    let ranges: u64 = rest.iter().map(|row| row.ranges).sum();
    Some(format!("and {} rows with {} ranges, see --format json", rest.len(), count(ranges)))
}

/// Guest faults by result.
pub(super) fn page_faults(faults: &PageFaults) -> Table {
    let mut table =
        Table::new([("result", Align::Text), ("faults", Align::Number), ("share", Align::Number)]);
    for (result, n) in fault_results(faults) {
        table.row([result.to_owned(), count(n), percent(n, faults.total)]);
    }
    table
}

/// The results of guest faults; `unfinished` only where there are some.
pub(super) fn fault_results(faults: &PageFaults) -> impl Iterator<Item = (&'static str, u64)> {
    let results = [
        ("fixed", faults.fixed),
        ("retry", faults.retry),
        ("spurious", faults.spurious),
        ("emulate", faults.emulate),
        ("other", faults.other),
    ];
    let finished: u64 = results.iter().map(|(_, n)| n).sum();
    let unfinished = faults.total.saturating_sub(finished);
    results.into_iter().chain((unfinished > 0).then_some(("unfinished", unfinished)))
}

/// What KSM did with a VM's pages.
pub(super) fn ksm(ksm: &Ksm) -> Table {
    let mut table = Table::new([("KSM", Align::Text), ("pages", Align::Number)]);
    for (what, n) in ksm_figures(ksm) {
        table.row([what.to_owned(), known(n, count)]);
    }
    table
}

/// The same as pairs.
pub(super) fn ksm_figures(ksm: &Ksm) -> [(&'static str, Option<u64>); 4] {
    [
        ("merged", ksm.merges),
        ("broken by copy on write", ksm.cow_breaks),
        ("unmerged", ksm.unmerges),
        ("given up after a zap", ksm.failed_attempts),
    ]
}

/// Every hook, how it is attached and why not.
pub(super) fn hooks(quality: &Quality) -> Table {
    let mut table =
        Table::new(["hook", "symbol", "backend", "state", "reason"].map(|head| (head, Align::Text)));
    for hook in &quality.hooks {
        table.row([
            hook.hook.clone(),
            hook.symbol.clone(),
            hook.backend.label().to_owned(),
            hook_state(hook.state).to_owned(),
            hook.reason.clone().unwrap_or_default(),
        ]);
    }
    table
}

const fn hook_state(state: HookState) -> &'static str {
    match state {
        HookState::Attached => "attached",
        HookState::Absent => "absent",
        HookState::Failed => "FAILED",
    }
}
