//! Reading a whole hash map with few system calls (`BPF_MAP_LOOKUP_BATCH`, from Linux 5.6 on).

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use anyhow::{Context, Result};
use aya::Ebpf;
use aya_obj::generated::bpf_cmd;
use zerocopy::{FromBytes, IntoBytes};

use super::{read, side, sys};

/// Entries of one system call. The kernel hands out whole buckets, none of which is ever near that long.
const AT_ONCE: usize = 4096;

/// Hands every entry of the map called `name` to `visit`. Entries that come or go meanwhile may be seen or
/// not.
///
/// # Errors
/// The object is another one, or the kernel refuses.
pub(super) fn lookup<K, V>(ebpf: &Ebpf, name: &str, visit: impl FnMut(&K, &V)) -> Result<()>
where
    K: FromBytes + IntoBytes + Copy,
    V: FromBytes + IntoBytes + Copy,
{
    let map = side::map_fd(read::map(ebpf, name)?).with_context(|| format!("{name} is no hash map"))?;
    lookup_fd(map, visit).with_context(|| format!("cannot read {name}"))
}

fn lookup_fd<K, V>(map: BorrowedFd<'_>, mut visit: impl FnMut(&K, &V)) -> io::Result<()>
where
    K: FromBytes + IntoBytes + Copy,
    V: FromBytes + IntoBytes + Copy,
{
    let mut keys = vec![K::new_zeroed(); AT_ONCE];
    let mut values = vec![V::new_zeroed(); AT_ONCE];
    // Where the kernel goes on: the number of a bucket.
    let mut position = 0_u32;
    let mut is_first = true;
    loop {
        let mut attr = sys::zeroed();
        attr.batch.in_batch = if is_first { 0 } else { core::ptr::from_mut(&mut position) as u64 };
        attr.batch.out_batch = core::ptr::from_mut(&mut position) as u64;
        attr.batch.keys = keys.as_mut_ptr() as u64;
        attr.batch.values = values.as_mut_ptr() as u64;
        attr.batch.count = AT_ONCE as u32;
        attr.batch.map_fd = map.as_raw_fd() as u32;
        let is_last = match sys::bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr) {
            Ok(_) => false,
            Err(e) if e.kind() == io::ErrorKind::NotFound => true,
            Err(e) => return Err(e),
        };
        // SAFETY: the kernel wrote how many entries it put there.
        let n = unsafe { attr.batch.count } as usize;
        keys.iter().zip(&values).take(n).for_each(|(key, value)| visit(key, value));
        if is_last {
            return Ok(());
        }
        is_first = false;
    }
}
