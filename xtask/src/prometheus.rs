//! `cargo xtask prometheus`: the tests that need a Prometheus, with the newest one of Debian.
//!
//! Prometheus 3 is stricter than the 2.42 of Debian 12. It is taken from Debian's testing suite, unpacked
//! beside the lab's packages and not installed: a program in Go needs nothing but libc.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use xtask::arch::Arch;

use crate::packages::{Packages, Suite};
use crate::tools;

const TESTING: Suite = Suite { archive: "debian", name: "forky" };
/// The packages that bring `prometheus` and `promtool`.
const PACKAGES: [&str; 2] = ["prometheus", "promtool"];
/// The major version that the tests are for.
const MAJOR: &str = "version 3.";

/// Arguments of `cargo xtask prometheus`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Only fetch it, and say where its programs are.
    #[arg(long)]
    fetch: bool,
}

impl Args {
    /// As ci runs it.
    pub(crate) const fn for_ci() -> Self {
        Self { fetch: false }
    }
}

/// Fetches Prometheus and runs the tests with it in front of the installed one.
pub(crate) fn run(args: &Args) -> Result<()> {
    let folder = fetch()?;
    for program in PACKAGES {
        println!("{}", version(&folder.join(program))?);
    }
    if args.fetch {
        println!("{}", folder.display());
        return Ok(());
    }
    let installed = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths([folder].into_iter().chain(env::split_paths(&installed)))?;
    let mut tests = tools::cargo()?;
    tests.args(["test", "-p", "mmu-trace", "--test", "output"]);
    tools::run(tests.env("PATH", path).env("MMU_TRACE_PROMETHEUS_TESTS", "required"))
}

/// The folder with the programs.
pub(crate) fn fetch() -> Result<PathBuf> {
    let packages = Packages::new(&tools::target_dir()?.join("lab/cache"), Arch::OWN)?;
    let mut found = Vec::new();
    for name in PACKAGES {
        let newest = packages.newest(&[TESTING], |other| other == name)?;
        found.push(newest.with_context(|| format!("{} has no package {name}", TESTING.name))?);
    }
    Ok(packages.tree(&found)?.join("usr/bin"))
}

/// The line in which `program` tells its version, which must be of [`MAJOR`].
fn version(program: &Path) -> Result<String> {
    let shown = program.display();
    let line = tools::first_line(Command::new(program).arg("--version"))
        .with_context(|| format!("{shown} does not run here; does it need a newer libc?"))?;
    ensure!(line.contains(MAJOR), "{shown} is not of {MAJOR}x: {line}");
    Ok(line)
}
