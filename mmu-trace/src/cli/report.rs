//! `mmu-trace report`: what a capture says.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, ValueEnum};

use super::{
    CliError, damage, note,
    output::{self, Readers},
};
use crate::{
    capture::{self, End, EndReason},
    model::Snapshot,
    report::{Report, count, text},
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
    let summary = capture::summary(&args.file).map_err(damage::unreadable)?;
    if let Some(snapshot) = &summary.snapshot {
        let text = render(snapshot, args.format)?;
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
