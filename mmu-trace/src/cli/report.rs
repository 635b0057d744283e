//! `mmu-trace report`: what a capture says.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum};

use super::{CliError, output};
use crate::{
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
    let text = render(&load_snapshot(&args.file)?, args.format)?;
    match &args.output {
        Some(path) => output::write_file(path, &text),
        None => output::print(&text),
    }
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

/// The last snapshot of the capture at `path`.
fn load_snapshot(path: &Path) -> Result<Snapshot, CliError> {
    Err(CliError::Capture(anyhow!("cannot read {}: this version has no reader of captures", path.display())))
}
