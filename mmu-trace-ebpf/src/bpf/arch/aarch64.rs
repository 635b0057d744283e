//! Everything about arm64: where a function's caller is found, PTEs, and KVM's way through a guest fault.
//!
//! ```c
//! int kvm_handle_guest_abort(struct kvm_vcpu *vcpu);                       // 1: the guest goes on
//! kvm_pfn_t __gfn_to_pfn_memslot(const struct kvm_memory_slot *slot, gfn_t gfn, ...);      // to 6.12
//! kvm_pfn_t __kvm_faultin_pfn(const struct kvm_memory_slot *slot, gfn_t gfn, ...);         // 6.13
//! int kvm_pgtable_stage2_map(struct kvm_pgtable *pgt, u64 addr, u64 size, ...);            // 0: mapped
//! int kvm_pgtable_stage2_relax_perms(struct kvm_pgtable *pgt, u64 addr, ...);              // 0: done
//! static void kvm_s2_put_page(void *addr);
//! ```
//! (`arch/arm64/kvm/mmu.c`, `arch/arm64/kvm/hyp/pgtable.c`.) `kvm_handle_guest_abort` returns 1 for a fault
//! that was fixed and for one that must be retried. What tells them apart: a fault that has looked a
//! frame up is a retry until a mapping is made, or given more rights.
//!
//! `kvm_unmap_gfn_range` and `kvm_set_spte_gfn` always return false. What tells that a mapping was torn
//! down is that the page table page loses a reference, once for each entry that was valid; what tells
//! that `change_pte` was effective is that it maps the page, whether or not it was mapped before.

use aya_ebpf::programs::ProbeContext;
use mmu_trace_ebpf::{
    abi::{arg, offset},
    decide::{bracket_flags, call_flags},
    kind::FaultResult,
    task::access,
};

use super::{
    call::{Entry, Exit, entry_hook, exit_hook},
    maps,
    probes::page_fault::{self, faulting_task, memslot_hva},
    read,
};

/// `PTE_WRITE` (`arch/arm64/include/asm/pgtable-prot.h`), the same bit as `PTE_DBM`.
pub(super) const PTE_WRITE: u64 = 1 << 51;
/// Whether `change_pte` maps a page that is not mapped.
pub(super) const INSTALLS: bool = true;

entry_hook!(fe_fault, kp_fault, entry_probe);
exit_hook!(fx_fault, kr_fault, exit_probe);
entry_hook!(fe_fault_gfn, kp_fault_gfn, lookup_probe);
exit_hook!(fx_s2_map, kr_s2_map, map_probe);
exit_hook!(fx_s2_relax, kr_s2_relax, relax_probe);
entry_hook!(fe_s2_put, kp_s2_put, put_probe);

/// The return address at the entry of a function: the link register.
#[inline(always)]
pub(super) fn return_address(ctx: &ProbeContext) -> u64 {
    // SAFETY: the context of a kprobe program is a pt_regs.
    unsafe { (*ctx.regs).regs[30] }
}

/// The caller of a function that is traced with fentry, in the frame of the trampoline
/// (`prepare_trampoline` in `arch/arm64/net/bpf_jit_comp.c`), which lies behind the arguments:
///
/// ```text
/// arguments | return value, with fexit only | saved registers | padding | FP | self | FP | caller
/// ```
/// `self`, the return address into the function, is known by its value, and by the frame record that it
/// belongs to: the first FP points to the second. (What looks like it may stand elsewhere: the place for
/// a return value holds whatever was there.)
#[inline(always)]
pub(super) fn traced_caller(context: u64, function: u64, _: usize) -> Option<u64> {
    /// Enough for the arguments, the saved registers and both return addresses.
    const WORDS: usize = 12;
    /// The longest distance from a function's address to the return address of its fentry call: a `bti`
    /// and two instructions.
    const MAX_PATCH_LEN: u64 = 16;
    if function == 0 {
        return None;
    }
    let words: [u64; WORDS] = read::at(context)?;
    let mut caller = 0;
    let mut index = WORDS - 1;
    while index > 2 {
        let is_self = words[index - 2].wrapping_sub(function) <= MAX_PATCH_LEN;
        if is_self && words[index - 3] == context + 8 * (index as u64 - 1) {
            caller = words[index];
        }
        index -= 1;
    }
    Some(caller)
}

#[inline(always)]
fn entry_probe(call: &impl Entry) -> Option<()> {
    let vcpu = call.arg(0)?;
    let info = vcpu + offset_of_fault_info()?;
    // `u32` up to 6.1 and `u64` since; the syndrome has 32 bits.
    let syndrome: u32 = read::member(info, offset::FAULT_ESR)?;
    let hpfar: u64 = read::member(info, offset::FAULT_HPFAR)?;
    page_fault::begin(vcpu, fault_ipa(hpfar), fault_access(syndrome)).map(|_| ())
}

#[inline(always)]
fn offset_of_fault_info() -> Option<u64> {
    use super::config;
    Some(config::offset(offset::VCPU_ARCH)? + config::offset(offset::ARCH_FAULT)?)
}

/// The guest physical address of the page, from `HPFAR_EL2` (`kvm_vcpu_get_fault_ipa`).
#[inline(always)]
fn fault_ipa(hpfar: u64) -> u64 {
    const FIPA: u64 = 0xff_ffff_fff0;
    (hpfar & FIPA) << 8
}

/// What an abort was about, from `ESR_EL2` (`arch/arm64/include/asm/esr.h`). Permission and access flag
/// faults hit a mapping that is there; an instruction fetch is a read.
#[inline(always)]
fn fault_access(syndrome: u32) -> u8 {
    const CLASS_SHIFT: u32 = 26;
    const DATA_ABORT_FROM_GUEST: u32 = 0x24;
    const WRITE_NOT_READ: u32 = 1 << 6;
    const STATUS_WITHOUT_LEVEL: u32 = 0x3c;
    const TRANSLATION: u32 = 0x04;
    let is_data = syndrome >> CLASS_SHIFT == DATA_ABORT_FROM_GUEST;
    let write = if is_data && syndrome & WRITE_NOT_READ != 0 { access::WRITE } else { 0 };
    let present = if syndrome & STATUS_WITHOUT_LEVEL == TRANSLATION { 0 } else { access::PRESENT };
    present | write
}

#[inline(always)]
fn exit_probe(call: &impl Exit) -> Option<()> {
    if let Some(task) = faulting_task()
        && task.fault.result == FaultResult::Retry as u8
        && call.int(arg::N_FAULT) != Some(1)
    {
        // An exit to the VMM, or an error.
        task.fault.result = FaultResult::Other as u8;
    }
    page_fault::finish()
}

/// The frame behind the address is looked up: this is about memory, and a retry unless it gets mapped.
#[inline(always)]
fn lookup_probe(call: &impl Entry) -> Option<()> {
    let task = faulting_task()?;
    task.fault.hva = memslot_hva(call.arg(0)?, call.arg(1)?)?;
    task.fault.result = FaultResult::Retry as u8;
    Some(())
}

#[inline(always)]
fn map_probe(call: &impl Exit) -> Option<()> {
    let task = maps::task(read::current_ids().0)?;
    if task.call.flags & call_flags::ACTIVE != 0 {
        if call.int(arg::N_STAGE2_MAP) == Some(0) {
            task.call.flags |= call_flags::CHANGED;
        }
        return Some(());
    }
    resolve(call.int(arg::N_STAGE2_MAP)?)
}

#[inline(always)]
fn relax_probe(call: &impl Exit) -> Option<()> {
    resolve(call.int(arg::N_STAGE2_RELAX)?)
}

/// The page table of the guest that faults was changed, or found changed by somebody else.
#[inline(always)]
fn resolve(error: i32) -> Option<()> {
    const EAGAIN: i32 = 11;
    let task = faulting_task()?;
    let result = match error {
        0 => FaultResult::Fixed,
        _ if error == -EAGAIN => FaultResult::Spurious,
        _ => return None,
    };
    let hva = task.fault.hva;
    page_fault::resolved(task, result as u8, hva)
}

/// A page table page lost an entry. Inside a bracket that is a mapping torn down; inside `change_pte` it
/// is one that makes room for the next.
#[inline(always)]
fn put_probe(_: &impl Entry) -> Option<()> {
    let task = maps::task(read::current_ids().0)?;
    if task.call.flags & call_flags::ACTIVE == 0 {
        task.top()?.flags |= bracket_flags::HIT | bracket_flags::ZAPPED;
    }
    Some(())
}
