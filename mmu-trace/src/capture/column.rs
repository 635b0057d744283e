//! A column of numbers, most of them small.
//!
//! ```text
//! column   for each number its length, a byte (0 to 8), then the numbers' low bytes, so many of each
//! ```
//!
//! Lengths and bytes lie apart: zstd finds patterns in the former and little in the latter, and a number is
//! read without a branch.

/// Most bytes of a number, with its length.
pub(super) const MAX_NUMBER: usize = 9;

/// A column being filled.
pub(super) struct Column {
    lengths: Vec<u8>,
    bytes: Vec<u8>,
}

impl Column {
    /// An empty column with room for `n` numbers.
    pub(super) fn with_capacity(n: usize) -> Self {
        Self { lengths: Vec::with_capacity(n), bytes: Vec::with_capacity(3 * n) }
    }

    /// Adds a number.
    pub(super) fn push(&mut self, number: u64) {
        let length = 8 - number.leading_zeros() as usize / 8;
        self.lengths.push(length as u8);
        // A copy of constant length, then cut: several times as fast as one of the right length.
        self.bytes.extend_from_slice(&number.to_le_bytes());
        self.bytes.truncate(self.bytes.len() - (8 - length));
    }

    /// Appends the column.
    pub(super) fn write(&self, raw: &mut Vec<u8>) {
        raw.extend_from_slice(&self.lengths);
        raw.extend_from_slice(&self.bytes);
    }
}

/// The numbers of a column.
#[derive(Default)]
pub(super) struct Numbers<'a> {
    lengths: std::slice::Iter<'a, u8>,
    /// From the next number on, with what comes behind the column.
    bytes: &'a [u8],
}

impl Numbers<'_> {
    /// The next number; `None` behind the last one, and for one that is longer than a number can be.
    pub(super) fn next(&mut self) -> Option<u64> {
        const MASKS: [u64; 9] = [0, 0xff, 0xffff, 0xff_ffff, !0 >> 32, !0 >> 24, !0 >> 16, !0 >> 8, !0];
        let length = usize::from(*self.lengths.next()?);
        let mask = MASKS.get(length)?;
        let word = match self.bytes.first_chunk() {
            Some(word) => u64::from_le_bytes(*word),
            None => last_word(self.bytes),
        };
        self.bytes = self.bytes.get(length..)?;
        Some(word & mask)
    }
}

/// The word that starts with the last, fewer than eight bytes.
#[cold]
fn last_word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
}

/// Takes `N` columns of `n` numbers from `rest`; `None` if it is too short for them.
pub(super) fn split<'a, const N: usize>(rest: &mut &'a [u8], n: usize) -> Option<[Numbers<'a>; N]> {
    let mut columns = std::array::from_fn(|_| Numbers::default());
    for column in &mut columns {
        let (lengths, bytes) = rest.split_at_checked(n)?;
        let n_bytes: usize = lengths.iter().map(|&length| usize::from(length)).sum();
        *rest = bytes.get(n_bytes..)?;
        *column = Numbers { lengths: lengths.iter(), bytes };
    }
    Some(columns)
}

/// Small for small differences of either sign.
pub(super) fn zigzag(difference: u64) -> u64 {
    difference << 1 ^ ((difference as i64) >> 63) as u64
}

/// What [`zigzag`] was given.
pub(super) fn unzigzag(number: u64) -> u64 {
    number >> 1 ^ (number & 1).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zigzag_codes_small_differences_small() {
        assert_eq!([0, u64::MAX, 1, u64::MAX - 1].map(zigzag), [0, 1, 2, 3]);
        for number in [0, 1, 2, u64::MAX, 1 << 63, (1 << 63) - 1] {
            assert_eq!(unzigzag(zigzag(number)), number);
        }
    }
}
