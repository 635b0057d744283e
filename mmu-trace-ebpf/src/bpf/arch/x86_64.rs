//! Everything about x86-64: where a function's caller is found, PTEs, and KVM's way through a guest fault.
//!
//! ```c
//! int kvm_mmu_page_fault(struct kvm_vcpu *vcpu, gpa_t cr2_or_gpa, u64 error_code, void *insn, int len);
//! int kvm_tdp_page_fault(struct kvm_vcpu *vcpu, gpa_t gpa, u32 error_code, bool prefault);  // to 5.15
//! int kvm_tdp_page_fault(struct kvm_vcpu *vcpu, struct kvm_page_fault *fault);              // 5.16
//! kvm_pfn_t hva_to_pfn(unsigned long addr, bool atomic, ...);                               // to 6.12
//! ```
//! The outer function sees every exit for a page (NPF, EPT violation, MMIO) but returns 1 for fixed
//! and retry alike; the inner one returns the `RET_PF_*` code, and its `fault` names memslot and gfn.
//! Shadow paging and nested guests enter neither the inner function nor, so, the refault figures:
//! they end as `other`. Prefetching calls of the inner function run outside the outer one and do
//! not count.
//!
//! ```c
//! static int mmu_set_spte(struct kvm_vcpu *vcpu, struct kvm_memory_slot *slot, u64 *sptep, unsigned int
//!                         pte_access, gfn_t gfn, kvm_pfn_t pfn, struct kvm_page_fault *fault);  // 5.16
//! ```
//! The rmap MMU maps up to seven neighbours with a writable page; those calls have no `fault`.
//!
//! KVM's `change_pte` changes a mapping that is there, and drops it if the new PTE is writable.

use aya_ebpf::programs::ProbeContext;
use mmu_trace_ebpf::{
    abi::{MISSING, arg, offset, value},
    kind::FaultResult,
    task::{access, fault_flags},
};

use super::{
    call::{Entry, Exit, entry_hook, exit_hook, stack_argument_hook},
    config,
    probes::page_fault::{self, faulting_task, memslot_hva},
    read,
};

/// `_PAGE_RW`.
pub(super) const PTE_WRITE: u64 = 1 << 1;
/// Whether `change_pte` maps a page that is not mapped.
pub(super) const INSTALLS: bool = false;

entry_hook!(fe_fault, kp_fault, entry_probe);
exit_hook!(fx_fault, kr_fault, exit_probe);
entry_hook!(fe_tdp_fault, kp_tdp_fault, result_entry_probe);
exit_hook!(fx_tdp_fault, kr_tdp_fault, result_probe);
entry_hook!(fe_fault_hva, kp_fault_hva, hva_probe);
stack_argument_hook!(kp_prefetch, prefetch_probe);

/// The return address at the entry of a function. Valid only while no return probe sits on it: that one
/// would have put its own there.
#[inline(always)]
pub(super) fn return_address(ctx: &ProbeContext) -> u64 {
    // SAFETY: the context of a kprobe program is a pt_regs.
    read::at(unsafe { (*ctx.regs).rsp }).unwrap_or(0)
}

/// The argument behind the six that registers hold, above the return address.
#[inline(always)]
pub(super) fn seventh_argument(ctx: &ProbeContext) -> Option<u64> {
    // SAFETY: as above.
    read::at(unsafe { (*ctx.regs).rsp } + 8)
}

/// The caller of a function that is traced with fentry, in the frame of the trampoline
/// (`arch_prepare_bpf_trampoline`), which lies behind the arguments on the same stack:
///
/// ```text
/// arguments | return value, with fexit only | saved rbp | return address(es)
/// ```
/// A function calls its trampoline, so that the return address into the function, known by its
/// value, stands before the caller's. From Linux 6.19 on it jumps to one that serves fexit as
/// well, and the caller's is the only one.
#[inline(always)]
pub(super) fn traced_caller(context: u64, function: u64, n_args: usize) -> Option<u64> {
    if function == 0 {
        return None;
    }
    // From the word behind the arguments on that is the first that may be a return address.
    let words: [u64; 3] = read::at(context + 8 * (n_args as u64 + 1))?;
    let jumped = words[1];
    let mut caller = if is_near(jumped, function) { jumped } else { 0 };
    // The one that is nearest to the arguments counts. By arithmetic, not by branches, of which the verifier
    // would walk every combination.
    for index in [2, 1] {
        let found = core::hint::black_box(is_inside(words[index - 1], function));
        caller = (words[index] & found) | (caller & !found);
    }
    Some(caller)
}

/// All ones if `addr` is where a call of the trampoline of `function` returns to, else 0.
#[inline(always)]
fn is_inside(addr: u64, function: u64) -> u64 {
    /// Behind the longest distance from a function's address to there: an `endbr64` and a five-byte call.
    const END: u64 = 17;
    let distance = addr.wrapping_sub(function);
    // The borrow of `distance - END`.
    let borrow = ((!distance & END) | ((!distance | END) & distance.wrapping_sub(END))) >> 63;
    borrow.wrapping_neg()
}

/// Whether an address may be kernel or module code, all of which lies within 2 GiB.
#[inline(always)]
fn is_near(addr: u64, function: u64) -> bool {
    const REACH: u64 = 1 << 31;
    addr.wrapping_sub(function).wrapping_add(REACH) < 2 * REACH
}

#[inline(always)]
fn entry_probe(call: &impl Entry) -> Option<()> {
    /// `PFERR_*` (`arch/x86/include/asm/kvm_host.h`).
    const PRESENT: u64 = 1;
    const WRITE: u64 = 1 << 1;
    let error_code = call.arg(2)?;
    let present = if error_code & PRESENT != 0 { access::PRESENT } else { 0 };
    let write = if error_code & WRITE != 0 { access::WRITE } else { 0 };
    page_fault::begin(call.arg(0)?, call.arg(1)?, present | write).map(|_| ())
}

#[inline(always)]
fn exit_probe(_: &impl Exit) -> Option<()> {
    page_fault::finish()
}

/// A return probe sees no arguments: keep the fault for it. An fexit program needs no such entry.
#[inline(always)]
fn result_entry_probe(call: &impl Entry) -> Option<()> {
    let task = faulting_task()?;
    task.fault.flags |= fault_flags::RESULT_PENDING;
    let position = config::arg(arg::TDP_FAULT);
    // Each by a constant position: registers are no array to the verifier.
    let args = [call.arg(0)?, call.arg(1)?, call.arg(2)?, call.arg(3)?];
    task.fault.fault = if position < 4 { args[core::hint::black_box(position) as usize & 3] } else { 0 };
    Some(())
}

#[inline(always)]
fn result_probe(call: &impl Exit) -> Option<()> {
    let task = faulting_task()?;
    task.fault.flags &= !fault_flags::RESULT_PENDING;
    let position = config::arg(arg::TDP_FAULT);
    let fault = if position == MISSING { 0 } else { call.arg(position).unwrap_or(task.fault.fault) };
    let hva = fault_hva(fault).unwrap_or(task.fault.hva);
    page_fault::resolved(task, result(call.int(arg::N_TDP_FAULT)?) as u8, hva)
}

/// Where there is no `fault` to read, the lookup of the frame behind the address tells the address.
#[inline(always)]
fn hva_probe(call: &impl Entry) -> Option<()> {
    faulting_task()?.fault.hva = call.arg(0)?;
    Some(())
}

/// A page was mapped with its neighbour, without a fault of its own.
#[inline(always)]
fn prefetch_probe(call: &impl Entry, fault: u64) -> Option<()> {
    if fault != 0 {
        return None;
    }
    page_fault::mapped_ahead(memslot_hva(call.arg(1)?, call.arg(4)?)?)
}

/// The host virtual address that `struct kvm_page_fault` stands for.
#[inline(always)]
fn fault_hva(fault: u64) -> Option<u64> {
    let (gfn, slot) = read::two_members(fault, offset::FAULT_GFN, offset::FAULT_SLOT)?;
    memslot_hva(slot, gfn)
}

/// This kernel's `RET_PF_*` as ours.
#[inline(always)]
fn result(code: i32) -> FaultResult {
    let code = code as u32;
    if code == config::value(value::RET_PF_FIXED) {
        FaultResult::Fixed
    } else if code == config::value(value::RET_PF_RETRY) {
        FaultResult::Retry
    } else if code == config::value(value::RET_PF_SPURIOUS) {
        FaultResult::Spurious
    } else if code == config::value(value::RET_PF_EMULATE) {
        FaultResult::Emulate
    } else {
        FaultResult::Other
    }
}
