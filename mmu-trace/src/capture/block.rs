//! One block: its header, its limits, its payload's compression.

use std::io;

use super::u32_at;

/// First bytes of every block.
pub(super) const MAGIC: [u8; 4] = 0xb10c_6d74_u32.to_le_bytes();
/// Length of a block's header.
pub(super) const HEADER_LEN: usize = 24;
/// Longest payload, compressed or not: a snapshot of a thousand VMs, and no more than a reader can be
/// made to allocate by a hostile file.
pub(super) const MAX_PAYLOAD: usize = 32 << 20;
/// Flag: a reader that does not know the type may go on without the block.
const SKIPPABLE: u8 = 1;
/// The recorder runs beside guests: the fastest level, which already shrinks events to a quarter or less.
const ZSTD_LEVEL: i32 = 1;

/// Types of blocks.
pub(super) mod kind {
    pub(crate) const META: u8 = 1;
    pub(crate) const EVENTS: u8 = 2;
    pub(crate) const SNAPSHOT: u8 = 3;
    pub(crate) const END: u8 = 4;
}

/// A block's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// See [`kind`].
    pub(super) kind: u8,
    flags: u8,
    stored_len: u32,
    /// Length of the payload before compression, bytes.
    pub(super) raw_len: u32,
    /// Items in the payload.
    pub(super) items: u32,
    crc: u32,
}

impl Header {
    /// The header at the start of `bytes`, if its magic and its lengths are possible.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.first_chunk::<HEADER_LEN>().filter(|bytes| bytes.starts_with(&MAGIC))?;
        let header = Self {
            kind: bytes[4],
            flags: bytes[5],
            stored_len: u32_at(bytes, 8),
            raw_len: u32_at(bytes, 12),
            items: u32_at(bytes, 16),
            crc: u32_at(bytes, 20),
        };
        let is_possible = |len: u32| len as usize <= MAX_PAYLOAD;
        (is_possible(header.stored_len) && is_possible(header.raw_len)).then_some(header)
    }

    /// Length of the whole block in the file.
    pub(super) fn block_len(&self) -> usize {
        HEADER_LEN + self.stored_len as usize
    }

    /// Whether `block`, which starts with this header, is complete and as it was written.
    pub(super) fn is_intact(&self, block: &[u8]) -> bool {
        block.len() == self.block_len() && checksum(block) == self.crc
    }

    pub(super) fn is_skippable(&self) -> bool {
        self.flags & SKIPPABLE != 0
    }

    /// The payload of `block` as it was before compression; `None` if it is not what the header says.
    pub(super) fn payload(&self, block: &[u8]) -> Option<Vec<u8>> {
        let stored = block.get(HEADER_LEN..)?;
        let raw = zstd::bulk::decompress(stored, self.raw_len as usize).ok()?;
        (raw.len() == self.raw_len as usize).then_some(raw)
    }
}

/// A block of `items` items with the content `raw`.
///
/// # Errors
/// If `raw` is longer than a block can be.
pub(super) fn encode(kind: u8, items: u32, raw: &[u8]) -> io::Result<Vec<u8>> {
    let stored = zstd::bulk::compress(raw, ZSTD_LEVEL)?;
    if raw.len().max(stored.len()) > MAX_PAYLOAD {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "a block may have 32 MiB at most"));
    }
    let mut block = Vec::with_capacity(HEADER_LEN + stored.len());
    block.extend(MAGIC);
    block.extend([kind, 0, 0, 0]);
    for word in [stored.len() as u32, raw.len() as u32, items, 0] {
        block.extend(word.to_le_bytes());
    }
    block.extend(stored);
    let crc = checksum(&block);
    block[HEADER_LEN - 4..HEADER_LEN].copy_from_slice(&crc.to_le_bytes());
    Ok(block)
}

/// CRC-32C of everything but the place of the checksum itself.
fn checksum(block: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&block[..HEADER_LEN - 4]), &block[HEADER_LEN..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_read_back_and_any_changed_byte_is_noticed() {
        let mut block = encode(kind::META, 1, b"{}").unwrap();
        let header = Header::parse(&block).unwrap();
        assert!(header.is_intact(&block) && !header.is_skippable());
        assert_eq!(header.payload(&block).unwrap(), b"{}");
        for at in 0..block.len() {
            block[at] ^= 0x10;
            assert!(Header::parse(&block).is_none_or(|header| !header.is_intact(&block)), "byte {at}");
            block[at] ^= 0x10;
        }
    }

    #[test]
    fn impossible_lengths_are_no_header() {
        let mut block = encode(kind::META, 1, b"{}").unwrap();
        block[12..16].copy_from_slice(&(MAX_PAYLOAD as u32 + 1).to_le_bytes());
        assert_eq!(Header::parse(&block), None);
        assert!(encode(kind::META, 1, &vec![0; MAX_PAYLOAD + 1]).is_err());
    }

    #[test]
    fn a_payload_longer_than_declared_is_refused_without_being_unpacked() {
        let mut block = encode(kind::META, 1, &[0; 1 << 20]).unwrap();
        block[12..16].copy_from_slice(&16_u32.to_le_bytes());
        assert_eq!(Header::parse(&block).unwrap().payload(&block), None);
    }
}
