//! Where snapshots come from: the live tracer or a capture.

mod replay;

use std::time::Duration;

pub use replay::Replay;

use crate::model::Snapshot;

/// How a source stands to the kernel it traces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attachment {
    /// Whether KVM's module cannot be unloaded because of this process.
    pub holds_kvm: bool,
    /// How often tracing began. Each time every counter starts from 0.
    pub times: u64,
    /// For how long nothing was traced since it began for the first time.
    pub untraced: Duration,
}

/// Something that knows the counters.
pub trait Source: Send {
    /// The counters as they are now.
    ///
    /// # Errors
    /// If they cannot be read. The source stays usable: the next call may succeed.
    fn snapshot(&mut self) -> anyhow::Result<Snapshot>;

    /// Does what cannot wait for the next snapshot; to be called every second or so.
    ///
    /// # Errors
    /// If that failed. The source stays usable.
    fn look_after(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    /// Whether the last snapshot was the final one: the next ones would be the same.
    fn is_over(&self) -> bool {
        false
    }

    /// How it stands to the kernel now; `None` if it traces none.
    fn attachment(&self) -> Option<Attachment> {
        None
    }
}
