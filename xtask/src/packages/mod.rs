//! Packages from a Debian mirror: resolved from the suites' indexes, because a security suite drops
//! a version when it has a newer one; verified from the archive's signature down to each file.

mod archive;
mod index;
mod mirror;
mod sources;

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result};
use xtask::arch::Arch;

pub(crate) use self::archive::Kernel;
use self::index::Stanza;
use self::mirror::Mirror;
pub(crate) use self::sources::archive_url;

/// A part of a Debian archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Suite {
    /// The folder on the mirror.
    pub(crate) archive: &'static str,
    /// The suite's name.
    pub(crate) name: &'static str,
}

/// A package that a suite offers.
#[derive(Clone, Debug)]
pub(crate) struct Package {
    stanza: Stanza,
    suite: Suite,
}

impl Package {
    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.stanza.package
    }

    /// Its version.
    pub(crate) fn version(&self) -> &str {
        &self.stanza.version
    }

    /// The names of the packages it depends on, the first of each alternative.
    pub(crate) fn depends(&self) -> &[String] {
        &self.stanza.depends
    }
}

/// What a mirror offers for one architecture, with the cache in front of it.
pub(crate) struct Packages {
    mirror: Mirror,
    arch: Arch,
    indexes: RefCell<HashMap<&'static str, Rc<str>>>,
}

impl Packages {
    /// The mirror of the environment, cached in `cache`.
    pub(crate) fn new(cache: &Path, arch: Arch) -> Result<Self> {
        Ok(Self { mirror: Mirror::new(cache)?, arch, indexes: RefCell::default() })
    }

    /// The newest package of `suites` with a name that is wanted.
    pub(crate) fn newest(
        &self,
        suites: &[Suite],
        is_wanted: impl Fn(&str) -> bool,
    ) -> Result<Option<Package>> {
        let mut newest: Option<Package> = None;
        for suite in suites {
            let found = index::newest(&self.index(*suite)?, &is_wanted);
            if let Some(stanza) = found
                && newest.as_ref().is_none_or(|best| stanza.is_newer_than(&best.stanza))
            {
                newest = Some(Package { stanza, suite: *suite });
            }
        }
        Ok(newest)
    }

    /// A package of the same suite, if it offers it.
    pub(crate) fn beside(&self, package: &Package, name: &str) -> Result<Option<Package>> {
        self.newest(&[package.suite], |other| other == name)
    }

    /// The `.deb` file, verified.
    pub(crate) fn file(&self, package: &Package) -> Result<PathBuf> {
        self.mirror.file(package.suite.archive, &package.stanza.filename, &package.stanza.sha256)
    }

    /// A folder with the contents of all of `packages` in it. It is made once.
    pub(crate) fn tree(&self, packages: &[Package]) -> Result<PathBuf> {
        let files = packages.iter().map(|package| self.file(package)).collect::<Result<Vec<_>>>()?;
        let names = packages.iter().map(|p| format!("{}_{}", p.name(), p.version()));
        let name = names.collect::<Vec<_>>().join("+").replace(':', "%3a");
        let tree = self.mirror.cache().join(name);
        if !tree.exists() {
            let partial = self.mirror.cache().join("tree.part");
            if partial.exists() {
                std::fs::remove_dir_all(&partial)?;
            }
            for file in &files {
                archive::extract(file, &partial)?;
            }
            std::fs::rename(&partial, &tree)?;
        }
        Ok(tree)
    }

    fn index(&self, suite: Suite) -> Result<Rc<str>> {
        if let Some(text) = self.indexes.borrow().get(suite.name) {
            return Ok(text.clone());
        }
        let text = self
            .mirror
            .package_index(&suite, self.arch)
            .with_context(|| format!("the index of {}", suite.name))?;
        let text: Rc<str> = text.into();
        self.indexes.borrow_mut().insert(suite.name, text.clone());
        Ok(text)
    }
}
