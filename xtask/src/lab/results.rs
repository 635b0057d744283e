//! The results disk, on this side.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use xtask::guests;

use super::qemu::Fault;

/// The last entry of an archive that is complete.
const LAST: &str = "steps.json";

/// Fails if a Linux guest was reset at its start.
pub(super) fn guest_reset(out: &Path) -> Result<()> {
    let path = out.join(guests::RESET);
    if path.exists() {
        let what = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        return Err(Fault::GuestReset(what).into());
    }
    Ok(())
}

/// Unpacks the archive on `disk` into `out`.
pub(super) fn extract(disk: &Path, out: &Path) -> Result<()> {
    let file = fs::File::open(disk).with_context(|| format!("cannot open {}", disk.display()))?;
    let mut archive = tar::Archive::new(file);
    archive.set_preserve_permissions(false);
    archive.set_preserve_mtime(false);
    archive.unpack(out).context("the results disk holds no intact archive")?;
    ensure!(out.join(LAST).exists(), "the archive on the results disk is incomplete");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_disk_is_no_result() {
        let dir = std::env::temp_dir().join(format!("mmu-trace-results-{}", std::process::id()));
        crate::tools::empty_folder(&dir).unwrap();
        let disk = dir.join("disk");
        fs::write(&disk, vec![0; 4096]).unwrap();
        assert!(extract(&disk, &dir.join("out")).is_err());
        fs::remove_dir_all(&dir).unwrap();
    }
}
