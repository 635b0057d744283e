//! Which VM an address space belongs to: registration, lookup, end.
//!
//! MMU notifiers know address spaces, not VMs: what they report concerns every VM of a process. So the
//! VMs of one address space share a slot, which counts how many of them live and ends with the last.
//! The address of a dead `mm_struct` is soon used again, at times even under the same process id: with
//! its last user an address space loses its slot, whose figures stay for userspace to read.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use mmu_trace_ebpf::{
    abi::{Event, FIRST_SLOT, OTHER, UNATTRIBUTED, VmSlot, event_kind, mmu, offset},
    kind::Gap,
    task::{KnownVm, TaskState},
};

use super::{
    config,
    maps::{FREE_SLOTS, NO_EXIST, VM_SLOTS, VMS, add, count},
    read::{self, Process},
    stream,
};

/// The slot of a registered VM, else `UNATTRIBUTED`.
#[inline(always)]
pub(super) fn slot_of(mm: u64) -> u32 {
    // SAFETY: the value is copied at once.
    unsafe { VMS.get(mm) }.copied().unwrap_or(UNATTRIBUTED)
}

/// The slot of an address space that a task deals with, which may be the one that it dealt with before.
#[inline(always)]
pub(super) fn slot_for(task: &mut TaskState, mm: u64) -> u32 {
    if task.vm.mm == mm && lives_in(mm, task.vm.slot) {
        return task.vm.slot;
    }
    let slot = slot_of(mm);
    task.vm = KnownVm { mm, vcpu: 0, slot, pad: 0 };
    slot
}

/// Whether a VM of the address space `mm` lives in a slot of its own, which so is that of `mm`.
#[inline(always)]
pub(super) fn lives_in(mm: u64, slot: u32) -> bool {
    VM_SLOTS.get(slot).is_some_and(|holder| holder.mm == mm && holder.ended_ns == 0)
}

/// The slot of a VM that KVM itself just named, registering it if it is new.
#[inline(always)]
pub(super) fn slot_or_register(mm: u64, kvm: u64) -> u32 {
    let slot = slot_of(mm);
    if slot != UNATTRIBUTED { slot } else { register(mm, kvm, read::mm_process(mm)) }
}

/// Gives an address space a slot; all for which there is none share one.
#[inline(always)]
pub(super) fn register(mm: u64, kvm: u64, process: Process) -> u32 {
    let Ok(Some(slot)) = FREE_SLOTS.pop() else {
        count(Gap::VmsFull);
        return if VMS.insert(mm, OTHER, NO_EXIST).is_ok() { OTHER } else { slot_of(mm) };
    };
    // SAFETY: no preconditions.
    let created_ns = unsafe { bpf_ktime_get_ns() };
    let Process { tgid, born_ns } = process;
    let holder = VmSlot { mm, kvm, created_ns, ended_ns: 0, born_ns, n_vms: 1, tgid, mmu: mmu::UNKNOWN };
    if VM_SLOTS.set(slot, &holder, 0).is_err() || VMS.insert(mm, slot, NO_EXIST).is_err() {
        // Another CPU registered the same VM in between.
        let free =
            VmSlot { mm: 0, kvm: 0, created_ns: 0, ended_ns: 0, born_ns: 0, n_vms: 0, tgid: 0, mmu: 0 };
        let _ = VM_SLOTS.set(slot, free, 0);
        let _ = FREE_SLOTS.push(slot, 0);
        return slot_of(mm);
    }
    stream::emit(|| event(event_kind::VM_START, slot, tgid, created_ns));
    slot
}

/// A `struct kvm` is being created in the current task's address space.
#[inline(always)]
pub(super) fn start(mm: u64, kvm: u64, process: Process) {
    let slot = slot_of(mm);
    if slot == UNATTRIBUTED {
        register(mm, kvm, process);
        return;
    }
    if slot == OTHER {
        return;
    }
    let Some(holder) = VM_SLOTS.get_ptr_mut(slot) else { return };
    // SAFETY: slots are plain values; userspace frees one only after its VM ended.
    let holder = unsafe { &mut *holder };
    let is_same = holder.tgid == process.tgid && holder.born_ns == process.born_ns;
    if is_same || holder.tgid == 0 {
        holder.kvm = kvm;
        holder.tgid = process.tgid;
        holder.born_ns = process.born_ns;
        add(&mut holder.n_vms, 1);
        if holder.ended_ns != 0 {
            // Page records from before are of VMs that have ended.
            // SAFETY: no preconditions.
            holder.created_ns = unsafe { bpf_ktime_get_ns() };
            holder.ended_ns = 0;
        }
        return;
    }
    // The address of an ended VM's `mm_struct` was used again before userspace freed its slot.
    let _ = VMS.remove(mm);
    register(mm, kvm, process);
}

/// A vCPU thread faults for the first time: by now KVM has made its choices for this VM.
#[inline(always)]
pub(super) fn note_kvm(slot: u32, kvm: u64) -> Option<()> {
    if slot < FIRST_SLOT {
        return None;
    }
    let holder = VM_SLOTS.get_ptr_mut(slot)?;
    // SAFETY: as above.
    let holder = unsafe { &mut *holder };
    holder.kvm = kvm;
    let arch = kvm + config::offset(offset::KVM_ARCH)?;
    let is_tdp: u8 = read::member(arch, offset::ARCH_TDP_MMU)?;
    holder.mmu = if is_tdp & 1 != 0 { mmu::TDP } else { mmu::RMAP };
    Some(())
}

/// A `struct kvm` is being destroyed.
#[inline(always)]
pub(super) fn end(mm: u64) {
    let slot = slot_of(mm);
    if slot == OTHER {
        // If the process has more of them, the next one that KVM names is registered anew.
        let _ = VMS.remove(mm);
    }
    if slot < FIRST_SLOT {
        return;
    }
    let Some(holder) = VM_SLOTS.get_ptr_mut(slot) else { return };
    // SAFETY: as above.
    let holder = unsafe { &mut *holder };
    add(&mut holder.n_vms, u64::MAX);
    // SAFETY: a counter in a map value. Volatile: other CPUs count as well.
    let n_left = unsafe { core::ptr::from_ref(&holder.n_vms).read_volatile() } as i64;
    let is_dead = read::mm_is_dead(mm);
    if n_left > 0 && !is_dead {
        return;
    }
    // SAFETY: no preconditions.
    holder.ended_ns = unsafe { bpf_ktime_get_ns() };
    stream::emit(|| event(event_kind::VM_END, slot, holder.tgid, holder.ended_ns));
    if is_dead {
        let _ = VMS.remove(mm);
    }
}

#[inline(always)]
fn event(kind: u8, slot: u32, tgid: u32, ts_ns: u64) -> Event {
    Event {
        ts_ns,
        kind,
        cause: 0,
        initiator: 0,
        detail: 0,
        flags: 0,
        tid: read::current_ids().0,
        slot,
        addr: 0,
        value: tgid as u64,
        caller: 0,
        duration_ns: u64::MAX,
        delay_ns: 0,
    }
}
