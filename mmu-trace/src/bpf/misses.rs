//! What the kernel says of hits that a kprobe or kretprobe dropped: `missed` of the link's information
//! (`bpf_perf_link_fill_kprobe`, from Linux 6.7 on). Older kernels do not say; there a missed return is
//! noticed only when its task enters again or exits.

use std::{collections::BTreeMap, io};

use aya::{Ebpf, programs::KProbe};

use super::{catalogue::HOOKS, sys};
use crate::model::{Backend, Hook};

/// The links of the probes that this kernel counts misses for.
#[derive(Default)]
pub(super) struct Probes {
    /// Hook and link.
    links: Vec<(&'static str, u32)>,
}

impl Probes {
    /// Finds the links of `hooks`; none where the kernel does not count.
    ///
    /// # Errors
    /// The links cannot be listed.
    pub(super) fn find(ebpf: &Ebpf, hooks: &[Hook]) -> io::Result<Self> {
        let mut probes = Self::default();
        for link in sys::links()? {
            if sys::missed_hits(link.id)?.is_none() {
                continue;
            }
            let owner = hooks.iter().filter(|hook| hook.backend == Backend::Kprobe).find_map(|hook| {
                let spec = HOOKS.iter().find(|spec| spec.name == hook.hook)?;
                let mut programs = [spec.entry, spec.exit].into_iter().flatten();
                programs.any(|p| program_id(ebpf, p.kprobe) == Some(link.program)).then_some(spec.name)
            });
            probes.links.extend(owner.map(|hook| (hook, link.id)));
        }
        Ok(probes)
    }

    /// The hits missed so far, by hook; only what is not zero.
    ///
    /// # Errors
    /// A link cannot be asked any more.
    pub(super) fn misses(&self) -> io::Result<BTreeMap<String, u64>> {
        let mut misses = BTreeMap::new();
        for (hook, link) in &self.links {
            let missed = sys::missed_hits(*link)?.unwrap_or(0);
            if missed > 0 {
                *misses.entry((*hook).to_owned()).or_insert(0) += missed;
            }
        }
        Ok(misses)
    }
}

fn program_id(ebpf: &Ebpf, name: &str) -> Option<u32> {
    let kprobe: &KProbe = ebpf.program(name)?.try_into().ok()?;
    Some(kprobe.info().ok()?.id())
}
