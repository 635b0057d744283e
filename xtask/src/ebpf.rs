//! `cargo xtask ebpf`: builds the BPF object, or proves that the committed one is what the source gives.
//!
//! A user never needs this: the object is committed and embedded. Building it takes a nightly
//! toolchain, the standard library's sources for `-Z build-std=core`, `bpf-linker` and `llvm-strip`.
//! The same toolchain gives the same bytes in any folder: paths are trimmed, debug sections other than
//! BTF are stripped, and every body is inlined into its programs. A function of its own would carry
//! a mangled name, and in it a hash of where the standard library's sources lie.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::tools;

/// The committed object, relative to the workspace.
const OBJECT: &str = "mmu-trace/src/bpf/mmu-trace.bpf.o";
/// The toolchain the committed object was built with; a `rustc --version` line.
const TOOLCHAIN: &str = "mmu-trace/src/bpf/mmu-trace.bpf.toolchain";
/// The version of the linker, which carries its own LLVM and so decides the bytes too.
const BPF_LINKER: &str = "bpf-linker 0.10.3";
/// Names the unpacked sources or the tarball to use where rustup has no `rust-src`.
const RUST_SRC: &str = "MMU_TRACE_RUST_SRC";

/// Arguments of `cargo xtask ebpf`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Build and compare with the committed object instead of replacing it
    #[arg(long)]
    pub(crate) check: bool,
}

/// Builds the object and replaces or compares the committed one.
pub(crate) fn run(args: &Args) -> Result<()> {
    let workspace = tools::repository()?;
    let tools = Tools::find()?;
    let built = tools.build(&workspace)?;
    let committed = workspace.join(OBJECT);
    if args.check {
        return compare(&built, &committed, &workspace, &tools);
    }
    fs::copy(&built, &committed).with_context(|| format!("cannot write {}", committed.display()))?;
    fs::write(workspace.join(TOOLCHAIN), tools.versions())?;
    println!("{OBJECT}: {} bytes", fs::metadata(&committed)?.len());
    Ok(())
}

fn compare(built: &Path, committed: &Path, workspace: &Path, tools: &Tools) -> Result<()> {
    let (built, committed) = (fs::read(built)?, fs::read(committed).context("no committed object")?);
    if built == committed {
        println!("{OBJECT}: {} bytes, identical to what the source gives", built.len());
        return Ok(());
    }
    let recorded = fs::read_to_string(workspace.join(TOOLCHAIN)).unwrap_or_default();
    if recorded != tools.versions() {
        bail!(
            "{OBJECT} differs, and so do the tools: it was built with\n{recorded}and this is\n{}\
             install those versions, or rebuild it with `cargo xtask ebpf`",
            tools.versions()
        );
    }
    bail!("{OBJECT} is not what the source gives: run `cargo xtask ebpf` and commit the result")
}

/// What the build needs.
struct Tools {
    rustc: String,
    strip: PathBuf,
    /// `library` folder of the standard library's sources, if rustup has none.
    library: Option<PathBuf>,
}

impl Tools {
    /// Finds every tool, or says all that is missing and how to get it.
    fn find() -> Result<Self> {
        let mut missing = Vec::new();
        let rustc = first_line(Command::new("rustc").args(["+nightly", "--version"]));
        if rustc.is_none() {
            missing.push("a nightly toolchain: rustup toolchain install nightly".to_owned());
        }
        let linker = first_line(Command::new("bpf-linker").arg("--version"));
        if linker.as_deref() != Some(BPF_LINKER) {
            let found = linker.map_or_else(String::new, |found| format!(" (found {found})"));
            missing.push(format!("{BPF_LINKER}{found}: cargo install bpf-linker --version 0.10.3 --locked"));
        }
        let strip = ["llvm-strip", "llvm-strip-19", "llvm-strip-14"]
            .into_iter()
            .find(|name| first_line(Command::new(name).arg("--version")).is_some());
        if strip.is_none() {
            missing.push("llvm-strip: apt-get install llvm".to_owned());
        }
        let library = find_library().unwrap_or_else(|problem| {
            missing.push(problem);
            None
        });
        if !missing.is_empty() {
            bail!("building the BPF object needs\n  - {}", missing.join("\n  - "));
        }
        Ok(Self { rustc: rustc.context("no rustc")?, strip: strip.context("no llvm-strip")?.into(), library })
    }

    fn versions(&self) -> String {
        format!("{}\n{BPF_LINKER}\n", self.rustc)
    }

    /// Builds and strips; returns the path of the result.
    fn build(&self, workspace: &Path) -> Result<PathBuf> {
        let target = tools::target_dir()?.join("ebpf");
        let flags =
            ["-Cdebuginfo=2", "-Clink-arg=--btf", "-Cpanic=abort", "--cfg=bpf_target_arch=\"x86_64\""];
        let mut cargo = Command::new("cargo");
        cargo
            .current_dir(workspace)
            .args(["+nightly", "build", "--release", "--locked", "--package", "mmu-trace-ebpf"])
            .args([
                "--bin",
                "mmu-trace-bpf",
                "--target",
                "bpfel-unknown-none",
                "-Zbuild-std=core",
                "-Ztrim-paths",
            ])
            .args(["--config", "profile.release.trim-paths=\"all\""])
            .args(["--config", "profile.release.lto=\"fat\"", "--config", "profile.release.codegen-units=1"])
            .args(["--config", "profile.release.strip=\"none\"", "--config", "profile.release.debug=2"])
            .arg("--target-dir")
            .arg(&target)
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
            .env("CARGO_CFG_BPF_TARGET_ARCH", "x86_64")
            .env_remove("RUSTUP_TOOLCHAIN")
            .env_remove("RUSTFLAGS");
        if let Some(library) = &self.library {
            cargo.env("__CARGO_TESTS_ONLY_SRC_ROOT", library);
        }
        tools::run(&mut cargo)?;
        let built = target.join("bpfel-unknown-none/release/mmu-trace-bpf");
        let stripped = target.join("mmu-trace.bpf.o");
        // Source lines for the verifier's log are half the object, and nobody who installs it reads them.
        let sections = ["-R", ".BTF.ext", "-R", ".rel.BTF.ext"];
        tools::run(Command::new(&self.strip).arg("-g").args(sections).arg("-o").arg(&stripped).arg(&built))?;
        Ok(stripped)
    }
}

/// Where the standard library's sources are: `None` if the toolchain has its own.
fn find_library() -> Result<Option<PathBuf>, String> {
    let sysroot =
        first_line(Command::new("rustc").args(["+nightly", "--print", "sysroot"])).unwrap_or_default();
    if Path::new(&sysroot).join("lib/rustlib/src/rust/library/core").is_dir() {
        return Ok(None);
    }
    let Some(given) = env::var_os(RUST_SRC).map(PathBuf::from) else {
        return Err(format!(
            "the standard library's sources: rustup component add rust-src --toolchain nightly, \
             or set {RUST_SRC} to the rust-src tarball or to its unpacked folder"
        ));
    };
    if given.is_dir() {
        return Ok(Some(given.join("library")));
    }
    tools::target_dir()
        .and_then(|target| unpack(&given, &target.join("rust-src")))
        .map(Some)
        .map_err(|e| format!("{RUST_SRC}: {e:#}"))
}

fn unpack(tarball: &Path, into: &Path) -> Result<PathBuf> {
    let library = into.join("library");
    if !library.join("core").is_dir() {
        fs::create_dir_all(into)?;
        tools::run(Command::new("tar").arg("-xJf").arg(tarball).arg("-C").arg(into))?;
    }
    Ok(fs::canonicalize(library)?)
}

fn first_line(command: &mut Command) -> Option<String> {
    let output =
        command.env_remove("RUSTUP_TOOLCHAIN").output().ok().filter(|output| output.status.success())?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(|line| line.trim().to_owned())
}
