//! Cuts a kernel's BTF down to the types behind a few names, for golden tests without a kernel.
//!
//! ```text
//! cargo run --example cut-btf -- vmlinux.btf kvm.btf OUT_DIR NAME...
//! ```
//!
//! A name stands for every struct, union, enum, forward declaration and function called so, and for the
//! enum with an enumerator called so. These are kept whole: all members with their offsets, all
//! parameters. What they refer to is kept as far as a lookup follows it: anonymous members whole, other
//! structs and enums as empty shells of the same name and size, pointers as `void *`. The result
//! is valid BTF: `bpftool btf dump file OUT_DIR/kvm -B OUT_DIR/vmlinux` shows it.
//!
//! Ids and string offsets are numbered anew; base and split stay base and split.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    env, fs,
    path::Path,
};

use anyhow::{Context, Result, bail};
use mmu_trace::kernel::btf::{
    Btf,
    raw::{Kind, RawType},
};

fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [base, split, out, names @ ..] = args.as_slice() else {
        bail!("usage: cut-btf VMLINUX_BTF KVM_BTF OUT_DIR NAME...");
    };
    let read = |path: &str| fs::read(path).with_context(|| format!("cannot read {path}"));
    let btf = Btf::parse(read(base)?, Some(read(split)?))?;
    let kept = Selection::of(&btf, names);
    let (base, split) = kept.write(&btf);
    fs::create_dir_all(out)?;
    fs::write(Path::new(out).join("vmlinux"), base)?;
    fs::write(Path::new(out).join("kvm"), split)?;
    Ok(())
}

/// The types to keep: id to whether its tail is kept as well.
#[derive(Default)]
struct Selection {
    types: BTreeMap<u32, Extent>,
}

/// How much of a type is kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Extent {
    /// Name and size.
    Shell,
    /// Everything.
    Whole,
}

impl Selection {
    fn of(btf: &Btf, names: &[String]) -> Self {
        let wanted: BTreeSet<&[u8]> = names.iter().map(String::as_bytes).collect();
        let is_wanted = |offset| btf.name(offset).is_some_and(|name| wanted.contains(name));
        let mut kept = Self::default();
        for id in 1..=btf.n_types() {
            let Some(raw) = btf.get(id) else { continue };
            let by_name =
                !matches!(raw.kind, Kind::Typedef | Kind::Var | Kind::Datasec) && is_wanted(raw.name_off);
            let by_enumerator = match raw.kind {
                Kind::Enum => raw.items().any(|[name, _]| is_wanted(name)),
                Kind::Enum64 => raw.items().any(|[name, _, _]| is_wanted(name)),
                _ => false,
            };
            if by_name || by_enumerator {
                kept.add(btf, id, Extent::Whole);
            }
        }
        kept
    }

    /// Adds type `id` and what it refers to.
    fn add(&mut self, btf: &Btf, id: u32, extent: Extent) {
        let Some(raw) = btf.get(id) else { return };
        let is_anonymous = raw.name_off == 0 && matches!(raw.kind, Kind::Struct | Kind::Union);
        let is_record = matches!(raw.kind, Kind::Struct | Kind::Union | Kind::Enum | Kind::Enum64);
        let extent = if is_anonymous || !is_record { Extent::Whole } else { extent };
        if self.types.get(&id).is_some_and(|&known| known >= extent) {
            return;
        }
        self.types.insert(id, extent);
        if extent == Extent::Whole {
            for reference in references(raw) {
                self.add(btf, reference, Extent::Shell);
            }
        }
    }

    /// The two blobs.
    fn write(&self, btf: &Btf) -> (Vec<u8>, Vec<u8>) {
        let new_ids: HashMap<u32, u32> = self.types.keys().copied().zip(1..).collect();
        let mut base = Output::new(0);
        let mut rest = self.types.iter().peekable();
        while let Some((&id, &extent)) = rest.next_if(|&(&id, _)| !btf.in_split(id)) {
            base.push(btf, id, extent, &new_ids);
        }
        let mut split = Output::new(base.strings.len() as u32);
        for (&id, &extent) in rest {
            split.push(btf, id, extent, &new_ids);
        }
        (base.finish(), split.finish())
    }
}

/// The ids a type refers to, in the order in which they stand in the record; pointers refer to nothing.
fn references(raw: RawType<'_>) -> Vec<u32> {
    match raw.kind {
        Kind::Struct | Kind::Union => raw.items().map(|[_, type_id, _]| type_id).collect(),
        Kind::FuncProto => {
            [raw.size_or_type].into_iter().chain(raw.items().map(|[_, type_id]| type_id)).collect()
        }
        Kind::Array => raw.items().flat_map(|[element, index, _]| [element, index]).collect(),
        Kind::Func => vec![raw.size_or_type],
        kind if kind.is_modifier() => vec![raw.size_or_type],
        _ => Vec::new(),
    }
}

/// A blob being written.
struct Output {
    types: Vec<u8>,
    strings: Vec<u8>,
    known: HashMap<Vec<u8>, u32>,
    /// Where this blob's strings start: behind those of the base.
    first_string: u32,
}

impl Output {
    fn new(first_string: u32) -> Self {
        Self { types: Vec::new(), strings: vec![0], known: HashMap::new(), first_string }
    }

    /// Appends type `id`.
    fn push(&mut self, btf: &Btf, id: u32, extent: Extent, new_ids: &HashMap<u32, u32>) {
        let Some(raw) = btf.get(id) else { return };
        let new_id = |old: u32| new_ids.get(&old).copied().unwrap_or(0);
        let vlen = if extent == Extent::Whole { raw.vlen } else { 0 };
        let size_or_type = match raw.kind {
            Kind::Func | Kind::FuncProto => new_id(raw.size_or_type),
            Kind::Ptr => 0,
            kind if kind.is_modifier() => new_id(raw.size_or_type),
            _ => raw.size_or_type,
        };
        let info = u32::from(raw.kflag) << 31 | (raw.kind as u32) << 24 | vlen;
        let name = self.string(btf, raw.name_off);
        self.words(&[name, info, size_or_type]);
        if extent == Extent::Whole {
            self.tail(btf, raw, new_id);
        }
    }

    /// Appends a record's tail with new ids and names.
    fn tail(&mut self, btf: &Btf, raw: RawType<'_>, new_id: impl Fn(u32) -> u32) {
        match raw.kind {
            Kind::Struct | Kind::Union => {
                for [name, type_id, offset] in raw.items() {
                    let name = self.string(btf, name);
                    self.words(&[name, new_id(type_id), offset]);
                }
            }
            Kind::FuncProto => {
                for [name, type_id] in raw.items() {
                    let name = self.string(btf, name);
                    self.words(&[name, new_id(type_id)]);
                }
            }
            Kind::Enum => {
                for [name, value] in raw.items() {
                    let name = self.string(btf, name);
                    self.words(&[name, value]);
                }
            }
            Kind::Enum64 => {
                for [name, low, high] in raw.items() {
                    let name = self.string(btf, name);
                    self.words(&[name, low, high]);
                }
            }
            Kind::Array => {
                for [element, index, len] in raw.items() {
                    self.words(&[new_id(element), new_id(index), len]);
                }
            }
            _ => self.types.extend(raw.tail),
        }
    }

    fn words(&mut self, words: &[u32]) {
        self.types.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    }

    /// The new offset of the string at `offset` of `btf`.
    fn string(&mut self, btf: &Btf, offset: u32) -> u32 {
        let name = btf.name(offset).unwrap_or_default();
        if name.is_empty() {
            return 0;
        }
        let next = self.first_string + self.strings.len() as u32;
        *self.known.entry(name.to_vec()).or_insert_with(|| {
            self.strings.extend(name);
            self.strings.push(0);
            next
        })
    }

    fn finish(self) -> Vec<u8> {
        let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
        let mut blob = vec![0x9f, 0xeb, 1, 0];
        for word in [24, 0, types, types, strings] {
            blob.extend(u32::to_le_bytes(word));
        }
        blob.extend(self.types);
        blob.extend(self.strings);
        blob
    }
}
