//! The program that looks: its packages from npm, type-checked and bundled.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::tools;

/// What is copied of `xtask/browser`.
const FILES: [&str; 4] = ["package.json", "package-lock.json", "tsconfig.json", "src"];

/// The lock that the installed packages are of.
const STAMP: &str = "node_modules/.installed";

/// Installs and builds in `home`, outside of the sources; packages are installed once for each lock.
pub(super) fn build(home: &Path) -> Result<PathBuf> {
    let source = tools::repository()?.join("xtask/browser");
    fs::create_dir_all(home).with_context(|| format!("cannot make {}", home.display()))?;
    for name in FILES {
        copy(&source.join(name), &home.join(name))?;
    }
    install(home)?;
    tools::run(npm(home).args(["run", "--silent", "build"]))?;
    Ok(home.to_owned())
}

fn install(home: &Path) -> Result<()> {
    let lock = fs::read(home.join("package-lock.json")).context("cannot read package-lock.json")?;
    let digest: String = Sha256::digest(&lock).iter().map(|byte| format!("{byte:02x}")).collect();
    let stamp = home.join(STAMP);
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == digest) {
        return Ok(());
    }
    // No package needs to run anything at its installation.
    tools::run(npm(home).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]))?;
    fs::write(&stamp, digest).with_context(|| format!("cannot write {}", stamp.display()))
}

fn npm(home: &Path) -> Command {
    let mut npm = Command::new("npm");
    npm.current_dir(home);
    npm
}

/// Replaces `to`, a file or a folder, by `from`.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if from.is_file() {
        fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
        return Ok(());
    }
    if to.exists() {
        fs::remove_dir_all(to).with_context(|| format!("cannot remove {}", to.display()))?;
    }
    fs::create_dir(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}
