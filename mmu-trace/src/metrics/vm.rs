//! The series of the running VMs, and of events that belong to none.

use mmu_trace_ebpf::kind::{Cause, FaultResult, Initiator, Outcome};

use super::{
    exposition::Exposition,
    table::{self, Series},
};
use crate::{
    model::{Counters, Figure, Invalidation, KsmAccount, Refaults, Snapshot, Vm},
    report::UNATTRIBUTED,
    vm::OTHER,
};

/// Causes that lead to `change_pte`: their series exist from the start. All others are `other`.
const CHANGE_PTE_CAUSES: &[Cause] = &[
    Cause::KsmWriteProtect,
    Cause::KsmReplace,
    Cause::KsmUnmerge,
    Cause::CowGuest,
    Cause::CowHost,
    Cause::Uprobe,
    Cause::Migrate,
    Cause::Other,
];

/// Causes whose avoidable refaults exist from the start; those of other causes once there is a refault.
const AVOIDABLE_CAUSES: &[Cause] =
    &[Cause::KsmWriteProtect, Cause::KsmReplace, Cause::KsmUnmerge, Cause::CowGuest, Cause::CowHost];

/// Invalidations whose series exist from the start: what KSM and copy on write do to every merged VM.
/// All pairs would be 180, each of four families.
const USUAL_INVALIDATIONS: &[(Cause, Initiator)] = &[
    (Cause::KsmWriteProtect, Initiator::Ksmd),
    (Cause::KsmReplace, Initiator::Ksmd),
    (Cause::CowGuest, Initiator::Vcpu),
    (Cause::CowHost, Initiator::Vmm),
];

const NOOP: &[Outcome] = &[Outcome::NoopZappedByBracket, Outcome::NoopZappedBySameOp, Outcome::NoopNotMapped];
const EFFECTIVE: &[Outcome] = &[Outcome::EffectiveUpdated, Outcome::EffectiveDropped];

/// Adds every running VM and what is attributed to none.
pub(super) fn add(exposition: &mut Exposition, snapshot: &Snapshot) {
    for vm in snapshot.vms.iter().filter(|vm| vm.alive) {
        add_info(exposition, vm);
        let uuid = vm.identity.uuid.as_deref().unwrap_or_default();
        let mut domain = Domain { exposition, snapshot, name: &vm.identity.name, uuid };
        domain.add(&vm.counters);
        domain.add_account(&vm.ksm);
    }
    Domain { exposition, snapshot, name: UNATTRIBUTED, uuid: "" }.add(&snapshot.unattributed);
}

fn add_info(exposition: &mut Exposition, vm: &Vm) {
    let id = &vm.identity;
    if id.name == OTHER {
        return;
    }
    let pid = if id.pid == 0 { String::new() } else { id.pid.to_string() };
    let uuid = id.uuid.as_deref().unwrap_or_default();
    let cgroup = id.cgroup.as_deref().unwrap_or_default();
    exposition.set(&table::VM_INFO, &[&id.name, uuid, &pid, &id.vmm, cgroup], 1.0);
    if id.n_vms != 0 {
        exposition.set(&table::VMS_IN_PROCESS, &[&id.name, uuid], f64::from(id.n_vms));
    }
}

/// The series of one `domain` label.
struct Domain<'a> {
    exposition: &'a mut Exposition,
    snapshot: &'a Snapshot,
    name: &'a str,
    uuid: &'a str,
}

impl Domain<'_> {
    /// Adds what this host knows.
    fn add(&mut self, counters: &Counters) {
        if self.knows(Figure::ChangePte) {
            self.add_change_pte(counters);
        }
        if self.knows(Figure::Invalidations) {
            self.add_invalidations(counters);
        }
        if self.knows(Figure::PageFaults) {
            self.add_page_faults(counters);
        }
        if self.knows(Figure::Refaults) {
            self.add_refaults(counters);
        }
        self.add_ksm(counters);
    }

    fn knows(&self, figure: Figure) -> bool {
        self.snapshot.unknown(figure).is_none()
    }

    fn add_change_pte(&mut self, counters: &Counters) {
        for &cause in CHANGE_PTE_CAUSES {
            self.count_by(&table::CHANGE_PTE, &[cause.label()], 0);
            self.add_outcomes(cause, |_| 0);
        }
        for (&cause, by_outcome) in &counters.change_pte {
            let shown = folded(cause);
            self.count_by(&table::CHANGE_PTE, &[shown.label()], counters.change_pte_cause(cause));
            self.add_outcomes(shown, |outcome| by_outcome.get(&outcome).copied().unwrap_or(0));
        }
        if counters.change_pte_timed > 0 || counters.change_pte_calls() == 0 {
            self.time(&table::CHANGE_PTE_SECONDS, counters.change_pte_ns);
        }
    }

    fn add_outcomes(&mut self, cause: Cause, n: impl Fn(Outcome) -> u64) {
        for &outcome in NOOP {
            self.count_by(&table::CHANGE_PTE_NOOP, &[cause.label(), outcome.label()], n(outcome));
        }
        for &outcome in EFFECTIVE {
            self.count_by(&table::CHANGE_PTE_EFFECTIVE, &[cause.label(), outcome.label()], n(outcome));
        }
    }

    /// The invalidation table, and what it implies.
    fn add_invalidations(&mut self, counters: &Counters) {
        for &cause in CHANGE_PTE_CAUSES {
            self.count_by(&table::WOULD_BE_CHANGE_PTE, &[cause.label()], 0);
        }
        for (&cause, &n) in &counters.would_be {
            self.count_by(&table::WOULD_BE_CHANGE_PTE, &[folded(cause).label()], n);
        }
        for &(cause, initiator) in USUAL_INVALIDATIONS {
            self.add_brackets(cause, initiator, [0; 4]);
        }
        for Invalidation { key, ranges, pages, zapped, ns, .. } in &counters.invalidations {
            self.add_brackets(key.cause, key.initiator, [*ranges, *pages, *zapped, *ns]);
        }
    }

    fn add_brackets(&mut self, cause: Cause, initiator: Initiator, [ranges, pages, zapped, ns]: [u64; 4]) {
        let labels = [cause.label(), initiator.label()];
        self.count_by(&table::INVALIDATIONS, &labels, ranges);
        self.count_by(&table::INVALIDATED_PAGES, &labels, pages);
        self.count_by(&table::INVALIDATIONS_ZAPPED, &labels, zapped);
        let [cause, initiator] = labels;
        self.exposition.add_ns(&table::INVALIDATION_SECONDS, &[self.name, self.uuid, cause, initiator], ns);
    }

    fn add_page_faults(&mut self, counters: &Counters) {
        for &result in FaultResult::ALL {
            let n = counters.faults.get(&result).copied().unwrap_or(0);
            self.count_by(&table::PAGE_FAULTS, &[result.label()], n);
        }
        self.count(&table::PAGE_FAULTS_STARTED, counters.faults_entered);
        self.count(&table::PERMISSION_FAULTS, counters.permission_faults);
        self.time(&table::PAGE_FAULT_SECONDS_TOTAL, counters.faults_ns);
    }

    fn add_refaults(&mut self, counters: &Counters) {
        for &cause in Cause::ALL {
            let refaults = counters.refaults.get(&cause).copied();
            let Refaults { n, avoidable, .. } = refaults.unwrap_or_default();
            self.count_by(&table::REFAULTS, &[cause.label()], n);
            if refaults.is_some() || AVOIDABLE_CAUSES.contains(&cause) {
                self.count_by(&table::AVOIDABLE_REFAULTS, &[cause.label()], avoidable);
            }
        }
        let total = counters.refaults_total();
        self.time(&table::REFAULT_SECONDS_TOTAL, total.ns);
        self.time(&table::AVOIDABLE_REFAULT_SECONDS, total.avoidable_ns);
    }

    fn add_ksm(&mut self, counters: &Counters) {
        let counts = [
            (Figure::KsmMerges, &table::KSM_MERGES, counters.ksm_merges),
            (Figure::KsmCowBreaks, &table::KSM_COW_BREAKS, counters.ksm_cow_breaks),
            (Figure::KsmUnmerges, &table::KSM_UNMERGES, counters.ksm_unmerges),
            (Figure::KsmFailedAttempts, &table::KSM_FAILED_ATTEMPTS, counters.ksm_failed_attempts),
        ];
        for (figure, series, n) in counts {
            if self.knows(figure) {
                self.count(series, n);
            }
        }
    }

    /// What KSM says of the VM's process.
    fn add_account(&mut self, account: &KsmAccount) {
        let labels = [self.name, self.uuid];
        if let Some(pages) = account.merging_pages {
            self.exposition.set(&table::KSM_MERGING_PAGES, &labels, pages as f64);
        }
        if let Some(bytes) = account.profit_bytes {
            self.exposition.set(&table::KSM_PROFIT, &labels, bytes as f64);
        }
    }

    fn count(&mut self, series: &Series, n: u64) {
        self.count_by(series, &[], n);
    }

    fn count_by(&mut self, series: &Series, labels: &[&str], n: u64) {
        self.exposition.add(series, &[&[self.name, self.uuid], labels].concat(), n);
    }

    fn time(&mut self, series: &Series, ns: u64) {
        self.exposition.add_ns(series, &[self.name, self.uuid], ns);
    }
}

fn folded(cause: Cause) -> Cause {
    if CHANGE_PTE_CAUSES.contains(&cause) { cause } else { Cause::Other }
}
