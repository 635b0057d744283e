//! `mmu-trace report`: what a capture says.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::{Args, ValueEnum};
use mmu_trace_ebpf::kind::Gap;

use super::{
    CliError, ReadingLine, SandboxArgs, confine, damage, note,
    output::{self, Readers},
};
use crate::{
    capture::{self, End, EndReason, Events, Item, ReadError, Summary},
    model::Snapshot,
    report::{Document, Provenance, Report, Timeline, count, html, text},
    sandbox::Needs,
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
    /// What is given up.
    #[command(flatten)]
    pub sandbox: SandboxArgs,
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

/// `MMU_TRACE_OUTPUT` that was meant for `record` names the capture.
fn refuse_to_overwrite_the_capture(args: &ReportArgs) -> Result<(), CliError> {
    let Some(output) = &args.output else { return Ok(()) };
    let same = fs::canonicalize(output).ok().zip(fs::canonicalize(&args.file).ok());
    if same.is_some_and(|(output, capture)| output == capture) {
        let message =
            format!("the report would replace the capture {}; choose another --output", output.display());
        return Err(CliError::Usage(message));
    }
    Ok(())
}

/// Shows the capture.
///
/// # Errors
/// If the capture cannot be read or the output not be written.
pub fn run(args: &ReportArgs) -> Result<(), CliError> {
    refuse_to_overwrite_the_capture(args)?;
    // Before a capture is read: it may be anybody's.
    let needs = Needs { readable: vec![args.file.clone()], written: args.output.clone(), ..Needs::default() };
    confine::warn_of_others(&confine::confine(args.sandbox, &needs));
    let (summary, timeline) = read(args).map_err(damage::unreadable)?;
    if let Some(snapshot) = &summary.snapshot {
        let text = match args.format {
            Format::Text => text(snapshot),
            Format::Json => as_json(snapshot)?,
            Format::Html => as_page(&args.file, &summary, snapshot, &timeline),
        };
        match &args.output {
            Some(path) => output::write_file(path, &text, Readers::AsBefore)?,
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
    damage::check(&args.file, summary, "the report shows")
}

/// The capture and, where the report shows them, its events by time.
fn read(args: &ReportArgs) -> Result<(Summary, Timeline), ReadError> {
    let events = match args.format {
        Format::Html => Events::Unpack,
        Format::Text | Format::Json => Events::Count,
    };
    let mut line = ReadingLine::new(&args.file);
    let mut timeline = Timeline::default();
    let summary = capture::summary_with(&args.file, events, |item, position| {
        line.see(item, position);
        watch(&mut timeline, item);
    })?;
    Ok((summary, timeline))
}

/// Counts what the report says about time; the rest comes from the last snapshot.
fn watch(timeline: &mut Timeline, item: &Item) {
    match item {
        Item::Meta(meta) => timeline.begin(meta.start_monotonic_ns),
        Item::Events(events) => events.iter().for_each(|event| timeline.add(event)),
        Item::EventCount(_) | Item::Snapshot(_) | Item::End(_) | Item::Damage(_) => {}
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
