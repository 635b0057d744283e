//! `mmu-trace descriptors`, which is nobody's to call: the helper of another mmu-trace.

use anyhow::Context;

use super::{
    CliError,
    confine::{self, SandboxArgs},
};
use crate::{sandbox::Needs, vm};

/// Counts VMs for the process at standard input until that is gone.
///
/// # Errors
/// If there is none.
pub(super) fn run() -> Result<(), CliError> {
    ignore_signals();
    let needs = Needs { descriptors: true, ..Needs::default() };
    confine::warn_of_others(&confine::confine(SandboxArgs::default(), &needs));
    Ok(vm::answer().context("this command is run by mmu-trace itself")?)
}

/// A service manager sends its signals to every process of a service; the helper is needed until the last
/// snapshot is taken.
fn ignore_signals() {
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM] {
        // SAFETY: no function is called when the signal comes.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}
