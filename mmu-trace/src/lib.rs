//! mmu-trace: what KSM and the kernel's own housekeeping cost each KVM guest.
//!
//! Two planes, kept apart. The aggregate plane is always on: counters and histograms live in BPF
//! maps and are read when somebody asks ([`model::Snapshot`]). The event plane exists only while
//! recording: a bounded ring buffer whose every loss is counted.
//!
//! Invariants:
//! - [`model`] does no I/O, reads no clock, knows no BPF and no Prometheus.
//! - Only `bpf` names aya; only `metrics` knows Prometheus; only `sandbox` names Landlock, seccomp and
//!   capabilities; only `cli` prints and decides exit codes.
//! - A recording failure never stops the daemon; a missing hook never stops the daemon; both are
//!   visible in the metrics, in the report and in `doctor`.

pub mod bpf;
pub mod capture;
pub mod cli;
pub mod http;
pub mod kernel;
pub mod memory;
pub mod metrics;
pub mod model;
pub mod record;
pub mod report;
pub mod sandbox;
pub mod scrape;
pub mod source;
pub mod vm;
