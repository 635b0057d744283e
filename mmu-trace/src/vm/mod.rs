//! Which processes run VMs, and who those VMs are.
//!
//! A process that holds a file descriptor on `anon_inode:kvm-vm` runs a VM, or several, which the kernel
//! tells from each other no better than we do. Who it is, its VMM's command line tells. Processes come and go while `/proc` is read and may belong to others: what
//! could not be looked at is counted by reason, never guessed.
//!
//! Every function takes the root of the proc file system, normally `/proc`.

mod cmdline;
mod descriptors;
mod helper;
mod identity;
mod proc;
mod scope;
mod untrusted;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

pub use descriptors::Descriptors;
pub use helper::{COMMAND as HELPER_COMMAND, Helper, answer};
pub use identity::{OTHER, disambiguate, identify};
pub use proc::{ProcError, hides_processes, start_time_ticks};
pub use untrusted::{MAX_NAME_BYTES, clean};

use crate::model::VmIdentity;

/// A process that runs a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundVm {
    /// Its process id.
    pub pid: u32,
    /// When it started, in clock ticks since boot: with the pid, an identity that is never reused.
    pub start_time_ticks: u64,
    /// Who it is.
    pub identity: VmIdentity,
}

/// What a scan found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovery {
    /// The processes with a VM, by pid. Equal names are told apart.
    pub vms: Vec<FoundVm>,
    /// How many processes could not be looked at, by reason.
    pub skipped: BTreeMap<SkipReason, usize>,
}

/// Why a process was not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SkipReason {
    /// It ended during the scan.
    Vanished,
    /// It belongs to somebody else; root sees it.
    Denied,
    /// Its entry could not be read or made no sense.
    Unreadable,
}

impl SkipReason {
    /// The reason in words.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Vanished => "ended during the scan",
            Self::Denied => "not permitted to look at",
            Self::Unreadable => "unreadable",
        }
    }
}

impl From<&ProcError> for SkipReason {
    fn from(error: &ProcError) -> Self {
        match error {
            ProcError::Read { source, .. } if vanished(source) => Self::Vanished,
            ProcError::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Self::Denied
            }
            ProcError::Read { .. } | ProcError::Stat { .. } | ProcError::Helper(_) => Self::Unreadable,
        }
    }
}

/// Finds every process with a VM.
///
/// # Errors
/// If `proc_root` itself cannot be listed or the helper is gone; a single process that cannot be read is
/// counted.
pub fn discover(proc_root: &Path, descriptors: &Descriptors) -> Result<Discovery, ProcError> {
    let mut discovery = Discovery::default();
    for pid in pids(proc_root)? {
        match look_at(proc_root, pid, descriptors) {
            Ok(found) => discovery.vms.extend(found),
            Err(error @ ProcError::Helper(_)) => return Err(error),
            Err(error) => *discovery.skipped.entry(SkipReason::from(&error)).or_default() += 1,
        }
    }
    let mut identities: Vec<VmIdentity> = discovery.vms.iter().map(|vm| vm.identity.clone()).collect();
    disambiguate(&mut identities);
    for (vm, identity) in discovery.vms.iter_mut().zip(identities) {
        vm.identity = identity;
    }
    Ok(discovery)
}

fn pids(proc_root: &Path) -> Result<Vec<u32>, ProcError> {
    let names = names(proc_root)?;
    let mut pids: Vec<u32> =
        names.iter().filter_map(|name| name.file_name()?.to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    Ok(pids)
}

fn look_at(proc_root: &Path, pid: u32, descriptors: &Descriptors) -> Result<Option<FoundVm>, ProcError> {
    let n_vms = descriptors.count_vms(proc_root, pid)?;
    if n_vms == 0 {
        return Ok(None);
    }
    let start_time_ticks = start_time_ticks(proc_root, pid)?;
    let identity = VmIdentity { n_vms, ..identify(proc_root, pid)? };
    Ok(Some(FoundVm { pid, start_time_ticks, identity }))
}

fn names(dir: &Path) -> Result<Vec<PathBuf>, ProcError> {
    let list = || fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
    list().map_err(|source| ProcError::Read { path: dir.to_owned(), source })
}

/// Whether an error means that the process has ended.
fn vanished(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::{descriptors::KVM_VM_LINK, *};

    fn process(root: &Path, pid: u32, cmdline: &[u8], fd_target: &str) {
        let dir = root.join(pid.to_string());
        fs::create_dir_all(dir.join("fd")).unwrap();
        symlink(fd_target, dir.join("fd/9")).unwrap();
        fs::write(dir.join("cmdline"), cmdline).unwrap();
        fs::write(dir.join("comm"), "qemu-system-x86\n").unwrap();
        fs::write(dir.join("cgroup"), "0::/machine.slice/vm.scope\n").unwrap();
        let fields = "S 1 1 1 0 -1 4194560 1 0 0 0 1 1 0 0 20 0 4 0";
        fs::write(dir.join("stat"), format!("{pid} (a (b) c) {fields} {} 1 1\n", pid * 100)).unwrap();
    }

    #[test]
    fn finds_vms_and_counts_what_it_cannot_read() {
        let root = tempfile::tempdir().unwrap();
        process(root.path(), 20, b"qemu-system-x86_64\0-name\0web1\0", KVM_VM_LINK);
        process(root.path(), 10, b"qemu-system-x86_64\0-name\0web1\0", KVM_VM_LINK);
        process(root.path(), 30, b"bash\0", "/dev/null");
        process(root.path(), 40, b"qemu-system-x86_64\0", KVM_VM_LINK);
        fs::write(root.path().join("40/stat"), "40 (cut").unwrap();
        fs::create_dir(root.path().join("50")).unwrap();
        fs::create_dir(root.path().join("sys")).unwrap();

        let found = discover(root.path(), &Descriptors::Own).unwrap();

        let seen: Vec<_> =
            found.vms.iter().map(|vm| (vm.pid, vm.start_time_ticks, vm.identity.name.as_str())).collect();
        assert_eq!(seen, [(10, 1_000, "web1-10"), (20, 2_000, "web1-20")]);
        assert_eq!(found.skipped, BTreeMap::from([(SkipReason::Vanished, 1), (SkipReason::Unreadable, 1)]));
    }

    #[test]
    fn a_missing_proc_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let error = discover(&root.path().join("none"), &Descriptors::Own).unwrap_err();
        assert!(error.to_string().starts_with("reading "), "{error}");
    }

    #[test]
    fn scans_the_real_proc() {
        assert!(discover(Path::new("/proc"), &Descriptors::Own).is_ok());
    }
}
