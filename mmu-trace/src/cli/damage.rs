//! What a damaged capture means to the user: the same for every command that reads one.

use std::{io, path::Path};

use anyhow::anyhow;

use super::{CliError, note};
use crate::{
    capture::{ReadError, Summary},
    report::plural,
};

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

/// Whether `summary` is of a whole capture; otherwise what is missing, and what that means for what was
/// made of it: `shows` is, say, "the report shows".
///
/// # Errors
/// If anything of the capture could not be read.
pub(super) fn check(path: &Path, summary: Summary, shows: &str) -> Result<(), CliError> {
    let damage = describe_damage(&summary);
    let shown = match &summary.snapshot {
        Some(_) if summary.is_intact() => return Ok(()),
        None => "no figures could be read, so there is nothing to show; record again".to_owned(),
        Some(snapshot) if snapshot.quality.truncated => {
            format!("{shows} the last figures that could be read")
        }
        Some(_) => format!("the last figures are intact and {shows} them"),
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
