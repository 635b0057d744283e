//! The configuration file: TOML whose keys are the daemon's flags.

use std::{
    collections::BTreeMap,
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
};

use clap::Arg;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::key::{Key, Kind};

/// How alike a name must be to be suggested: as much as clap wants of a flag.
const ALIKE: f64 = 0.7;

/// What is wrong with a configuration file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read the configuration file {path}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// Something in it makes no sense.
    #[error("{path}, line {line}: {message}")]
    Invalid {
        /// The file.
        path: String,
        /// Where, from 1 on.
        line: usize,
        /// What, and what would.
        message: String,
    },
}

/// What a file sets a key to.
#[derive(Debug)]
struct Setting {
    values: Vec<String>,
    line: usize,
}

/// A configuration file whose every key and value was understood.
#[derive(Debug)]
pub(super) struct ConfigFile {
    path: PathBuf,
    settings: BTreeMap<String, Setting>,
}

impl ConfigFile {
    /// Reads and checks the file at `path`.
    pub(super) fn read(path: PathBuf, keys: &[Key]) -> Result<Self, ConfigError> {
        let named = path.display().to_string();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(source) => return Err(ConfigError::Unreadable { path: named, source }),
        };
        let mut reader = Reader { path: &path, text: &text, keys, settings: BTreeMap::new() };
        let table = DeTable::parse(&text)
            .map_err(|error| reader.invalid(error.span().unwrap_or_default(), error.message()))?;
        reader.table("", table.get_ref())?;
        let settings = reader.settings;
        Ok(Self { path, settings })
    }

    /// Makes what the file says about `arg` its default.
    pub(super) fn set_default(&self, arg: Arg) -> Arg {
        match arg.get_long().and_then(|flag| self.settings.get(flag)) {
            Some(setting) => arg.default_values(setting.values.clone()),
            None => arg,
        }
    }

    /// Where it sets the key `name`, if it does.
    pub(super) fn origin(&self, name: &str) -> Option<String> {
        let setting = self.settings.get(name)?;
        Some(format!("file {}, line {}", self.path.display(), setting.line))
    }
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    keys: &'a [Key],
    settings: BTreeMap<String, Setting>,
}

impl Reader<'_> {
    /// Takes over a table, whose keys begin with `prefix`: a dot in a flag's name opens a table in TOML.
    fn table(&mut self, prefix: &str, table: &DeTable<'_>) -> Result<(), ConfigError> {
        for (name, value) in table {
            let full = format!("{prefix}{}", name.get_ref());
            match (self.keys.iter().find(|key| key.name == full), value.get_ref()) {
                (Some(key), _) => self.set(key, name.span(), value)?,
                (None, DeValue::Table(table)) => self.table(&format!("{full}."), table)?,
                (None, _) => return Err(self.invalid(name.span(), &unknown(&full, self.keys))),
            }
        }
        Ok(())
    }

    fn set(&mut self, key: &Key, at: Range<usize>, value: &Spanned<DeValue<'_>>) -> Result<(), ConfigError> {
        let Some(values) = values(key.kind, value.get_ref()) else {
            let (name, expected) = (&key.name, key.kind.label());
            let message = format!("{name} must be {expected}, not {}", found(value.get_ref()));
            return Err(self.invalid(at, &message));
        };
        for value in &values {
            key.check(value).map_err(|message| self.invalid(at.clone(), &message))?;
        }
        let line = line(self.text, at.start);
        self.settings.insert(key.name.clone(), Setting { values, line });
        Ok(())
    }

    fn invalid(&self, at: Range<usize>, message: &str) -> ConfigError {
        let (path, line) = (self.path.display().to_string(), line(self.text, at.start));
        ConfigError::Invalid { path, line, message: message.replace('\n', ", ") }
    }
}

/// The values as a command line would give them; `None` if they are of another kind.
fn values(kind: Kind, value: &DeValue<'_>) -> Option<Vec<String>> {
    match (kind, value) {
        (Kind::Switch, DeValue::Boolean(is_on)) => Some(vec![is_on.to_string()]),
        (Kind::Number, DeValue::Integer(number)) => {
            let number = i64::from_str_radix(number.as_str(), number.radix()).ok()?;
            Some(vec![number.to_string()])
        }
        (Kind::Number, DeValue::Float(number)) => Some(vec![number.as_str().to_owned()]),
        (Kind::Text, DeValue::String(text)) => Some(vec![text.to_string()]),
        (Kind::List, DeValue::Array(items)) => items.iter().map(|item| text(item.get_ref())).collect(),
        _ => None,
    }
}

fn text(value: &DeValue<'_>) -> Option<String> {
    if let DeValue::String(text) = value { Some(text.to_string()) } else { None }
}

/// What a value is, for a message that says what it should be.
fn found(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "such an array",
        DeValue::Table(_) => "a table",
    }
}

fn unknown(name: &str, keys: &[Key]) -> String {
    let alike = |key: &&Key| strsim::jaro_winkler(name, &key.name);
    let nearest = keys.iter().max_by(|a, b| alike(a).total_cmp(&alike(b)));
    match nearest.filter(|key| alike(key) >= ALIKE) {
        Some(key) => format!("unknown key {name}; did you mean {}?", key.name),
        None => {
            let names: Vec<&str> = keys.iter().map(|key| key.name.as_str()).collect();
            format!("unknown key {name}; there are {}", names.join(", "))
        }
    }
}

fn line(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|&&byte| byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use clap::{ArgAction, Command};

    use super::*;

    fn keys() -> Vec<Key> {
        let daemon = Command::new("daemon")
            .arg(Arg::new("listen").long("listen"))
            .arg(Arg::new("max").long("max-vms").value_parser(clap::value_parser!(u32).range(1..=8192)))
            .arg(Arg::new("web").long("web.config.file"))
            .arg(Arg::new("quiet").long("quiet").action(ArgAction::SetTrue))
            .arg(Arg::new("vm").long("vm").action(ArgAction::Append));
        Key::of_daemon(&Command::new("x").subcommand(daemon))
    }

    fn read(text: &str) -> Result<ConfigFile, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        fs::write(&path, text).unwrap();
        let read = ConfigFile::read(path, &keys()).map_err(|error| error.to_string());
        read.map_err(|message| message.replace(&format!("{}/", dir.path().display()), ""))
    }

    #[test]
    fn each_kind_of_flag_has_its_kind_of_value() {
        let text = "listen = 'x'\nmax-vms = 0x10\nweb.config.file = 'w'\nquiet = true\nvm = ['a', 'b']\n";
        let file = read(text).unwrap();
        let values = |name: &str| file.settings[name].values.join("+");
        assert_eq!(["listen", "max-vms", "quiet", "vm"].map(values), ["x", "16", "true", "a+b"]);
        assert_eq!((values("web.config.file").as_str(), file.settings["vm"].line), ("w", 5));
        assert_eq!(read("[web.config]\nfile = 'w'").unwrap().settings["web.config.file"].line, 2);
    }

    #[test]
    fn errors_name_the_line_and_what_would_do() {
        let cases = [
            ("\nmax_vms = 1", "c.toml, line 2: unknown key max_vms; did you mean max-vms?"),
            (
                "[web.config]\nfiel = 'x'",
                "line 2: unknown key web.config.fiel; did you mean web.config.file?",
            ),
            ("zzz = 1", "unknown key zzz; there are listen, max-vms, web.config.file, quiet, vm"),
            ("listen = 9948", "line 1: listen must be a string, not a number"),
            ("max-vms = '9'", "max-vms must be a number, not a string"),
            ("quiet = 1", "quiet must be true or false, not a number"),
            ("vm = 'a'", "vm must be an array of strings, not a string"),
            ("vm = [1]", "vm must be an array of strings, not such an array"),
            ("listen.x = 1", "listen must be a string, not a table"),
            ("max-vms = 9000", "line 1: invalid value '9000' for '--max-vms <max>': 9000 is not in 1..=8192"),
            ("max-vms = 1\nlisten = 'a", "line 2: "),
            ("max-vms = 1\nmax-vms = 2", "line 2: duplicate key"),
        ];
        for (text, expected) in cases {
            let message = read(text).unwrap_err();
            assert!(message.contains(expected) && !message.contains('\n'), "{text:?}: {message}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = ConfigFile::read("/none/c.toml".into(), &keys()).unwrap_err();
        assert_eq!(error.to_string(), "cannot read the configuration file /none/c.toml");
    }
}
