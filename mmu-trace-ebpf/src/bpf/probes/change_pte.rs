//! The callback itself: `__mmu_notifier_change_pte` and KVM's side of it. All absent from 6.10 on.
//!
//! ```c
//! void __mmu_notifier_change_pte(struct mm_struct *mm, unsigned long address, pte_t pte);
//! static void kvm_mmu_notifier_change_pte(struct mmu_notifier *mn, struct mm_struct *mm,
//!                                         unsigned long address, pte_t pte);
//! int  kvm_set_spte_hva(struct kvm *kvm, unsigned long hva, pte_t pte);      // 5.10
//! static int kvm_set_pte_rmapp(struct kvm *kvm, struct kvm_rmap_head *rmap_head, ...); // below it, in a memslot
//! bool kvm_set_spte_gfn(struct kvm *kvm, struct kvm_gfn_range *range);       // 5.13 to 6.9
//! ```
//! A call is classified at the end of its bracket (see `mmu_trace_ebpf::task`). Its duration needs
//! a return: fexit on the first function, or a return probe on the second, whose caller nobody reads.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use mmu_trace_ebpf::{
    abi::{Event, PageKey, PageRecord, UNATTRIBUTED, VmStats, arg, event_kind, function, value},
    decide::{self, bracket_flags, call_flags},
    kind::{Cause, Gap, Initiator, Outcome},
    task::{ChangePte, TaskState},
};

use super::{
    super::{
        arch,
        call::{Entry, Exit, entry_hook, exit_hook},
        config,
        maps::{self, add, count_since_start, element},
        read, stream, vm,
    },
    invalidate,
};

entry_hook!(fe_change_pte, kp_change_pte, entry_probe);
exit_hook!(fx_change_pte, kr_change_pte, returned);
entry_hook!(fe_kvm_cp, kp_kvm_cp, subscriber_probe);
entry_hook!(fe_set_spte, kp_set_spte, handler_probe);
exit_hook!(fx_set_spte, kr_set_spte, handler_returned);
entry_hook!(fe_set_pte, kp_set_pte, memslot_probe);

#[inline(always)]
fn entry_probe(call: &impl Entry) -> Option<()> {
    open(call.arg(0)?, call.arg(1)?, call.arg(2)?, call.caller(function::CHANGE_PTE, 3))
}

#[inline(always)]
fn returned(_: &impl Exit) -> Option<()> {
    close_timing()
}

/// The current task's open call has returned: it is known how long it took.
#[inline(always)]
pub(super) fn close_timing() -> Option<()> {
    let task = maps::task(read::current_ids().0)?;
    if task.call.flags & call_flags::ACTIVE != 0 {
        // SAFETY: no preconditions.
        task.call.ns = unsafe { bpf_ktime_get_ns() }.wrapping_sub(task.call.t0_ns);
    }
    Some(())
}

#[inline(always)]
fn subscriber_probe(_: &impl Entry) -> Option<()> {
    mark(call_flags::SUBSCRIBER)
}

#[inline(always)]
fn handler_probe(_: &impl Entry) -> Option<()> {
    mark(entered_handler())
}

/// What it means that KVM's handler was entered. The older one takes any address of the VMM.
#[inline(always)]
fn entered_handler() -> u8 {
    let by_hva = config::value(value::HANDLERS_BY_HVA) == 1;
    call_flags::SUBSCRIBER | if by_hva { 0 } else { call_flags::HANDLED }
}

/// The older handler has found a memslot.
#[inline(always)]
fn memslot_probe(_: &impl Entry) -> Option<()> {
    mark(call_flags::SUBSCRIBER | call_flags::HANDLED)
}

/// The handler ends. Where that can be seen without a return probe, its entry is not looked at.
#[inline(always)]
fn handler_returned(call: &impl Exit) -> Option<()> {
    mark(entered_handler() | if call.truth(arg::N_SET_SPTE)? { call_flags::CHANGED } else { 0 })
}

/// Marks the current task's open call.
#[inline(always)]
pub(super) fn mark(flags: u8) -> Option<()> {
    let task = maps::task(read::current_ids().0)?;
    if task.call.flags & call_flags::ACTIVE != 0 {
        task.call.flags |= flags;
    }
    Some(())
}

/// A `change_pte` call begins.
#[inline(always)]
pub(super) fn open(mm: u64, addr: u64, pte: u64, caller: u64) -> Option<()> {
    let (tid, _) = read::current_ids();
    let task = maps::task_or_new(tid)?;
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    close(task, tid, now, |key, slot| maps::page(key, slot).map(|page| &*page));
    let bracket = task.find(|b| b.mm == mm && b.start <= addr && addr < b.end);
    let index = bracket.unwrap_or(0);
    let enclosing = &mut task.brackets[index & 3];
    let initiator = if bracket.is_some() { enclosing.initiator } else { Initiator::Vmm as u8 };
    let writable = pte & arch::PTE_WRITE != 0;
    let cause = read::forgotten(invalidate::cause(caller, task.scopes, initiator, 0), tid);
    if bracket.is_none() {
        return unbracketed(mm, cause);
    }
    enclosing.flags |=
        if writable { bracket_flags::CHANGED_WRITABLE } else { bracket_flags::CHANGED_READ_ONLY };
    let flags = call_flags::ACTIVE | call_flags::OBSERVED | if writable { call_flags::WRITABLE } else { 0 };
    task.call = ChangePte {
        addr,
        pte,
        t0_ns: now,
        ns: u64::MAX,
        caller,
        cause,
        flags,
        bracket: index as u8,
        pad: task.call.pad,
    };
    Some(())
}

#[inline(always)]
fn unbracketed(mm: u64, cause: u8) -> Option<()> {
    count_since_start(Gap::Unbracketed);
    count_call(maps::stats(vm::slot_of(mm))?, cause, Outcome::Unbracketed as u8)
}

#[inline(always)]
fn count_call(stats: &mut VmStats, cause: u8, outcome: u8) -> Option<()> {
    let outcomes = element(&mut stats.change_pte, Cause::of_change_pte(cause));
    add(element(outcomes, outcome as usize), 1);
    Some(())
}

/// Classifies the task's open call, if there is one; `find_page` gives the record of a page of the VM in a slot.
#[inline(always)]
pub(super) fn close<'a>(
    task: &mut TaskState,
    tid: u32,
    now: u64,
    find_page: impl FnOnce(&PageKey, u32) -> Option<&'a PageRecord>,
) -> Option<()> {
    let call = task.call;
    if call.flags & call_flags::ACTIVE == 0 {
        return None;
    }
    task.call.flags = 0;
    let bracket = &mut task.brackets[call.bracket as usize & 3];
    let page = find_page(&PageKey { mm: bracket.mm, page: call.addr >> 12 }, bracket.slot);
    let in_merge = decide::in_merge(call.cause, bracket.initiator);
    let outcome = decide::outcome(in_merge, call.flags, bracket.flags, page, arch::INSTALLS);
    if outcome == Outcome::EffectiveDropped as u8 {
        // Torn down after all, by the call itself: the next access faults.
        bracket.flags |= bracket_flags::FLUSHED;
    } else if arch::INSTALLS && outcome == Outcome::EffectiveUpdated as u8 {
        bracket.flags |= bracket_flags::INSTALLED;
    }
    let stats = maps::stats(bracket.slot).or_else(|| maps::stats(UNATTRIBUTED))?;
    if call.ns != u64::MAX {
        add(&mut stats.change_pte_timed, 1);
        add(&mut stats.change_pte_ns, call.ns);
    }
    count_call(stats, call.cause, outcome);
    stream::emit(|| Event {
        ts_ns: now,
        kind: event_kind::CHANGE_PTE,
        cause: call.cause,
        initiator: bracket.initiator,
        detail: outcome,
        flags: 0,
        tid,
        slot: bracket.slot,
        addr: call.addr,
        value: call.pte,
        caller: call.caller,
        duration_ns: call.ns,
        delay_ns: 0,
    });
    Some(())
}
