//! What a KVM host lives through while it is traced, and the record of it: VMs that come, go and share
//! a process, memory operations that race with vCPUs, KVM unloaded and loaded again.
//!
//! `lab-init` goes through it with two daemons (as the host likes it best, and with kprobes only) and a
//! recorder, and writes [`Life`] as `life.json`; the checks on the other side know what each must have
//! counted.

use serde::{Deserialize, Serialize};

use crate::confined::Confined;
use crate::phase::{Counts, Series};

/// Where the daemon listens that may use kprobes only; the other one has
/// [`DAEMON_PORT`](crate::phase::DAEMON_PORT).
pub const KPROBE_PORT: u16 = 9949;

/// How many VMs run one after the other.
pub const ROW: usize = 12;

/// What a group of acts is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scene {
    /// After KVM was unloaded and loaded again.
    Reloaded,
    /// After KVM was released and resumed, with a VM that ran all the time.
    Resumed,
    /// VMs in two processes.
    TwoProcesses,
    /// VMs in one process, of which some end.
    OneProcess,
    /// Two VMs of one process on the same memory.
    SharedMemory,
    /// A process whose VM has ended.
    FormerVm,
    /// A process that never had a VM.
    NoVm,
    /// Operations on parts of huge pages, which nest brackets.
    Nested,
    /// Memory operations while a vCPU faults.
    Race,
}

impl Scene {
    /// Every scene.
    pub const ALL: &[Self] = &[
        Self::Reloaded,
        Self::Resumed,
        Self::TwoProcesses,
        Self::OneProcess,
        Self::SharedMemory,
        Self::FormerVm,
        Self::NoVm,
        Self::Nested,
        Self::Race,
    ];

    /// The name used in `life.json` and in what is printed.
    #[must_use]
    pub fn label(self) -> String {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::String(label)) => label,
            _ => format!("{self:?}"),
        }
    }
}

/// The name under which events of no VM are exposed.
pub const NOBODY: &str = "unattributed";

/// Something that is done between two readings of every counter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Act {
    /// What it belongs to.
    pub scene: Scene,
    /// What is done.
    pub what: String,
    /// The VM, or [`NOBODY`], that all of it concerns; `None` if it concerns several.
    pub domain: Option<String>,
    /// How long it took.
    pub seconds: f64,
    /// The kernel's counts: every counter, those that did not move included.
    pub oracle: Counts,
    /// What moved in the daemons: first the one that may use fentry, then the other.
    pub daemons: Vec<Series>,
}

impl Act {
    /// How often the kernel called what is counted as `name`, if it was counted.
    #[must_use]
    pub fn calls(&self, name: &str) -> Option<i64> {
        self.oracle.get(&format!("calls:{name}")).copied()
    }
}

/// One of many VMs that run one after the other, all under the same process id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RowVm {
    /// Its name.
    pub name: String,
    /// Its process id.
    pub pid: u32,
    /// The kernel's counts from before it began until it was scraped.
    pub until_scrape: Counts,
    /// The kernel's counts from before it began until it had ended.
    pub whole: Counts,
    /// The daemons while it ran.
    pub daemons: Vec<Series>,
}

/// What the daemons said of themselves while KVM came and went: first the one that may use fentry, then
/// the other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Modules {
    /// While both traced.
    pub tracing: Vec<Series>,
    /// What unloading KVM came to meanwhile.
    pub unload_held: String,
    /// After SIGUSR1 to the first.
    pub released: Vec<Series>,
    /// What unloading KVM came to then.
    pub unload_released: String,
    /// Without KVM.
    pub without: Vec<Series>,
    /// Once both traced again.
    pub again: Vec<Series>,
    /// Once the first traced again after a SIGUSR1 and a SIGUSR2, with KVM loaded all the time.
    pub resumed: Vec<Series>,
    /// Once both traced after KVM was unloaded and loaded again at once.
    pub at_once: Vec<Series>,
    /// The exit code of a recording with kprobes during which KVM was unloaded.
    pub recorder_exit: i32,
    /// Its report.
    pub recorded: serde_json::Value,
    /// What each daemon logged.
    pub logs: Vec<String>,
    /// What each daemon had given up at the end, after it had attached again.
    pub confined: Vec<Confined>,
}

/// `mmu-trace vms --format json` at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listing {
    /// The moment.
    pub when: String,
    /// What it said.
    pub vms: serde_json::Value,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Life {
    /// `uname -r` of the lab.
    pub kernel: String,
    /// N, the pages of a guest.
    pub pages: i64,
    /// KVM's comings and goings.
    pub modules: Modules,
    /// The acts, in the order they ran.
    pub acts: Vec<Act>,
    /// The VMs in a row.
    pub row: Vec<RowVm>,
    /// The lists of VMs.
    pub listings: Vec<Listing>,
    /// The kernel's counts from the start of the recording to its end.
    pub recorded: Counts,
    /// The exit code of that recording.
    pub recorder_exit: i32,
    /// Its report.
    pub report: serde_json::Value,
    /// Hits that the kernel's own kprobes missed; anything but 0 makes the counts worthless.
    pub oracle_misses: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_those_of_the_file() {
        assert_eq!(Scene::TwoProcesses.label(), "two_processes");
    }
}
