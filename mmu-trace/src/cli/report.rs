//! `mmu-trace report`: what a capture says.

use std::{
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum};
use mmu_trace_ebpf::kind::Gap;

use super::{CliError, note, output};
use crate::{
    capture::{self, End, EndReason, Item, ReadError, Summary},
    model::Snapshot,
    report::{Document, Provenance, Report, Timeline, count, html, plural, text},
};

/// Arguments of `report`.
#[derive(Args, Debug)]
pub struct ReportArgs {
    /// The capture.
    pub file: PathBuf,
    /// How to show it.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// Write to this file instead of standard output.
    #[arg(short, long, value_name = "OUT")]
    pub output: Option<PathBuf>,
}

/// A form of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// Schema mmu-trace-report/1.
    Json,
    /// For people: one page with plots that needs nothing else.
    Html,
}

/// Shows the capture.
///
/// # Errors
/// If the capture cannot be read or the output not be written.
pub fn run(args: &ReportArgs) -> Result<(), CliError> {
    let (summary, timeline) = read(args).map_err(unreadable)?;
    if let Some(snapshot) = &summary.snapshot {
        let text = match args.format {
            Format::Text => text(snapshot),
            Format::Json => as_json(snapshot)?,
            Format::Html => as_page(&args.file, &summary, snapshot, &timeline),
        };
        match &args.output {
            Some(path) => output::write_file(path, &text)?,
            None => output::print(&text)?,
        }
    }
    if let Some(End { reason: EndReason::Error, events_lost, .. }) = summary.end {
        note(&format!(
            "the recording ended with an error: these are the figures up to then, and {} events are not in it",
            count(events_lost)
        ));
    }
    // Shown first, then refused: the exit code tells a script what the text tells a person.
    check(&args.file, summary)
}

/// The capture and, where the report shows them, its events by time.
fn read(args: &ReportArgs) -> Result<(Summary, Timeline), ReadError> {
    let mut timeline = Timeline::default();
    let summary = match args.format {
        Format::Html => capture::summary_with(&args.file, |item| watch(&mut timeline, item)),
        Format::Text | Format::Json => capture::summary(&args.file),
    }?;
    Ok((summary, timeline))
}

/// Counts what the report says about time; the rest comes from the last snapshot.
fn watch(timeline: &mut Timeline, item: &Item) {
    match item {
        Item::Meta(meta) => timeline.begin(meta.start_monotonic_ns),
        Item::Events(events) => events.iter().for_each(|event| timeline.add(event)),
        Item::Snapshot(_) | Item::End(_) | Item::Damage(_) => {}
    }
}

fn as_json(snapshot: &Snapshot) -> Result<String, CliError> {
    let json = serde_json::to_string_pretty(&Report::from(snapshot)).context("encoding the report")?;
    Ok(json + "\n")
}

fn as_page(file: &Path, summary: &Summary, snapshot: &Snapshot, timeline: &Timeline) -> String {
    html(&Document { snapshot, timeline, provenance: &provenance(file, summary) })
}

fn provenance(file: &Path, summary: &Summary) -> Provenance {
    let meta = summary.meta.as_ref();
    let lost = summary.snapshot.as_ref().map_or(0, |snapshot| snapshot.quality.gap(Gap::LostEvent));
    Provenance {
        file: file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned(),
        recorded_with: meta.map(|meta| meta.tool_version.clone()),
        shown_with: env!("CARGO_PKG_VERSION").to_owned(),
        command: meta.map(|meta| meta.command.clone()).unwrap_or_default(),
        vm_filter: meta.map(|meta| meta.vm_filter.clone()).unwrap_or_default(),
        ended: ended(summary.end.as_ref()).to_owned(),
        // The end mark has those as well that the recorder could not write; a cut capture has none.
        events_lost: summary.end.as_ref().map_or(lost, |end| end.events_lost.max(lost)),
    }
}

fn ended(end: Option<&End>) -> &'static str {
    match end.map(|end| end.reason) {
        Some(EndReason::Duration) => "after the time asked for",
        Some(EndReason::Command) => "with the command",
        Some(EndReason::Interrupted) => "by a signal",
        Some(EndReason::Error) => "with an error of the recorder",
        Some(EndReason::Unknown) => "for a reason that this version does not know",
        None => "unknown: the end of the capture is missing",
    }
}

/// What kind of failure it is that a capture cannot be read, or not to its end.
fn unreadable(error: ReadError) -> CliError {
    match error {
        ReadError::Open { path, source } if source.kind() == io::ErrorKind::PermissionDenied => {
            let advice = "a capture is readable by its owner only, run it with sudo";
            CliError::Failed(anyhow!(source).context(format!("cannot open {}; {advice}", path.display())))
        }
        ReadError::Open { .. } | ReadError::Read { .. } => CliError::Failed(error.into()),
        _ => CliError::Capture(error.into()),
    }
}

/// Whether `summary` is of a whole capture; otherwise what is missing, and what that means.
fn check(path: &Path, summary: Summary) -> Result<(), CliError> {
    let damage = describe_damage(&summary);
    let shown = match &summary.snapshot {
        Some(_) if summary.is_intact() => return Ok(()),
        None => "no figures could be read, so there is no report; record again",
        Some(snapshot) if snapshot.quality.truncated => {
            "the report shows the last figures that could be read"
        }
        Some(_) => "the last figures are intact and the report shows them",
    };
    if let Some(error) = summary.stopped {
        note(shown);
        return Err(unreadable(error));
    }
    let damage = damage.unwrap_or_else(|| "it has an end, but no content".to_owned());
    Err(CliError::Capture(anyhow!("{}: {damage}; {shown}", path.display())))
}

/// What is missing from a capture; `None` if it is whole.
fn describe_damage(summary: &Summary) -> Option<String> {
    // What a cut leaves of the last block is part of the missing end.
    let is_before_end = |position| summary.truncated.is_none_or(|end| position < end);
    let damaged: u64 = summary
        .damage
        .iter()
        .filter(|damage| is_before_end(damage.position))
        .map(|damage| damage.bytes)
        .sum();
    let damage = (damaged > 0).then(|| format!("{} damaged", plural(damaged, "byte is", "bytes are")));
    let end = summary.truncated.map(|end| format!("its end is missing, from byte {end} on"));
    let missing: Vec<String> = damage.into_iter().chain(end).collect();
    (!missing.is_empty()).then(|| missing.join(" and "))
}
