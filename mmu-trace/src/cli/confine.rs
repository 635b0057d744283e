//! A command gives up what it no longer needs: how the user says otherwise, and what is said of it.

use std::sync::Arc;

use clap::Args;

use super::{journal::Priority, note, say};
use crate::{
    sandbox::{self, Layer, Needs, Sandbox, State},
    vm::{self, Descriptors, Helper},
};

/// Whether privileges are given up.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct SandboxArgs {
    /// Keep every privilege that the process was started with, instead of giving up those it no longer needs.
    #[arg(long)]
    pub no_sandbox: bool,
}

/// Who looks at descriptors for a command that will be confined: a helper, if it can be had.
pub(super) fn descriptors(args: SandboxArgs) -> Descriptors {
    if args.no_sandbox {
        return Descriptors::Own;
    }
    if vm::hides_processes() {
        note("sandbox: /proc is mounted with hidepid, so this process looks at VMMs itself");
        return Descriptors::Own;
    }
    match Helper::start() {
        Ok(helper) => Descriptors::Helper(Arc::new(helper)),
        Err(error) => {
            let text = format!("sandbox: without a helper that looks at the descriptors of VMMs: {error}");
            say(Priority::Warning, &text);
            Descriptors::Own
        }
    }
}

/// What reading the counters takes, with `descriptors` looked at like that.
pub(super) fn needs_of_tracing(descriptors: &Descriptors) -> Needs {
    Needs { counters: true, descriptors: matches!(descriptors, Descriptors::Own), ..Needs::default() }
}

/// Gives up what `needs` does not name, unless the user does not want it.
pub(super) fn confine(args: SandboxArgs, needs: &Needs) -> Sandbox {
    if args.no_sandbox {
        return Sandbox::none("--no-sandbox");
    }
    sandbox::apply(needs)
}

/// Says what of `sandbox` is in force, for somebody who runs for long.
pub(super) fn describe(sandbox: &Sandbox) {
    let in_force = sandbox.layers.iter().filter(|(_, state)| state.is_in_force());
    let in_force: Vec<&str> = in_force.map(|(layer, _)| layer.label()).collect();
    if !in_force.is_empty() {
        let kept = match sandbox.capabilities.as_slice() {
            [] => "none".to_owned(),
            kept => kept.join(", "),
        };
        note(&format!("sandbox: {} in force; capabilities left: {kept}", in_force.join(", ")));
    }
    for (layer, state) in &sandbox.layers {
        if let State::Partly(reason) = state {
            note(&format!("sandbox: {}: {reason}", layer.label()));
        }
    }
    warn(sandbox);
}

/// Says which layers of `sandbox` are not in force.
pub(super) fn warn(sandbox: &Sandbox) {
    for lack in lacks(sandbox) {
        say(Priority::Warning, &lack);
    }
}

/// The same without Landlock: for the helper, which does without by design, and for what ends at once.
pub(super) fn warn_of_others(sandbox: &Sandbox) {
    let mut sandbox = sandbox.clone();
    sandbox.layers.retain(|(layer, _)| *layer != Layer::Landlock);
    warn(&sandbox);
}

/// A sentence for each reason, with the layers that are off for it.
fn lacks(sandbox: &Sandbox) -> Vec<String> {
    let mut off: Vec<(&str, Vec<&str>)> = Vec::new();
    for (layer, state) in &sandbox.layers {
        let State::Off(reason) = state else { continue };
        match off.iter_mut().find(|(known, _)| known == reason) {
            Some((_, layers)) => layers.push(layer.label()),
            None => off.push((reason, vec![layer.label()])),
        }
    }
    let sentence = |(reason, layers): (&str, Vec<&str>)| match layers.len() {
        n if n == Layer::ALL.len() => format!("sandbox: nothing is given up: {reason}"),
        _ => format!("sandbox: without {}: {reason}", layers.join(", ")),
    };
    off.into_iter().map(sentence).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_reasons_are_said_once() {
        assert_eq!(lacks(&Sandbox::none("--no-sandbox")), ["sandbox: nothing is given up: --no-sandbox"]);
        let mut sandbox = Sandbox::none("x");
        sandbox.layers[0].1 = State::InForce;
        sandbox.layers[1].1 = State::Partly("y".to_owned());
        sandbox.layers[2].1 = State::Off("z".to_owned());
        let expected = ["sandbox: without landlock: z", "sandbox: without capabilities, seccomp: x"];
        assert_eq!(lacks(&sandbox), expected);
    }
}
