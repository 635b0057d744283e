//! `userfaultfd(2)` (`include/uapi/linux/userfaultfd.h`): page faults that wait for us.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd};

use anyhow::{Context, Result, ensure};

use crate::vm::Pages;

const UFFD_API: u64 = 0xaa;
const UFFD_FEATURE_PAGEFAULT_FLAG_WP: u64 = 1;
const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1;
const UFFDIO_REGISTER_MODE_WP: u64 = 2;
const UFFDIO_ZEROPAGE: libc::c_ulong = 0xc020_aa04;
const UFFDIO_WRITEPROTECT: libc::c_ulong = 0xc018_aa06;
const UFFDIO_WRITEPROTECT_MODE_WP: u64 = 1;
/// `struct uffd_msg`.
const MESSAGE: usize = 32;

/// A userfaultfd over some pages.
pub(crate) struct Userfault {
    file: File,
}

impl Userfault {
    /// Makes whoever touches a page that is not there yet wait.
    pub(crate) fn hold_missing(data: &Pages) -> Result<Self> {
        Self::register(data, 0, UFFDIO_REGISTER_MODE_MISSING)
    }

    /// Makes pages ready for [`Self::protect`].
    pub(crate) fn watch_writes(data: &Pages) -> Result<Self> {
        Self::register(data, UFFD_FEATURE_PAGEFAULT_FLAG_WP, UFFDIO_REGISTER_MODE_WP)
    }

    fn register(data: &Pages, features: u64, mode: u64) -> Result<Self> {
        // SAFETY: no pointers.
        let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) };
        ensure!(fd >= 0, "userfaultfd: {}", std::io::Error::last_os_error());
        // SAFETY: the kernel has just made it for us.
        let userfault = Self { file: unsafe { File::from_raw_fd(fd as i32) } };
        userfault.ioctl(UFFDIO_API, &mut [UFFD_API, features, 0])?;
        userfault.ioctl(UFFDIO_REGISTER, &mut [data.address() as u64, data.len() as u64, mode, 0])?;
        Ok(userfault)
    }

    /// Returns once `n` more faults wait.
    pub(crate) fn wait_for(&self, n: usize) -> Result<()> {
        let mut file = &self.file;
        for _ in 0..n {
            file.read_exact(&mut [0; MESSAGE]).context("cannot read from userfaultfd")?;
        }
        Ok(())
    }

    /// Gives every page, and so lets all that wait go on.
    pub(crate) fn fill_missing(&self, data: &Pages) -> Result<()> {
        self.ioctl(UFFDIO_ZEROPAGE, &mut [data.address() as u64, data.len() as u64, 0, 0])
    }

    /// Makes whoever writes to these pages wait, or lets all that wait go on.
    pub(crate) fn protect(&self, pages: &Pages, from_writes: bool) -> Result<()> {
        let mode = if from_writes { UFFDIO_WRITEPROTECT_MODE_WP } else { 0 };
        self.ioctl(UFFDIO_WRITEPROTECT, &mut [pages.address() as u64, pages.len() as u64, mode])
    }

    /// `argument` is as long as the request says.
    fn ioctl<const N: usize>(&self, request: libc::c_ulong, argument: &mut [u64; N]) -> Result<()> {
        debug_assert_eq!((request >> 16) as usize & 0x3fff, size_of_val(argument));
        loop {
            // SAFETY: the argument is as long as the request says, and outlives the call.
            let code = unsafe { libc::ioctl(self.file.as_raw_fd(), request as _, argument.as_mut_ptr()) };
            if code == 0 {
                return Ok(());
            }
            let error = std::io::Error::last_os_error();
            // The address space is being changed: try again.
            if error.raw_os_error() != Some(libc::EAGAIN) {
                return Err(error).context("userfaultfd");
            }
        }
    }
}
