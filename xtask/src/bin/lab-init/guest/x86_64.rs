//! The guest on x86-64: flat 32-bit protected mode without paging.

use anyhow::{Context, Result};
use kvm_bindings::{kvm_regs, kvm_segment};
use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};

use super::vm::{Access, Errand};

/// `esi` the first address, `ecx` the number of pages, `al` the byte.
///
/// ```text
///       jecxz done
/// next: mov bl, [esi]      or  mov [esi], al
///       add esi, 0x1000
///       dec ecx
///       jnz next
/// done: hlt
/// ```
pub(crate) fn program(access: Access) -> [u8; 14] {
    let touch = match access {
        Access::Read => [0x8a, 0x1e],
        Access::Write => [0x88, 0x06],
    };
    [0xe3, 0x0b, touch[0], touch[1], 0x81, 0xc6, 0x00, 0x10, 0x00, 0x00, 0x49, 0x75, 0xf5, 0xf4]
}

/// Puts a new vCPU into protected mode.
pub(crate) fn prepare(_: &VmFd, vcpu: &VcpuFd) -> Result<()> {
    let mut sregs = vcpu.get_sregs().context("cannot read the segment registers")?;
    let data = kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector: 0x10,
        type_: 3,
        present: 1,
        s: 1,
        db: 1,
        g: 1,
        ..Default::default()
    };
    sregs.cs = kvm_segment { selector: 8, type_: 11, ..data };
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.cr0 |= 1;
    vcpu.set_sregs(&sregs).context("cannot enter protected mode")
}

/// Sets the registers for an errand.
pub(crate) fn send(vcpu: &VcpuFd, errand: &Errand) -> Result<()> {
    let regs = kvm_regs {
        rip: errand.entry,
        rsi: errand.first_address,
        rcx: errand.n_pages,
        rax: errand.value.into(),
        rflags: 2,
        ..Default::default()
    };
    vcpu.set_regs(&regs).context("cannot set the registers")
}

/// Whether the guest has come to the end of its program.
pub(crate) fn is_done(exit: &VcpuExit) -> bool {
    matches!(exit, VcpuExit::Hlt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_jumps_of_the_loop_land_on_instructions() {
        let code = program(Access::Read);
        let done = 2 + usize::from(code[1]);
        assert_eq!(code[done], 0xf4);
        let next = code.len() - 1 - (0x100 - usize::from(code[12]));
        assert_eq!(next, 2);
    }
}
