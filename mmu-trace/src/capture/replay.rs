//! A capture's snapshots one after the other, as the tracer gave them.

use std::{fs::File, path::Path};

use anyhow::{Context, Result};

use super::{Item, ReadError, Reader};
use crate::{model::Snapshot, source::Source};

/// A capture as a source: each call gives its next snapshot, in the end always the last. Damaged parts
/// are left out; the snapshot before them says so.
pub struct Replay {
    reader: Reader<File>,
    /// The next snapshot, or at the end the last one.
    next: Box<Snapshot>,
    is_over: bool,
}

impl Replay {
    /// Opens the capture at `path`.
    ///
    /// # Errors
    /// As [`Reader::open`], and if no snapshot can be read; that one is no [`ReadError`].
    pub fn open(path: &Path) -> Result<Self> {
        let mut reader = Reader::open(path)?;
        let (first, _) = next_snapshot(&mut reader)?;
        let next = first.with_context(|| format!("{} has no figures", path.display()))?;
        Ok(Self { reader, next, is_over: false })
    }
}

impl Source for Replay {
    fn snapshot(&mut self) -> Result<Snapshot> {
        // What cannot be read is the end.
        let (next, is_damaged) = next_snapshot(&mut self.reader).unwrap_or((None, true));
        self.is_over = next.is_none();
        let is_cut = self.is_over && self.reader.truncated().is_some();
        self.next.quality.truncated |= is_damaged || is_cut;
        let snapshot = (*self.next).clone();
        self.next = next.unwrap_or_else(|| self.next.clone());
        Ok(snapshot)
    }

    fn is_over(&self) -> bool {
        self.is_over
    }
}

/// The next snapshot, if there is one, and whether something before it is damaged.
fn next_snapshot(reader: &mut Reader<File>) -> Result<(Option<Box<Snapshot>>, bool), ReadError> {
    let mut is_damaged = false;
    for item in reader {
        match item? {
            Item::Snapshot(snapshot) => return Ok((Some(snapshot), is_damaged)),
            Item::Damage(_) => is_damaged = true,
            Item::Meta(_) | Item::Events(_) | Item::End(_) => {}
        }
    }
    Ok((None, is_damaged))
}
