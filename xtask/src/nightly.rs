//! The nightly toolchain: for the BPF object, and for programs of an architecture whose standard library
//! rustup cannot supply.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::tools;

/// Names the unpacked sources or the tarball to use where rustup has no `rust-src`.
const RUST_SRC: &str = "MMU_TRACE_RUST_SRC";
/// What to say where it is missing.
pub(crate) const HOW_TO_GET: &str = "a nightly toolchain: rustup toolchain install nightly";

/// The `rustc --version` line; `None` if there is no nightly.
pub(crate) fn version() -> Option<String> {
    tools::first_line(Command::new("rustc").args(["+nightly", "--version"]))
}

/// Its cargo in the repository; `library` are the standard library's sources from [`find_library`].
pub(crate) fn cargo(library: Option<&Path>) -> Result<Command> {
    let mut cargo = Command::new("cargo");
    cargo.arg("+nightly").current_dir(tools::repository()?).env_remove("RUSTUP_TOOLCHAIN");
    if let Some(library) = library {
        cargo.env("__CARGO_TESTS_ONLY_SRC_ROOT", library);
    }
    Ok(cargo)
}

/// Where the standard library's sources are: `None` if the toolchain has its own.
pub(crate) fn find_library() -> Result<Option<PathBuf>, String> {
    let sysroot =
        tools::first_line(Command::new("rustc").args(["+nightly", "--print", "sysroot"])).unwrap_or_default();
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
