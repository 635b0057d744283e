//! Packages from a Debian mirror: resolved from the suites' indexes, because a security suite drops
//! a version when it has a newer one; verified from the archive's signature down to each file.

mod archive;
mod index;
mod mirror;
mod sources;

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
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

    /// The package called `name` of the newest of `suites`, and all that it depends on, itself first.
    pub(crate) fn with_dependencies(&self, suites: &[Suite], name: &str) -> Result<Vec<Package>> {
        let mut found: Vec<Package> = Vec::new();
        let mut wanted = VecDeque::from([name.to_owned()]);
        while let Some(name) = wanted.pop_front() {
            if found.iter().any(|package| package.name() == name) {
                continue;
            }
            let package = self.newest(suites, |other| other == name)?;
            let package = package.with_context(|| format!("the mirror offers no package {name}"))?;
            wanted.extend(package.depends().iter().cloned());
            found.push(package);
        }
        Ok(found)
    }

    /// The `.deb` file, verified.
    pub(crate) fn file(&self, package: &Package) -> Result<PathBuf> {
        self.mirror.file(package.suite.archive, &package.stanza.filename, &package.stanza.sha256)
    }

    /// A folder with the contents of all of `packages` in it. It is made once.
    pub(crate) fn tree(&self, packages: &[Package]) -> Result<PathBuf> {
        let files = packages.iter().map(|package| self.file(package)).collect::<Result<Vec<_>>>()?;
        let names = packages.iter().map(|p| format!("{}_{}", p.name(), p.version()));
        let tree = self.mirror.cache().join(folder_name(&names.collect::<Vec<_>>()));
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

/// A name for a folder with all of `packages` in it: of many of them the first, and a hash of all.
fn folder_name(packages: &[String]) -> String {
    /// Longest name of a file on Linux.
    const MAX_LEN: usize = 255;
    let all = packages.join("+").replace(':', "%3a");
    if all.len() <= MAX_LEN {
        return all;
    }
    let first = packages.first().map_or("", String::as_str).replace(':', "%3a");
    let hash: String = Sha256::digest(&all).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{first}+{hash}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_many_packages_has_a_name_that_fits_and_is_its_own() {
        let few = ["a_1:2".to_owned(), "b_1".to_owned()];
        assert_eq!(folder_name(&few), "a_1%3a2+b_1");
        let many = |last: &str| {
            let mut names = vec!["library_1.2.3-4".to_owned(); 30];
            names.push(last.to_owned());
            folder_name(&names)
        };
        assert!(many("x").len() < 100 && many("x").starts_with("library_1.2.3-4+"));
        assert_ne!(many("x"), many("y"));
    }
}
