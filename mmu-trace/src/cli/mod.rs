//! The command line: the only place that prints and that decides exit codes.

mod complaint;
pub mod config;
mod confine;
pub mod daemon;
mod damage;
mod descriptors;
pub mod doctor;
mod duration;
mod error;
mod journal;
mod manager;
mod output;
mod progress;
pub mod record;
pub mod replay;
pub mod report;
pub mod serve;
mod stop;
mod textfile;
pub mod top;
mod tracer;
pub mod vms;

use std::{
    env,
    ffi::OsString,
    io::{self, Write},
    process::ExitCode,
};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use config::{Parsed, Refusal};
pub use confine::SandboxArgs;
pub use error::{CliError, EXIT_CODES};
use journal::Priority;
use progress::{ProgressLine, ReadingLine};
use stop::Stop;
pub use tracer::TracerArgs;

use crate::{
    bpf::{self, Live, Obstacle, Options},
    memory,
    vm::{self, Descriptors},
};

/// What KSM and the kernel's own housekeeping cost each KVM guest.
#[derive(Parser, Debug)]
#[command(name = "mmu-trace", version, after_help = error::EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Trace and serve Prometheus metrics.
    Daemon(daemon::DaemonArgs),
    /// Trace for a while and write a capture.
    Record(record::RecordArgs),
    /// Show what a capture says.
    Report(report::ReportArgs),
    /// Serve a capture's metrics as the daemon would.
    Replay(replay::ReplayArgs),
    /// Show live what each VM pays, sorted by refault cost.
    Top(top::TopArgs),
    /// List the VMs of this host.
    Vms(vms::VmsArgs),
    /// Say what this kernel offers, hook by hook.
    Doctor(doctor::DoctorArgs),
}

/// How to attach to kernel functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BackendChoice {
    /// The best each hook allows.
    Auto,
    /// fentry and fexit only.
    Fentry,
    /// kprobes and kretprobes only.
    Kprobe,
}

impl From<BackendChoice> for bpf::BackendChoice {
    fn from(choice: BackendChoice) -> Self {
        match choice {
            BackendChoice::Auto => Self::Auto,
            BackendChoice::Fentry => Self::Fentry,
            BackendChoice::Kprobe => Self::Kprobe,
        }
    }
}

/// Starts the tracer; a host that cannot be traced is an error of its own.
fn start_tracer(options: Options, descriptors: Descriptors) -> Result<Live, CliError> {
    Live::start(options, descriptors).map_err(|error| match error.downcast::<Obstacle>() {
        Ok(obstacle) => CliError::Untraceable(obstacle.to_string()),
        Err(error) => CliError::Failed(error),
    })
}

/// The definition of the whole command line.
#[must_use]
pub fn command() -> clap::Command {
    config::extend(Cli::command())
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    memory::keep_little();
    let line: Vec<OsString> = env::args_os().collect();
    if matches!(line.as_slice(), [_, command] if command == vm::HELPER_COMMAND) {
        return exit_code(descriptors::run());
    }
    let parsed = config::parse(command(), &line).and_then(|parsed| {
        let cli = Cli::from_arg_matches(&parsed.matches)?;
        Ok((cli, parsed))
    });
    match parsed {
        Ok((cli, parsed)) => exit_code(run(&cli.command, &parsed)),
        Err(Refusal::Config(error)) => exit_code(Err(error.into())),
        Err(Refusal::Usage(error)) => {
            // Help, version or a usage error; if they cannot be printed there is nobody to tell.
            _ = error.print();
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
        }
    }
}

fn run(command: &Command, parsed: &Parsed) -> Result<(), CliError> {
    match command {
        Command::Daemon(args) if args.print_config => output::print(&parsed.effective()?),
        Command::Daemon(args) => daemon::run(args),
        Command::Record(args) => record::run(args),
        Command::Report(args) => report::run(args),
        Command::Replay(args) => replay::run(args),
        Command::Top(args) => top::run(args),
        Command::Vms(args) => vms::run(args),
        Command::Doctor(args) => doctor::run(args),
    }
}

fn exit_code(result: Result<(), CliError>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    if !matches!(error, CliError::Interrupted) {
        say(Priority::Error, &format!("error: {}", error.chain()));
    }
    ExitCode::from(error.exit_code())
}

/// Tells the user something beside the output.
fn note(text: &str) {
    say(Priority::Information, text);
}

fn say(priority: Priority, text: &str) {
    // Without a standard error there is nobody to tell.
    _ = writeln!(io::stderr(), "{}mmu-trace: {text}", priority.prefix());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The commands that need a tracer.
    #[derive(Parser, Debug)]
    enum Tracing {
        Daemon(daemon::DaemonArgs),
        Record(record::RecordArgs),
    }

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
        Tracing::command().debug_assert();
    }

    #[test]
    fn a_recording_is_described_by_its_arguments() {
        let line = "mmu-trace record -o x --vm a --vm b --duration 5min --backend kprobe -- sleep -1";
        let Tracing::Record(args) = Tracing::try_parse_from(line.split(' ')).unwrap() else {
            panic!("{line}")
        };
        assert_eq!(
            (args.vms.as_slice(), args.backend),
            (&["a".to_owned(), "b".into()][..], BackendChoice::Kprobe)
        );
        assert_eq!(args.command, ["sleep", "-1"]);
    }

    #[test]
    fn the_daemon_listens_on_this_host_only_unless_told() {
        let Tracing::Daemon(args) = Tracing::try_parse_from(["x", "daemon"]).unwrap() else { panic!() };
        assert_eq!(args.serve.listen.to_string(), "127.0.0.1:9948");
    }
}
