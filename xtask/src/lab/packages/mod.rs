//! Kernel packages from a Debian mirror: resolved from the suites' indexes, because a security suite
//! drops a version when it has a newer one; verified from the archive's signature down to each file.

mod archive;
mod index;
mod mirror;
mod sources;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub(super) use self::archive::{Unpacked, unpack};
use self::index::Stanza;
use self::mirror::Mirror;
use super::kernels::Kernel;

/// A package in the cache.
pub(super) struct Package {
    /// Its name.
    pub(super) name: String,
    /// Its version.
    pub(super) version: String,
    /// The `.deb` file, its hash verified.
    pub(super) path: PathBuf,
}

/// Brings the newest package of `kernel` into `cache`.
pub(super) fn fetch(kernel: &Kernel, cache: &Path) -> Result<Package> {
    let mirror = Mirror::new(cache)?;
    let mut newest: Option<(Stanza, &str)> = None;
    for suite in kernel.suites {
        let text = mirror.package_index(suite).with_context(|| format!("the index of {}", suite.name))?;
        let found = index::newest(&text, |name| kernel.abi(name));
        if let Some(stanza) = found
            && newest.as_ref().is_none_or(|(best, _)| stanza.is_newer_than(best))
        {
            newest = Some((stanza, suite.archive));
        }
    }
    let (stanza, archive) = newest.with_context(|| {
        format!("the mirror offers no {}*{}", kernel.package_prefix, kernel.package_suffix)
    })?;
    let path = mirror.file(archive, &stanza.filename, &stanza.sha256)?;
    Ok(Package { name: stanza.package, version: stanza.version, path })
}
