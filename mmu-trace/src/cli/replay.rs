//! `mmu-trace replay`: serves a capture's metrics, so that a Prometheus and its dashboards can be tried
//! without KVM.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{
    CliError, ReadingLine, SandboxArgs, Stop, confine, damage,
    manager::Manager,
    note,
    serve::{self, ServeArgs},
};
use crate::{
    capture::{self, Events, ReadError, Summary},
    model::Snapshot,
    sandbox::Needs,
    source::Replay,
};

/// Arguments of `replay`.
#[derive(Args, Debug)]
pub struct ReplayArgs {
    /// The capture.
    pub file: PathBuf,
    /// Play it from its beginning, this many times as fast as it was recorded; without it, its last figures
    /// are served.
    #[arg(long, value_name = "TIMES", value_parser = parse_speed)]
    pub speed: Option<f64>,
    /// Where the metrics go.
    #[command(flatten)]
    pub serve: ServeArgs,
    /// What is given up.
    #[command(flatten)]
    pub sandbox: SandboxArgs,
}

/// A factor above zero.
fn parse_speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if speed.is_finite() && speed > 0.0 => Ok(speed),
        _ => Err("must be a number above 0; write 1 for the speed of the recording".to_owned()),
    }
}

/// Serves the capture until SIGINT or SIGTERM.
///
/// # Errors
/// If the capture holds no figures or the address cannot be had; at the end, if the capture is damaged.
pub fn run(args: &ReplayArgs) -> Result<(), CliError> {
    // Before a capture is read: it may be anybody's. The rest goes once the address is bound.
    let readable = vec![PathBuf::from("/")];
    let written = args.serve.textfile.clone();
    let needs = Needs { serving: true, binding: true, readable, written, ..Needs::default() };
    confine::warn_of_others(&confine::confine(args.sandbox, &needs));
    let summary = read(&args.file).map_err(damage::unreadable)?;
    let last = summary.snapshot.as_deref().cloned();
    let checked = damage::check(&args.file, summary, "the metrics show");
    let Some(last) = last else { return checked };
    // Said now, refused at the end: what can be read is served.
    if let Err(error) = &checked {
        note(&error.chain());
    }
    describe(args, &last);
    serve::runtime()?.block_on(serve(args, last))?;
    checked
}

fn read(path: &Path) -> Result<Summary, ReadError> {
    let mut line = ReadingLine::new(path);
    capture::summary_with(path, Events::Count, |item, position| line.see(item, position))
}

async fn serve(args: &ReplayArgs, last: Snapshot) -> Result<(), CliError> {
    let mut stop = Stop::new()?;
    let replay = match args.speed {
        Some(speed) => Replay::playing(&args.file, speed).map_err(damage::unreadable)?,
        None => None,
    };
    let source = Box::new(replay.unwrap_or_else(|| Replay::still(last)));
    let mut serving = args.serve.bind(source).await?;
    serving.confine(args.sandbox, Needs::default());
    let mut manager = Manager::new();
    manager.status(format!("replaying {}", args.file.display()));
    manager.ready();
    serving.run(&mut stop).await
}

/// Says what will be seen, and what will not.
fn describe(args: &ReplayArgs, last: &Snapshot) {
    let (path, seconds) = (args.file.display(), last.window.seconds);
    match args.speed {
        Some(speed) => note(&format!("playing the {seconds:.1} s of {path} at {speed} times their speed")),
        None => note(&format!("replaying {path}: its last figures, after {seconds:.1} s")),
    }
    let n_ended = last.vms.iter().filter(|vm| !vm.alive).count();
    if n_ended > 0 && args.speed.is_none() {
        note(&format!(
            "{n_ended} of its {} VMs had ended and have no series, as in the daemon; --speed 1 shows them alive",
            last.vms.len()
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_is_a_number_above_zero() {
        assert_eq!(parse_speed("0.5"), Ok(0.5));
        for text in ["0", "-1", "inf", "NaN", "fast", ""] {
            assert!(parse_speed(text).is_err(), "{text}");
        }
    }
}
