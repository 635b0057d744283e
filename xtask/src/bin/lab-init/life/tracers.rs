//! The daemons and the recorders that look on.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use xtask::confined::Confined;
use xtask::life::KPROBE_PORT;
use xtask::phase::{DAEMON_PORT, Series, Step};

use crate::process::{OUT, mmu_trace, step, terminate};
use crate::refusals::n_blocks;
use crate::{confined, metrics};

/// Attaching goes through the BPF verifier, which an emulated CPU does slowly.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL_EVERY: Duration = Duration::from_millis(100);
/// What a recording has written when it has begun: how it was made, and the first snapshot.
const FIRST_BLOCKS: usize = 2;
/// How often tracing began.
const ATTACHMENTS: &str = "mmu_trace_attachments_total";
/// The hook in KVM that shows whether KVM is traced.
const PAGE_FAULT: &str = "mmu_trace_probe_attached{hook=\"page_fault\"";
/// What a daemon says about itself that the checks read.
const KEPT: &[&str] = &[
    "mmu_trace_kvm_module_held",
    ATTACHMENTS,
    "mmu_trace_untraced_seconds_total",
    "mmu_trace_source_available{",
    PAGE_FAULT,
];

/// A running daemon.
pub(super) struct Daemon {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Daemon {
    /// One that attaches as this host likes it best.
    pub(super) fn fentry() -> Result<Self> {
        Self::start(DAEMON_PORT, "auto")
    }

    /// One that uses kprobes only.
    pub(super) fn kprobe() -> Result<Self> {
        Self::start(KPROBE_PORT, "kprobe")
    }

    fn start(port: u16, backend: &str) -> Result<Self> {
        let name = format!("daemon-{backend}");
        let stderr = log_file(&name)?;
        let child = mmu_trace(&["daemon", "--listen", &format!("127.0.0.1:{port}"), "--backend", backend])
            .stdin(Stdio::null())
            .stderr(stderr)
            .spawn()
            .context("cannot run mmu-trace daemon")?;
        Ok(Self { child, port, log: log_path(&name) })
    }

    /// Everything it exposes now.
    pub(super) fn scrape(&self) -> Result<Series> {
        metrics::parse(&metrics::get_from(self.port, "/metrics")?)
    }

    /// What it says of itself.
    pub(super) fn about_itself(&self) -> Result<Series> {
        let mut series = self.scrape()?;
        series.retain(|key, _| KEPT.iter().any(|kept| key.starts_with(kept)));
        Ok(series)
    }

    /// What it and its helper have given up.
    pub(super) fn confined(&self) -> Result<Confined> {
        confined::look_at(self.child.id())
    }

    /// Sends it a signal.
    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.child), signal).context("cannot signal a daemon")
    }

    /// Whether it still runs, traces KVM, and has begun to `times` times.
    fn traces(&mut self, times: u64) -> Result<bool> {
        ensure!(self.child.try_wait()?.is_none(), "the daemon on port {} ended", self.port);
        // It does not answer before it traces.
        let Ok(series) = self.scrape() else { return Ok(false) };
        let begun = series.get(ATTACHMENTS).is_some_and(|n| *n == times as f64);
        Ok(begun && is_tracing(&series))
    }

    /// Ends it; with its log.
    pub(super) fn stop(self) -> Result<(Step, String)> {
        let step = terminate(&format!("daemon on port {}", self.port), self.child, PATIENCE)?;
        let log = fs::read_to_string(&self.log).with_context(|| format!("no log {}", self.log.display()))?;
        Ok((step, log))
    }
}

fn log_path(name: &str) -> PathBuf {
    Path::new(OUT).join(name).with_extension("log")
}

/// Where a program's messages go, off the console.
fn log_file(name: &str) -> Result<File> {
    let path = log_path(name);
    File::create(&path).with_context(|| format!("cannot create {}", path.display()))
}

/// Whether KVM is hooked.
pub(super) fn is_tracing(series: &Series) -> bool {
    series.iter().any(|(key, value)| key.starts_with(PAGE_FAULT) && *value == 1.0)
}

/// Waits until each daemon traces and has begun to as often as said.
pub(super) fn wait_until_tracing(daemons: &mut [Daemon], times: &[u64]) -> Result<()> {
    let start = Instant::now();
    for (daemon, &times) in daemons.iter_mut().zip(times) {
        while !daemon.traces(times)? {
            ensure!(start.elapsed() < PATIENCE, "a daemon did not trace within {PATIENCE:?}");
            std::thread::sleep(POLL_EVERY);
        }
    }
    Ok(())
}

/// Waits until no daemon of these traces.
pub(super) fn wait_until_idle(daemons: &[Daemon]) -> Result<()> {
    let start = Instant::now();
    for daemon in daemons {
        while is_tracing(&daemon.scrape()?) {
            ensure!(start.elapsed() < PATIENCE, "a daemon still traces after {PATIENCE:?}");
            std::thread::sleep(POLL_EVERY);
        }
    }
    Ok(())
}

/// A running `record`.
pub(super) struct Recorder {
    child: Child,
    capture: PathBuf,
}

impl Recorder {
    /// Starts one; on return it records.
    pub(super) fn start(name: &str, backend: &str) -> Result<Self> {
        let capture = Path::new(OUT).join(name).with_extension("mmt");
        let child = mmu_trace(&["record", "--backend", backend, "-o"])
            .arg(&capture)
            .stdin(Stdio::null())
            .stderr(log_file(&format!("{name}-record"))?)
            .spawn()
            .context("cannot run mmu-trace record")?;
        let mut recorder = Self { child, capture };
        let start = Instant::now();
        while n_blocks(&recorder.capture) < FIRST_BLOCKS {
            if let Some(status) = recorder.child.try_wait()? {
                bail!("record ended with {status}");
            }
            ensure!(start.elapsed() < PATIENCE, "record did not begin within {PATIENCE:?}");
            std::thread::sleep(POLL_EVERY);
        }
        Ok(recorder)
    }

    /// Ends it as Ctrl-C does; its exit code and its report.
    pub(super) fn end(mut self) -> Result<(i32, serde_json::Value)> {
        kill_process(Pid::from_child(&self.child), Signal::INT).context("cannot signal the recorder")?;
        let exit = step("record", self.child.wait()?).exit;
        let mut report = mmu_trace(&["report", "--format", "json"]);
        let output = report.arg(&self.capture).output().context("cannot run mmu-trace report")?;
        let text = self.capture.with_extension("txt");
        let written = mmu_trace(&["report", "-o"]).arg(&text).arg(&self.capture).status();
        ensure!(written.is_ok_and(|status| status.success()), "the text report failed");
        let report = serde_json::from_slice(&output.stdout).context("the report is no JSON")?;
        Ok((exit, report))
    }
}
