//! The positive control: a kernel module with which `change_pte` has something to change, built from
//! `xtask/control` against the kernel's headers.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::packages::{Package, Packages};
use crate::tools;

/// The module's name, and that of its source.
const NAME: &str = "mmu_trace_control";

/// Builds the module for kernel `release`, whose image package is `image`, in `dir`.
pub(super) fn build(packages: &Packages, image: &Package, release: &str, dir: &Path) -> Result<Vec<u8>> {
    tools::ensure_installed("gcc", "gcc")?;
    tools::ensure_installed("make", "make")?;
    let beside = |of: &Package, name: &str| {
        packages.beside(of, name)?.with_context(|| format!("the mirror offers no package {name}"))
    };
    let headers = beside(image, &format!("linux-headers-{release}"))?;
    let mut parts = vec![headers.clone()];
    let common =
        headers.depends().iter().find(|name| name.ends_with("-common")).context("no common headers")?;
    let kbuild = headers.depends().iter().find(|name| name.starts_with("linux-kbuild-"));
    for name in [common, kbuild.context("no linux-kbuild")?] {
        parts.push(beside(&headers, name)?);
    }
    let sources = packages.tree(&parts)?.join("usr/src");
    println!("lab: building the control module for {release}");
    compile(&sources.join(format!("linux-headers-{release}")), &sources.join(common), dir)
        .with_context(|| format!("cannot build the control module for {release}"))
}

/// `headers` alone would be enough were it where the package puts it: its Makefile names the other one
/// by an absolute path.
fn compile(headers: &Path, common: &Path, dir: &Path) -> Result<Vec<u8>> {
    fs::create_dir_all(dir)?;
    let source = tools::repository()?.join("xtask/control");
    for file in ["Kbuild".to_owned(), format!("{NAME}.c")] {
        fs::copy(source.join(&file), dir.join(&file)).with_context(|| format!("cannot copy {file}"))?;
    }
    let object = dir.join(format!("{NAME}.ko"));
    if object.exists() {
        fs::remove_file(&object)?;
    }
    let mut make = Command::new("make");
    // The compiler of this machine need not be the kernel's own: a module of calls and loads.
    make.arg("-C").arg(headers).arg("-f").arg(common.join("Makefile")).args(["CC=gcc", "modules"]);
    let mut dir_argument = std::ffi::OsString::from("M=");
    dir_argument.push(dir);
    let output = make.arg(dir_argument).stdin(Stdio::null()).output().context("cannot run make")?;
    ensure!(
        output.status.success(),
        "make ended with {}:\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    fs::read(&object).with_context(|| format!("make left no {}", object.display()))
}
