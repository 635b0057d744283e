//! What is measured on this machine, by `bench-native`: a program of its own, built as a release is.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use xtask::{arch::Arch, figure::Figure};

use crate::{lab::binaries, tools};

/// The figures of this machine.
pub(super) fn measure() -> Result<Vec<Figure>> {
    eprintln!("bench: building the measuring program, and what it runs");
    let packages = "build --release --package xtask --package mmu-trace --features xtask/bench";
    let mut cargo = tools::cargo()?;
    tools::run(cargo.args(packages.split(' ')).args("--bin bench-native --bin mmu-trace".split(' ')))?;
    let program = tools::target_dir()?.join("release/bench-native");
    let output = Command::new(&program).stderr(std::process::Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot run {}", program.display()))?;
    ensure!(output.status.success(), "{} ended with {}", program.display(), output.status);
    let mut figures: Vec<Figure> =
        serde_json::from_slice(&output.stdout).context("the measuring program printed no figures")?;
    figures.push(size()?);
    Ok(figures)
}

/// The program as it is packaged.
fn size() -> Result<Figure> {
    let built = binaries::build(&tools::target_dir()?.join("lab/build"), Arch::OWN)?;
    let bytes = tempfile::NamedTempFile::new()?;
    std::fs::write(bytes.path(), built.mmu_trace)?;
    tools::run(Command::new("llvm-strip").arg(bytes.path()))?;
    let mib = std::fs::metadata(bytes.path())?.len() as f64 / f64::from(1 << 20);
    Ok(Figure::new(
        "start/size of the program",
        mib,
        "MiB",
        "The static program of the packages after llvm-strip.",
    ))
}
