//! Capabilities: which are kept, and what for.

use std::{fs, path::Path};

use rustix::{
    fs::{Access, AtFlags, CWD, accessat},
    io::Errno,
    process::{Resource, Rlimit, setrlimit},
    thread::{
        CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
        clear_ambient_capability_set, no_new_privs, remove_capability_from_bounding_set, set_capabilities,
    },
};

use super::Needs;

/// What `needs` takes:
///
/// - `CAP_SYS_ADMIN` to attach: the kernel gives the BTF of a module (`BPF_BTF_GET_FD_BY_ID`) and the links
///   that count missed hits (`BPF_LINK_GET_NEXT_ID`) to nobody else; `CAP_BPF` and `CAP_PERFMON` are in it;
/// - `CAP_SYSLOG` to attach: addresses in `/proc/kallsyms`;
/// - `CAP_BPF` to read maps: kernels before 5.19 with `kernel.unprivileged_bpf_disabled` want it for that;
/// - `CAP_DAC_READ_SEARCH` for KSM's account of other users' processes;
/// - that and `CAP_SYS_PTRACE` for their descriptors;
/// - `CAP_DAC_OVERRIDE` only for a text file in a folder that is not root's;
/// - `CAP_KILL` to end a command that has become another user's.
fn needed(needs: &Needs) -> CapabilitySet {
    let mut set = CapabilitySet::empty();
    set.set(CapabilitySet::SYS_ADMIN | CapabilitySet::SYSLOG, needs.attaching);
    set.set(CapabilitySet::BPF, needs.counters && !needs.attaching);
    set.set(CapabilitySet::DAC_READ_SEARCH, needs.counters || needs.descriptors);
    set.set(CapabilitySet::SYS_PTRACE, needs.descriptors);
    set.set(CapabilitySet::KILL, needs.child.is_some());
    set.set(CapabilitySet::DAC_OVERRIDE, needs.written.as_deref().is_some_and(takes_override));
    set
}

/// Gives up every other one.
pub(super) fn keep(needs: &Needs) -> Result<(), String> {
    let kept = needed(needs);
    if needs.attaching {
        unlimit_maps();
    }
    // The bounding set first: it takes CAP_SETPCAP. Without that one, what an exec could give is refused by
    // no_new_privs.
    let is_bounded = bound(kept);
    clear_ambient_capability_set().map_err(|error| format!("ambient set: {error}"))?;
    let held = capabilities(None).map_err(|error| error.to_string())?;
    let kept = held.permitted & kept;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).map_err(|error| error.to_string())?;
    match (is_bounded, no_new_privs()) {
        (Ok(()), _) | (Err(_), Ok(true)) => Ok(()),
        (Err(error), _) => Err(format!("bounding set: {error}")),
    }
}

/// Kernels before 5.11 count maps as locked memory, whose limit nobody can raise later.
fn unlimit_maps() {
    // Where it is refused, it either need not be raised or the next attachment says so.
    _ = setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None });
}

fn bound(kept: CapabilitySet) -> rustix::io::Result<()> {
    for bit in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        match capability_is_in_bounding_set(one) {
            Ok(true) if !kept.contains(one) => remove_capability_from_bounding_set(one)?,
            Ok(_) => {}
            // The last one that this kernel knows was the one before.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The capabilities that this thread has, by name.
pub(super) fn held() -> Vec<String> {
    let held = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.permitted);
    held.iter_names().map(|(name, _)| format!("CAP_{name}")).collect()
}

/// Whether the file at `path` can be replaced by this process as it is now: whether its folder is writable.
fn may_write(path: &Path) -> bool {
    // Of a bare file name the parent is empty.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    accessat(CWD, folder, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS).is_ok()
}

/// Whether the file at `path` can be replaced with `CAP_DAC_OVERRIDE` alone.
fn takes_override(path: &Path) -> bool {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let Ok(held) = capabilities(None) else { return false };
    if !held.effective.contains(CapabilitySet::DAC_OVERRIDE) || !may_write(&path) {
        return false;
    }
    let without = CapabilitySets { effective: held.effective - CapabilitySet::DAC_OVERRIDE, ..held };
    let Ok(()) = set_capabilities(None, without) else { return false };
    let takes_it = !may_write(&path);
    // What was just there can be had back.
    _ = set_capabilities(None, held);
    takes_it
}
