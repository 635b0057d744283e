//! A Debian system that boots with systemd and has the package: the unit at work.
//!
//! ```text
//!  chroot + package + lab-init -> ext4 image --.
//!  kernel, modules, lab-init -> initramfs -----+-> qemu -> results disk -> checks
//! ```
//!
//! KVM is not loaded at boot: what the unit does then, and when KVM comes, is looked at too.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use xtask::arch::Arch;
use xtask::installed::{FOLDER, USER};

use super::checks;
use super::{Lab, initramfs, kernels, modules, qemu, results};
use crate::{packages::Kernel, tally::Tally, tools};

/// The pages whose commands are run, the one that removes the package last.
const PAGES: &[&str] = &["docs/getting-started.md", "docs/install.md"];
const TIMEOUT: Duration = Duration::from_secs(420);
/// Sparse: only what is in the system takes space.
const IMAGE_SIZE: &str = "1G";
/// What ext4 asks the kernel for by name, where it is a module.
const CHECKSUM: &str = "crc32c_generic";
const KVM: &[&str] = &["kvm_amd"];
const COMMAND_LINE: &str =
    "console=ttyS0 loglevel=4 nowatchdog panic=-1 lab.system=1 systemd.show_status=0 systemd.getty_auto=0";

/// The unit that looks at the others, once the system is up.
const LOOK: &str = "[Unit]
DefaultDependencies=no
After=multi-user.target
[Service]
Type=exec
ExecStart=/opt/lab/lab-init look
StandardOutput=tty
StandardError=tty
TTYPath=/dev/console
[Install]
WantedBy=multi-user.target
";

/// Installs `deb` in the system below `root` and boots it.
pub(crate) fn run(kernel: &str, root: &Path, deb: &Path) -> Result<Tally> {
    let target = kernels::Target { arch: Arch::Amd64, kernel: kernels::find(kernel)?, mmu: None };
    let lab = Lab::prepare(target.arch)?;
    let package = target
        .resolve(&lab.packages)?
        .with_context(|| format!("the mirror offers no kernel {kernel} any more"))?;
    let unpacked = kernels::unpack(&lab.packages, &package)?;
    println!("lab: kernel {} ({} {})", unpacked.release, package.name(), package.version());
    prepare(root, deb, &lab, &modules::resolve(&unpacked, KVM)?)?;
    let out = tools::repository()?.join("lab-out").join(format!("installed-{kernel}"));
    tools::empty_folder(&out)?;
    let (files, console) = boot(&lab, &unpacked, root, &out)?;
    let groups = results::extract(&files.results, &out)
        .and_then(|()| checks::run_installed(&out))
        .inspect_err(|_| println!("the lab's console ended with:\n{}\n", console.tail()))?;
    let tally = checks::print(&[groups, vec![console.check()]].concat());
    println!("lab: everything is in {}", out.display());
    Ok(tally)
}

fn boot(lab: &Lab, kernel: &Kernel, root: &Path, out: &Path) -> Result<(qemu::Files, qemu::Console)> {
    let folder = lab.folder.join("installed");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let parts = initramfs::Parts {
        binaries: &lab.binaries,
        with_tracer: false,
        control: None,
        bench: None,
        emulator: Vec::new(),
        modules: disks(kernel),
    };
    let files = qemu::Files::write(&folder, &kernel.image, &initramfs::build(kernel, &parts)?)?;
    let options = qemu::Options {
        timeout: Some(TIMEOUT),
        verbose: false,
        command_line: COMMAND_LINE.to_owned(),
        arch: Arch::Amd64,
        clock: qemu::Clock::Real,
        forward_port: false,
        system: Some(image(root, &folder)?),
    };
    let console = qemu::run(&lab.emulator, &files, &options, &out.join("console.log"))?;
    Ok((files, console))
}

/// The modules of the disks and of the system's file system.
fn disks(kernel: &Kernel) -> &'static [&'static str] {
    if kernel.module(CHECKSUM).is_ok() {
        &["virtio_pci", "virtio_blk", CHECKSUM, "ext4"]
    } else {
        &["virtio_pci", "virtio_blk", "ext4"]
    }
}

/// The lab's part, the unit that looks, a user for VMMs, and the package, installed as on a host.
fn prepare(root: &Path, deb: &Path, lab: &Lab, kvm: &[(String, Vec<u8>)]) -> Result<()> {
    add_lab(&root.join(FOLDER.trim_start_matches('/')), lab, kvm).context("cannot put the lab in")?;
    let units = root.join("etc/systemd/system");
    fs::write(units.join("look.service"), LOOK).context("cannot write a unit")?;
    symlink("../look.service", units.join("multi-user.target.wants/look.service"))
        .context("cannot enable a unit")?;
    let name = deb.file_name().context("the package has no name")?;
    fs::copy(deb, root.join("root").join(name)).context("cannot copy the package")?;
    let line = format!("useradd --system --gid kvm {USER} && dpkg --install /root/{}", name.display());
    let mut chroot = Command::new("chroot");
    chroot.arg(root).args(["/bin/sh", "-c", &line]).stdout(Stdio::null());
    tools::run(&mut chroot)
}

/// The lab's program under both of its names, KVM's modules, and the commands of the pages.
fn add_lab(folder: &Path, lab: &Lab, kvm: &[(String, Vec<u8>)]) -> Result<()> {
    fs::create_dir_all(folder.join("modules"))?;
    for name in ["lab-init", "qemu-system-x86_64"] {
        let path = folder.join(name);
        fs::write(&path, &lab.binaries.init)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    let mut order = String::new();
    for (name, object) in kvm {
        fs::write(folder.join("modules").join(name), object)?;
        order += &format!("{name}\n");
    }
    fs::write(folder.join("modules/order"), order)?;
    let mut all = String::new();
    for page in PAGES {
        let path = tools::repository()?.join(page);
        let page = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        all += &commands(&page);
    }
    Ok(fs::write(folder.join("commands"), all)?)
}

/// The lines of a page's blocks of shell.
fn commands(page: &str) -> String {
    let mut in_block = false;
    let mut commands = String::new();
    for line in page.lines() {
        match line {
            "```sh" => in_block = true,
            "```" => in_block = false,
            _ if in_block => commands += &format!("{line}\n"),
            _ => {}
        }
    }
    commands
}

/// A file system with the files below `root`.
fn image(root: &Path, folder: &Path) -> Result<PathBuf> {
    let image = folder.join("system.img");
    if image.exists() {
        fs::remove_file(&image)?;
    }
    tools::ensure_installed("mke2fs", "e2fsprogs")?;
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.args(["-q", "-t", "ext4", "-O", "^has_journal", "-d"]).arg(root).arg(&image).arg(IMAGE_SIZE);
    tools::run(&mut mke2fs)?;
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_shell_alone_are_commands() {
        assert_eq!(commands("a\n```sh\nb\nc\n```\nd\n```text\ne\n```\n```sh\nf\n```\n"), "b\nc\nf\n");
    }
}
