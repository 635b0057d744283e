//! What is measured on this machine, by `bench-native`: a program of its own, built as a release is.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use xtask::figure::Figure;

use crate::tools;

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
    serde_json::from_slice(&output.stdout).context("the measuring program printed no figures")
}
