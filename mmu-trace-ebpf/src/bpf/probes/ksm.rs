//! KSM's steps, and NUMA balancing's scan: scopes a task is inside of, and how they ended.
//!
//! ```c
//! static int write_protect_page(struct vm_area_struct *vma, struct page *page, pte_t *orig_pte); // folio: 6.10
//! static int try_to_merge_one_page(struct vm_area_struct *vma, struct page *page, struct page *kpage);
//! static int break_ksm(struct vm_area_struct *vma, unsigned long addr, ...);
//! unsigned long change_prot_numa(struct vm_area_struct *vma, unsigned long addr, unsigned long end);
//! ```
//! (`mm/ksm.c`, `mm/mempolicy.c`.) Compilers rename them (`.isra.0`, `.constprop.0`); userspace
//! attaches to the renamed ones. Of KSM's only scopes and return values are used, no arguments.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use mmu_trace_ebpf::{
    abi::{Event, PageKey, UNATTRIBUTED, arg, event_kind, offset},
    decide::scope,
    kind::{Cause, Gap, Initiator},
    page::pte_state,
    task::{KsmOp, TaskState},
};

use super::super::{
    call::{Entry, Exit, entry_hook, exit_hook},
    maps::{self, add, count},
    read, stream, vm,
};

entry_hook!(fe_ksm_wp, kp_ksm_wp, write_protect_probe);
exit_hook!(fx_ksm_wp, kr_ksm_wp, write_protect_returned);
entry_hook!(fe_ksm_merge, kp_ksm_merge, merge_probe);
exit_hook!(fx_ksm_merge, kr_ksm_merge, merge_returned);
entry_hook!(fe_ksm_break, kp_ksm_break, break_probe);
exit_hook!(fx_ksm_break, kr_ksm_break, break_returned);
entry_hook!(fe_numa, kp_numa, numa_probe);
exit_hook!(fx_numa, kr_numa, numa_returned);

#[inline(always)]
fn write_protect_probe(_: &impl Entry) -> Option<()> {
    enter(scope::KSM_WRITE_PROTECT)
}

#[inline(always)]
fn write_protect_returned(call: &impl Exit) -> Option<()> {
    leave(scope::KSM_WRITE_PROTECT, call.int(arg::N_WRITE_PROTECT)?)
}

#[inline(always)]
fn merge_probe(_: &impl Entry) -> Option<()> {
    enter(scope::KSM_MERGE)
}

#[inline(always)]
fn merge_returned(call: &impl Exit) -> Option<()> {
    leave(scope::KSM_MERGE, call.int(arg::N_MERGE)?)
}

#[inline(always)]
fn break_probe(_: &impl Entry) -> Option<()> {
    enter(scope::KSM_BREAK)
}

#[inline(always)]
fn break_returned(_: &impl Exit) -> Option<()> {
    leave(scope::KSM_BREAK, 0)
}

/// Every process is scanned; address spaces without KVM are left at once.
#[inline(always)]
fn numa_probe(call: &impl Entry) -> Option<()> {
    let mm = read::member(call.arg(0)?, offset::VMA_MM)?;
    if vm::slot_of(mm) == UNATTRIBUTED {
        return None;
    }
    enter(scope::NUMA)
}

#[inline(always)]
fn numa_returned(_: &impl Exit) -> Option<()> {
    leave(scope::NUMA, 0)
}

/// The current task enters a scope.
#[inline(always)]
pub(super) fn enter(scope: u32) -> Option<()> {
    let task = maps::task_or_new(read::current_ids().0)?;
    if task.scopes & scope != 0 {
        count(Gap::MissedKsmReturn);
    }
    task.scopes |= scope;
    if scope == scope::KSM_WRITE_PROTECT {
        task.ksm.write_protect = 0;
    } else if scope == scope::KSM_MERGE {
        task.ksm = TaskState::IDLE.ksm;
    }
    Some(())
}

/// The current task leaves a scope with the function's return value.
#[inline(always)]
pub(super) fn leave(scope: u32, ret: i32) -> Option<()> {
    let task = maps::task(read::current_ids().0)?;
    if task.scopes & scope == 0 {
        return None;
    }
    task.scopes &= !scope;
    if scope == scope::KSM_WRITE_PROTECT {
        write_protected(task, ret)
    } else if scope == scope::KSM_MERGE {
        merged(task, ret)
    } else {
        Some(())
    }
}

/// `write_protect_page` ended: 0, or it gave up after tearing the mapping down.
#[inline(always)]
fn write_protected(task: &mut TaskState, ret: i32) -> Option<()> {
    if task.ksm.write_protect == 0 {
        return None;
    }
    let stats = maps::stats(task.ksm.slot)?;
    if ret == 0 {
        add(&mut stats.would_be[Cause::KsmWriteProtect as usize], 1);
        return Some(());
    }
    add(&mut stats.ksm_failed_attempts, 1);
    if task.ksm.write_protect_zapped != 0 {
        // The PTE stayed as it was.
        let page = maps::page(&PageKey { mm: task.ksm.mm, page: task.ksm.addr >> 12 }, task.ksm.slot)?;
        page.pte = pte_state::UNCHANGED;
    }
    Some(())
}

/// `try_to_merge_one_page` ended.
#[inline(always)]
fn merged(task: &mut TaskState, ret: i32) -> Option<()> {
    if task.ksm.merge == 0 {
        return None;
    }
    let stats = maps::stats(task.ksm.slot)?;
    if ret == 0 {
        add(&mut stats.ksm_merges, 1);
        if task.ksm.replace != 0 {
            add(&mut stats.would_be[Cause::KsmReplace as usize], 1);
        }
    }
    emit(&task.ksm, ret);
    Some(())
}

#[inline(always)]
fn emit(ksm: &KsmOp, ret: i32) {
    stream::emit(|| Event {
        // SAFETY: no preconditions.
        ts_ns: unsafe { bpf_ktime_get_ns() },
        kind: event_kind::KSM_MERGE,
        cause: Cause::KsmReplace as u8,
        initiator: Initiator::Ksmd as u8,
        detail: (ret == 0) as u8,
        flags: 0,
        tid: read::current_ids().0,
        slot: ksm.slot,
        addr: ksm.addr,
        value: 0,
        caller: 0,
        duration_ns: u64::MAX,
        delay_ns: 0,
    });
}
