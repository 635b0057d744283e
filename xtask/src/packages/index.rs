//! The text of `InRelease` and `Packages` files.

use anyhow::{Context, Result};

/// What is needed of one package's entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stanza {
    /// `Package`.
    pub(super) package: String,
    /// `Version`.
    pub(super) version: String,
    /// `Depends`, the names alone.
    pub(super) depends: Vec<String>,
    /// `Filename`, relative to the archive.
    pub(super) filename: String,
    /// `SHA256` of the file.
    pub(super) sha256: String,
}

impl Stanza {
    /// Compares the numbers of the versions, which is all that orders the packages wanted here.
    pub(super) fn is_newer_than(&self, other: &Self) -> bool {
        numbers(&self.version) > numbers(&other.version)
    }
}

/// The newest package with a name that is wanted.
pub(super) fn newest(packages: &str, is_wanted: impl Fn(&str) -> bool) -> Option<Stanza> {
    let mut newest: Option<Stanza> = None;
    for text in packages.split("\n\n") {
        if !field(text, "Package").is_some_and(&is_wanted) {
            continue;
        }
        let Some(stanza) = parse_stanza(text) else { continue };
        if newest.as_ref().is_none_or(|best| stanza.is_newer_than(best)) {
            newest = Some(stanza);
        }
    }
    newest
}

/// The SHA256 that a release file states for `path`.
pub(super) fn hash_of(release: &str, path: &str) -> Result<String> {
    release
        .lines()
        .skip_while(|line| *line != "SHA256:")
        .skip(1)
        .take_while(|line| line.starts_with(' '))
        .find_map(|line| {
            let mut words = line.split_whitespace();
            let hash = words.next()?;
            (words.nth(1)? == path).then(|| hash.to_owned())
        })
        .with_context(|| format!("the release file has no SHA256 of {path}"))
}

fn parse_stanza(text: &str) -> Option<Stanza> {
    let owned = |name| field(text, name).map(str::to_owned);
    let depends = field(text, "Depends").unwrap_or_default();
    Some(Stanza {
        package: owned("Package")?,
        version: owned("Version")?,
        depends: depends
            .split(',')
            .filter_map(|one| one.split_whitespace().next())
            .map(str::to_owned)
            .collect(),
        filename: owned("Filename")?,
        sha256: owned("SHA256")?,
    })
}

fn field<'t>(stanza: &'t str, name: &str) -> Option<&'t str> {
    stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

fn numbers(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKAGES: &str = "Package: k-9\nVersion: 6.1.10-1\nFilename: pool/k9\nSHA256: aa\n\n\
        Package: k-10\nVersion: 6.1.99-1\nFilename: pool/k10\nSHA256: bb\n\n\
        Package: k-10\nVersion: 6.1.100-2\nDepends: a (= 1), b | c\nFilename: pool/k10b\nSHA256: cc\n\n\
        Package: other\nVersion: 9\nFilename: pool/o\nSHA256: dd\n";

    #[test]
    fn numbers_are_compared_as_numbers() {
        let newest = newest(PACKAGES, |name| name.starts_with("k-")).unwrap();
        assert_eq!((newest.sha256.as_str(), newest.depends), ("cc", vec!["a".to_owned(), "b".to_owned()]));
    }

    #[test]
    fn no_such_package_is_none() {
        assert_eq!(newest("", |_| true), None);
        assert_eq!(newest(PACKAGES, |name| name == "k"), None);
    }

    #[test]
    fn the_sha256_section_is_the_one_that_counts() {
        let release =
            "MD5Sum:\n 11 5 main/Packages.xz\nSHA256:\n 22 5 main/Packages\n 33 5 main/Packages.xz\nX: y\n";
        assert_eq!(hash_of(release, "main/Packages.xz").unwrap(), "33");
        assert!(hash_of(release, "main/Packages.gz").is_err());
    }
}
