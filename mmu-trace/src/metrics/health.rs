//! The daemon's own series: what it is, what it can see, what it lost.

use std::time::Duration;

use mmu_trace_ebpf::kind::Gap;

use super::{
    exposition::Exposition,
    process::Process,
    rejection::{Rejection, Rejections},
    table,
};
use crate::{
    model::{Figure, HookState, ProgramRuns, Quality, Reading, Snapshot},
    report::Mode,
    sandbox::Sandbox,
    source::Attachment,
    vm::clean,
};

/// Longest reason shown as a label value, in bytes.
const MAX_REASON_BYTES: usize = 256;

/// What a scrape knows beside the snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// How long it took to get the snapshot.
    pub scrape_duration: Duration,
    /// Scrapes that got none.
    pub scrape_errors: u64,
    /// Text files that could not be written; `None` if none is to be.
    pub textfile_errors: Option<u64>,
    /// Whom the HTTP server refused; `None` if it lets everybody in.
    pub rejections: Option<Rejections>,
    /// How the source stands to the kernel; `None` if it traces none.
    pub attachment: Option<Attachment>,
    /// Clients that the HTTP server sent away to make room for others.
    pub evictions: u64,
    /// What this process has given up; `None` if that is not known.
    pub sandbox: Option<Sandbox>,
    /// Whether the histograms of each VM are wanted.
    pub vm_histograms: bool,
    /// This process; `None` if `/proc/self` could not be read, or somebody else tells of it.
    pub process: Option<Process>,
}

pub(super) fn add(exposition: &mut Exposition, snapshot: &Snapshot, health: &Health) {
    exposition.set(&table::BUILD_INFO, &[env!("CARGO_PKG_VERSION")], 1.0);
    add_kernel(exposition, snapshot);
    add_quality(exposition, &snapshot.quality);
    for ProgramRuns { program, runs, run_ns } in snapshot.programs.iter().flatten() {
        exposition.add(&table::BPF_RUNS, &[program], *runs);
        exposition.add_ns(&table::BPF_RUN_SECONDS, &[program], *run_ns);
    }
    if let Some(attachment) = &health.attachment {
        add_attachment(exposition, attachment);
    }
    exposition.add(&table::HTTP_EVICTIONS, &[], health.evictions);
    for (layer, state) in health.sandbox.iter().flat_map(|sandbox| &sandbox.layers) {
        let reason = clean(state.reason().as_bytes(), MAX_REASON_BYTES);
        let in_force = if state.is_in_force() { 1.0 } else { 0.0 };
        exposition.set(&table::SANDBOX, &[layer.label(), &reason], in_force);
    }
    exposition.set(&table::SCRAPE_DURATION, &[], health.scrape_duration.as_secs_f64());
    exposition.add(&table::SCRAPE_ERRORS, &[], health.scrape_errors);
    if let Some(errors) = health.textfile_errors {
        exposition.add(&table::TEXTFILE_ERRORS, &[], errors);
    }
    for (rejection, n) in Rejection::ALL.iter().zip(health.rejections.iter().flatten()) {
        exposition.add(&table::HTTP_REJECTIONS, &[rejection.label()], *n);
    }
    if let Some(process) = &health.process {
        add_process(exposition, process);
    }
}

fn add_kernel(exposition: &mut Exposition, snapshot: &Snapshot) {
    let host = &snapshot.host;
    let mode = if host.has_change_pte { Mode::Direct } else { Mode::Counterfactual };
    exposition.set(&table::KERNEL_INFO, &[&host.kernel, &host.arch, mode.label()], 1.0);
    let figures = Figure::ALL.iter().map(|&figure| (figure.label(), snapshot.unknown(figure)));
    let readings = Reading::ALL.iter();
    let readings = readings.map(|&it| (it.label(), snapshot.unread(it).map(str::to_owned)));
    for (source, reason) in figures.chain(readings) {
        let available = if reason.is_none() { 1.0 } else { 0.0 };
        let reason = clean(reason.unwrap_or_default().as_bytes(), MAX_REASON_BYTES);
        exposition.set(&table::SOURCE_AVAILABLE, &[source, &reason], available);
    }
}

fn add_quality(exposition: &mut Exposition, quality: &Quality) {
    for hook in &quality.hooks {
        let attached = if hook.state == HookState::Attached { 1.0 } else { 0.0 };
        exposition.set(&table::PROBE_ATTACHED, &[&hook.hook, &hook.symbol, hook.backend.label()], attached);
    }
    exposition.set(&table::REQUIRED_HOOKS_MISSING, &[], quality.missing_hooks().count() as f64);
    for (hook, n) in quality.missed_returns_by_hook() {
        exposition.add(&table::MISSED_RETURNS, &[hook], n);
    }
    for (hook, &n) in &quality.probe_misses {
        exposition.add(&table::PROBE_MISSES, &[hook], n);
    }
    exposition.add(&table::EVICTED_PAGES, &[], quality.evicted_pages);
    for &gap in Gap::ALL {
        add_gap(exposition, gap, quality.gap(gap));
    }
}

fn add_gap(exposition: &mut Exposition, gap: Gap, n: u64) {
    match gap {
        Gap::LostEvent => exposition.add(&table::LOST_EVENTS, &["ring_buffer"], n),
        Gap::TasksFull => exposition.add(&table::MAP_FULL, &["tasks"], n),
        Gap::PagesFull => exposition.add(&table::MAP_FULL, &["pages"], n),
        Gap::VmsFull => exposition.add(&table::MAP_FULL, &["vms"], n),
        Gap::InvalidationsFull => exposition.add(&table::MAP_FULL, &["invalidations"], n),
        Gap::MissedFaultEntry
        | Gap::MissedFaultReturn
        | Gap::MissedRangeEnd
        | Gap::MissedResultReturn
        | Gap::MissedKsmReturn
        | Gap::PageCreated
        | Gap::PagePending
        | Gap::PageSettled => {}
        Gap::OrphanBracket
        | Gap::BeforeStart
        | Gap::RangeForgotten
        | Gap::Unbracketed
        | Gap::NestedTooDeep
        | Gap::AbandonedBracket
        | Gap::UnknownCaller => exposition.add(&table::DATA_GAPS, &[gap.label()], n),
    }
}

fn add_attachment(exposition: &mut Exposition, attachment: &Attachment) {
    exposition.set(&table::KVM_HELD, &[], f64::from(u8::from(attachment.holds_kvm)));
    exposition.add(&table::ATTACHMENTS, &[], attachment.times);
    exposition.add_f64(&table::UNTRACED_SECONDS, &[], attachment.untraced.as_secs_f64());
}

fn add_process(exposition: &mut Exposition, process: &Process) {
    exposition.add_f64(&table::PROCESS_CPU, &[], process.cpu.as_secs_f64());
    exposition.set(&table::PROCESS_MEMORY, &[], process.resident_bytes as f64);
    exposition.set(&table::PROCESS_FDS, &[], process.open_fds as f64);
    exposition.set(&table::PROCESS_START, &[], process.start_unix.as_secs_f64());
}
