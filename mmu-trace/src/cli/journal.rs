//! How important a line on standard error is, for the journal of systemd.

use std::{env, io};

use rustix::fs::fstat;

/// A priority, as the journal reads it at the beginning of a line.
#[derive(Clone, Copy, Debug)]
pub(super) enum Priority {
    /// The process ends because of it.
    Error,
    /// Something does not work.
    Warning,
    /// What the journal assumes by itself.
    Information,
}

impl Priority {
    /// What goes before the line: nothing, unless the journal reads it.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::Error if is_read_by_the_journal() => "<3>",
            Self::Warning if is_read_by_the_journal() => "<4>",
            _ => "",
        }
    }
}

/// `JOURNAL_STREAM` names the stream that the journal reads; a redirected standard error is another.
fn is_read_by_the_journal() -> bool {
    let stream = env::var("JOURNAL_STREAM").ok();
    let stat = fstat(io::stderr()).ok();
    stream.zip(stat).is_some_and(|(stream, stat)| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}
