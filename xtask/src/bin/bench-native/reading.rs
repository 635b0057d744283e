//! `reading`: how fast captures are read, and in how much memory.
//!
//! A capture of a gigabyte is written and given to the program as a user has it.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mmu_trace::{
    capture::{EndReason, Writer},
    model::{Counters, Histograms, Quality, Snapshot, Window},
};
use rustix::process::{Pid, Signal, kill_process};
use xtask::figure::Figure;

use crate::{
    guest::Guests,
    process,
    recording::meta,
    scratch::{Scratch, built},
};

/// Length of the capture, bytes.
const LENGTH: u64 = 1_000_000_000;
/// Events between two snapshots: two seconds of a host that makes a million a second.
const EVENTS_PER_SNAPSHOT: usize = 2_000_000;

pub(crate) fn measure() -> Result<Vec<Figure>> {
    let scratch = Scratch::new()?;
    let path = scratch.file("reading.mmt");
    let events = write(&path).context("cannot write the capture to be read")?;
    let mut figures = Vec::new();
    for format in ["text", "json", "html"] {
        let (cpu, peak) = report(&path, format, &scratch.file("report"))?;
        figures.extend(describe(&format!("report/{format}"), events, cpu, peak));
    }
    let (cpu, peak) = replay(&path)?;
    figures.extend(describe("replay", events, cpu, peak));
    Ok(figures)
}

fn describe(name: &str, events: u64, cpu: Duration, peak: u64) -> [Figure; 2] {
    let of = format!(
        "`mmu-trace {}` of a capture of 1 GB with {events} events as in recording/size/generated and a \
         snapshot after every 2,000,000",
        name.replace('/', " --format ")
    );
    let rate = format!("Events by the CPU time, user's and kernel's, of {of}.");
    let memory = format!("VmHWM, looked at every 2 ms, of {of}.");
    [
        Figure::new(format!("reading/{name}/rate"), events as f64 / cpu.as_secs_f64(), "events/s", &rate),
        Figure::new(format!("reading/{name}/peak memory"), peak as f64 / 1e6, "MB", &memory),
    ]
}

/// Writes a capture of [`LENGTH`] to `path`; how many events it has.
fn write(path: &Path) -> Result<u64> {
    let mut writer = Writer::create(path, &meta())?;
    let mut guests = Guests::new();
    while fs::metadata(path)?.len() < LENGTH {
        writer.write_events(&guests.events(EVENTS_PER_SNAPSHOT))?;
        writer.write_snapshot(&snapshot())?;
    }
    Ok(writer.finish(EndReason::Duration, 0)?.events_written)
}

fn snapshot() -> Snapshot {
    Snapshot {
        host: meta().host,
        window: Window { start_unix_ns: 0, seconds: 1.0 },
        quality: Quality::default(),
        vms: Vec::new(),
        unattributed: Counters::default(),
        histograms: Histograms::default(),
        ksm: None,
        programs: None,
    }
}

/// CPU time and most memory, in bytes, of a report.
fn report(capture: &Path, format: &str, output: &Path) -> Result<(Duration, u64)> {
    let before = process::children_cpu();
    let mut command = Command::new(built("mmu-trace")?);
    command.arg("report").arg(capture).args(["--format", format, "--output"]).arg(output);
    let mut child = command.spawn().with_context(|| format!("cannot run {command:?}"))?;
    let peak = process::wait_and_watch(&mut child)?;
    Ok((process::children_cpu() - before, peak))
}

/// The same of a replay until it serves the capture.
fn replay(capture: &Path) -> Result<(Duration, u64)> {
    let before = process::children_cpu();
    let mut command = Command::new(built("mmu-trace")?);
    command.arg("replay").arg(capture).args(["--listen", "127.0.0.1:0"]).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run {command:?}"))?;
    let said = BufReader::new(child.stderr.take().context("replay has no standard error")?);
    let serves = said.lines().map_while(Result::ok).any(|line| line.contains("serving "));
    ensure!(serves, "replay ended without serving");
    let peak = process::memory(&child.id().to_string(), "VmHWM")?;
    kill_process(Pid::from_child(&child), Signal::TERM)?;
    child.wait()?;
    Ok((process::children_cpu() - before, peak))
}
