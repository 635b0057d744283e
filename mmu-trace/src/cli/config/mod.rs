//! Where settings come from: a flag, else the environment, else the configuration file, else the default.
//!
//! All three names of a setting are one. The flag `--max-vms` is the variable `MMU_TRACE_MAX_VMS` and the
//! key `max-vms`. They are derived here from the clap definitions, for every command at once: the file's
//! values become clap's defaults before the command line is parsed, so the same parsers judge them.

mod file;
mod key;
mod text;

use std::{ffi::OsString, path::PathBuf};

use clap::{Arg, ArgMatches, Command, Id, builder::Resettable, value_parser};

pub(super) use file::ConfigError;
use file::ConfigFile;
use key::Key;
pub use text::example;

/// The flag that names the configuration file.
const FILE_FLAG: &str = "config.file";
/// The command whose flags are the keys of the file.
const DAEMON: &str = "daemon";
/// A question, not a setting: it has neither a variable nor a key.
const PRINT_FLAG: &str = "print-config";

/// A parsed command line, and what the settings in force came from.
pub(super) struct Parsed {
    /// What clap made of it.
    pub(super) matches: ArgMatches,
    command: Command,
    file: Option<ConfigFile>,
}

/// Why a command line was not understood.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// Help, the version, or wrong usage.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// The configuration file is at fault.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Gives every flag of every command its variable, and the commands that share flags with the daemon
/// `--config.file`.
pub(super) fn extend(command: Command) -> Command {
    let keys = Key::of_daemon(&command);
    command.mut_subcommands(|command| {
        let reads_file = command.get_arguments().any(|arg| keys.iter().any(|key| key.is_of(arg)));
        let command = if reads_file { command.arg(file_flag()) } else { command };
        command.mut_args(with_variable)
    })
}

fn file_flag() -> Arg {
    Arg::new(FILE_FLAG)
        .long(FILE_FLAG)
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help("Read settings from this TOML file; its keys are the flags of daemon")
}

fn with_variable(arg: Arg) -> Arg {
    match arg.get_long() {
        Some(flag) if flag != PRINT_FLAG => {
            let name = key::variable(flag);
            arg.env(name)
        }
        _ => arg,
    }
}

/// Parses a command line, after the configuration file that it or the environment names.
pub(super) fn parse(command: Command, line: &[OsString]) -> Result<Parsed, Refusal> {
    let matches = unconditional(&command).try_get_matches_from(line)?;
    let Some((name, path)) = named_file(&matches) else {
        let matches = command.clone().try_get_matches_from(line)?;
        return Ok(Parsed { matches, command, file: None });
    };
    let file = ConfigFile::read(path, &Key::of_daemon(&command))?;
    let matches = unconditional(&command)
        .mut_subcommand(name, |command| command.mut_args(|arg| file.set_default(arg)))
        .try_get_matches_from(line)?;
    Ok(Parsed { matches, command, file: Some(file) })
}

/// The same, but no flag requires another: what the file says is a default to clap, and that counts as
/// absent to a flag that requires it.
fn unconditional(command: &Command) -> Command {
    let command = command.clone();
    command.mut_subcommands(|command| command.mut_args(|arg| arg.requires(Resettable::<Id>::Reset)))
}

fn named_file(matches: &ArgMatches) -> Option<(&str, PathBuf)> {
    let (name, matches) = matches.subcommand()?;
    let path = matches.try_get_one::<PathBuf>(FILE_FLAG).ok()??;
    Some((name, path.clone()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::{CommandFactory, parser::ValueSource};

    use super::*;
    use crate::cli::Cli;

    fn parse_with(config: &str, line: &[&str]) -> Result<Parsed, Refusal> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        fs::write(&path, config).unwrap();
        let mut words = vec!["mmu-trace".into(), "daemon".into(), "--config.file".into(), path.into()];
        words.extend(line.iter().map(OsString::from));
        parse(extend(Cli::command()), &words)
    }

    #[test]
    fn the_file_gives_defaults_and_flags_win() {
        let parsed = parse_with("max-vms = 7\nbackend = \"kprobe\"", &["--max-vms", "8"]).unwrap();
        let daemon = parsed.matches.subcommand_matches("daemon").unwrap();
        assert_eq!(daemon.get_one::<u32>("max_vms"), Some(&8));
        assert_eq!(daemon.value_source("max_vms"), Some(ValueSource::CommandLine));
        assert_eq!(daemon.get_raw("backend").unwrap().next().unwrap(), "kprobe");
    }

    #[test]
    fn a_flag_may_require_what_the_file_says() {
        assert!(parse_with("textfile = \"x.prom\"", &["--textfile-interval", "5s"]).is_ok());
        let line = ["mmu-trace", "daemon", "--textfile-interval", "5s"].map(OsString::from);
        assert!(matches!(parse(extend(Cli::command()), &line), Err(Refusal::Usage(_))));
    }

    #[test]
    fn every_flag_has_its_variable() {
        let command = extend(Cli::command());
        for arg in command.get_subcommands().flat_map(Command::get_arguments) {
            let Some(flag) = arg.get_long().filter(|flag| *flag != PRINT_FLAG) else { continue };
            assert_eq!(arg.get_env().unwrap(), key::variable(flag).as_str());
        }
    }

    #[test]
    fn only_commands_that_share_settings_with_the_daemon_read_its_file() {
        let command = extend(Cli::command());
        let reads = |command: &&Command| command.get_arguments().any(|arg| arg.get_id() == FILE_FLAG);
        let names: Vec<_> = command.get_subcommands().filter(reads).map(Command::get_name).collect();
        assert_eq!(names, ["daemon", "record", "report", "replay", "top", "doctor"]);
    }
}
