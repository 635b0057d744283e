//! A sliding window over a file: look ahead as far as one block, forget what was read.

use std::io::{self, Read};

/// How much is read at a time at least.
const CHUNK: u64 = 64 << 10;

/// What has been read from `source` and not been consumed.
#[derive(Debug)]
pub(super) struct Window<R> {
    source: R,
    bytes: Vec<u8>,
    /// How many of `bytes` are consumed.
    consumed: usize,
    /// Offset of the first byte that is not consumed.
    position: u64,
}

impl<R: Read> Window<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, bytes: Vec::new(), consumed: 0, position: 0 }
    }

    /// Offset in the file of what [`Window::peek`] shows first.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// The next `len` bytes, fewer only at the end of the file. Memory grows with what is there, never
    /// with what `len` claims.
    pub(super) fn peek(&mut self, len: usize) -> io::Result<&[u8]> {
        while self.bytes.len() - self.consumed < len {
            let missing = (len - (self.bytes.len() - self.consumed)) as u64;
            self.bytes.drain(..self.consumed);
            self.consumed = 0;
            let n_read = self.source.by_ref().take(missing.max(CHUNK)).read_to_end(&mut self.bytes)?;
            if n_read == 0 {
                break;
            }
        }
        let rest = &self.bytes[self.consumed..];
        Ok(&rest[..rest.len().min(len)])
    }

    /// Goes on by `len` bytes, at most by those seen.
    pub(super) fn consume(&mut self, len: usize) {
        let len = len.min(self.bytes.len() - self.consumed);
        self.consumed += len;
        self.position += len as u64;
    }

    /// Goes on to the next occurrence of `needle` or to the end of the file, whichever comes first.
    pub(super) fn skip_to<const N: usize>(&mut self, needle: [u8; N]) -> io::Result<()> {
        loop {
            let seen = self.peek(CHUNK as usize)?;
            let (len, found) = (seen.len(), seen.windows(N).position(|window| window == needle));
            let step = match found {
                Some(at) => at,
                None if len < CHUNK as usize => len,
                None => len - (N - 1),
            };
            self.consume(step);
            if found.is_some() || step == len {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_needle_across_chunks_is_found() {
        for before in [0, 1, CHUNK as usize - 2, CHUNK as usize, 3 * CHUNK as usize + 5] {
            let data = [vec![b'.'; before], b"here".to_vec()].concat();
            let mut window = Window::new(data.as_slice());
            window.skip_to(*b"here").unwrap();
            assert_eq!(window.position(), before as u64);
            assert_eq!(window.peek(100).unwrap(), b"here");
        }
    }

    #[test]
    fn without_a_needle_it_ends_at_the_end() {
        let mut window = Window::new(&b"hehehe"[..]);
        window.skip_to(*b"here").unwrap();
        assert_eq!((window.position(), window.peek(1).unwrap()), (6, &b""[..]));
    }
}
