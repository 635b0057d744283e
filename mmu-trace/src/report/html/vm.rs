//! The section about one VM.

use super::{
    super::{
        layout::plural,
        markup::Markup,
        schema::{Causes, ChangePte, Invalidation, PageFaults, Refaults, Vm},
        tables,
        vm_section::{
            change_pte_words, facts, fault_words, invalidation_words, quantile_words, refault_words,
        },
    },
    figure, histogram,
};
use crate::model::{self, Counters};

/// The section of `vm`, whose report is `shown`; `id` is its anchor.
/// `shares` is the plot of its `change_pte` calls, where it should have one.
pub(super) fn of_vm(
    out: &mut Markup,
    id: &str,
    host: &model::Host,
    vm: &model::Vm,
    shown: &Vm,
    shares: Option<&Markup>,
) {
    figure::section(out, id, &format!("VM {}", shown.name), |section| {
        section.nest("p", &[("class", "facts")], |p| {
            p.element("bdi", &[], &facts(host, vm, shown).join(", "));
        });
        body(section, &vm.counters, shown);
        shares.into_iter().for_each(|plot| section.append(plot));
        for plot in vm.histograms.iter().flat_map(|histograms| histogram::plots(id, histograms)) {
            section.append(&plot);
        }
    });
}

/// The section of events that belong to no known VM.
pub(super) fn of_nobody(out: &mut Markup, counters: &Counters, shown: &Vm) {
    figure::section(out, "unattributed", "Events of no known VM", |section| body(section, counters, shown));
}

/// What the report does not know has no table here; the section on the data says why.
fn body(out: &mut Markup, counters: &Counters, shown: &Vm) {
    if counters.is_empty() {
        out.element("p", &[], "Nothing was counted.");
        return;
    }
    if let Some(calls) = &shown.change_pte {
        change_pte(out, calls, counters);
    }
    if let Some(causes) = &shown.would_be_change_pte {
        would_be(out, causes);
    }
    if let Some(figures) = &shown.refaults {
        refaults(out, figures, counters);
    }
    if let Some(rows) = &shown.invalidations {
        invalidations(out, rows);
    }
    if let Some(faults) = &shown.page_faults {
        page_faults(out, faults);
    }
    out.element("h3", &[], "KSM");
    figure::table(out, "What KSM did with this VM's pages", &tables::ksm(&shown.ksm));
}

fn change_pte(out: &mut Markup, calls: &ChangePte, counters: &Counters) {
    out.element("h3", &[], "change_pte");
    if calls.calls == 0 {
        out.element("p", &[], "Not called.");
        return;
    }
    sentence(out, &change_pte_words(calls));
    figure::table(out, "Outcomes", &tables::outcomes(calls, counters));
    figure::table(out, "Causes by outcome", &tables::causes_by_outcome(counters));
}

fn would_be(out: &mut Markup, causes: &Causes) {
    out.element("h3", &[], "change_pte, had the kernel called it");
    sentence(out, &plural(causes.total(), "call", "calls"));
    figure::table(out, "Causes", &tables::would_be(causes));
}

fn refaults(out: &mut Markup, refaults: &Refaults, counters: &Counters) {
    out.element("h3", &[], "Refaults");
    if refaults.total == 0 {
        out.element("p", &[], "None.");
        return;
    }
    sentence(out, &refault_words(refaults));
    figure::table(out, "Refaults by the cause of the zap", &tables::refaults(&counters.refaults));
    quantiles(out, "Cost of one", refaults.p50_ns, refaults.p99_ns);
    quantiles(out, "Delay after the zap", refaults.delay_p50_ns, refaults.delay_p99_ns);
}

fn invalidations(out: &mut Markup, rows: &[Invalidation]) {
    out.element("h3", &[], "Invalidations");
    if rows.is_empty() {
        out.element("p", &[], "None.");
        return;
    }
    sentence(out, &invalidation_words(rows));
    figure::table(out, "Invalidations by cause and initiator", &tables::invalidations(rows));
    if let Some(rest) = tables::further_invalidations(rows) {
        sentence(out, &rest);
    }
}

fn page_faults(out: &mut Markup, faults: &PageFaults) {
    out.element("h3", &[], "Page faults");
    if faults.total == 0 {
        out.element("p", &[], "None.");
        return;
    }
    sentence(out, &format!("{}: {}", plural(faults.total, "fault", "faults"), fault_words(faults)));
    figure::table(out, "Guest faults by result", &tables::page_faults(faults));
    quantiles(out, "Cost of one", faults.p50_ns, faults.p99_ns);
}

/// Nothing where no histogram was kept for this VM.
fn quantiles(out: &mut Markup, what: &str, p50_ns: Option<u64>, p99_ns: Option<u64>) {
    if let Some(words) = quantile_words(what, p50_ns, p99_ns) {
        sentence(out, &words);
    }
}

fn sentence(out: &mut Markup, words: &str) {
    out.element("p", &[], &format!("{words}."));
}
