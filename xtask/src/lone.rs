//! A page alone in its page table: where `change_pte` maps pages itself (arm64 up to 6.9), it cannot map
//! this one, because the table went with the page's old mapping.

use serde::{Deserialize, Serialize};

use crate::arch::Arch;
use crate::phase::{Counts, Series};

/// What a copy on write of the guest's first page did to the counters, and the guest's read after it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Copied {
    /// The pages of the guest; all of them are mapped before.
    pub pages: usize,
    /// The kernel's counts.
    pub oracle: Counts,
    /// The daemon's counters that moved.
    pub daemon: Series,
}

/// A guest of one page, then one of two.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lone {
    /// The architecture of the lab.
    pub arch: Arch,
    /// Whether the kernel has `change_pte`.
    pub has_change_pte: bool,
    /// Both.
    pub copied: Vec<Copied>,
}
