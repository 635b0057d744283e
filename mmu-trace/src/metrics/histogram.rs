//! The histograms of the host and of its VMs: the kernel side's fine buckets folded into twenty powers of
//! two.

use std::collections::BTreeMap;

use mmu_trace_ebpf::histogram::{N_BUCKETS, lower_bound_ns};

use super::{
    exposition::{Exposition, Histogram},
    table::{self, Series},
};
use crate::model::{Figure, Histograms, Snapshot};

/// Exponents of the bounds of a fault's duration: 512 ns to 268 ms.
const FAULT_EXPONENTS: std::ops::RangeInclusive<u32> = 9..=28;
/// Exponents of the bounds of a refault's delay: 66 us to 34 s.
const DELAY_EXPONENTS: std::ops::RangeInclusive<u32> = 16..=35;

/// The families of one scope: faults, refaults, refaults' delays.
type Families = [&'static Series; 3];

const OF_HOST: Families =
    [&table::PAGE_FAULT_SECONDS, &table::REFAULT_SECONDS, &table::REFAULT_DELAY_SECONDS];
const OF_VM: Families =
    [&table::VM_PAGE_FAULT_SECONDS, &table::VM_REFAULT_SECONDS, &table::VM_REFAULT_DELAY_SECONDS];

/// Adds what this host knows, of itself and, if that is wanted, of each running VM.
pub(super) fn add(exposition: &mut Exposition, snapshot: &Snapshot, of_vms: bool) {
    let faults = snapshot.unknown(Figure::PageFaults).is_none();
    let refaults = snapshot.unknown(Figure::Refaults).is_none();
    let mut add = |[fault, refault, delay]: Families, labels: &[&str], histograms: &Histograms| {
        if faults {
            exposition.set_histogram(fault, labels, folded(&histograms.fault, FAULT_EXPONENTS));
        }
        if refaults {
            exposition.set_histogram(refault, labels, folded(&histograms.refault, FAULT_EXPONENTS));
            exposition.set_histogram(delay, labels, folded(&histograms.refault_delay, DELAY_EXPONENTS));
        }
    };
    add(OF_HOST, &[], &snapshot.histograms);
    for vm in snapshot.vms.iter().filter(|vm| of_vms && vm.alive) {
        if let Some(histograms) = &vm.histograms {
            let uuid = vm.identity.uuid.as_deref().unwrap_or_default();
            add(OF_VM, &[&vm.identity.name, uuid], histograms);
        }
    }
}

/// The bounds are powers of two and so are edges of fine buckets: nothing is split.
fn folded(fine: &BTreeMap<u16, u64>, exponents: impl Iterator<Item = u32>) -> Histogram {
    Histogram {
        buckets: exponents.map(|exponent| bucket(fine, 1 << exponent)).collect(),
        count: fine.values().sum(),
        sum: fine.iter().map(|(&bucket, &n)| n as f64 * middle_ns(bucket) / 1e9).sum(),
    }
}

/// The bound in seconds, and how many are below it.
fn bucket(fine: &BTreeMap<u16, u64>, bound_ns: u64) -> (f64, u64) {
    let below = fine.iter().filter(|&(&fine, _)| upper_bound_ns(fine) <= bound_ns);
    (bound_ns as f64 / 1e9, below.map(|(_, n)| n).sum())
}

fn middle_ns(bucket: u16) -> f64 {
    let low = lower_bound_ns(usize::from(bucket).min(N_BUCKETS - 1));
    low.midpoint(upper_bound_ns(bucket).min(2 * low.max(1) + 128)) as f64
}

/// Where the next bucket begins; the last one has no end.
fn upper_bound_ns(bucket: u16) -> u64 {
    let next = usize::from(bucket) + 1;
    if next < N_BUCKETS { lower_bound_ns(next) } else { u64::MAX }
}

#[cfg(test)]
mod tests {
    use mmu_trace_ebpf::histogram;

    use super::*;

    #[test]
    fn every_duration_is_below_its_bound() {
        let durations = [0, 511, 512, 1_000, 70_000, 268_000_000, 40_000_000_000];
        let mut fine = BTreeMap::new();
        for ns in durations {
            *fine.entry(histogram::bucket(ns) as u16).or_insert(0) += 1;
        }
        let folded = folded(&fine, FAULT_EXPONENTS);
        for (bound, n) in &folded.buckets {
            let expected = durations.iter().filter(|&&ns| (ns as f64) < bound * 1e9).count() as u64;
            assert_eq!(*n, expected, "le {bound}");
        }
        assert_eq!(folded.buckets.len(), 20);
        assert_eq!(folded.count, durations.len() as u64);
    }

    #[test]
    fn the_sum_is_within_an_eighth() {
        let fine = BTreeMap::from([(histogram::bucket(11_000) as u16, 1_000)]);
        let sum = folded(&fine, FAULT_EXPONENTS).sum;
        assert!((sum - 0.011).abs() / 0.011 <= 0.125, "{sum}");
    }
}
