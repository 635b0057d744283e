//! The live tracer: the BPF object, its hooks, its maps. Nothing else names aya.
//!
//! - `catalogue`: the hooks, and the callers whose calls have a known cause;
//! - `constants`: what the object is told of this kernel;
//! - `object`, `side`, `sys`: loading, through aya and beside it;
//! - `ladder`, `pseudo`: attaching, and what is reported like a hook;
//! - `host`, `surroundings`: what this host is and offers;
//! - `read`, `slots`, `counters`, `holder`, `accounts`, `evictions`, `symbols`: maps and the kernel's own counts to model, through
//!   `mapped` and `batch`;
//! - [`Live`]: all of it together; `driver` runs the object's programs without it.

mod accounts;
mod batch;
mod catalogue;
mod constants;
mod counters;
#[cfg(any(test, feature = "bench"))]
mod driver;
#[cfg(test)]
mod driver_tests;
mod evictions;
mod holder;
mod host;
mod ladder;
mod live;
mod mapped;
mod object;
mod pseudo;
mod read;
mod side;
mod slots;
mod surroundings;
mod symbols;
mod sys;

#[cfg(any(test, feature = "bench"))]
pub use driver::Driver;
#[cfg(feature = "bench")]
pub use driver::measure_programs;
pub use host::{
    KvmInstance, Obstacle, Requirement, find_obstacles, kvm_instance, kvm_is_loaded, must_wait_for_kvm,
    requirements,
};
pub use live::{Live, Options};
pub use surroundings::waiting_snapshot;

/// Which attach backends may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// fentry and fexit where the kernel takes them, else kprobes.
    #[default]
    Auto,
    /// fentry and fexit only.
    Fentry,
    /// kprobes and kretprobes only.
    Kprobe,
}
