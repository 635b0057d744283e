//! The object's program `driver`, which runs the bodies of the probes without their hooks: for tests and
//! benchmarks of the in-kernel logic on a machine that has neither KVM nor kprobes.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use anyhow::{Context, Result};
use aya::{Ebpf, programs::RawTracePoint};
use aya_obj::generated::bpf_cmd;

use super::sys;

/// Most arguments of one run: `struct bpf_raw_tp_test_run_info` takes 12, the operations of
/// `mmu_trace_ebpf::abi::driver_op` need fewer.
const MAX_ARGS: usize = 12;

/// Has the kernel measure BPF programs for as long as the returned descriptor lives (from Linux 5.8 on).
///
/// # Errors
/// The kernel refuses.
#[cfg(feature = "bench")]
pub fn measure_programs() -> io::Result<OwnedFd> {
    let mut attr = sys::zeroed();
    attr.enable_stats.type_ = aya_obj::generated::bpf_stats_type::BPF_STATS_RUN_TIME as u32;
    sys::bpf(bpf_cmd::BPF_ENABLE_STATS, &mut attr).map(sys::owned)
}

/// A loaded program.
pub struct Driver {
    program: OwnedFd,
}

impl Driver {
    /// Loads the program called `name`: one of `probes/driver.rs` of the object.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub(super) fn load(ebpf: &mut Ebpf, name: &str) -> Result<Self> {
        let program = ebpf.program_mut(name).with_context(|| format!("the object has no program {name}"))?;
        let program: &mut RawTracePoint = program.try_into()?;
        program.load()?;
        Ok(Self { program: program.fd()?.as_fd().try_clone_to_owned()? })
    }

    /// Runs the program with arguments: for `driver` an operation of `mmu_trace_ebpf::abi::driver_op` and its.
    ///
    /// # Errors
    /// The kernel refuses.
    ///
    /// # Panics
    /// With more than 12 words.
    pub fn run(&self, args: &[u64]) -> io::Result<()> {
        let mut context = [0; MAX_ARGS];
        context[..args.len()].copy_from_slice(args);
        let mut attr = sys::zeroed();
        attr.test.prog_fd = self.program.as_raw_fd() as u32;
        attr.test.ctx_in = context.as_ptr() as u64;
        attr.test.ctx_size_in = size_of_val(&context) as u32;
        sys::bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attr).map(drop)
    }

    /// How often the program ran and for how long, nanoseconds, while the kernel measured it.
    ///
    /// # Errors
    /// The kernel refuses to tell.
    #[cfg(feature = "bench")]
    pub fn runs(&self) -> io::Result<(u64, u64)> {
        let info = sys::program_info(self.program.as_fd())?;
        Ok((info.runs, info.run_ns))
    }

    /// Instructions that the verifier walked (from Linux 5.16 on; 0 before).
    ///
    /// # Errors
    /// The kernel refuses to tell.
    #[cfg(feature = "bench")]
    pub fn verified_instructions(&self) -> io::Result<u32> {
        Ok(sys::program_info(self.program.as_fd())?.verified)
    }
}
