//! What systemd says about the unit without running it.

use std::process::Command;

use anyhow::{Context, Result};
use xtask::installed::CAPABILITIES;

use crate::lab::checks::{Check, Group};
use crate::tools;

/// The exposure that the unit stays below, in tenths, as systemd 252 counts it.
const THRESHOLD: u32 = 32;

const UNIT: &str = "packaging/mmu-trace.service";

/// Its exposure, and that its capabilities are those that the lab takes away one by one.
pub(super) fn check() -> Result<Group> {
    tools::ensure_installed("systemd-analyze", "systemd")?;
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager", &format!("--threshold={THRESHOLD}")])
        .arg(tools::repository()?.join(UNIT))
        .output()
        .context("cannot run systemd-analyze")?;
    let unit = std::fs::read_to_string(tools::repository()?.join(UNIT)).context("cannot read the unit")?;
    let set = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap_or_default();
    let exit = output.status.code().unwrap_or(-1);
    let name = format!("exposure of the unit at most {}.{}", THRESHOLD / 10, THRESHOLD % 10);
    Ok(Group {
        name: "unit".to_owned(),
        checks: vec![
            Check::equal(&name, &0, &exit),
            Check::equal("capabilities", &CAPABILITIES.join(" "), &set),
        ],
    })
}
