//! `mmu-trace record`: its arguments, and what can be wrong with them.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::Args;

use super::{BackendChoice, CliError};
use crate::model::VmIdentity;

/// Arguments of `record`.
#[derive(Args, Debug)]
pub struct RecordArgs {
    /// The capture to write.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// How long to record, e.g. 30s or 5min; without it and without a command, until Ctrl-C.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// Record only this VM; may be given several times.
    #[arg(long = "vm", value_name = "NAME")]
    pub vms: Vec<String>,
    /// How to attach to kernel functions.
    #[arg(long, value_enum, default_value_t = BackendChoice::Auto)]
    pub backend: BackendChoice,
    /// Record for the life of this command.
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// What ends a recording beside Ctrl-C.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Until {
    /// After this time, if given.
    pub duration: Option<Duration>,
    /// When this command ends, if given: its program, then its arguments.
    pub command: Option<(OsString, Vec<OsString>)>,
}

impl RecordArgs {
    /// What ends the recording.
    #[must_use]
    pub fn until(&self) -> Until {
        let command = self.command.split_first().map(|(program, args)| (program.clone(), args.to_vec()));
        Until { duration: self.duration, command }
    }

    /// Checks that every VM asked for is among `known`; the VMs wanted, all if none was named.
    ///
    /// # Errors
    /// A usage error that lists the names there are.
    pub fn select<'a>(&self, known: &'a [VmIdentity]) -> Result<Vec<&'a VmIdentity>, CliError> {
        if self.vms.is_empty() {
            return Ok(known.iter().collect());
        }
        let find =
            |name: &String| known.iter().find(|id| &id.name == name).ok_or_else(|| unknown_vm(name, known));
        self.vms.iter().map(find).collect()
    }
}

fn unknown_vm(name: &str, known: &[VmIdentity]) -> CliError {
    let names: Vec<&str> = known.iter().map(|id| id.name.as_str()).collect();
    let there_are = if names.is_empty() {
        "none is running".to_owned()
    } else {
        format!("there are {}", names.join(", "))
    };
    CliError::Usage(format!("no VM is called {name:?}; {there_are}"))
}

/// A duration above zero in the notation of the `humantime` crate.
fn parse_duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("must be longer than nothing".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("{error}; write 30s, 5min or 1h")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(vms: &[&str]) -> RecordArgs {
        RecordArgs {
            output: "x".into(),
            duration: None,
            vms: vms.iter().map(|vm| (*vm).to_owned()).collect(),
            backend: BackendChoice::Auto,
            command: vec!["sleep".into(), "1".into()],
        }
    }

    #[test]
    fn an_unknown_vm_is_a_usage_error_that_lists_the_known() {
        let known = [VmIdentity { name: "web1".into(), ..VmIdentity::default() }];
        let error = args(&["web2"]).select(&known).unwrap_err();
        assert_eq!(
            (error.exit_code(), error.to_string().as_str()),
            (2, "no VM is called \"web2\"; there are web1")
        );
        assert_eq!(args(&["web1"]).select(&known).unwrap().len(), 1);
        assert_eq!(args(&[]).select(&known).unwrap().len(), 1);
    }

    #[test]
    fn durations_need_a_unit_and_a_length() {
        assert_eq!(parse_duration("30s"), Ok(Duration::from_secs(30)));
        assert!(
            parse_duration("30").is_err() && parse_duration("0s").is_err() && parse_duration("x").is_err()
        );
    }

    #[test]
    fn the_command_is_split_from_its_arguments() {
        assert_eq!(args(&[]).until().command, Some(("sleep".into(), vec!["1".into()])));
    }
}
