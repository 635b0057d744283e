//! A KVM guest of a few instructions: it reads or writes one byte per page and halts.
//!
//! Physical memory of the guest, which has no paging of its own:
//!
//! ```text
//! 0x000000  the code, shared memory: KSM cannot merge it, fork and mprotect of the data do not touch it
//! 0x200000  the data, N private anonymous pages in one VMA and one memslot
//! ```
//! Host memory that is aligned to huge pages can so be mapped in huge pages.

use std::ptr::NonNull;

use anyhow::{Context, Result, bail};
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};

use crate::guest;

/// The page size of the host and of the guest's stride.
pub(crate) const PAGE_SIZE: usize = 4096;
/// Where the data starts in guest physical memory.
const DATA_START: u64 = 0x20_0000;

/// What the guest does with each page. The value is the address of its code.
#[derive(Clone, Copy)]
pub(crate) enum Access {
    /// Read one byte.
    Read = 0,
    /// Write one byte.
    Write = 0x40,
}

/// One way of the guest through its pages.
pub(crate) struct Errand {
    /// Where its program begins.
    pub(crate) entry: u64,
    /// The first page, in guest physical memory.
    pub(crate) first_address: u64,
    /// How many.
    pub(crate) n_pages: u64,
    /// What is written.
    pub(crate) value: u8,
}

/// How many pages a huge page has.
pub(crate) const HUGE: usize = 512;

/// Anonymous memory between two inaccessible pages, so that no neighbour's VMA merges with its own.
#[derive(Clone, Copy)]
pub(crate) struct Pages {
    start: NonNull<u8>,
    n_pages: usize,
}

// SAFETY: an address and a length; what is done to the memory is a matter of each method.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    /// Maps `n_pages` private ones that begin where a huge page may.
    pub(crate) fn map_aligned(n_pages: usize) -> Result<Self> {
        let fence = map_at(None, n_pages + 2 * HUGE, libc::PROT_NONE, libc::MAP_PRIVATE)?;
        let skip = HUGE - (fence.as_ptr() as usize / PAGE_SIZE) % HUGE;
        // SAFETY: at most one huge page behind the start, and two more than asked for are mapped.
        let start = unsafe { fence.add(skip * PAGE_SIZE) };
        map_at(Some(start), n_pages, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE)?;
        Ok(Self { start, n_pages })
    }

    /// Maps them anew, empty, in their place.
    pub(crate) fn map_again(&self) -> Result<()> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        map_at(Some(self.start), self.n_pages, access, libc::MAP_PRIVATE).map(drop)
    }

    /// Unmaps them; whoever touches them before they are mapped again faults.
    pub(crate) fn unmap(&self) -> Result<()> {
        // SAFETY: the range is ours, and nothing holds references into it.
        let code = unsafe { libc::munmap(self.start.as_ptr().cast(), self.len()) };
        result(code).context("munmap")
    }

    /// `n` of them from `first` on.
    pub(crate) fn part(&self, first: usize, n: usize) -> Self {
        assert!(first + n <= self.n_pages, "the part ends behind the whole");
        // SAFETY: the assertion keeps it inside the mapping.
        Self { start: unsafe { self.start.add(first * PAGE_SIZE) }, n_pages: n }
    }

    /// The address of the first.
    pub(crate) fn address(&self) -> usize {
        self.start.as_ptr() as usize
    }

    /// How many.
    pub(crate) fn n_pages(&self) -> usize {
        self.n_pages
    }

    /// Maps `n_pages`, `MAP_PRIVATE` or `MAP_SHARED`. They stay mapped for the life of the process.
    ///
    /// No boundary between two page tables of the third level lies inside, where the kernel would divide
    /// the range of an `mprotect` (`change_pud_range`) into two.
    pub(crate) fn map(n_pages: usize, sharing: i32) -> Result<Self> {
        const THIRD_LEVEL: usize = 1 << 30;
        let mut fence = map_at(None, n_pages + 2, libc::PROT_NONE, libc::MAP_PRIVATE)?;
        let of_table = |address: usize| address / THIRD_LEVEL;
        while of_table(fence.as_ptr() as usize)
            != of_table(fence.as_ptr() as usize + (n_pages + 2) * PAGE_SIZE)
        {
            fence = map_at(None, n_pages + 2, libc::PROT_NONE, libc::MAP_PRIVATE)?;
        }
        // SAFETY: the address is inside the mapping made above, which has two pages more than asked for.
        let inside = unsafe { fence.add(PAGE_SIZE) };
        let start = map_at(Some(inside), n_pages, libc::PROT_READ | libc::PROT_WRITE, sharing)?;
        Ok(Self { start, n_pages })
    }

    /// Gives every page the same content.
    pub(crate) fn fill(&self, value: u8) {
        // SAFETY: the whole range is mapped writable, and only the guest shares it, which is stopped.
        unsafe { std::ptr::write_bytes(self.start.as_ptr(), value, self.len()) }
    }

    /// Writes the first byte of every page.
    pub(crate) fn write_each(&self, value: u8) {
        for page in 0..self.n_pages {
            // SAFETY: as in `fill`.
            unsafe { self.start.as_ptr().add(page * PAGE_SIZE).write_volatile(value) }
        }
    }

    /// Reads the first byte of every page.
    pub(crate) fn read_each(&self) {
        for page in 0..self.n_pages {
            // SAFETY: as in `fill`.
            unsafe { self.start.as_ptr().add(page * PAGE_SIZE).read_volatile() };
        }
    }

    /// `madvise` over all pages.
    pub(crate) fn advise(&self, advice: i32) -> Result<()> {
        // SAFETY: the range is ours, and nothing holds references into it.
        let code = unsafe { libc::madvise(self.start.as_ptr().cast(), self.len(), advice) };
        result(code).with_context(|| format!("madvise({advice})"))
    }

    /// `mprotect` over all pages.
    pub(crate) fn protect(&self, protection: i32) -> Result<()> {
        // SAFETY: as in `advise`.
        let code = unsafe { libc::mprotect(self.start.as_ptr().cast(), self.len(), protection) };
        result(code).with_context(|| format!("mprotect({protection})"))
    }

    fn copy_in(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.len(), "the code does not fit its page");
        // SAFETY: the assertion keeps the copy inside our mapping.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.as_ptr().add(offset), bytes.len()) }
    }

    /// Their length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.n_pages * PAGE_SIZE
    }
}

/// The VM with its first vCPU.
pub(crate) struct Vm {
    pub(crate) vcpu: Vcpu,
    /// The guest's data.
    pub(crate) data: Pages,
    vm: VmFd,
}

impl Vm {
    /// Creates the VM and its memory; the guest has not run yet.
    pub(crate) fn new(n_pages: usize) -> Result<Self> {
        Self::with_data(Pages::map(n_pages, libc::MAP_PRIVATE)?)
    }

    /// Creates a VM over `data`; the guest has not run yet.
    pub(crate) fn with_data(data: Pages) -> Result<Self> {
        let code = Pages::map(1, libc::MAP_SHARED)?;
        for access in [Access::Read, Access::Write] {
            code.copy_in(access as usize, &guest::program(access));
        }

        let kvm = Kvm::new().context("cannot open /dev/kvm")?;
        let vm = kvm.create_vm().context("cannot create a VM")?;
        add_memslot(&vm, 0, 0, &code)?;
        add_memslot(&vm, 1, DATA_START, &data)?;
        Ok(Self { vcpu: Vcpu::create(&vm, 0)?, data, vm })
    }

    /// Adds vCPU number `id`; the first one is 0.
    pub(crate) fn add_vcpu(&self, id: u64) -> Result<Vcpu> {
        Vcpu::create(&self.vm, id)
    }

    /// Lets the guest go once through its first `n_pages` pages.
    pub(crate) fn touch(&mut self, access: Access, n_pages: usize, value: u8) -> Result<()> {
        self.vcpu.touch(access, 0, n_pages, value)
    }

    /// Lets the guest go once through all of its pages.
    pub(crate) fn touch_all(&mut self, access: Access, value: u8) -> Result<()> {
        self.touch(access, self.data.n_pages, value)
    }
}

/// One virtual CPU.
pub(crate) struct Vcpu {
    fd: VcpuFd,
    /// Whether the host changes the guest's memory while it runs.
    pub(crate) is_raced: bool,
}

impl Vcpu {
    fn create(vm: &VmFd, id: u64) -> Result<Self> {
        let fd = vm.create_vcpu(id).context("cannot create a vCPU")?;
        guest::prepare(vm, &fd)?;
        Ok(Self { fd, is_raced: false })
    }

    /// Goes once through `n_pages` pages of the data, from `first` on.
    pub(crate) fn touch(&mut self, access: Access, first: usize, n_pages: usize, value: u8) -> Result<()> {
        let errand = Errand {
            entry: access as u64,
            first_address: DATA_START + (first * PAGE_SIZE) as u64,
            n_pages: n_pages as u64,
            value,
        };
        guest::send(&self.fd, &errand)?;
        loop {
            match self.fd.run() {
                Ok(exit) if guest::is_done(&exit) => return Ok(()),
                Ok(VcpuExit::Intr) => {}
                // The host has taken the page away, or the right to write to it, and gives it back.
                Err(error) if error.errno() == libc::EFAULT && self.is_raced => {}
                Ok(exit) => bail!("the guest left its loop: {exit:?}"),
                Err(error) if error.errno() == libc::EINTR => {}
                Err(error) => return Err(error).context("KVM_RUN"),
            }
        }
    }
}

fn add_memslot(vm: &VmFd, slot: u32, guest_phys_addr: u64, pages: &Pages) -> Result<()> {
    let region = kvm_userspace_memory_region {
        slot,
        flags: 0,
        guest_phys_addr,
        memory_size: pages.len() as u64,
        userspace_addr: pages.start.as_ptr() as u64,
    };
    // SAFETY: the memory is never unmapped, so it outlives the VM.
    unsafe { vm.set_user_memory_region(region) }.with_context(|| format!("memslot {slot}"))
}

fn map_at(at: Option<NonNull<u8>>, n_pages: usize, protection: i32, sharing: i32) -> Result<NonNull<u8>> {
    let address = at.map_or(std::ptr::null_mut(), NonNull::as_ptr);
    let fixed = if at.is_some() { libc::MAP_FIXED } else { 0 };
    let flags = sharing | libc::MAP_ANONYMOUS | fixed;
    // SAFETY: without an address the kernel chooses a free range; with one, the caller owns the range.
    let start = unsafe { libc::mmap(address.cast(), n_pages * PAGE_SIZE, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error()).context("mmap");
    }
    NonNull::new(start.cast()).context("mmap returned the null page")
}

fn result(code: i32) -> std::io::Result<()> {
    if code == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
