//! Build, lab and check tasks: `cargo xtask <task>`.

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
    /// Nothing yet.
    Nothing,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    match cli.task {
        Task::Nothing => Ok(()),
    }
}
