//! What probes cost a host: one workload, with nothing attached and with each of several tracers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Pages of the guest that are merged, read again and written.
pub const N_PAGES: usize = 16_384;

/// What is attached while the workload runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arm {
    /// Nothing.
    Nothing,
    /// Programs of two instructions on the hooks of the daemon: what no tracer on them can be cheaper than.
    Floor,
    /// `mmu-trace daemon`.
    Daemon,
    /// `mmu-trace record`.
    Record,
    /// bpftrace with a script that counts the same.
    Bpftrace,
}

impl Arm {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Nothing, Self::Floor, Self::Daemon, Self::Record, Self::Bpftrace];

    /// Its name in a figure.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Floor => "floor",
            Self::Daemon => "daemon",
            Self::Record => "record",
            Self::Bpftrace => "bpftrace",
        }
    }
}

/// One step of the workload, over all pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// Until it was done, nanoseconds.
    pub wall_ns: u64,
    /// CPU time of ksmd, nanoseconds.
    pub ksmd_ns: u64,
    /// CPU time of the vCPU, nanoseconds.
    pub vcpu_ns: u64,
}

/// The workload once: what each of its steps took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// ksmd merges all pages, which the guest has mapped.
    pub merge: Spent,
    /// The guest reads them: each was torn down.
    pub read: Spent,
    /// The guest writes them: each is copied.
    pub write: Spent,
}

impl Workload {
    /// CPU time of all steps, nanoseconds: ksmd's while it merges, and the vCPU's.
    #[must_use]
    pub fn cpu_ns(&self) -> u64 {
        [self.merge, self.read, self.write].iter().map(|step| step.ksmd_ns + step.vcpu_ns).sum()
    }

    /// Time of all steps, nanoseconds.
    #[must_use]
    pub fn wall_ns(&self) -> u64 {
        [self.merge, self.read, self.write].iter().map(|step| step.wall_ns).sum()
    }
}

/// A BPF program while a workload ran (`struct bpf_prog_info`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Its name, as far as the kernel keeps it; not unique.
    pub name: String,
    /// How often it ran.
    pub runs: u64,
    /// For how long, nanoseconds.
    pub run_ns: u64,
    /// Instructions that the verifier went through; 0 on kernels that do not say, before 5.16.
    pub verified: u64,
    /// Its length once verified, bytes.
    pub xlated_bytes: u64,
    /// The length of its machine code, bytes.
    pub jited_bytes: u64,
}

/// One arm in one round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// What was attached.
    pub arm: Arm,
    /// The round, from 0.
    pub round: u32,
    /// From the start of the tracer until it had attached everything, nanoseconds.
    pub attach_ns: u64,
    /// The workload, without `kernel.bpf_stats_enabled`.
    pub timed: Workload,
    /// CPU time of the tracer's own process meanwhile, nanoseconds.
    pub own_cpu_ns: u64,
    /// The same workload once more, with it: every program that there was; empty where nothing is attached.
    pub programs: Vec<Program>,
}

impl Run {
    /// Runs of all programs.
    #[must_use]
    pub fn runs(&self) -> u64 {
        self.programs.iter().map(|program| program.runs).sum()
    }

    /// Time in all programs, nanoseconds.
    #[must_use]
    pub fn run_ns(&self) -> u64 {
        self.programs.iter().map(|program| program.run_ns).sum()
    }
}

/// What a tracer counted.
pub type Totals = BTreeMap<String, i64>;

/// The daemon and bpftrace on the same workload, attached at the same time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreement {
    /// What the daemon counted.
    pub daemon: Totals,
    /// What bpftrace counted.
    pub bpftrace: Totals,
}

/// Everything that was measured on one kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// `uname -r`.
    pub kernel: String,
    /// Whether both count the same.
    pub agreement: Agreement,
    /// Every run, in the order in which they ran.
    pub runs: Vec<Run>,
}
