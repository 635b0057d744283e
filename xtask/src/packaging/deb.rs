//! The `.deb` in a Debian system: installed, upgraded, removed, purged.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::chroot::{Chroot, Ended};
use crate::lab::checks::{Check, Group};
use crate::tools;

/// What must be there, with its mode.
const FILES: &[(&str, u32)] = &[
    ("/usr/bin/mmu-trace", 0o755),
    ("/etc/mmu-trace/mmu-trace.toml", 0o644),
    ("/usr/lib/systemd/system/mmu-trace.service", 0o644),
    ("/usr/lib/udev/rules.d/60-mmu-trace.rules", 0o644),
    ("/usr/share/doc/mmu-trace/copyright", 0o644),
    ("/usr/share/doc/mmu-trace/changelog.Debian.gz", 0o644),
    ("/usr/share/doc/mmu-trace/metrics.md", 0o644),
    ("/usr/share/doc/mmu-trace/examples/web-config.yml", 0o644),
    ("/usr/share/man/man1/mmu-trace.1.gz", 0o644),
    ("/usr/share/bash-completion/completions/mmu-trace", 0o644),
    ("/usr/share/mmu-trace/dashboards/fleet.json", 0o644),
    ("/usr/share/mmu-trace/dashboards/provisioning/dashboards.yaml", 0o644),
    ("/usr/share/mmu-trace/rules/alerts.yml", 0o644),
    ("/usr/share/mmu-trace/rules/recording.yml", 0o644),
];
const CONFIGURATION: &str = "/etc/mmu-trace/mmu-trace.toml";
const ENABLED: &str = "/etc/systemd/system/multi-user.target.wants/mmu-trace.service";
const ENABLED_FOR_KVM: &str = "/etc/systemd/system/dev-kvm.device.wants/mmu-trace.service";
/// What an administrator changes.
const EDIT: &str = "# edited";

/// All checks of the package `deb`.
pub(super) fn check(deb: &Path) -> Result<Vec<Group>> {
    let system = Chroot::fresh("deb")?;
    let before: BTreeSet<String> = system.paths()?.into_iter().collect();
    fs::copy(deb, system.file("/tmp/mmu-trace.deb")).context("cannot copy the package")?;
    let groups = vec![
        lint(deb)?,
        Group { name: "deb: installed".to_owned(), checks: install(&system)? },
        Group { name: "deb: upgraded".to_owned(), checks: upgrade(&system)? },
        Group { name: "deb: removed".to_owned(), checks: remove(&system, &before)? },
    ];
    Ok(groups)
}

fn lint(deb: &Path) -> Result<Group> {
    tools::ensure_installed("lintian", "lintian")?;
    let output = Command::new("lintian")
        .args(["--no-cfg", "--allow-root", "--fail-on", "error", "--show-overrides"])
        .arg(deb)
        .output()
        .context("cannot run lintian")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let errors: Vec<&str> = text.lines().filter(|line| line.starts_with("E: ")).collect();
    let exit = output.status.code().unwrap_or(-1);
    let checks = vec![
        Check::equal("errors", &"", &errors.join("; ")),
        Check::equal("exit code of lintian", &0, &exit),
    ];
    Ok(Group { name: "deb: lintian".to_owned(), checks })
}

fn install(system: &Chroot) -> Result<Vec<Check>> {
    let mut checks = vec![ends_with_0("dpkg --install", &system.run("dpkg --install /tmp/mmu-trace.deb")?)];
    for (path, mode) in FILES {
        let found = fs::metadata(system.file(path)).map(|meta| format!("{:o}", meta.mode() & 0o7777));
        checks.push(Check::equal(path, &format!("{mode:o}"), &found.unwrap_or_else(|e| e.to_string())));
    }
    for link in [ENABLED, ENABLED_FOR_KVM] {
        checks.push(Check::equal(link, &true, &system.file(link).is_symlink()));
    }
    let version = system.run("mmu-trace --version")?;
    checks.push(Check::equal(
        "mmu-trace --version",
        &concat!("mmu-trace ", env!("CARGO_PKG_VERSION")),
        &version.text.trim(),
    ));
    // It looks at the kernel that runs here, which need not be one that can be traced.
    let doctor =
        system.run("mount -t proc proc /proc; mmu-trace doctor; code=$?; umount /proc; exit $code")?;
    checks.push(Check::equal("doctor speaks of KVM", &true, &doctor.text.contains("kvm")));
    checks.push(Check::equal("doctor's exit code is 0 or 3", &true, &[0, 3].contains(&doctor.exit)));
    let page = system.run("man --where mmu-trace mmu-trace-daemon")?;
    checks.push(ends_with_0("manual pages", &page));
    let verified = system.run("systemd-analyze verify mmu-trace.service")?;
    checks.push(Check::equal("systemd-analyze verify", &"", &verified.text.trim()));
    Ok(checks)
}

fn upgrade(system: &Chroot) -> Result<Vec<Check>> {
    let path = system.file(CONFIGURATION);
    let edited = fs::read_to_string(&path)? + EDIT + "\n";
    fs::write(&path, &edited)?;
    let ended = system.run("dpkg --install /tmp/mmu-trace.deb < /dev/null")?;
    Ok(vec![
        ends_with_0("dpkg --install", &ended),
        Check::equal("the edited configuration is kept", &edited, &fs::read_to_string(&path)?),
        Check::equal("still enabled", &true, &system.file(ENABLED).is_symlink()),
    ])
}

fn remove(system: &Chroot, before: &BTreeSet<String>) -> Result<Vec<Check>> {
    let removed = system.run("dpkg --remove mmu-trace")?;
    let mut checks = vec![ends_with_0("dpkg --remove", &removed)];
    let is_there = |path: &str| system.file(path).exists();
    checks.push(Check::equal("the configuration stays", &true, &is_there(CONFIGURATION)));
    checks.push(Check::equal("the program goes", &false, &is_there("/usr/bin/mmu-trace")));
    checks.push(ends_with_0("dpkg --purge", &system.run("dpkg --purge mmu-trace")?));
    let left = system.paths()?.into_iter().filter(|path| !before.contains(path) && !is_of_dpkg(path));
    checks.push(Check::equal("left behind", &"", &left.collect::<Vec<_>>().join(" ")));
    Ok(checks)
}

/// What is there for another reason than the package.
fn is_of_dpkg(path: &str) -> bool {
    const FOLDERS: [&str; 3] = ["/run/systemd/", "/var/cache/man/", "/var/lib/dpkg/"];
    path == "/tmp/mmu-trace.deb" || FOLDERS.iter().any(|folder| path.starts_with(folder))
}

/// Shows what it printed where it failed.
fn ends_with_0(name: &str, ended: &Ended) -> Check {
    let got = if ended.exit == 0 { "0".to_owned() } else { format!("{}: {}", ended.exit, ended.text.trim()) };
    Check::equal(name, &"0", &got)
}
