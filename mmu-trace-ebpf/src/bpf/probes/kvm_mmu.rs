//! KVM inside a bracket: its unmap and its TLB flush.
//!
//! ```c
//! int  kvm_unmap_hva_range(struct kvm *kvm, unsigned long start, unsigned long end, unsigned flags); // 5.10
//! bool kvm_unmap_gfn_range(struct kvm *kvm, struct kvm_gfn_range *range);                            // 5.13
//! void kvm_flush_remote_tlbs(struct kvm *kvm);
//! ```
//! The unmap's return says whether it zapped; on some paths it lies (5.10's TDP half, yielding
//! walks), where the flush still tells. From 6.8 on the unmap also runs outside of notifiers: it
//! counts only inside a bracket of the same task. 5.10's is called for any range of the VMM, so that
//! only a zap tells that there was guest memory in it.

use mmu_trace_ebpf::{
    abi::{UNATTRIBUTED, arg, offset, value},
    decide::bracket_flags,
    task::Bracket,
};

use super::super::{
    call::{Entry, Exit, entry_hook, exit_hook},
    config, maps, read, vm,
};

entry_hook!(fe_unmap, kp_unmap, unmap_probe);
exit_hook!(fx_unmap, kr_unmap, unmap_returned);
entry_hook!(fe_flush, kp_flush, flush_probe);

#[inline(always)]
fn unmap_probe(call: &impl Entry) -> Option<()> {
    let task = maps::task(read::current_ids().0)?;
    let top = task.top()?;
    mark_found(top);
    attribute(top, call.arg(0)?)
}

/// KVM itself names the VM, which may not be known yet.
#[inline(always)]
fn attribute(bracket: &mut Bracket, kvm: u64) -> Option<()> {
    if bracket.slot == UNATTRIBUTED {
        let mm: u64 = read::member(kvm, offset::KVM_MM)?;
        if mm == bracket.mm {
            bracket.slot = vm::slot_or_register(mm, kvm);
        }
    }
    Some(())
}

#[inline(always)]
fn mark_found(bracket: &mut Bracket) {
    if config::value(value::HANDLERS_BY_HVA) != 1 {
        bracket.flags |= bracket_flags::HIT;
    }
}

/// An fexit program sees the arguments, and needs no entry before it.
#[inline(always)]
fn unmap_returned(call: &impl Exit) -> Option<()> {
    let top = unmapped(call.truth(arg::N_UNMAP)?)?;
    attribute(top, call.arg(0)?)
}

#[inline(always)]
fn flush_probe(_: &impl Entry) -> Option<()> {
    flushed()
}

/// KVM's unmap ended in the current task's innermost bracket.
#[inline(always)]
pub(super) fn unmapped(zapped: bool) -> Option<&'static mut Bracket> {
    let top = maps::task(read::current_ids().0)?.top()?;
    mark_found(top);
    if zapped {
        top.flags |= bracket_flags::HIT | bracket_flags::ZAPPED;
    }
    Some(top)
}

/// KVM flushed TLBs, perhaps inside a bracket.
#[inline(always)]
pub(super) fn flushed() -> Option<()> {
    maps::task(read::current_ids().0)?.mark_flush();
    Some(())
}
