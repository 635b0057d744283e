//! The kernel side.
//!
//! Every probe does the same: an attach function of a few lines takes the arguments apart into a
//! [`call::Entry`] or [`call::Exit`]; a body in `probes` works on those plain values, so that all
//! attach variants of a hook, and the test driver, share one body. What differs between architectures
//! is in `arch`, KVM's fault path among it.

#[cfg_attr(bpf_target_arch = "x86_64", path = "arch/x86_64.rs")]
#[cfg_attr(bpf_target_arch = "aarch64", path = "arch/aarch64.rs")]
mod arch;
mod call;
mod config;
mod maps;
mod probes;
mod read;
mod stream;
mod vm;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
