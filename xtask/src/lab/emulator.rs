//! Which QEMU emulates the lab's hosts.
//!
//! QEMU 7.2, the one of Debian 12, may run code as it was before another CPU patched it. Linux
//! patches its own code whenever a probe comes or goes: with it `--storm` ended in an oops or a hang
//! in 4 of 4 runs, at the latest after six attachments, each time at the entry of a function that was
//! being patched. QEMU 10.0 went through 60 attachments, and 7.2 through 20 with one thread for all
//! CPUs. An older one is therefore not used: a newer one is taken from Debian's backports, unpacked
//! beside the kernels and not installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use xtask::arch::Arch;

use crate::packages::{Packages, Suite};
use crate::tools;

/// The oldest major version that is used as it is installed.
const MIN_MAJOR: u32 = 10;
const NEWER: Suite = Suite { archive: "debian", name: "bookworm-backports" };

/// The package that brings the emulator of an architecture. To install it brings its libraries too.
const fn package(arch: Arch) -> &'static str {
    match arch {
        Arch::Amd64 => "qemu-system-x86",
        Arch::Arm64 => "qemu-system-arm",
    }
}

/// A QEMU that can be trusted with several CPUs.
pub(super) struct Emulator {
    program: PathBuf,
    firmware: Vec<PathBuf>,
}

impl Emulator {
    /// The installed one, or a newer one.
    ///
    /// `packages` are those of this machine's own architecture.
    pub(super) fn find(packages: &Packages, arch: Arch) -> Result<Self> {
        let name = format!("qemu-system-{}", arch.machine());
        tools::ensure_installed(&name, package(arch))?;
        let installed = Self { program: name.clone().into(), firmware: Vec::new() };
        if installed.major()? >= MIN_MAJOR {
            return Ok(installed);
        }
        let mut newer = Vec::new();
        for name in [package(arch), "qemu-system-data", "seabios"] {
            let found = packages.newest(&[NEWER], |other| other == name)?;
            newer.push(found.with_context(|| format!("{} has no package {name}", NEWER.name))?);
        }
        eprintln!("lab: {} {} instead of the installed one", newer[0].name(), newer[0].version());
        let tree = packages.tree(&newer)?;
        let usr = |path| tree.join("usr").join(path);
        let emulator = Self {
            program: usr(Path::new("bin").join(name)),
            firmware: vec![usr("share/seabios".into()), usr("share/qemu".into())],
        };
        let major = emulator.major()?;
        ensure!(major >= MIN_MAJOR, "{} has QEMU {major} only", NEWER.name);
        Ok(emulator)
    }

    /// The start of its command line.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        for folder in &self.firmware {
            command.arg("-L").arg(folder);
        }
        command
    }

    /// What it takes to run it elsewhere, by the path that each file is wanted at: the program, the
    /// libraries that it is linked with here, and the firmware of a machine without a BIOS's devices.
    pub(super) fn files(&self) -> Result<Vec<(String, PathBuf)>> {
        const FIRMWARE: [&str; 4] = ["bios-microvm.bin", "qboot.rom", "linuxboot_dma.bin", "pvh.bin"];
        let program = tools::find(&self.program.to_string_lossy()).unwrap_or_else(|| self.program.clone());
        let mut files = vec![("qemu/bin/qemu-system-x86_64".to_owned(), program.clone())];
        files.extend(
            libraries(&program)?
                .into_iter()
                .map(|path| (path.to_string_lossy().trim_start_matches('/').to_owned(), path)),
        );
        let default = ["/usr/share/seabios", "/usr/share/qemu"].map(PathBuf::from).to_vec();
        let folders = if self.firmware.is_empty() { &default } else { &self.firmware };
        for name in FIRMWARE {
            let found = folders.iter().map(|folder| folder.join(name)).find(|path| path.exists());
            files.extend(found.map(|path| (format!("qemu/firmware/{name}"), path)));
        }
        Ok(files)
    }

    fn major(&self) -> Result<u32> {
        let output = Command::new(&self.program).arg("--version").output();
        let output = output.with_context(|| format!("cannot run {}", self.program.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        major(&text).with_context(|| {
            let errors = String::from_utf8_lossy(&output.stderr);
            format!("{} does not tell its version: {text}{errors}", self.program.display())
        })
    }
}

/// The shared libraries of a program, the loader among them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("cannot run ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success() && !text.contains("not found"),
        "{} lacks libraries: {text}",
        program.display()
    );
    Ok(text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

/// The first number after `version` in what `--version` prints.
fn major(text: &str) -> Option<u32> {
    text.split("version ").nth(1)?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read() {
        assert_eq!(major("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\n"), Some(10));
        assert_eq!(major("QEMU emulator version 7.2.22\n"), Some(7));
        assert_eq!(major("something else"), None);
    }
}
