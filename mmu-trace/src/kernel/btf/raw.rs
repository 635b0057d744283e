//! The records of one BTF blob, checked once and then read in place.
//!
//! ```text
//! header   u16 magic 0xeb9f | u8 version | u8 flags | u32 header length
//!          u32 type offset, length | u32 string offset, length      (offsets from the header's end)
//! type     u32 name | u32 info: vlen 0..24, kind 24..31, kflag 31 | u32 size or type | tail by kind
//! strings  NUL-terminated, the first one empty
//! ```
//!
//! Kernels up to now keep bits 16 to 23 and 29 to 30 of `info` zero, so taking them as part of the
//! length and of the kind changes nothing there and stays right where they come into use.

use std::ops::Range;

use super::BtfError;

const MAGIC: u16 = 0xeb9f;
/// Smallest header: up to the string section's length.
const HEADER_LEN: usize = 24;
/// The fixed part of a type record.
const TYPE_LEN: usize = 12;
/// The kernel's own limit for a symbol name (`KSYM_NAME_LEN`); longer names are cut there, so that a
/// string section without a NUL costs no quadratic time.
const MAX_NAME: usize = 512;

/// Declares the kinds with their numbers.
macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $n:literal,)+) => {
        /// What a type record describes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Kind { $($(#[$doc])* $name = $n,)+ }

        impl Kind {
            /// The kind numbered `raw`, if it is known here.
            #[must_use]
            pub fn from_raw(raw: u8) -> Option<Self> {
                match raw { $($n => Some(Self::$name),)+ _ => None }
            }
        }
    };
}

kinds! {
    /// Integer.
    Int = 1,
    /// Pointer.
    Ptr = 2,
    /// Array.
    Array = 3,
    /// Structure with its members.
    Struct = 4,
    /// Union with its members.
    Union = 5,
    /// Enumeration of 32-bit values.
    Enum = 6,
    /// Forward declaration: a name without a layout.
    Fwd = 7,
    /// Type definition.
    Typedef = 8,
    /// `volatile`.
    Volatile = 9,
    /// `const`.
    Const = 10,
    /// `restrict`.
    Restrict = 11,
    /// Function.
    Func = 12,
    /// A function's prototype.
    FuncProto = 13,
    /// Variable.
    Var = 14,
    /// Section of variables.
    Datasec = 15,
    /// Floating point number.
    Float = 16,
    /// Attribute of a declaration.
    DeclTag = 17,
    /// Attribute of a type.
    TypeTag = 18,
    /// Enumeration of 64-bit values.
    Enum64 = 19,
}

impl Kind {
    /// Length of what follows the fixed part of a record with `vlen` items, in bytes.
    fn tail_len(self, vlen: u32) -> usize {
        let vlen = vlen as usize;
        match self {
            Self::Int | Self::Var | Self::DeclTag => 4,
            Self::Array => 12,
            Self::Struct | Self::Union | Self::Datasec | Self::Enum64 => 12 * vlen,
            Self::Enum | Self::FuncProto => 8 * vlen,
            _ => 0,
        }
    }

    /// Whether a type of this kind only renames or qualifies the type it refers to.
    #[must_use]
    pub fn is_modifier(self) -> bool {
        matches!(self, Self::Typedef | Self::Volatile | Self::Const | Self::Restrict | Self::TypeTag)
    }
}

/// One type record.
#[derive(Clone, Copy, Debug)]
pub struct RawType<'a> {
    /// Offset of the name in the strings of base and split taken together; 0: anonymous.
    pub name_off: u32,
    /// What it describes.
    pub kind: Kind,
    /// The kind flag: bitfield sizes in member offsets, or signed enumerators.
    pub kflag: bool,
    /// Number of items in the tail.
    pub vlen: u32,
    /// Size in bytes, or the id of the type referred to, by kind.
    pub size_or_type: u32,
    /// Members, enumerators, parameters or whatever the kind has.
    pub tail: &'a [u8],
}

impl<'a> RawType<'a> {
    /// Decodes the record at `offset` of `types`.
    fn decode(types: &'a [u8], offset: usize) -> Result<Self, BtfError> {
        let truncated = BtfError::Truncated { what: "type", offset };
        let (Some(name_off), Some(info), Some(size_or_type)) =
            (u32_at(types, offset), u32_at(types, offset + 4), u32_at(types, offset + 8))
        else {
            return Err(truncated);
        };
        let raw_kind = (info >> 24) as u8 & 0x7f;
        let kind = Kind::from_raw(raw_kind).ok_or(BtfError::UnknownKind { kind: raw_kind, offset })?;
        let vlen = info & 0x00ff_ffff;
        let start = offset + TYPE_LEN;
        let tail = types.get(start..start + kind.tail_len(vlen)).ok_or(truncated)?;
        Ok(Self { name_off, kind, kflag: info >> 31 == 1, vlen, size_or_type, tail })
    }

    /// The tail's items as arrays of `N` words each; what `N` must be follows from the kind.
    pub fn items<const N: usize>(&self) -> impl Iterator<Item = [u32; N]> + use<'a, N> {
        self.tail.chunks_exact(4 * N).map(|item| std::array::from_fn(|i| u32_at(item, 4 * i).unwrap_or(0)))
    }
}

/// One blob: the kernel's own BTF, or what a module adds to it.
#[derive(Debug)]
pub struct Blob {
    data: Vec<u8>,
    types: Range<usize>,
    strings: Range<usize>,
    /// Offset of each type in the type section.
    offsets: Vec<u32>,
}

impl Blob {
    /// Checks the header and every record's extent.
    ///
    /// # Errors
    /// Anything that is not complete little-endian BTF of version 1 with the kinds known here.
    pub fn parse(data: Vec<u8>) -> Result<Self, BtfError> {
        let (types, strings) = sections(&data)?;
        let offsets = type_offsets(&data[types.clone()])?;
        Ok(Self { data, types, strings, offsets })
    }

    /// Number of types.
    #[must_use]
    pub fn n_types(&self) -> u32 {
        self.offsets.len() as u32
    }

    /// Length of the string section in bytes.
    #[must_use]
    pub fn strings_len(&self) -> u32 {
        self.strings.len() as u32
    }

    /// The type at `index`, counted from 0 within this blob.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<RawType<'_>> {
        let offset = *self.offsets.get(index as usize)?;
        RawType::decode(&self.data[self.types.clone()], offset as usize).ok()
    }

    /// The string at `offset` of this blob's own section, at most as long as a symbol name can be.
    #[must_use]
    pub fn string(&self, offset: u32) -> Option<&[u8]> {
        let rest = self.data[self.strings.clone()].get(offset as usize..)?;
        let rest = &rest[..rest.len().min(MAX_NAME)];
        Some(rest.iter().position(|&byte| byte == 0).map_or(rest, |len| &rest[..len]))
    }
}

/// The ranges of types and strings.
fn sections(data: &[u8]) -> Result<(Range<usize>, Range<usize>), BtfError> {
    let header = data.get(..HEADER_LEN).ok_or(BtfError::Truncated { what: "header", offset: 0 })?;
    let magic = [header[0], header[1]];
    if magic == MAGIC.to_be_bytes() {
        return Err(BtfError::BigEndian);
    }
    if magic != MAGIC.to_le_bytes() {
        return Err(BtfError::NotBtf);
    }
    if header[2] != 1 {
        return Err(BtfError::Version(header[2]));
    }
    let word = |offset| u32_at(header, offset).map_or(0, |word| word as usize);
    let section = |what, offset: usize| {
        let start = word(4).saturating_add(word(offset));
        let range = start..start.saturating_add(word(offset + 4));
        data.get(range.clone()).map(|_| range).ok_or(BtfError::Truncated { what, offset: start })
    };
    Ok((section("type section", 8)?, section("string section", 16)?))
}

/// Where each record starts.
fn type_offsets(types: &[u8]) -> Result<Vec<u32>, BtfError> {
    let mut offsets = Vec::with_capacity(types.len() / 2 / TYPE_LEN);
    let mut offset = 0;
    while offset < types.len() {
        let record = RawType::decode(types, offset)?;
        offsets.push(offset as u32);
        offset += TYPE_LEN + record.tail.len();
    }
    offsets.shrink_to_fit();
    Ok(offsets)
}

/// The little-endian word at `offset`.
fn u32_at(data: &[u8], offset: usize) -> Option<u32> {
    let bytes = data.get(offset..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}
