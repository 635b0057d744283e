//! What promtool says of the scrapes of live daemons that the lab has left.

use std::{fs::File, path::Path, process::Command};

use anyhow::{Context, Result};

use super::REQUIRED;
use crate::tools;

/// Has promtool read the scrape beside each capture that must be there; any complaint is an error.
pub(super) fn check(captures: &Path) -> Result<()> {
    for capture in REQUIRED {
        let path = captures.join(capture).with_file_name("metrics.txt");
        let scrape = File::open(&path)
            .with_context(|| format!("cannot read {}; cargo xtask lab makes it", path.display()))?;
        tools::run(Command::new("promtool").args(["check", "metrics"]).stdin(scrape))
            .with_context(|| format!("promtool finds fault with {}", path.display()))?;
    }
    Ok(())
}
