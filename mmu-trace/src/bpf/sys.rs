//! The `bpf(2)` calls that aya does not make, or not as we need them.

use std::{
    ffi::CStr,
    io,
    mem::offset_of,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use aya_obj::generated::{
    bpf_attach_type, bpf_attr, bpf_btf_info, bpf_cmd, bpf_func_id, bpf_insn, bpf_link_info, bpf_link_type,
    bpf_perf_event_type, bpf_prog_info, bpf_prog_type,
};

use crate::kernel::address::conceal;

/// Room for the verifier's log; its end says why a program was refused.
const LOG_SIZE: usize = 1 << 16;
/// How much of the log's end goes into an error.
const LOG_TAIL: usize = 400;

/// One call of `bpf(2)`.
///
/// # Errors
/// What the kernel said.
pub(super) fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i32> {
    // SAFETY: `attr` is a whole, initialised `bpf_attr`; pointers inside it outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command as u32, attr, size_of::<bpf_attr>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// Arguments of a call, all zero.
pub(super) fn zeroed() -> bpf_attr {
    // SAFETY: every field of the union is plain data, for which zero is valid.
    unsafe { std::mem::zeroed() }
}

/// The descriptor that a call returned.
pub(super) fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel just gave us this descriptor.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// The BTF object of the kernel module `name`. Needs 5.11; the file in sysfs cannot be used for it.
///
/// # Errors
/// `NotFound` if there is none.
pub(super) fn module_btf(name: &str) -> io::Result<OwnedFd> {
    let mut id = 0;
    loop {
        let mut attr = zeroed();
        attr.__bindgen_anon_6.__bindgen_anon_1.start_id = id;
        bpf(bpf_cmd::BPF_BTF_GET_NEXT_ID, &mut attr)?;
        // SAFETY: the kernel filled this field.
        id = unsafe { attr.__bindgen_anon_6.next_id };
        let mut attr = zeroed();
        attr.__bindgen_anon_6.__bindgen_anon_1.btf_id = id;
        match bpf(bpf_cmd::BPF_BTF_GET_FD_BY_ID, &mut attr) {
            Ok(fd) => {
                let fd = owned(fd);
                if is_kernel_btf(&fd, name)? {
                    return Ok(fd);
                }
            }
            // It went away in between.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
}

fn is_kernel_btf(fd: &OwnedFd, name: &str) -> io::Result<bool> {
    let mut buffer = [0u8; 64];
    // SAFETY: plain data, for which zero is valid.
    let mut info: bpf_btf_info = unsafe { std::mem::zeroed() };
    info.name = buffer.as_mut_ptr() as u64;
    info.name_len = buffer.len() as u32;
    let _known = ask(fd.as_fd(), &mut info)?;
    let found = CStr::from_bytes_until_nul(&buffer).unwrap_or_default();
    Ok(info.kernel_btf != 0 && found.to_bytes() == name.as_bytes())
}

/// What the kernel says of a loaded program.
#[derive(Clone, Debug)]
pub(super) struct ProgramInfo {
    pub id: u32,
    pub name: String,
    /// Counted only while the kernel measures BPF programs.
    pub runs: u64,
    pub run_ns: u64,
    /// Instructions that the verifier walked; 0 before 5.16.
    #[cfg(feature = "bench")]
    pub verified: u32,
    /// Hits for which it was not run; `None` on kernels that do not count them, before 5.12.
    pub misses: Option<u64>,
}

/// Asks for [`ProgramInfo`].
///
/// # Errors
/// The kernel refuses to tell.
pub(super) fn program_info(program: BorrowedFd<'_>) -> io::Result<ProgramInfo> {
    // SAFETY: plain data, for which zero is valid.
    let mut info: bpf_prog_info = unsafe { std::mem::zeroed() };
    let known = ask(program, &mut info)?;
    let counts_misses = known >= offset_of!(bpf_prog_info, recursion_misses) + size_of::<u64>();
    let name = info.name.map(|byte| byte as u8);
    let name = CStr::from_bytes_until_nul(&name).unwrap_or_default();
    Ok(ProgramInfo {
        id: info.id,
        name: name.to_string_lossy().into_owned(),
        runs: info.run_cnt,
        run_ns: info.run_time_ns,
        #[cfg(feature = "bench")]
        verified: info.verified_insns,
        misses: counts_misses.then_some(info.recursion_misses),
    })
}

/// Has the kernel fill `info` with what it knows of a BPF object; how many bytes that are. The rest stays
/// as it was.
fn ask<T>(object: BorrowedFd<'_>, info: &mut T) -> io::Result<usize> {
    let mut attr = zeroed();
    attr.info.bpf_fd = object.as_raw_fd() as u32;
    attr.info.info_len = size_of::<T>() as u32;
    attr.info.info = core::ptr::from_mut(info) as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    // SAFETY: the kernel filled this field.
    Ok(unsafe { attr.info.info_len } as usize)
}

/// A BPF link, of whoever.
#[derive(Debug)]
pub(super) struct Link {
    pub program: u32,
    pub fd: OwnedFd,
}

/// Every BPF link there is. Kernels before 5.8 have none to list.
///
/// # Errors
/// This process may not list them.
pub(super) fn links() -> io::Result<Vec<Link>> {
    let mut links = Vec::new();
    let mut id = 0;
    loop {
        let mut attr = zeroed();
        attr.__bindgen_anon_6.__bindgen_anon_1.start_id = id;
        match bpf(bpf_cmd::BPF_LINK_GET_NEXT_ID, &mut attr) {
            // SAFETY: the kernel filled this field.
            Ok(_) => id = unsafe { attr.__bindgen_anon_6.next_id },
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(links),
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => return Ok(links),
            Err(e) => return Err(e),
        }
        if let Some(fd) = open_link(id)? {
            let (info, _) = link_info(fd.as_fd())?;
            links.push(Link { program: info.prog_id, fd });
        }
    }
}

/// The hits that the kprobe or kretprobe of a link dropped; `None` if it is another link, or this kernel does
/// not say. Unlike opening the link this takes no privilege.
///
/// # Errors
/// The kernel refuses to tell.
pub(super) fn missed_hits(link: BorrowedFd<'_>) -> io::Result<Option<u64>> {
    let (info, known) = link_info(link)?;
    if known < MISSED_HITS_END || info.type_ != bpf_link_type::BPF_LINK_TYPE_PERF_EVENT as u32 {
        return Ok(None);
    }
    // SAFETY: every field of the union is plain data; what the kernel does not know stays zero.
    let event = unsafe { info.__bindgen_anon_1.perf_event };
    let is_kprobe =
        [bpf_perf_event_type::BPF_PERF_EVENT_KPROBE, bpf_perf_event_type::BPF_PERF_EVENT_KRETPROBE]
            .into_iter()
            .any(|kind| event.type_ == kind as u32);
    // SAFETY: as above.
    Ok(is_kprobe.then_some(unsafe { event.__bindgen_anon_1.kprobe.missed }))
}

/// Where the count of missed hits ends in `struct bpf_link_info`, which no kernel before 6.7 reaches.
const MISSED_HITS_END: usize =
    offset_of!(bpf_link_info, __bindgen_anon_1.perf_event.__bindgen_anon_1.kprobe.missed) + size_of::<u64>();

/// A descriptor of a link; `None` if the link is gone.
fn open_link(id: u32) -> io::Result<Option<OwnedFd>> {
    let mut attr = zeroed();
    attr.__bindgen_anon_6.__bindgen_anon_1.link_id = id;
    match bpf(bpf_cmd::BPF_LINK_GET_FD_BY_ID, &mut attr) {
        Ok(fd) => Ok(Some(owned(fd))),
        // It went away in between, or is not yet complete.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::EAGAIN)) => Ok(None),
        Err(e) => Err(e),
    }
}

/// What the kernel says of a link, and how many bytes of it.
fn link_info(link: BorrowedFd<'_>) -> io::Result<(bpf_link_info, usize)> {
    // SAFETY: plain data, for which zero is valid.
    let mut info: bpf_link_info = unsafe { std::mem::zeroed() };
    let known = ask(link, &mut info)?;
    Ok((info, known))
}

/// Whether BPF programs may read kernel memory: lockdown to confidentiality forbids it.
///
/// # Errors
/// This process may not load programs at all.
pub(super) fn may_read_kernel() -> io::Result<bool> {
    // r1 = r10 - 8; r2 = 8; r3 = 0; call bpf_probe_read_kernel; r0 = 0; exit
    let code = [
        instruction(0xbf, 1, 10, 0),
        instruction(0x07, 1, 0, -8),
        instruction(0xb7, 2, 0, 8),
        instruction(0xb7, 3, 0, 0),
        instruction(0x85, 0, 0, bpf_func_id::BPF_FUNC_probe_read_kernel as i32),
        instruction(0xb7, 0, 0, 0),
        instruction(0x95, 0, 0, 0),
    ];
    let mut attr = zeroed();
    // SAFETY: the union was zeroed; this is the variant of BPF_PROG_LOAD.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.prog_type = bpf_prog_type::BPF_PROG_TYPE_RAW_TRACEPOINT as u32;
    load.insns = code.as_ptr() as u64;
    load.insn_cnt = code.len() as u32;
    load.license = c"GPL".as_ptr() as u64;
    match bpf(bpf_cmd::BPF_PROG_LOAD, &mut attr) {
        Ok(fd) => {
            drop(owned(fd));
            Ok(true)
        }
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(e) => Err(e),
    }
}

/// A program that does nothing: `r0 = 0; exit`.
#[cfg(feature = "bench")]
pub(super) fn do_nothing() -> [bpf_insn; 2] {
    [instruction(0xb7, 0, 0, 0), instruction(0x95, 0, 0, 0)]
}

fn instruction(code: u8, dst: u8, src: u8, imm: i32) -> bpf_insn {
    // SAFETY: plain data, for which zero is valid.
    let mut instruction: bpf_insn = unsafe { std::mem::zeroed() };
    instruction.code = code;
    instruction.set_dst_reg(dst);
    instruction.set_src_reg(src);
    instruction.imm = imm;
    instruction
}

/// A tracing program to load.
pub(super) struct TracingProgram<'a> {
    pub name: &'a str,
    pub license: &'a CStr,
    pub instructions: &'a [bpf_insn],
    pub attach_type: bpf_attach_type,
    /// The module's BTF object; `None`: vmlinux.
    pub btf: Option<BorrowedFd<'a>>,
    pub btf_id: u32,
}

/// Loads a tracing program.
///
/// # Errors
/// What the kernel said, with the end of the verifier's log.
pub(super) fn load_tracing(program: &TracingProgram<'_>) -> io::Result<OwnedFd> {
    let mut log = vec![0u8; LOG_SIZE];
    let mut attr = zeroed();
    // SAFETY: the union was zeroed; this is the variant of BPF_PROG_LOAD.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.prog_type = bpf_prog_type::BPF_PROG_TYPE_TRACING as u32;
    load.expected_attach_type = program.attach_type as u32;
    load.insns = program.instructions.as_ptr() as u64;
    load.insn_cnt = program.instructions.len() as u32;
    load.license = program.license.as_ptr() as u64;
    load.attach_btf_id = program.btf_id;
    if let Some(btf) = program.btf {
        load.__bindgen_anon_1.attach_btf_obj_fd = btf.as_raw_fd() as u32;
    }
    for (slot, byte) in load.prog_name.iter_mut().zip(program.name.bytes().take(15)) {
        *slot = byte as libc::c_char;
    }
    match bpf(bpf_cmd::BPF_PROG_LOAD, &mut attr) {
        Ok(fd) => return Ok(owned(fd)),
        Err(e) if e.raw_os_error() == Some(libc::EPERM) => return Err(e),
        Err(_) => {}
    }
    // Once more with a log: asking for one at once would fail a good program whose log is too long.
    // SAFETY: as above.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.log_level = 1;
    load.log_buf = log.as_mut_ptr() as u64;
    load.log_size = log.len() as u32;
    bpf(bpf_cmd::BPF_PROG_LOAD, &mut attr).map(owned).map_err(|e| with_log(&e, &log))
}

fn with_log(error: &io::Error, log: &[u8]) -> io::Error {
    let text = conceal(&CStr::from_bytes_until_nul(log).unwrap_or_default().to_string_lossy());
    let text = text.trim_end();
    let tail = text.char_indices().rev().nth(LOG_TAIL).map_or(text, |(at, _)| &text[at..]);
    io::Error::new(error.kind(), format!("{error}: {tail}"))
}

/// Attaches a loaded tracing program; it stays attached while the descriptor is open.
///
/// # Errors
/// What the kernel said.
pub(super) fn attach_tracing(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut attr = zeroed();
    attr.raw_tracepoint.prog_fd = program.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &mut attr).map(owned)
}
