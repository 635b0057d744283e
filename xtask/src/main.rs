//! Build, lab and check tasks: `cargo xtask <task>`.

mod ebpf;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the BPF object, or check the committed one
    Ebpf(ebpf::Args),
}

fn main() -> Result<()> {
    match Cli::parse().task {
        Task::Ebpf(args) => ebpf::run(&args),
    }
}
