//! fentry and fexit on vmlinux and on kernel modules, beside aya.
//!
//! aya 0.14 cannot attach them to module functions. It still loads the object and creates the maps;
//! here the same object is relocated once more against those maps, and its tracing programs are
//! loaded one by one, each against the BTF of the function it is meant for.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use aya::maps::Map;
use aya_obj::{Object, generated::bpf_attach_type};

use super::sys::{self, TracingProgram};
use crate::kernel::btf::Btf;

/// The object's tracing programs, ready to be loaded.
pub(super) struct SideLoader {
    object: Object,
    /// BTF objects of modules, by name.
    modules: HashMap<&'static str, OwnedFd>,
}

/// Which end of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Entry,
    Return,
}

/// A program that is attached for as long as this lives.
#[derive(Debug)]
pub(super) struct TracingLink {
    /// The hook it is for.
    pub hook: &'static str,
    /// The program.
    pub program: OwnedFd,
    _link: OwnedFd,
}

impl SideLoader {
    /// Relocates `bytes` against the maps that aya created; `globals` are its constants.
    ///
    /// # Errors
    /// The object cannot be parsed or relocated: it was built wrong.
    pub(super) fn new(
        bytes: &[u8],
        ebpf: &aya::Ebpf,
        globals: HashMap<&str, (&[u8], bool)>,
    ) -> anyhow::Result<Self> {
        let mut object = Object::parse(bytes)?;
        object.patch_map_data(globals)?;
        let maps: Vec<(String, RawFd, aya_obj::Map)> = object
            .maps
            .drain()
            .map(|(name, map)| {
                let fd = ebpf.map(&name).and_then(map_fd).map(|fd| fd.as_raw_fd());
                fd.map(|fd| (name.clone(), fd, map)).ok_or_else(|| anyhow::anyhow!("no map {name}"))
            })
            .collect::<anyhow::Result<_>>()?;
        let text_sections = object.functions.keys().map(|(section, _)| *section).collect();
        object.relocate_maps(maps.iter().map(|(n, fd, m)| (n.as_str(), *fd, m)), &text_sections)?;
        object.relocate_calls(&text_sections)?;
        object.sanitize_functions(aya::features());
        Ok(Self { object, modules: HashMap::new() })
    }

    /// Makes every program one that does nothing.
    #[cfg(feature = "bench")]
    pub(super) fn empty_programs(&mut self) {
        for function in self.object.functions.values_mut() {
            function.instructions = sys::do_nothing().to_vec();
        }
    }

    /// Loads `program` for `hook` and attaches it to one end of `symbol`.
    ///
    /// # Errors
    /// There is no such function in BTF, or the kernel refuses; the message says which.
    pub(super) fn attach(
        &mut self,
        hook: &'static str,
        program: &str,
        symbol: &str,
        end: End,
        btf: &Btf,
    ) -> io::Result<TracingLink> {
        let function = btf.function(symbol).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("BTF has no function {symbol}"))
        })?;
        if function.in_split && !self.modules.contains_key("kvm") {
            self.modules.insert("kvm", sys::module_btf("kvm")?);
        }
        let found = self.object.programs.get(program);
        let found = found.ok_or_else(|| io::Error::other(format!("the object has no program {program}")))?;
        let code = self.object.functions.get(&found.function_key());
        let code = code.ok_or_else(|| io::Error::other(format!("the object has no code for {program}")))?;
        let loaded = sys::load_tracing(&TracingProgram {
            name: program,
            license: &found.license,
            instructions: &code.instructions,
            attach_type: match end {
                End::Entry => bpf_attach_type::BPF_TRACE_FENTRY,
                End::Return => bpf_attach_type::BPF_TRACE_FEXIT,
            },
            btf: if function.in_split { self.modules.get("kvm").map(AsFd::as_fd) } else { None },
            btf_id: function.id,
        })
        .map_err(|e| refused("loading", &e))?;
        let link = sys::attach_tracing(loaded.as_fd()).map_err(|e| refused("attaching", &e))?;
        Ok(TracingLink { hook, program: loaded, _link: link })
    }
}

/// An error with the step it came from, and what usually stands behind it.
fn refused(step: &str, error: &io::Error) -> io::Error {
    /// The kernel's own `ENOTSUPP` (`include/linux/errno.h`), which no C library knows.
    const ENOTSUPP: i32 = 524;
    let text = match error.raw_os_error() {
        Some(libc::EPERM) => format!("{error} (lockdown or a security policy of this kernel forbids it)"),
        Some(ENOTSUPP) => "this kernel cannot have BPF called from its functions (ENOTSUPP)".to_owned(),
        _ => error.to_string(),
    };
    io::Error::new(error.kind(), format!("{step}: {text}"))
}

/// The descriptor of a map that aya created.
pub(super) fn map_fd(map: &Map) -> Option<BorrowedFd<'_>> {
    let data = match map {
        Map::Array(d)
        | Map::HashMap(d)
        | Map::LruHashMap(d)
        | Map::PerCpuArray(d)
        | Map::Queue(d)
        | Map::RingBuf(d) => d,
        _ => return None,
    };
    Some(data.fd().as_fd())
}
