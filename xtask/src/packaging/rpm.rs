//! The `.rpm` below a folder with an rpm database of its own: installed, verified, erased.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::lab::checks::{Check, Group};
use crate::tools;

/// What must be there; directories are not listed.
const FILES: &[&str] = &[
    "/etc/mmu-trace/mmu-trace.toml",
    "/usr/bin/mmu-trace",
    "/usr/share/bash-completion/completions/mmu-trace",
    "/usr/share/fish/vendor_completions.d/mmu-trace.fish",
    "/usr/share/man/man1/mmu-trace.1",
    "/usr/share/zsh/site-functions/_mmu-trace",
    "/usr/lib/systemd/system/mmu-trace.service",
    "/usr/lib/udev/rules.d/60-mmu-trace.rules",
    "/usr/share/doc/mmu-trace/CHANGELOG.md",
    "/usr/share/doc/mmu-trace/examples/web-config.yml",
    "/usr/share/doc/mmu-trace/metrics.md",
    "/usr/share/licenses/mmu-trace/LICENSE-APACHE",
    "/usr/share/licenses/mmu-trace/LICENSE-GPL-2.0",
    "/usr/share/licenses/mmu-trace/LICENSE-MIT",
    "/usr/share/mmu-trace/dashboards/fleet.json",
    "/usr/share/mmu-trace/rules/alerts.yml",
    "/usr/share/mmu-trace/rules/recording.yml",
];

/// All checks of the package `rpm`.
pub(super) fn check(rpm: &Path) -> Result<Vec<Group>> {
    tools::ensure_installed("rpm", "rpm")?;
    let root = tools::target_dir()?.join("package/rpm");
    tools::empty_folder(&root)?;
    let system = System { root };
    let listed = system.query(&["--query", "--package", "--list"], rpm)?;
    let has = |path: &&&str| listed.lines().any(|line| line == **path);
    let missing: Vec<&str> = FILES.iter().filter(|path| !has(path)).copied().collect();
    let is_page = |path: &&str| {
        let of_folder = |folder| path.starts_with(folder);
        of_folder("/usr/share/man/man1/mmu-trace")
            || (of_folder("/usr/share/doc/mmu-trace/") && path.ends_with(".md"))
            || of_folder("/usr/share/mmu-trace/dashboards/")
    };
    let unlisted: Vec<&str> = listed.lines().filter(|path| !FILES.contains(path) && !is_page(path)).collect();
    let requires = system.query(&["--query", "--package", "--requires"], rpm)?;
    // Features of rpm itself, the package's own configuration, and the shell of the scripts.
    let is_given = |line: &str| {
        line.starts_with("rpmlib(") || line.starts_with("config(mmu-trace)") || line == "/bin/sh"
    };
    let needed = requires.lines().filter(|line| !is_given(line));
    let mut checks = vec![
        Check::equal("missing files", &"", &missing.join(" ")),
        Check::equal("other files", &"", &unlisted.join(" ")),
        Check::equal("required packages", &"", &needed.collect::<Vec<_>>().join(" ")),
    ];
    checks.extend(system.install_and_erase(rpm)?);
    Ok(vec![Group { name: "rpm".to_owned(), checks }])
}

struct System {
    root: PathBuf,
}

impl System {
    /// Installed without its scripts: the folder has no shell that could run them.
    fn install_and_erase(&self, rpm: &Path) -> Result<Vec<Check>> {
        let mut checks = Vec::new();
        let package = rpm.to_string_lossy();
        // The shell is what the folder lacks; that nothing else is required was looked at.
        let steps: [(&str, &[&str]); 3] = [
            ("install", &["--install", "--noscripts", "--nodeps", &package]),
            ("verify", &["--verify", "--noscripts", "--nodeps", "mmu-trace"]),
            ("erase", &["--erase", "--noscripts", "mmu-trace"]),
        ];
        for (name, arguments) in steps {
            let output = self.command().args(arguments).output().context("cannot run rpm")?;
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            // Debian's rpm warns of itself.
            let said: Vec<&str> = said.lines().filter(|line| !line.starts_with("rpm: ")).collect();
            let said = said.join("; ");
            checks.push(Check::equal(name, &"", &said.trim()));
            checks.push(Check::equal(&format!("{name}: exit code"), &0, &output.status.code().unwrap_or(-1)));
            if name == "install" {
                let is_there = self.root.join("usr/bin/mmu-trace").exists();
                checks.push(Check::equal("the program is there", &true, &is_there));
            }
        }
        fs::remove_dir_all(self.root.join("var")).context("the rpm database is not where it should be")?;
        let mut left = Vec::new();
        files(&self.root, &mut left)?;
        checks.push(Check::equal("left behind", &"", &left.join(" ")));
        Ok(checks)
    }

    fn query(&self, arguments: &[&str], rpm: &Path) -> Result<String> {
        let output = self.command().args(arguments).arg(rpm).output().context("cannot run rpm")?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn command(&self) -> Command {
        let mut rpm = Command::new("rpm");
        rpm.arg("--root").arg(&self.root).args(["--dbpath", "/var/lib/rpm"]);
        rpm
    }
}

fn files(folder: &Path, found: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            files(&path, found)?;
        } else {
            found.push(path.display().to_string());
        }
    }
    Ok(())
}
