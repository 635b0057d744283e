//! `mmu-trace doctor`: what this kernel offers, hook by hook, what is degraded and why.

use std::fmt::Write;

use clap::Args;

use super::{BackendChoice, CliError, output, start_tracer};
use crate::{
    bpf::{self, Options, Requirement},
    model::{Backend, Figure, Hook, HookState, Snapshot},
    report::{Align, Table},
    vm::Descriptors,
};

/// Arguments of `doctor`.
#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// How to attach to kernel functions.
    #[arg(long, value_enum, default_value_t = BackendChoice::Auto)]
    pub backend: BackendChoice,
}

/// Looks at the host; as root it also attaches every hook for a moment.
///
/// # Errors
/// If this host cannot be traced: said after all that was found.
pub fn run(args: &DoctorArgs) -> Result<(), CliError> {
    let requirements = bpf::requirements();
    output::print(&describe_requirements(&requirements))?;
    if !rustix::process::geteuid().is_root() {
        output::print("\nHooks: not tried. Run it with sudo to see which can be attached.\n")?;
        return Ok(());
    }
    let options =
        Options { backend: args.backend.into(), recording: false, vm_histograms: false, max_vms: 16 };
    let mut live = start_tracer(options, Descriptors::Own)?;
    let snapshot = live.snapshot()?;
    output::print(&describe_hooks(&snapshot.quality.hooks))?;
    output::print(&describe_report(&snapshot))
}

fn describe_requirements(requirements: &[Requirement]) -> String {
    let mut table = Table::new([("", Align::Text), ("requirement", Align::Text), ("found", Align::Text)]);
    for requirement in requirements {
        table.row([mark(requirement).to_owned(), requirement.name.to_owned(), requirement.found.clone()]);
    }
    let mut text = table.render("");
    for requirement in requirements.iter().filter(|r| r.is_met == Some(false)) {
        _ = write!(text, "\n{}: {}", requirement.name, requirement.remedy);
    }
    text + "\n"
}

fn mark(requirement: &Requirement) -> &'static str {
    match (requirement.is_met, requirement.is_essential) {
        (Some(true), _) => "ok",
        (Some(false), true) => "MISSING",
        (Some(false), false) => "no",
        (None, _) => "unknown",
    }
}

fn describe_hooks(hooks: &[Hook]) -> String {
    let mut table = Table::new([("hook", Align::Text), ("how", Align::Text), ("function", Align::Text)]);
    for hook in hooks {
        table.row([hook.hook.clone(), how(hook).to_owned(), hook.symbol.clone()]);
    }
    let mut text = format!("\nHooks, attached for a moment:\n{}", table.render(""));
    for hook in hooks {
        if let Some(reason) = &hook.reason {
            _ = write!(text, "\n{}: {reason}", hook.hook);
        }
    }
    text + "\n"
}

/// Which sections a report from this host has, and why not the others.
fn describe_report(snapshot: &Snapshot) -> String {
    let mut text = "\nIn a report from this host:\n".to_owned();
    for &figure in Figure::ALL {
        let state = match snapshot.unknown(figure) {
            None => "known".to_owned(),
            Some(reason) => format!("null: {reason}"),
        };
        _ = writeln!(text, "{:20} {state}", figure.label());
    }
    let would_be = if snapshot.host.has_change_pte { "null: change_pte itself is counted" } else { "known" };
    _ = writeln!(text, "{:20} {would_be}", "would_be_change_pte");
    text
}

fn how(hook: &Hook) -> &'static str {
    match (hook.state, hook.backend) {
        (HookState::Attached, Backend::None) => "ok",
        (HookState::Attached, backend) => backend.label(),
        (HookState::Absent, _) => "absent",
        (HookState::Failed, _) => "FAILED",
    }
}
