//! `mmu-trace vms`: the VMs of this host and who they are.

use std::{collections::BTreeMap, path::Path};

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use super::{CliError, output, report::Format};
use crate::{
    model::VmIdentity,
    report::{Align, Table},
    vm::{Discovery, discover},
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

/// Lists the VMs.
///
/// # Errors
/// If `/proc` cannot be listed or the output not be written.
pub fn run(args: &VmsArgs) -> Result<(), CliError> {
    let found = discover(Path::new("/proc")).context("looking for VMs")?;
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
        ("uuid", Align::Number),
        ("cgroup", Align::Text),
    ]);
    for VmIdentity { name, uuid, pid, vmm, cgroup } in found.vms.iter().map(|vm| vm.identity.clone()) {
        table.row([name, pid.to_string(), vmm, uuid.unwrap_or_default(), cgroup.unwrap_or_default()]);
    }
    let list =
        if found.vms.is_empty() { "No process with a VM found.\n".to_owned() } else { table.render("") };
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
            VmIdentity { name: "web1".into(), pid: 7, vmm: "qemu".into(), ..VmIdentity::default() };
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
    fn json_has_null_for_the_unknown() {
        assert!(as_json(&found()).unwrap().contains("\"uuid\": null"));
    }
}
