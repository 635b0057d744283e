//! `mmu-trace vms`: the VMs of this host and who they are.

use std::{collections::BTreeMap, path::Path};

use anyhow::Context;
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{CliError, output};
use crate::{
    model::VmIdentity,
    report::{Align, Table},
    vm::{Descriptors, Discovery, discover},
};

/// The JSON output's schema.
const SCHEMA: &str = "mmu-trace-vms/1";

/// Arguments of `vms`.
#[derive(Args, Debug)]
pub struct VmsArgs {
    /// How to show them.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// A form of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// Schema mmu-trace-vms/1.
    Json,
}

/// Lists the VMs.
///
/// # Errors
/// If `/proc` cannot be listed or the output not be written.
pub fn run(args: &VmsArgs) -> Result<(), CliError> {
    let found = discover(Path::new("/proc"), &Descriptors::Own).context("looking for VMs")?;
    output::print(&match args.format {
        Format::Text => as_text(&found),
        Format::Json => as_json(&found)?,
    })
}

fn as_text(found: &Discovery) -> String {
    let mut table = Table::new([
        ("VM", Align::Text),
        ("pid", Align::Number),
        ("VMM", Align::Text),
        ("VMs", Align::Number),
        ("uuid", Align::Number),
        ("cgroup", Align::Text),
    ]);
    for VmIdentity { name, uuid, pid, vmm, cgroup, n_vms } in found.vms.iter().map(|vm| vm.identity.clone()) {
        let (uuid, cgroup) = (uuid.unwrap_or_default(), cgroup.unwrap_or_default());
        table.row([name, pid.to_string(), vmm, n_vms.to_string(), uuid, cgroup]);
    }
    let mut list =
        if found.vms.is_empty() { "No process with a VM found.\n".to_owned() } else { table.render("") };
    if found.vms.iter().any(|vm| vm.identity.n_vms > 1) {
        list += "VMs of one process share one entry, here and in every figure.\n";
    }
    let skipped = found.skipped.iter().map(|(reason, n)| format!("Processes {}: {n}\n", reason.label()));
    skipped.fold(list, |list, line| list + &line)
}

#[derive(Serialize)]
struct List<'a> {
    schema: &'static str,
    vms: Vec<&'a VmIdentity>,
    skipped: BTreeMap<&'static str, usize>,
}

fn as_json(found: &Discovery) -> Result<String, CliError> {
    let list = List {
        schema: SCHEMA,
        vms: found.vms.iter().map(|vm| &vm.identity).collect(),
        skipped: found.skipped.iter().map(|(reason, &n)| (reason.label(), n)).collect(),
    };
    Ok(serde_json::to_string_pretty(&list).context("encoding the list of VMs")? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::{FoundVm, SkipReason};

    fn found() -> Discovery {
        let identity =
            VmIdentity { name: "web1".into(), pid: 7, vmm: "qemu".into(), n_vms: 1, ..VmIdentity::default() };
        Discovery {
            vms: vec![FoundVm { pid: 7, start_time_ticks: 1, identity }],
            skipped: BTreeMap::from([(SkipReason::Denied, 90)]),
        }
    }

    #[test]
    fn what_was_not_looked_at_is_said() {
        let text = as_text(&found());
        assert!(
            text.contains("web1") && text.ends_with("Processes not permitted to look at: 90\n"),
            "{text}"
        );
        assert!(as_text(&Discovery::default()).starts_with("No process with a VM found."));
    }

    #[test]
    fn several_vms_in_one_process_are_one_entry_that_says_so() {
        let mut found = found();
        assert!(!as_text(&found).contains("share"));
        found.vms[0].identity.n_vms = 2;
        let text = as_text(&found);
        assert!(text.contains("web1") && text.contains("VMs of one process share one entry"), "{text}");
        assert!(as_json(&found).unwrap().contains("\"n_vms\": 2"));
    }

    #[test]
    fn json_has_null_for_the_unknown() {
        assert!(as_json(&found()).unwrap().contains("\"uuid\": null"));
    }
}
