//! The text report's section about one VM.

use mmu_trace_ebpf::kind::{Cause, Outcome};

use super::{
    layout::{
        Align, Column, Table, count, duration, known, paragraph, percent, plural, printable, seconds,
        short_count,
    },
    schema::{Causes, ChangePte, Invalidation, Ksm, PageFaults, Refaults, Vm},
};
use crate::model::{self, Counters, Mmu};

/// Rows of the invalidation table that are shown; the JSON report has them all.
const MAX_INVALIDATION_ROWS: usize = 20;

/// The section of `vm`, whose report is `shown`.
pub(super) fn of_vm(host: &model::Host, vm: &model::Vm, shown: &Vm) -> String {
    paragraph("", &printable(&title(host, vm, shown))) + &body(&vm.counters, shown)
}

/// The section of events that belong to no known VM.
pub(super) fn of_nobody(counters: &Counters, shown: &Vm) -> String {
    "Events of no known VM\n".to_owned() + &body(counters, shown)
}

fn title(host: &model::Host, vm: &model::Vm, shown: &Vm) -> String {
    let mmu = match vm.mmu {
        Some(Mmu::Tdp) => Some("TDP MMU"),
        Some(Mmu::Rmap) => Some("rmap MMU"),
        // Only x86-64 has a choice.
        None => (host.arch == "x86_64").then_some("MMU unknown"),
    };
    let pid = shown.pid.map_or_else(|| "pid unknown".to_owned(), |pid| format!("pid {pid}"));
    let mut facts = vec![known(shown.vmm.clone(), |vmm| vmm), pid];
    facts.extend(mmu.map(str::to_owned));
    let several = shown.vms_in_process.filter(|&n| n > 1);
    facts.extend(several.map(|n| format!("{n} VMs in this process, counted together")));
    facts.extend(shown.uuid.as_ref().map(|uuid| format!("uuid {uuid}")));
    facts.extend((!vm.alive).then(|| "ended".to_owned()));
    facts.extend(vm.identity.cgroup.as_ref().map(|cgroup| format!("cgroup {cgroup}")));
    format!("VM {} ({})", shown.name, facts.join(", "))
}

fn body(counters: &Counters, shown: &Vm) -> String {
    let sections = [
        shown.change_pte.as_ref().map(|calls| change_pte(calls, counters)),
        shown.would_be_change_pte.as_ref().map(would_be),
        shown.refaults.as_ref().map(|r| refaults(r, counters)),
        shown.invalidations.as_deref().map(invalidations),
        shown.page_faults.as_ref().map(page_faults),
        Some(ksm(&shown.ksm)),
    ];
    sections.into_iter().flatten().collect()
}

fn change_pte(calls: &ChangePte, counters: &Counters) -> String {
    if calls.calls == 0 {
        return "  change_pte: not called\n".to_owned();
    }
    let time = known(calls.seconds, seconds);
    let head = format!("{}, time inside: {time}", plural(calls.calls, "call", "calls"));
    let mut table =
        Table::new([("calls", Align::Number), ("share", Align::Number), ("outcome", Align::Text)]);
    for &outcome in Outcome::ALL {
        let n = counters.change_pte_outcome(outcome);
        if n > 0 {
            table.row([count(n), percent(n, calls.calls), outcome_words(outcome).to_owned()]);
        }
    }
    paragraph("  change_pte: ", &head) + &table.render("    ") + &by_cause_and_outcome(counters)
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

fn by_cause_and_outcome(counters: &Counters) -> String {
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
    table.render("    ")
}

fn would_be(causes: &Causes) -> String {
    let head = plural(causes.total(), "call", "calls");
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
    paragraph("  change_pte, had the kernel called it: ", &head) + &table.render("    ")
}

fn refaults(refaults: &Refaults, counters: &Counters) -> String {
    if refaults.total == 0 {
        return "  refaults: none\n".to_owned();
    }
    let head = format!(
        "{} in {} of vCPU time; {} avoidable, {}",
        count(refaults.total),
        seconds(refaults.seconds),
        count(refaults.avoidable),
        seconds(refaults.avoidable_seconds)
    );
    let mut table = Table::new([
        ("cause", Align::Text),
        ("refaults", Align::Number),
        ("avoidable", Align::Number),
        ("time", Align::Number),
        ("mean", Align::Number),
    ]);
    for (cause, r) in counters.refaults.iter().filter(|(_, r)| r.n > 0) {
        table.row([
            cause.label().to_owned(),
            count(r.n),
            count(r.avoidable),
            duration(r.ns),
            duration(r.ns / r.n),
        ]);
    }
    paragraph("  refaults: ", &head)
        + &table.render("    ")
        + &quantiles("cost of one", refaults.p50_ns, refaults.p99_ns)
        + &quantiles("delay after the zap", refaults.delay_p50_ns, refaults.delay_p99_ns)
}

/// Nothing where no histogram was kept for this VM.
fn quantiles(what: &str, p50_ns: Option<u64>, p99_ns: Option<u64>) -> String {
    match (p50_ns, p99_ns) {
        (Some(p50), Some(p99)) => {
            format!("    {what}: median {}, p99 {}\n", duration(p50), duration(p99))
        }
        _ => String::new(),
    }
}

fn invalidations(rows: &[Invalidation]) -> String {
    if rows.is_empty() {
        return "  invalidations: none\n".to_owned();
    }
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
    let total = rows.iter().map(|row| row.ranges).sum();
    let head =
        format!("{}; zapped: those in which KVM tore something down", plural(total, "range", "ranges"));
    paragraph("  invalidations: ", &head) + &table.render("    ") + &rest(rows)
}

fn invalidation(row: &Invalidation) -> [String; 7] {
    let cause = match &row.caller {
        Some(caller) => format!("{} ({caller})", row.cause.label()),
        None => row.cause.label().to_owned(),
    };
    [
        cause,
        row.initiator.label().to_owned(),
        row.event.clone(),
        short_count(row.ranges),
        short_count(row.pages),
        short_count(row.zapped),
        seconds(row.seconds),
    ]
}

fn rest(rows: &[Invalidation]) -> String {
    let rest = rows.get(MAX_INVALIDATION_ROWS..).unwrap_or_default();
    if rest.is_empty() {
        return String::new();
    }
    let ranges: u64 = rest.iter().map(|row| row.ranges).sum();
    format!("    and {} rows with {} ranges, see --format json\n", rest.len(), count(ranges))
}

fn page_faults(faults: &PageFaults) -> String {
    if faults.total == 0 {
        return "  page faults: none\n".to_owned();
    }
    let results = [
        (faults.fixed, "fixed"),
        (faults.retry, "retry"),
        (faults.spurious, "spurious"),
        (faults.emulate, "emulate"),
        (faults.other, "other"),
    ];
    let finished: u64 = results.iter().map(|(n, _)| n).sum();
    let mut words: Vec<String> =
        results.iter().map(|(n, result)| format!("{} {result}", count(*n))).collect();
    if faults.total > finished {
        words.push(format!("{} unfinished", count(faults.total - finished)));
    }
    let head = format!(
        "{}: {}; {} hit a mapping that did not allow the access; time {}",
        count(faults.total),
        words.join(", "),
        count(faults.permission),
        known(faults.seconds, seconds)
    );
    paragraph("  page faults: ", &head) + &quantiles("cost of one", faults.p50_ns, faults.p99_ns)
}

fn ksm(ksm: &Ksm) -> String {
    let n = |n: Option<u64>| known(n, count);
    let text = format!(
        "merged {}, broken by copy on write {}, unmerged {}, given up after a zap {}",
        n(ksm.merges),
        n(ksm.cow_breaks),
        n(ksm.unmerges),
        n(ksm.failed_attempts)
    );
    paragraph("  KSM pages: ", &text)
}
