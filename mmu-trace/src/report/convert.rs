//! From a [`Snapshot`] to a [`Report`].

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    time::{Duration, UNIX_EPOCH},
};

use mmu_trace_ebpf::kind::{Cause, FaultResult, Gap, Outcome};

use super::schema::{
    Causes, ChangePte, ChangePtePresence, Hook, Host, Invalidation, Ksm, Mode, Outcomes, PageFaults, Quality,
    RefaultCauses, Refaults, Report, SCHEMA, UNATTRIBUTED, Vm, Window,
};
use crate::model::{self, Counters, Figure, Histograms, Snapshot, quantile_ns};

impl From<&Snapshot> for Report {
    fn from(snapshot: &Snapshot) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            host: Host::from(&snapshot.host),
            window: Window::from(&snapshot.window),
            quality: Quality::from(&snapshot.quality),
            vms: snapshot.vms.iter().map(|vm| identified(snapshot, vm)).collect(),
            unattributed: Vm::counted(snapshot, UNATTRIBUTED, &snapshot.unattributed, None),
        }
    }
}

impl From<&model::Host> for Host {
    fn from(host: &model::Host) -> Self {
        let (change_pte, mode) = if host.has_change_pte {
            (ChangePtePresence::Present, Mode::Direct)
        } else {
            (ChangePtePresence::Absent, Mode::Counterfactual)
        };
        Self { kernel: host.kernel.clone(), arch: host.arch.clone(), change_pte, mode }
    }
}

impl From<&model::Window> for Window {
    fn from(window: &model::Window) -> Self {
        let start = UNIX_EPOCH + Duration::from_nanos(window.start_unix_ns);
        Self { start: humantime::format_rfc3339_millis(start).to_string(), seconds: window.seconds }
    }
}

impl From<&model::Quality> for Quality {
    fn from(quality: &model::Quality) -> Self {
        Self {
            complete: quality.is_complete(),
            lost_events: quality.gap(Gap::LostEvent),
            missed_returns: quality.missed_returns(),
            map_full: quality.map_full(),
            orphan_brackets: quality.gap(Gap::OrphanBracket),
            unbracketed: quality.gap(Gap::Unbracketed),
            kvm_replaced: quality.kvm_replaced,
            hooks: quality.hooks.iter().map(Hook::from).collect(),
        }
    }
}

impl From<&model::Hook> for Hook {
    fn from(hook: &model::Hook) -> Self {
        Self {
            hook: hook.hook.clone(),
            symbol: hook.symbol.clone(),
            backend: hook.backend,
            state: hook.state,
            reason: hook.reason.clone(),
        }
    }
}

fn identified(snapshot: &Snapshot, vm: &model::Vm) -> Vm {
    let id = &vm.identity;
    Vm {
        uuid: id.uuid.clone(),
        pid: Some(id.pid).filter(|&pid| pid != 0),
        vmm: Some(id.vmm.clone()).filter(|vmm| !vmm.is_empty()),
        mmu: vm.mmu,
        vms_in_process: Some(id.n_vms).filter(|&n| n != 0),
        ..Vm::counted(snapshot, &id.name, &vm.counters, vm.histograms.as_ref())
    }
}

impl Vm {
    /// The figures of one VM that `snapshot` knows, without its identity.
    fn counted(
        snapshot: &Snapshot,
        name: &str,
        counters: &Counters,
        histograms: Option<&Histograms>,
    ) -> Self {
        let known = |figure| snapshot.unknown(figure).is_none();
        let counterfactual = !snapshot.host.has_change_pte && known(Figure::Invalidations);
        Self {
            name: name.to_owned(),
            uuid: None,
            pid: None,
            vmm: None,
            mmu: None,
            vms_in_process: None,
            change_pte: known(Figure::ChangePte).then(|| ChangePte::from(counters)),
            would_be_change_pte: counterfactual.then(|| causes(&counters.would_be)),
            invalidations: known(Figure::Invalidations).then(|| invalidations(&counters.invalidations)),
            page_faults: known(Figure::PageFaults).then(|| PageFaults::new(counters, histograms)),
            refaults: known(Figure::Refaults).then(|| Refaults::new(counters, histograms)),
            ksm: Ksm {
                merges: known(Figure::KsmMerges).then_some(counters.ksm_merges),
                cow_breaks: known(Figure::KsmCowBreaks).then_some(counters.ksm_cow_breaks),
                unmerges: known(Figure::KsmUnmerges).then_some(counters.ksm_unmerges),
                failed_attempts: known(Figure::KsmFailedAttempts).then_some(counters.ksm_failed_attempts),
            },
        }
    }
}

impl From<&Counters> for ChangePte {
    fn from(counters: &Counters) -> Self {
        let outcomes = Outcomes::from(counters);
        let decided = outcomes.decided();
        let by_cause = counters.change_pte.keys().map(|&c| (c, counters.change_pte_cause(c))).collect();
        Self {
            calls: counters.change_pte_calls(),
            noop: outcomes.noop(),
            noop_ratio: (decided > 0).then(|| outcomes.noop() as f64 / decided as f64),
            outcomes,
            causes: causes(&by_cause),
            seconds: measured(counters.change_pte_ns, counters.change_pte_timed, counters.change_pte_calls()),
        }
    }
}

impl PageFaults {
    fn new(counters: &Counters, histograms: Option<&Histograms>) -> Self {
        let result = |result| counters.faults.get(&result).copied().unwrap_or(0);
        Self {
            total: counters.faults_entered,
            unfinished: counters.faults_entered.saturating_sub(counters.faults.values().sum()),
            permission: counters.permission_faults,
            fixed: result(FaultResult::Fixed),
            retry: result(FaultResult::Retry),
            spurious: result(FaultResult::Spurious),
            emulate: result(FaultResult::Emulate),
            other: result(FaultResult::Other),
            seconds: measured(counters.faults_ns, counters.faults_timed, counters.faults_entered),
            p50_ns: histograms.and_then(|h| quantile_ns(&h.fault, 0.5)),
            p99_ns: histograms.and_then(|h| quantile_ns(&h.fault, 0.99)),
        }
    }
}

impl Refaults {
    fn new(counters: &Counters, histograms: Option<&Histograms>) -> Self {
        let total = counters.refaults_total();
        Self {
            total: total.n,
            avoidable: total.avoidable,
            causes: refault_causes(&counters.refaults),
            seconds: seconds(total.ns),
            avoidable_seconds: seconds(total.avoidable_ns),
            p50_ns: histograms.and_then(|h| quantile_ns(&h.refault, 0.5)),
            p99_ns: histograms.and_then(|h| quantile_ns(&h.refault, 0.99)),
            delay_p50_ns: histograms.and_then(|h| quantile_ns(&h.refault_delay, 0.5)),
            delay_p99_ns: histograms.and_then(|h| quantile_ns(&h.refault_delay, 0.99)),
        }
    }
}

impl From<&Counters> for Outcomes {
    fn from(counters: &Counters) -> Self {
        let n = |outcome| counters.change_pte_outcome(outcome);
        Self {
            effective_updated: n(Outcome::EffectiveUpdated),
            effective_dropped: n(Outcome::EffectiveDropped),
            noop_zapped_by_bracket: n(Outcome::NoopZappedByBracket),
            noop_zapped_by_same_op: n(Outcome::NoopZappedBySameOp),
            noop_not_mapped: n(Outcome::NoopNotMapped),
            not_guest_memory: n(Outcome::NotGuestMemory),
            no_subscriber: n(Outcome::NoSubscriber),
            unbracketed: n(Outcome::Unbracketed),
        }
    }
}

/// Adds `n` to the field of `cause`; false if it has none.
fn add(causes: &mut Causes, cause: Cause, n: u64) -> bool {
    let field = match cause {
        Cause::KsmWriteProtect => &mut causes.ksm_write_protect,
        Cause::KsmReplace => &mut causes.ksm_replace,
        Cause::KsmUnmerge => &mut causes.ksm_unmerge,
        Cause::CowGuest => &mut causes.cow_guest,
        Cause::CowHost => &mut causes.cow_host,
        Cause::Uprobe => &mut causes.uprobe,
        Cause::Migrate => &mut causes.migrate,
        Cause::Other => &mut causes.other,
        _ => return false,
    };
    *field += n;
    true
}

fn causes(counts: &BTreeMap<Cause, u64>) -> Causes {
    let mut causes = Causes::default();
    for (&cause, &n) in counts {
        if !add(&mut causes, cause, n) {
            causes.other += n;
        }
    }
    causes
}

fn refault_causes(refaults: &BTreeMap<Cause, model::Refaults>) -> RefaultCauses {
    let mut causes = RefaultCauses::default();
    for (&cause, refaults) in refaults {
        if !add(&mut causes.change_pte, cause, refaults.n) && refaults.n > 0 {
            causes.further.insert(cause, refaults.n);
        }
    }
    causes
}

fn invalidations(rows: &[model::Invalidation]) -> Vec<Invalidation> {
    let mut rows: Vec<&model::Invalidation> = rows.iter().collect();
    rows.sort_by_key(|row| (Reverse(row.ranges), &row.key));
    rows.into_iter().map(Invalidation::from).collect()
}

impl From<&model::Invalidation> for Invalidation {
    fn from(row: &model::Invalidation) -> Self {
        Self {
            cause: row.key.cause,
            initiator: row.key.initiator,
            event: row.key.event.clone(),
            ranges: row.ranges,
            pages: row.pages,
            zapped: row.zapped,
            seconds: seconds(row.ns),
            caller: row.caller.clone(),
        }
    }
}

/// The time of `n` operations of which `timed` were timed: unknown if there were some and none was.
fn measured(ns: u64, timed: u64, n: u64) -> Option<f64> {
    (timed > 0 || n == 0).then(|| seconds(ns))
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}
