//! Constants that userspace writes before the object is loaded. They end up in a frozen map, so the
//! verifier knows their values and drops every branch this kernel cannot take.

use aya_ebpf::Global;
use mmu_trace_ebpf::abi::{MISSING, arg, function, offset, value};

#[unsafe(no_mangle)]
static OFFSETS: Global<[u32; offset::COUNT]> = Global::new([MISSING; offset::COUNT]);
#[unsafe(no_mangle)]
static VALUES: Global<[u32; value::COUNT]> = Global::new([MISSING; value::COUNT]);
#[unsafe(no_mangle)]
static ARGS: Global<[u32; arg::COUNT]> = Global::new([MISSING; arg::COUNT]);
#[unsafe(no_mangle)]
static FUNCTIONS: Global<[u64; function::COUNT]> = Global::new([0; function::COUNT]);

/// Reads one element; copying the array would not fit the stack.
#[inline(always)]
fn element<T: Copy, const N: usize>(array: &'static Global<[T; N]>, index: usize) -> T {
    let base = core::ptr::from_ref(array).cast::<T>();
    // SAFETY: `Global` has the layout of its array, and every caller's index is a constant below N.
    unsafe { core::ptr::read_volatile(base.add(index)) }
}

/// The offset with an index of [`offset`], or `None` where this kernel has no such member.
#[inline(always)]
pub(super) fn offset(index: usize) -> Option<u64> {
    let offset = element(&OFFSETS, index);
    if offset == MISSING { None } else { Some(offset as u64) }
}

/// The value with an index of [`value`]; `MISSING` if unknown.
#[inline(always)]
pub(super) fn value(index: usize) -> u32 {
    element(&VALUES, index)
}

/// The argument position with an index of [`arg`]; `MISSING` if unknown.
#[inline(always)]
pub(super) fn arg(index: usize) -> u32 {
    element(&ARGS, index)
}

/// The address with an index of [`function`]; 0 if unknown.
#[inline(always)]
pub(super) fn function(index: usize) -> u64 {
    element(&FUNCTIONS, index)
}
