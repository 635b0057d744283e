//! The domain: what was counted, for which VM, and how far it can be trusted.
//!
//! Pure data. The live tracer and a capture file both yield a [`Snapshot`]; reports and metrics are
//! computed from nothing else.

mod counters;
mod delta;
mod figure;
mod ksm;
mod programs;
mod quality;
mod quantile;
mod reading;

pub use counters::{Counters, Histograms, Invalidation, InvalidationKey, Refaults};
pub use delta::{Delta, VmDelta, VmKey};
pub use figure::Figure;
pub use ksm::{Ksm, KsmAccount};
pub use programs::ProgramRuns;
pub use quality::{Backend, Hook, HookState, Quality};
pub use quantile::quantile_ns;
pub use reading::Reading;

use serde::{Deserialize, Serialize};

/// Everything that is known at one moment, from the start of tracing on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The traced kernel.
    pub host: Host,
    /// When it was traced.
    pub window: Window,
    /// What may be missing.
    pub quality: Quality,
    /// The VMs, living and ended, oldest first.
    pub vms: Vec<Vm>,
    /// Counters of events that belong to no known VM.
    pub unattributed: Counters,
    /// Histograms of the whole host.
    pub histograms: Histograms,
    /// What KSM says of itself; `None` if this kernel has none.
    #[serde(default)]
    pub ksm: Option<Ksm>,
    /// What our BPF programs cost; `None` if the kernel does not measure it.
    #[serde(default)]
    pub programs: Option<Vec<ProgramRuns>>,
}

/// The traced kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// `uname -r`.
    pub kernel: String,
    /// `uname -m`.
    pub arch: String,
    /// Whether this kernel has `__mmu_notifier_change_pte`. Decided by the symbol, never by version.
    pub has_change_pte: bool,
}

/// The time a snapshot covers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// Start, nanoseconds since the Unix epoch.
    pub start_unix_ns: u64,
    /// Length in seconds, on the monotonic clock.
    pub seconds: f64,
}

/// One VM and what was counted for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Vm {
    /// Who it is.
    pub identity: VmIdentity,
    /// Which MMU KVM uses for it, where that is known.
    pub mmu: Option<Mmu>,
    /// Whether it still ran when the snapshot was taken.
    pub alive: bool,
    /// Its counters.
    pub counters: Counters,
    /// Its histograms; `None` if only those of the host are kept.
    pub histograms: Option<Histograms>,
    /// What KSM says of its process.
    #[serde(default)]
    pub ksm: KsmAccount,
}

/// Who a VM is, as far as its VMM's process tells. Names are untrusted text, already bounded in
/// length and free of control characters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmIdentity {
    /// The VM's name, or `comm-pid` where it has none.
    pub name: String,
    /// Its UUID, if the VMM has one on its command line.
    pub uuid: Option<String>,
    /// The VMM's process id; 0 if the process was never seen.
    pub pid: u32,
    /// The VMM: `qemu`, `cloud-hypervisor`, `firecracker`, `crosvm`, `kvmtool`, or the `comm`.
    pub vmm: String,
    /// The process's cgroup path, if known.
    pub cgroup: Option<String>,
    /// VMs in this process, the most that were seen at a time; 0: unknown. They share one address space
    /// and so all figures.
    #[serde(default)]
    pub n_vms: u32,
}

/// KVM's page-table implementation for a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mmu {
    /// The TDP MMU.
    Tdp,
    /// The older MMU with reverse maps.
    Rmap,
}
