//! Debian's bpftrace, with every library that it needs, unpacked and not installed.
//!
//! That of Debian 13: its code generator is the newest that Debian releases, and it attaches fentry to the
//! functions of modules.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::packages::{Packages, Suite};

const SUITES: &[Suite] = &[Suite { archive: "debian", name: "trixie" }];
const PACKAGE: &str = "bpftrace";
/// The dynamic loader, by the name that `lab-init` starts it under.
const LOADER: &str = "ld-linux-x86-64.so.2";

/// The files, by the path that each is wanted at, and the version.
pub(super) struct Bpftrace {
    pub(super) files: Vec<(String, PathBuf)>,
    pub(super) version: String,
}

/// Fetches it; `packages` are those of the lab's own architecture, which must be this machine's.
pub(super) fn find(packages: &Packages) -> Result<Bpftrace> {
    let all = packages.with_dependencies(SUITES, PACKAGE)?;
    let version = all.first().map(|package| package.version().to_owned()).unwrap_or_default();
    let tree = packages.tree(&all)?;
    let program = tree.join("usr/bin/bpftrace");
    let loader = tree.join("usr/lib64").join(LOADER);
    let mut files = vec![
        ("bpftrace/bin/bpftrace".to_owned(), program.clone()),
        (format!("bpftrace/lib/{LOADER}"), loader.clone()),
    ];
    for library in libraries(&loader, &tree.join("usr/lib/x86_64-linux-gnu"), &program)? {
        let name = library.file_name().context("a library without a name")?.to_string_lossy().into_owned();
        files.push((format!("bpftrace/lib/{name}"), library));
    }
    Ok(Bpftrace { files, version })
}

/// The libraries of `program` that `loader` finds in `folder`.
fn libraries(loader: &Path, folder: &Path, program: &Path) -> Result<Vec<PathBuf>> {
    let mut list = Command::new(loader);
    list.arg("--library-path").arg(folder).arg("--list").arg(program);
    let output = list.output().with_context(|| format!("cannot run {}", loader.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success() && !text.contains("not found"),
        "{} lacks libraries: {text}{}",
        program.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    let found = text.split_whitespace().map(PathBuf::from).filter(|path| path.starts_with(folder));
    Ok(found.collect())
}
