//! Quantiles of the kernel side's histograms.

use std::collections::BTreeMap;

use mmu_trace_ebpf::histogram::{N_BUCKETS, lower_bound_ns};

/// The `q`-quantile (0 to 1) of a sparse histogram, in nanoseconds: the middle of the bucket that
/// holds it, so off by at most 12.5 %. `None` if the histogram is empty.
#[must_use]
pub fn quantile_ns(histogram: &BTreeMap<u16, u64>, q: f64) -> Option<u64> {
    let total: u64 = histogram.values().sum();
    if total == 0 {
        return None;
    }
    let rank = ((q * total as f64).ceil() as u64).clamp(1, total);
    let mut seen = 0;
    for (&bucket, &n) in histogram {
        seen += n;
        if seen >= rank {
            // A damaged capture may claim buckets that do not exist.
            let bucket = usize::from(bucket).min(N_BUCKETS - 1);
            return Some(lower_bound_ns(bucket).midpoint(lower_bound_ns(bucket + 1)));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use mmu_trace_ebpf::histogram::bucket;

    #[test]
    fn is_within_an_eighth_of_the_true_quantile() {
        let values: Vec<u64> = (1..=10_000).map(|i| 1_000 + i * 37).collect();
        let mut histogram = BTreeMap::new();
        for &v in &values {
            *histogram.entry(bucket(v) as u16).or_insert(0) += 1;
        }
        for q in [0.01, 0.5, 0.9, 0.99] {
            let truth = values[(q * values.len() as f64).ceil() as usize - 1] as f64;
            let got = quantile_ns(&histogram, q).unwrap() as f64;
            assert!((got - truth).abs() / truth <= 0.125, "q={q}: {got} against {truth}");
        }
    }

    #[test]
    fn of_nothing_is_unknown() {
        assert_eq!(quantile_ns(&BTreeMap::new(), 0.5), None);
    }

    #[test]
    fn a_bucket_that_does_not_exist_is_the_last_one() {
        let of = |bucket| quantile_ns(&BTreeMap::from([(bucket, 1)]), 0.5);
        assert_eq!(of(u16::MAX), of((N_BUCKETS - 1) as u16));
    }
}
