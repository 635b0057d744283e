//! From BPF maps to the model: the edge where wire types end.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use aya::{
    Ebpf,
    maps::{Array, HashMap, PerCpuArray, PerCpuHashMap, Queue},
};
use mmu_trace_ebpf::{
    abi::{
        BulkRanges, FIRST_SLOT, InvalidationKey as WireKey, InvalidationStats, PageKey, PageRecord,
        VmHistograms, VmSlot, VmStats, len,
    },
    kind::{Cause, FaultResult, Gap, Initiator, Outcome},
    page,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::model::{Counters, Histograms, Invalidation, InvalidationKey, Refaults};

const STATS: usize = size_of::<VmStats>();
const HISTS: usize = size_of::<VmHistograms>();
const SLOT: usize = size_of::<VmSlot>();
const KEY: usize = size_of::<WireKey>();
const ROW: usize = size_of::<InvalidationStats>();
const RANGES: usize = size_of::<BulkRanges>();
const PAGE_KEY: usize = size_of::<PageKey>();
const PAGE: usize = size_of::<PageRecord>();

/// Puts every slot that a VM may have to itself into the queue of free slots.
pub(super) fn fill_free_slots(ebpf: &mut Ebpf, n_slots: u32) -> Result<()> {
    let mut queue: Queue<_, u32> = Queue::try_from(ebpf.map_mut("FREE_SLOTS").context("no map FREE_SLOTS")?)?;
    for slot in FIRST_SLOT..n_slots {
        queue.push(slot, 0)?;
    }
    Ok(())
}

/// Whether the address space of a slot's holder is still its: it is not once it has died.
pub(super) fn is_registered(ebpf: &Ebpf, slot: u32, holder: &VmSlot) -> Result<bool> {
    let vms: HashMap<_, u64, u32> = HashMap::try_from(map(ebpf, "VMS")?)?;
    Ok(vms.get(&holder.mm, 0).is_ok_and(|held| held == slot))
}

/// Zeroes a slot whose VM ended and gives it back; its counters are gone.
pub(super) fn free_slot(ebpf: &mut Ebpf, slot: u32, holder: &VmSlot) -> Result<()> {
    let mut vms: HashMap<_, u64, u32> = HashMap::try_from(ebpf.map_mut("VMS").context("no map VMS")?)?;
    if vms.get(&holder.mm, 0).is_ok_and(|held| held == slot) {
        vms.remove(&holder.mm)?;
    }
    zero_counters(ebpf, slot)?;
    let mut slots: Array<_, [u8; SLOT]> =
        Array::try_from(ebpf.map_mut("VM_SLOTS").context("no map VM_SLOTS")?)?;
    slots.set(slot, [0; SLOT], 0)?;
    let mut queue: Queue<_, u32> = Queue::try_from(ebpf.map_mut("FREE_SLOTS").context("no map FREE_SLOTS")?)?;
    queue.push(slot, 0)?;
    Ok(())
}

fn zero_counters(ebpf: &mut Ebpf, slot: u32) -> Result<()> {
    let n_cpus = aya::util::nr_cpus().map_err(|(what, e)| anyhow::anyhow!("{what}: {e}"))?;
    let zero = |n: usize| aya::maps::PerCpuValues::try_from(vec![[0u8; STATS]; n]);
    let mut stats: PerCpuArray<_, [u8; STATS]> =
        PerCpuArray::try_from(ebpf.map_mut("VM_STATS").context("no map VM_STATS")?)?;
    stats.set(slot, zero(n_cpus)?, 0)?;
    let mut ranges: Array<_, [u8; RANGES]> =
        Array::try_from(ebpf.map_mut("BULK_RANGES").context("no map BULK_RANGES")?)?;
    ranges.set(slot, [0; RANGES], 0)?;
    let mut rows: PerCpuHashMap<_, [u8; KEY], [u8; ROW]> =
        PerCpuHashMap::try_from(ebpf.map_mut("INVALIDATIONS").context("no map INVALIDATIONS")?)?;
    let of_slot: Vec<[u8; KEY]> = rows
        .keys()
        .filter_map(Result::ok)
        .filter(|key| from_bytes::<WireKey>(key).is_ok_and(|k| k.slot == slot))
        .collect();
    for key in of_slot {
        rows.remove(&key)?;
    }
    Ok(())
}

/// The counters of a slot, without its invalidations.
pub(super) fn counters(ebpf: &Ebpf, slot: u32) -> Result<Counters> {
    let map: PerCpuArray<_, [u8; STATS]> = PerCpuArray::try_from(map(ebpf, "VM_STATS")?)?;
    let mut sum = [0u64; STATS / 8];
    for cpu in map.get(&slot, 0)?.iter() {
        add_words(&mut sum, cpu);
    }
    Ok(to_counters(&from_bytes(sum.as_bytes())?))
}

/// The histograms of a slot.
pub(super) fn histograms(ebpf: &Ebpf, slot: u32) -> Result<Histograms> {
    let map: PerCpuArray<_, [u8; HISTS]> = PerCpuArray::try_from(map(ebpf, "VM_HISTS")?)?;
    let mut sum = [0u64; HISTS / 8];
    for cpu in map.get(&slot, 0)?.iter() {
        add_words(&mut sum, cpu);
    }
    let wire: VmHistograms = from_bytes(sum.as_bytes())?;
    Ok(Histograms {
        fault: sparse(&wire.fault),
        refault: sparse(&wire.refault),
        refault_delay: sparse(&wire.refault_delay),
    })
}

/// One row of the invalidation table as the kernel side holds it.
pub(super) struct InvalidationRow {
    pub slot: u32,
    pub cause: Cause,
    pub initiator: Initiator,
    pub event: u8,
    pub ranges: u64,
    pub pages: u64,
    pub zapped: u64,
    pub ns: u64,
    pub caller: u64,
}

/// The whole invalidation table.
///
/// # Errors
/// A row has a discriminant this version does not know: the object is another one.
pub(super) fn invalidations(ebpf: &Ebpf) -> Result<Vec<InvalidationRow>> {
    let map: PerCpuHashMap<_, [u8; KEY], [u8; ROW]> = PerCpuHashMap::try_from(map(ebpf, "INVALIDATIONS")?)?;
    map.iter()
        .map(|entry| {
            let (key, cpus) = entry?;
            let key: WireKey = from_bytes(&key)?;
            let rows: Vec<InvalidationStats> = cpus.iter().map(|b| from_bytes(b)).collect::<Result<_>>()?;
            to_row(&key, &rows)
        })
        .collect()
}

fn to_row(key: &WireKey, cpus: &[InvalidationStats]) -> Result<InvalidationRow> {
    Ok(InvalidationRow {
        slot: key.slot,
        cause: Cause::from_u8(key.cause).with_context(|| format!("unknown cause {}", key.cause))?,
        initiator: Initiator::from_u8(key.initiator)
            .with_context(|| format!("unknown initiator {}", key.initiator))?,
        event: key.event,
        ranges: cpus.iter().map(|c| c.ranges).sum(),
        pages: cpus.iter().map(|c| c.pages).sum(),
        zapped: cpus.iter().map(|c| c.zapped).sum(),
        ns: cpus.iter().map(|c| c.ns).sum(),
        caller: cpus.iter().map(|c| c.caller).find(|&c| c != 0).unwrap_or(0),
    })
}

impl InvalidationRow {
    /// The row as the model has it.
    pub(super) fn to_model(&self, event: String, caller: Option<String>) -> Invalidation {
        Invalidation {
            key: InvalidationKey { cause: self.cause, initiator: self.initiator, event },
            ranges: self.ranges,
            pages: self.pages,
            zapped: self.zapped,
            ns: self.ns,
            caller,
        }
    }
}

/// One of the kernel side's gap counters.
pub(super) fn gap(ebpf: &Ebpf, gap: Gap) -> Result<u64> {
    let map: PerCpuArray<_, u64> = PerCpuArray::try_from(map(ebpf, "GAPS")?)?;
    Ok(map.get(&(gap as u32), 0)?.iter().sum())
}

/// The kernel side's gap counters, zeros left out.
pub(super) fn gaps(ebpf: &Ebpf) -> Result<BTreeMap<Gap, u64>> {
    let mut gaps = BTreeMap::new();
    for &kind in Gap::ALL {
        let n = gap(ebpf, kind)?;
        if n != 0 {
            gaps.insert(kind, n);
        }
    }
    Ok(gaps)
}

/// How many page records wait for a fault. Walks the map: only for when it may have overflowed.
pub(super) fn n_waiting_pages(ebpf: &Ebpf) -> Result<u64> {
    let map: HashMap<_, [u8; PAGE_KEY], [u8; PAGE]> = HashMap::try_from(map(ebpf, "PAGES")?)?;
    let is_waiting = |value: &[u8; PAGE]| from_bytes(value).is_ok_and(|page| page::is_pending(&page));
    Ok(map.iter().filter(|entry| entry.as_ref().is_ok_and(|(_, value)| is_waiting(value))).count() as u64)
}

fn map<'a>(ebpf: &'a Ebpf, name: &str) -> Result<&'a aya::maps::Map> {
    ebpf.map(name).with_context(|| format!("the object has no map {name}"))
}

fn from_bytes<T: FromBytes + KnownLayout + Immutable>(bytes: &[u8]) -> Result<T> {
    T::read_from_bytes(bytes)
        .map_err(|_| anyhow::anyhow!("a map value has {} bytes, not {}", bytes.len(), size_of::<T>()))
}

fn add_words(sum: &mut [u64], bytes: &[u8]) {
    for (total, word) in sum.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *total = total.wrapping_add(u64::from_ne_bytes(*word));
    }
}

fn sparse(buckets: &[u64; len::BUCKETS]) -> BTreeMap<u16, u64> {
    buckets.iter().enumerate().filter(|&(_, &n)| n != 0).map(|(b, &n)| (b as u16, n)).collect()
}

/// The values of an array indexed by a kind, zeros left out.
fn by_kind<K: Copy + Ord>(kinds: &[K], values: &[u64]) -> BTreeMap<K, u64> {
    kinds.iter().zip(values).filter(|&(_, &n)| n != 0).map(|(&k, &n)| (k, n)).collect()
}

fn to_counters(wire: &VmStats) -> Counters {
    let change_pte = Cause::ALL.iter().zip(&wire.change_pte);
    let refaults = Cause::ALL.iter().zip(&wire.refaults);
    Counters {
        change_pte: change_pte
            .map(|(&cause, outcomes)| (cause, by_kind(Outcome::ALL, outcomes)))
            .filter(|(_, outcomes)| !outcomes.is_empty())
            .collect(),
        change_pte_timed: wire.change_pte_timed,
        change_pte_ns: wire.change_pte_ns,
        would_be: by_kind(Cause::ALL, &wire.would_be),
        invalidations: Vec::new(),
        faults_entered: wire.faults_entered,
        permission_faults: wire.permission_faults,
        faults: by_kind(FaultResult::ALL, &wire.faults),
        faults_timed: wire.faults_timed,
        faults_ns: wire.faults_ns,
        refaults: refaults
            .filter(|(_, r)| r.n != 0)
            .map(|(&cause, r)| {
                let refaults =
                    Refaults { n: r.n, avoidable: r.avoidable, ns: r.ns, avoidable_ns: r.avoidable_ns };
                (cause, refaults)
            })
            .collect(),
        ksm_merges: wire.ksm_merges,
        ksm_cow_breaks: wire.ksm_cow_breaks,
        ksm_unmerges: wire.ksm_unmerges,
        ksm_failed_attempts: wire.ksm_failed_attempts,
    }
}
