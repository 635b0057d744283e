//! The inside of a package: an `ar` archive with a compressed `tar` in it. No root needed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use liblzma::read::XzDecoder;

/// What the lab needs of a kernel's packages.
#[derive(Default)]
pub(crate) struct Kernel {
    /// `uname -r` of this kernel.
    pub(crate) release: String,
    /// The bootable image.
    pub(crate) image: Vec<u8>,
    /// Module name, with underscores, to its file, which may be compressed.
    modules: BTreeMap<String, Vec<u8>>,
    /// Names of the modules that are built in.
    pub(crate) builtin: Vec<String>,
}

impl Kernel {
    /// Reads the packages that a kernel consists of.
    pub(crate) fn read<'p>(debs: impl IntoIterator<Item = &'p Path>) -> Result<Self> {
        let mut kernel = Self::default();
        for deb in debs {
            with_data(deb, |data| kernel.add(data))?;
        }
        ensure!(!kernel.image.is_empty(), "the kernel's packages hold no image");
        ensure!(!kernel.modules.is_empty(), "the kernel's packages hold no modules");
        Ok(kernel)
    }

    /// The object file of the module called `name`.
    pub(crate) fn module(&self, name: &str) -> Result<Vec<u8>> {
        const XZ: &[u8] = b"\xfd7zXZ\0";
        let file =
            self.modules.get(name).with_context(|| format!("the kernel's packages hold no module {name}"))?;
        if !file.starts_with(XZ) {
            return Ok(file.clone());
        }
        let mut object = Vec::new();
        XzDecoder::new(file.as_slice())
            .read_to_end(&mut object)
            .with_context(|| format!("cannot unpack the module {name}"))?;
        Ok(object)
    }

    fn add(&mut self, data: &mut dyn Read) -> Result<()> {
        for entry in tar::Archive::new(data).entries()? {
            let mut entry = entry?;
            let path = entry.path()?.to_string_lossy().trim_start_matches("./").to_owned();
            let mut read = || -> Result<Vec<u8>> {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes)?;
                Ok(bytes)
            };
            if let Some(release) = image_release(&path) {
                self.release = release.to_owned();
                self.image = read()?;
            } else if path.ends_with(".ko") || path.ends_with(".ko.xz") {
                self.modules.insert(module_name(&path), read()?);
            } else if path.ends_with("/modules.builtin") {
                let text = String::from_utf8(read()?).context("modules.builtin is not text")?;
                self.builtin = text.lines().map(module_name).collect();
            }
        }
        Ok(())
    }
}

/// Unpacks everything into `folder`.
pub(super) fn extract(deb: &Path, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    with_data(deb, |data| {
        let mut tar = tar::Archive::new(data);
        tar.set_preserve_permissions(true);
        Ok(tar.unpack(folder)?)
    })
}

/// Hands the package's files, a plain `tar`, to `consume`.
fn with_data(deb: &Path, consume: impl FnOnce(&mut dyn Read) -> Result<()>) -> Result<()> {
    let context = || format!("cannot unpack {}", deb.display());
    let mut archive = ar::Archive::new(File::open(deb).with_context(context)?);
    while let Some(entry) = archive.next_entry() {
        let mut entry = entry.with_context(context)?;
        let name = String::from_utf8_lossy(entry.header().identifier()).into_owned();
        match name.trim_end_matches('/') {
            "data.tar.xz" => return consume(&mut XzDecoder::new(entry)).with_context(context),
            "data.tar" => return consume(&mut entry).with_context(context),
            other if other.starts_with("data.tar") => bail!("{}: {other} is not supported", deb.display()),
            _ => {}
        }
    }
    bail!("{} is no Debian package: it holds no data.tar", deb.display())
}

/// The release whose image `path` is.
fn image_release(path: &str) -> Option<&str> {
    let split = || path.strip_prefix("usr/lib/modules/")?.strip_suffix("/vmlinuz");
    path.strip_prefix("boot/vmlinuz-").or_else(split)
}

/// The kernel's name of the module at `path`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.trim_end_matches(".xz").trim_end_matches(".ko").replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, path, *content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn image_and_modules_are_found_in_one_package() {
        let tar = data(&[
            ("boot/vmlinuz-6.1.0-9-cloud-amd64", b"image"),
            ("lib/modules/6.1.0-9-cloud-amd64/kernel/arch/x86/kvm/kvm-amd.ko", b"elf"),
            ("lib/modules/6.1.0-9-cloud-amd64/modules.builtin", b"kernel/fs/ext4/ext4.ko\n"),
        ]);
        let mut kernel = Kernel::default();
        kernel.add(&mut tar.as_slice()).unwrap();
        assert_eq!(kernel.release, "6.1.0-9-cloud-amd64");
        assert_eq!(kernel.module("kvm_amd").unwrap(), b"elf");
        assert_eq!(kernel.builtin, ["ext4"]);
        assert!(kernel.module("kvm").is_err());
    }

    #[test]
    fn and_in_two_with_compressed_modules() {
        let mut module = Vec::new();
        liblzma::read::XzEncoder::new(&b"elf"[..], 0).read_to_end(&mut module).unwrap();
        let mut kernel = Kernel::default();
        kernel.add(&mut data(&[("usr/lib/modules/7.3.4/vmlinuz", b"image")]).as_slice()).unwrap();
        let modules = data(&[("usr/lib/modules/7.3.4/kernel/arch/x86/kvm/kvm.ko.xz", &module)]);
        kernel.add(&mut modules.as_slice()).unwrap();
        assert_eq!((kernel.release.as_str(), kernel.image.as_slice()), ("7.3.4", &b"image"[..]));
        assert_eq!(kernel.module("kvm").unwrap(), b"elf");
    }

    #[test]
    fn no_package_is_an_error() {
        assert!(Kernel::read([]).is_err());
    }
}
