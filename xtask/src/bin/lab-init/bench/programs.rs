//! What the kernel says of BPF programs, whoever loaded them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};
use xtask::cost::{Program, Workload};

use crate::bpf::{self, OBJ_GET_INFO_BY_FD, PROG_GET_FD_BY_ID, PROG_GET_NEXT_ID};

/// Switches `kernel.bpf_stats_enabled`.
pub(super) fn set_statistics(on: bool) -> Result<()> {
    let value = if on { "1" } else { "0" };
    fs::write("/proc/sys/kernel/bpf_stats_enabled", value).context("cannot switch the BPF statistics")
}

/// Runs `workload` with the statistics on; every program, with what it ran meanwhile.
pub(super) fn measure(workload: impl FnOnce() -> Result<Workload>) -> Result<Vec<Program>> {
    set_statistics(true)?;
    let before = all().context("cannot ask for the BPF programs")?;
    workload()?;
    let after = all().context("cannot ask for the BPF programs")?;
    set_statistics(false)?;
    Ok(after.into_iter().map(|(id, program)| since(before.get(&id), program)).collect())
}

fn since(before: Option<&Program>, mut program: Program) -> Program {
    if let Some(before) = before {
        program.runs -= before.runs;
        program.run_ns -= before.run_ns;
    }
    program
}

/// All programs by their id.
fn all() -> io::Result<BTreeMap<u32, Program>> {
    let ids = bpf::ids(PROG_GET_NEXT_ID)?;
    ids.into_iter().map(|id| Ok((id, info(&open(id)?)?))).collect()
}

/// The part of `union bpf_attr` that opens an object by its id.
#[repr(C)]
struct ById {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

fn open(id: u32) -> io::Result<OwnedFd> {
    let mut attr = ById { id, next_id: 0, open_flags: 0 };
    let fd = bpf::call(PROG_GET_FD_BY_ID, &mut attr)?;
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The part of `union bpf_attr` that asks what an object is.
#[repr(C)]
struct InfoOf {
    fd: u32,
    info_len: u32,
    info: u64,
}

/// `struct bpf_prog_info` (`include/uapi/linux/bpf.h`), up to the last field that is wanted.
#[repr(C)]
#[derive(Default)]
struct ProgInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_prog_len: u32,
    xlated_prog_len: u32,
    jited_prog_insns: u64,
    xlated_prog_insns: u64,
    load_time: u64,
    created_by_uid: u32,
    nr_map_ids: u32,
    map_ids: u64,
    name: [u8; 16],
    ifindex: u32,
    gpl_compatible: u32,
    netns_dev: u64,
    netns_ino: u64,
    nr_jited_ksyms: u32,
    nr_jited_func_lens: u32,
    jited_ksyms: u64,
    jited_func_lens: u64,
    btf_id: u32,
    func_info_rec_size: u32,
    func_info: u64,
    nr_func_info: u32,
    nr_line_info: u32,
    line_info: u64,
    jited_line_info: u64,
    nr_jited_line_info: u32,
    line_info_rec_size: u32,
    jited_line_info_rec_size: u32,
    nr_prog_tags: u32,
    prog_tags: u64,
    run_time_ns: u64,
    run_cnt: u64,
    recursion_misses: u64,
    verified_insns: u32,
    attach_btf_obj_id: u32,
    attach_btf_id: u32,
    pad: u32,
}

fn info(program: &OwnedFd) -> io::Result<Program> {
    let mut info = ProgInfo::default();
    let mut attr = InfoOf {
        fd: program.as_raw_fd() as u32,
        info_len: size_of::<ProgInfo>() as u32,
        info: &raw mut info as u64,
    };
    bpf::call(OBJ_GET_INFO_BY_FD, &mut attr)?;
    let name: Vec<u8> = info.name.into_iter().take_while(|byte| *byte != 0).collect();
    Ok(Program {
        name: String::from_utf8_lossy(&name).into_owned(),
        runs: info.run_cnt,
        run_ns: info.run_time_ns,
        verified: info.verified_insns.into(),
        xlated_bytes: info.xlated_prog_len.into(),
        jited_bytes: info.jited_prog_len.into(),
    })
}
