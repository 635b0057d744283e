//! Types of the running kernel from its BTF: member offsets, enumerators, functions.
//!
//! Rust eBPF has no CO-RE, so the tracer looks up what it needs here and hands it to the BPF object as
//! constants. The kernel's BTF (`vmlinux`) and the part that the `kvm` module adds (split BTF: its type
//! ids and string offsets count on from the base) are read as one. Where both define a name, the split
//! part wins: it is what KVM's own functions were compiled with.
//!
//! The input is the kernel's, but nothing relies on that: every access is checked, and no loop or
//! recursion depends on what the input claims.

pub mod raw;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use raw::{Blob, Kind, RawType};

/// Where the kernel shows its BTF.
const SYSFS: &str = "/sys/kernel/btf";
/// Longest chain of typedefs and qualifiers; real ones have fewer than ten links.
const MAX_CHAIN: usize = 64;
/// Deepest nesting of anonymous members; real ones stay below ten.
const MAX_DEPTH: usize = 32;
/// Most members looked at in one lookup; `task_struct`, the largest struct, has a few hundred.
const MAX_MEMBERS: usize = 1 << 20;

/// Why BTF could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The kernel shows no BTF.
    #[error("this kernel has no BTF: {} does not exist (CONFIG_DEBUG_INFO_BTF is off)", path.display())]
    Absent {
        /// The file looked for.
        path: PathBuf,
    },
    /// The file is there but reading it failed.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No BTF magic.
    #[error("not BTF: the magic number is missing")]
    NotBtf,
    /// BTF of a machine with the other byte order.
    #[error("big-endian BTF is not supported")]
    BigEndian,
    /// A format version other than 1.
    #[error("unknown BTF version {0}")]
    Version(u8),
    /// A section or record reaches beyond the end.
    #[error("BTF ends inside the {what} at byte {offset}")]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Where it starts: in the file for sections, in the type section for types.
        offset: usize,
    },
    /// A kind this reader does not know, whose length is therefore unknown as well.
    #[error("unknown BTF kind {kind} at byte {offset} of the types")]
    UnknownKind {
        /// The kind's number.
        kind: u8,
        /// Offset in the type section.
        offset: usize,
    },
}

/// A function as BTF describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// BTF type id, for `attach_btf_id`.
    pub id: u32,
    /// Whether it belongs to the module, whose BTF object must then be named when attaching.
    pub in_split: bool,
    /// The parameters, in order.
    pub params: Vec<Param>,
    /// Whether it returns nothing.
    pub returns_void: bool,
}

/// A parameter of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// Its name; empty if BTF has none.
    pub name: String,
    /// How it is passed.
    pub kind: ParamKind,
    /// Its size in bytes; `None` if unknown.
    pub size: Option<u32>,
}

/// How a parameter is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamKind {
    /// Integer or enumeration.
    Integer,
    /// Pointer.
    Pointer,
    /// A struct or union by value; fentry refuses those on kernels before 6.1.
    Aggregate,
    /// Anything else, `...` included.
    Other,
}

/// BTF of the kernel and, where there is one, of one module.
#[derive(Debug)]
pub struct Btf {
    base: Blob,
    split: Option<Blob>,
    /// Structs, unions, enums and functions: hash of the name in the upper half, id in the lower; sorted.
    names: Vec<u64>,
    /// Every enumeration, anonymous ones too; those of the split first.
    enums: Vec<u32>,
}

impl Btf {
    /// Reads the running kernel's BTF; without a `kvm` module BTF, KVM is built in or its types are unknown.
    ///
    /// # Errors
    /// [`BtfError::Absent`] without BTF of the kernel itself, otherwise what made it unreadable.
    pub fn load() -> Result<Self, BtfError> {
        Self::load_from(Path::new(SYSFS))
    }

    /// Reads the files `vmlinux` and, if it exists, `kvm` of `dir`.
    ///
    /// # Errors
    /// As [`Btf::load`].
    pub fn load_from(dir: &Path) -> Result<Self, BtfError> {
        let path = dir.join("vmlinux");
        let base = read(&path)?.ok_or(BtfError::Absent { path })?;
        Self::parse(base, read(&dir.join("kvm"))?)
    }

    /// Reads the kernel's BTF and a module's split BTF.
    ///
    /// # Errors
    /// Anything that is not complete little-endian BTF of version 1 with kinds up to `ENUM64`.
    pub fn parse(base: Vec<u8>, split: Option<Vec<u8>>) -> Result<Self, BtfError> {
        let base = Blob::parse(base)?;
        let split = split.map(Blob::parse).transpose()?;
        let mut btf = Self { base, split, names: Vec::new(), enums: Vec::new() };
        btf.index();
        Ok(btf)
    }

    /// Byte offset of `member` in `struct strukt` (or union), members of anonymous members included.
    ///
    /// `None` if there is no such struct or member, or if it is a bitfield that starts inside a byte.
    #[must_use]
    pub fn member_offset(&self, strukt: &str, member: &str) -> Option<u32> {
        let mut budget = MAX_MEMBERS;
        let bits = self
            .named(strukt, &[Kind::Struct, Kind::Union])
            .find_map(|(_, raw)| self.find_member(raw, member.as_bytes(), MAX_DEPTH, &mut budget))?;
        if bits % 8 == 0 { u32::try_from(bits / 8).ok() } else { None }
    }

    /// The value of an enumerator, wherever it is declared; 64-bit values above `i64::MAX` wrap.
    #[must_use]
    pub fn enum_value(&self, enumerator: &str) -> Option<i64> {
        let enumerators = self.enums.iter().filter_map(|&id| self.get(id)).flat_map(enumerators);
        let mut found = enumerators.filter(|&(name, _)| self.name(name) == Some(enumerator.as_bytes()));
        found.next().map(|(_, value)| value)
    }

    /// The enumerators of `enum enum_name` in declaration order.
    #[must_use]
    pub fn enum_variants(&self, enum_name: &str) -> Option<Vec<(String, i64)>> {
        let (_, raw) =
            self.named(enum_name, &[Kind::Enum, Kind::Enum64]).find(|(_, raw)| !raw.tail.is_empty())?;
        Some(enumerators(raw).map(|(name, value)| (self.name_lossy(name), value)).collect())
    }

    /// The function called `name`; of several, the one with the lowest id.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<Function> {
        let (id, raw) = self.named(name, &[Kind::Func]).next()?;
        let proto = self.get(raw.size_or_type).filter(|proto| proto.kind == Kind::FuncProto)?;
        let params = proto.items().map(|[name, type_id]| self.param(name, type_id)).collect();
        Some(Function { id, in_split: self.in_split(id), params, returns_void: proto.size_or_type == 0 })
    }

    /// Number of types: ids run from 1 to this.
    #[must_use]
    pub fn n_types(&self) -> u32 {
        self.base.n_types() + self.split.as_ref().map_or(0, Blob::n_types)
    }

    /// Whether `id` belongs to the split part.
    #[must_use]
    pub fn in_split(&self, id: u32) -> bool {
        id > self.base.n_types()
    }

    /// The record of type `id`; `None` for 0 (void) and ids beyond the last.
    #[must_use]
    pub fn get(&self, id: u32) -> Option<RawType<'_>> {
        match id.checked_sub(self.base.n_types() + 1) {
            Some(index) => self.split.as_ref()?.get(index),
            None => self.base.get(id.checked_sub(1)?),
        }
    }

    /// The name at string offset `offset`, without its NUL.
    #[must_use]
    pub fn name(&self, offset: u32) -> Option<&[u8]> {
        match offset.checked_sub(self.base.strings_len()) {
            Some(rest) => self.split.as_ref()?.string(rest),
            None => self.base.string(offset),
        }
    }
}

/// Lookups behind the public ones.
impl Btf {
    /// Fills `names` and `enums`.
    fn index(&mut self) {
        let mut names = Vec::with_capacity(self.n_types() as usize / 2);
        let mut enums = Vec::new();
        for id in 1..=self.n_types() {
            let Some(raw) = self.get(id) else { continue };
            if matches!(raw.kind, Kind::Enum | Kind::Enum64) {
                enums.push(id);
            }
            let is_looked_up =
                matches!(raw.kind, Kind::Struct | Kind::Union | Kind::Enum | Kind::Enum64 | Kind::Func);
            if is_looked_up && let Some(name) = self.name(raw.name_off).filter(|name| !name.is_empty()) {
                names.push(u64::from(hash(name)) << 32 | u64::from(id));
            }
        }
        names.sort_unstable();
        enums.sort_by_key(|&id| !self.in_split(id));
        (self.names, self.enums) = (names, enums);
    }

    /// Types of one of `kinds` called exactly `name`: those of the split first, each part by id.
    fn named<'a>(&'a self, name: &'a str, kinds: &'a [Kind]) -> impl Iterator<Item = (u32, RawType<'a>)> {
        let hash = u64::from(hash(name.as_bytes()));
        let first = self.names.partition_point(|&entry| entry >> 32 < hash);
        let ids = self.names[first..].iter().take_while(move |&&entry| entry >> 32 == hash);
        let ids = ids.map(|&entry| entry as u32);
        let split = ids.clone().filter(|&id| self.in_split(id));
        split.chain(ids.filter(|&id| !self.in_split(id))).filter_map(move |id| {
            let raw = self.get(id)?;
            let is_match = kinds.contains(&raw.kind) && self.name(raw.name_off)? == name.as_bytes();
            is_match.then_some((id, raw))
        })
    }

    /// Offset in bits of the member called `name` in `aggregate`.
    fn find_member(
        &self,
        aggregate: RawType<'_>,
        name: &[u8],
        depth: usize,
        budget: &mut usize,
    ) -> Option<u64> {
        for [name_off, type_id, offset] in aggregate.items() {
            *budget = budget.checked_sub(1)?;
            let bits = u64::from(if aggregate.kflag { offset & 0x00ff_ffff } else { offset });
            match self.name(name_off)? {
                b"" if depth > 0 => {
                    let inner = self.resolve(type_id).filter(is_aggregate);
                    let found = inner.and_then(|inner| self.find_member(inner, name, depth - 1, budget));
                    if let Some(inner_bits) = found {
                        return Some(bits + inner_bits);
                    }
                }
                found if found == name => return Some(bits),
                _ => {}
            }
        }
        None
    }

    /// The type behind typedefs and qualifiers; `None` for void.
    fn resolve(&self, mut id: u32) -> Option<RawType<'_>> {
        for _ in 0..MAX_CHAIN {
            let raw = self.get(id)?;
            if !raw.kind.is_modifier() {
                return Some(raw);
            }
            id = raw.size_or_type;
        }
        None
    }

    /// One parameter of a prototype.
    fn param(&self, name_off: u32, type_id: u32) -> Param {
        let name = self.name_lossy(name_off);
        let Some(raw) = self.resolve(type_id) else {
            return Param { name, kind: ParamKind::Other, size: None };
        };
        let (kind, size) = match raw.kind {
            Kind::Int | Kind::Enum | Kind::Enum64 => (ParamKind::Integer, Some(raw.size_or_type)),
            Kind::Ptr => (ParamKind::Pointer, Some(8)),
            Kind::Struct | Kind::Union => (ParamKind::Aggregate, Some(raw.size_or_type)),
            Kind::Float => (ParamKind::Other, Some(raw.size_or_type)),
            _ => (ParamKind::Other, None),
        };
        Param { name, kind, size }
    }

    fn name_lossy(&self, offset: u32) -> String {
        String::from_utf8_lossy(self.name(offset).unwrap_or_default()).into_owned()
    }
}

/// `(name offset, value)` of each enumerator.
fn enumerators(raw: RawType<'_>) -> Box<dyn Iterator<Item = (u32, i64)> + '_> {
    match raw.kind {
        Kind::Enum if raw.kflag => Box::new(raw.items().map(|[name, value]| (name, i64::from(value as i32)))),
        Kind::Enum => Box::new(raw.items().map(|[name, value]| (name, i64::from(value)))),
        _ => Box::new(
            raw.items().map(|[name, low, high]| (name, (u64::from(high) << 32 | u64::from(low)) as i64)),
        ),
    }
}

fn is_aggregate(raw: &RawType<'_>) -> bool {
    matches!(raw.kind, Kind::Struct | Kind::Union)
}

/// FNV-1a: fast on short names, and collisions cost only a comparison.
fn hash(name: &[u8]) -> u32 {
    name.iter().fold(0x811c_9dc5, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// The contents of `path`; `None` if there is no such file.
fn read(path: &Path) -> Result<Option<Vec<u8>>, BtfError> {
    match fs::read(path) {
        Ok(data) => Ok(Some(data)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(BtfError::Read { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A blob of hand-written records.
    fn blob(types: &[&[u32]], strings: &[u8]) -> Vec<u8> {
        let types: Vec<u8> = types.iter().copied().flatten().flat_map(|word| word.to_le_bytes()).collect();
        let words = [24, 0, types.len() as u32, types.len() as u32, strings.len() as u32];
        let header = [0x9f, 0xeb, 1, 0].into_iter().chain(words.into_iter().flat_map(u32::to_le_bytes));
        header.chain(types).chain(strings.iter().copied()).collect()
    }

    const STRINGS: &[u8] = b"\0S\0m\0bits\0inner\0E\0A\0";
    const S: u32 = 1;
    const M: u32 = 3;
    const BITS: u32 = 5;
    const INNER: u32 = 10;
    const E: u32 = 16;
    const A: u32 = 18;

    const fn info(kind: Kind, vlen: u32) -> u32 {
        (kind as u32) << 24 | vlen
    }

    #[test]
    fn a_forward_declaration_hides_no_struct_and_the_split_wins() {
        let fwd: &[u32] = &[S, info(Kind::Fwd, 0), 0];
        let base = blob(&[fwd, &[S, info(Kind::Struct, 1), 8, M, 0, 32]], STRINGS);
        let split = blob(&[fwd, &[S, info(Kind::Struct, 1), 16, M, 0, 64]], b"\0");
        assert_eq!(Btf::parse(base.clone(), None).unwrap().member_offset("S", "m"), Some(4));
        assert_eq!(Btf::parse(base, Some(split)).unwrap().member_offset("S", "m"), Some(8));
    }

    #[test]
    fn anonymous_members_are_searched_and_bitfields_must_start_a_byte() {
        let kflag = 1 << 31;
        let strukt = [S, info(Kind::Struct, 2) | kflag, 8, 0, 2, 16, BITS, 0, 3 << 24 | 5];
        let union = [0, info(Kind::Union, 2), 4, M, 0, 0, INNER, 0, 8];
        let btf = Btf::parse(blob(&[&strukt, &union], STRINGS), None).unwrap();
        assert_eq!(btf.member_offset("S", "m"), Some(2));
        assert_eq!(btf.member_offset("S", "inner"), Some(3));
        assert_eq!(btf.member_offset("S", "bits"), None);
    }

    #[test]
    fn signed_and_wide_enumerators_keep_their_value() {
        let signed = [E, info(Kind::Enum, 1) | 1 << 31, 4, M, u32::MAX];
        let wide = [0, info(Kind::Enum64, 1), 8, A, 7, 1];
        let btf = Btf::parse(blob(&[&signed, &wide], STRINGS), None).unwrap();
        assert_eq!(btf.enum_value("m"), Some(-1));
        assert_eq!(btf.enum_value("A"), Some(1 << 32 | 7));
        assert_eq!(btf.enum_variants("E"), Some(vec![("m".to_owned(), -1)]));
    }

    #[test]
    fn a_struct_inside_itself_ends() {
        let members: Vec<u32> = (0..2000).flat_map(|_| [0, 1, 0]).collect();
        let strukt = [&[S, info(Kind::Struct, 2000), 8], members.as_slice()].concat();
        let btf = Btf::parse(blob(&[&strukt], STRINGS), None).unwrap();
        assert_eq!(btf.member_offset("S", "m"), None);
    }

    #[test]
    fn what_is_not_readable_is_named() {
        let error = |data| Btf::parse(data, None).unwrap_err().to_string();
        assert_eq!(error(b"MMUTRACE................".to_vec()), "not BTF: the magic number is missing");
        let mut swapped = blob(&[], STRINGS);
        swapped.swap(0, 1);
        assert_eq!(error(swapped), "big-endian BTF is not supported");
        assert_eq!(error(blob(&[&[0, 20 << 24, 0]], STRINGS)), "unknown BTF kind 20 at byte 0 of the types");
        assert_eq!(error(Vec::new()), "BTF ends inside the header at byte 0");
    }
}
