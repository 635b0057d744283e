//! Where snapshots come from: the live tracer or a capture.

use crate::model::Snapshot;

/// Something that knows the counters.
pub trait Source: Send {
    /// The counters as they are now.
    ///
    /// # Errors
    /// If they cannot be read. The source stays usable: the next call may succeed.
    fn snapshot(&mut self) -> anyhow::Result<Snapshot>;
}
