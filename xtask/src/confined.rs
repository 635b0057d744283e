//! What the tracer's processes have given up, as the kernel tells it inside the lab.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::phase::Series;

/// Lines of `/proc/PID/status` that are kept.
pub const FIELDS: [&str; 7] = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp"];

/// A process, thread by thread: [`FIELDS`] of each.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Of each thread.
    pub threads: Vec<BTreeMap<String, String>>,
}

/// A command that traces, and its helper.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Confined {
    /// The command itself.
    pub command: Process,
    /// The processes that it runs as helpers.
    pub helpers: Vec<Process>,
}

/// The daemon and the recorder.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// Landlock's version in this kernel; 0: it has none.
    pub landlock_abi: i64,
    /// The daemon, after a workload.
    pub daemon: Confined,
    /// What the daemon says of it.
    pub layers: Series,
}
