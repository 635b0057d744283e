//! What a probe sees of the hooked function's call, whatever it is attached with.
//!
//! A body asks for what it needs, and pays for no more. fentry and fexit programs see an array: the
//! arguments, then (fexit) the return value. Direct loads from it would give typed pointers that the
//! verifier lets nobody compute with; `bpf_get_func_arg` and `bpf_get_func_ret` (from Linux 5.17 on) give
//! plain scalars, and cost nothing, for the verifier replaces their calls. On older kernels the array is
//! read as memory.

use aya_ebpf::{
    EbpfContext,
    helpers::generated::{bpf_get_func_arg, bpf_get_func_ret},
    programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext},
};
use mmu_trace_ebpf::abi::value;

use super::{arch, config, read};

/// A call that begins.
pub(super) trait Entry {
    /// The argument at a position, below 6.
    fn arg(&self, position: u32) -> Option<u64>;

    /// The return address in the caller; 0: unknown. `function` indexes `abi::function`, `n_args` is how many
    /// arguments it takes.
    fn caller(&self, function: usize, n_args: usize) -> u64;
}

/// A call that ends.
pub(super) trait Exit {
    /// The argument at a position; `None` in a return probe.
    fn arg(&self, position: u32) -> Option<u64>;

    /// The return value, of which only as many bits count as its type has; `n_args` indexes `abi::arg`.
    fn ret(&self, n_args: usize) -> Option<u64>;

    /// The return value as C's `int`.
    #[inline(always)]
    fn int(&self, n_args: usize) -> Option<i32> {
        self.ret(n_args).map(|ret| ret as i32)
    }

    /// The return value as C's `bool`, or an `int` that means one.
    #[inline(always)]
    fn truth(&self, n_args: usize) -> Option<bool> {
        self.ret(n_args).map(|ret| ret as u32 & 0xff != 0)
    }
}

impl Entry for FEntryContext {
    #[inline(always)]
    fn arg(&self, position: u32) -> Option<u64> {
        traced_arg(self, position)
    }

    /// See `arch::traced_caller`.
    #[inline(always)]
    fn caller(&self, function: usize, n_args: usize) -> u64 {
        arch::traced_caller(self.as_ptr() as u64, config::function(function), n_args).unwrap_or(0)
    }
}

impl Entry for ProbeContext {
    #[inline(always)]
    fn arg(&self, position: u32) -> Option<u64> {
        ProbeContext::arg(self, position as usize)
    }

    /// See `arch::return_address`.
    #[inline(always)]
    fn caller(&self, _: usize, _: usize) -> u64 {
        arch::return_address(self)
    }
}

impl Exit for FExitContext {
    #[inline(always)]
    fn arg(&self, position: u32) -> Option<u64> {
        traced_arg(self, position)
    }

    #[inline(always)]
    fn ret(&self, n_args: usize) -> Option<u64> {
        if !has_helpers() {
            return read::at(self.as_ptr() as u64 + config::arg(n_args) as u64 * 8);
        }
        let mut ret = 0;
        // SAFETY: the context is that of a tracing program, and `ret` is valid.
        let error = unsafe { bpf_get_func_ret(self.as_ptr(), &mut ret) };
        if error == 0 { Some(ret) } else { None }
    }
}

impl Exit for RetProbeContext {
    #[inline(always)]
    fn arg(&self, _: u32) -> Option<u64> {
        None
    }

    #[inline(always)]
    fn ret(&self, _: usize) -> Option<u64> {
        Some(RetProbeContext::ret(self))
    }
}

#[inline(always)]
fn traced_arg(ctx: &impl EbpfContext, position: u32) -> Option<u64> {
    if !has_helpers() {
        return read::at(ctx.as_ptr() as u64 + position as u64 * 8);
    }
    let mut arg = 0;
    // SAFETY: the context is that of a tracing program, and `arg` is valid.
    let error = unsafe { bpf_get_func_arg(ctx.as_ptr(), position, &mut arg) };
    if error == 0 { Some(arg) } else { None }
}

#[inline(always)]
fn has_helpers() -> bool {
    config::value(value::FUNC_ARG_HELPERS) == 1
}

/// Declares the fentry and kprobe programs of a hook at a function's entry.
macro_rules! entry_hook {
    ($fentry:ident, $kprobe:ident, $body:path) => {
        #[aya_ebpf::macros::fentry]
        fn $fentry(ctx: aya_ebpf::programs::FEntryContext) -> i32 {
            let _ = $body(&ctx);
            0
        }

        #[aya_ebpf::macros::kprobe]
        fn $kprobe(ctx: aya_ebpf::programs::ProbeContext) -> u32 {
            let _ = $body(&ctx);
            0
        }
    };
}

/// Declares the fexit and kretprobe programs of a hook at a function's return.
macro_rules! exit_hook {
    ($fexit:ident, $kretprobe:ident, $body:path) => {
        #[aya_ebpf::macros::fexit]
        fn $fexit(ctx: aya_ebpf::programs::FExitContext) -> i32 {
            let _ = $body(&ctx);
            0
        }

        #[aya_ebpf::macros::kretprobe]
        fn $kretprobe(ctx: aya_ebpf::programs::RetProbeContext) -> u32 {
            let _ = $body(&ctx);
            0
        }
    };
}

/// Declares the kprobe program of a hook whose seventh argument is wanted: on x86-64 it lies on the stack.
#[cfg(bpf_target_arch = "x86_64")]
macro_rules! stack_argument_hook {
    ($kprobe:ident, $body:path) => {
        #[aya_ebpf::macros::kprobe]
        fn $kprobe(ctx: aya_ebpf::programs::ProbeContext) -> u32 {
            let seventh = $crate::bpf::arch::seventh_argument(&ctx);
            let _ = seventh.and_then(|seventh| $body(&ctx, seventh));
            0
        }
    };
}

#[cfg(bpf_target_arch = "x86_64")]
pub(super) use stack_argument_hook;
pub(super) use {entry_hook, exit_hook};
