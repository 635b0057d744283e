//! A recording and a daemon that are started before KVM is loaded, and wait for it.

use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::process::Signal;
use xtask::phase::{DAEMON_PORT, Series};
use xtask::refusal::{BpfObjects, CaseKind, WaitingDaemon};

use super::attempt::{Attempt, PATIENCE};
use super::{Stage, bpf};
use crate::metrics;
use crate::process::mmu_trace;

/// What a daemon says about itself that the checks read.
const KEPT: &[&str] = &["mmu_trace_source_available{", "mmu_trace_probe_attached{"];
/// The hook in KVM that shows whether tracing has begun.
const PROBE: &str = "mmu_trace_probe_attached{hook=\"page_fault\"";

/// Both of them, waiting.
pub(crate) struct BeforeKvm {
    recorder: Attempt,
    recorder_waits: bool,
    daemon: Attempt,
    series: Option<Series>,
    bpf: BpfObjects,
}

impl BeforeKvm {
    /// Starts both. KVM must not be loaded.
    pub(crate) fn start() -> Result<Self> {
        eprintln!("lab: refusals before KVM");
        let bpf = bpf::count()?;
        let mut recorder = Attempt::record(CaseKind::BeforeKvm, &["--duration", "1s"])?;
        let listen = format!("127.0.0.1:{DAEMON_PORT}");
        let mut daemon = Attempt::start(
            CaseKind::DaemonBeforeKvm,
            &mut mmu_trace(&["daemon", "--listen", &listen]),
            None,
        )?;
        recorder.wait_until_said("waiting")?;
        // If it is not healthy, it has no series either, and that is what the checks see.
        let _ = metrics::wait_until_healthy(PATIENCE, || daemon.runs().unwrap_or(false));
        let recorder_waits = recorder.runs()?;
        Ok(Self { recorder, recorder_waits, daemon, series: scrape(), bpf })
    }

    /// KVM is loaded: sees both go on, and to their ends.
    pub(crate) fn finish(mut self) -> Result<Stage> {
        let start = Instant::now();
        let mut after = scrape();
        while !traces(after.as_ref()) && self.daemon.runs()? && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(100));
            after = scrape();
        }
        self.daemon.signal(Signal::TERM);
        Ok(Stage {
            cases: vec![self.recorder.end()?, self.daemon.end()?],
            waiting_daemon: WaitingDaemon { recorder_waits: self.recorder_waits, before: self.series, after },
            first_daemon_serves: false,
            bpf_before: self.bpf,
            bpf_during: BpfObjects::default(),
        })
    }
}

/// What the daemon says about itself; `None` if it does not answer.
fn scrape() -> Option<Series> {
    let text = metrics::get("/metrics").ok()?;
    let mut series = metrics::parse(&text).ok()?;
    series.retain(|key, _| KEPT.iter().any(|kept| key.starts_with(kept)));
    Some(series)
}

fn traces(series: Option<&Series>) -> bool {
    series.is_some_and(|series| series.iter().any(|(key, value)| key.starts_with(PROBE) && *value == 1.0))
}
