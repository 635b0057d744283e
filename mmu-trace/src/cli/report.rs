//! `mmu-trace report`: what a capture says.

use std::{
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum};

use super::{CliError, note, output};
use crate::{
    capture::{self, End, EndReason, ReadError, Summary},
    model::Snapshot,
    report::{Report, count, plural, text},
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
}

/// Shows the capture.
///
/// # Errors
/// If the capture cannot be read or the output not be written.
pub fn run(args: &ReportArgs) -> Result<(), CliError> {
    let summary = capture::summary(&args.file).map_err(unreadable)?;
    if let Some(snapshot) = &summary.snapshot {
        let text = render(snapshot, args.format)?;
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
    check(&args.file, summary, "report")
}

fn render(snapshot: &Snapshot, format: Format) -> Result<String, CliError> {
    match format {
        Format::Text => Ok(text(snapshot)),
        Format::Json => {
            let json =
                serde_json::to_string_pretty(&Report::from(snapshot)).context("encoding the report")?;
            Ok(json + "\n")
        }
    }
}

/// What kind of failure it is that a capture cannot be read, or not to its end.
pub(super) fn unreadable(error: ReadError) -> CliError {
    match error {
        ReadError::Open { path, source } if source.kind() == io::ErrorKind::PermissionDenied => {
            let advice = "a capture is readable by its owner only, run it with sudo";
            CliError::Failed(anyhow!(source).context(format!("cannot open {}; {advice}", path.display())))
        }
        ReadError::Open { .. } | ReadError::Read { .. } => CliError::Failed(error.into()),
        _ => CliError::Capture(error.into()),
    }
}

/// Whether `summary` is of a whole capture; otherwise what is missing, and what that means for its
/// `form`.
pub(super) fn check(path: &Path, summary: Summary, form: &str) -> Result<(), CliError> {
    let damage = describe_damage(&summary);
    let shown = match &summary.snapshot {
        Some(_) if summary.is_intact() => return Ok(()),
        None => format!("no figures could be read, so there is no {form}; record again"),
        Some(snapshot) if snapshot.quality.truncated => {
            format!("the {form} shows the last figures that could be read")
        }
        Some(_) => format!("the last figures are intact and the {form} shows them"),
    };
    if let Some(error) = summary.stopped {
        note(&shown);
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
