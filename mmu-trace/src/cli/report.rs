//! `mmu-trace report`: what a capture says.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum};

use super::{CliError, output};
use crate::{
    capture::{self, ReadError, Summary},
    model::Snapshot,
    report::{Report, text},
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
    let (snapshot, damage) = load_snapshot(&args.file)?;
    let text = render(&snapshot, args.format)?;
    match &args.output {
        Some(path) => output::write_file(path, &text)?,
        None => output::print(&text)?,
    }
    // Shown first, then refused: the exit code tells a script what the text tells a person.
    damage.map_or(Ok(()), |damage| Err(CliError::Capture(anyhow!(damage))))
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

/// The last snapshot of the capture at `path`, and what is wrong with the capture, if anything.
fn load_snapshot(path: &Path) -> Result<(Snapshot, Option<String>), CliError> {
    let summary = capture::summary(path).map_err(|error| match error {
        ReadError::Open { .. } | ReadError::Read { .. } => CliError::Failed(error.into()),
        _ => CliError::Capture(error.into()),
    })?;
    let damage = describe_damage(path, &summary);
    match summary.snapshot {
        Some(snapshot) => Ok((*snapshot, damage)),
        None => Err(CliError::Capture(anyhow!("{} holds no snapshot: nothing can be said", path.display()))),
    }
}

/// What is missing from a capture; `None` if it is whole.
fn describe_damage(path: &Path, summary: &Summary) -> Option<String> {
    if summary.is_intact() {
        return None;
    }
    let damaged: u64 = summary.damage.iter().map(|damage| damage.bytes).sum();
    let cut = match summary.truncated {
        Some(position) => format!("it ends early, at byte {position}"),
        None => format!("{damaged} bytes in it are damaged"),
    };
    Some(format!("{}: {cut}; the report is of the last intact snapshot", path.display()))
}
