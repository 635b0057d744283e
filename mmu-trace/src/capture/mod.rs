//! Recordings: a versioned file format that survives a crash, a full disk and damaged bytes.
//!
//! ```text
//! file    header, then blocks until the end mark; all numbers little-endian
//!
//! header  "MMUTRACE" | u32 format version | u32 ABI version | u32 CRC-32C of the 16 bytes before
//!
//! block   u32 magic        0xb10c6d74
//!         u8  type         1 META, 2 EVENTS, 3 SNAPSHOT, 4 END
//!         u8  flags        bit 0: a reader that does not know the type may skip the block
//!         u16 zero
//!         u32 stored length of the payload in the file
//!         u32 raw length   of the payload after decompression
//!         u32 items        in the payload: events, otherwise 1
//!         u32 CRC-32C      of the 20 bytes before and the payload
//!         payload          zstd; EVENTS: columns, see `events.rs`; otherwise JSON
//! ```
//!
//! Of an EVENTS block items and raw length must fit each other and be small, or it is damage: that is known
//! before anything is allocated for them.
//!
//! META comes first; SNAPSHOT blocks now and then and right before END, which comes last. A file without
//! END was cut off: its last intact snapshot says what was counted until then. After damage a reader
//! looks for the next block magic, so one bad byte costs one block. The file header keeps its form in
//! every version.
//!
//! Who does not need the events need not unpack them: their blocks are counted, once the checksum has shown
//! that they are as they were written. Damage cannot hide in them, only a fault of the writer could.
//!
//! This module knows files and wire types. What an event means, and whether its discriminants do, is for
//! the consumer to decide.

mod block;
mod column;
mod events;
mod reader;
mod summary;
mod window;
mod writer;

pub use reader::{Events, Item, ReadError, Reader};
pub use summary::{Summary, summary, summary_with};
pub use writer::{WriteError, Writer};

use serde::{Deserialize, Serialize};

use crate::model::{Hook, Host};

/// Version of the file format; raised when an older reader could no longer read the file.
pub const FORMAT_VERSION: u32 = 2;
/// The first bytes of every capture.
const FILE_MAGIC: [u8; 8] = *b"MMUTRACE";
/// Length of the file header.
const FILE_HEADER_LEN: usize = 20;

/// Where, when and how a capture was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Version of the recording mmu-trace.
    pub tool_version: String,
    /// The traced kernel.
    pub host: Host,
    /// Start of the recording, nanoseconds since the Unix epoch.
    pub start_unix_ns: u64,
    /// The same moment on the clock of the events, `CLOCK_MONOTONIC` nanoseconds.
    pub start_monotonic_ns: u64,
    /// The hooks as they were attached.
    pub hooks: Vec<Hook>,
    /// The command that was run and traced; empty if none.
    pub command: Vec<String>,
    /// The VMs the recording was limited to, by name; empty: all of them.
    pub vm_filter: Vec<String>,
}

/// How a recording came to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Events in the file.
    pub events_written: u64,
    /// Events that were lost before they could be written.
    pub events_lost: u64,
    /// Why it ended.
    pub reason: EndReason,
}

/// Why a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The time asked for was over.
    Duration,
    /// The command that was run had ended.
    Command,
    /// A signal, such as Ctrl-C.
    Interrupted,
    /// An error of the recorder.
    Error,
    /// A reason that this version does not know.
    #[serde(other)]
    Unknown,
}

/// Bytes of a capture that could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Offset of the first in the file.
    pub position: u64,
    /// How many.
    pub bytes: u64,
}

/// The file header of this version.
fn file_header() -> [u8; FILE_HEADER_LEN] {
    let mut header = [0; FILE_HEADER_LEN];
    header[..8].copy_from_slice(&FILE_MAGIC);
    header[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&mmu_trace_ebpf::abi::ABI_VERSION.to_le_bytes());
    let crc = crc32c::crc32c(&header[..16]);
    header[16..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// The little-endian word at `offset`; 0 behind the end.
fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    bytes.get(offset..).and_then(<[u8]>::first_chunk).map_or(0, |word| u32::from_le_bytes(*word))
}
