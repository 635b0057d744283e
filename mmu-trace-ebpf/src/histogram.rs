//! Log-linear duration buckets: four per power of two, from 128 ns to 34 s.
//!
//! Bucket 0 holds everything below [`MIN_NS`], the last one everything from [`MAX_NS`] on. Between
//! them the relative width of a bucket is at most 25 %, so a quantile read from it is off by less.

/// Durations below this share bucket 0, in nanoseconds.
pub const MIN_NS: u64 = 1 << MIN_SHIFT;
/// Durations from this on share the last bucket, in nanoseconds.
pub const MAX_NS: u64 = 1 << MAX_SHIFT;
/// Number of buckets.
pub const N_BUCKETS: usize = ((MAX_SHIFT - MIN_SHIFT) as usize) * 4 + 2;

const MIN_SHIFT: u32 = 7;
const MAX_SHIFT: u32 = 35;

/// The bucket of a duration of `ns` nanoseconds; always below [`N_BUCKETS`].
#[inline(always)]
#[must_use]
pub fn bucket(ns: u64) -> usize {
    if ns < MIN_NS {
        return 0;
    }
    if ns >= MAX_NS {
        return N_BUCKETS - 1;
    }
    let shift = log2(ns);
    let quarter = (ns >> (shift - 2)) & 3;
    1 + ((shift - MIN_SHIFT) as usize) * 4 + quarter as usize
}

/// The smallest duration, in nanoseconds, that falls into `bucket`.
#[must_use]
pub fn lower_bound_ns(bucket: usize) -> u64 {
    if bucket == 0 {
        return 0;
    }
    let index = (bucket - 1) as u64;
    let shift = MIN_SHIFT + (index / 4) as u32;
    (1 << shift) + (index % 4) * (1 << (shift - 2))
}

/// Floor of the binary logarithm, without the count-leading-zeros instruction BPF lacks.
#[inline(always)]
fn log2(mut value: u64) -> u32 {
    let mut log = 0;
    let mut step = 32;
    while step > 0 {
        if value >> step != 0 {
            value >>= step;
            log += step;
        }
        step /= 2;
    }
    log
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naive(ns: u64) -> usize {
        (0..N_BUCKETS).rev().find(|&b| lower_bound_ns(b) <= ns).unwrap()
    }

    #[test]
    fn agrees_with_the_naive_search_at_every_edge() {
        for b in 1..N_BUCKETS {
            let edge = lower_bound_ns(b);
            for ns in [edge - 1, edge, edge + 1] {
                assert_eq!(bucket(ns), naive(ns), "{ns} ns");
            }
        }
        for ns in [0, 1, MIN_NS - 1, MAX_NS - 1, MAX_NS, u64::MAX] {
            assert_eq!(bucket(ns), naive(ns), "{ns} ns");
        }
    }

    #[test]
    fn agrees_with_the_naive_search_on_a_wide_sweep() {
        let mut ns: u64 = 1;
        for _ in 0..200_000 {
            ns = ns.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let value = ns >> (ns & 63);
            assert_eq!(bucket(value), naive(value), "{value} ns");
        }
    }

    #[test]
    fn buckets_are_at_most_a_quarter_wide() {
        for b in 1..N_BUCKETS - 1 {
            let (low, high) = (lower_bound_ns(b), lower_bound_ns(b + 1));
            assert!(low < high && (high - low) * 4 <= low, "bucket {b}: {low}..{high}");
        }
    }
}
