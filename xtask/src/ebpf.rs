//! `cargo xtask ebpf`: builds the BPF objects, or proves that the committed ones are what the source gives.
//!
//! A user never needs this: the objects, one for each architecture, are committed and embedded. Building it takes a nightly
//! toolchain, the standard library's sources for `-Z build-std=core`, `bpf-linker` and `llvm-strip`.
//! The same toolchain gives the same bytes in any folder: paths are trimmed, debug sections other than
//! BTF are stripped, and every body is inlined into its programs. A function of its own would carry
//! a mangled name, and in it a hash of where the standard library's sources lie.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use xtask::arch::Arch;

use crate::{nightly, tools};

/// The kernels that there is an object for: it must know how registers are saved.
const ARCHS: [Arch; 2] = [Arch::Amd64, Arch::Arm64];
/// Where the committed objects are, relative to the workspace.
const FOLDER: &str = "mmu-trace/src/bpf";
/// The toolchain the committed objects were built with; a `rustc --version` line.
const TOOLCHAIN: &str = "mmu-trace/src/bpf/mmu-trace.bpf.toolchain";
/// The version of the linker, which carries its own LLVM and so decides the bytes too.
const BPF_LINKER: &str = "bpf-linker 0.10.3";

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
    for arch in ARCHS {
        let built = tools.build(arch)?;
        let name = name(arch);
        let committed = workspace.join(FOLDER).join(&name);
        if args.check {
            compare(&name, &built, &committed, &workspace, &tools)?;
            continue;
        }
        fs::copy(&built, &committed).with_context(|| format!("cannot write {}", committed.display()))?;
        println!("{name}: {} bytes", fs::metadata(&committed)?.len());
    }
    if !args.check {
        fs::write(workspace.join(TOOLCHAIN), tools.versions())?;
    }
    Ok(())
}

fn name(arch: Arch) -> String {
    format!("mmu-trace.{}.bpf.o", arch.machine())
}

fn compare(name: &str, built: &Path, committed: &Path, workspace: &Path, tools: &Tools) -> Result<()> {
    let (built, committed) = (fs::read(built)?, fs::read(committed).context("no committed object")?);
    if built == committed {
        println!("{name}: {} bytes, identical to what the source gives", built.len());
        return Ok(());
    }
    let recorded = fs::read_to_string(workspace.join(TOOLCHAIN)).unwrap_or_default();
    if recorded != tools.versions() {
        bail!(
            "{name} differs, and so do the tools: it was built with\n{recorded}and this is\n{}\
             install those versions, or rebuild it with `cargo xtask ebpf`",
            tools.versions()
        );
    }
    bail!("{name} is not what the source gives: run `cargo xtask ebpf` and commit the result")
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
        let rustc = nightly::version();
        if rustc.is_none() {
            missing.push(nightly::HOW_TO_GET.to_owned());
        }
        let linker = tools::first_line(Command::new("bpf-linker").arg("--version"));
        if linker.as_deref() != Some(BPF_LINKER) {
            let found = linker.map_or_else(String::new, |found| format!(" (found {found})"));
            missing.push(format!("{BPF_LINKER}{found}: cargo install bpf-linker --version 0.10.3 --locked"));
        }
        let strip = ["llvm-strip", "llvm-strip-19", "llvm-strip-14"]
            .into_iter()
            .find(|name| tools::first_line(Command::new(name).arg("--version")).is_some());
        if strip.is_none() {
            missing.push("llvm-strip: apt-get install llvm".to_owned());
        }
        let library = nightly::find_library().unwrap_or_else(|problem| {
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

    /// Builds and strips the object for kernels of `arch`; returns the path of the result.
    fn build(&self, arch: Arch) -> Result<PathBuf> {
        let target = tools::target_dir()?.join("ebpf").join(arch.machine());
        let arch_flag = format!("--cfg=bpf_target_arch=\"{}\"", arch.machine());
        let flags = ["-Cdebuginfo=2", "-Clink-arg=--btf", "-Cpanic=abort", &arch_flag];
        let mut cargo = nightly::cargo(self.library.as_deref())?;
        cargo
            .args(["build", "--release", "--locked", "--package", "mmu-trace-ebpf"])
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
            .env("CARGO_CFG_BPF_TARGET_ARCH", arch.machine())
            .env_remove("RUSTFLAGS");
        tools::run(&mut cargo)?;
        let built = target.join("bpfel-unknown-none/release/mmu-trace-bpf");
        let stripped = target.join("mmu-trace.bpf.o");
        // Source lines for the verifier's log are half the object, and nobody who installs it reads them.
        let sections = ["-R", ".BTF.ext", "-R", ".rel.BTF.ext"];
        tools::run(Command::new(&self.strip).arg("-g").args(sections).arg("-o").arg(&stripped).arg(&built))?;
        ensure!(
            !has_functions(&fs::read(&stripped)?),
            "{} has a function of its own: mark its body #[inline(always)]",
            stripped.display()
        );
        Ok(stripped)
    }
}

/// Whether there is a Rust function beside the programs, by its mangled name in the table of symbols.
fn has_functions(object: &[u8]) -> bool {
    // An instruction may have the bytes of the prefix, but no letter behind them.
    const MANGLED: &[u8] = b"\0_R";
    object.windows(MANGLED.len() + 1).any(|w| w.starts_with(MANGLED) && w[MANGLED.len()].is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_told_by_its_name() {
        assert!(has_functions(b"\0memset\0_RNvNvNt\0"));
        assert!(!has_functions(b"\0memset\0fe_range_start\0_R\0\0"));
    }
}
