//! The table of VM slots, mapped into memory.
//!
//! It is looked at several times a second, and a system call on a map is no innocent way to do that:
//! while one is under way no kprobe's program runs on that CPU (`bpf_disable_instrumentation`), and a
//! kernel that preempts it may run a vCPU there for a whole time slice.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    ptr::NonNull,
};

use anyhow::{Context, Result, bail};
use aya::{Ebpf, maps::Map};
use mmu_trace_ebpf::abi::{FIRST_SLOT, VmSlot};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Words of one slot; the kernel puts the values of an array one behind the other.
const WORDS: usize = size_of::<VmSlot>() / size_of::<u64>();
const _: () = assert!(size_of::<VmSlot>() == WORDS * size_of::<u64>());

/// The map `VM_SLOTS` (`BPF_F_MMAPABLE`, from Linux 5.5 on).
pub(super) struct SlotTable {
    start: NonNull<u64>,
    n_slots: u32,
}

// SAFETY: memory that the kernel shares with us, whoever reads it.
unsafe impl Send for SlotTable {}

impl SlotTable {
    /// Maps the table.
    ///
    /// # Errors
    /// The object is another one, or the kernel refuses.
    pub(super) fn new(ebpf: &Ebpf) -> Result<Self> {
        let Map::Array(map) = ebpf.map("VM_SLOTS").context("the object has no map VM_SLOTS")? else {
            bail!("the map VM_SLOTS is no array");
        };
        let n_slots = map.info()?.max_entries();
        Self::map(map.fd().as_fd(), n_slots).context("cannot map VM_SLOTS")
    }

    fn map(fd: BorrowedFd<'_>, n_slots: u32) -> io::Result<Self> {
        let len = n_slots as usize * size_of::<VmSlot>();
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let start = unsafe { mmap(std::ptr::null_mut(), len, ProtFlags::READ, MapFlags::SHARED, fd, 0) }?;
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { start, n_slots })
    }

    /// The slots in use, with their numbers.
    pub(super) fn used(&self) -> Vec<(u32, VmSlot)> {
        let all = (FIRST_SLOT..self.n_slots).map(|slot| (slot, self.read(slot)));
        all.filter(|(_, holder)| holder.mm != 0).collect()
    }

    /// A slot as it was at one moment: read until it is twice the same.
    fn read(&self, slot: u32) -> VmSlot {
        let mut words = self.words(slot);
        loop {
            let again = self.words(slot);
            if words == again {
                return zerocopy::transmute!(words);
            }
            words = again;
        }
    }

    fn words(&self, slot: u32) -> [u64; WORDS] {
        let first = slot as usize * WORDS;
        std::array::from_fn(|word| {
            // SAFETY: inside the mapping, as `slot` is below `n_slots`; aligned. Volatile: probes write.
            unsafe { self.start.add(first + word).read_volatile() }
        })
    }
}

impl Drop for SlotTable {
    fn drop(&mut self) {
        // SAFETY: made by `map`, and nothing else refers to it.
        let unmapped =
            unsafe { munmap(self.start.as_ptr().cast(), self.n_slots as usize * size_of::<VmSlot>()) };
        debug_assert!(unmapped.is_ok(), "{unmapped:?}");
    }
}
