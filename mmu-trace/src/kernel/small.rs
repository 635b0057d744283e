//! Files of `/proc` and `/sys` that hold a line or a few: read with as few system calls as there can be, for
//! they are read for each VM at each scrape.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// More than any of them has.
const MAX_BYTES: usize = 4096;

/// The text of a small file.
///
/// # Errors
/// If it cannot be read, is no text, or does not end within 4 KiB.
pub fn read_small(path: &Path) -> io::Result<String> {
    let mut buffer = [0; MAX_BYTES];
    let mut file = File::open(path)?;
    let mut n = 0;
    loop {
        match file.read(&mut buffer[n..])? {
            0 => break,
            more => n += more,
        }
    }
    let text = buffer.get(..n).filter(|_| n < MAX_BYTES).and_then(|text| std::str::from_utf8(text).ok());
    text.map(str::to_owned).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_small_is_refused() {
        assert!(read_small(Path::new("/proc/self/stat")).unwrap().contains('('));
        assert_eq!(read_small(Path::new("/proc/kallsyms")).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
