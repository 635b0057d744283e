//! Programs that tasks call, and where the repository keeps things.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// The root of the repository.
pub(crate) fn repository() -> Result<PathBuf> {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest.parent().map(Path::to_owned).context("xtask has no parent folder")
}

/// Cargo's target directory.
pub(crate) fn target_dir() -> Result<PathBuf> {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => Ok(std::path::absolute(dir)?),
        None => Ok(repository()?.join("target")),
    }
}

/// The cargo that runs this task.
pub(crate) fn cargo() -> Result<Command> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(repository()?);
    Ok(cargo)
}

/// Runs `command`; failing to start and failing to succeed are both errors.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

/// The path of `program`, if it is installed.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// Makes sure that `program` is there. As root on Debian it installs `package`, otherwise it says how.
pub(crate) fn ensure_installed(program: &str, package: &str) -> Result<()> {
    if find(program).is_some() {
        return Ok(());
    }
    let install = format!("apt-get install -y --no-install-recommends {package}");
    if !rustix::process::geteuid().is_root() || find("apt-get").is_none() {
        bail!("{program} is not installed; on Debian install it with: sudo {install}");
    }
    println!("{program} is not installed: {install}");
    let apt = |arguments: &str| {
        let mut apt = Command::new("apt-get");
        apt.args(arguments.split(' ')).env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
        run(&mut apt)
    };
    apt("update")?;
    apt(install.trim_start_matches("apt-get "))?;
    ensure!(find(program).is_some(), "the package {package} brought no {program}");
    Ok(())
}

/// The first line of what `command` prints, if it succeeds.
pub(crate) fn first_line(command: &mut Command) -> Option<String> {
    let output =
        command.env_remove("RUSTUP_TOOLCHAIN").output().ok().filter(|output| output.status.success())?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(|line| line.trim().to_owned())
}

/// Makes an empty folder of `folder`, whatever it was.
pub(crate) fn empty_folder(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))
}
