//! Debian systems to install into: one that is made once, and copies of it to be changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::tools;

/// The release whose packages install everywhere that ours do.
const SUITE: &str = "bookworm";
/// What a KVM host has and a minimal system has not.
const PACKAGES: &str = "systemd,systemd-sysv,udev,kmod,man-db";

/// A system below a folder.
pub(super) struct Chroot {
    root: PathBuf,
}

/// How a command ended, and what it printed on both streams.
pub(super) struct Ended {
    /// Its exit code, -1 if a signal ended it.
    pub(super) exit: i32,
    /// What it printed.
    pub(super) text: String,
}

impl Chroot {
    /// A new one called `name`, in place of an older one.
    pub(super) fn fresh(name: &str) -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "installing into a system of its own needs root: debootstrap and chroot do"
        );
        let folder = tools::target_dir()?.join("package");
        let base = base(&folder)?;
        let root = folder.join(name);
        tools::empty_folder(&root)?;
        fs::remove_dir(&root)?;
        tools::run(Command::new("cp").args(["--archive", "--reflink=auto"]).arg(&base).arg(&root))?;
        Ok(Self { root })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.root
    }

    /// A file in it.
    pub(super) fn file(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Runs a line of shell in it.
    pub(super) fn run(&self, line: &str) -> Result<Ended> {
        let output = Command::new("chroot")
            .arg(&self.root)
            .args(["/bin/sh", "-c", &format!("exec 2>&1; {line}")])
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("LC_ALL", "C.UTF-8")
            .output()
            .context("cannot run chroot")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(Ended { exit: output.status.code().unwrap_or(-1), text })
    }

    /// Every path in it.
    pub(super) fn paths(&self) -> Result<Vec<String>> {
        let listed = self.run("find / -xdev")?;
        Ok(listed.text.lines().map(str::to_owned).collect())
    }
}

fn base(folder: &Path) -> Result<PathBuf> {
    let base = folder.join(SUITE);
    if base.exists() {
        return Ok(base);
    }
    tools::ensure_installed("debootstrap", "debootstrap")?;
    let partial = folder.join(format!("{SUITE}.part"));
    tools::empty_folder(&partial)?;
    let mirror = crate::packages::archive_url("debian")?;
    let mut debootstrap = Command::new("debootstrap");
    debootstrap
        .args(["--variant=minbase", &format!("--include={PACKAGES}"), SUITE])
        .arg(&partial)
        .arg(mirror)
        .stdout(std::process::Stdio::null());
    tools::run(&mut debootstrap)?;
    fs::rename(&partial, &base)?;
    Ok(base)
}
