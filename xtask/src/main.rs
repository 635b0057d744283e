//! Build, lab and check tasks: `cargo xtask <task>`.

mod bench;
mod browser;
mod ci;
mod dashboards;
mod docs;
mod ebpf;
mod lab;
mod man;
mod nightly;
mod packages;
mod packaging;
mod prometheus;
mod tally;
mod tools;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Measure what mmu-trace costs, and compare with the budgets.
    Bench(bench::Args),
    /// Look at the dashboards, the HTML report, the landing page and top, in Chromium and a terminal.
    Browser(browser::Args),
    /// Run every test there is, the lab included.
    Ci(ci::Args),
    /// Write the dashboards, rules and alerts, or check the committed ones.
    Dashboards(dashboards::Args),
    /// Write the page of all metrics and the example configuration, or check the committed ones.
    Docs(docs::Args),
    /// Build the BPF object, or check the committed one.
    Ebpf(ebpf::Args),
    /// Boot a KVM host under emulation, trace it, and compare every count with the kernel's own.
    Lab(lab::Args),
    /// Write the manual pages and the shell completions.
    Man,
    /// Build the packages, and check that they install, work and go again.
    Package(packaging::Args),
    /// Run the tests that need a Prometheus with the newest one of Debian.
    Prometheus(prometheus::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Bench(args) => bench::run(&args),
        Task::Browser(args) => browser::run(&args),
        Task::Ci(args) => ci::run(&args),
        Task::Dashboards(args) => dashboards::run(&args),
        Task::Docs(args) => docs::run(&args),
        Task::Ebpf(args) => ebpf::run(&args),
        Task::Lab(args) => lab::run(&args),
        Task::Man => man::run(),
        Task::Package(args) => packaging::run(&args),
        Task::Prometheus(args) => prometheus::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
