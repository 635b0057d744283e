//! The initramfs: a cpio archive in the `newc` format, written without root or external tools.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::binaries::Binaries;
use super::modules;
use crate::packages::Kernel;

/// Folders that process 1 mounts something on.
const FOLDERS: &[&str] = &["bin", "dev", "modules", "out", "proc", "run", "sys", "tmp"];
const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;

/// What goes in beside the kernel's modules.
pub(super) struct Parts<'p> {
    /// The programs.
    pub(super) binaries: &'p Binaries,
    /// Whether the tracer is among them.
    pub(super) with_tracer: bool,
    /// The module of the positive control.
    pub(super) control: Option<Vec<u8>>,
    /// Programs of the bench.
    pub(super) bench: Option<Bench>,
    /// The emulator for guests of the lab, by the path that each file is wanted at.
    pub(super) emulator: Vec<(String, PathBuf)>,
    /// The modules to load, in this order.
    pub(super) modules: &'static [&'static str],
}

/// What other tracers the daemon is compared with.
pub(super) struct Bench {
    /// Empty programs on the daemon's hooks.
    pub(super) floor: Vec<u8>,
    /// bpftrace, by the path that each file is wanted at.
    pub(super) bpftrace: Vec<(String, PathBuf)>,
}

/// The whole image.
pub(super) fn build(kernel: &Kernel, parts: &Parts) -> Result<Vec<u8>> {
    let mut cpio = Cpio::default();
    for folder in FOLDERS {
        cpio.entry(folder, S_IFDIR | 0o755, &[])?;
    }
    cpio.entry("init", S_IFREG | 0o755, &parts.binaries.init)?;
    if parts.with_tracer {
        cpio.entry("bin/mmu-trace", S_IFREG | 0o755, &parts.binaries.mmu_trace)?;
    }
    if let Some(module) = &parts.control {
        cpio.entry("modules/control", S_IFREG | 0o644, module)?;
    }
    let order = modules::resolve(kernel, parts.modules)?;
    let mut names = String::new();
    for (name, object) in &order {
        cpio.entry(&format!("modules/{name}"), S_IFREG | 0o644, object)?;
        names += &format!("{name}\n");
    }
    cpio.entry("modules/order", S_IFREG | 0o644, names.as_bytes())?;
    if let Some(bench) = &parts.bench {
        cpio.entry("bin/bench-floor", S_IFREG | 0o755, &bench.floor)?;
        add_files(&mut cpio, &bench.bpftrace)?;
    }
    if !parts.emulator.is_empty() {
        add_guests(&mut cpio, kernel, parts)?;
    }
    cpio.finish()
}

/// The emulator, the same kernel, and an image for the guests with nothing in it but the program that is
/// process 1 here as well.
fn add_guests(cpio: &mut Cpio, kernel: &Kernel, parts: &Parts) -> Result<()> {
    cpio.entry("guest", S_IFDIR | 0o755, &[])?;
    add_files(cpio, &parts.emulator)?;
    let mut initrd = Cpio::default();
    for folder in ["dev", "proc"] {
        initrd.entry(folder, S_IFDIR | 0o755, &[])?;
    }
    initrd.entry("init", S_IFREG | 0o755, &parts.binaries.init)?;
    cpio.entry("guest/vmlinuz", S_IFREG | 0o644, &kernel.image)?;
    cpio.entry("guest/initrd.cpio", S_IFREG | 0o644, &initrd.finish()?)
}

/// Programs and what they need, by the path that each file is wanted at, with the folders above them.
fn add_files(cpio: &mut Cpio, files: &[(String, PathBuf)]) -> Result<()> {
    let mut folders = BTreeSet::new();
    for (path, _) in files {
        let above = Path::new(path).ancestors().skip(1).filter(|folder| *folder != Path::new(""));
        folders.extend(above.map(|folder| folder.to_string_lossy().into_owned()));
    }
    for folder in folders.iter().filter(|folder| !FOLDERS.contains(&folder.as_str())) {
        cpio.entry(folder, S_IFDIR | 0o755, &[])?;
    }
    for (path, file) in files {
        let content = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        cpio.entry(path, S_IFREG | 0o755, &content)?;
    }
    Ok(())
}

/// An archive in memory. Every field of a header is eight hexadecimal digits; names and contents are
/// padded to four bytes.
#[derive(Default)]
struct Cpio {
    bytes: Vec<u8>,
    n_entries: u32,
}

impl Cpio {
    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.n_entries += 1;
        self.write(name, self.n_entries, mode, content)
    }

    fn finish(mut self) -> Result<Vec<u8>> {
        self.write("TRAILER!!!", 0, 0, &[])?;
        Ok(self.bytes)
    }

    fn write(&mut self, name: &str, inode: u32, mode: u32, content: &[u8]) -> Result<()> {
        let size = u32::try_from(content.len()).with_context(|| format!("{name} is too large for cpio"))?;
        let name_size = u32::try_from(name.len() + 1)?;
        let (n_links, none) = (1, 0);
        self.bytes.extend_from_slice(b"070701");
        // ino, mode, uid, gid, nlink, mtime, filesize, dev (2), rdev (2), namesize, check
        for field in [inode, mode, 0, 0, n_links, 0, size, none, none, none, none, name_size, 0] {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads an archive back by the format's rules, written apart from the writer.
    fn parse(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let total = bytes.len();
        let mut entries = Vec::new();
        loop {
            assert_eq!(&bytes[..6], b"070701");
            let field = |i: usize| {
                let text = std::str::from_utf8(&bytes[6 + 8 * i..14 + 8 * i]).unwrap();
                u32::from_str_radix(text, 16).unwrap() as usize
            };
            let (mode, size, name_size) = (field(1), field(6), field(11));
            let name = String::from_utf8(bytes[110..110 + name_size - 1].to_vec()).unwrap();
            assert_eq!(bytes[110 + name_size - 1], 0);
            let start = (110 + name_size).next_multiple_of(4);
            let content = bytes[start..start + size].to_vec();
            bytes = &bytes[(start + size).next_multiple_of(4)..];
            assert_eq!((total - bytes.len()) % 4, 0);
            if name == "TRAILER!!!" {
                assert!(bytes.is_empty());
                return entries;
            }
            entries.push((name, mode as u32, content));
        }
    }

    #[test]
    fn entries_read_back_whatever_their_length() {
        let mut cpio = Cpio::default();
        cpio.entry("d", S_IFDIR | 0o755, &[]).unwrap();
        for length in 0..9 {
            let name = "x".repeat(length + 1);
            cpio.entry(&name, S_IFREG | 0o644, &vec![7; length]).unwrap();
        }
        let entries = parse(&cpio.finish().unwrap());
        assert_eq!(entries[0], ("d".to_owned(), 0o040_755, Vec::new()));
        for (length, entry) in entries[1..].iter().enumerate() {
            assert_eq!(*entry, ("x".repeat(length + 1), 0o100_644, vec![7; length]));
        }
    }
}
