//! The two signals that end a command properly.

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::CliError;

/// SIGINT and SIGTERM, caught from creation on.
pub(super) struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    pub(super) fn new() -> Result<Self, CliError> {
        let catch = |kind| signal(kind).context("catching signals");
        Ok(Self { interrupt: catch(SignalKind::interrupt())?, terminate: catch(SignalKind::terminate())? })
    }

    /// Returns at the first of them.
    pub(super) async fn requested(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
