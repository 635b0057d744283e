//! The labels, and the values of those whose values are a closed list.

use std::fmt::Write;

use anyhow::{Context, Result};
use mmu_trace::{
    metrics::table::ALL,
    model::{Backend, Figure, Reading},
    sandbox::Layer,
};
use mmu_trace_ebpf::kind::{Cause, FaultResult, Gap, Initiator, Outcome};

/// A label and what it says.
const LABELS: &[(&str, &str)] = &[
    (
        "domain",
        "The VM's name, or `comm-pid` where it has none; `other` for all beyond `--max-vms`; `unattributed` for events of no VM.",
    ),
    ("uuid", "The VM's UUID, empty where its VMM was given none."),
    ("cause", "Why the kernel changed the mapping; listed below."),
    ("initiator", "Whose task did it; listed below."),
    ("result", "How a guest fault ended; listed below."),
    (
        "reason",
        "Of a `change_pte` call: its outcome, listed below. Of `source_available` and `sandbox`: why it is 0, or what is lacking.",
    ),
    ("gap", "What could not be followed; listed below."),
    ("source", "A group of figures; listed below."),
    ("backend", "How a hook is attached; listed below."),
    (
        "hook",
        "A hook of the catalogue, as in `mmu-trace doctor`; for missed returns also `ksm`, all of KSM's.",
    ),
    ("symbol", "The kernel function a hook is attached to, or was looked for."),
    ("stage", "Where a recording lost events: `ring_buffer`."),
    ("map", "The BPF map that was full: `tasks`, `pages`, `vms` (VMs counted as `other`), `invalidations`."),
    (
        "rejection",
        "`config`: the web configuration is bad; `handshake`: TLS failed; `password`: none or a wrong one; `rate`: too many requests, or passwords at once.",
    ),
    ("mode", "`direct` with `change_pte` in the kernel, `counterfactual` without."),
    ("arch", "`uname -m`."),
    ("release", "`uname -r`."),
    ("version", "The version of mmu-trace."),
    ("pid", "The VMM's process, empty if it was never seen."),
    ("vmm", "`qemu`, `cloud-hypervisor`, `firecracker`, `crosvm`, `kvmtool`, or the command's name."),
    ("cgroup", "The VMM's cgroup."),
    ("layer", "A part of the sandbox ([security.md](security.md)); listed below."),
    ("program", "A BPF program, as `bpftool prog` names it."),
];

/// The chapter on labels. `exposition` shows which gaps have a series of their own.
pub(super) fn chapter(exposition: &str) -> Result<String> {
    let mut text = "\n## Labels\n\n| label | says |\n| --- | --- |\n".to_owned();
    for label in used() {
        let (_, meaning) = LABELS
            .iter()
            .find(|(name, _)| *name == label)
            .with_context(|| format!("what is the label {label}?"))?;
        writeln!(text, "| `{label}` | {meaning} |")?;
    }
    let gaps = Gap::ALL.iter().filter(|gap| exposition.contains(&format!("{{gap=\"{}\"}}", gap.label())));
    let outcomes =
        Outcome::ALL.iter().filter(|outcome| exposition.contains(&format!("reason=\"{}\"", outcome.label())));
    let figures = Figure::ALL.iter().map(|figure| figure.label());
    let sources = figures.chain(Reading::ALL.iter().map(|reading| reading.label()));
    let meanings = [
        ("cause", values(Cause::ALL, Cause::label, Cause::meaning)),
        ("initiator", values(Initiator::ALL, Initiator::label, Initiator::meaning)),
        ("reason", values(outcomes, Outcome::label, Outcome::meaning)),
        ("result", values(FaultResult::ALL, FaultResult::label, FaultResult::meaning)),
        ("layer", values(Layer::ALL, Layer::label, Layer::meaning)),
        ("gap", values(gaps, Gap::label, Gap::meaning)),
    ];
    for (label, rows) in meanings {
        write!(text, "\n### {label}\n\n| value | means |\n| --- | --- |\n{rows}")?;
    }
    writeln!(text, "\n### source\n\n{}", names(sources))?;
    writeln!(text, "\n### backend\n\n{}", names(Backend::ALL.iter().map(|backend| backend.label())))?;
    Ok(text)
}

/// Every label of the table, in the order in which it comes up.
fn used() -> Vec<&'static str> {
    let mut used = Vec::new();
    for label in ALL.iter().flat_map(|series| series.labels) {
        if !used.contains(label) {
            used.push(*label);
        }
    }
    used
}

/// The rows of a list of values.
fn values<'k, K: Copy + 'k>(
    kinds: impl IntoIterator<Item = &'k K>,
    label: fn(K) -> &'static str,
    meaning: fn(K) -> &'static str,
) -> String {
    kinds.into_iter().map(|&kind| format!("| `{}` | {} |\n", label(kind), meaning(kind))).collect()
}

fn names(names: impl Iterator<Item = &'static str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ") + "."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_labels_that_are_described_are_those_that_are_used() {
        let mut described: Vec<&str> = LABELS.iter().map(|(name, _)| *name).collect();
        let mut used = used();
        described.sort_unstable();
        used.sort_unstable();
        assert_eq!(described, used);
    }
}
