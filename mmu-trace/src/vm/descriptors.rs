//! How many VMs a process has, from its file descriptors.

use std::{fs, os::fd::RawFd, path::Path, sync::Arc};

use super::{helper::Helper, names, proc::ProcError, vanished};

/// What the kernel calls the file behind a VM's descriptor.
pub(super) const KVM_VM_LINK: &str = "anon_inode:kvm-vm";

/// Who looks at the descriptors of other processes.
#[derive(Clone, Debug, Default)]
pub enum Descriptors {
    /// This process itself, as long as it may.
    #[default]
    Own,
    /// Its helper, which only knows the real `/proc`.
    Helper(Arc<Helper>),
}

impl Descriptors {
    /// Counts the VMs of process `pid`, see [`count_vms`].
    ///
    /// # Errors
    /// If the process is gone or not ours to look at, or the helper is gone.
    pub fn count_vms(&self, proc_root: &Path, pid: u32) -> Result<u32, ProcError> {
        match self {
            Self::Own => count_vms(proc_root, pid),
            Self::Helper(helper) => helper.count_vms(pid),
        }
    }
}

/// Counts the VMs of process `pid`. A duplicated descriptor is no second VM; where the kernel does not
/// tell (without `CONFIG_KCMP`), every descriptor counts.
///
/// # Errors
/// If the process is gone, or not ours to look at.
pub(super) fn count_vms(proc_root: &Path, pid: u32) -> Result<u32, ProcError> {
    let fds = vm_fds(&proc_root.join(pid.to_string()).join("fd"))?;
    let is_first =
        |&(n, fd): &(usize, &RawFd)| !fds[..n].iter().any(|&earlier| is_same_file(pid, earlier, *fd));
    Ok(u32::try_from(fds.iter().enumerate().filter(is_first).count()).unwrap_or(u32::MAX))
}

/// The descriptors that are VMs. One that is closed meanwhile is none.
fn vm_fds(fd_dir: &Path) -> Result<Vec<RawFd>, ProcError> {
    let mut fds = Vec::new();
    for path in names(fd_dir)? {
        match fs::read_link(&path) {
            Ok(target) if target.as_os_str() == KVM_VM_LINK => {
                fds.extend(path.file_name().and_then(|name| name.to_str()?.parse::<RawFd>().ok()));
            }
            Ok(_) => {}
            Err(error) if vanished(&error) => {}
            Err(source) => return Err(ProcError::Read { path, source }),
        }
    }
    fds.sort_unstable();
    Ok(fds)
}

/// Whether two descriptors of a process are one open file: `kcmp(2)`.
fn is_same_file(pid: u32, a: RawFd, b: RawFd) -> bool {
    /// `enum kcmp_type`.
    const KCMP_FILE: libc::c_int = 0;
    // SAFETY: no pointers.
    unsafe { libc::syscall(libc::SYS_kcmp, pid, pid, KCMP_FILE, a, b) == 0 }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::AsRawFd, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn every_vm_counts_and_other_files_do_not() {
        let root = tempfile::tempdir().unwrap();
        // Beyond the largest process id there is: nobody's descriptors are compared.
        const PID: u32 = 1 << 30;
        let fd_dir = root.path().join(PID.to_string()).join("fd");
        fs::create_dir_all(&fd_dir).unwrap();
        for (fd, target) in [(3, KVM_VM_LINK), (4, "anon_inode:kvm-vcpu:0"), (11, KVM_VM_LINK)] {
            symlink(target, fd_dir.join(fd.to_string())).unwrap();
        }
        assert_eq!(vm_fds(&fd_dir).unwrap(), [3, 11]);
        assert_eq!(count_vms(root.path(), PID).unwrap(), 2);
        assert!(count_vms(root.path(), PID - 1).is_err());
    }

    #[test]
    fn a_duplicate_is_the_same_file() {
        let (file, other) = (File::open("/dev/null").unwrap(), File::open("/dev/null").unwrap());
        let copy = file.try_clone().unwrap();
        let me = std::process::id();
        assert!(!is_same_file(me, file.as_raw_fd(), other.as_raw_fd()));
        // A sandbox may refuse the question; then nothing is the same.
        if is_same_file(me, file.as_raw_fd(), file.as_raw_fd()) {
            assert!(is_same_file(me, file.as_raw_fd(), copy.as_raw_fd()));
        }
    }
}
