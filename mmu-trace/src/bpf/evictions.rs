//! Page records that were evicted while they waited for a fault: refaults that will not be counted.
//!
//! The kernel's LRU map evicts without a word. What the object counts tells how many records should wait;
//! how many do wait takes a walk through the map.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::Result;
use aya::Ebpf;
use mmu_trace_ebpf::kind::Gap;

use super::read;

/// Page records the kernel side keeps (`PAGES`). With up to half as many created none can have been evicted:
/// the map evicts when a CPU finds no free one, which may be earlier than when there is none.
const CAPACITY: u64 = 131_072;
/// How often the map is walked: it takes some ten milliseconds.
const WALK_EVERY: Duration = Duration::from_secs(30);

/// What is known of them.
#[derive(Default)]
pub(super) struct Evictions {
    walked: Option<Instant>,
    evicted: u64,
}

impl Evictions {
    /// How many there were, up to the last walk; one is made if it is time to, or at once if `is_exact`.
    /// Takes what is about them out of `gaps`.
    ///
    /// # Errors
    /// The map cannot be read.
    pub(super) fn count(
        &mut self,
        ebpf: &Ebpf,
        gaps: &mut BTreeMap<Gap, u64>,
        is_exact: bool,
    ) -> Result<u64> {
        let mut take = |gap| gaps.remove(&gap).unwrap_or(0);
        let [created, pending, settled] =
            [Gap::PageCreated, Gap::PagePending, Gap::PageSettled].map(&mut take);
        let is_due = is_exact || self.walked.is_none_or(|at| at.elapsed() >= WALK_EVERY);
        if created > CAPACITY / 2 && is_due {
            let should_wait = pending.saturating_sub(settled);
            let evicted = should_wait.saturating_sub(read::n_waiting_pages(ebpf)?);
            // Records that settle during the walk look evicted for a moment, and a counter never falls.
            self.evicted = self.evicted.max(evicted);
            self.walked = Some(Instant::now());
        }
        Ok(self.evicted)
    }
}
