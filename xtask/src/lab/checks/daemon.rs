//! What the daemon must have counted in each phase: the kernel's totals, split as the phase implies.

use xtask::phase::{Phase, PhaseKind, Run, Series};

use super::series::{sum, values};
use super::{Check, formula};

/// Every comparison of one phase.
pub(super) fn check(run: &Run, phase: &Phase, moved: &Series) -> Vec<Check> {
    let mut checks = totals(phase, moved);
    for gap in ["lost_events_total", "missed_returns_total", "map_full_total"] {
        checks.push(Check::numbers(gap, Some(0), Some(sum(moved, gap, &[]))));
    }
    if phase.kind != PhaseKind::LiveMerge {
        checks.extend(split(run, phase, moved));
        checks.extend(refaults(run, phase, moved));
    }
    checks
}

/// The comparisons that hold whatever the phase does.
fn totals(phase: &Phase, moved: &Series) -> Vec<Check> {
    let total = |name: &str| Some(sum(moved, name, &[]));
    let noop: i64 =
        reasons(moved).map(|reason| sum(moved, "change_pte_noop_total", &[("reason", reason)])).sum();
    vec![
        Check::numbers(
            "change_pte_total = kernel's calls",
            phase.calls("__mmu_notifier_change_pte"),
            total("change_pte_total"),
        ),
        Check::numbers(
            "change_pte_noop_total = calls in guest memory",
            phase.calls("kvm_set_spte_gfn"),
            Some(noop),
        ),
        Check::numbers(
            "invalidations_total = kernel's calls",
            phase.calls("__mmu_notifier_invalidate_range_start"),
            total("invalidations_total"),
        ),
        Check::numbers(
            "invalidations_zapped_total = brackets with a flush",
            formula::zapped(phase),
            total("invalidations_zapped_total"),
        ),
        Check::numbers(
            "page_faults_total = kernel's calls",
            phase.calls("kvm_mmu_page_fault"),
            total("page_faults_total"),
        ),
        Check::numbers(
            "page_faults_total{fixed} = KVM's pf_fixed",
            phase.oracle.get("kvm:pf_fixed").copied(),
            Some(sum(moved, "page_faults_total", &[("result", "fixed")])),
        ),
    ]
}

/// The no-op reasons among the series, each once.
fn reasons(moved: &Series) -> impl Iterator<Item = &str> {
    let mut reasons = values(moved, "change_pte_noop_total", "reason");
    reasons.sort_unstable();
    reasons.dedup();
    reasons.into_iter().filter(|reason| reason.starts_with("noop_"))
}

/// The split by cause, reason and initiator.
fn split(run: &Run, phase: &Phase, moved: &Series) -> Vec<Check> {
    let n = run.pages;
    let mut checks = Vec::new();
    let mut expect = |name: &str, labels: &[(&str, &str)], expected: Option<i64>| {
        let shown: Vec<String> = labels.iter().map(|(label, value)| format!("{label}={value}")).collect();
        let title = format!("{name}{{{}}}", shown.join(","));
        checks.push(Check::numbers(&title, expected, Some(sum(moved, name, labels))));
    };
    let not_mapped = if phase.kind == PhaseKind::HostWriteUnmapped { n } else { 0 };
    expect("change_pte_noop_total", &[("reason", "noop_not_mapped")], Some(not_mapped));

    if let Some(pages) = formula::merged_pages(run, phase.kind) {
        let replaced = formula::stable_nodes(phase).map(|s| pages - s);
        let protected = phase.calls("write_protect_page");
        expect("change_pte_total", &[("cause", "ksm_write_protect")], protected);
        expect("change_pte_total", &[("cause", "ksm_replace")], replaced);
        expect("invalidations_total", &[("cause", "ksm_write_protect"), ("initiator", "ksmd")], protected);
        expect("invalidations_total", &[("cause", "ksm_replace"), ("initiator", "ksmd")], replaced);
        if phase.kind == PhaseKind::Merge {
            let same_op = replaced.zip(formula::broken(phase)).map(|(r, b)| r + 2 * b);
            expect("change_pte_noop_total", &[("reason", "noop_zapped_by_bracket")], Some(pages));
            expect("change_pte_noop_total", &[("reason", "noop_zapped_by_same_op")], same_op);
            expect("ksm_merges_total", &[], formula::broken(phase).map(|b| pages + b));
        }
    }
    if let Some((cause, initiator)) = copied_by(phase.kind) {
        let by_bracket = n - not_mapped;
        let invalidated = [("cause", cause), ("initiator", initiator)];
        let reason = [("cause", cause), ("reason", "noop_zapped_by_bracket")];
        expect("change_pte_noop_total", &reason, Some(by_bracket));
        expect("invalidations_zapped_total", &invalidated, Some(by_bracket));
    }
    match phase.kind {
        PhaseKind::GuestWrite | PhaseKind::ZeroPageWrite => {
            expect("page_faults_total", &[("result", "retry")], Some(n));
        }
        PhaseKind::Fork => {
            let forked = phase
                .calls("__mmu_notifier_invalidate_range_start")
                .zip(phase.calls("__mmu_notifier_change_pte"))
                .map(|(all, copied)| all - copied);
            expect("invalidations_total", &[("cause", "fork"), ("initiator", "vmm")], forked);
        }
        PhaseKind::Protect => {
            expect("invalidations_total", &[("cause", "protect"), ("initiator", "vmm")], Some(2))
        }
        PhaseKind::Discard => {
            expect("invalidations_total", &[("cause", "discard"), ("initiator", "vmm")], Some(1));
            expect("invalidated_pages_total", &[("cause", "discard")], Some(n));
        }
        _ => {}
    }
    checks
}

/// Cause and initiator of the copies of all N pages in a phase that consists of them.
fn copied_by(kind: PhaseKind) -> Option<(&'static str, &'static str)> {
    match kind {
        PhaseKind::GuestWrite | PhaseKind::ZeroPageWrite => Some(("cow_guest", "vcpu")),
        PhaseKind::HostWriteMapped | PhaseKind::HostWriteUnmapped | PhaseKind::HostWriteAfterFork => {
            Some(("cow_host", "vmm"))
        }
        PhaseKind::UnmergeMadvise => Some(("ksm_unmerge", "vmm")),
        // Whoever writes to the file does the work, in a task that is not the VM's.
        PhaseKind::UnmergeRun => Some(("ksm_unmerge", "other_process")),
        _ => None,
    }
}

const KSM: &[&str] = &["ksm_write_protect", "ksm_replace"];

/// Refaults: how many, of which cause, how many of them a working `change_pte` would have saved.
fn refaults(run: &Run, phase: &Phase, moved: &Series) -> Vec<Check> {
    let n = run.pages;
    let (expected, causes, avoidable): (i64, &[&str], Option<i64>) = match phase.kind {
        PhaseKind::ReadAfterMerge => (n, KSM, Some(n)),
        PhaseKind::GuestWrite | PhaseKind::ZeroPageWrite => (n, &["cow_guest"], Some(0)),
        // Torn down by the read that merges, or by the page that replaces it: the page was read-only
        // until the write, writable after it, so what a working change_pte saves is not one figure.
        PhaseKind::ReadAfterUnmappedWrite => (n, KSM, None),
        PhaseKind::ReadAfterHostWrite => (n, &["cow_host"], Some(0)),
        PhaseKind::ReadAfterUnmerge => (n, &["ksm_unmerge"], Some(0)),
        PhaseKind::ReadAfterFork => (n, &["fork"], Some(0)),
        PhaseKind::ReadAfterProtect => (n, &["protect"], Some(0)),
        PhaseKind::ReadAfterDiscard => (n, &["discard"], Some(0)),
        _ => (0, &[], Some(0)),
    };
    let of_cause: i64 = causes.iter().map(|cause| sum(moved, "refaults_total", &[("cause", cause)])).sum();
    let mut checks = vec![
        Check::numbers("refaults_total", Some(expected), Some(sum(moved, "refaults_total", &[]))),
        Check::numbers(
            &format!("refaults_total{{cause={}}}", causes.join("|")),
            Some(expected),
            Some(of_cause),
        ),
    ];
    if let Some(avoidable) = avoidable {
        let got = sum(moved, "avoidable_refaults_total", &[]);
        checks.push(Check::numbers("avoidable_refaults_total", Some(avoidable), Some(got)));
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::super::formula::tests::{merge, phase, run_of};
    use super::*;

    fn series(entries: &[(&str, f64)]) -> Series {
        entries.iter().map(|(name, value)| (format!("mmu_trace_{name}"), *value)).collect()
    }

    fn merged() -> Series {
        series(&[
            ("change_pte_total{cause=\"ksm_write_protect\"}", 8.0),
            ("change_pte_total{cause=\"ksm_replace\"}", 7.0),
            ("change_pte_noop_total{cause=\"ksm_write_protect\",reason=\"noop_zapped_by_bracket\"}", 8.0),
            ("change_pte_noop_total{cause=\"ksm_replace\",reason=\"noop_zapped_by_same_op\"}", 7.0),
            ("invalidations_total{cause=\"ksm_write_protect\",initiator=\"ksmd\"}", 8.0),
            ("invalidations_total{cause=\"ksm_replace\",initiator=\"ksmd\"}", 7.0),
            ("invalidations_zapped_total{cause=\"ksm_write_protect\",initiator=\"ksmd\"}", 8.0),
            ("ksm_merges_total{domain=\"lab\"}", 8.0),
        ])
    }

    fn failures(phase: Phase, moved: &Series) -> Vec<String> {
        let run = run_of(phase);
        check(&run, &run.phases[0], moved).into_iter().filter(|c| !c.passed()).map(|c| c.name).collect()
    }

    #[test]
    fn a_merge_passes() {
        assert_eq!(failures(merge(), &merged()), Vec::<String>::new());
    }

    #[test]
    fn replace_calls_said_to_be_unmapped_fail() {
        let mut moved = merged();
        let wrong =
            "mmu_trace_change_pte_noop_total{cause=\"ksm_replace\",reason=\"noop_zapped_by_same_op\"}";
        let right = moved.remove(wrong).unwrap();
        moved.insert(wrong.replace("noop_zapped_by_same_op", "noop_not_mapped"), right);
        assert_eq!(
            failures(merge(), &moved),
            [
                "change_pte_noop_total{reason=noop_not_mapped}",
                "change_pte_noop_total{reason=noop_zapped_by_same_op}"
            ]
        );
    }

    #[test]
    fn an_effective_call_fails_the_noop_total() {
        let mut moved = merged();
        *moved.values_mut().next().unwrap() -= 1.0;
        assert!(!failures(merge(), &moved).is_empty());
    }

    #[test]
    fn a_refault_of_another_cause_fails() {
        let read =
            || phase(PhaseKind::ReadAfterMerge, &[("kprobe:kvm_mmu_page_fault", 8), ("kvm:pf_fixed", 8)]);
        let moved = |cause: &str| {
            series(&[
                ("page_faults_total{result=\"fixed\"}", 8.0),
                (&format!("refaults_total{{cause=\"{cause}\"}}"), 8.0),
                ("avoidable_refaults_total{cause=\"x\"}", 8.0),
            ])
        };
        assert_eq!(failures(read(), &moved("ksm_replace")), Vec::<String>::new());
        assert_eq!(failures(read(), &moved("fork")), ["refaults_total{cause=ksm_write_protect|ksm_replace}"]);
    }

    #[test]
    fn a_gap_in_the_data_fails() {
        let mut moved = merged();
        moved.insert("mmu_trace_missed_returns_total{hook=\"x\"}".into(), 1.0);
        assert_eq!(failures(merge(), &moved), ["missed_returns_total"]);
    }

    #[test]
    fn a_daemon_that_counts_nothing_fails() {
        assert!(failures(merge(), &Series::new()).len() > 5);
    }
}
