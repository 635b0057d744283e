//! What happened between two snapshots: the figures of a live view.
//!
//! Counters only grow while one tracing lasts, so what happened is their difference. Where that does not
//! hold, they have started from 0 meanwhile, and what they show now is what happened since:
//!
//! ```text
//!  tracing began anew (another start, or no earlier snapshot)   every VM against 0, time since the start
//!  a VM that the earlier snapshot has not                       that VM against 0
//!  a VM of which any counter has shrunk                         that VM against 0: its slot was reused
//! ```
//!
//! A VM is known by process, UUID and name together. Only its name can change while it lives: when a VM of
//! the same name comes, both get a suffix, and lose it when they are alone again.

use std::collections::BTreeMap;

use mmu_trace_ebpf::kind::Cause;

use super::{Counters, Invalidation, InvalidationKey, Mmu, Refaults, Snapshot, VmIdentity};

/// Who a row of a live view is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VmKey {
    /// A VM.
    Vm {
        /// Its process; 0 if that was never seen.
        pid: u32,
        /// Its UUID.
        uuid: Option<String>,
        /// Its name.
        name: String,
    },
    /// Events of no known VM.
    Unattributed,
}

impl From<&VmIdentity> for VmKey {
    fn from(id: &VmIdentity) -> Self {
        Self::Vm { pid: id.pid, uuid: id.uuid.clone(), name: id.name.clone() }
    }
}

impl VmKey {
    /// Whether both are the same VM, of which one snapshot may have the name with a suffix.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let (Self::Vm { pid, uuid, name }, Self::Vm { pid: other_pid, uuid: other_uuid, name: other_name }) =
            (self, other)
        else {
            return self == other;
        };
        let is_renamed = || *pid != 0 && (is_suffixed(name, other_name) || is_suffixed(other_name, name));
        (pid, uuid) == (other_pid, other_uuid) && (name == other_name || is_renamed())
    }
}

/// Whether `long` is `name` with a suffix that tells twins apart.
fn is_suffixed(long: &str, name: &str) -> bool {
    long.strip_prefix(name).is_some_and(|suffix| suffix.starts_with('-'))
}

/// What happened between two snapshots.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delta {
    /// The time between them; 0 where nothing was traced.
    pub seconds: f64,
    /// The VMs that lived in it, in the later snapshot's order.
    pub vms: Vec<VmDelta>,
}

/// What happened to one VM.
#[derive(Clone, Debug, PartialEq)]
pub struct VmDelta {
    /// Which VM.
    pub key: VmKey,
    /// Who it is; empty for events of no known VM.
    pub identity: VmIdentity,
    /// Which MMU KVM uses for it, where that is known.
    pub mmu: Option<Mmu>,
    /// Whether it still ran at the later snapshot.
    pub alive: bool,
    /// What was counted in between.
    pub counted: Counters,
    /// Everything counted since tracing began, each kind of invalidation once.
    pub total: Counters,
}

impl Delta {
    /// What happened from `earlier` to `now`; without an `earlier` one of the same tracing, since that
    /// began. VMs that had ended before are left out.
    #[must_use]
    pub fn between(earlier: Option<&Snapshot>, now: &Snapshot) -> Self {
        let earlier = earlier.filter(|earlier| is_same_tracing(earlier, now));
        let before = earlier.map_or(0.0, |earlier| earlier.window.seconds);
        let vms = now.vms.iter().map(|vm| {
            let key = VmKey::from(&vm.identity);
            let earlier = earlier.and_then(|earlier| find_counters(earlier, &key));
            let counted = vm.counters.since(earlier);
            VmDelta {
                key,
                identity: vm.identity.clone(),
                mmu: vm.mmu,
                alive: vm.alive,
                counted,
                total: vm.counters.since(None),
            }
        });
        let mut vms: Vec<VmDelta> = vms.filter(|vm| vm.alive || !vm.counted.is_empty()).collect();
        let nobody = now.unattributed.since(earlier.map(|earlier| &earlier.unattributed));
        if !nobody.is_empty() {
            vms.push(unattributed(nobody, now.unattributed.since(None)));
        }
        Self { seconds: (now.window.seconds - before).max(0.0), vms }
    }

    /// `n` events per second; none where no time has passed.
    #[must_use]
    pub fn rate(&self, n: u64) -> f64 {
        if self.seconds > 0.0 { n as f64 / self.seconds } else { 0.0 }
    }
}

fn unattributed(counted: Counters, total: Counters) -> VmDelta {
    let identity = VmIdentity::default();
    VmDelta { key: VmKey::Unattributed, identity, mmu: None, alive: true, counted, total }
}

fn is_same_tracing(earlier: &Snapshot, now: &Snapshot) -> bool {
    earlier.window.start_unix_ns == now.window.start_unix_ns && earlier.window.seconds <= now.window.seconds
}

fn find_counters<'a>(snapshot: &'a Snapshot, key: &VmKey) -> Option<&'a Counters> {
    let found = |is_it: fn(&VmKey, &VmKey) -> bool| {
        snapshot.vms.iter().find(|vm| is_it(&VmKey::from(&vm.identity), key))
    };
    found(|a, b| a == b).or_else(|| found(VmKey::is_same)).map(|vm| &vm.counters)
}

impl Counters {
    /// What was counted since they were `earlier`; all of it, if they have started from 0 since then.
    #[must_use]
    pub fn since(&self, earlier: Option<&Self>) -> Self {
        earlier.and_then(|earlier| self.minus(earlier)).unwrap_or_else(|| self.minus_nothing())
    }

    /// Without the entries that are 0, so that an idle VM's difference is empty.
    fn minus_nothing(&self) -> Self {
        self.minus(&Self::default()).unwrap_or_default()
    }

    /// The difference; `None` if any counter is smaller than it was.
    fn minus(&self, earlier: &Self) -> Option<Self> {
        Some(Self {
            change_pte: nested(&self.change_pte, &earlier.change_pte)?,
            change_pte_timed: self.change_pte_timed.checked_sub(earlier.change_pte_timed)?,
            change_pte_ns: self.change_pte_ns.checked_sub(earlier.change_pte_ns)?,
            would_be: counts(&self.would_be, &earlier.would_be)?,
            invalidations: rows(&self.invalidations, &earlier.invalidations)?,
            faults_entered: self.faults_entered.checked_sub(earlier.faults_entered)?,
            permission_faults: self.permission_faults.checked_sub(earlier.permission_faults)?,
            faults: counts(&self.faults, &earlier.faults)?,
            faults_timed: self.faults_timed.checked_sub(earlier.faults_timed)?,
            faults_ns: self.faults_ns.checked_sub(earlier.faults_ns)?,
            refaults: refaults(&self.refaults, &earlier.refaults)?,
            ksm_merges: self.ksm_merges.checked_sub(earlier.ksm_merges)?,
            ksm_cow_breaks: self.ksm_cow_breaks.checked_sub(earlier.ksm_cow_breaks)?,
            ksm_unmerges: self.ksm_unmerges.checked_sub(earlier.ksm_unmerges)?,
            ksm_failed_attempts: self.ksm_failed_attempts.checked_sub(earlier.ksm_failed_attempts)?,
        })
    }
}

type Counts<K> = BTreeMap<K, u64>;

/// The entries that grew; `None` if one shrank or is gone.
fn counts<K: Copy + Ord>(now: &Counts<K>, earlier: &Counts<K>) -> Option<Counts<K>> {
    if earlier.iter().any(|(kind, &n)| n > 0 && !now.contains_key(kind)) {
        return None;
    }
    let mut grown = BTreeMap::new();
    for (&kind, &n) in now {
        let more = n.checked_sub(earlier.get(&kind).copied().unwrap_or(0))?;
        if more > 0 {
            grown.insert(kind, more);
        }
    }
    Some(grown)
}

fn nested<K: Copy + Ord>(
    now: &BTreeMap<Cause, Counts<K>>,
    earlier: &BTreeMap<Cause, Counts<K>>,
) -> Option<BTreeMap<Cause, Counts<K>>> {
    if earlier.iter().any(|(cause, n)| !n.is_empty() && !now.contains_key(cause)) {
        return None;
    }
    let none = BTreeMap::new();
    let mut grown = BTreeMap::new();
    for (cause, n) in now {
        let more = counts(n, earlier.get(cause).unwrap_or(&none))?;
        if !more.is_empty() {
            grown.insert(*cause, more);
        }
    }
    Some(grown)
}

fn refaults(
    now: &BTreeMap<Cause, Refaults>,
    earlier: &BTreeMap<Cause, Refaults>,
) -> Option<BTreeMap<Cause, Refaults>> {
    if earlier.iter().any(|(cause, r)| r.n > 0 && !now.contains_key(cause)) {
        return None;
    }
    let mut grown = BTreeMap::new();
    for (&cause, refaults) in now {
        let before = earlier.get(&cause).copied().unwrap_or_default();
        let more = Refaults {
            n: refaults.n.checked_sub(before.n)?,
            avoidable: refaults.avoidable.checked_sub(before.avoidable)?,
            ns: refaults.ns.checked_sub(before.ns)?,
            avoidable_ns: refaults.avoidable_ns.checked_sub(before.avoidable_ns)?,
        };
        if more != Refaults::default() {
            grown.insert(cause, more);
        }
    }
    Some(grown)
}

/// Several callers behind `other` may have no name, and so equal keys: they are taken together.
type RowKey = (InvalidationKey, Option<String>);

fn rows(now: &[Invalidation], earlier: &[Invalidation]) -> Option<Vec<Invalidation>> {
    let (now, mut earlier) = (by_key(now), by_key(earlier));
    let mut grown = Vec::new();
    for (key, row) in now {
        let before = earlier.remove(&key);
        let before = |field: fn(&Invalidation) -> u64| before.as_ref().map_or(0, field);
        let more = Invalidation {
            ranges: row.ranges.checked_sub(before(|row| row.ranges))?,
            pages: row.pages.checked_sub(before(|row| row.pages))?,
            zapped: row.zapped.checked_sub(before(|row| row.zapped))?,
            ns: row.ns.checked_sub(before(|row| row.ns))?,
            ..row
        };
        if more.ranges > 0 {
            grown.push(more);
        }
    }
    earlier.values().all(|row| row.ranges == 0).then_some(grown)
}

fn by_key(rows: &[Invalidation]) -> BTreeMap<RowKey, Invalidation> {
    let mut sums: BTreeMap<RowKey, Invalidation> = BTreeMap::new();
    for row in rows {
        let empty = || Invalidation { ranges: 0, pages: 0, zapped: 0, ns: 0, ..row.clone() };
        let sum = sums.entry((row.key.clone(), row.caller.clone())).or_insert_with(empty);
        sum.ranges += row.ranges;
        sum.pages += row.pages;
        sum.zapped += row.zapped;
        sum.ns += row.ns;
    }
    sums
}

#[cfg(test)]
mod tests {
    use mmu_trace_ebpf::kind::{Initiator, Outcome};

    use super::*;
    use crate::model::{Histograms, Host, KsmAccount, Quality, Vm, Window};

    fn id(pid: u32, uuid: Option<&str>, name: &str) -> VmIdentity {
        VmIdentity { name: name.into(), uuid: uuid.map(Into::into), pid, ..VmIdentity::default() }
    }

    fn vm(identity: VmIdentity, merges: u64) -> Vm {
        let counters = Counters { ksm_merges: merges, ..Counters::default() };
        Vm { identity, mmu: None, alive: true, counters, histograms: None, ksm: KsmAccount::default() }
    }

    fn at(seconds: f64, vms: Vec<Vm>) -> Snapshot {
        Snapshot {
            host: Host { kernel: "6.1".into(), arch: "x86_64".into(), has_change_pte: true },
            window: Window { start_unix_ns: 7, seconds },
            quality: Quality::default(),
            vms,
            unattributed: Counters::default(),
            histograms: Histograms::default(),
            ksm: None,
            programs: None,
        }
    }

    fn merges(delta: &Delta) -> Vec<u64> {
        delta.vms.iter().map(|vm| vm.counted.ksm_merges).collect()
    }

    #[test]
    fn rates_are_the_difference_over_the_time() {
        let earlier = at(10.0, vec![vm(id(1, None, "a"), 100)]);
        let delta = Delta::between(Some(&earlier), &at(12.0, vec![vm(id(1, None, "a"), 150)]));
        assert_eq!((merges(&delta), delta.rate(50)), (vec![50], 25.0));
        assert_eq!(delta.vms[0].total.ksm_merges, 150);
    }

    #[test]
    fn the_first_snapshot_is_compared_with_the_start() {
        let delta = Delta::between(None, &at(4.0, vec![vm(id(1, None, "a"), 100)]));
        assert_eq!((merges(&delta), delta.rate(100)), (vec![100], 25.0));
        assert_eq!(Delta::between(None, &at(0.0, Vec::new())).rate(5), 0.0);
    }

    #[test]
    fn after_tracing_began_anew_only_the_new_one_counts() {
        let earlier = at(100.0, vec![vm(id(1, None, "a"), 100)]);
        let mut now = at(0.5, vec![vm(id(1, None, "a"), 200)]);
        now.window.start_unix_ns = 8;
        let delta = Delta::between(Some(&earlier), &now);
        assert_eq!((merges(&delta), delta.seconds), (vec![200], 0.5));
    }

    #[test]
    fn vms_come_and_go() {
        let mut ended = vm(id(3, None, "c"), 9);
        ended.alive = false;
        let earlier = at(1.0, vec![vm(id(1, None, "a"), 100), ended.clone()]);
        let delta = Delta::between(Some(&earlier), &at(2.0, vec![vm(id(2, None, "b"), 7), ended]));
        assert_eq!((merges(&delta), &delta.vms[0].key), (vec![7], &VmKey::from(&id(2, None, "b"))));
    }

    #[test]
    fn a_slot_of_another_vm_with_the_same_name_starts_from_0() {
        let earlier = at(1.0, vec![vm(id(1, Some("u"), "a"), 100)]);
        for other in [id(2, Some("u"), "a"), id(1, Some("v"), "a"), id(1, Some("u"), "b")] {
            let delta = Delta::between(Some(&earlier), &at(2.0, vec![vm(other.clone(), 130)]));
            assert_eq!(merges(&delta), [130], "{other:?}");
        }
    }

    #[test]
    fn a_counter_that_shrank_means_a_new_life() {
        let mut before = vm(id(1, None, "a"), 5);
        before.counters.refaults.insert(Cause::KsmReplace, Refaults { n: 3, ..Refaults::default() });
        let earlier = at(1.0, vec![before]);
        // Merges have grown beyond the earlier ones, refaults are gone.
        assert_eq!(merges(&Delta::between(Some(&earlier), &at(2.0, vec![vm(id(1, None, "a"), 6)]))), [6]);
        assert_eq!(merges(&Delta::between(Some(&earlier), &at(2.0, vec![vm(id(1, None, "a"), 2)]))), [2]);
    }

    #[test]
    fn a_twin_that_comes_changes_the_name_and_not_the_figures() {
        let one = Some("11111111-x");
        let earlier = at(1.0, vec![vm(id(1, one, "web"), 100)]);
        let now = vec![vm(id(1, one, "web-11111111"), 101), vm(id(2, None, "web-2"), 4)];
        assert_eq!(merges(&Delta::between(Some(&earlier), &at(2.0, now))), [1, 4]);
    }

    #[test]
    fn rows_of_nameless_callers_are_one() {
        let key =
            InvalidationKey { cause: Cause::Other, initiator: Initiator::Vcpu, event: "clear".to_owned() };
        let row =
            |ranges| Invalidation { key: key.clone(), ranges, pages: 1, zapped: 0, ns: 1, caller: None };
        let grown = rows(&[row(5), row(6)], &[row(4), row(6)]).unwrap();
        assert_eq!(grown.iter().map(|row| row.ranges).collect::<Vec<_>>(), [1]);
        assert_eq!(rows(&[row(5)], &[row(5)]), Some(Vec::new()));
        assert_eq!(rows(&[], &[row(5)]), None);
    }

    #[test]
    fn an_idle_vm_has_an_empty_difference() {
        let mut counters = Counters { faults_entered: 9, ..Counters::default() };
        counters.change_pte = [(Cause::CowHost, [(Outcome::NoopNotMapped, 4)].into())].into();
        assert!(counters.since(Some(&counters.clone())).is_empty());
        assert_eq!(counters.since(None), counters);
    }
}
