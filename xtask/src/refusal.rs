//! What the tracer is asked to refuse, or to survive, inside the lab, and the record of what it did.
//!
//! `lab-init` tries every [`CaseKind`] and writes [`Refusals`] as `refusals.json`; the checks on the
//! other side know what each must have done.

use serde::{Deserialize, Serialize};

use crate::phase::Series;

/// One thing that is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaseKind {
    /// `record`, started before KVM is loaded.
    BeforeKvm,
    /// `daemon`, started before KVM is loaded.
    DaemonBeforeKvm,
    /// `record --vm` with a name that no VM has.
    UnknownVm,
    /// `record` into a directory that does not exist.
    MissingDirectory,
    /// `record` onto a filesystem that gets full.
    FullDisk,
    /// `daemon` on the port of a running one.
    SecondDaemon,
    /// SIGINT to `record`.
    Interrupt,
    /// SIGTERM to `record`.
    Terminate,
    /// SIGKILL to `record`.
    Kill,
    /// `record --` with a program that does not exist.
    NoProgram,
    /// `record` as a user who is not root.
    NotRoot,
}

impl CaseKind {
    /// Every case.
    pub const ALL: &[Self] = &[
        Self::BeforeKvm,
        Self::DaemonBeforeKvm,
        Self::UnknownVm,
        Self::MissingDirectory,
        Self::FullDisk,
        Self::SecondDaemon,
        Self::Interrupt,
        Self::Terminate,
        Self::Kill,
        Self::NoProgram,
        Self::NotRoot,
    ];

    /// The name used in `refusals.json`, for files and in what is printed.
    #[must_use]
    pub fn label(self) -> String {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::String(label)) => label,
            _ => format!("{self:?}"),
        }
    }
}

/// What `mmu-trace report --format json` says about a capture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// Its exit code.
    pub exit: i32,
    /// What it says beside the report.
    pub stderr: String,
    /// Whether it prints a report.
    pub prints: bool,
}

/// How one case ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// Which one.
    pub kind: CaseKind,
    /// The exit code; a signal counts as 128 plus its number.
    pub exit: i32,
    /// From its start to its end.
    pub seconds: f64,
    /// Everything it said.
    pub stderr: String,
    /// The capture that it left behind, if any.
    pub capture: Option<Reading>,
}

/// The daemon that was started before KVM was loaded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WaitingDaemon {
    /// Whether `record`, started beside it, still ran when KVM began to load.
    pub recorder_waits: bool,
    /// Its series about itself before; `None` if it did not answer.
    pub before: Option<Series>,
    /// The same, once it traced or patience was over.
    pub after: Option<Series>,
}

/// Objects of the kernel's BPF subsystem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BpfObjects {
    /// Loaded programs.
    pub programs: u32,
    /// Attachments.
    pub links: u32,
    /// Maps.
    pub maps: u32,
}

/// Everything that was tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refusals {
    /// The cases, in the order they ended.
    pub cases: Vec<Case>,
    /// The daemon before KVM.
    pub waiting_daemon: WaitingDaemon,
    /// Whether the first daemon still served after the second was refused.
    pub first_daemon_serves: bool,
    /// What there was before the first `mmu-trace` ran.
    pub bpf_before: BpfObjects,
    /// What there was beside a running daemon: that it is seen makes the other two counts worth something.
    pub bpf_during: BpfObjects,
    /// What there was after the last one had ended.
    pub bpf_after: BpfObjects,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_those_of_the_file() {
        assert_eq!(CaseKind::SecondDaemon.label(), "second_daemon");
    }
}
