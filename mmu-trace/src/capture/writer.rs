//! Writes a capture block by block: a crash at any moment leaves a file that reads up to there.

use std::{
    fs::{File, OpenOptions, Permissions, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use mmu_trace_ebpf::abi::Event;
use serde::Serialize;

use super::{
    End, EndReason, FILE_MAGIC, Meta,
    block::{self, kind},
    events, file_header,
};
use crate::model::Snapshot;

/// Events in one block: so few that little is lost with one, so many that what they have in common is told
/// seldom.
const BLOCK_EVENTS: usize = 16_384;
/// Captures tell addresses and command lines of other users' VMs.
const MODE: u32 = 0o600;

const _: () = assert!(BLOCK_EVENTS <= events::MAX_EVENTS as usize, "a reader refuses larger blocks");

/// Why a capture could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The file could not be opened or prepared.
    #[error("cannot create {}", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("refusing to overwrite {}: it is {what}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What is there.
        what: &'static str,
    },
    /// The disk is full.
    #[error("no room to go on writing {}; the {intact} bytes written so far are readable", path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// Length of what is intact, in bytes.
        intact: u64,
        /// What the system said.
        source: io::Error,
    },
    /// Writing failed for another reason.
    #[error("cannot go on writing {}; the {intact} bytes written so far are readable", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Length of what is intact, in bytes.
        intact: u64,
        /// Why.
        source: io::Error,
    },
}

/// A capture being written. Dropped without [`Writer::finish`] it lacks its end mark and the events
/// that were not yet flushed.
pub struct Writer {
    file: File,
    path: PathBuf,
    /// Events that do not fill a block yet.
    pending: Vec<Event>,
    events_written: u64,
    /// Events of blocks that could not be written.
    events_lost: u64,
    /// Length of the intact file, bytes.
    intact: u64,
}

impl Writer {
    /// Starts a capture at `path`, readable by its owner only. An existing file is replaced if it is empty
    /// or a capture that nobody is writing.
    ///
    /// # Errors
    /// [`WriteError::Refused`] if something else is there, otherwise what the system said.
    pub fn create(path: &Path, meta: &Meta) -> Result<Self, WriteError> {
        let failed = |source| WriteError::Create { path: path.to_owned(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(MODE);
        let mut file = options.open(path).map_err(failed)?;
        if let Some(what) = foreign(&mut file).map_err(failed)? {
            return Err(WriteError::Refused { path: path.to_owned(), what });
        }
        clear(&mut file).map_err(failed)?;
        Self::from_file(file, path, meta)
    }

    /// Starts a capture in the empty file `file`; `path` is only for messages.
    ///
    /// # Errors
    /// If the first bytes cannot be written.
    pub fn from_file(file: File, path: &Path, meta: &Meta) -> Result<Self, WriteError> {
        let mut writer = Self {
            file,
            path: path.to_owned(),
            pending: Vec::new(),
            events_written: 0,
            events_lost: 0,
            intact: 0,
        };
        writer.write(&file_header())?;
        writer.write_json(kind::META, meta)?;
        Ok(writer)
    }

    /// Adds events; they reach the file when a block is full or with the next flush or snapshot.
    ///
    /// # Errors
    /// If writing fails: those events are lost, the file is intact up to there.
    pub fn write_events(&mut self, events: &[Event]) -> Result<(), WriteError> {
        let mut rest = events;
        while !rest.is_empty() {
            let (fitting, more) = rest.split_at(rest.len().min(BLOCK_EVENTS - self.pending.len()));
            self.pending.extend_from_slice(fitting);
            rest = more;
            if self.pending.len() == BLOCK_EVENTS {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Adds what is known now, behind the events so far.
    ///
    /// # Errors
    /// If writing fails, or the snapshot is longer than a block can be.
    pub fn write_snapshot(&mut self, snapshot: &Snapshot) -> Result<(), WriteError> {
        self.flush()?;
        self.write_json(kind::SNAPSHOT, snapshot)
    }

    /// Writes the pending events.
    ///
    /// # Errors
    /// If writing fails: those events are lost, the file is intact up to there.
    pub fn flush(&mut self) -> Result<(), WriteError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let columns = events::encode(&self.pending);
        let written = self.write_block(kind::EVENTS, self.pending.len() as u32, &columns);
        let count = if written.is_ok() { &mut self.events_written } else { &mut self.events_lost };
        *count += self.pending.len() as u64;
        self.pending.clear();
        written
    }

    /// Writes the end mark and waits until everything is on the disk. `events_lost` are those that never
    /// came here; the end mark adds those that could not be written.
    ///
    /// # Errors
    /// If writing fails; the capture is then readable but counts as truncated.
    pub fn finish(mut self, reason: EndReason, events_lost: u64) -> Result<End, WriteError> {
        self.flush()?;
        let events_lost = events_lost + self.events_lost;
        let end = End { events_written: self.events_written, events_lost, reason };
        self.write_json(kind::END, &end)?;
        self.file.sync_all().map_err(|source| self.failed(source))?;
        Ok(end)
    }

    /// Events in the file so far, without the pending ones.
    #[must_use]
    pub fn events_written(&self) -> u64 {
        self.events_written
    }

    fn write_json(&mut self, kind: u8, content: &impl Serialize) -> Result<(), WriteError> {
        let json = serde_json::to_vec(content).map_err(|e| self.failed(e.into()))?;
        self.write_block(kind, 1, &json)
    }

    fn write_block(&mut self, kind: u8, items: u32, raw: &[u8]) -> Result<(), WriteError> {
        let block = block::encode(kind, items, raw).map_err(|e| self.failed(e))?;
        self.write(&block)
    }

    /// Appends `bytes` or, if that fails, takes back the part that was written.
    fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        if let Err(source) = self.file.write_all(bytes) {
            // If this fails as well, a reader skips the part as damage.
            let _ = self.file.set_len(self.intact);
            let _ = self.file.seek(SeekFrom::Start(self.intact));
            return Err(self.failed(source));
        }
        self.intact += bytes.len() as u64;
        Ok(())
    }

    fn failed(&self, source: io::Error) -> WriteError {
        let (path, intact) = (self.path.clone(), self.intact);
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                WriteError::Full { path, intact, source }
            }
            _ => WriteError::Write { path, intact, source },
        }
    }
}

/// What `file` is, if it must not be replaced; otherwise it is locked now.
fn foreign(file: &mut File) -> io::Result<Option<&'static str>> {
    if !file.metadata()?.is_file() {
        return Ok(Some("not a regular file"));
    }
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(Some("a capture that is being written")),
        Err(TryLockError::Error(source)) => return Err(source),
    }
    let mut start = Vec::new();
    Read::by_ref(file).take(FILE_MAGIC.len() as u64).read_to_end(&mut start)?;
    Ok((!start.is_empty() && start != FILE_MAGIC).then_some("not a capture"))
}

/// Makes `file` empty and private.
fn clear(file: &mut File) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(MODE))?;
    file.set_len(0)?;
    file.rewind()
}

#[cfg(test)]
mod tests {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
    use zerocopy::FromZeros;

    use super::*;

    #[test]
    fn events_that_do_not_fit_are_counted() {
        let flags = MemfdFlags::ALLOW_SEALING;
        let file = File::from(memfd_create("capture", flags).unwrap());
        let cannot_grow = file.try_clone().unwrap();
        let host = crate::model::Host { kernel: "6.1".into(), arch: "x86_64".into(), has_change_pte: true };
        let meta = Meta {
            tool_version: String::new(),
            host,
            start_unix_ns: 0,
            start_monotonic_ns: 0,
            hooks: Vec::new(),
            command: Vec::new(),
            vm_filter: Vec::new(),
        };
        let mut writer = Writer::from_file(file, Path::new("x"), &meta).unwrap();
        writer.write_events(&[Event::new_zeroed()]).unwrap();
        writer.flush().unwrap();
        fcntl_add_seals(&cannot_grow, SealFlags::GROW).unwrap();
        writer.write_events(&[Event::new_zeroed(), Event::new_zeroed()]).unwrap();
        assert!(matches!(writer.flush(), Err(WriteError::Write { .. })));
        assert_eq!((writer.events_written, writer.events_lost), (1, 2));
        assert_eq!(cannot_grow.metadata().unwrap().len(), writer.intact);
    }
}
