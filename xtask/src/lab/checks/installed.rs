//! The unit on a Debian system: when it starts, what it may do, and what brings it back.

use xtask::installed::{Installed, Said, Unit, VM};
use xtask::phase::Series;

use super::series::sum;
use super::{Check, Group, confined};

/// Every comparison.
pub(super) fn check(seen: &Installed) -> Vec<Group> {
    let mut alive = vec![
        Check::equal("after KVM was loaded", &"active", &property(&seen.with_kvm, "ActiveState")),
        Check::equal("capabilities", &format!("{:016x}", confined::DAEMON), &seen.capabilities),
        Check::equal(
            "systemd-analyze security",
            &true,
            &(seen.security.exit == 0 && seen.security.text.contains("exposure level for mmu-trace.service")),
        ),
        Check::equal("mmu-trace record", &0, &seen.record.exit),
        Check::equal("mmu-trace report", &0, &seen.report.exit),
        Check::equal("the report is about the VM", &true, &seen.report.text.contains(VM.name)),
        Check::equal("the data are complete", &true, &seen.report.text.contains("Data:    complete")),
    ];
    let absent = absent_for_root(&seen.report_json.text);
    alive.extend(check_hooks("VM after the daemon", &absent, &seen.vm_after));
    alive.extend(check_hooks("VM before the daemon", &absent, &seen.vm_before));
    vec![
        Group { name: "installed: without KVM".to_owned(), checks: before_kvm(seen) },
        Group { name: "installed: at work".to_owned(), checks: alive },
        Group { name: "installed: capabilities".to_owned(), checks: needed(seen) },
        Group { name: "installed: stop, kill, stall".to_owned(), checks: restarts(seen) },
        Group { name: "installed: docs/getting-started.md, docs/install.md".to_owned(), checks: page(seen) },
        Group { name: "installed: purged".to_owned(), checks: purged(seen) },
    ]
}

fn before_kvm(seen: &Installed) -> Vec<Check> {
    let unit = &seen.before_kvm;
    vec![
        Check::equal("state", &"inactive", &property(unit, "ActiveState")),
        Check::equal("condition", &"no", &property(unit, "ConditionResult")),
        Check::equal("result", &"success", &property(unit, "Result")),
        Check::equal("enabled", &"enabled", &property(unit, "UnitFileState")),
        Check::equal("failed units", &"", &seen.failed_units.trim()),
    ]
}

/// The hooks that a recording by root, without the unit's limits, has not got on this kernel.
fn absent_for_root(report: &str) -> String {
    let report: serde_json::Value = serde_json::from_str(report).unwrap_or_default();
    let Some(hooks) = report.pointer("/quality/hooks").and_then(serde_json::Value::as_array) else {
        return "unknown".to_owned();
    };
    let field = |hook: &serde_json::Value, name: &str| hook[name].as_str().unwrap_or("unknown").to_owned();
    let absent = hooks.iter().filter(|hook| field(hook, "state") != "attached");
    sorted(absent.map(|hook| field(hook, "hook")))
}

fn sorted(names: impl Iterator<Item = String>) -> String {
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    names.join(" ")
}

fn check_hooks(when: &str, absent: &str, series: &Series) -> Vec<Check> {
    let hooks = || series.iter().filter_map(|(key, n)| Some((hook(key)?, *n)));
    let missing = sorted(hooks().filter(|(_, n)| *n != 1.0).map(|(name, _)| name.to_owned()));
    vec![
        Check::equal(&format!("{when}: hooks known"), &true, &(hooks().count() > 5)),
        Check::equal(&format!("{when}: hooks not attached"), &absent, &missing),
        Check::equal(&format!("{when}: found by name"), &1, &sum(series, "vm_info", &[("domain", VM.name)])),
        Check::equal(
            &format!("{when}: faults counted"),
            &true,
            &(sum(series, "page_faults_total", &[("domain", VM.name)]) > 0),
        ),
    ]
}

/// What is lost without each capability, as the unit's comment says.
fn needed(seen: &Installed) -> Vec<Check> {
    let attached = |less: &str, of: &str| {
        let series = seen.without.get(less);
        let found = series.into_iter().flatten().find(|(key, _)| hook(key) == Some(of));
        found.map_or(-1.0, |(_, n)| *n)
    };
    let vms = |less: &str| {
        let series = seen.without.get(less).filter(|series| !series.is_empty());
        series.map_or(-1, |series| sum(series, "vm_info", &[("domain", VM.name)]))
    };
    let starts = seen
        .without
        .get("CAP_SYS_ADMIN")
        .map_or("unknown", |series| if series.is_empty() { "does not start" } else { "starts" });
    vec![
        Check::equal("CAP_SYS_ADMIN", &"does not start", &starts),
        Check::equal("CAP_SYSLOG: caller_symbols", &0, &attached("CAP_SYSLOG", "caller_symbols")),
        Check::equal("CAP_SYS_PTRACE: VMs found", &0, &vms("CAP_SYS_PTRACE")),
        Check::equal("CAP_DAC_READ_SEARCH: VMs found", &0, &vms("CAP_DAC_READ_SEARCH")),
    ]
}

/// The hook that a series is about.
fn hook(key: &str) -> Option<&str> {
    key.strip_prefix("mmu_trace_probe_attached{hook=\"")?.split('"').next()
}

fn restarts(seen: &Installed) -> Vec<Check> {
    vec![
        Check::equal("stopped", &"inactive", &property(&seen.stopped, "ActiveState")),
        Check::equal("stopped: result", &"success", &property(&seen.stopped, "Result")),
        Check::equal("hooks while it ran", &true, &(seen.with_kvm.attached > seen.before_kvm.attached)),
        Check::equal("hooks when stopped", &seen.before_kvm.attached, &seen.stopped.attached),
        Check::equal("restarts after kill -9", &"1", &property(&seen.killed, "NRestarts")),
        Check::equal("restarts after SIGSTOP", &"2", &property(&seen.stalled, "NRestarts")),
        Check::equal("hooks after all that", &seen.with_kvm.attached, &seen.stalled.attached),
        Check::equal("the watchdog saw it", &true, &seen.journal.contains("Watchdog timeout")),
        Check::equal("the journal tells where it serves", &true, &seen.journal.contains("serving http://")),
        Check::equal("panics", &false, &seen.journal.contains("panicked")),
    ]
}

/// Each command of the page works.
fn page(seen: &Installed) -> Vec<Check> {
    let ended = |(command, said): &(String, Said)| {
        let got = if said.exit == 0 { String::new() } else { format!("{}: {}", said.exit, said.text.trim()) };
        Check::equal(command, &"", &got)
    };
    let mut checks: Vec<Check> = seen.page.iter().map(ended).collect();
    let last = seen.page.last().map_or("none", |(command, _)| command.as_str());
    checks.push(Check::equal("the last one", &"apt-get purge -y mmu-trace", &last));
    checks.push(Check::equal("metrics for node_exporter", &true, &seen.textfile.text.starts_with("# HELP ")));
    checks
}

fn purged(seen: &Installed) -> Vec<Check> {
    vec![
        Check::equal("state", &"inactive", &property(&seen.purged, "ActiveState")),
        Check::equal("unit file", &"not-found", &property(&seen.purged, "LoadState")),
        Check::equal("hooks", &seen.before_kvm.attached, &seen.purged.attached),
    ]
}

fn property<'u>(unit: &'u Unit, name: &str) -> &'u str {
    unit.properties.get(name).map_or("unknown", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_seen_fails_everywhere() {
        for group in check(&Installed::default()) {
            assert!(group.checks.iter().any(|check| !check.passed()), "{}", group.name);
        }
    }
}
