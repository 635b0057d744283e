//! What a probe sees of the hooked function's call, whatever it is attached with.
//!
//! fentry and fexit programs see an array: the arguments, then (fexit) the return value. Reading it
//! with a helper gives plain scalars, where direct loads would give typed pointers that the verifier
//! lets nobody compute with; and the position of the return value may come from BTF.

use aya_ebpf::{
    EbpfContext,
    programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext},
};

use super::{arch, config, read};

/// A call that begins.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    /// The first five arguments.
    pub args: [u64; 5],
    /// Return address in the caller; 0: unknown. Only hooks made by `caller_hook` have it.
    pub caller: u64,
}

/// A call that ends. A return probe knows no arguments.
#[derive(Clone, Copy)]
pub(super) struct Exit {
    /// The context of an fexit program, to read arguments from; 0 in a return probe.
    context: u64,
    /// The return value; only as many bits count as its type has.
    pub ret: u64,
}

/// Words of an fentry context that may hold arguments, saved registers and two return addresses.
pub(super) const CONTEXT_WORDS: usize = 12;

impl Entry {
    #[inline(always)]
    pub(super) fn from_fentry(ctx: &FEntryContext) -> Option<Self> {
        Some(Self { args: read::at(ctx.as_ptr() as u64)?, caller: 0 })
    }

    /// Also finds the caller, see `arch::traced_caller`.
    #[inline(always)]
    pub(super) fn from_fentry_with_caller(
        ctx: &FEntryContext,
        function: usize,
        n_args: usize,
    ) -> Option<Self> {
        let context = ctx.as_ptr() as u64;
        let words: [u64; CONTEXT_WORDS] = read::at(context)?;
        let caller = arch::traced_caller(&words, context, config::function(function), n_args);
        Some(Self { args: [words[0], words[1], words[2], words[3], words[4]], caller })
    }

    #[inline(always)]
    pub(super) fn from_kprobe(ctx: &ProbeContext) -> Option<Self> {
        let arg = |n| ctx.arg::<u64>(n).unwrap_or(0);
        Some(Self { args: [arg(0), arg(1), arg(2), arg(3), arg(4)], caller: 0 })
    }

    /// Also finds the caller, see `arch::return_address`.
    #[inline(always)]
    pub(super) fn from_kprobe_with_caller(ctx: &ProbeContext) -> Option<Self> {
        let mut entry = Self::from_kprobe(ctx)?;
        entry.caller = arch::return_address(ctx);
        Some(entry)
    }
}

impl Exit {
    #[inline(always)]
    pub(super) fn from_fexit(ctx: &FExitContext, n_args: usize) -> Option<Self> {
        let context = ctx.as_ptr() as u64;
        let n_args = config::arg(n_args) as u64;
        Some(Self { context, ret: read::at(context + n_args * 8)? })
    }

    /// For a function whose return value is not wanted, or is none.
    #[inline(always)]
    pub(super) fn without_value(ctx: &FExitContext) -> Option<Self> {
        Some(Self { context: ctx.as_ptr() as u64, ret: 0 })
    }

    #[inline(always)]
    pub(super) fn from_kretprobe(ctx: &RetProbeContext) -> Option<Self> {
        Some(Self { context: 0, ret: ctx.ret::<u64>() })
    }

    /// The argument at a position; `None` in a return probe.
    #[inline(always)]
    pub(super) fn arg(&self, position: u64) -> Option<u64> {
        if self.context == 0 { None } else { read::at(self.context + position * 8) }
    }

    /// The return value as C's `int`.
    #[inline(always)]
    pub(super) fn int(&self) -> i32 {
        self.ret as i32
    }

    /// The return value as C's `bool`, or an `int` that means one.
    #[inline(always)]
    pub(super) fn truth(&self) -> bool {
        self.ret as u32 & 0xff != 0
    }
}

/// Declares the fentry and kprobe programs of a hook at a function's entry.
macro_rules! entry_hook {
    ($fentry:ident, $kprobe:ident, $body:path) => {
        #[aya_ebpf::macros::fentry]
        fn $fentry(ctx: aya_ebpf::programs::FEntryContext) -> i32 {
            let _ = $crate::bpf::call::Entry::from_fentry(&ctx).and_then(|call| $body(&call));
            0
        }

        #[aya_ebpf::macros::kprobe]
        fn $kprobe(ctx: aya_ebpf::programs::ProbeContext) -> u32 {
            let _ = $crate::bpf::call::Entry::from_kprobe(&ctx).and_then(|call| $body(&call));
            0
        }
    };
}

/// The same for a function whose caller is wanted; `$function` indexes `abi::function`, `$n_args` is
/// how many arguments it takes.
macro_rules! caller_hook {
    ($fentry:ident, $kprobe:ident, $function:expr, $n_args:expr, $body:path) => {
        #[aya_ebpf::macros::fentry]
        fn $fentry(ctx: aya_ebpf::programs::FEntryContext) -> i32 {
            let call = $crate::bpf::call::Entry::from_fentry_with_caller(&ctx, $function, $n_args);
            let _ = call.and_then(|call| $body(&call));
            0
        }

        #[aya_ebpf::macros::kprobe]
        fn $kprobe(ctx: aya_ebpf::programs::ProbeContext) -> u32 {
            let call = $crate::bpf::call::Entry::from_kprobe_with_caller(&ctx);
            let _ = call.and_then(|call| $body(&call));
            0
        }
    };
}

/// Declares the fexit and kretprobe programs of a hook at a function's return; `$n_args` indexes
/// `abi::arg`, and without it the return value is not read.
macro_rules! exit_hook {
    ($fexit:ident, $kretprobe:ident, $n_args:expr, $body:path) => {
        $crate::bpf::call::exit_hook!(@ $fexit, $kretprobe, $body,
            |ctx| $crate::bpf::call::Exit::from_fexit(ctx, $n_args));
    };
    ($fexit:ident, $kretprobe:ident, $body:path) => {
        $crate::bpf::call::exit_hook!(@ $fexit, $kretprobe, $body, $crate::bpf::call::Exit::without_value);
    };
    (@ $fexit:ident, $kretprobe:ident, $body:path, $exit:expr) => {
        #[aya_ebpf::macros::fexit]
        fn $fexit(ctx: aya_ebpf::programs::FExitContext) -> i32 {
            let exit: fn(&aya_ebpf::programs::FExitContext) -> Option<$crate::bpf::call::Exit> = $exit;
            let _ = exit(&ctx).and_then(|call| $body(&call));
            0
        }

        #[aya_ebpf::macros::kretprobe]
        fn $kretprobe(ctx: aya_ebpf::programs::RetProbeContext) -> u32 {
            let _ = $crate::bpf::call::Exit::from_kretprobe(&ctx).and_then(|call| $body(&call));
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
            let call = $crate::bpf::call::Entry::from_kprobe(&ctx);
            let _ = call.zip(seventh).and_then(|(call, seventh)| $body(&call, seventh));
            0
        }
    };
}

#[cfg(bpf_target_arch = "x86_64")]
pub(super) use stack_argument_hook;
pub(super) use {caller_hook, entry_hook, exit_hook};
