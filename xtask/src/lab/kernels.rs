//! The kernels that the lab can boot.

use std::path::PathBuf;

use anyhow::{Result, bail};
use xtask::arch::Arch;
use xtask::phase::Mmu;

use crate::packages::{Kernel as Unpacked, Package, Packages, Suite};

/// One generation of kernels.
#[derive(Debug)]
pub(super) struct Kernel {
    /// Its name for `--kernel`.
    pub(super) name: &'static str,
    /// Where to look for it; the newest of all of them is taken.
    suites: &'static [Suite],
    /// The package's name up to the part that differs between its versions.
    package_prefix: &'static str,
    /// The MMUs of a full run on x86-64; `None` is the kernel's default.
    mmus: &'static [Option<Mmu>],
    /// Whether a full run on arm64 has it.
    on_arm64: bool,
}

/// A kernel with an MMU: one boot of the lab.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    /// The architecture.
    pub(super) arch: Arch,
    /// The kernel.
    pub(super) kernel: &'static Kernel,
    /// The MMU, where it is not the kernel's default.
    pub(super) mmu: Option<Mmu>,
}

impl Target {
    /// Its name, also that of its results.
    pub(super) fn name(self) -> String {
        let mut name = match self.arch {
            Arch::Amd64 => String::new(),
            Arch::Arm64 => "arm64-".to_owned(),
        };
        name += self.kernel.name;
        if let Some(mmu) = self.mmu {
            name += "-";
            name += mmu.name();
        }
        name
    }

    /// The newest package of this kernel, if the mirror still offers one.
    pub(super) fn resolve(self, packages: &Packages) -> Result<Option<Package>> {
        packages.newest(self.kernel.suites, |name| self.kernel.is_image(name, self.arch))
    }

    /// Whether the lab can give it a working `change_pte`. On the TDP MMU a kernel stops if a guest that
    /// runs touches a page between the two steps of its merge.
    pub(super) fn can_restore_change_pte(self) -> bool {
        ["5.10", "6.1-rmap"].contains(&self.name().as_str())
    }
}

/// Every kernel of an architecture, with each of its MMUs.
pub(super) fn all(arch: Arch) -> Vec<Target> {
    let mmus = |kernel: &'static Kernel| match arch {
        Arch::Amd64 => kernel.mmus,
        Arch::Arm64 if kernel.on_arm64 => &[None],
        Arch::Arm64 => &[],
    };
    let targets =
        KERNELS.iter().flat_map(|kernel| mmus(kernel).iter().map(move |&mmu| Target { arch, kernel, mmu }));
    targets.collect()
}

/// The flavour for virtual machines: small, and with everything that the lab needs.
const FLAVOUR: &str = "-cloud-";

const fn debian(name: &'static str) -> Suite {
    Suite { archive: "debian", name }
}

const fn security(name: &'static str) -> Suite {
    Suite { archive: "debian-security", name }
}

const KERNELS: &[Kernel] = &[
    Kernel {
        name: "5.10",
        suites: &[debian("bullseye"), security("bullseye-security")],
        package_prefix: "linux-image-5.10.0-",
        mmus: &[None, Some(Mmu::Tdp)],
        on_arm64: false,
    },
    Kernel {
        name: "6.1",
        suites: &[debian("bookworm"), debian("bookworm-updates"), security("bookworm-security")],
        package_prefix: "linux-image-6.1.0-",
        mmus: &[None, Some(Mmu::Rmap)],
        on_arm64: true,
    },
    Kernel {
        name: "6.12",
        suites: &[debian("trixie"), security("trixie-security"), debian("bookworm-backports")],
        package_prefix: "linux-image-6.12.",
        mmus: &[None],
        on_arm64: true,
    },
    Kernel {
        name: "6.18",
        suites: &[debian("trixie-backports"), debian("forky"), debian("sid")],
        package_prefix: "linux-image-6.18.",
        mmus: &[None],
        on_arm64: false,
    },
    Kernel {
        name: "7",
        suites: &[debian("trixie-backports"), debian("forky"), debian("sid")],
        package_prefix: "linux-image-7.",
        mmus: &[None],
        on_arm64: true,
    },
];

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
    fn is_image(&self, package: &str, arch: Arch) -> bool {
        let rest = package.strip_prefix(self.package_prefix).and_then(|p| p.strip_suffix(arch.debian()));
        rest.and_then(|rest| rest.strip_suffix(FLAVOUR)).is_some_and(|version| {
            !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit() || b".+deb".contains(&b))
        })
    }
}

/// The image, the modules, and the list of what is built in.
const PARTS: [&str; 3] = ["linux-binary-", "linux-modules-", "linux-base-"];

/// Fetches and unpacks the kernel of `image`. Newer kernels are split: their image package is empty
/// and depends on the ones that hold the image and the modules.
pub(super) fn unpack(packages: &Packages, image: &Package) -> Result<Unpacked> {
    let mut debs: Vec<PathBuf> = vec![packages.file(image)?];
    for name in image.depends() {
        if PARTS.iter().any(|part| name.starts_with(part)) {
            // What is missing and matters is missed when they are read.
            if let Some(part) = packages.beside(image, name)? {
                debs.push(packages.file(&part)?);
            }
        }
    }
    Unpacked::read(debs.iter().map(PathBuf::as_path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_images_count() {
        let kernel = find("6.1").unwrap();
        assert!(kernel.is_image("linux-image-6.1.0-56-cloud-amd64", Arch::Amd64));
        assert!(!kernel.is_image("linux-image-6.1.0-56-cloud-amd64", Arch::Arm64));
        assert!(kernel.is_image("linux-image-6.1.0-56-cloud-arm64", Arch::Arm64));
        assert!(!kernel.is_image("linux-image-6.1.0-56-cloud-amd64-dbg", Arch::Amd64));
        assert!(!kernel.is_image("linux-image-6.1.0-56-rt-amd64", Arch::Amd64));
        assert!(find("7").unwrap().is_image("linux-image-7.3.4+deb13-cloud-amd64", Arch::Amd64));
        assert!(!find("6.12").unwrap().is_image("linux-image-6.12.9+deb13-rt-cloud-amd64", Arch::Amd64));
    }

    #[test]
    fn an_unknown_kernel_is_answered_with_the_known_ones() {
        assert!(find("4.19").unwrap_err().to_string().contains("6.1"));
    }
}
