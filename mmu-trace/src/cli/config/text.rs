//! The configuration as TOML: the one in force, and the example.

use std::fmt::Write;

use clap::{CommandFactory, parser::ValueSource};

use super::{
    DAEMON, Parsed, extend,
    key::{self, Key, Kind},
};
use crate::cli::{Cli, CliError};

/// How wide a comment may be.
const WIDTH: usize = 98;

const HEAD: &str = "\
# Settings of mmu-trace. Each key is a flag of `mmu-trace daemon`; a flag or its environment variable wins
# over this file. `mmu-trace daemon --config.file FILE --print-config` shows what is in force.
";

/// A configuration file that sets nothing: every key as a comment, at its default.
#[must_use]
pub fn example() -> String {
    Key::of_daemon(&extend(Cli::command())).iter().fold(HEAD.to_owned(), |text, key| text + &describe(key))
}

fn describe(key: &Key) -> String {
    let mut about = key.help();
    about.push('.');
    if let choices @ [_, ..] = key.choices().as_slice() {
        about.push_str(&format!(" One of {}.", choices.join(", ")));
    }
    about.push_str(&format!(" Variable: {}.", key::variable(&key.name)));
    let defaults = key.defaults();
    let value = if defaults.is_empty() { placeholder(key) } else { value(key.kind, &defaults) };
    format!("\n{}#{} = {value}\n", comment(&about), key.name)
}

impl Parsed {
    /// What is in force for the daemon, as a configuration file that says where each value came from.
    ///
    /// # Errors
    /// A usage error if a value is not UTF-8: TOML cannot hold it.
    pub(in crate::cli) fn effective(&self) -> Result<String, CliError> {
        let mut text = String::new();
        for key in Key::of_daemon(&self.command) {
            text += &self.line(&key)?;
        }
        Ok(text)
    }

    fn line(&self, key: &Key) -> Result<String, CliError> {
        let daemon = self.matches.subcommand_matches(DAEMON);
        let raw = daemon.and_then(|daemon| daemon.get_raw(key.id()));
        let Some(raw) = raw else {
            return Ok(format!("#{} = {} # not set\n", key.name, placeholder(key)));
        };
        let values: Option<Vec<String>> = raw.map(|value| value.to_str().map(str::to_owned)).collect();
        let values = values.ok_or_else(|| {
            CliError::Usage(format!("the value of --{} is not UTF-8: TOML cannot hold it", key.name))
        })?;
        Ok(format!("{} = {} # {}\n", key.name, value(key.kind, &values), self.origin(key)))
    }

    fn origin(&self, key: &Key) -> String {
        let daemon = self.matches.subcommand_matches(DAEMON);
        let file = || self.file.as_ref().and_then(|file| file.origin(&key.name));
        match daemon.and_then(|daemon| daemon.value_source(key.id())) {
            Some(ValueSource::CommandLine) => format!("flag --{}", key.name),
            Some(ValueSource::EnvVariable) => format!("environment variable {}", key::variable(&key.name)),
            _ => file().unwrap_or_else(|| "default".to_owned()),
        }
    }
}

/// Values as TOML.
fn value(kind: Kind, values: &[String]) -> String {
    let quoted = |text: &String| toml::Value::String(text.clone()).to_string();
    match (kind, values) {
        (Kind::List, _) => format!("[{}]", values.iter().map(quoted).collect::<Vec<_>>().join(", ")),
        (Kind::Switch | Kind::Number, [value, ..]) => value.clone(),
        (Kind::Text, [value, ..]) => quoted(value),
        (_, []) => String::new(),
    }
}

/// What stands for a value that has no default.
fn placeholder(key: &Key) -> String {
    value(key.kind, &[format!("<{}>", key.value_name())])
}

fn comment(text: &str) -> String {
    let mut comment = String::from("#");
    let mut width = 1;
    for word in text.split_whitespace() {
        if width + 1 + word.len() > WIDTH {
            comment.push_str("\n#");
            width = 1;
        }
        // A String takes whatever is written.
        _ = write!(comment, " {word}");
        width += 1 + word.len();
    }
    comment + "\n"
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsString, fs};

    use super::*;
    use crate::cli::{command, config::parse};

    /// What is in force for a daemon whose configuration file is `config`.
    fn effective(config: &str, flags: &[&str]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        fs::write(&path, config).unwrap();
        let mut line = vec!["mmu-trace".into(), "daemon".into(), "--config.file".into(), path.into()];
        line.extend(flags.iter().map(OsString::from));
        let text = parse(command(), &line).unwrap().effective().unwrap();
        text.replace(&format!("{}/", dir.path().display()), "")
    }

    fn without_origins(text: &str) -> Vec<&str> {
        text.lines().map(|line| line.rsplit_once(" # ").unwrap().0).collect()
    }

    #[test]
    fn what_is_in_force_can_be_read_back() {
        let config = "textfile = 'a \"b\" # c.prom'\nmax-vms = 7";
        let text = effective(config, &["--backend", "kprobe"]);
        for line in [
            "listen = \"127.0.0.1:9948\" # default",
            "max-vms = 7 # file c.toml, line 2",
            "backend = \"kprobe\" # flag --backend",
        ] {
            assert!(text.lines().any(|printed| printed == line), "{line} is not in:\n{text}");
        }
        assert_eq!(without_origins(&effective(&text, &[])), without_origins(&text));
        assert!(effective(&text, &[]).contains("# file c.toml, line"));
    }

    #[test]
    fn the_example_changes_nothing_as_it_is_and_with_its_defaults_in_force() {
        let example = example();
        let uncommented: String = example
            .lines()
            .filter(|line| line.starts_with('#') && !line.starts_with("# ") && !line.contains('<'))
            .map(|line| format!("{}\n", &line[1..]))
            .collect();
        assert!(uncommented.contains("max-vms = 1000"), "{uncommented}");
        let plain = effective("", &[]);
        assert_eq!(effective(&example, &[]), plain);
        assert_eq!(without_origins(&effective(&uncommented, &[])), without_origins(&plain));
        assert!(example.lines().all(|line| line.len() <= 110));
    }
}
