//! One setting of the daemon, as its clap definition describes it.

use std::any::TypeId;

use clap::{Arg, ArgAction, Command, Id, builder::Resettable};

use super::{DAEMON, FILE_FLAG, PRINT_FLAG};

/// What a key holds in TOML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A flag without a value.
    Switch,
    Number,
    Text,
    /// A flag that may be given several times.
    List,
}

impl Kind {
    /// With its article, for messages.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Switch => "true or false",
            Self::Number => "a number",
            Self::Text => "a string",
            Self::List => "an array of strings",
        }
    }
}

/// A key of the configuration file: a long flag of the daemon.
#[derive(Clone, Debug)]
pub(super) struct Key {
    arg: Arg,
    /// The flag without its dashes.
    pub(super) name: String,
    pub(super) kind: Kind,
}

impl Key {
    /// All keys, in the order of `daemon --help`.
    pub(super) fn of_daemon(command: &Command) -> Vec<Self> {
        let daemon = command.find_subcommand(DAEMON);
        daemon.into_iter().flat_map(Command::get_arguments).filter_map(Self::of).collect()
    }

    fn of(arg: &Arg) -> Option<Self> {
        let name = arg.get_long().filter(|name| ![FILE_FLAG, PRINT_FLAG, "help"].contains(name))?;
        Some(Self { arg: arg.clone(), name: name.to_owned(), kind: kind(arg) })
    }

    /// Whether `arg`, of any command, is this setting.
    pub(super) fn is_of(&self, arg: &Arg) -> bool {
        arg.get_long() == Some(self.name.as_str())
    }

    /// What clap calls it.
    pub(super) fn id(&self) -> &str {
        self.arg.get_id().as_str()
    }

    /// What the help says about it, in one line.
    pub(super) fn help(&self) -> String {
        self.arg.get_help().map_or(String::new(), ToString::to_string)
    }

    /// What the help calls its value.
    pub(super) fn value_name(&self) -> &str {
        self.arg.get_value_names().and_then(|names| names.first()).map_or("VALUE", |name| name.as_str())
    }

    /// Its values if nobody sets it.
    pub(super) fn defaults(&self) -> Vec<String> {
        match self.kind {
            Kind::Switch => vec!["false".to_owned()],
            _ => self.arg.get_default_values().iter().map(|value| value.to_string_lossy().into()).collect(),
        }
    }

    /// The words that it takes, if they are few.
    pub(super) fn choices(&self) -> Vec<String> {
        if self.kind == Kind::Switch {
            return Vec::new();
        }
        let choices = self.arg.get_possible_values();
        choices.iter().map(|choice| format!("\"{}\"", choice.get_name())).collect()
    }

    /// Asks the flag's own parser about a value.
    ///
    /// # Errors
    /// What clap says, without what it adds for the command line.
    pub(super) fn check(&self, value: &str) -> Result<(), String> {
        if self.kind == Kind::Switch {
            return Ok(());
        }
        let alone = self.arg.clone().requires(Resettable::<Id>::Reset).env(None::<&str>);
        let line = ["mmu-trace".to_owned(), format!("--{}={value}", self.name)];
        let parsed = Command::new("mmu-trace").no_binary_name(false).arg(alone).try_get_matches_from(line);
        parsed.map(drop).map_err(|error| first_paragraph(&error.to_string()))
    }
}

fn kind(arg: &Arg) -> Kind {
    let numbers = [TypeId::of::<u32>(), TypeId::of::<u64>(), TypeId::of::<f64>()];
    match arg.get_action() {
        ArgAction::SetTrue => Kind::Switch,
        ArgAction::Append => Kind::List,
        _ if numbers.iter().any(|number| arg.get_value_parser().type_id() == *number) => Kind::Number,
        _ => Kind::Text,
    }
}

fn first_paragraph(message: &str) -> String {
    let lines = message.lines().take_while(|line| !line.is_empty()).map(str::trim);
    lines.collect::<Vec<_>>().join(" ").trim_start_matches("error: ").to_owned()
}

/// The variable of the flag `--flag`.
pub(super) fn variable(flag: &str) -> String {
    format!("MMU_TRACE_{}", flag.to_uppercase().replace(['-', '.'], "_"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    fn key(name: &str) -> Key {
        Key::of_daemon(&Cli::command()).into_iter().find(|key| key.name == name).unwrap()
    }

    #[test]
    fn a_variable_is_named_like_its_flag() {
        assert_eq!(variable("web.config.file"), "MMU_TRACE_WEB_CONFIG_FILE");
        assert_eq!(variable("max-vms"), "MMU_TRACE_MAX_VMS");
    }

    #[test]
    fn kinds_follow_the_definition() {
        assert_eq!((key("max-vms").kind, key("listen").kind), (Kind::Number, Kind::Text));
        let command = Command::new("x")
            .subcommand(Command::new("daemon").arg(Arg::new("l").long("l").action(ArgAction::Append)));
        assert_eq!(Key::of_daemon(&command)[0].kind, Kind::List);
    }

    #[test]
    fn the_flags_own_parser_is_asked() {
        assert_eq!(key("max-vms").check("12"), Ok(()));
        let message = key("max-vms").check("0").unwrap_err();
        assert!(
            message.starts_with("invalid value '0' for '--max-vms <N>': 0 is not in 1..=8192"),
            "{message}"
        );
    }
}
