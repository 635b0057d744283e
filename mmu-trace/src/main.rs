//! The `mmu-trace` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    mmu_trace::cli::main()
}
