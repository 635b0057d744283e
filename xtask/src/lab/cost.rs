//! What tracers cost, measured on the lab's host: one boot for a kernel, and everything is compared in it.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use xtask::arch::Arch;
use xtask::cost::Cost;

use super::kernels::{self, Target};
use super::{Lab, MOST_FAULTS, bpftrace, every_command_line, initramfs, modules, out_dir, qemu, results};
use crate::tools;

/// Above what the rounds take on a slow machine; the lab is killed after it.
const TIMEOUT: Duration = Duration::from_secs(1800);

/// What was measured, and with which other tracer.
pub(crate) struct Measured {
    /// The measurement.
    pub(crate) cost: Cost,
    /// The version of bpftrace.
    pub(crate) bpftrace: String,
}

/// Boots each of `kernels` and measures `rounds` rounds on it.
pub(crate) fn measure(kernels: &[String], rounds: u32) -> Result<Vec<Measured>> {
    let lab = Lab::prepare(Arch::Amd64)?;
    let floor = super::binaries::build_floor(&lab.folder.join("build"), Arch::Amd64)?;
    kernels.iter().map(|name| measure_on(&lab, &floor, name, rounds)).collect()
}

/// A hang of the emulation is no measurement: the host is booted again.
fn measure_on(lab: &Lab, floor: &[u8], name: &str, rounds: u32) -> Result<Measured> {
    let target = Target { arch: Arch::Amd64, kernel: kernels::find(name)?, mmu: None };
    let mut patience = MOST_FAULTS;
    loop {
        match boot(lab, floor, target, rounds) {
            Err(error) if patience > 0 && error.is::<qemu::Fault>() => {
                patience -= 1;
                eprintln!("lab: FAULT: {error:#}; the host is booted again, another fault is a failure");
            }
            outcome => return outcome,
        }
    }
}

fn boot(lab: &Lab, floor: &[u8], target: Target, rounds: u32) -> Result<Measured> {
    let package = target.resolve(&lab.packages)?;
    let package =
        package.with_context(|| format!("the mirror offers no kernel {} any more", target.name()))?;
    let kernel = kernels::unpack(&lab.packages, &package)?;
    let bpftrace = bpftrace::find(&lab.packages)?;
    eprintln!("lab: kernel {}, bpftrace {}", kernel.release, bpftrace.version);
    let parts = initramfs::Parts {
        binaries: &lab.binaries,
        with_tracer: true,
        control: None,
        bench: Some(initramfs::Bench { floor: floor.to_vec(), bpftrace: bpftrace.files }),
        emulator: Vec::new(),
        modules: modules::wanted(target.arch),
    };
    let run_dir = lab.folder.join("run");
    fs::create_dir_all(&run_dir).with_context(|| format!("cannot create {}", run_dir.display()))?;
    let files = qemu::Files::write(&run_dir, &kernel.image, &initramfs::build(&kernel, &parts)?)?;
    let out = out_dir(target)?.with_file_name(format!("{}-bench", target.name()));
    tools::empty_folder(&out)?;
    let clock = qemu::Clock::Instructions;
    let options = qemu::Options {
        timeout: Some(TIMEOUT),
        verbose: false,
        command_line: format!(
            "{}{} lab.bench={rounds}",
            every_command_line(target.arch),
            clock.command_line()
        ),
        arch: target.arch,
        clock,
        forward_port: false,
        system: None,
    };
    let console = qemu::run(&lab.emulator, &files, &options, &out.join("console.log"))?;
    let cost = results::extract(&files.results, &out)
        .and_then(|()| fs::read(out.join("cost.json")).context("it left no measurement"))
        .and_then(|text| Ok(serde_json::from_slice(&text)?))
        .inspect_err(|_| eprintln!("the lab's console ended with:\n{}\n", console.tail()))
        .context("the lab did not get through")?;
    Ok(Measured { cost, bpftrace: bpftrace.version })
}
