//! What runs inside the lab, built static: there is no libc in the initramfs.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::tools;

/// Named explicitly, so that the flags below apply to the programs and not to build scripts.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The programs of the initramfs.
pub(super) struct Binaries {
    /// Process 1.
    pub(super) init: Vec<u8>,
    /// The tracer.
    pub(super) mmu_trace: Vec<u8>,
}

/// Builds both in `target_dir`.
pub(super) fn build(target_dir: &Path) -> Result<Binaries> {
    let mut cargo = tools::cargo()?;
    cargo
        .args(["build", "--release", "--target", TARGET])
        .args(["-p", "mmu-trace", "-p", "xtask", "--bin", "mmu-trace", "--bin", "lab-init"])
        .arg("--target-dir")
        .arg(target_dir)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    tools::run(&mut cargo).context("cannot build the static programs")?;
    let read = |name: &str| {
        let path = target_dir.join(TARGET).join("release").join(name);
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    Ok(Binaries { init: read("lab-init")?, mmu_trace: read("mmu-trace")? })
}
