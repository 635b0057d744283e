//! A capture read to its end, without keeping its events.

use std::path::Path;

use super::{Damage, End, Events, Item, Meta, ReadError, Reader};
use crate::model::Snapshot;

/// What a capture holds, and what it lacks.
#[derive(Debug, Default)]
pub struct Summary {
    /// How it was made; `None` if that block is damaged.
    pub meta: Option<Meta>,
    /// The last intact snapshot. Its `quality.truncated` is set if a later one may be missing.
    pub snapshot: Option<Box<Snapshot>>,
    /// The end mark; `None` if the capture was cut off.
    pub end: Option<End>,
    /// Every range of bytes that could not be read.
    pub damage: Vec<Damage>,
    /// Where a capture without end mark ends: behind its last intact block, in bytes.
    pub truncated: Option<u64>,
    /// Events whose blocks could be read.
    pub events: u64,
    /// Snapshots that could be read.
    pub snapshots: u64,
    /// Blocks of unknown types.
    pub skipped_blocks: u64,
    /// Why it was not read to its end: what follows is unknown.
    pub stopped: Option<ReadError>,
}

impl Summary {
    /// Whether every byte was read and the end mark was there.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.truncated.is_none() && self.damage.is_empty() && self.stopped.is_none()
    }

    fn add(&mut self, item: Item) {
        match item {
            Item::Meta(meta) => self.meta = Some(meta),
            Item::Events(events) => self.events += events.len() as u64,
            Item::EventCount(n) => self.events += u64::from(n),
            Item::Snapshot(snapshot) => {
                self.snapshots += 1;
                self.snapshot = Some(snapshot);
            }
            Item::End(end) => self.end = Some(end),
            Item::Damage(damage) => {
                self.mark_stale();
                self.damage.push(damage);
            }
        }
    }

    /// Notes that what comes behind the snapshot, another one perhaps, was not read.
    fn mark_stale(&mut self) {
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.quality.truncated = true;
        }
    }
}

/// Reads the capture at `path` to its end; its events are counted.
///
/// # Errors
/// As [`Reader::open`]; damage, truncation and an error behind the first bytes are part of the summary.
pub fn summary(path: &Path) -> Result<Summary, ReadError> {
    summary_with(path, Events::Count, |_, _| {})
}

/// The same; `look` sees every item on the way, in the order of the file, and how many bytes are read.
///
/// # Errors
/// As [`summary`].
pub fn summary_with(
    path: &Path,
    events: Events,
    mut look: impl FnMut(&Item, u64),
) -> Result<Summary, ReadError> {
    let mut reader = Reader::open(path, events)?;
    let mut summary = Summary::default();
    while let Some(item) = reader.next() {
        match item {
            Ok(item) => {
                look(&item, reader.position());
                summary.add(item);
            }
            Err(error) => summary.stopped = Some(error),
        }
    }
    summary.truncated = reader.truncated().filter(|_| summary.stopped.is_none());
    summary.skipped_blocks = reader.skipped_blocks();
    if summary.truncated.is_some() || summary.stopped.is_some() {
        summary.mark_stale();
    }
    Ok(summary)
}
