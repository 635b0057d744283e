//! `cargo xtask package`: the `.deb` and the `.rpm`, and whether they install, work and go again.
//!
//! ```text
//!  static build -> cargo-deb          -> target/dist/*.deb --check--> a Debian system of its own
//!              '-> cargo-generate-rpm -> target/dist/*.rpm --check--> an rpm database of its own
//! ```

mod chroot;
mod deb;
mod kubernetes;
mod rpm;
mod unit;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use xtask::arch::Arch;

use crate::lab::checks;
use crate::lab::{binaries, installed};
use crate::{man, tally::Tally, tools};

/// Arguments of `cargo xtask package`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Install both packages into systems of their own, look at what is there, upgrade and remove them.
    #[arg(long)]
    pub(crate) check: bool,
    /// Boot a Debian system that has the package, with a VM of another user, and see the unit at work.
    #[arg(long)]
    pub(crate) lab: bool,
    /// The kernel of that system, as `cargo xtask lab` calls it.
    #[arg(long, default_value = "6.1", requires = "lab")]
    pub(crate) kernel: String,
}

impl Args {
    /// What `cargo xtask ci` runs.
    pub(crate) fn for_ci() -> Self {
        Self { check: true, lab: true, kernel: "6.1".to_owned() }
    }
}

/// The packages of one version.
pub(crate) struct Packages {
    /// For Debian and what is made of it.
    pub(crate) deb: PathBuf,
    /// For Red Hat's and SUSE's.
    rpm: PathBuf,
    /// What both hold.
    program: PathBuf,
}

/// Builds the packages; any check that fails is an error.
pub(crate) fn run(args: &Args) -> Result<()> {
    let tally = run_and_tally(args)?;
    if tally.failed > 0 {
        bail!("{} of {} package checks failed", tally.failed, tally.passed + tally.failed);
    }
    Ok(())
}

/// Builds the packages and counts the checks.
pub(crate) fn run_and_tally(args: &Args) -> Result<Tally> {
    let packages = build()?;
    println!("package: {}\npackage: {}", packages.deb.display(), packages.rpm.display());
    let mut tally = Tally::default();
    if args.check {
        let own = vec![unit::check()?, kubernetes::check(&packages.program)?];
        let groups = [own, deb::check(&packages.deb)?, rpm::check(&packages.rpm)?].concat();
        tally.add(checks::print(&groups));
    }
    if args.lab {
        let root = chroot::Chroot::fresh("host")?;
        tally.add(installed::run(&args.kernel, root.path(), &packages.deb)?);
    }
    Ok(tally)
}

/// The folder of what is released.
fn dist() -> Result<PathBuf> {
    let dist = tools::target_dir()?.join("dist");
    fs::create_dir_all(&dist).with_context(|| format!("cannot create {}", dist.display()))?;
    Ok(dist)
}

fn build() -> Result<Packages> {
    // The lab's build: the packages hold the program that the lab has proved.
    let build_dir = tools::target_dir()?.join("lab/build");
    binaries::build(&build_dir, Arch::OWN)?;
    man::run()?;
    let target = format!("{}-unknown-linux-gnu", Arch::OWN.machine());
    let dist = dist()?;
    let (debs, rpms) = (dist.join("deb"), dist.join("rpm"));
    for folder in [&debs, &rpms] {
        tools::empty_folder(folder)?;
    }
    let mut deb = tools::cargo()?;
    deb.args(["deb", "--no-build", "--package", "mmu-trace", "--target", &target, "--quiet", "--output"])
        .arg(&debs)
        .env("CARGO_TARGET_DIR", &build_dir);
    tools::run(&mut deb).context("cargo install --locked cargo-deb --version 3.8.0 brings what is needed")?;
    let mut rpm = tools::cargo()?;
    // Red Hat 8 reads xz, not zstd.
    rpm.args(["generate-rpm", "--package", "mmu-trace", "--target", &target, "--payload-compress", "xz"])
        .arg("--target-dir")
        .arg(&build_dir)
        .arg("--output")
        .arg(&rpms);
    tools::run(&mut rpm)
        .context("cargo install --locked cargo-generate-rpm --version 0.21.1 brings what is needed")?;
    let program = build_dir.join(&target).join("release/mmu-trace");
    Ok(Packages { deb: only_file(&debs)?, rpm: only_file(&rpms)?, program })
}

fn only_file(folder: &Path) -> Result<PathBuf> {
    let entry = fs::read_dir(folder)?.next().with_context(|| format!("{} is empty", folder.display()))?;
    Ok(entry?.path())
}
