//! What the tracer's processes have given up: the daemon, the recorder, and their helpers.

use xtask::confined::{Confined, Process, Seen};

use super::Check;

/// As the kernel numbers them.
mod capability {
    pub(super) const DAC_READ_SEARCH: u64 = 1 << 2;
    pub(super) const KILL: u64 = 1 << 5;
    pub(super) const SYS_PTRACE: u64 = 1 << 19;
    pub(super) const SYS_ADMIN: u64 = 1 << 21;
    pub(super) const SYSLOG: u64 = 1 << 34;
    pub(super) const BPF: u64 = 1 << 39;
}
use capability::{BPF, DAC_READ_SEARCH, KILL, SYS_ADMIN, SYS_PTRACE, SYSLOG};

/// What a daemon keeps: it attaches again when KVM comes back.
pub(super) const DAEMON: u64 = SYS_ADMIN | SYSLOG | DAC_READ_SEARCH;
/// What a recorder of a command keeps.
const RECORDER: u64 = BPF | DAC_READ_SEARCH | KILL;
const HELPER: u64 = SYS_PTRACE | DAC_READ_SEARCH;

/// Every comparison.
pub(super) fn check(seen: &Seen, recorder: &Confined) -> Vec<Check> {
    let mut checks = check_confined("daemon", DAEMON, &seen.daemon);
    checks.extend(check_confined("record", RECORDER, recorder));
    let layer = |name: &str| {
        let start = format!("mmu_trace_sandbox{{layer=\"{name}\",");
        let found = seen.layers.iter().find(|(key, _)| key.starts_with(&start));
        found.map_or("missing".to_owned(), |(key, value)| {
            format!("{value} {}", key.trim_start_matches(&start))
        })
    };
    for name in ["no_new_privs", "no_core_dumps", "capabilities", "seccomp"] {
        checks.push(Check::equal(name, &"1 reason=\"\"}", &layer(name)));
    }
    let landlock = layer("landlock");
    let (value, has_reason) = match seen.landlock_abi {
        0 => ("0", true),
        // Signals came last of what is asked for.
        1..6 => ("1", true),
        _ => ("1", false),
    };
    checks.push(Check::equal("landlock", &value, &landlock.split(' ').next().unwrap_or_default()));
    checks.push(Check::equal("landlock: reason", &has_reason, &!landlock.ends_with("reason=\"\"}")));
    checks
}

/// A daemon, after KVM came and went.
pub(super) fn check_daemon(name: &str, daemon: &Confined) -> Vec<Check> {
    check_confined(name, DAEMON, daemon)
}

fn check_confined(name: &str, capabilities: u64, confined: &Confined) -> Vec<Check> {
    let mut checks = check_process(name, capabilities, &confined.command);
    checks.push(Check::equal(&format!("{name}: helpers"), &1, &confined.helpers.len()));
    for helper in &confined.helpers {
        checks.extend(check_process(&format!("{name}: helper"), HELPER, helper));
    }
    checks
}

fn check_process(name: &str, capabilities: u64, process: &Process) -> Vec<Check> {
    let (kept, none) = (format!("{capabilities:016x}"), format!("{:016x}", 0));
    let mut checks = vec![Check::equal(&format!("{name}: has threads"), &true, &!process.threads.is_empty())];
    for thread in &process.threads {
        let mut expect = |field: &str, expected: &str| {
            let got = thread.get(field).map_or("missing", String::as_str);
            checks.push(Check::equal(&format!("{name}: {field}"), &expected, &got));
        };
        for field in ["CapPrm", "CapEff", "CapBnd"] {
            expect(field, &kept);
        }
        for field in ["CapInh", "CapAmb"] {
            expect(field, &none);
        }
        expect("NoNewPrivs", "1");
        expect("Seccomp", "2");
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_seen_fails_everywhere() {
        let checks = check(&Seen::default(), &Confined::default());
        let failed = checks.iter().filter(|check| !check.passed()).count();
        assert_eq!(failed, 2 * 2 + 4 + 1);
    }
}
