//! Text symbols of the running kernel from `/proc/kallsyms`: which functions exist, where they are, and
//! what an address in kernel text belongs to.
//!
//! ```text
//! ffffffff812f3a10 t write_protect_page
//! ffffffffc0a1b2c0 t kvm_tdp_page_fault   [kvm]
//! ```
//!
//! Where `kptr_restrict` hides addresses all of them read 0: existence can still be asked, places not.
//! Compilers rename functions they change: `f.isra.0`, `f.constprop.0` and `f.part.0` run in place of
//! `f`, while `f.cold` is only the unlikely part of one and never stands for it.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    ops::Range,
};

const PROC: &str = "/proc/kallsyms";
/// Longest line: address, type, a name of `KSYM_NAME_LEN` (512) and a module name of 64 bytes, with room.
const MAX_LINE: u64 = 1024;
/// Most lines read; distribution kernels with all their modules have about 300,000.
const MAX_LINES: usize = 2 << 20;
/// No function is longer: bounds the last one before a hole in the address space.
const MAX_FUNCTION_BYTES: u64 = 1 << 20;
/// Suffixes of functions that run in place of the one they are named after.
const CLONE_SUFFIXES: [&str; 3] = ["isra", "constprop", "part"];
/// Index into the module names: none, the symbol is the kernel's own.
const NO_MODULE: u16 = u16::MAX;

/// Why the symbols could not be read.
#[derive(Debug, thiserror::Error)]
pub enum KallsymsError {
    /// Opening or reading failed.
    #[error("cannot read the kernel's symbols from {PROC}")]
    Read(#[source] io::Error),
    /// The input has no end in sight.
    #[error("more than {MAX_LINES} kernel symbols")]
    TooMany,
}

/// A function of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// Its full name, compiler suffixes included.
    pub name: &'a str,
    /// Its address; 0 where addresses are hidden.
    pub addr: u64,
    /// The module it belongs to; `None`: the kernel itself.
    pub module: Option<&'a str>,
}

/// What an address in kernel text belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location<'a> {
    /// The function's full name; of several names for one address, the first listed.
    pub name: &'a str,
    /// Bytes from its start.
    pub offset: u64,
    /// The module it belongs to; `None`: the kernel itself.
    pub module: Option<&'a str>,
}

/// The text symbols, about 8 MB on a distribution kernel.
#[derive(Debug, Default)]
pub struct Kallsyms {
    /// By address; those with an empty name are data and only end the function before them.
    entries: Vec<Entry>,
    /// All names, one after the other.
    names: String,
    modules: Vec<String>,
    /// Hash of the base name in the upper half, index into `entries` in the lower; sorted.
    by_name: Vec<u64>,
    malformed: usize,
}

/// One symbol; its name is `names[name..name + name_len]`.
#[derive(Clone, Copy, Debug)]
struct Entry {
    addr: u64,
    name: u32,
    name_len: u16,
    module: u16,
}

impl Kallsyms {
    /// Reads the running kernel's symbols.
    ///
    /// # Errors
    /// If the file cannot be read. Hidden addresses are no error, see [`Kallsyms::addresses_hidden`].
    pub fn load() -> Result<Self, KallsymsError> {
        Self::from_reader(BufReader::new(Self::open()?))
    }

    /// Opens the running kernel's symbols, for [`Kallsyms::from_reader`].
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open() -> Result<File, KallsymsError> {
        File::open(PROC).map_err(KallsymsError::Read)
    }

    /// Reads symbols in the format of `/proc/kallsyms`. Lines that make no sense are skipped and counted.
    ///
    /// # Errors
    /// If reading fails or does not end.
    pub fn from_reader(mut reader: impl BufRead) -> Result<Self, KallsymsError> {
        let mut symbols = Self::default();
        let mut line = Vec::new();
        while read_line(&mut reader, &mut line).map_err(KallsymsError::Read)? {
            if symbols.push(&line).is_none() {
                symbols.malformed += 1;
            }
            if symbols.entries.len() + symbols.malformed > MAX_LINES {
                return Err(KallsymsError::TooMany);
            }
        }
        symbols.index();
        Ok(symbols)
    }

    /// Whether there is no address to work with: `kptr_restrict`, or no privilege.
    #[must_use]
    pub fn addresses_hidden(&self) -> bool {
        self.entries.iter().all(|entry| entry.addr == 0)
    }

    /// Lines that could not be understood.
    #[must_use]
    pub fn malformed_lines(&self) -> usize {
        self.malformed
    }

    /// Whether a function is called exactly `name`.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.exact(name).next().is_some()
    }

    /// The functions called exactly `name`; static functions of several files may share a name.
    pub fn exact<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Symbol<'a>> {
        self.variants(base_name(name)).filter(move |symbol| symbol.name == name)
    }

    /// The functions called `base`, or that with `.isra.N`, `.constprop.N` or `.part.N` appended, once or
    /// more; by address.
    pub fn variants<'a>(&'a self, base: &'a str) -> impl Iterator<Item = Symbol<'a>> {
        let hash = u64::from(hash(base));
        let first = self.by_name.partition_point(|&entry| entry >> 32 < hash);
        let same_hash = self.by_name[first..].iter().take_while(move |&&entry| entry >> 32 == hash);
        let symbols = same_hash.filter_map(|&entry| self.symbol(self.entries.get(entry as u32 as usize)?));
        symbols.filter(move |symbol| base_name(symbol.name) == base)
    }

    /// The addresses of the function that contains `addr`: from its start to the next symbol.
    #[must_use]
    pub fn function_range(&self, addr: u64) -> Option<Range<u64>> {
        let (entry, end) = self.covering(addr)?;
        Some(entry.addr..end)
    }

    /// The function that contains `addr`.
    #[must_use]
    pub fn symbolise(&self, addr: u64) -> Option<Location<'_>> {
        let (entry, _) = self.covering(addr)?;
        let Symbol { name, module, .. } = self.symbol(entry)?;
        Some(Location { name, offset: addr - entry.addr, module })
    }

    /// The first symbol of those with the greatest address up to `addr`, and where it ends, if that is
    /// behind `addr`.
    fn covering(&self, addr: u64) -> Option<(&Entry, u64)> {
        let after = self.entries.partition_point(|entry| entry.addr <= addr);
        let start = self.entries[..after].last()?.addr;
        let first = self.entries[..after].partition_point(|entry| entry.addr < start);
        let entry = self.entries[first..after].iter().find(|entry| entry.name_len > 0)?;
        let longest = start.saturating_add(MAX_FUNCTION_BYTES);
        let end = self.entries.get(after).map_or(longest, |next| next.addr.min(longest));
        (start != 0 && addr < end).then_some((entry, end))
    }

    fn symbol(&self, entry: &Entry) -> Option<Symbol<'_>> {
        let name = self.names.get(entry.name as usize..)?.get(..usize::from(entry.name_len))?;
        let module = self.modules.get(usize::from(entry.module)).map(String::as_str);
        (!name.is_empty()).then_some(Symbol { name, addr: entry.addr, module })
    }

    /// Adds one line; `None` if it makes no sense.
    fn push(&mut self, line: &[u8]) -> Option<()> {
        let mut words = str::from_utf8(line).ok()?.split_ascii_whitespace();
        let addr = u64::from_str_radix(words.next()?, 16).ok()?;
        let kind = words.next()?;
        let name = words.next()?;
        if !matches!(kind, "t" | "T" | "w" | "W") {
            self.entries.push(Entry { addr, name: 0, name_len: 0, module: NO_MODULE });
            return Some(());
        }
        let module = words.next().map_or(Some(NO_MODULE), |word| self.module(word))?;
        let (start, name_len) = (u32::try_from(self.names.len()).ok()?, u16::try_from(name.len()).ok()?);
        self.names.push_str(name);
        self.entries.push(Entry { addr, name: start, name_len, module });
        Some(())
    }

    /// The index of the module written as `[name]`; symbols of one module are listed together.
    fn module(&mut self, word: &str) -> Option<u16> {
        let name = word.strip_prefix('[')?.strip_suffix(']')?;
        if self.modules.last().is_none_or(|last| last != name) {
            if self.modules.len() == usize::from(NO_MODULE) {
                return None;
            }
            self.modules.push(name.to_owned());
        }
        u16::try_from(self.modules.len() - 1).ok()
    }

    /// Sorts, and drops the data that ends no function.
    fn index(&mut self) {
        self.entries.sort_by_key(|entry| entry.addr);
        let mut after_data = true;
        self.entries.retain(|entry| {
            let is_data = entry.name_len == 0;
            !(std::mem::replace(&mut after_data, is_data) && is_data)
        });
        self.entries.shrink_to_fit();
        let names = self.entries.iter().enumerate().filter_map(|(index, entry)| {
            let name = self.symbol(entry)?.name;
            Some(u64::from(hash(base_name(name))) << 32 | index as u64)
        });
        self.by_name = names.collect();
        self.by_name.sort_unstable();
    }
}

/// `name` without the suffixes of compiler clones; a `.cold` part keeps its whole name.
#[must_use]
pub fn base_name(name: &str) -> &str {
    let mut base = name;
    while let Some((head, number)) = base.rsplit_once('.')
        && let Some((stem, suffix)) = head.rsplit_once('.')
        && !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit())
        && CLONE_SUFFIXES.contains(&suffix)
    {
        base = stem;
    }
    base
}

/// Reads the next line into `line`, of an overlong one only the first bytes; `false` at the end.
fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    reader.by_ref().take(MAX_LINE).read_until(b'\n', line)?;
    if line.len() as u64 == MAX_LINE && line.last() != Some(&b'\n') {
        // Not a symbol: nothing in it may be taken for one.
        line.clear();
        reader.skip_until(b'\n')?;
        return Ok(true);
    }
    Ok(!line.is_empty())
}

/// FNV-1a: fast on short names, and collisions cost only a comparison.
fn hash(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYMBOLS: &str = "\
0000000000000000 A fixed_percpu_data
ffffffff81000100 t write_protect_page
ffffffff81000400 t try_to_merge_one_page.constprop.0
ffffffff81000400 T alias_of_it
ffffffff81000900 t try_to_merge_one_page.constprop.0.cold
ffffffff81000a00 t move_page_tables.part.0.isra.12
ffffffff81000b00 T _etext
ffffffff82000000 D some_data
ffffffff82000010 D more_data
ffffffffc0001000 t kvm_tdp_page_fault\t[kvm]
ffffffffc0001400 t kvm_unmap_gfn_range\t[kvm]
ffffffffc0001500 d kvm_data\t[kvm]
ffffffffc0009000 t svm_exit\t[kvm_amd]
ffffffff81000b00 t write_protect_page
";

    fn parse(text: &str) -> Kallsyms {
        Kallsyms::from_reader(text.as_bytes()).unwrap()
    }

    fn names<'a>(symbols: impl Iterator<Item = Symbol<'a>>) -> Vec<&'a str> {
        symbols.map(|symbol| symbol.name).collect()
    }

    #[test]
    fn names_are_matched_exactly_or_by_base_and_cold_parts_never() {
        let symbols = parse(SYMBOLS);
        assert!(!symbols.contains("try_to_merge_one_page"));
        assert!(symbols.contains("try_to_merge_one_page.constprop.0.cold"));
        assert_eq!(names(symbols.variants("try_to_merge_one_page")), ["try_to_merge_one_page.constprop.0"]);
        assert_eq!(names(symbols.variants("move_page_tables")), ["move_page_tables.part.0.isra.12"]);
        assert_eq!(symbols.exact("write_protect_page").count(), 2, "two static functions of one name");
        assert!(!symbols.contains("some_data"), "not text");
    }

    #[test]
    fn base_names_lose_only_the_suffixes_of_clones() {
        assert_eq!(base_name("f.isra.0"), "f");
        assert_eq!(base_name("f.part.0.constprop.3"), "f");
        for whole in ["f", "f.cold", "f.isra.0.cold", "f.isra", "f.isra.x", "f.llvm.12", "", "."] {
            assert_eq!(base_name(whole), whole);
        }
    }

    #[test]
    fn a_function_ends_at_the_next_symbol_of_any_kind() {
        let symbols = parse(SYMBOLS);
        let range = |addr| symbols.function_range(addr);
        assert_eq!(range(0xffff_ffff_8100_0100), Some(0xffff_ffff_8100_0100..0xffff_ffff_8100_0400));
        assert_eq!(range(0xffff_ffff_c000_14ff), Some(0xffff_ffff_c000_1400..0xffff_ffff_c000_1500));
        assert_eq!(range(0xffff_ffff_c000_1500), None, "data");
        assert_eq!(range(0xffff_ffff_8200_0014), None, "data");
        assert_eq!(range(0xffff_ffff_8100_00ff), None, "before the first");
        assert_eq!(range(u64::MAX), None, "far behind the last");
    }

    #[test]
    fn addresses_are_named_with_offset_and_module() {
        let symbols = parse(SYMBOLS);
        let kvm = symbols.symbolise(0xffff_ffff_c000_1010).unwrap();
        assert_eq!(kvm, Location { name: "kvm_tdp_page_fault", offset: 0x10, module: Some("kvm") });
        let merge = symbols.symbolise(0xffff_ffff_8100_0401).unwrap();
        let expected = Location { name: "try_to_merge_one_page.constprop.0", offset: 1, module: None };
        assert_eq!(merge, expected);
        assert_eq!(symbols.symbolise(0), None);
    }

    #[test]
    fn hidden_addresses_leave_the_names() {
        let hidden = SYMBOLS.lines().map(|line| format!("0000000000000000{}\n", &line[16..]));
        let symbols = parse(&hidden.collect::<String>());
        assert!(symbols.addresses_hidden() && !parse(SYMBOLS).addresses_hidden());
        assert!(symbols.contains("kvm_tdp_page_fault"));
        assert_eq!(symbols.symbolise(0x10), None);
        assert_eq!(symbols.function_range(0), None);
    }

    #[test]
    fn nonsense_is_counted_and_does_no_harm() {
        let long = format!("ffffffff81000000 t {}\n", "x".repeat(100_000));
        let text = format!("{long}zz t f\n\nffffffff81000000 t\nffffffff81000000 t g kvm\n\u{e9}\n{SYMBOLS}");
        let symbols = parse(&text);
        assert_eq!(symbols.malformed_lines(), 6);
        assert!(symbols.contains("write_protect_page"));
        let invalid = Kallsyms::from_reader(&b"ffffffff81000000 t \xff\n0 t ok"[..]).unwrap();
        assert_eq!((invalid.malformed_lines(), invalid.contains("ok")), (1, true));
        assert!(parse("").addresses_hidden());
    }
}
