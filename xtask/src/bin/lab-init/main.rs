//! Everything that runs inside the lab besides the tracer, in one static binary:
//!
//! ```text
//! /init                       process 1: set up the kernel, start the tracer, ship the results
//!   '- /init workload         the phases, each between two readings of the kernel's counters
//!        '- qemu-system-x86_64 -name guest=lab ...   the VMM with one KVM guest (this binary again)
//! ```

mod bench;
mod boot;
mod bpf;
mod confined;
mod control;
mod crowd;
#[cfg_attr(target_arch = "x86_64", path = "guest/x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "guest/aarch64.rs")]
mod guest;
mod guests;
mod ksm;
mod life;
mod lone;
mod metrics;
mod network;
mod oracle;
mod process;
mod race;
mod refusals;
mod results;
mod sleepers;
mod storm;
mod system;
mod userfault;
mod vm;
mod vmm;
mod workload;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let program = args.first().map(String::as_str).unwrap_or_default();
    let outcome = if program.ends_with(vmm::PROGRAM_SUFFIX) {
        vmm::serve()
    } else if args.get(1).is_some_and(|arg| arg == "workload") {
        match args.get(2).map(String::as_str) {
            Some("--forever") => workload::run_forever(),
            Some("--control") => control::run_workload(),
            _ => workload::run(),
        }
    } else if args.get(1).is_some_and(|arg| arg == "sleepers") {
        sleepers::run()
    } else if args.get(1).is_some_and(|arg| arg == "crowd") {
        crowd::run()
    } else if args.get(1).is_some_and(|arg| arg == "guests") {
        guests::run()
    } else if args.get(1).is_some_and(|arg| arg == "hold") {
        bench::hold()
    } else if args.get(1).is_some_and(|arg| arg == "look") {
        system::look()
    } else if std::process::id() == 1 && guests::is_inside() {
        guests::live()
    } else if std::process::id() == 1 {
        boot::run()
    } else {
        Err(anyhow::anyhow!("this is process 1 of the lab; run `cargo xtask lab` instead"))
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}
