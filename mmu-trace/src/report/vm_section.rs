//! The text report's section about one VM.

use super::{
    layout::{count, duration, known, paragraph, plural, printable, seconds},
    schema::{Causes, ChangePte, Invalidation, Ksm, PageFaults, Refaults, Vm},
    tables,
};
use crate::model::{self, Counters, Mmu};

/// The section of `vm`, whose report is `shown`.
pub(super) fn of_vm(host: &model::Host, vm: &model::Vm, shown: &Vm) -> String {
    paragraph("", &printable(&title(host, vm, shown))) + &body(&vm.counters, shown)
}

/// The section of events that belong to no known VM.
pub(super) fn of_nobody(counters: &Counters, shown: &Vm) -> String {
    "Events of no known VM\n".to_owned() + &body(counters, shown)
}

fn title(host: &model::Host, vm: &model::Vm, shown: &Vm) -> String {
    format!("VM {} ({})", shown.name, facts(host, vm, shown).join(", "))
}

/// Who the VM is, apart from its name.
pub(super) fn facts(host: &model::Host, vm: &model::Vm, shown: &Vm) -> Vec<String> {
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
    facts
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
    paragraph("  change_pte: ", &change_pte_words(calls))
        + &tables::outcomes(calls, counters).render("    ")
        + &tables::causes_by_outcome(counters).render("    ")
}

/// How many calls there were, and their time.
pub(super) fn change_pte_words(calls: &ChangePte) -> String {
    let time = known(calls.seconds, seconds);
    format!("{}, time inside: {time}", plural(calls.calls, "call", "calls"))
}

fn would_be(causes: &Causes) -> String {
    let head = plural(causes.total(), "call", "calls");
    paragraph("  change_pte, had the kernel called it: ", &head) + &tables::would_be(causes).render("    ")
}

fn refaults(refaults: &Refaults, counters: &Counters) -> String {
    if refaults.total == 0 {
        return "  refaults: none\n".to_owned();
    }
    paragraph("  refaults: ", &refault_words(refaults))
        + &tables::refaults(&counters.refaults).render("    ")
        + &quantiles("cost of one", refaults.p50_ns, refaults.p99_ns)
        + &quantiles("delay after the zap", refaults.delay_p50_ns, refaults.delay_p99_ns)
}

/// How many refaults there were, what they cost, and how much of it for nothing.
pub(super) fn refault_words(refaults: &Refaults) -> String {
    format!(
        "{} in {} of vCPU time; {} avoidable, {}",
        count(refaults.total),
        seconds(refaults.seconds),
        count(refaults.avoidable),
        seconds(refaults.avoidable_seconds)
    )
}

/// Nothing where no histogram was kept for this VM.
fn quantiles(what: &str, p50_ns: Option<u64>, p99_ns: Option<u64>) -> String {
    quantile_words(what, p50_ns, p99_ns).map_or_else(String::new, |words| format!("    {words}\n"))
}

/// Median and 99th percentile, where known.
pub(super) fn quantile_words(what: &str, p50_ns: Option<u64>, p99_ns: Option<u64>) -> Option<String> {
    Some(format!("{what}: median {}, p99 {}", duration(p50_ns?), duration(p99_ns?)))
}

fn invalidations(rows: &[Invalidation]) -> String {
    if rows.is_empty() {
        return "  invalidations: none\n".to_owned();
    }
    let rest = tables::further_invalidations(rows);
    paragraph("  invalidations: ", &invalidation_words(rows))
        + &tables::invalidations(rows).render("    ")
        + &rest.map_or_else(String::new, |rest| format!("    {rest}\n"))
}

/// How many brackets there were, and what one of the columns means.
pub(super) fn invalidation_words(rows: &[Invalidation]) -> String {
    let total = rows.iter().map(|row| row.ranges).sum();
    format!("{}; zapped: those in which KVM tore something down", plural(total, "range", "ranges"))
}

fn page_faults(faults: &PageFaults) -> String {
    if faults.total == 0 {
        return "  page faults: none\n".to_owned();
    }
    let words: Vec<String> =
        tables::fault_results(faults).map(|(result, n)| format!("{} {result}", count(n))).collect();
    let head = format!("{}: {}; {}", count(faults.total), words.join(", "), fault_words(faults));
    paragraph("  page faults: ", &head) + &quantiles("cost of one", faults.p50_ns, faults.p99_ns)
}

/// What the faults hit and took.
pub(super) fn fault_words(faults: &PageFaults) -> String {
    format!(
        "{} hit a mapping that did not allow the access; time {}",
        count(faults.permission),
        known(faults.seconds, seconds)
    )
}

fn ksm(ksm: &Ksm) -> String {
    let figures = tables::ksm_figures(ksm).map(|(what, n)| format!("{what} {}", known(n, count)));
    paragraph("  KSM pages: ", &figures.join(", "))
}
