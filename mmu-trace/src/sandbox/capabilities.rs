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
/// - `CAP_DAC_READ_SEARCH` for KSM's account of other users' processes, and for a file that is read and is
///   another user's;
/// - that and `CAP_SYS_PTRACE` for their descriptors;
/// - `CAP_DAC_OVERRIDE` only for a text file in a folder that is not root's;
/// - `CAP_NET_BIND_SERVICE` until the server's port is bound;
/// - `CAP_KILL` to end a command that has become another user's.
fn needed(needs: &Needs) -> CapabilitySet {
    let mut set = CapabilitySet::empty();
    set.set(CapabilitySet::SYS_ADMIN | CapabilitySet::SYSLOG, needs.attaching);
    set.set(CapabilitySet::BPF, needs.counters && !needs.attaching);
    let reads_others =
        needs.counters || needs.descriptors || needs.readable.iter().any(|it| takes_read_search(it));
    set.set(CapabilitySet::DAC_READ_SEARCH, reads_others);
    set.set(CapabilitySet::NET_BIND_SERVICE, needs.binding);
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

/// Whether this process as it is now may do `access` with what is at `path`.
fn may(path: &Path, access: Access) -> bool {
    accessat(CWD, path, access, AtFlags::EACCESS).is_ok()
}

/// Whether the file at `path` can be replaced with `CAP_DAC_OVERRIDE` alone: whether its folder can be written.
fn takes_override(path: &Path) -> bool {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    // Of a bare file name the parent is empty.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    takes(CapabilitySet::DAC_OVERRIDE, folder, Access::WRITE_OK | Access::EXEC_OK)
}

/// Whether the file at `path` can be read with `CAP_DAC_READ_SEARCH` alone.
fn takes_read_search(path: &Path) -> bool {
    takes(CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH, path, Access::READ_OK)
}

/// Whether `access` is for this process with one of `these` capabilities, and not without.
fn takes(these: CapabilitySet, path: &Path, access: Access) -> bool {
    let Ok(held) = capabilities(None) else { return false };
    if !held.effective.intersects(these) || !may(path, access) {
        return false;
    }
    let without = CapabilitySets { effective: held.effective - these, ..held };
    let Ok(()) = set_capabilities(None, without) else { return false };
    let takes_them = !may(path, access);
    // What was just there can be had back.
    _ = set_capabilities(None, held);
    takes_them
}
