//! Array maps that are mapped into memory (`BPF_F_MMAPABLE`, from Linux 5.5 on).
//!
//! They are read several times a second or are large, and a system call on a map is no innocent way to do
//! that: it is one for each value, and while one is under way no kprobe's program runs on that CPU
//! (`bpf_disable_instrumentation`), where a kernel that preempts it may run a vCPU for a whole time slice.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd, BorrowedFd},
    ptr::NonNull,
};

use anyhow::{Context, Result, bail};
use aya::{Ebpf, maps::Map};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The values `T` of an array map, which consist of 64-bit words.
pub(super) struct Mapped<T> {
    start: NonNull<u64>,
    n: u32,
    values: PhantomData<T>,
}

// SAFETY: memory that the kernel shares with us, whoever reads it.
unsafe impl<T> Send for Mapped<T> {}

impl<T> Mapped<T> {
    /// Words of one value; the kernel puts the values of an array one behind the other.
    const WORDS: usize = {
        assert!(size_of::<T>().is_multiple_of(size_of::<u64>()));
        size_of::<T>() / size_of::<u64>()
    };

    /// Maps the array called `name`.
    ///
    /// # Errors
    /// The object is another one, or the kernel refuses.
    pub(super) fn new(ebpf: &Ebpf, name: &str) -> Result<Self> {
        let Map::Array(map) = ebpf.map(name).with_context(|| format!("the object has no map {name}"))? else {
            bail!("the map {name} is no array");
        };
        let n = map.info()?.max_entries();
        Self::map(map.fd().as_fd(), n).with_context(|| format!("cannot map {name}"))
    }

    fn map(fd: BorrowedFd<'_>, n: u32) -> io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let start = unsafe { mmap(std::ptr::null_mut(), Self::len(n), access, MapFlags::SHARED, fd, 0) }?;
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { start, n, values: PhantomData })
    }

    fn len(n: u32) -> usize {
        n as usize * size_of::<T>()
    }

    /// How many values there are.
    pub(super) fn n(&self) -> u32 {
        self.n
    }

    /// The words of one value, each as it is when it is read; none behind the end.
    pub(super) fn words(&self, index: u32) -> impl Iterator<Item = u64> {
        self.places(index).map(|place| {
            // SAFETY: inside the mapping and aligned, see `places`. Volatile: probes write.
            unsafe { place.read_volatile() }
        })
    }

    /// Sets one value to zero.
    pub(super) fn zero(&self, index: u32) {
        for place in self.places(index) {
            // SAFETY: inside the mapping and aligned, see `places`. Volatile: the kernel reads.
            unsafe { place.write_volatile(0) };
        }
    }

    /// Where the words of one value are.
    fn places(&self, index: u32) -> impl Iterator<Item = NonNull<u64>> {
        let first = index as usize * Self::WORDS;
        let n_words = if index < self.n { Self::WORDS } else { 0 };
        // SAFETY: `index` is below `n`, the number of values that were mapped.
        (first..first + n_words).map(|word| unsafe { self.start.add(word) })
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: made by `map`, and nothing else refers to it.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), Self::len(self.n)) };
        debug_assert!(unmapped.is_ok(), "{unmapped:?}");
    }
}
