//! Many vCPUs that sleep in a fault at the same time: more than a return probe has room for.

use serde::{Deserialize, Serialize};

use crate::phase::Series;

/// vCPUs that sleep.
pub const N_SLEEPERS: usize = 24;

/// The most calls that a kretprobe follows at a time on a host with two CPUs; without preemption it is
/// two (`register_kretprobe`).
pub const MOST_FOLLOWED: usize = 10;

/// What the kernel counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sleepers {
    /// Calls of `kvm_mmu_page_fault`.
    pub calls: i64,
    /// Its returns that a return probe of the kernel's own saw.
    pub returns: i64,
    /// Those that it missed.
    pub missed: i64,
    /// The daemon's counters that moved.
    pub daemon: Series,
}
