//! The inside of a kernel package: an `ar` archive with a compressed `tar` in it. No root needed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// What the lab needs of a kernel package.
#[derive(Default)]
pub(in crate::lab) struct Unpacked {
    /// `uname -r` of this kernel.
    pub(in crate::lab) release: String,
    /// The bootable image.
    pub(in crate::lab) image: Vec<u8>,
    /// Module name, with underscores, to its object file.
    pub(in crate::lab) modules: BTreeMap<String, Vec<u8>>,
    /// Names of the modules that are built in.
    pub(in crate::lab) builtin: Vec<String>,
}

/// Reads a kernel package.
pub(in crate::lab) fn unpack(deb: &Path) -> Result<Unpacked> {
    let context = || format!("cannot unpack {}", deb.display());
    let mut archive = ar::Archive::new(File::open(deb).with_context(context)?);
    while let Some(entry) = archive.next_entry() {
        let entry = entry.with_context(context)?;
        let name = String::from_utf8_lossy(entry.header().identifier()).into_owned();
        match name.trim_end_matches('/') {
            "data.tar.xz" => return read_data(liblzma::read::XzDecoder::new(entry)).with_context(context),
            "data.tar" => return read_data(entry).with_context(context),
            other if other.starts_with("data.tar") => bail!("{}: {other} is not supported", deb.display()),
            _ => {}
        }
    }
    bail!("{} is no Debian package: it holds no data.tar", deb.display())
}

fn read_data(data: impl Read) -> Result<Unpacked> {
    let mut unpacked = Unpacked::default();
    for entry in tar::Archive::new(data).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.to_string_lossy().trim_start_matches("./").to_owned();
        let mut read = || -> Result<Vec<u8>> {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        if let Some(release) = path.strip_prefix("boot/vmlinuz-") {
            unpacked.release = release.to_owned();
            unpacked.image = read()?;
        } else if path.ends_with(".ko") {
            unpacked.modules.insert(module_name(&path), read()?);
        } else if path.ends_with("/modules.builtin") {
            let text = String::from_utf8(read()?).context("modules.builtin is not text")?;
            unpacked.builtin = text.lines().map(module_name).collect();
        }
    }
    if unpacked.image.is_empty() || unpacked.modules.is_empty() {
        bail!("it holds no kernel image or no uncompressed modules");
    }
    Ok(unpacked)
}

/// The kernel's name of the module at `path`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.trim_end_matches(".ko").replace('-', "_")
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
    fn image_and_modules_are_found() {
        let tar = data(&[
            ("boot/vmlinuz-6.1.0-9-cloud-amd64", b"image"),
            ("lib/modules/6.1.0-9-cloud-amd64/kernel/arch/x86/kvm/kvm-amd.ko", b"elf"),
            ("lib/modules/6.1.0-9-cloud-amd64/modules.builtin", b"kernel/fs/ext4/ext4.ko\n"),
        ]);
        let unpacked = read_data(tar.as_slice()).unwrap();
        assert_eq!(unpacked.release, "6.1.0-9-cloud-amd64");
        assert_eq!(unpacked.modules["kvm_amd"], b"elf");
        assert_eq!(unpacked.builtin, ["ext4"]);
    }

    #[test]
    fn a_package_without_a_kernel_is_an_error() {
        assert!(read_data(data(&[("usr/share/doc/x", b"")]).as_slice()).is_err());
    }
}
