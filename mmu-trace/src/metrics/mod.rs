//! What a snapshot says, for Prometheus.
//!
//! Every series stands in one table ([`table`]); nothing is exposed that is not in it. The families
//! are built anew for each scrape from a [`Snapshot`] and a [`Health`] and from nothing else, so a
//! VM's series end with the VM. A figure this host does not have is absent, never 0, and
//! `mmu_trace_source_available` says why.

mod exposition;
mod health;
mod histogram;
mod ksm;
mod process;
mod rejection;
pub mod table;
mod vm;

use exposition::Exposition;
pub use health::Health;
pub use process::Process;
pub use rejection::{Rejection, Rejections};

use crate::model::Snapshot;

/// The Content-Type of [`encode`]'s text. Prometheus 3 refuses a scrape without a proper one.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The metrics could not be encoded: a bug.
#[derive(Debug, thiserror::Error)]
#[error("encoding the metrics")]
pub struct EncodeError(#[from] std::fmt::Error);

/// The exposition of `snapshot` and of the daemon's own `health`.
///
/// # Errors
/// If a family cannot be encoded, which would be a bug.
pub fn encode(snapshot: &Snapshot, health: &Health) -> Result<String, EncodeError> {
    let mut exposition = Exposition::default();
    vm::add(&mut exposition, snapshot);
    if let Some(ksm) = &snapshot.ksm {
        ksm::add(&mut exposition, ksm);
    }
    histogram::add(&mut exposition, snapshot, health.vm_histograms);
    health::add(&mut exposition, snapshot, health);
    Ok(exposition.encode()?)
}
