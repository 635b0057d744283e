//! What the kernel says of hits that its probes dropped. It has two counters, and both must be asked:
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

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, OwnedFd},
};

use aya::Ebpf;

use super::{
    catalogue::HOOKS,
    ladder::{TASK_EXIT, TASK_EXIT_PROGRAM},
    side::TracingLink,
    sys,
};
use crate::model::{Backend, Hook};

/// Everything that may drop hits.
#[derive(Default)]
pub(super) struct Probes {
    /// Hook and program.
    programs: Vec<(&'static str, OwnedFd)>,
    /// Hook and link; only links that count.
    links: Vec<(&'static str, u32)>,
}

impl Probes {
    /// Finds what `hooks` are attached with; `tracing` are their fentry and fexit links.
    ///
    /// # Errors
    /// The programs or links cannot be asked.
    pub(super) fn find(ebpf: &Ebpf, tracing: &[TracingLink], hooks: &[Hook]) -> io::Result<Self> {
        let mut probes = Self::default();
        for link in tracing {
            probes.programs.push((link.hook, link.program.try_clone()?));
        }
        let is_kprobe = |name: &str| hooks.iter().any(|h| h.hook == name && h.backend == Backend::Kprobe);
        for spec in HOOKS.iter().filter(|spec| is_kprobe(spec.name)) {
            for programs in [spec.entry, spec.exit].into_iter().flatten() {
                if let Some(program) = loaded(ebpf, programs.kprobe)? {
                    probes.programs.push((spec.name, program));
                }
            }
        }
        if let Some(program) = loaded(ebpf, TASK_EXIT_PROGRAM)? {
            probes.programs.push((TASK_EXIT, program));
        }
        probes.find_links()?;
        Ok(probes)
    }

    fn find_links(&mut self) -> io::Result<()> {
        let mut owners = BTreeMap::new();
        for (hook, program) in &self.programs {
            owners.insert(sys::program_info(program.as_fd())?.id, *hook);
        }
        for link in sys::links()? {
            if let Some(hook) = owners.get(&link.program)
                && sys::missed_hits(link.id)?.is_some()
            {
                self.links.push((hook, link.id));
            }
        }
        Ok(())
    }

    /// The hits dropped so far, by hook; only what is not zero.
    ///
    /// # Errors
    /// A program or link cannot be asked any more.
    pub(super) fn misses(&self) -> io::Result<BTreeMap<String, u64>> {
        let mut misses = BTreeMap::new();
        let mut add = |hook: &str, n: u64| {
            if n > 0 {
                *misses.entry(hook.to_owned()).or_insert(0) += n;
            }
        };
        for (hook, program) in &self.programs {
            add(hook, sys::program_info(program.as_fd())?.recursion_misses);
        }
        for (hook, link) in &self.links {
            add(hook, sys::missed_hits(*link)?.unwrap_or(0));
        }
        Ok(misses)
    }
}

/// The program called `name`, if it is loaded.
fn loaded(ebpf: &Ebpf, name: &str) -> io::Result<Option<OwnedFd>> {
    let fd = ebpf.program(name).and_then(|program| program.fd().ok());
    fd.map(|fd| fd.as_fd().try_clone_to_owned()).transpose()
}
