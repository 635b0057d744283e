//! From BPF maps to the model: the edge where wire types end.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use aya::{
    Ebpf,
    maps::{Array, HashMap, PerCpuArray, Queue},
};
use mmu_trace_ebpf::{
    abi::{
        BulkRanges, FIRST_SLOT, Gaps, InvalidationKey as WireKey, InvalidationStats, PageKey, PageRecord,
        VmSlot,
    },
    kind::{Cause, Gap, Initiator},
    page,
};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::batch;
use crate::model::{Invalidation, InvalidationKey};

const RANGES: usize = size_of::<BulkRanges>();
const KEY: usize = size_of::<WireKey>();
const ROW: usize = size_of::<InvalidationStats>();
const GAPS: usize = size_of::<Gaps>();

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

/// Gives back a slot whose VM ended, once nothing of it is left but its counters.
pub(super) fn free_slot(ebpf: &mut Ebpf, slot: u32, holder: &VmSlot, zero: impl FnOnce()) -> Result<()> {
    let mut vms: HashMap<_, u64, u32> = HashMap::try_from(ebpf.map_mut("VMS").context("no map VMS")?)?;
    if vms.get(&holder.mm, 0).is_ok_and(|held| held == slot) {
        vms.remove(&holder.mm)?;
    }
    let mut ranges: Array<_, [u8; RANGES]> =
        Array::try_from(ebpf.map_mut("BULK_RANGES").context("no map BULK_RANGES")?)?;
    ranges.set(slot, [0; RANGES], 0)?;
    let rows = invalidations(ebpf)?;
    let mut map: HashMap<_, [u8; KEY], [u8; ROW]> =
        HashMap::try_from(ebpf.map_mut("INVALIDATIONS").context("no map INVALIDATIONS")?)?;
    for row in rows.iter().filter(|row| row.slot == slot) {
        map.remove(&row.key())?;
    }
    zero();
    let mut queue: Queue<_, u32> = Queue::try_from(ebpf.map_mut("FREE_SLOTS").context("no map FREE_SLOTS")?)?;
    queue.push(slot, 0)?;
    Ok(())
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
    let mut rows = Vec::new();
    batch::lookup(ebpf, "INVALIDATIONS", |key, row| rows.push((*key, *row)))?;
    rows.iter().map(|(key, row)| to_row(key, row)).collect()
}

fn to_row(key: &WireKey, row: &InvalidationStats) -> Result<InvalidationRow> {
    Ok(InvalidationRow {
        slot: key.slot,
        cause: Cause::from_u8(key.cause).with_context(|| format!("unknown cause {}", key.cause))?,
        initiator: Initiator::from_u8(key.initiator)
            .with_context(|| format!("unknown initiator {}", key.initiator))?,
        event: key.event,
        ranges: row.ranges,
        pages: row.ranges.wrapping_add(row.more_pages),
        zapped: row.zapped,
        ns: row.ns,
        caller: row.caller,
    })
}

impl InvalidationRow {
    /// Its key in the map.
    fn key(&self) -> [u8; KEY] {
        let Self { slot, cause, initiator, event, .. } = *self;
        let key = WireKey { slot, cause: cause as u8, initiator: initiator as u8, event, pad: 0 };
        zerocopy::transmute!(key)
    }

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

/// The kernel side's gap counters, zeros left out.
pub(super) fn gaps(ebpf: &Ebpf) -> Result<BTreeMap<Gap, u64>> {
    let map: PerCpuArray<_, [u8; GAPS]> = PerCpuArray::try_from(map(ebpf, "GAPS")?)?;
    let mut sum = [0_u64; GAPS / size_of::<u64>()];
    for cpu in map.get(&0, 0)?.iter() {
        add_words(&mut sum, cpu);
    }
    let n_of = |kind: Gap| sum.get(kind as usize).copied().unwrap_or(0);
    Ok(Gap::ALL.iter().map(|&kind| (kind, n_of(kind))).filter(|&(_, n)| n != 0).collect())
}

/// How many page records wait for a fault. Walks the map: only for when it may have overflowed.
pub(super) fn n_waiting_pages(ebpf: &Ebpf) -> Result<u64> {
    let mut n = 0;
    batch::lookup(ebpf, "PAGES", |_: &PageKey, record: &PageRecord| {
        n += u64::from(page::is_pending(record))
    })?;
    Ok(n)
}

pub(super) fn map<'a>(ebpf: &'a Ebpf, name: &str) -> Result<&'a aya::maps::Map> {
    ebpf.map(name).with_context(|| format!("the object has no map {name}"))
}

pub(super) fn from_bytes<T: FromBytes + KnownLayout + Immutable>(bytes: &[u8]) -> Result<T> {
    T::read_from_bytes(bytes)
        .map_err(|_| anyhow::anyhow!("a map value has {} bytes, not {}", bytes.len(), size_of::<T>()))
}

pub(super) fn add_words(sum: &mut [u64], bytes: &[u8]) {
    for (total, word) in sum.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *total = total.wrapping_add(u64::from_ne_bytes(*word));
    }
}
