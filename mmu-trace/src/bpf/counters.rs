//! The counters and histograms of VMs: mapped, in shards (see `VM_STATS` in the object), to the model.

use std::collections::BTreeMap;

use anyhow::Result;
use aya::{Ebpf, maps::PerCpuArray};
use mmu_trace_ebpf::{
    abi::{VmHistograms, VmStats, len},
    kind::{Cause, FaultResult, Outcome},
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{mapped::Mapped, read};
use crate::model::{Counters, Histograms, Refaults};

/// Most shards of one VM's counters: beyond that many CPUs some share one. It bounds memory and the time of
/// a scrape on the largest hosts; what it costs is that two CPUs that fault for the same VM at the same
/// moment may meet on a cache line.
const MAX_SHARDS: u32 = 16;

/// How many shards a host with `n_cpus` CPUs has: a power of two.
pub(super) fn n_shards(n_cpus: usize) -> u32 {
    u32::try_from(n_cpus).unwrap_or(MAX_SHARDS).next_power_of_two().min(MAX_SHARDS)
}

/// The mapped counters of all slots.
pub(super) struct CounterTable {
    stats: Mapped<VmStats>,
    /// `None`: only the host has histograms.
    histograms: Option<Mapped<VmHistograms>>,
    n_shards: u32,
}

impl CounterTable {
    /// Maps the tables.
    ///
    /// # Errors
    /// The object is another one, or the kernel refuses.
    pub(super) fn new(ebpf: &Ebpf, n_shards: u32, vm_histograms: bool) -> Result<Self> {
        Ok(Self {
            stats: Mapped::new(ebpf, "VM_STATS")?,
            histograms: if vm_histograms { Some(Mapped::new(ebpf, "VM_HISTS")?) } else { None },
            n_shards,
        })
    }

    /// The counters of a slot, without its invalidations.
    pub(super) fn counters(&self, slot: u32) -> Result<Counters> {
        Ok(to_counters(&self.sum(&self.stats, slot)?))
    }

    /// The histograms of a slot; `None` if only the host has some.
    pub(super) fn histograms(&self, slot: u32) -> Result<Option<Histograms>> {
        let Some(histograms) = &self.histograms else { return Ok(None) };
        Ok(Some(to_histograms(&self.sum(histograms, slot)?)))
    }

    /// Forgets what a slot counted.
    pub(super) fn zero(&self, slot: u32) {
        for index in self.shards(slot) {
            self.stats.zero(index);
            if let Some(histograms) = &self.histograms {
                histograms.zero(index);
            }
        }
    }

    fn shards(&self, slot: u32) -> std::ops::Range<u32> {
        slot * self.n_shards..(slot + 1) * self.n_shards
    }

    fn sum<T: FromBytes + KnownLayout + Immutable>(&self, table: &Mapped<T>, slot: u32) -> Result<T> {
        let mut sum = vec![0_u64; size_of::<T>() / size_of::<u64>()];
        for index in self.shards(slot) {
            for (total, word) in sum.iter_mut().zip(table.words(index)) {
                *total = total.wrapping_add(word);
            }
        }
        read::from_bytes(sum.as_bytes())
    }
}

/// The histograms of the host, where VMs have none.
///
/// # Errors
/// The map cannot be read.
pub(super) fn host_histograms(ebpf: &Ebpf) -> Result<Histograms> {
    const SIZE: usize = size_of::<VmHistograms>();
    let map: PerCpuArray<_, [u8; SIZE]> = PerCpuArray::try_from(read::map(ebpf, "HOST_HISTS")?)?;
    let mut sum = [0_u64; SIZE / size_of::<u64>()];
    for cpu in map.get(&0, 0)?.iter() {
        read::add_words(&mut sum, cpu);
    }
    Ok(to_histograms(&read::from_bytes(sum.as_bytes())?))
}

fn to_histograms(wire: &VmHistograms) -> Histograms {
    Histograms {
        fault: sparse(&wire.fault),
        refault: sparse(&wire.refault),
        refault_delay: sparse(&wire.refault_delay),
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
        faults_timed: wire.faults.iter().sum(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_follow_the_cpus_up_to_a_bound() {
        let shards = [1, 2, 3, 8, 16, 17, 256, 640].map(n_shards);
        assert_eq!(shards, [1, 2, 4, 8, 16, 16, 16, 16]);
    }
}
