//! The unit on a Debian system: when it starts, what it may do, and what brings it back.

use xtask::installed::{Installed, Unit, VM};
use xtask::phase::Series;

use super::series::sum;
use super::{Check, Group};

/// The unit's capabilities as the kernel writes them: CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE, CAP_SYS_ADMIN,
/// CAP_SYSLOG.
const CAPABILITIES: u64 = 1 << 2 | 1 << 19 | 1 << 21 | 1 << 34;

/// Every comparison.
pub(super) fn check(seen: &Installed) -> Vec<Group> {
    let mut alive = vec![
        Check::equal("after KVM was loaded", &"active", &property(&seen.with_kvm, "ActiveState")),
        Check::equal("capabilities", &format!("{CAPABILITIES:016x}"), &seen.capabilities),
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
    alive.extend(check_hooks("VM after the daemon", &seen.vm_after));
    alive.extend(check_hooks("VM before the daemon", &seen.vm_before));
    vec![
        Group { name: "installed: without KVM".to_owned(), checks: before_kvm(seen) },
        Group { name: "installed: at work".to_owned(), checks: alive },
        Group { name: "installed: capabilities".to_owned(), checks: needed(seen) },
        Group { name: "installed: stop, kill, stall".to_owned(), checks: restarts(seen) },
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

fn check_hooks(when: &str, series: &Series) -> Vec<Check> {
    let is_hook = |key: &str| key.starts_with("mmu_trace_probe_attached{");
    let all = series.keys().filter(|key| is_hook(key)).count();
    let missing: Vec<&str> =
        series.iter().filter(|(key, n)| is_hook(key) && **n != 1.0).map(|(key, _)| key.as_str()).collect();
    vec![
        Check::equal(&format!("{when}: hooks known"), &true, &(all > 5)),
        Check::equal(&format!("{when}: hooks not attached"), &"", &missing.join(" ")),
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
    let hook = |less: &str, of: &str| {
        let series = seen.without.get(less);
        let found = series.into_iter().flatten().find(|(key, _)| {
            key.starts_with("mmu_trace_probe_attached{") && key.contains(&format!("hook=\"{of}\""))
        });
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
        Check::equal("CAP_SYSLOG: caller_symbols", &0, &hook("CAP_SYSLOG", "caller_symbols")),
        Check::equal("CAP_SYS_PTRACE: VMs found", &0, &vms("CAP_SYS_PTRACE")),
        Check::equal("CAP_DAC_READ_SEARCH: VMs found", &0, &vms("CAP_DAC_READ_SEARCH")),
    ]
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

fn purged(seen: &Installed) -> Vec<Check> {
    vec![
        Check::equal("dpkg --purge", &0, &seen.purge.exit),
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
