//! `cargo xtask lab`: a real KVM host on any machine.
//!
//! ```text
//!  packages -> kernel image, modules --.
//!  binaries -> lab-init, mmu-trace ----+-> initramfs -> qemu -> results disk -> checks
//! ```
//!
//! The host boots under software emulation, nested virtualisation included, so neither KVM nor root
//! is needed on this side.

mod binaries;
mod checks;
mod emulator;
mod initramfs;
mod kernels;
mod modules;
mod packages;
mod qemu;
mod results;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use self::{checks::Tally, emulator::Emulator, packages::Packages};
use crate::tools;

/// Arguments of `cargo xtask lab`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The kernel to boot.
    #[arg(long, default_value = "6.1")]
    kernel: String,
    /// Keep the workload going and forward the daemon's port to 127.0.0.1:9948, until Ctrl-C.
    #[arg(long)]
    serve: bool,
    /// Give up after this many seconds.
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    timeout: u64,
    /// Show the lab's console.
    #[arg(long)]
    verbose: bool,
    /// Record a second time, with kprobes only, and compare the two recordings.
    #[arg(long)]
    ladder: bool,
    /// Instead of the phases: attach and detach this often while a guest faults.
    #[arg(long, value_name = "TIMES", conflicts_with_all = ["serve", "ladder", "no_tracer"])]
    storm: Option<u32>,
    /// Leave the tracer out: only check that the kernel behaves as the formulae say.
    #[arg(long, conflicts_with_all = ["serve", "ladder"])]
    no_tracer: bool,
}

impl Args {
    /// What `cargo xtask ci` runs.
    pub(crate) fn for_ci() -> Self {
        Self {
            kernel: "6.1".to_owned(),
            serve: false,
            timeout: 600,
            verbose: false,
            ladder: true,
            no_tracer: false,
            storm: None,
        }
    }
}

/// Runs the lab; any check that fails is an error.
pub(crate) fn run(args: &Args) -> Result<()> {
    let tally = run_and_tally(args)?;
    if tally.failed > 0 {
        bail!("{} of {} lab checks failed", tally.failed, tally.passed + tally.failed);
    }
    Ok(())
}

/// Runs the lab and counts its checks. An error means that it did not get as far as checking.
pub(crate) fn run_and_tally(args: &Args) -> Result<Tally> {
    let kernel = kernels::find(&args.kernel)?;
    let lab_dir = tools::target_dir()?.join("lab");
    let packages = Packages::new(&lab_dir.join("cache"))?;
    let emulator = Emulator::find(&packages)?;
    let Some(package) = kernel.resolve(&packages)? else {
        bail!("the mirror offers no kernel {} any more", kernel.name)
    };
    let unpacked = kernels::unpack(&packages, &package)?;
    println!("lab: kernel {} ({} {})", unpacked.release, package.name(), package.version());
    let binaries = binaries::build(&lab_dir.join("build"))?;

    let run_dir = lab_dir.join("run");
    std::fs::create_dir_all(&run_dir).with_context(|| format!("cannot create {}", run_dir.display()))?;
    let image = initramfs::build(&unpacked, &binaries, !args.no_tracer)?;
    let files = qemu::Files::write(&run_dir, &unpacked.image, &image)?;
    let out = tools::repository()?.join("lab-out").join(kernel.name);
    results::clear(&out)?;
    let options = qemu::Options {
        timeout: (!args.serve).then(|| Duration::from_secs(args.timeout)),
        verbose: args.verbose,
        command_line: command_line(args),
        forward_port: args.serve,
    };
    let console = qemu::run(&emulator, &files, &options, &out.join("console.log"))?;
    finish(args, &files.results, &out, console)
}

fn command_line(args: &Args) -> String {
    // Soft-lockup warnings are about the machine that emulates, not about the kernel inside.
    let mut line = String::from("console=ttyS0 loglevel=5 nowatchdog oops=panic panic=-1");
    if args.ladder {
        line += " lab.ladder=1";
    }
    if args.serve {
        line += " lab.serve=1";
    }
    if let Some(times) = args.storm {
        line += &format!(" lab.storm={times}");
    }
    line
}

fn finish(args: &Args, disk: &Path, out: &Path, console: qemu::Console) -> Result<Tally> {
    let groups = results::extract(disk, out)
        .and_then(|()| match args.storm {
            Some(times) => checks::run_storm(out, times),
            None => Ok(checks::run(&checks::Outputs::load(out, args.ladder)?)),
        })
        .inspect_err(|_| println!("the lab's console ended with:\n{}\n", console.tail()))
        .context("the lab did not get through")?;
    if let Ok(report) = std::fs::read_to_string(out.join("report.txt")) {
        println!("\n{report}");
    }
    let tally = checks::print(&[groups, vec![console.check()]].concat());
    println!("lab: everything is in {}", out.display());
    Ok(tally)
}
