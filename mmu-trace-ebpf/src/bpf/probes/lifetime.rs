//! Beginning and end of VMs and tasks.
//!
//! ```c
//! int  kvm_arch_init_vm(struct kvm *kvm, unsigned long type); // kvm->mm is set, kvm_create_vm is inlined
//! static void kvm_destroy_vm(struct kvm *kvm);
//! struct mm_struct *get_task_mm(struct task_struct *task);
//! ```
//! VMs that exist already are found by userspace, which reads `/proc/PID/status` of each VMM while
//! `get_task_mm` is hooked, and for no longer.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use mmu_trace_ebpf::{
    abi::{UNATTRIBUTED, arg, offset, value},
    decide::scope,
    kind::Gap,
};

use super::{
    super::{
        call::{Entry, Exit, entry_hook, exit_hook},
        config,
        maps::{self, count},
        read::{self, Process},
        vm,
    },
    page_fault,
};

entry_hook!(fe_vm_create, kp_vm_create, create_probe);
entry_hook!(fe_vm_destroy, kp_vm_destroy, destroy_probe);
exit_hook!(fx_task_mm, kr_task_mm, task_mm_returned);

/// `sched_process_exit`: the thread id may be used again. A task exits from no hooked function: what it
/// still seems to be inside of, it has left unseen.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
fn tp_task_exit(_: RawTracePointContext) -> i32 {
    task_exited();
    0
}

#[inline(always)]
pub(super) fn task_exited() -> Option<()> {
    let tid = read::current_ids().0;
    let task = maps::task(tid)?;
    let scopes = task.scopes;
    if scopes & scope::FAULT != 0 {
        count(Gap::MissedFaultReturn);
        page_fault::attribute_missed(task);
    }
    maps::forget_task(task, tid);
    if scopes & scope::MM != 0 {
        count(Gap::MissedKsmReturn);
    }
    Some(())
}

#[inline(always)]
fn create_probe(call: &impl Entry) -> Option<()> {
    let kvm = call.arg(0)?;
    let mm = read::member(kvm, offset::KVM_MM)?;
    // Whoever creates a VM owns its address space, also where the kernel keeps no owner.
    vm::start(mm, kvm, Process { tgid: read::current_ids().1, ..read::mm_process(mm) });
    Some(())
}

#[inline(always)]
fn destroy_probe(call: &impl Entry) -> Option<()> {
    vm::end(read::member(call.arg(0)?, offset::KVM_MM)?);
    Some(())
}

#[inline(always)]
fn task_mm_returned(call: &impl Exit) -> Option<()> {
    let tracer = config::value(value::TRACER_TGID);
    if read::current_ids().1 != tracer {
        return None;
    }
    let mm = call.ret(arg::N_GET_TASK_MM)?;
    if mm == 0 {
        return None;
    }
    let process = read::mm_process(mm);
    if process.tgid != tracer && process.tgid != 0 && vm::slot_of(mm) == UNATTRIBUTED {
        vm::register(mm, 0, process);
    }
    Some(())
}
