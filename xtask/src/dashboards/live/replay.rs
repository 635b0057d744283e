//! A capture that plays.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use mmu_trace::{capture, model::Snapshot};

use super::PLAY;
use crate::tools;

/// The scrape job of all replays.
pub(super) const JOB: &str = "mmu-trace";

/// What the program says before the address that it serves.
const SERVING: &str = "mmu-trace: serving http://";

/// A running `mmu-trace replay`; it ends when it is dropped.
pub(super) struct Replay {
    /// The capture's path below the folder of captures; the label `instance`.
    pub(super) name: String,
    /// Where it serves.
    pub(super) address: String,
    /// Whether the kernel had `change_pte`.
    pub(super) is_direct: bool,
    child: Child,
}

/// Builds the program.
pub(super) fn build() -> Result<PathBuf> {
    tools::run(tools::cargo()?.args(["build", "--quiet", "-p", "mmu-trace"]))?;
    Ok(tools::target_dir()?.join("debug/mmu-trace"))
}

impl Replay {
    /// Plays `path` within [`PLAY`].
    pub(super) fn start(program: &Path, path: &Path, name: &str) -> Result<Self> {
        let last = last_snapshot(path)?;
        let speed = last.window.seconds / PLAY.as_secs_f64();
        let mut child = Command::new(program)
            .arg("replay")
            .arg(path)
            .args(["--vm-histograms", "--listen", "127.0.0.1:0", "--speed", &speed.to_string()])
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let said = child.stderr.take().context("a replay without stderr")?;
        let mut replay = Self {
            name: name.to_owned(),
            address: String::new(),
            is_direct: last.host.has_change_pte,
            child,
        };
        replay.address = address(BufReader::new(said)).with_context(|| format!("replaying {name}"))?;
        Ok(replay)
    }
}

fn last_snapshot(path: &Path) -> Result<Snapshot> {
    let summary = capture::summary(path).with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(summary.is_intact(), "{} is damaged", path.display());
    let last = summary.snapshot.with_context(|| format!("{} has no figures", path.display()))?;
    Ok(*last)
}

/// The address, once it is said.
fn address(said: impl BufRead) -> Result<String> {
    for line in said.lines() {
        if let Some(address) = line?.strip_prefix(SERVING) {
            return Ok(address.trim_end_matches("/metrics").to_owned());
        }
    }
    anyhow::bail!("it ended before it served")
}

impl Drop for Replay {
    fn drop(&mut self) {
        // It may have ended by itself.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
