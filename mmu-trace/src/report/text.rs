//! The text report: answer, circumstances, data quality, VMs, hooks.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
};

use mmu_trace_ebpf::kind::Gap;

use super::{
    headline::headline,
    layout::{Align, Table, count, duration, known, paragraph, percent, printable, seconds, short_count},
    schema::{Mode, Report, Vm},
    vm_section,
};
use crate::model::{Figure, HookState, Snapshot, quantile_ns};

/// What a person reads first.
#[must_use]
pub fn text(snapshot: &Snapshot) -> String {
    Text(snapshot).to_string()
}

struct Text<'a>(&'a Snapshot);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_report(f, self.0)
    }
}

fn write_report(out: &mut impl Write, snapshot: &Snapshot) -> fmt::Result {
    let report = Report::from(snapshot);
    for line in headline(snapshot, &report) {
        out.write_str(&paragraph("", &line))?;
    }
    writeln!(out)?;
    out.write_str(&circumstances(&report))?;
    out.write_str(&quality(snapshot))?;
    out.write_str(&unknown_figures(snapshot))?;
    out.write_str(&host_durations(snapshot))?;
    if !report.vms.is_empty() {
        write!(out, "\n{}", vm_table(&report.vms))?;
    }
    for (vm, shown) in snapshot.vms.iter().zip(&report.vms) {
        write!(out, "\n{}", vm_section::of_vm(&snapshot.host, vm, shown))?;
    }
    if !snapshot.unattributed.is_empty() {
        write!(out, "\n{}", vm_section::of_nobody(&snapshot.unattributed, &report.unattributed))?;
    }
    out.write_str(&missing_hooks(&report))
}

fn circumstances(report: &Report) -> String {
    let host = &report.host;
    let mode = match host.mode {
        Mode::Direct => "change_pte traced directly",
        Mode::Counterfactual => "counterfactual: change_pte calls inferred from the brackets",
    };
    let kernel = format!("{} {}, {mode}", host.kernel, host.arch);
    let window = format!("{} from {}", seconds(report.window.seconds), report.window.start);
    paragraph("Kernel:  ", &printable(&kernel)) + &paragraph("Window:  ", &window)
}

fn quality(snapshot: &Snapshot) -> String {
    let quality = &snapshot.quality;
    let mut words = shortcomings(snapshot);
    let verdict = match (quality.is_complete(), words.is_empty()) {
        (true, true) => "complete: every hook the figures need is attached, nothing lost, nothing missed",
        (true, false) => "counters complete",
        (false, true) => "incomplete",
        (false, false) => "INCOMPLETE",
    };
    words.insert(0, verdict.to_owned());
    let text =
        if words.len() == 1 { verdict.to_owned() } else { format!("{}: {}", verdict, words[1..].join("; ")) };
    paragraph("Data:    ", &printable(&format!("{text}.")))
}

/// Everything that is lost or missing, in words.
pub(crate) fn shortcomings(snapshot: &Snapshot) -> Vec<String> {
    let quality = &snapshot.quality;
    let mut words = Vec::new();
    if quality.truncated {
        words.push(
            "the end of the capture is missing or damaged, these are the last figures before that".to_owned(),
        );
    }
    if quality.kvm_replaced {
        words.push("kvm was unloaded meanwhile, and nothing of it is seen since".to_owned());
    }
    let failed = quality.hooks.iter().filter(|h| h.required && h.state != HookState::Attached);
    words.extend(failed.map(|h| format!("hook {} is not attached", h.hook)));
    if quality.missed_returns() > 0 {
        words.push(format!("entries and returns of functions missed: {}", count(quality.missed_returns())));
    }
    if quality.evicted_pages > 0 {
        words.push(format!("page records evicted: {}", count(quality.evicted_pages)));
    }
    words.extend(
        quality
            .gaps
            .iter()
            .filter_map(|(&gap, &n)| Some((n, gap_words(gap)?)))
            .map(|(n, what)| format!("{what}: {}", count(n))),
    );
    words
}

/// What `gap` means for the reader; `None` for mere bookkeeping and for what is counted elsewhere.
const fn gap_words(gap: Gap) -> Option<&'static str> {
    match gap {
        Gap::LostEvent => Some("events lost by the recording (no figure here comes from them)"),
        Gap::OrphanBracket => Some("invalidations that ended without a known start"),
        Gap::Unbracketed => Some("change_pte calls outside every known invalidation"),
        Gap::NestedTooDeep => Some("invalidations nested too deep"),
        Gap::TasksFull => Some("tasks that found the task map full"),
        Gap::PagesFull => Some("page records not written"),
        Gap::VmsFull => Some("events of VMs for which no slot was free"),
        Gap::InvalidationsFull => Some("invalidations missing from the table"),
        Gap::RangeForgotten => Some("large ranges forgotten (refaults after them are not all counted)"),
        Gap::UnknownCaller => Some("callers unreadable (cause known from KSM's hooks alone)"),
        Gap::AbandonedBracket
        | Gap::BeforeStart
        | Gap::MissedFaultEntry
        | Gap::MissedFaultReturn
        | Gap::MissedRangeEnd
        | Gap::MissedResultReturn
        | Gap::MissedKsmReturn
        | Gap::PageCreated
        | Gap::PagePending
        | Gap::PageSettled => None,
    }
}

/// The figures whose hooks are missing, and why; that a kernel has no `change_pte` is said elsewhere.
pub(crate) fn lacking(snapshot: &Snapshot) -> impl Iterator<Item = (Figure, String)> {
    let absent_by_nature = |figure| figure == Figure::ChangePte && !snapshot.host.has_change_pte;
    Figure::ALL
        .iter()
        .filter(move |&&figure| !absent_by_nature(figure))
        .filter_map(|&figure| Some((figure, snapshot.unknown(figure)?)))
}

fn unknown_figures(snapshot: &Snapshot) -> String {
    lacking(snapshot)
        .map(|(figure, reason)| paragraph("Unknown: ", &printable(&format!("{}: {reason}", figure.label()))))
        .collect()
}

/// The host's durations, where no VM has its own.
fn host_durations(snapshot: &Snapshot) -> String {
    if snapshot.vms.iter().any(|vm| vm.histograms.is_some()) {
        return String::new();
    }
    let host = &snapshot.histograms;
    let words: Vec<String> = [
        ("guest fault", &host.fault),
        ("refault", &host.refault),
        ("delay of a refault after the zap", &host.refault_delay),
    ]
    .into_iter()
    .filter_map(|(what, histogram)| Some(format!("{what}: {}", quantiles(histogram)?)))
    .collect();
    if words.is_empty() { String::new() } else { paragraph("Host:    ", &format!("{}.", words.join("; "))) }
}

fn quantiles(histogram: &BTreeMap<u16, u64>) -> Option<String> {
    let (p50, p99) = (quantile_ns(histogram, 0.5)?, quantile_ns(histogram, 0.99)?);
    Some(format!("median {}, p99 {}", duration(p50), duration(p99)))
}

fn vm_table(vms: &[Vm]) -> String {
    let counterfactual = vms.iter().any(|vm| vm.would_be_change_pte.is_some());
    let calls = if counterfactual { "would-be" } else { "calls" };
    let mut table = Table::new([
        ("VM", Align::Text),
        ("pid", Align::Number),
        ("VMM", Align::Text),
        (calls, Align::Number),
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
    let legend =
        format!("VMs ({calls}: of change_pte; time: in refaults; breaks: KSM pages copied on write)");
    paragraph("", &legend) + &table.render("")
}

fn vm_row(vm: &Vm) -> [String; 11] {
    const UNKNOWN: &str = "?";
    let number = |n: Option<u64>| n.map_or_else(|| UNKNOWN.to_owned(), short_count);
    let calls = vm.change_pte.as_ref().map(|c| c.calls).or(vm.would_be_change_pte.map(|c| c.total()));
    let noop = match (&vm.change_pte, vm.would_be_change_pte) {
        (Some(calls), _) => percent(calls.noop, calls.outcomes.decided()),
        (None, Some(_)) => "-".to_owned(),
        (None, None) => UNKNOWN.to_owned(),
    };
    let refaults = vm.refaults.as_ref();
    [
        vm.name.clone(),
        vm.pid.map_or_else(|| UNKNOWN.to_owned(), |pid| pid.to_string()),
        known(vm.vmm.clone(), |vmm| vmm),
        number(calls),
        noop,
        number(refaults.map(|r| r.total)),
        number(refaults.map(|r| r.avoidable)),
        refaults.map_or_else(|| UNKNOWN.to_owned(), |r| seconds(r.seconds)),
        number(vm.page_faults.as_ref().map(|f| f.total)),
        number(vm.ksm.merges),
        number(vm.ksm.cow_breaks),
    ]
}

fn missing_hooks(report: &Report) -> String {
    let missing = report.quality.hooks.iter().filter(|hook| hook.state != HookState::Attached);
    let lines: String = missing
        .map(|hook| {
            let state = if hook.state == HookState::Absent { "absent" } else { "FAILED" };
            let reason = hook.reason.as_deref().unwrap_or("no reason recorded");
            let text = format!("{} ({}): {state}: {reason}", hook.hook, hook.symbol);
            paragraph("  ", &printable(&text))
        })
        .collect();
    if lines.is_empty() { lines } else { format!("\nHooks not attached\n{lines}") }
}
