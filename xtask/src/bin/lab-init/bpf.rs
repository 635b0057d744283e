//! The `bpf` system call, as far as it tells what there is, whoever made it.

use std::io;

/// Commands (`enum bpf_cmd`).
pub(crate) const PROG_GET_NEXT_ID: libc::c_int = 11;
pub(crate) const MAP_GET_NEXT_ID: libc::c_int = 12;
pub(crate) const PROG_GET_FD_BY_ID: libc::c_int = 13;
pub(crate) const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
pub(crate) const LINK_GET_NEXT_ID: libc::c_int = 31;

/// The part of `union bpf_attr` that asks for the next id.
#[repr(C)]
#[derive(Default)]
struct NextId {
    start_id: u32,
    next_id: u32,
    open_flags: u32,
}

/// Every id that `command`, one of `*_GET_NEXT_ID`, finds.
pub(crate) fn ids(command: libc::c_int) -> io::Result<Vec<u32>> {
    let mut attr = NextId::default();
    let mut ids = Vec::new();
    loop {
        match call(command, &mut attr) {
            Ok(_) => ids.push(attr.next_id),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(ids),
            Err(error) => return Err(error),
        }
        attr.start_id = attr.next_id;
    }
}

/// Calls it with `attr`, the part of `union bpf_attr` that `command` uses.
pub(crate) fn call<T>(command: libc::c_int, attr: &mut T) -> io::Result<i32> {
    // SAFETY: `attr` is as long as said, and outlives the call, as does what it points to.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
