//! promtool reads the committed rules and runs their cases.

use std::{path::Path, process::Command};

use anyhow::{Result, bail};

use crate::tools;

/// `required`: without promtool this is a failure, and not skipped.
const PROMETHEUS_TESTS: &str = "MMU_TRACE_PROMETHEUS_TESTS";

/// Checks the rules in `dir`, and that each alert does and does not fire where it should.
pub(in crate::dashboards) fn check(dir: &Path) -> Result<()> {
    if tools::find("promtool").is_none() {
        if std::env::var_os(PROMETHEUS_TESTS).is_some_and(|value| value == "required") {
            bail!("promtool is not installed; on Debian: apt-get install prometheus");
        }
        println!("skipped: the cases of the rules: promtool is not installed (Debian: prometheus)");
        return Ok(());
    }
    let promtool = |arguments: &[&str]| tools::run(Command::new("promtool").current_dir(dir).args(arguments));
    promtool(&["check", "rules", "recording.yml", "alerts.yml"])?;
    promtool(&["test", "rules", "tests/alerts.yml"])
}
