//! The text report: answer, circumstances, data quality, VMs, hooks.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
};

use mmu_trace_ebpf::kind::Gap;

use super::{
    headline::headline,
    layout::{count, duration, paragraph, printable, seconds},
    schema::{Mode, Report, Vm},
    tables, vm_section,
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
    let kernel = format!("{} {}, {}", host.kernel, host.arch, mode_words(host.mode));
    let window = format!("{} from {}", seconds(report.window.seconds), report.window.start);
    paragraph("Kernel:  ", &printable(&kernel)) + &paragraph("Window:  ", &window)
}

/// How the question was answered, in words.
pub(super) const fn mode_words(mode: Mode) -> &'static str {
    match mode {
        Mode::Direct => "change_pte traced directly",
        Mode::Counterfactual => "counterfactual: change_pte calls inferred from the brackets",
    }
}

fn quality(snapshot: &Snapshot) -> String {
    let words = shortcomings(snapshot);
    let verdict = verdict(snapshot, &words);
    let text = if words.is_empty() { verdict.to_owned() } else { format!("{verdict}: {}", words.join("; ")) };
    paragraph("Data:    ", &printable(&format!("{text}.")))
}

/// Whether the data is complete, given its [`shortcomings`].
pub(super) fn verdict(snapshot: &Snapshot, shortcomings: &[String]) -> &'static str {
    match (snapshot.quality.is_complete(), shortcomings.is_empty()) {
        (true, true) => "complete: every hook the figures need is attached, nothing lost, nothing missed",
        (true, false) => "counters complete",
        (false, true) => "incomplete",
        (false, false) => "INCOMPLETE",
    }
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
    let failed = quality.missing_hooks();
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

/// The same in words.
pub(super) fn unknown(snapshot: &Snapshot) -> impl Iterator<Item = String> {
    lacking(snapshot).map(|(figure, reason)| format!("{}: {reason}", figure.label()))
}

fn unknown_figures(snapshot: &Snapshot) -> String {
    unknown(snapshot).map(|words| paragraph("Unknown: ", &printable(&words))).collect()
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
    paragraph("", &format!("VMs ({})", tables::vms_legend(vms))) + &tables::vms(vms).render("")
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
