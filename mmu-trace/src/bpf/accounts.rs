//! What the kernel says of our programs: the hits that it dropped, and what the runs cost.
//!
//! Of dropped hits it has two counters, and both must be asked:
//!
//! - `recursion_misses` of a program (`struct bpf_prog_info`): hits for which the program was not run.
//!   fentry and fexit are not run while the same program, preempted, still runs for another task on
//!   that CPU (`__bpf_prog_enter_recur`, counted from Linux 5.12 on). A kprobe's program is not run
//!   while any BPF work is under way there, a map system call of whoever included
//!   (`bpf_prog_active` in `trace_call_bpf`, counted from 6.7 on). On kernels that do not preempt
//!   kernel code neither happens to functions that run in a task.
//! - `missed` of a link (`bpf_perf_link_fill_kprobe`, from 6.7 on): hits that the kprobe or kretprobe
//!   dropped itself, say because too many calls sleep at once.
//!
//! What older kernels do not count is noticed, if at all, when a task enters again or exits.
//!
//! Runs and their time it counts only while `kernel.bpf_stats_enabled` is 1 (from Linux 5.1 on).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::fd::{AsFd, OwnedFd},
};

use aya::Ebpf;

use super::{
    catalogue::HOOKS,
    ladder::{TASK_EXIT, TASK_EXIT_PROGRAM},
    side::TracingLink,
    sys::{self, ProgramInfo},
};
use crate::model::{Backend, Hook, ProgramRuns};

/// Whether the kernel measures BPF programs.
const STATS_ENABLED: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Everything that may drop hits.
#[derive(Default)]
pub(super) struct Programs {
    programs: Vec<Program>,
    /// Hook and link; only links that count.
    links: Vec<(&'static str, OwnedFd)>,
}

struct Program {
    hook: &'static str,
    backend: Backend,
    fd: OwnedFd,
}

/// What the kernel says now.
pub(super) struct Accounts {
    /// Dropped hits by hook, of the hooks for which it counts them.
    pub misses: BTreeMap<String, u64>,
    /// What runs cost; `None` if it is not measured.
    pub runs: Option<Vec<ProgramRuns>>,
}

impl Programs {
    /// Finds what `hooks` are attached with; `tracing` are their fentry and fexit links.
    ///
    /// # Errors
    /// The programs or links cannot be asked.
    pub(super) fn find(ebpf: &Ebpf, tracing: &[TracingLink], hooks: &[Hook]) -> io::Result<Self> {
        let mut found = Self::default();
        for link in tracing {
            found.add(link.hook, Backend::Fentry, link.program.try_clone()?);
        }
        let is_kprobe = |name: &str| hooks.iter().any(|h| h.hook == name && h.backend == Backend::Kprobe);
        for spec in HOOKS.iter().filter(|spec| is_kprobe(spec.name)) {
            for programs in [spec.entry, spec.exit].into_iter().flatten() {
                if let Some(program) = loaded(ebpf, programs.kprobe)? {
                    found.add(spec.name, Backend::Kprobe, program);
                }
            }
        }
        if let Some(program) = loaded(ebpf, TASK_EXIT_PROGRAM)? {
            found.add(TASK_EXIT, Backend::RawTracepoint, program);
        }
        found.find_links()?;
        Ok(found)
    }

    fn add(&mut self, hook: &'static str, backend: Backend, fd: OwnedFd) {
        self.programs.push(Program { hook, backend, fd });
    }

    fn find_links(&mut self) -> io::Result<()> {
        let mut owners = BTreeMap::new();
        for program in &self.programs {
            owners.insert(program.info()?.id, program.hook);
        }
        for link in sys::links()? {
            if let Some(hook) = owners.get(&link.program)
                && sys::missed_hits(link.fd.as_fd())?.is_some()
            {
                self.links.push((hook, link.fd));
            }
        }
        Ok(())
    }

    /// What the kernel has counted so far.
    ///
    /// # Errors
    /// A program or link cannot be asked any more.
    pub(super) fn accounts(&self) -> io::Result<Accounts> {
        let infos: Vec<(&Program, ProgramInfo)> =
            self.programs.iter().map(|program| Ok((program, program.info()?))).collect::<io::Result<_>>()?;
        let misses = self.misses(&infos)?;
        let runs: Vec<ProgramRuns> = infos.into_iter().map(|(_, info)| info.into()).collect();
        let is_measured = is_enabled() || runs.iter().any(|runs| runs.runs > 0);
        Ok(Accounts { misses, runs: is_measured.then_some(runs) })
    }

    fn misses(&self, infos: &[(&Program, ProgramInfo)]) -> io::Result<BTreeMap<String, u64>> {
        // The kernels that count what a kprobe's program missed are those that count what the kprobe did.
        let counting: BTreeSet<&str> = self.links.iter().map(|(hook, _)| *hook).collect();
        let mut misses = BTreeMap::new();
        let mut add = |hook: &str, n: u64| *misses.entry(hook.to_owned()).or_insert(0) += n;
        for (program, info) in infos {
            if program.backend != Backend::Kprobe || counting.contains(program.hook) {
                info.misses.into_iter().for_each(|n| add(program.hook, n));
            }
        }
        for (hook, link) in &self.links {
            add(hook, sys::missed_hits(link.as_fd())?.unwrap_or(0));
        }
        Ok(misses)
    }
}

impl Program {
    fn info(&self) -> io::Result<ProgramInfo> {
        sys::program_info(self.fd.as_fd())
    }
}

impl From<ProgramInfo> for ProgramRuns {
    fn from(info: ProgramInfo) -> Self {
        Self { program: info.name, runs: info.runs, run_ns: info.run_ns }
    }
}

fn is_enabled() -> bool {
    fs::read_to_string(STATS_ENABLED).is_ok_and(|value| value.trim() == "1")
}

/// The program called `name`, if it is loaded.
fn loaded(ebpf: &Ebpf, name: &str) -> io::Result<Option<OwnedFd>> {
    let fd = ebpf.program(name).and_then(|program| program.fd().ok());
    fd.map(|fd| fd.as_fd().try_clone_to_owned()).transpose()
}
