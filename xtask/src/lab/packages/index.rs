//! The text of `InRelease` and `Packages` files.

use anyhow::{Context, Result};

/// What is needed of one package's entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stanza {
    /// `Package`.
    pub(super) package: String,
    /// `Version`.
    pub(super) version: String,
    /// `Filename`, relative to the archive.
    pub(super) filename: String,
    /// `SHA256` of the file.
    pub(super) sha256: String,
    abi: u32,
}

impl Stanza {
    /// Compares the ABI number, then the numbers of the version. Kernel versions hold nothing else
    /// that orders them.
    pub(super) fn is_newer_than(&self, other: &Self) -> bool {
        (self.abi, numbers(&self.version)) > (other.abi, numbers(&other.version))
    }
}

/// The newest package whose name has an ABI number.
pub(super) fn newest(packages: &str, abi: impl Fn(&str) -> Option<u32>) -> Option<Stanza> {
    let mut newest: Option<Stanza> = None;
    for text in packages.split("\n\n") {
        let Some(number) = field(text, "Package").and_then(&abi) else { continue };
        let Some(stanza) = parse_stanza(text, number) else { continue };
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

fn parse_stanza(text: &str, abi: u32) -> Option<Stanza> {
    let owned = |name| field(text, name).map(str::to_owned);
    Some(Stanza {
        package: owned("Package")?,
        version: owned("Version")?,
        filename: owned("Filename")?,
        sha256: owned("SHA256")?,
        abi,
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
        Package: k-10\nVersion: 6.1.100-2\nFilename: pool/k10b\nSHA256: cc\n\n\
        Package: other\nVersion: 9\nFilename: pool/o\nSHA256: dd\n";

    fn abi(name: &str) -> Option<u32> {
        name.strip_prefix("k-")?.parse().ok()
    }

    #[test]
    fn numbers_are_compared_as_numbers() {
        assert_eq!(newest(PACKAGES, abi).unwrap().sha256, "cc");
    }

    #[test]
    fn no_such_package_is_none() {
        assert_eq!(newest("", abi), None);
        assert_eq!(newest("Package: other\nVersion: 1\n", abi), None);
    }

    #[test]
    fn the_sha256_section_is_the_one_that_counts() {
        let release =
            "MD5Sum:\n 11 5 main/Packages.xz\nSHA256:\n 22 5 main/Packages\n 33 5 main/Packages.xz\nX: y\n";
        assert_eq!(hash_of(release, "main/Packages.xz").unwrap(), "33");
        assert!(hash_of(release, "main/Packages.gz").is_err());
    }
}
