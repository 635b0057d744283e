//! What our BPF programs cost, where the kernel measures it.

use serde::{Deserialize, Serialize};

/// Runs of one BPF program since it was loaded (`run_cnt` and `run_time_ns` of `struct bpf_prog_info`),
/// counted only while `kernel.bpf_stats_enabled` is 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramRuns {
    /// The program's name, as `bpftool prog` shows it.
    pub program: String,
    /// How often it ran.
    pub runs: u64,
    /// For how long, in nanoseconds.
    pub run_ns: u64,
}
