//! The kernels that the lab can boot.

use anyhow::{Result, bail};

/// A part of a Debian archive.
#[derive(Debug)]
pub(super) struct Suite {
    /// The folder on the mirror.
    pub(super) archive: &'static str,
    /// The suite's name.
    pub(super) name: &'static str,
}

/// One kernel of the lab.
#[derive(Debug)]
pub(super) struct Kernel {
    /// Its name for `--kernel`.
    pub(super) name: &'static str,
    /// Where to look for it; the newest of all of them is taken.
    pub(super) suites: &'static [Suite],
    /// The package's name up to its ABI number.
    pub(super) package_prefix: &'static str,
    /// The package's name after its ABI number.
    pub(super) package_suffix: &'static str,
}

/// The table. Later kernels have compressed modules and split packages: see `packages::unpack`.
const KERNELS: &[Kernel] = &[Kernel {
    name: "6.1",
    suites: &[
        Suite { archive: "debian", name: "bookworm" },
        Suite { archive: "debian", name: "bookworm-updates" },
        Suite { archive: "debian-security", name: "bookworm-security" },
    ],
    package_prefix: "linux-image-6.1.0-",
    package_suffix: "-cloud-amd64",
}];

/// The kernel called `name`.
pub(super) fn find(name: &str) -> Result<&'static Kernel> {
    match KERNELS.iter().find(|kernel| kernel.name == name) {
        Some(kernel) => Ok(kernel),
        None => {
            let known: Vec<&str> = KERNELS.iter().map(|kernel| kernel.name).collect();
            bail!("the lab has no kernel {name:?}; it has: {}", known.join(", "))
        }
    }
}

impl Kernel {
    /// The ABI number of `package`, if it is one of this kernel's images.
    pub(super) fn abi(&self, package: &str) -> Option<u32> {
        package.strip_prefix(self.package_prefix)?.strip_suffix(self.package_suffix)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_images_count() {
        let kernel = find("6.1").unwrap();
        assert_eq!(kernel.abi("linux-image-6.1.0-56-cloud-amd64"), Some(56));
        assert_eq!(kernel.abi("linux-image-6.1.0-56-cloud-amd64-dbg"), None);
        assert_eq!(kernel.abi("linux-image-6.1.0-56-rt-amd64"), None);
    }

    #[test]
    fn an_unknown_kernel_is_answered_with_the_known_ones() {
        assert!(find("4.19").unwrap_err().to_string().contains("6.1"));
    }
}
