//! `recording`: what an event takes in a capture, what writing it costs, and how many a recorder takes.
//!
//! ```text
//!  driver, BPF_PROG_TEST_RUN --ring buffer--> Recording::poll --> capture::Writer --> file
//!  one CPU, events of the probes' form       another CPU, as `mmu-trace record` does it
//! ```

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use mmu_trace::{
    bpf::{BackendChoice, Driver, Live, Options},
    capture::{self, EndReason, Meta, ReadError, Writer},
    model::Host,
    record::{POLL_EVERY, Recording, Wanted},
};
use mmu_trace_ebpf::abi::driver_op;
use xtask::figure::Figure;

use crate::{guest::Guests, process, scratch::Scratch};

/// What a recorder must sustain, events a second; the driver aims a little higher.
const PACE: f64 = 1_050_000.0;
/// How often one does that is starved of CPU time: the ring buffer overflows in between.
const STARVED: Duration = Duration::from_millis(400);
/// Most tries of what another program may spoil that takes CPU time.
const TRIES: usize = 3;
/// Until memory is looked at: buffers have grown to their size.
const WARM_UP: Duration = Duration::from_secs(1);

pub(crate) fn measure() -> Result<Vec<Figure>> {
    let scratch = Scratch::new()?;
    let mut figures = Vec::new();
    figures.extend(size_in_the_lab()?);
    figures.extend(writer(&scratch)?);
    figures.extend(sustained(&scratch)?);
    figures.extend(unthrottled(&scratch)?);
    figures.extend(overrun(&scratch)?);
    Ok(figures)
}

/// What an event took in the lab's capture, if there is one.
fn size_in_the_lab() -> Result<Option<Figure>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lab-out/6.1/lab.mmt");
    let summary = match capture::summary(&path) {
        Err(
            error @ (ReadError::Open { .. } | ReadError::OlderVersion { .. } | ReadError::OtherAbi { .. }),
        ) => {
            eprintln!("bench: skipped recording/size/lab, as `cargo xtask lab` was not run for it: {error}");
            return Ok(None);
        }
        summary => summary?,
    };
    let size = fs::metadata(&path)?.len() as f64 / summary.events as f64;
    let method = "Length of lab-out/6.1/lab.mmt, recorded by mmu-trace record on the lab's host, by its events; \
                  snapshots and headers included.";
    Ok(Some(Figure::new("recording/size/lab", size, "B/event", method)))
}

/// Writes events as a host of busy guests makes them.
fn writer(scratch: &Scratch) -> Result<Vec<Figure>> {
    const EVENTS: usize = 4 << 20;
    let events = Guests::new().events(EVENTS);
    let path = scratch.file("writer.mmt");
    let mut writer = Writer::create(&path, &meta())?;
    let before = process::thread_cpu();
    for batch in events.chunks(16_384) {
        writer.write_events(batch)?;
    }
    let end = writer.finish(EndReason::Duration, 0)?;
    let cpu_ns = (process::thread_cpu() - before).as_nanos() as f64;
    let n = end.events_written as f64;
    let size = fs::metadata(&path)?.len() as f64 / n;
    let of = "4,194,304 events of four VMs whose pages are merged, read and written in no order, with times of \
              hardware and with kernel addresses (see guest.rs)";
    Ok(vec![
        Figure::new("recording/size/generated", size, "B/event", &format!("Length of a capture of {of}.")),
        Figure::new(
            "recording/writer/CPU time",
            cpu_ns / n,
            "ns/event",
            &format!("CPU time of the thread that hands {of}, to capture::Writer: columns, zstd, write."),
        ),
    ])
}

/// As many events as a recorder must take.
fn sustained(scratch: &Scratch) -> Result<Vec<Figure>> {
    let path = scratch.file("sustained.mmt");
    let once = || Run::of(&path, Some(PACE), POLL_EVERY, Duration::from_secs(6));
    let mut run = once()?;
    for _ in 1..TRIES {
        if run.lost == 0 && run.rate() >= 1e6 {
            break;
        }
        eprintln!("bench: once more, as {} of {} events were lost", run.lost, run.produced);
        run = once()?;
    }
    let method = "6 s of the BPF driver's events at 1,050,000/s on CPU 0; on CPU 1 a recorder that fetches, \
                  encodes, compresses and writes them, every 50 ms; up to three tries for one without loss";
    let figure = |name: &str, value, unit, what: &str| {
        Figure::new(format!("recording/sustained/{name}"), value, unit, &format!("{method}: {what}."))
    };
    Ok(vec![
        figure("rate", run.rate(), "events/s", "events in the capture by time"),
        figure("lost", run.lost as f64, "events", "the kernel's count of events without room"),
        figure("unaccounted", run.unaccounted(), "events", "produced, less those written and those lost"),
        figure("reader CPU time", run.cpu_ns / run.written as f64, "ns/event", "CPU time of that thread"),
        figure("size", run.bytes as f64 / run.written as f64, "B/event", "length of the capture by events"),
    ])
}

/// As many events as one CPU makes.
fn unthrottled(scratch: &Scratch) -> Result<Vec<Figure>> {
    let run = Run::of(&scratch.file("unthrottled.mmt"), None, POLL_EVERY, Duration::from_secs(4))?;
    let method = "4 s of the BPF driver's events as fast as CPU 0 makes them; on CPU 1 a recorder as in \
                  recording/sustained";
    let figure = |name: &str, value, unit, what: &str| {
        Figure::new(format!("recording/unthrottled/{name}"), value, unit, &format!("{method}: {what}."))
    };
    Ok(vec![
        figure("produced", run.produced as f64 / run.seconds, "events/s", "events that were to be written"),
        figure("rate", run.rate(), "events/s", "events in the capture by time"),
        figure(
            "lost",
            run.lost as f64 / run.produced as f64,
            "of 1",
            "the part of them that is counted lost",
        ),
        figure("unaccounted", run.unaccounted(), "events", "produced, less those written and those lost"),
    ])
}

/// More events than a recorder can take.
fn overrun(scratch: &Scratch) -> Result<Vec<Figure>> {
    let run = Run::of(&scratch.file("overrun.mmt"), None, STARVED, Duration::from_secs(5))?;
    let method = "5 s of the BPF driver's events as fast as CPU 0 makes them; on CPU 1 a recorder that comes \
                  only every 400 ms";
    let figure = |name: &str, value, unit, what: &str| {
        Figure::new(format!("recording/overrun/{name}"), value, unit, &format!("{method}: {what}."))
    };
    Ok(vec![
        figure("produced", run.produced as f64 / run.seconds, "events/s", "events that were to be written"),
        figure(
            "lost",
            run.lost as f64 / run.produced as f64,
            "of 1",
            "the part of them that is counted lost",
        ),
        figure("unaccounted", run.unaccounted(), "events", "produced, less those written and those lost"),
        figure("growth", run.growth as f64 / 1e6, "MB", "the most resident memory after, less that at 1 s"),
    ])
}

/// A recording, from the kernel to the file.
struct Run {
    produced: u64,
    /// In the capture, as counted from its blocks.
    written: u64,
    /// By its end mark.
    lost: u64,
    seconds: f64,
    /// CPU time of the thread that records.
    cpu_ns: f64,
    /// Length of the capture.
    bytes: u64,
    /// By how much resident memory grew, bytes.
    growth: u64,
}

impl Run {
    /// In threads of their own, which stay on one CPU each.
    fn of(path: &Path, pace: Option<f64>, poll_every: Duration, time: Duration) -> Result<Self> {
        let run = thread::scope(|scope| scope.spawn(|| Self::here(path, pace, poll_every, time)).join());
        run.map_err(|_| anyhow!("the recorder panicked"))?
    }

    fn here(path: &Path, pace: Option<f64>, poll_every: Duration, time: Duration) -> Result<Self> {
        process::pin(1)?;
        let options =
            Options { backend: BackendChoice::Auto, recording: true, vm_histograms: true, max_vms: 64 };
        let mut live = Live::unattached(options).context("cannot load the BPF object")?;
        let driver = live.driver("driver")?;
        let mut recording = Recording::start(live, path, Wanted::default())?;
        let is_over = AtomicBool::new(false);
        let (started, cpu) = (Instant::now(), process::thread_cpu());
        let (growth, produced) = thread::scope(|scope| {
            let producer = scope.spawn(|| produce(&driver, pace, &is_over));
            let growth = poll(&mut recording, poll_every, time);
            is_over.store(true, Ordering::Relaxed);
            (growth, producer.join())
        });
        let produced = produced.map_err(|_| anyhow!("the producer panicked"))??;
        recording.finish(EndReason::Duration)?;
        let (seconds, cpu) = (started.elapsed().as_secs_f64(), process::thread_cpu() - cpu);
        let summary = capture::summary(path)?;
        let end = summary.end.context("the capture has no end")?;
        Ok(Self {
            produced,
            written: summary.events,
            lost: end.events_lost,
            seconds,
            cpu_ns: cpu.as_nanos() as f64,
            bytes: fs::metadata(path)?.len(),
            growth: growth?,
        })
    }

    /// Events in the capture by time, a second.
    fn rate(&self) -> f64 {
        self.written as f64 / self.seconds
    }

    fn unaccounted(&self) -> f64 {
        self.produced as f64 - self.written as f64 - self.lost as f64
    }
}

/// Records for a while; by how much resident memory grows, bytes.
fn poll(recording: &mut Recording, every: Duration, time: Duration) -> Result<u64> {
    let started = Instant::now();
    let (mut warm, mut most) = (None, 0);
    while started.elapsed() < time {
        let is_behind = recording.poll()?.is_behind;
        if started.elapsed() >= WARM_UP {
            most = most.max(process::memory("self", "VmRSS")?);
            warm.get_or_insert(most);
        }
        if !is_behind || every > POLL_EVERY {
            thread::sleep(every);
        }
    }
    Ok(most - warm.unwrap_or(0))
}

/// Makes events until `is_over`; how many.
fn produce(driver: &Driver, pace: Option<f64>, is_over: &AtomicBool) -> Result<u64> {
    process::pin(0)?;
    let started = Instant::now();
    let mut n = 0;
    while !is_over.load(Ordering::Relaxed) {
        if pace.is_none_or(|pace| (n as f64) < started.elapsed().as_secs_f64() * pace) {
            driver.run(&[driver_op::EMIT, driver_op::MOST_EMITTED])?;
            n += driver_op::MOST_EMITTED;
        }
    }
    Ok(n)
}

/// The head of a capture that nobody recorded.
pub(crate) fn meta() -> Meta {
    Meta {
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        host: Host {
            kernel: "generated".to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            has_change_pte: true,
        },
        start_unix_ns: 0,
        start_monotonic_ns: 0,
        hooks: Vec::new(),
        command: Vec::new(),
        vm_filter: Vec::new(),
    }
}
