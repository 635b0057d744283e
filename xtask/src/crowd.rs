//! Everything on one CPU: tasks preempt each other in the middle of whatever they do, BPF programs and
//! map system calls included, where the kernel lets them.

use serde::{Deserialize, Serialize};

use crate::phase::{Counts, Series};

/// What was counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Crowd {
    /// The kernel's counts from before the VM began until after it was gone.
    pub whole: Counts,
    /// Those of the part of it that the daemon's counters are from.
    pub scraped: Counts,
    /// The daemon's counters that moved.
    pub daemon: Series,
    /// Scrapes that were answered meanwhile.
    pub scrapes: u64,
    /// Hits that the kernel's own kprobes missed; anything but 0 makes the counts worthless.
    pub oracle_misses: i64,
}
