//! Reading kernel memory and asking about the current task.

use core::{hint::black_box, mem::MaybeUninit};

use aya_ebpf::helpers::{
    bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_task, bpf_probe_read_kernel, generated,
};
use mmu_trace_ebpf::abi::offset;

use super::config;

/// Reads a value from kernel memory.
#[inline(always)]
pub(super) fn at<T>(address: u64) -> Option<T> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(address as *const T) }.ok()
}

/// Reads the member with an index of [`offset`] of the struct at `base`.
#[inline(always)]
pub(super) fn member<T>(base: u64, index: usize) -> Option<T> {
    let offset = config::offset(index)?;
    if base == 0 {
        return None;
    }
    at(base + offset)
}

/// Two members of 64 bits of the struct at `base`, read at once where the second is not far behind the first.
#[inline(always)]
pub(super) fn two_members(base: u64, first: usize, second: usize) -> Option<(u64, u64)> {
    /// Another read costs as much as that many words.
    const WORDS: usize = 8;
    let offset = config::offset(first)?;
    let distance = config::offset(second)?.wrapping_sub(offset) / 8;
    if base == 0 || distance >= WORDS as u64 {
        return Some((member(base, first)?, member(base, second)?));
    }
    let mut words = MaybeUninit::<[u64; WORDS]>::uninit();
    let words = words.as_mut_ptr().cast::<u64>();
    let size = (distance as u32 + 1) * 8;
    // SAFETY: the size, which the verifier knows, is at most that of the words.
    let error = unsafe { generated::bpf_probe_read_kernel(words.cast(), size, (base + offset) as *const _) };
    if error != 0 {
        return None;
    }
    // SAFETY: both have just been written.
    Some(unsafe { (words.read(), words.add(distance as usize).read()) })
}

/// The head of a struct, read at once: one read costs as much as one of a single member.
#[derive(Clone, Copy)]
pub(super) struct Block<const WORDS: usize>([u64; WORDS]);

impl<const WORDS: usize> Block<WORDS> {
    /// Reads the first words of the struct at `base`.
    #[inline(always)]
    pub(super) fn read(base: u64) -> Option<Self> {
        at(base).map(Self)
    }

    /// The member of 64 bits with an index of [`offset`]; `None` where this kernel has none, or further behind.
    #[inline(always)]
    pub(super) fn u64(&self, index: usize) -> Option<u64> {
        self.0.get(config::offset(index)? as usize / 8).copied()
    }

    /// The member of 32 bits with an index of [`offset`].
    #[inline(always)]
    pub(super) fn u32(&self, index: usize) -> Option<u32> {
        let shift = config::offset(index)? % 8 * 8;
        self.u64(index).map(|word| (word >> shift) as u32)
    }
}

/// The address space of the current task: 0 for a kernel thread, `None` if it cannot be read.
#[inline(always)]
pub(super) fn current_mm() -> Option<u64> {
    // SAFETY: no preconditions.
    let task = unsafe { bpf_get_current_task() };
    member(task, offset::TASK_MM)
}

/// A process: its thread group id in the initial PID namespace, and when it started, nanoseconds since
/// boot; 0 where unknown.
#[derive(Clone, Copy)]
pub(super) struct Process {
    pub tgid: u32,
    pub born_ns: u64,
}

/// The process that owns an address space.
#[inline(always)]
pub(super) fn mm_process(mm: u64) -> Process {
    let owner = member::<u64>(mm, offset::MM_OWNER).unwrap_or(0);
    let leader = member(owner, offset::TASK_LEADER).unwrap_or(0);
    Process {
        tgid: member(owner, offset::TASK_TGID).unwrap_or(0),
        born_ns: member(leader, offset::TASK_BORN).unwrap_or(0),
    }
}

/// Whether an address space has lost its last user (`mm_update_next_owner` in `exit_mm`). Where that
/// cannot be told it counts as alive.
#[inline(always)]
pub(super) fn mm_is_dead(mm: u64) -> bool {
    member::<u64>(mm, offset::MM_OWNER) == Some(0)
}

/// The current thread id and thread group id in the initial PID namespace.
#[inline(always)]
pub(super) fn current_ids() -> (u32, u32) {
    let ids = bpf_get_current_pid_tgid();
    (ids as u32, (ids >> 32) as u32)
}

/// A value of which the verifier forgets that it is one of a few constants: it would walk what follows once for
/// each of them. `unknown` is any number that it cannot know.
#[inline(always)]
pub(super) fn forgotten(value: u8, unknown: u32) -> u8 {
    (black_box(value as u32 ^ unknown) ^ unknown) as u8
}

/// The first eight bytes of the current task's name, little endian.
#[inline(always)]
pub(super) fn current_comm() -> u64 {
    let Ok(comm) = bpf_get_current_comm() else { return 0 };
    u64::from_le_bytes([comm[0], comm[1], comm[2], comm[3], comm[4], comm[5], comm[6], comm[7]])
}
