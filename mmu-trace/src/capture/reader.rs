//! Reads a capture block by block, in memory that does not depend on its length.
//!
//! ```text
//!  at a block --intact--> Item or skipped --> at a block
//!       |                                         ^
//!       +--not intact--> next magic whose block is intact --> Item::Damage
//!       +--end of file--> done; without END: truncated
//! ```

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use mmu_trace_ebpf::abi::{ABI_VERSION, Event};
use serde::de::DeserializeOwned;

use super::{
    Damage, End, FILE_HEADER_LEN, FILE_MAGIC, FORMAT_VERSION, Meta,
    block::{HEADER_LEN, Header, MAGIC, kind},
    events, u32_at,
    window::Window,
};
use crate::model::Snapshot;

/// Most places tried as the start of a block without success. Each may cost the check of a whole block,
/// so a file made of nothing but false starts must not keep a reader busy for ever.
const MAX_FALSE_STARTS: u32 = 1024;

/// Why a capture could not be read on.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file could not be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Reading failed.
    #[error("cannot read {} behind byte {position}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// How far it was read.
        position: u64,
        /// Why.
        source: io::Error,
    },
    /// The file has no bytes.
    #[error("{} is empty: nothing was recorded into it; record again", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The file starts with something else.
    #[error("{} is not a capture; give a file that mmu-trace record wrote", path.display())]
    NotACapture {
        /// The file.
        path: PathBuf,
    },
    /// Written by a newer mmu-trace.
    #[error(
        "{} has format version {found}, this mmu-trace reads up to {supported}; use a newer mmu-trace",
        path.display()
    )]
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version that can be read.
        supported: u32,
    },
    /// Written by an older mmu-trace.
    #[error(
        "{} has format version {found}, this mmu-trace reads {supported}; use the mmu-trace that recorded it, \
         or record again",
        path.display()
    )]
    OlderVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The oldest version that can be read.
        supported: u32,
    },
    /// The events have another layout.
    #[error(
        "the events of {} have ABI version {found}, this mmu-trace reads {supported}; use the mmu-trace that \
         recorded it",
        path.display()
    )]
    OtherAbi {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version that can be read.
        supported: u32,
    },
    /// A block of a type that this version does not know and must not skip.
    #[error(
        "{} has a block of the unknown type {kind} at byte {position}; use a newer mmu-trace",
        path.display()
    )]
    UnknownBlock {
        /// The file.
        path: PathBuf,
        /// The type.
        kind: u8,
        /// Where it is.
        position: u64,
    },
    /// There is no sense in going on.
    #[error("{} is too damaged to be read behind byte {position}", path.display())]
    TooDamaged {
        /// The file.
        path: PathBuf,
        /// How far it was read.
        position: u64,
    },
}

/// What is made of the events of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Events {
    /// They are unpacked.
    Unpack,
    /// They are counted, many times as fast: of their blocks only the checksum is verified.
    Count,
}

/// One part of a capture, in the order of the file.
pub enum Item {
    /// How the capture was made.
    Meta(Meta),
    /// Events; their discriminants are unchecked.
    Events(Vec<Event>),
    /// So many events, which were not unpacked.
    EventCount(u32),
    /// What was known at this point.
    Snapshot(Box<Snapshot>),
    /// The end mark.
    End(End),
    /// Bytes that could not be read.
    Damage(Damage),
}

/// A capture being read: an iterator over its items that ends with the file or after an error.
#[derive(Debug)]
pub struct Reader<R> {
    window: Window<R>,
    path: PathBuf,
    events: Events,
    /// Damage of the file header, to be told first.
    header_damage: Option<Damage>,
    /// End of the last intact block.
    intact: u64,
    false_starts: u32,
    skipped_blocks: u64,
    has_end: bool,
    is_done: bool,
}

impl Reader<File> {
    /// Opens the capture at `path`.
    ///
    /// # Errors
    /// If it cannot be read, is empty, no capture, or of a version that cannot be read.
    pub fn open(path: &Path, events: Events) -> Result<Self, ReadError> {
        let failed = |source| ReadError::Open { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        Self::new(file, path, events)
    }
}

impl<R: Read> Reader<R> {
    /// Reads a capture from `source`; `path` is only for messages.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn new(source: R, path: &Path, events: Events) -> Result<Self, ReadError> {
        let mut reader = Self {
            window: Window::new(source),
            path: path.to_owned(),
            events,
            header_damage: None,
            intact: 0,
            false_starts: 0,
            skipped_blocks: 0,
            has_end: false,
            is_done: false,
        };
        reader.read_file_header()?;
        Ok(reader)
    }

    /// Where the file ends too early: the end of the last intact block, if the reader has come to the
    /// end of the file without having seen an end mark.
    #[must_use]
    pub fn truncated(&self) -> Option<u64> {
        (self.is_done && !self.has_end).then_some(self.intact)
    }

    /// How far the file is read, bytes.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.window.position()
    }

    /// Blocks of unknown types that could be skipped.
    #[must_use]
    pub fn skipped_blocks(&self) -> u64 {
        self.skipped_blocks
    }

    fn read_file_header(&mut self) -> Result<(), ReadError> {
        let path = self.path.clone();
        let header = self.window.peek(FILE_HEADER_LEN);
        let header = header.map_err(|source| ReadError::Read { path: path.clone(), position: 0, source })?;
        if header.is_empty() {
            return Err(ReadError::Empty { path });
        }
        let start = &header[..header.len().min(FILE_MAGIC.len())];
        if !FILE_MAGIC.starts_with(start) {
            return Err(ReadError::NotACapture { path });
        }
        let is_intact =
            header.len() == FILE_HEADER_LEN && crc32c::crc32c(&header[..16]) == u32_at(header, 16);
        let (format, abi, len) = (u32_at(header, 8), u32_at(header, 12), header.len());
        if is_intact && format > FORMAT_VERSION {
            return Err(ReadError::NewerVersion { path, found: format, supported: FORMAT_VERSION });
        }
        if is_intact && format < FORMAT_VERSION {
            return Err(ReadError::OlderVersion { path, found: format, supported: FORMAT_VERSION });
        }
        if is_intact && abi != ABI_VERSION {
            return Err(ReadError::OtherAbi { path, found: abi, supported: ABI_VERSION });
        }
        // With a damaged header the versions are unknown, but the blocks vouch for themselves.
        self.header_damage = (!is_intact).then_some(Damage { position: 0, bytes: len as u64 });
        self.intact = if is_intact { len as u64 } else { 0 };
        self.window.consume(len);
        Ok(())
    }

    /// The next item; `None` at the end of the file.
    fn read_item(&mut self) -> Result<Option<Item>, ReadError> {
        if let Some(damage) = self.header_damage.take() {
            return Ok(Some(Item::Damage(damage)));
        }
        loop {
            let position = self.window.position();
            if self.peek(1)?.is_empty() {
                return Ok(None);
            }
            let Some(header) = self.peek_intact()? else {
                return self.resync(position).map(|damage| Some(Item::Damage(damage)));
            };
            let item = self.decode(header, position)?;
            self.window.consume(header.block_len());
            self.intact = self.window.position();
            if item.is_some() {
                return Ok(item);
            }
            self.skipped_blocks += 1;
        }
    }

    /// The header of the block that starts here, if the whole block is intact.
    fn peek_intact(&mut self) -> Result<Option<Header>, ReadError> {
        let Some(header) = Header::parse(self.peek(HEADER_LEN)?) else { return Ok(None) };
        Ok(header.is_intact(self.peek(header.block_len())?).then_some(header))
    }

    /// Goes on to the next intact block or to the end of the file.
    fn resync(&mut self, position: u64) -> Result<Damage, ReadError> {
        loop {
            self.false_starts += 1;
            if self.false_starts > MAX_FALSE_STARTS {
                return Err(ReadError::TooDamaged { path: self.path.clone(), position });
            }
            self.window.consume(1);
            let skipped = self.window.skip_to(MAGIC);
            skipped.map_err(|source| self.failed(source))?;
            if self.peek(1)?.is_empty() || self.peek_intact()?.is_some() {
                return Ok(Damage { position, bytes: self.window.position() - position });
            }
        }
    }

    /// What is in the intact block that starts here; `None` if it is to be skipped. A content that does
    /// not fit its type is damage, too.
    fn decode(&mut self, header: Header, position: u64) -> Result<Option<Item>, ReadError> {
        let (bytes, wanted) = (header.block_len() as u64, self.events);
        let block = self.peek(header.block_len())?;
        let payload = || header.payload(block);
        let item = match header.kind {
            kind::META => payload().and_then(|raw| json(&raw)).map(Item::Meta),
            kind::EVENTS => events(&header, block, wanted),
            kind::SNAPSHOT => payload().and_then(|raw| json(&raw)).map(Item::Snapshot),
            kind::END => payload().and_then(|raw| json(&raw)).map(Item::End),
            _ if header.is_skippable() => return Ok(None),
            kind => return Err(ReadError::UnknownBlock { path: self.path.clone(), kind, position }),
        };
        self.has_end |= matches!(item, Some(Item::End(_)));
        Ok(Some(item.unwrap_or(Item::Damage(Damage { position, bytes }))))
    }

    fn peek(&mut self, len: usize) -> Result<&[u8], ReadError> {
        let (path, position) = (&self.path, self.window.position());
        self.window.peek(len).map_err(|source| ReadError::Read { path: path.clone(), position, source })
    }

    fn failed(&self, source: io::Error) -> ReadError {
        ReadError::Read { path: self.path.clone(), position: self.window.position(), source }
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Item, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        let item = self.read_item().transpose();
        self.is_done = !matches!(item, Some(Ok(_)));
        item
    }
}

/// `raw` as JSON of a `T`.
fn json<T: DeserializeOwned>(raw: &[u8]) -> Option<T> {
    serde_json::from_slice(raw).ok()
}

/// The events of a block.
fn events(header: &Header, block: &[u8], wanted: Events) -> Option<Item> {
    let n = header.items;
    if !events::is_possible(n, header.raw_len as usize) {
        return None;
    }
    match wanted {
        Events::Unpack => events::decode(&header.payload(block)?, n).map(Item::Events),
        Events::Count => Some(Item::EventCount(n)),
    }
}
