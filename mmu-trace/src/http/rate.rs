//! A token bucket: how many requests are answered.

use std::time::Instant;

use super::web_config::Rate;

/// Fills by one request in each interval, up to the burst.
pub(super) struct Bucket {
    filled: Instant,
    /// How much is in it; more than any burst at first.
    n_requests: f64,
}

impl Bucket {
    /// A full one.
    pub(super) fn new(now: Instant) -> Self {
        Self { filled: now, n_requests: f64::INFINITY }
    }

    /// Takes one request out, if there is one.
    pub(super) fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let gained = now.duration_since(self.filled).as_secs_f64() / rate.interval.as_secs_f64();
        self.filled = now;
        self.n_requests = (self.n_requests + gained).min(f64::from(rate.burst));
        let is_full_enough = self.n_requests >= 1.0;
        if is_full_enough {
            self.n_requests -= 1.0;
        }
        is_full_enough
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_passes_and_then_one_for_each_interval() {
        let start = Instant::now();
        let rate = Rate { interval: Duration::from_secs(1), burst: 2 };
        let mut bucket = Bucket::new(start);
        let taken = |bucket: &mut Bucket, ms| bucket.take(rate, start + Duration::from_millis(ms));
        assert_eq!(
            [0, 0, 0, 1_100, 1_200].map(|ms| taken(&mut bucket, ms)),
            [true, true, false, true, false]
        );
        assert_eq!([60_000, 60_000, 60_000].map(|ms| taken(&mut bucket, ms)), [true, true, false]);
    }
}
