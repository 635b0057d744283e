//! Who holds a VM slot: the process behind an address space, as `/proc` shows it.

use std::path::Path;

use mmu_trace_ebpf::abi::VmSlot;

use crate::{
    model::VmIdentity,
    vm::{self, Descriptors, ProcError},
};

/// Who the process of a VM is; one that is gone has only its id.
pub(super) fn identify(holder: &VmSlot) -> VmIdentity {
    let pid = holder.tgid;
    let gone =
        || VmIdentity { name: format!("pid-{pid}"), pid, vmm: "unknown".to_owned(), ..VmIdentity::default() };
    // Asked afterwards: a process that still runs then is the one that was looked at.
    let found = vm::identify(Path::new("/proc"), pid).ok();
    found.filter(|_| is_running(holder)).unwrap_or_else(gone)
}

/// Whether the process of a VM still runs: one with its id that started at another time is another.
pub(super) fn is_running(holder: &VmSlot) -> bool {
    /// `USER_HZ` is 100 wherever KVM runs.
    const NS_PER_TICK: u64 = 10_000_000;
    if holder.tgid == 0 {
        return true;
    }
    let started = vm::start_time_ticks(Path::new("/proc"), holder.tgid);
    started.is_ok_and(|ticks| holder.born_ns == 0 || ticks == holder.born_ns / NS_PER_TICK)
}

/// Notes how many VMs the process has, unless it is known to have had one only. Its descriptors show a
/// VM a moment after the kernel side, which in turn counts those from before the tracer as one.
///
/// # Errors
/// The helper that counts is gone.
pub(super) fn recount(
    identity: &mut VmIdentity,
    holder: &VmSlot,
    descriptors: &Descriptors,
) -> Result<(), ProcError> {
    let begun = u32::try_from(holder.n_vms).unwrap_or(0);
    if holder.ended_ns == 0 && (identity.n_vms != 1 || begun > 1) {
        let found = vms_of(identity.pid, descriptors)?;
        identity.n_vms = identity.n_vms.max(found).max(begun);
    }
    Ok(())
}

/// The VMs of a process; none of one that is gone.
///
/// # Errors
/// The helper that counts is gone: nothing is known of the process.
pub(super) fn vms_of(pid: u32, descriptors: &Descriptors) -> Result<u32, ProcError> {
    match descriptors.count_vms(Path::new("/proc"), pid) {
        Err(error @ ProcError::Helper(_)) => Err(error),
        counted => Ok(counted.unwrap_or(0)),
    }
}
