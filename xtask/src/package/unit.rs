//! What systemd says about the unit without running it.

use std::process::Command;

use anyhow::{Context, Result};

use crate::lab::checks::{Check, Group};
use crate::tools;

/// The exposure that the unit stays below, in tenths, as systemd 252 counts it.
const THRESHOLD: u32 = 35;

/// Its exposure.
pub(super) fn check() -> Result<Group> {
    tools::ensure_installed("systemd-analyze", "systemd")?;
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager", &format!("--threshold={THRESHOLD}")])
        .arg(tools::repository()?.join("packaging/mmu-trace.service"))
        .output()
        .context("cannot run systemd-analyze")?;
    let exit = output.status.code().unwrap_or(-1);
    let name = format!("exposure of the unit at most {}.{}", THRESHOLD / 10, THRESHOLD % 10);
    Ok(Group { name: "unit".to_owned(), checks: vec![Check::equal(&name, &0, &exit)] })
}
