//! What runs inside the lab, built static: there is no libc in the initramfs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, ensure};
use xtask::arch::Arch;

use crate::{nightly, tools};

/// The programs of the initramfs.
pub(crate) struct Binaries {
    /// Process 1.
    pub(crate) init: Vec<u8>,
    /// The tracer.
    pub(crate) mmu_trace: Vec<u8>,
}

/// Builds both in `target_dir`.
pub(crate) fn build(target_dir: &Path, arch: Arch) -> Result<Binaries> {
    let programs = "-p mmu-trace -p xtask --bin mmu-trace --bin lab-init";
    let folder = build_static(target_dir, arch, programs)?;
    Ok(Binaries { init: read(&folder, "lab-init")?, mmu_trace: read(&folder, "mmu-trace")? })
}

/// Builds, in `target_dir`, what the bench measures everything else against. Apart from the others: it needs
/// a feature of mmu-trace that the program itself must not have.
pub(super) fn build_floor(target_dir: &Path, arch: Arch) -> Result<Vec<u8>> {
    let folder = build_static(target_dir, arch, "-p xtask --features bench --bin bench-floor")?;
    read(&folder, "bench-floor")
}

/// Builds `programs`, arguments of cargo, and returns the folder that they are in.
fn build_static(target_dir: &Path, arch: Arch, programs: &str) -> Result<PathBuf> {
    // Named explicitly, so that the flags below apply to the programs and not to build scripts.
    let target = format!("{}-unknown-linux-gnu", arch.machine());
    let mut cargo = if arch == Arch::OWN { own_cargo()? } else { cross_cargo(&target, arch)? };
    cargo
        .args(["--release", "--target", &target])
        .args(programs.split(' '))
        .arg("--target-dir")
        .arg(target_dir)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    tools::run(&mut cargo).context("cannot build the static programs")?;
    Ok(target_dir.join(&target).join("release"))
}

fn read(folder: &Path, name: &str) -> Result<Vec<u8>> {
    let path = folder.join(name);
    fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
}

fn own_cargo() -> Result<Command> {
    let mut cargo = tools::cargo()?;
    cargo.arg("build");
    Ok(cargo)
}

/// A cargo that can build for another architecture, with Debian's cross compiler as linker. Where rustup
/// has no standard library for it, nightly builds one.
fn cross_cargo(target: &str, arch: Arch) -> Result<Command> {
    let gcc = format!("{}-linux-gnu-gcc", arch.machine());
    let package = format!("gcc-{}-linux-gnu libc6-dev-{}-cross", arch.machine(), arch.debian());
    tools::ensure_installed(&gcc, &package)?;
    let mut cargo = if has_std(target) {
        own_cargo()?
    } else {
        let how = "rustup target add";
        ensure!(nightly::version().is_some(), "{how} {target}, or {}", nightly::HOW_TO_GET);
        let library = nightly::find_library().map_err(|e| anyhow!("{how} {target}, or {e}"))?;
        let mut cargo = nightly::cargo(library.as_deref())?;
        cargo.args(["build", "-Zbuild-std=std,panic_abort"]);
        cargo
    };
    let variable = format!("CARGO_TARGET_{}_LINKER", target.replace('-', "_").to_uppercase());
    cargo.env(variable, gcc);
    Ok(cargo)
}

/// Whether the stable toolchain has the standard library of `target`.
fn has_std(target: &str) -> bool {
    let folder =
        tools::first_line(Command::new("rustc").args(["--print", "target-libdir", "--target", target]));
    folder.is_some_and(|folder| PathBuf::from(folder).is_dir())
}
