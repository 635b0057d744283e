//! What KSM says of itself, beside what is traced: states, read at the moment of the snapshot.

use serde::{Deserialize, Serialize};

/// KSM on the whole host, as `/sys/kernel/mm/ksm` says (`Documentation/admin-guide/mm/ksm.rst`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ksm {
    /// 0: stopped; 1: merging; 2: stopped, and every page taken out again.
    pub run: u64,
    /// Pages that others share: one for each distinct content.
    pub pages_shared: u64,
    /// Pages that share one of those: the pages saved.
    pub pages_sharing: u64,
    /// Pages without an equal, checked again and again.
    pub pages_unshared: u64,
    /// Pages that change too fast to be looked for.
    pub pages_volatile: u64,
    /// Full scans of all mergeable memory.
    pub full_scans: u64,
    /// Pages scanned between two sleeps.
    pub pages_to_scan: u64,
    /// The sleep between two scans, in milliseconds.
    pub sleep_ms: u64,
    /// Whether pages of different NUMA nodes are merged; `None` on kernels without NUMA.
    pub merge_across_nodes: Option<u64>,
    /// Bytes saved less the bytes of KSM's own records; `None` before Linux 6.4.
    pub general_profit_bytes: Option<i64>,
    /// Whether this kernel counts merged pages for each process (5.19 and later).
    pub counts_by_process: bool,
    /// Whether it knows the profit of each process (6.4 and later).
    pub profit_by_process: bool,
}

/// KSM's account for the process of one VM; `None` where the kernel does not know or could not be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KsmAccount {
    /// Pages of the process that are merged (`/proc/PID/ksm_merging_pages`).
    pub merging_pages: Option<u64>,
    /// Bytes saved in this process less the bytes of KSM's records of it (`ksm_process_profit` in
    /// `/proc/PID/ksm_stat`); negative where KSM costs more than it saves.
    pub profit_bytes: Option<i64>,
}
