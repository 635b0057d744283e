//! From a source of snapshots to the text of its metrics: what the HTTP server and the text file share.
//!
//! One reader at a time, on a thread where it may block; further ones wait on no thread. A failure is
//! counted, and stops nothing.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use tokio::sync::Mutex;

use crate::{
    metrics::{self, Health, Process, Rejection},
    model::Snapshot,
    sandbox::Sandbox,
    source::{Attachment, Source},
};

/// A source with what is counted about reading it.
pub struct Scraper {
    source: Arc<Mutex<Box<dyn Source>>>,
    errors: AtomicU64,
    vm_histograms: bool,
    /// `None`: no text file is written.
    textfile_errors: Option<AtomicU64>,
    /// By [`Rejection`]; `None`: everybody is let in.
    rejections: Option<[AtomicU64; Rejection::ALL.len()]>,
    evictions: AtomicU64,
    /// Empty until privileges are given up.
    sandbox: OnceLock<Sandbox>,
}

/// A snapshot and how it was had.
struct Reading {
    snapshot: Snapshot,
    attachment: Option<Attachment>,
    duration: Duration,
}

impl Scraper {
    /// A scraper of `source`.
    #[must_use]
    pub fn new(source: Box<dyn Source>) -> Self {
        let source = Arc::new(Mutex::new(source));
        Self {
            source,
            errors: AtomicU64::new(0),
            vm_histograms: false,
            textfile_errors: None,
            rejections: None,
            evictions: AtomicU64::new(0),
            sandbox: OnceLock::new(),
        }
    }

    /// The same, with the histograms of each VM if `wanted`.
    #[must_use]
    pub fn with_vm_histograms(self, wanted: bool) -> Self {
        Self { vm_histograms: wanted, ..self }
    }

    /// The same, for somebody who also writes a text file.
    #[must_use]
    pub fn with_textfile(self) -> Self {
        Self { textfile_errors: Some(AtomicU64::new(0)), ..self }
    }

    /// The same, for a server with a guard.
    #[must_use]
    pub fn with_rejections(self) -> Self {
        Self { rejections: Some(Default::default()), ..self }
    }

    /// Notes what this process has given up; what is noted first stays.
    pub fn set_sandbox(&self, sandbox: Sandbox) {
        _ = self.sandbox.set(sandbox);
    }

    /// What is known now.
    ///
    /// # Errors
    /// If the counters cannot be read; that is counted.
    pub async fn snapshot(&self) -> anyhow::Result<Snapshot> {
        Ok(self.read().await?.snapshot)
    }

    /// The exposition for a scrape of this process.
    ///
    /// # Errors
    /// As [`Scraper::snapshot`].
    pub async fn metrics(&self) -> anyhow::Result<String> {
        self.encode(Process::load()).await
    }

    /// The exposition for a text file of node_exporter: without the series about a process, of which
    /// node_exporter has its own: it logs an error at every scrape where it finds them twice.
    ///
    /// # Errors
    /// As [`Scraper::snapshot`].
    pub async fn textfile(&self) -> anyhow::Result<String> {
        self.encode(None).await
    }

    /// Counts a text file that could not be written.
    pub fn count_textfile_error(&self) {
        if let Some(errors) = &self.textfile_errors {
            errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts somebody who was not let in.
    pub fn count_rejection(&self, rejection: Rejection) {
        if let Some(rejections) = &self.rejections {
            rejections[rejection as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a client that was sent away to make room for others.
    pub fn count_eviction(&self) {
        self.evictions.fetch_add(1, Ordering::Relaxed);
    }

    async fn encode(&self, process: Option<Process>) -> anyhow::Result<String> {
        let Reading { snapshot, attachment, duration } = self.read().await?;
        let health = Health {
            scrape_duration: duration,
            scrape_errors: self.errors.load(Ordering::Relaxed),
            textfile_errors: self.textfile_errors.as_ref().map(|errors| errors.load(Ordering::Relaxed)),
            rejections: self.rejections.as_ref().map(|all| all.each_ref().map(|n| n.load(Ordering::Relaxed))),
            attachment,
            evictions: self.evictions.load(Ordering::Relaxed),
            sandbox: self.sandbox.get().cloned(),
            vm_histograms: self.vm_histograms,
            process,
        };
        // A thousand VMs are a hundred thousand lines.
        let text = tokio::task::spawn_blocking(move || metrics::encode(&snapshot, &health)).await;
        Ok(text.context("the encoder of the metrics panicked")??)
    }

    async fn read(&self) -> anyhow::Result<Reading> {
        let mut source = Arc::clone(&self.source).lock_owned().await;
        let read = tokio::task::spawn_blocking(move || {
            let start = Instant::now();
            let snapshot = source.snapshot()?;
            Ok(Reading { snapshot, attachment: source.attachment(), duration: start.elapsed() })
        });
        let reading = read.await.context("the reader of the counters panicked").and_then(|result| result);
        if reading.is_err() {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
        reading.context("reading the counters")
    }
}
