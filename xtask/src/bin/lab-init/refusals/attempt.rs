//! One run of `mmu-trace` that is expected to go wrong.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use xtask::refusal::{Case, CaseKind, Reading};

use super::DIR;
use crate::process::{mmu_trace, step};

/// After this a case has gone wrong in another way than expected: it is killed, which its exit code
/// shows.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
const POLL_EVERY: Duration = Duration::from_millis(20);
/// The first bytes of every block of a capture.
const BLOCK_MAGIC: [u8; 4] = 0xb10c_6d74_u32.to_le_bytes();
/// What a recording has written when it has begun: how it was made, and the first snapshot.
const FIRST_BLOCKS: usize = 2;

/// A case under way.
pub(super) struct Attempt {
    kind: CaseKind,
    child: Child,
    started: Instant,
    messages: PathBuf,
    capture: Option<PathBuf>,
}

impl Attempt {
    /// Starts `record` with `args` into a capture of the case's own.
    pub(super) fn record(kind: CaseKind, args: &[&str]) -> Result<Self> {
        Self::record_to(kind, &Path::new(DIR).join(kind.label()).with_extension("mmt"), args)
    }

    /// Starts `record` with `args` into `capture`.
    pub(super) fn record_to(kind: CaseKind, capture: &Path, args: &[&str]) -> Result<Self> {
        let mut command = mmu_trace(&["record", "-o"]);
        command.arg(capture).args(args);
        Self::start(kind, &mut command, Some(capture.to_owned()))
    }

    /// Starts `command`, which may write `capture`.
    pub(super) fn start(kind: CaseKind, command: &mut Command, capture: Option<PathBuf>) -> Result<Self> {
        fs::create_dir_all(DIR).with_context(|| format!("cannot create {DIR}"))?;
        let messages = Path::new(DIR).join(kind.label()).with_extension("stderr");
        let stderr =
            File::create(&messages).with_context(|| format!("cannot create {}", messages.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stderr(stderr)
            .spawn()
            .with_context(|| format!("cannot run {command:?}"))?;
        Ok(Self { kind, child, started: Instant::now(), messages, capture })
    }

    /// Whether it has not ended.
    pub(super) fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits until it has said `text`, has ended, or patience is over.
    pub(super) fn wait_until_said(&mut self, text: &str) -> Result<()> {
        self.wait_until(|attempt| Ok(attempt.stderr()?.contains(text)))
    }

    /// Waits until its capture holds a snapshot, it has ended, or patience is over.
    pub(super) fn wait_until_recording(&mut self) -> Result<()> {
        self.wait_until(|attempt| {
            Ok(attempt.capture.as_deref().is_some_and(|path| n_blocks(path) >= FIRST_BLOCKS))
        })
    }

    /// Sends `signal`; to one that has ended already this does nothing.
    pub(super) fn signal(&self, signal: Signal) {
        // It is still ours until it is waited for, so the id is its own.
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// Waits for its end and reads what it left behind.
    pub(super) fn end(mut self) -> Result<Case> {
        self.wait_until(|_| Ok(false))?;
        if self.runs()? {
            self.child.kill()?;
        }
        let exit = step("", self.child.wait()?).exit;
        let seconds = self.started.elapsed().as_secs_f64();
        let capture = match &self.capture {
            Some(path) if path.exists() => Some(read(path)?),
            _ => None,
        };
        Ok(Case { kind: self.kind, exit, seconds, stderr: self.stderr()?, capture })
    }

    fn wait_until(&mut self, mut happened: impl FnMut(&Self) -> Result<bool>) -> Result<()> {
        let start = Instant::now();
        while self.runs()? && !happened(self)? && start.elapsed() < PATIENCE {
            std::thread::sleep(POLL_EVERY);
        }
        Ok(())
    }

    fn stderr(&self) -> Result<String> {
        let bytes =
            fs::read(&self.messages).with_context(|| format!("cannot read {}", self.messages.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// The blocks of a capture that is being written.
pub(crate) fn n_blocks(capture: &Path) -> usize {
    // Not there yet is empty.
    let bytes = fs::read(capture).unwrap_or_default();
    bytes.windows(BLOCK_MAGIC.len()).filter(|window| *window == BLOCK_MAGIC).count()
}

/// What the product's own reader says about `capture`.
fn read(capture: &Path) -> Result<Reading> {
    let mut command = mmu_trace(&["report", "--format", "json"]);
    let output = command.arg(capture).output().with_context(|| format!("cannot run {command:?}"))?;
    let report: Option<serde_json::Value> = serde_json::from_slice(&output.stdout).ok();
    Ok(Reading {
        exit: step("", output.status).exit,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        prints: report.is_some_and(|report| report.get("schema").is_some()),
    })
}
