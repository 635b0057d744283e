//! The guest on arm64: EL1 with its MMU off, so that addresses are those of the memslots.
//!
//! It ends with a breakpoint and not with MMIO, which would be one more stage-2 fault.

use anyhow::{Context, Result};
use kvm_bindings::{
    KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_USE_SW_BP, KVM_REG_ARM_CORE, KVM_REG_ARM64, KVM_REG_SIZE_U64,
    kvm_guest_debug, kvm_vcpu_init,
};
use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};

use super::vm::{Access, Errand};

/// `x0` the first address, `x1` the number of pages, `w2` the byte.
///
/// ```text
///       cbz  x1, done
/// next: ldrb w3, [x0]      or  strb w2, [x0]
///       add  x0, x0, #0x1000
///       subs x1, x1, #1
///       b.ne next
/// done: brk  #0
/// ```
pub(crate) fn program(access: Access) -> Vec<u8> {
    let touch: u32 = match access {
        Access::Read => 0x3940_0003,
        Access::Write => 0x3900_0002,
    };
    let code = [0xb400_00a1, touch, 0x9140_0400, 0xf100_0421, 0x54ff_ffa1, 0xd420_0000];
    code.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// Initialises a new vCPU, and has its breakpoints come to us.
pub(crate) fn prepare(vm: &VmFd, vcpu: &VcpuFd) -> Result<()> {
    let mut target = kvm_vcpu_init::default();
    vm.get_preferred_target(&mut target).context("KVM names no CPU to emulate")?;
    vcpu.vcpu_init(&target).context("cannot initialise the vCPU")?;
    let debug =
        kvm_guest_debug { control: KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP, ..Default::default() };
    vcpu.set_guest_debug(&debug).context("cannot intercept breakpoints")
}

/// Sets the registers for an errand.
pub(crate) fn send(vcpu: &VcpuFd, errand: &Errand) -> Result<()> {
    /// Indices of `struct user_pt_regs`, in words of 64 bits.
    const PC: u64 = 32;
    const PSTATE: u64 = 33;
    /// EL1 with its own stack pointer, all interrupts masked.
    const EL1H_MASKED: u64 = 0x3c5;
    let registers = [
        (0, errand.first_address),
        (1, errand.n_pages),
        (2, errand.value.into()),
        (PC, errand.entry),
        (PSTATE, EL1H_MASKED),
    ];
    for (word, value) in registers {
        // A core register is named by its offset in words of 32 bits.
        let id = KVM_REG_ARM64 | KVM_REG_SIZE_U64 | u64::from(KVM_REG_ARM_CORE) | (2 * word);
        vcpu.set_one_reg(id, &value.to_le_bytes()).context("cannot set the registers")?;
    }
    Ok(())
}

/// Whether the guest has come to the end of its program.
pub(crate) fn is_done(exit: &VcpuExit) -> bool {
    matches!(exit, VcpuExit::Debug(_))
}
