//! How many BPF objects the kernel holds, whoever made them.

use anyhow::{Context, Result};
use xtask::refusal::BpfObjects;

/// Commands of the `bpf` system call (`enum bpf_cmd`).
const PROG_GET_NEXT_ID: libc::c_int = 11;
const MAP_GET_NEXT_ID: libc::c_int = 12;
const LINK_GET_NEXT_ID: libc::c_int = 31;

/// The part of `union bpf_attr` that these commands use.
#[repr(C)]
#[derive(Default)]
struct NextId {
    start_id: u32,
    next_id: u32,
    open_flags: u32,
}

/// Counts all of them.
pub(super) fn count() -> Result<BpfObjects> {
    Ok(BpfObjects {
        programs: count_ids(PROG_GET_NEXT_ID).context("cannot count BPF programs")?,
        links: count_ids(LINK_GET_NEXT_ID).context("cannot count BPF links")?,
        maps: count_ids(MAP_GET_NEXT_ID).context("cannot count BPF maps")?,
    })
}

fn count_ids(command: libc::c_int) -> std::io::Result<u32> {
    let mut attr = NextId::default();
    let mut n = 0;
    loop {
        // SAFETY: `attr` is as long as said, and outlives the call.
        let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut attr, size_of::<NextId>()) };
        if result != 0 {
            let error = std::io::Error::last_os_error();
            return if error.raw_os_error() == Some(libc::ENOENT) { Ok(n) } else { Err(error) };
        }
        n += 1;
        attr.start_id = attr.next_id;
    }
}
