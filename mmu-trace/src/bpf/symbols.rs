//! The names of kernel functions that appear in a snapshot: callers whose cause is not known.
//!
//! They are few and soon known, and all symbols of the kernel take 8 MB. So `/proc/kallsyms` is read again
//! when a new one appears, and then forgotten. It stays open: whether addresses are shown is decided when
//! it is opened (`kallsyms_open` in `kernel/kallsyms.c`), and later this process may have given up the
//! right to see them.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Seek},
};

use crate::kernel::kallsyms::{Kallsyms, KallsymsError};

/// Names by address.
pub(super) struct Symbols {
    file: File,
    known: BTreeMap<u64, Option<String>>,
}

impl Symbols {
    /// Opens the list, and reads it for whoever starts the tracer.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn open() -> Result<(Self, Kallsyms), KallsymsError> {
        let file = Kallsyms::open()?;
        let all = Kallsyms::from_reader(BufReader::new(&file))?;
        Ok((Self { file, known: BTreeMap::new() }, all))
    }

    /// Looks up what is not known yet. What cannot be found stays unknown.
    pub(super) fn learn(&mut self, addresses: impl Iterator<Item = u64>) {
        let new: Vec<u64> = addresses.filter(|address| !self.known.contains_key(address)).collect();
        if new.is_empty() {
            return;
        }
        let all = self.file.rewind().map_err(KallsymsError::Read);
        let all = all.and_then(|()| Kallsyms::from_reader(BufReader::new(&self.file))).ok();
        for address in new {
            let name = all.as_ref().and_then(|all| all.symbolise(address)).map(|found| found.name.to_owned());
            self.known.insert(address, name);
        }
    }

    /// The function that `address` is in.
    pub(super) fn name(&self, address: u64) -> Option<String> {
        self.known.get(&address).cloned().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_learned_from_the_open_file() {
        let (mut symbols, all) = Symbols::open().unwrap();
        let Some(known) = all.variants("kernel_clone").find(|symbol| symbol.addr != 0) else {
            eprintln!("skipped: /proc/kallsyms hides addresses from this user");
            return;
        };
        assert_eq!(symbols.name(known.addr), None);
        symbols.learn([known.addr + 1, 1].into_iter());
        assert_eq!(symbols.name(known.addr + 1).as_deref(), Some("kernel_clone"));
        assert_eq!((symbols.name(1), symbols.known.len()), (None, 2));
    }
}
