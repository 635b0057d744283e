//! How far a recording, or the reading of one, is, for the person who waits for it.

use std::{
    fs,
    io::{self, IsTerminal, Write},
    path::Path,
    time::{Duration, Instant},
};

use crate::{capture::Item, record::Progress, report::count};

/// How often the progress line changes; what takes less shows none.
const SHOW_EVERY: Duration = Duration::from_millis(500);

/// One line on a terminal, written over again and again; nothing elsewhere.
pub(super) struct ProgressLine {
    is_terminal: bool,
    is_shown: bool,
    changed: Instant,
}

impl ProgressLine {
    pub(super) fn new() -> Self {
        Self { is_terminal: io::stderr().is_terminal(), is_shown: false, changed: Instant::now() }
    }

    /// Shows how far the recording is, if it is time to.
    pub(super) fn recording(&mut self, progress: &Progress) {
        self.show(|| {
            format!(
                "recording {:.0} s: {} events, {} lost, {} VMs (Ctrl-C ends)",
                progress.elapsed.as_secs_f64(),
                count(progress.events),
                count(progress.lost),
                progress.vms
            )
        });
    }

    fn show(&mut self, text: impl FnOnce() -> String) {
        if !self.is_terminal || self.changed.elapsed() < SHOW_EVERY {
            return;
        }
        self.is_shown = true;
        self.changed = Instant::now();
        // Without a standard error there is nobody to tell.
        _ = write!(io::stderr(), "\r\x1b[K{}", text());
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        if self.is_shown {
            _ = io::stderr().write_all(b"\r\x1b[K");
        }
    }
}

/// How far a capture is read, on a progress line.
pub(super) struct ReadingLine {
    line: ProgressLine,
    /// Length of the file, bytes; 0: unknown.
    len: u64,
    events: u64,
}

impl ReadingLine {
    /// For the file at `path`.
    pub(super) fn new(path: &Path) -> Self {
        let len = fs::metadata(path).map_or(0, |metadata| metadata.len());
        Self { line: ProgressLine::new(), len, events: 0 }
    }

    /// Shows that `item` was read, up to byte `position`, if it is time to.
    pub(super) fn see(&mut self, item: &Item, position: u64) {
        self.events += match item {
            Item::Events(events) => events.len() as u64,
            Item::EventCount(n) => u64::from(*n),
            Item::Meta(_) | Item::Snapshot(_) | Item::End(_) | Item::Damage(_) => 0,
        };
        let (len, events) = (self.len, self.events);
        self.line.show(|| reading(position, len, events));
    }
}

/// The line of somebody who reads.
fn reading(position: u64, len: u64, events: u64) -> String {
    let megabytes = |bytes: u64| count(bytes / 1_000_000);
    let of = if len > 0 { format!(" of {}", megabytes(len)) } else { String::new() };
    format!("reading: {}{of} MB, {} events", megabytes(position), count(events))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_how_much_of_the_file_is_read() {
        assert_eq!(
            reading(1_234_567_890, 2_000_000_000, 1_000_000),
            "reading: 1,234 of 2,000 MB, 1,000,000 events"
        );
        assert_eq!(reading(1_000_000, 0, 1), "reading: 1 MB, 1 events");
    }
}
