//! What the daemon must have counted in each phase: the kernel's totals, split as the phase implies.

use xtask::arch::Arch;
use xtask::phase::{KSM_COPIES, MERGING_PAGES, PERMISSION_FAULTS, Phase, PhaseKind, Run, Series};

use super::series::{sum, values};
use super::{Check, formula};

/// Every comparison of one phase.
pub(super) fn check(run: &Run, phase: &Phase, moved: &Series) -> Vec<Check> {
    let mut checks = totals(run, phase, moved);
    for gap in ["lost_events_total", "missed_returns_total", "map_full_total"] {
        checks.push(Check::numbers(gap, Some(0), Some(sum(moved, gap, &[]))));
    }
    if phase.kind != PhaseKind::LiveMerge {
        checks.extend(ksm_states(phase, moved));
        checks.extend(ksm_breaks(run, phase, moved));
        checks.extend(split(run, phase, moved));
        checks.extend(refaults(run, phase, moved));
    }
    checks
}

/// How KSM's own figures moved. ksmd rests when both are read.
fn ksm_states(phase: &Phase, moved: &Series) -> Vec<Check> {
    let compare = |series: &str, counter: &str| {
        let expected = phase.oracle.get(counter).copied().unwrap_or(0);
        Check::numbers(&format!("{series} = {counter}"), Some(expected), Some(sum(moved, series, &[])))
    };
    vec![
        compare("ksm_pages_shared", "ksm:pages_shared"),
        compare("ksm_pages_sharing", "ksm:pages_sharing"),
        compare("ksm_merging_pages", MERGING_PAGES),
    ]
}

/// KSM pages that were copied: for a write, or to take them out of KSM. The kernel counts both as one.
fn ksm_breaks(run: &Run, phase: &Phase, moved: &Series) -> Vec<Check> {
    let expected = match phase.kind {
        PhaseKind::GuestWrite | PhaseKind::HostWriteMapped | PhaseKind::HostWriteUnmapped => run.pages,
        PhaseKind::OutsideWrite => run.outside_pages,
        _ => 0,
    };
    let total = |name: &str| sum(moved, name, &[]);
    let breaks = total("ksm_cow_breaks_total");
    let mut checks = vec![Check::numbers("ksm_cow_breaks_total", Some(expected), Some(breaks))];
    if let Some(&copies) = phase.oracle.get(KSM_COPIES) {
        let ours = breaks + total("ksm_unmerges_total");
        checks.push(Check::numbers(
            "ksm_cow_breaks_total + ksm_unmerges_total = cow_ksm",
            Some(copies),
            Some(ours),
        ));
    }
    checks
}

/// The comparisons that hold whatever the phase does.
fn totals(run: &Run, phase: &Phase, moved: &Series) -> Vec<Check> {
    let total = |name: &str| Some(sum(moved, name, &[]));
    let mut checks = vec![
        Check::numbers(
            "invalidations_total = kernel's calls",
            phase.calls("range_start"),
            total("invalidations_total"),
        ),
        Check::numbers(
            "page_faults_total = kernel's calls",
            phase.calls("page_fault"),
            total("page_faults_total"),
        ),
        Check::numbers(
            "bpf_runs_total of range_start = kernel's calls",
            phase.calls("range_start"),
            Some(range_start_runs(moved)),
        ),
        Check::numbers(
            "page_faults_total{fixed} = faults that KVM fixed",
            formula::fixed(run, &phase.oracle),
            Some(
                formula::fixed_results(run.arch)
                    .iter()
                    .map(|result| sum(moved, "page_faults_total", &[("result", result)]))
                    .sum(),
            ),
        ),
    ];
    checks.push(Check::numbers(
        "permission_faults_total = KVM's own records",
        phase.oracle.get(PERMISSION_FAULTS).copied(),
        total("permission_faults_total"),
    ));
    // How many tables a race frees on arm64 is a matter of chance.
    if phase.kind != PhaseKind::LiveMerge || run.arch == Arch::Amd64 {
        checks.push(Check::numbers(
            "invalidations_zapped_total = brackets that zapped",
            formula::zapped(run, phase),
            total("invalidations_zapped_total"),
        ));
    }
    if run.has_change_pte() {
        checks.extend(change_pte(run, phase, moved));
    } else if let Some(calls) = formula::change_pte(run, phase) {
        checks.push(Check::numbers("would_be_change_pte_total", Some(calls), total(WOULD_BE)));
    }
    checks
}

/// Runs of the program at the entry of `range_start`, of whichever backend is attached.
fn range_start_runs(moved: &Series) -> i64 {
    ["fe_range_start", "kp_range_start"]
        .map(|program| sum(moved, "bpf_runs_total", &[("program", program)]))
        .iter()
        .sum()
}

const WOULD_BE: &str = "would_be_change_pte_total";

fn change_pte(run: &Run, phase: &Phase, moved: &Series) -> Vec<Check> {
    let calls = Some(sum(moved, "change_pte_total", &[]));
    let noop: i64 =
        reasons(moved).map(|reason| sum(moved, "change_pte_noop_total", &[("reason", reason)])).sum();
    let mut checks =
        vec![Check::numbers("change_pte_total = kernel's calls", phase.calls("change_pte"), calls)];
    let in_guest = if run.handlers_see_guest_memory_only() {
        phase.calls("kvm_set_spte")
    } else if phase.kind == PhaseKind::LiveMerge {
        phase.calls("change_pte")
    } else {
        formula::change_pte_in_guest(run, phase)
    };
    let effective = |reason| Some(sum(moved, "change_pte_effective_total", &[("reason", reason)]));
    let (expected_noop, expected_updated) =
        if run.installs() { (Some(0), in_guest) } else { (in_guest, Some(0)) };
    checks.push(Check::numbers("no-op calls in guest memory", expected_noop, Some(noop)));
    checks.push(Check::numbers("effective_updated", expected_updated, effective("effective_updated")));
    checks.push(Check::numbers("effective_dropped", Some(0), effective("effective_dropped")));
    checks
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
    let calls = if run.has_change_pte() { "change_pte_total" } else { WOULD_BE };
    let not_mapped = if phase.kind == PhaseKind::HostWriteUnmapped && !run.installs() { n } else { 0 };
    if run.has_change_pte() {
        expect("change_pte_noop_total", &[("reason", "noop_not_mapped")], Some(not_mapped));
    }

    if let Some(pages) = formula::merged_pages(run, phase.kind) {
        let replaced = formula::stable_nodes(phase).map(|s| pages - s);
        let attempts = phase.calls("write_protect_page");
        let failed = formula::failed_attempts(run, phase);
        let protected = attempts.zip(failed).map(|(all, failed)| all - failed);
        expect(calls, &[("cause", "ksm_write_protect")], protected);
        expect(calls, &[("cause", "ksm_replace")], replaced);
        expect("invalidations_total", &[("cause", "ksm_write_protect"), ("initiator", "ksmd")], attempts);
        expect("invalidations_total", &[("cause", "ksm_replace"), ("initiator", "ksmd")], replaced);
        expect("ksm_failed_attempts_total", &[], failed);
        if phase.kind == PhaseKind::Merge {
            expect("ksm_merges_total", &[], formula::broken(phase).map(|b| pages + b));
        }
        if phase.kind == PhaseKind::Merge && run.has_change_pte() && !run.installs() {
            // An attempt that gave up has zapped without a call; the next one's call finds that.
            let by_bracket = failed.map(|failed| pages - failed);
            let same_op =
                formula::change_pte_in_guest(run, phase).zip(by_bracket).map(|(all, own)| all - own);
            expect("change_pte_noop_total", &[("reason", "noop_zapped_by_bracket")], by_bracket);
            expect("change_pte_noop_total", &[("reason", "noop_zapped_by_same_op")], same_op);
        }
    }
    if let Some((cause, initiator)) = copied_by(phase.kind) {
        let by_bracket = n - not_mapped;
        let invalidated = [("cause", cause), ("initiator", initiator)];
        if run.installs() {
            let reason = [("cause", cause), ("reason", "effective_updated")];
            expect("change_pte_effective_total", &reason, Some(n));
        } else if run.has_change_pte() {
            let reason = [("cause", cause), ("reason", "noop_zapped_by_bracket")];
            expect("change_pte_noop_total", &reason, Some(by_bracket));
        }
        expect(calls, &[("cause", cause)], Some(n));
        expect("invalidations_zapped_total", &invalidated, Some(by_bracket));
    }
    // The write finds a read-only mapping; so does its repetition, if `change_pte` has made another.
    let permission = match phase.kind {
        PhaseKind::GuestWrite | PhaseKind::ZeroPageWrite => {
            if run.installs() {
                2 * n
            } else {
                n
            }
        }
        _ => 0,
    };
    expect("permission_faults_total", &[], Some(permission));
    match phase.kind {
        PhaseKind::GuestWrite | PhaseKind::ZeroPageWrite => {
            expect("page_faults_total", &[("result", "retry")], Some(n));
        }
        PhaseKind::Fork => {
            let copied = phase.calls("change_pte").unwrap_or_else(|| sum(moved, WOULD_BE, &[]));
            let forked = phase.calls("range_start").map(|all| all - copied);
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
    let writable = formula::faults_on_writable(run);
    // Had it been mapped read-only by `change_pte`, as arm64 does, a read would not have faulted, whatever
    // tore the mapping down.
    let if_installed = |otherwise| if run.arch == Arch::Arm64 { Some(n) } else { otherwise };
    let (expected, causes, avoidable): (i64, &[&str], Option<i64>) = match phase.kind {
        PhaseKind::ReadAfterMerge
        | PhaseKind::ReadAfterHostWrite
        | PhaseKind::ReadAfterUnmappedWrite
        | PhaseKind::ReadAfterUnmerge
        | PhaseKind::GuestWrite
        | PhaseKind::ZeroPageWrite
            if run.installs() =>
        {
            (0, &[], Some(0))
        }
        PhaseKind::ReadAfterMerge if run.arch == Arch::Arm64 => (n, KSM, Some(n)),
        PhaseKind::ReadAfterMerge => (n, KSM, taken_back(run, phase).map(|b| n - b)),
        PhaseKind::GuestWrite | PhaseKind::ZeroPageWrite => (n, &["cow_guest"], Some(0)),
        // Torn down by the read that merges, or by the page that replaces it: the page was read-only
        // until the write, writable after it, so what a working change_pte saves is not one figure.
        PhaseKind::ReadAfterUnmappedWrite => (writable, KSM, if_installed(None)),
        PhaseKind::ReadAfterHostWrite => (writable, &["cow_host"], if_installed(Some(0))),
        // From 6.2 on an unmerge leaves a read-only PTE; the lab's kernels that old have no callback.
        PhaseKind::ReadAfterUnmerge => {
            (writable, &["ksm_unmerge"], Some(if run.has_change_pte() { 0 } else { n }))
        }
        PhaseKind::ReadAfterFork => (n, &["fork"], Some(0)),
        PhaseKind::ReadAfterProtect => (writable, &["protect"], Some(0)),
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

/// The pages that ksmd wrote to in the merge before `read`, to take a first step back: a working
/// `change_pte` would have dropped their mapping then.
fn taken_back(run: &Run, read: &Phase) -> Option<i64> {
    let before = run.phases.iter().take_while(|phase| !std::ptr::eq(*phase, read));
    match before.last() {
        Some(merge) => formula::broken(merge),
        None => Some(0),
    }
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
            ("bpf_runs_total{program=\"fe_range_start\"}", 15.0),
            ("ksm_merges_total{domain=\"lab\"}", 8.0),
            ("ksm_pages_shared", 1.0),
            ("ksm_pages_sharing", 7.0),
            ("ksm_merging_pages{domain=\"lab\"}", 8.0),
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
        let read = || phase(PhaseKind::ReadAfterMerge, &[("calls:page_fault", 8), ("kvm:pf_fixed", 8)]);
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
    fn a_run_that_the_kernel_did_not_count_fails() {
        let mut moved = merged();
        let runs = moved.remove("mmu_trace_bpf_runs_total{program=\"fe_range_start\"}").unwrap();
        moved.insert("mmu_trace_bpf_runs_total{program=\"kp_range_start\"}".into(), runs - 1.0);
        assert_eq!(failures(merge(), &moved), ["bpf_runs_total of range_start = kernel's calls"]);
    }

    #[test]
    fn a_daemon_that_counts_nothing_fails() {
        assert!(failures(merge(), &Series::new()).len() > 5);
    }
}
