//! How far a recording is, for the person who waits for it.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use crate::{record::Progress, report::count};

/// How often the progress line changes.
const SHOW_EVERY: Duration = Duration::from_millis(500);

/// One line on a terminal, written over again and again; nothing elsewhere.
pub(super) struct ProgressLine {
    is_terminal: bool,
    shown: Option<Instant>,
}

impl ProgressLine {
    pub(super) fn new() -> Self {
        Self { is_terminal: io::stderr().is_terminal(), shown: None }
    }

    /// Shows `progress`, if it is time to.
    pub(super) fn show(&mut self, progress: &Progress) {
        if !self.is_terminal || self.shown.is_some_and(|at| at.elapsed() < SHOW_EVERY) {
            return;
        }
        self.shown = Some(Instant::now());
        let line = format!(
            "\r\x1b[Krecording {:.0} s: {} events, {} lost, {} VMs (Ctrl-C ends)",
            progress.elapsed.as_secs_f64(),
            count(progress.events),
            count(progress.lost),
            progress.vms
        );
        // Without a standard error there is nobody to tell.
        _ = io::stderr().write_all(line.as_bytes());
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        if self.shown.is_some() {
            _ = io::stderr().write_all(b"\r\x1b[K");
        }
    }
}
