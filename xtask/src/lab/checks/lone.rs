//! A page alone in its page table.

use xtask::arch::Arch;
use xtask::lone::{Copied, Lone};

use super::{Check, series::sum};

/// Every comparison. The VMM copies pages of its own as well: only the guest's are looked at.
pub(super) fn check(lone: &Lone) -> Vec<Check> {
    let mut checks = vec![Check::equal("guests", &2, &lone.copied.len())];
    checks.extend(lone.copied.iter().flat_map(|copied| check_one(lone, copied)));
    checks
}

fn check_one(lone: &Lone, copied: &Copied) -> Vec<Check> {
    let moved = |name: &str, labels: &[(&str, &str)]| Some(sum(&copied.daemon, name, labels));
    let calls = |name: &str| copied.oracle.get(&format!("calls:{name}")).copied();
    // Nothing but arm64's change_pte ever maps the page, and it needs the table.
    let installs = lone.arch == Arch::Arm64 && lone.has_change_pte && copied.pages > 1;
    let (effective, refaults) = if installs { (1, 0) } else { (0, 1) };
    let mut checks = Vec::new();
    let mut expect = |what: &str, expected: Option<i64>, got: Option<i64>| {
        checks.push(Check::numbers(&format!("of {}: {what}", copied.pages), expected, got));
    };
    if lone.has_change_pte {
        let noop = [("cause", "cow_host"), ("reason", "noop_zapped_by_bracket")];
        expect("effective", Some(effective), moved("change_pte_effective_total", &[]));
        expect("no-op", Some(1 - effective), moved("change_pte_noop_total", &noop));
    }
    expect("faults", Some(refaults), calls("page_fault"));
    expect("refaults", Some(refaults), moved("refaults_total", &[("cause", "cow_host")]));
    expect("refaults of any cause", Some(refaults), moved("refaults_total", &[]));
    checks
}
