//! `cargo xtask lab`: a real KVM host on any machine.
//!
//! ```text
//!  packages -> kernel image, modules --.
//!  binaries -> lab-init, mmu-trace ----+-> initramfs -> qemu -> results disk -> checks
//! ```
//!
//! The host boots under software emulation, nested virtualisation included, so neither KVM nor root
//! is needed on this side.

pub(crate) mod binaries;
mod bpftrace;
pub(crate) mod checks;
mod control;
pub(crate) mod cost;
mod emulator;
mod initramfs;
pub(crate) mod installed;
mod kernels;
mod matrix;
mod modules;
mod qemu;
mod results;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use xtask::arch::Arch;
use xtask::phase::Mmu;

use self::{binaries::Binaries, emulator::Emulator, kernels::Target, matrix::Measured};
use crate::{packages::Packages, tally::Tally, tools};

/// Arguments of `cargo xtask lab`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The kernel to boot: 5.10, 6.1, 6.12, 6.18, 7, or all.
    #[arg(long, default_value = "6.1")]
    kernel: String,
    /// The host's architecture.
    #[arg(long, value_enum, default_value_t = Arch::Amd64)]
    arch: Arch,
    /// KVM's MMU, where it is not to be the kernel's default.
    #[arg(long, value_enum)]
    mmu: Option<Mmu>,
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
    /// Run the phases a second time, with a kernel module that restores a working change_pte, and compare.
    #[arg(long, conflicts_with_all = ["serve", "no_tracer"])]
    control: bool,
    /// Leave out what the tracer must refuse or survive.
    #[arg(long)]
    short: bool,
    /// Instead of the phases: attach and detach this often while a guest faults.
    #[arg(long, value_name = "TIMES", conflicts_with_all = ["serve", "ladder", "no_tracer"])]
    storm: Option<u32>,
    /// After the phases: VMs that come, go and share a process, memory changed under running guests, KVM
    /// unloaded and loaded again; with --kernel all on some of them.
    #[arg(long, conflicts_with_all = ["serve", "no_tracer", "storm"])]
    life: bool,
    /// After the phases: Linux guests in QEMU, told apart by who they are; with --kernel all on some kernels.
    #[arg(long, conflicts_with_all = ["serve", "no_tracer", "storm"])]
    guests: bool,
    /// With --kernel all: write what was measured into docs/kernels.md.
    #[arg(long, conflicts_with = "no_tracer")]
    docs: bool,
    /// Leave the tracer out: only check that the kernel behaves as the formulae say.
    #[arg(long, conflicts_with_all = ["serve", "ladder"])]
    no_tracer: bool,
}

/// What `--kernel` calls all of them.
const ALL: &str = "all";
/// A matrix of fewer kernel generations proves too little.
const fn min_generations(arch: Arch) -> usize {
    match arch {
        Arch::Amd64 => 4,
        // One with the callback and one without.
        Arch::Arm64 => 2,
    }
}

impl Args {
    /// What `cargo xtask ci` runs, as a person would type it.
    pub(crate) fn for_ci() -> [(&'static str, Self); 3] {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: Args,
        }
        [
            "--kernel all --ladder --control --life --guests --timeout 480",
            "--arch arm64 --kernel all --ladder --timeout 480",
            "--kernel 6.1 --storm 10",
        ]
        .map(|line| {
            let words = std::iter::once("lab").chain(line.split(' '));
            (line, <Line as clap::Parser>::parse_from(words).args)
        })
    }

    fn targets(&self) -> Result<Vec<Target>> {
        let is_amd64 = self.arch == Arch::Amd64;
        ensure!(is_amd64 || !self.life, "--life unloads KVM, which is built in on arm64");
        ensure!(is_amd64 || !self.guests, "--guests runs this machine's QEMU, which needs --arch amd64");
        if self.kernel == ALL {
            ensure!(!self.serve, "--serve needs one kernel");
            ensure!(self.mmu.is_none(), "--kernel all chooses the MMUs itself");
            return Ok(kernels::all(self.arch));
        }
        let target = Target { arch: self.arch, kernel: kernels::find(&self.kernel)?, mmu: self.mmu };
        ensure!(
            !self.control || target.can_restore_change_pte(),
            "--control needs a kernel with change_pte and KVM's rmap MMU: --kernel 5.10, or --kernel 6.1 --mmu rmap"
        );
        Ok(vec![target])
    }

    /// What one boot of a matrix does: the refusals once, the control where it can be had, and so on.
    fn of(&self, target: Target) -> Self {
        let is_reference = target.name() == REFERENCE;
        Self {
            control: self.control && target.can_restore_change_pte(),
            short: self.short || !is_reference,
            guests: self.guests && WITH_GUESTS.contains(&target.name().as_str()),
            life: self.life && LIVED_THROUGH.contains(&target.name().as_str()),
            ..self.clone()
        }
    }
}

/// How many hosts of a matrix are booted again after a [`qemu::Fault`]. In about one of a hundred boots QEMU's
/// SVM emulation runs the nested guest with the host's CR3, and the vCPU faults for ever: seen with no tracer
/// in the host as well. A second fault in one matrix is no chance.
const MOST_FAULTS: u32 = 1;

/// The one of a matrix in which everything is tried.
const REFERENCE: &str = "6.1";
/// Those of a matrix that live through what a host does: with `kvm_*_hva` handlers, with `change_pte`,
/// without it.
const LIVED_THROUGH: &[&str] = &["5.10", REFERENCE, "7"];

/// Those of a matrix that host Linux guests.
const WITH_GUESTS: &[&str] = &[REFERENCE, "7"];

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
    let targets = args.targets()?;
    let mut args = args.clone();
    if args.arch == Arch::Arm64 && !args.short && !args.no_tracer {
        println!("lab: what the tracer must refuse is tried on amd64 alone, where KVM may not be there yet");
        args.short = true;
    }
    let args = &args;
    let lab = Lab::prepare(args.arch)?;
    if let [target] = targets.as_slice() {
        let tally = lab.boot(*target, args)?;
        return tally.with_context(|| format!("the mirror offers no kernel {} any more", args.kernel));
    }
    let mut total = Tally::default();
    let mut measured = Vec::new();
    let mut patience = MOST_FAULTS;
    for target in targets {
        println!("\n---- {}", target.name());
        match lab.boot_again_after_fault(target, &args.of(target), &mut patience) {
            Ok(Some(tally)) => {
                total.add(tally);
                measured.push(target);
            }
            Ok(None) => println!("lab: {} not run: the mirror offers no such kernel any more", target.name()),
            Err(error) => {
                println!("{error:#}");
                total.failed += 1;
            }
        }
    }
    let mut generations: Vec<&str> = measured.iter().map(|target| target.kernel.name).collect();
    generations.dedup();
    println!("\nlab: kernels run: {}", generations.join(", "));
    let least = min_generations(args.arch);
    ensure!(generations.len() >= least, "fewer than {least} generations of kernels ran");
    if !args.no_tracer {
        total.add(across(&measured, args)?);
    }
    Ok(total)
}

/// What only several kernels together can show.
fn across(targets: &[Target], args: &Args) -> Result<Tally> {
    let mut all = Vec::new();
    for target in targets {
        let out = out_dir(*target)?;
        all.push(Measured::load(*target, &out)?);
        if args.control && target.can_restore_change_pte() {
            all.push(Measured::load_restored(*target, &out)?);
        }
    }
    if args.docs {
        matrix::write_page(&all)?;
    }
    let mut groups = matrix::compare(&all);
    groups.push(matrix::check_page(&all)?);
    for target in targets {
        if args.docs {
            matrix::write_doctor(*target, &out_dir(*target)?)?;
        }
        groups.push(matrix::check_doctor(*target, &out_dir(*target)?)?);
    }
    Ok(checks::print(&groups))
}

/// Where the results of a boot go.
fn out_dir(target: Target) -> Result<PathBuf> {
    Ok(tools::repository()?.join("lab-out").join(target.name()))
}

/// What every boot needs.
struct Lab {
    folder: PathBuf,
    packages: Packages,
    emulator: Emulator,
    binaries: Binaries,
}

impl Lab {
    fn prepare(arch: Arch) -> Result<Self> {
        let folder = tools::target_dir()?.join("lab");
        let cache = folder.join("cache");
        let packages = Packages::new(&cache, arch)?;
        let emulator = Emulator::find(&Packages::new(&cache, Arch::OWN)?, arch)?;
        eprintln!("lab: building the static programs");
        let binaries = binaries::build(&folder.join("build"), arch)?;
        Ok(Self { folder, packages, emulator, binaries })
    }

    /// [`Lab::boot`], and once more after a fault of the emulation if `patience` is left.
    fn boot_again_after_fault(
        &self,
        target: Target,
        args: &Args,
        patience: &mut u32,
    ) -> Result<Option<Tally>> {
        let first = self.boot(target, args);
        let Some(fault) = first.as_ref().err().and_then(|error| error.downcast_ref::<qemu::Fault>()) else {
            return first;
        };
        if *patience == 0 {
            return first;
        }
        *patience -= 1;
        println!("lab: FAULT: {fault}; the host is booted again, another fault is a failure");
        self.boot(target, args)
    }

    /// One boot with its checks; `None` if the mirror has no such kernel.
    fn boot(&self, target: Target, args: &Args) -> Result<Option<Tally>> {
        let Some(package) = target.resolve(&self.packages)? else { return Ok(None) };
        let kernel = kernels::unpack(&self.packages, &package)?;
        println!("lab: kernel {} ({} {})", kernel.release, package.name(), package.version());
        let run_dir = self.folder.join("run");
        std::fs::create_dir_all(&run_dir).with_context(|| format!("cannot create {}", run_dir.display()))?;
        let control = || control::build(&self.packages, &package, &kernel.release, &run_dir.join("control"));
        let parts = initramfs::Parts {
            binaries: &self.binaries,
            with_tracer: !args.no_tracer,
            control: args.control.then(control).transpose()?,
            bench: None,
            emulator: if args.guests { self.emulator.files()? } else { Vec::new() },
            modules: modules::wanted(target.arch),
        };
        let image = initramfs::build(&kernel, &parts)?;
        let files = qemu::Files::write(&run_dir, &kernel.image, &image)?;
        // A storm leaves no capture, and must not take that of the phases away.
        let out = if args.storm.is_some() {
            out_dir(target)?.with_file_name(format!("{}-storm", target.name()))
        } else {
            out_dir(target)?
        };
        tools::empty_folder(&out)?;
        let options = qemu::Options {
            timeout: (!args.serve).then(|| Duration::from_secs(args.timeout)),
            verbose: args.verbose,
            command_line: command_line(target, args),
            arch: target.arch,
            clock: qemu::Clock::Real,
            forward_port: args.serve,
            system: None,
        };
        let console = qemu::run(&self.emulator, &files, &options, &out.join("console.log"))?;
        finish(args, &files.results, &out, console).map(Some)
    }
}

/// What every kernel of the lab is told.
fn every_command_line(arch: Arch) -> String {
    let console = match arch {
        Arch::Amd64 => "ttyS0",
        Arch::Arm64 => "ttyAMA0",
    };
    // Soft-lockup warnings are about the machine that emulates, not about the kernel inside.
    format!("console={console} loglevel=5 nowatchdog oops=panic panic=-1")
}

fn command_line(target: Target, args: &Args) -> String {
    let mut line = every_command_line(target.arch);
    if let Some(mmu) = target.mmu {
        line += &format!(" lab.mmu={}", mmu.name());
    }
    if args.ladder {
        line += " lab.ladder=1";
    }
    if args.control {
        line += " lab.control=1";
    }
    if args.short {
        line += " lab.short=1";
    }
    if args.serve {
        line += " lab.serve=1";
    }
    if args.life {
        line += " lab.life=1";
    }
    if args.guests {
        line += " lab.guests=1";
    }
    if let Some(times) = args.storm {
        line += &format!(" lab.storm={times}");
    }
    line
}

fn finish(args: &Args, disk: &Path, out: &Path, console: qemu::Console) -> Result<Tally> {
    let groups = results::extract(disk, out)
        .and_then(|()| results::guest_reset(out))
        .and_then(|()| match args.storm {
            Some(times) => checks::run_storm(out, times),
            None => {
                let outputs = checks::Outputs::load(out, args.ladder, args.control, args.short)?;
                let mut groups = checks::run(&outputs);
                if !args.no_tracer {
                    groups.push(checks::run_addresses(out)?);
                }
                if args.guests {
                    groups.extend(checks::run_guests(out)?);
                }
                if args.life {
                    groups.extend(checks::run_life(out)?);
                }
                Ok(groups)
            }
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
