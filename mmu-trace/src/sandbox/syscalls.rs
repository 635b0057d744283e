//! seccomp: the system calls that can still be made.
//!
//! A list of what is allowed. Anything else is answered with `ENOSYS`, as by an older kernel, and nothing is
//! killed: a C library that learns a newer call falls back to the older one, and what has none fails where
//! it is used, in a message. Where a call itself cannot be done without, its arguments are looked at:
//! no process is begun (`clone` for threads alone; of `clone3` they cannot be seen), no memory made
//! executable, no socket opened but a local one, no file opened for writing where nothing is written, nothing
//! typed into the terminal (`TIOCSTI`), no BPF program loaded once probes are attached for good.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule,
};

use super::Needs;

/// What threads, memory, time, descriptors and signals of one's own take.
const BASE: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_capget,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_copy_file_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fadvise64,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_futex,
    libc::SYS_futex_waitv,
    libc::SYS_getcpu,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getgroups,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_get_robust_list,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_newfstatat,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_pselect6,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sendfile,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_sigaltstack,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_sysinfo,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_gettime,
    libc::SYS_timerfd_settime,
    libc::SYS_times,
    libc::SYS_uname,
    libc::SYS_write,
    libc::SYS_writev,
];

/// The older forms of some of these, which newer architectures do not have.
#[cfg(target_arch = "x86_64")]
const OLDER: &[c_long] = &[
    libc::SYS_access,
    libc::SYS_dup2,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd,
    libc::SYS_getdents,
    libc::SYS_lstat,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_select,
    libc::SYS_stat,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[c_long] = &[];

/// Sockets that there are, and local ones.
const SOCKETS: &[c_long] = &[
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
];

const BINDING: &[c_long] = &[libc::SYS_bind, libc::SYS_listen];

/// What the layers themselves are made of.
const GIVING_UP: &[c_long] = &[
    libc::SYS_capset,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_restrict_self,
    libc::SYS_seccomp,
];
const PRCTL_GIVING_UP: &[u64] = &[
    libc::PR_CAPBSET_DROP as u64,
    libc::PR_CAPBSET_READ as u64,
    libc::PR_CAP_AMBIENT as u64,
    libc::PR_GET_NO_NEW_PRIVS as u64,
    libc::PR_SET_DUMPABLE as u64,
    libc::PR_SET_NO_NEW_PRIVS as u64,
];

const ACCEPTING: &[c_long] = &[libc::SYS_accept, libc::SYS_accept4];

/// A file is written under another name and renamed.
const REPLACING: &[c_long] = &[
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
];

const WAITING: &[c_long] = &[libc::SYS_wait4, libc::SYS_waitid];

/// Commands of `bpf(2)` on maps and programs that there are (`enum bpf_cmd`).
mod bpf_cmd {
    /// `BPF_MAP_LOOKUP_ELEM`, `_UPDATE_ELEM`, `_DELETE_ELEM`, `_GET_NEXT_KEY`; `BPF_OBJ_GET_INFO_BY_FD`;
    /// `BPF_MAP_LOOKUP_AND_DELETE_ELEM`; `BPF_MAP_LOOKUP_BATCH` to `BPF_MAP_DELETE_BATCH`.
    pub(super) const READING: &[u64] = &[1, 2, 3, 4, 15, 21, 24, 25, 26, 27];
    /// `BPF_MAP_CREATE`, `BPF_PROG_LOAD`, `BPF_RAW_TRACEPOINT_OPEN`, `BPF_BTF_LOAD`, `BPF_BTF_GET_FD_BY_ID`,
    /// `BPF_MAP_FREEZE`, `BPF_BTF_GET_NEXT_ID`, `BPF_LINK_CREATE`, `BPF_LINK_GET_FD_BY_ID`,
    /// `BPF_LINK_GET_NEXT_ID`.
    pub(super) const ATTACHING: &[u64] = &[0, 5, 17, 18, 19, 22, 23, 28, 30, 31];
}

/// Names of threads and of memory (`PR_SET_VMA`), and the auxiliary vector (`PR_GET_AUXV`).
const PRCTL: &[u64] = &[libc::PR_SET_NAME as u64, libc::PR_GET_NAME as u64, 0x5356_4d41, 0x4155_5856];

/// Restricts this thread and those that it starts.
pub(super) fn restrict(needs: &Needs) -> Result<(), String> {
    let program = compile(needs).map_err(|error| error.to_string())?;
    seccompiler::apply_filter(&program).map_err(|error| error.to_string())
}

fn compile(needs: &Needs) -> Result<BpfProgram, BackendError> {
    let enosys = SeccompAction::Errno(libc::ENOSYS as u32);
    let arch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(allowed(needs)?.0, enosys, SeccompAction::Allow, arch)?.try_into()
}

fn allowed(needs: &Needs) -> Result<Allowed, BackendError> {
    let mut allowed = Allowed::default();
    for group in [BASE, OLDER, SOCKETS] {
        allowed.always(group);
    }
    allowed.always(if needs.serving { ACCEPTING } else { &[] });
    allowed.always(if needs.written.is_some() { REPLACING } else { &[] });
    allowed.processes(needs.child)?;
    allowed.memory()?;
    allowed.opening(needs)?;
    allowed.kernel_objects(needs)?;
    let local = libc::AF_UNIX as u64;
    allowed.one_of(libc::SYS_socket, 0, &[local])?;
    if needs.binding {
        allowed.one_of(libc::SYS_socket, 0, &[libc::AF_INET as u64, libc::AF_INET6 as u64])?;
        allowed.always(BINDING);
        allowed.always(GIVING_UP);
        allowed.one_of(libc::SYS_prctl, 0, PRCTL_GIVING_UP)?;
    }
    allowed.when(libc::SYS_socketpair, [equal(0, local)])?;
    let typed = [libc::TIOCSTI, libc::TIOCLINUX].map(|request| differs(1, request));
    allowed.when(libc::SYS_ioctl, typed)?;
    allowed.one_of(libc::SYS_prctl, 0, PRCTL)?;
    Ok(allowed)
}

/// System calls, each with the rules of which one must hold; none: always.
#[derive(Default)]
struct Allowed(BTreeMap<i64, Vec<SeccompRule>>);

impl Allowed {
    fn always(&mut self, syscalls: &[c_long]) {
        self.0.extend(syscalls.iter().map(|&syscall| (syscall, Vec::new())));
    }

    /// Also allowed if all of `conditions` hold.
    fn when(
        &mut self,
        syscall: c_long,
        conditions: impl IntoIterator<Item = Result<SeccompCondition, BackendError>>,
    ) -> Result<(), BackendError> {
        let rule = SeccompRule::new(conditions.into_iter().collect::<Result<_, _>>()?)?;
        self.0.entry(syscall).or_default().push(rule);
        Ok(())
    }

    fn one_of(&mut self, syscall: c_long, argument: u8, values: &[u64]) -> Result<(), BackendError> {
        values.iter().try_for_each(|&value| self.when(syscall, [equal(argument, value)]))
    }

    /// Threads, signals to oneself, and the end of a child.
    fn processes(&mut self, child: Option<u32>) -> Result<(), BackendError> {
        let thread = libc::CLONE_THREAD as u64;
        self.when(libc::SYS_clone, [masked(0, thread, thread)])?;
        self.when(libc::SYS_tgkill, [equal(0, std::process::id().into())])?;
        // Asked, not set: the new limits are the third argument, and a pointer.
        self.when(libc::SYS_prlimit64, [is_null(2)])?;
        if let Some(child) = child {
            self.when(libc::SYS_kill, [equal(0, child.into())])?;
            self.always(WAITING);
        }
        Ok(())
    }

    fn memory(&mut self) -> Result<(), BackendError> {
        for syscall in [libc::SYS_mmap, libc::SYS_mprotect] {
            self.when(syscall, [masked(2, libc::PROT_EXEC as u64, 0)])?;
        }
        Ok(())
    }

    fn opening(&mut self, needs: &Needs) -> Result<(), BackendError> {
        if needs.written.is_some() || needs.terminal {
            self.always(&[libc::SYS_openat]);
            #[cfg(target_arch = "x86_64")]
            self.always(&[libc::SYS_open]);
            return Ok(());
        }
        let writing = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC) as u64;
        self.when(libc::SYS_openat, [masked(2, writing, libc::O_RDONLY as u64)])?;
        #[cfg(target_arch = "x86_64")]
        self.when(libc::SYS_open, [masked(1, writing, libc::O_RDONLY as u64)])?;
        Ok(())
    }

    /// BPF, perf events, and the question whether two descriptors are one file.
    fn kernel_objects(&mut self, needs: &Needs) -> Result<(), BackendError> {
        if needs.counters {
            self.one_of(libc::SYS_bpf, 0, bpf_cmd::READING)?;
        }
        if needs.attaching {
            self.one_of(libc::SYS_bpf, 0, bpf_cmd::ATTACHING)?;
            self.always(&[libc::SYS_perf_event_open]);
        }
        if needs.descriptors {
            self.always(&[libc::SYS_kcmp]);
        }
        Ok(())
    }
}

fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, Dword, operator, value)
}

fn equal(argument: u8, value: u64) -> Result<SeccompCondition, BackendError> {
    condition(argument, SeccompCmpOp::Eq, value)
}

fn differs(argument: u8, value: u64) -> Result<SeccompCondition, BackendError> {
    condition(argument, SeccompCmpOp::Ne, value)
}

/// Whether the bits of `mask` are those of `value`.
fn masked(argument: u8, mask: u64, value: u64) -> Result<SeccompCondition, BackendError> {
    condition(argument, SeccompCmpOp::MaskedEq(mask), value)
}

fn is_null(argument: u8) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, seccompiler::SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everything() -> Needs {
        Needs {
            counters: true,
            attaching: true,
            descriptors: true,
            serving: true,
            binding: false,
            terminal: true,
            readable: Vec::new(),
            written: Some("x".into()),
            child: Some(1),
        }
    }

    #[test]
    fn every_filter_fits_into_the_kernel() {
        /// `BPF_MAXINSNS`.
        const MOST: usize = 4096;
        for needs in [Needs::default(), everything()] {
            assert!(compile(&needs).unwrap().len() < MOST);
        }
    }

    #[test]
    fn what_no_command_needs_is_never_allowed() {
        let allowed = allowed(&everything()).unwrap().0;
        for syscall in [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_clone3,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_kexec_load,
            libc::SYS_mount,
            libc::SYS_setns,
            libc::SYS_unshare,
            libc::SYS_bind,
            libc::SYS_listen,
            libc::SYS_io_uring_setup,
            libc::SYS_userfaultfd,
            libc::SYS_keyctl,
            libc::SYS_capset,
            libc::SYS_setuid,
            libc::SYS_openat2,
        ] {
            assert!(!allowed.contains_key(&syscall), "{syscall}");
        }
    }

    #[test]
    fn what_a_command_does_not_need_is_not_allowed() {
        let allowed = allowed(&Needs::default()).unwrap().0;
        for syscall in [libc::SYS_bpf, libc::SYS_perf_event_open, libc::SYS_kcmp, libc::SYS_accept4] {
            assert!(!allowed.contains_key(&syscall), "{syscall}");
        }
        for syscall in [libc::SYS_renameat2, libc::SYS_kill, libc::SYS_wait4] {
            assert!(!allowed.contains_key(&syscall), "{syscall}");
        }
    }
}
