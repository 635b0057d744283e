//! Runs the probes' bodies without their hooks, for `BPF_PROG_TEST_RUN`: tests and benchmarks of the
//! in-kernel logic on a machine that has neither KVM nor kprobes. Never attached.

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::raw_tracepoint, programs::RawTracePointContext};
use mmu_trace_ebpf::{
    abi::{Event, FIRST_SLOT, driver_op, event_flags, event_kind},
    decide::call_flags,
    kind::{Cause, FaultResult, Initiator},
};

use super::{
    super::{
        maps::{self, IDLE_TASK},
        read::{self, Block, Process},
        stream, vm,
    },
    change_pte, invalidate,
    invalidate::{RANGE_HEAD, RANGE_WORDS, Range},
    ksm, kvm_mmu, lifetime, page_fault,
};

// Inlined into its own entry: as a function it would carry a mangled name, see `xtask/src/ebpf.rs`.
#[raw_tracepoint(tracepoint = "sys_enter")]
#[inline(always)]
fn driver(ctx: RawTracePointContext) -> i32 {
    let arg = |n: usize| ctx.arg::<u64>(n);
    let done = match arg(0) {
        driver_op::RANGE_START => read_any::<RANGE_WORDS>().and(invalidate::begin(&Range {
            mm: arg(1),
            start: arg(2),
            end: arg(3),
            event: arg(4) as u32 & 0xff,
            blockable: arg(4) & 0x100 != 0,
            caller: arg(5),
        })),
        driver_op::RANGE_END => read_any::<RANGE_HEAD>().and(invalidate::finish(arg(1), arg(2))),
        driver_op::CHANGE_PTE => change_pte::open(arg(1), arg(2), arg(3), arg(4)),
        driver_op::SET_SPTE => {
            let handled = if arg(1) != 0 { call_flags::HANDLED } else { 0 };
            let changed = if arg(2) != 0 { call_flags::CHANGED } else { 0 };
            change_pte::mark(call_flags::SUBSCRIBER | handled | changed)
        }
        driver_op::CHANGE_PTE_END => change_pte::close_timing(),
        driver_op::UNMAP => kvm_mmu::unmapped(arg(1) != 0).map(|_| ()),
        driver_op::FLUSH => kvm_mmu::flushed(),
        driver_op::FAULT => page_fault::begin(0, arg(2), arg(3) as u8)
            .and_then(|task| page_fault::attribute_to(task, arg(1), vm::slot_of(arg(1)))),
        driver_op::FAULT_END => {
            if let Some(task) = page_fault::faulting_task() {
                page_fault::resolved(task, arg(1) as u8, arg(2));
            }
            page_fault::finish()
        }
        driver_op::SCOPE if arg(2) != 0 => ksm::enter(arg(1) as u32),
        driver_op::SCOPE => ksm::leave(arg(1) as u32, arg(3) as i32),
        driver_op::VM_START => {
            vm::start(arg(1), arg(2), Process { tgid: arg(3) as u32, born_ns: arg(4) });
            Some(())
        }
        driver_op::VM_END => {
            vm::end(arg(1));
            Some(())
        }
        driver_op::TASK_EXIT => lifetime::task_exited(),
        driver_op::EMIT => {
            emit(arg(1));
            Some(())
        }
        _ => None,
    };
    done.is_some() as i32
}

/// A program that does nothing: what a run costs.
#[raw_tracepoint(tracepoint = "sys_enter")]
fn driver_empty(_: RawTracePointContext) -> i32 {
    0
}

/// The least that a program can do and still say who: one count for each thread.
#[raw_tracepoint(tracepoint = "sys_enter")]
fn driver_count(_: RawTracePointContext) -> i32 {
    if let Some(task) = maps::task_or_new(read::current_ids().1) {
        task.overflow += 1;
    }
    0
}

/// Reads kernel memory as the hooks of a range do, for what that costs.
#[inline(always)]
fn read_any<const WORDS: usize>() -> Option<()> {
    Block::<WORDS>::read(core::ptr::from_ref(IDLE_TASK.get(0)?) as u64).map(|_| ())
}

/// Writes `n` events as a busy guest would make them.
#[inline(always)]
fn emit(n: u64) {
    for index in 0..driver_op::MOST_EMITTED {
        if index >= n {
            break;
        }
        // SAFETY: no preconditions.
        let now = unsafe { bpf_ktime_get_ns() };
        stream::emit(|| Event {
            ts_ns: now,
            kind: event_kind::PAGE_FAULT,
            cause: Cause::KsmWriteProtect as u8,
            initiator: Initiator::Vcpu as u8,
            detail: FaultResult::Fixed as u8,
            flags: event_flags::REFAULT | event_flags::AVOIDABLE,
            tid: read::current_ids().0,
            slot: FIRST_SLOT,
            addr: 0x7f00_0000_0000 + (now << 8 & 0xffff_f000),
            value: now << 8 & 0xffff_f000,
            caller: 0,
            duration_ns: now & 0xffff,
            delay_ns: now & 0xfff_ffff,
        });
    }
}
