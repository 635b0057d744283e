//! What the kernel itself must count in each phase.
//!
//! N guest pages, S stable nodes that hold them, b calls of `break_cow` (ksmd takes back a merge of
//! its own); N, M, S and b are read in the same run. One KSM merge is `write_protect_page` on every
//! page and `replace_page` on every page but the first of a stable node, hence 2N - S; each
//! `break_cow` costs one call itself and one `write_protect_page` that must be repeated.

use xtask::phase::{Phase, PhaseKind, Run};

use super::Check;

const CHANGE_PTE: &str = "__mmu_notifier_change_pte";
const RANGE_START: &str = "__mmu_notifier_invalidate_range_start";

/// The calls of one phase.
struct Calls {
    /// `None` where the VMM copies pages of its own beside the guest's: how many is not ours to say.
    change_pte: Option<i64>,
    /// `kvm_set_spte_gfn`: the part of `change_pte` that a memslot covers.
    set_spte: i64,
    /// `None` where it depends on the VMM's own VMAs.
    range_start: Option<i64>,
    /// `kvm_unmap_gfn_range`: the part of `range_start` that a memslot covers.
    unmap: i64,
    /// The part of `unmap` that zapped something, see [`zapped`].
    zapped: i64,
    faults: i64,
    fixed: i64,
}

const NOTHING: Calls = Calls {
    change_pte: Some(0),
    set_spte: 0,
    range_start: Some(0),
    unmap: 0,
    zapped: 0,
    faults: 0,
    fixed: 0,
};

/// Compares one phase with its formulae.
pub(super) fn check(run: &Run, phase: &Phase) -> Vec<Check> {
    let counted = |function: &str| phase.calls(function);
    let Some(calls) = formula(run, phase) else { return check_live(phase) };
    let mut checks = vec![
        Check::numbers("kvm_set_spte_gfn", Some(calls.set_spte), counted("kvm_set_spte_gfn")),
        Check::numbers("kvm_unmap_gfn_range", Some(calls.unmap), counted("kvm_unmap_gfn_range")),
        Check::numbers("brackets that zapped", Some(calls.zapped), zapped(phase)),
        Check::numbers("kvm_mmu_page_fault", Some(calls.faults), counted("kvm_mmu_page_fault")),
        Check::numbers("KVM's pf_fixed", Some(calls.fixed), phase.oracle.get("kvm:pf_fixed").copied()),
    ];
    if let Some(change_pte) = calls.change_pte {
        checks.push(Check::numbers("change_pte", Some(change_pte), counted(CHANGE_PTE)));
    }
    if let Some(range_start) = calls.range_start {
        checks.push(Check::numbers("range_start", Some(range_start), counted(RANGE_START)));
    }
    if let Some(pages) = merged_pages(run, phase.kind) {
        let merged =
            stable_nodes(phase).zip(phase.oracle.get("ksm:pages_sharing")).map(|(s, sharing)| s + sharing);
        checks.push(Check::numbers("KSM's pages_shared + pages_sharing", Some(pages), merged));
        let protected = broken(phase).map(|b| pages + b);
        checks.push(Check::numbers("write_protect_page", protected, counted("write_protect_page")));
    }
    checks
}

/// Brackets in which KVM zapped something. It flushes once for each, which the kernel counts for us;
/// only the zap of many pages also flushes whenever it yields the CPU, and there one bracket is all
/// that a phase has.
pub(super) fn zapped(phase: &Phase) -> Option<i64> {
    let flushes = phase.calls("kvm_flush_remote_tlbs");
    match phase.kind {
        PhaseKind::Fork | PhaseKind::Protect | PhaseKind::Discard => flushes.map(|n| n.min(1)),
        _ => flushes,
    }
}

/// What holds while guest and ksmd race: all of it is about guest memory.
fn check_live(phase: &Phase) -> Vec<Check> {
    let set_spte = phase.calls("kvm_set_spte_gfn");
    let unmap = phase.calls("kvm_unmap_gfn_range");
    vec![
        Check::numbers("kvm_set_spte_gfn = change_pte", phase.calls(CHANGE_PTE), set_spte),
        Check::numbers("kvm_unmap_gfn_range = range_start", phase.calls(RANGE_START), unmap),
    ]
}

/// How many pages a merge is about.
pub(super) fn merged_pages(run: &Run, kind: PhaseKind) -> Option<i64> {
    match kind {
        PhaseKind::Merge => Some(run.pages),
        PhaseKind::OutsideMerge => Some(run.outside_pages),
        _ => None,
    }
}

/// S.
pub(super) fn stable_nodes(phase: &Phase) -> Option<i64> {
    phase.oracle.get("ksm:pages_shared").copied()
}

/// b.
pub(super) fn broken(phase: &Phase) -> Option<i64> {
    phase.calls("break_cow")
}

/// `None` for a phase without a formula. A counter that is missing becomes a value that no count has.
fn formula(run: &Run, phase: &Phase) -> Option<Calls> {
    const UNKNOWN: i64 = i64::MIN / 8;
    let (n, m) = (run.pages, run.outside_pages);
    let merge = |pages: i64| -> i64 {
        let (s, b) = (stable_nodes(phase).unwrap_or(UNKNOWN), broken(phase).unwrap_or(UNKNOWN));
        2 * pages - s + 2 * b
    };
    // Each copy of a page is one call in one bracket, whoever's page it is.
    let copies = phase.calls(CHANGE_PTE).or(Some(UNKNOWN));
    let read = Calls { faults: n, fixed: n, ..NOTHING };
    let copied =
        Calls { change_pte: Some(n), set_spte: n, range_start: Some(n), unmap: n, zapped: n, ..NOTHING };
    let calls = match phase.kind {
        PhaseKind::FirstTouch
        | PhaseKind::ReadAfterMerge
        | PhaseKind::ReadAfterHostWrite
        | PhaseKind::ReadAfterUnmappedWrite
        | PhaseKind::ReadAfterUnmerge
        | PhaseKind::ReadAfterProtect
        | PhaseKind::ReadAfterDiscard => read,
        PhaseKind::ReadAfterGuestWrite => NOTHING,
        PhaseKind::Merge => Calls {
            change_pte: Some(merge(n)),
            set_spte: merge(n),
            range_start: Some(merge(n)),
            unmap: merge(n),
            zapped: n,
            ..NOTHING
        },
        // Two faults for each page: the copy's own invalidation makes the first one stale.
        PhaseKind::GuestWrite | PhaseKind::ZeroPageWrite => Calls { faults: 2 * n, fixed: n, ..copied },
        PhaseKind::HostWriteMapped | PhaseKind::UnmergeRun | PhaseKind::UnmergeMadvise => copied,
        PhaseKind::HostWriteUnmapped => Calls { zapped: 0, ..copied },
        PhaseKind::OutsideMerge => {
            Calls { change_pte: Some(merge(m)), range_start: Some(merge(m)), ..NOTHING }
        }
        PhaseKind::OutsideWrite => Calls { change_pte: Some(m), range_start: Some(m), ..NOTHING },
        // One bracket for each VMA of the VMM that can be copied on write; one of them is the guest's.
        PhaseKind::Fork => Calls { change_pte: None, range_start: None, unmap: 1, zapped: 1, ..NOTHING },
        // The VMM still copies pages of its own that it shares with its child.
        PhaseKind::ReadAfterFork => Calls { change_pte: None, range_start: copies, ..read },
        PhaseKind::HostWriteAfterFork => Calls { change_pte: None, range_start: copies, ..copied },
        // Away and back: the second call finds nothing mapped.
        PhaseKind::Protect => Calls { range_start: Some(2), unmap: 2, zapped: 1, ..NOTHING },
        PhaseKind::Discard => Calls { range_start: Some(1), unmap: 1, zapped: 1, ..NOTHING },
        PhaseKind::LiveMerge => return None,
    };
    Some(calls)
}

#[cfg(test)]
pub(super) mod tests {
    use xtask::phase::{COUNTED_FUNCTIONS, Counts};

    use super::*;

    /// A run of nothing but `phase`, N = 8, M = 4.
    pub(in crate::lab::checks) fn run_of(phase: Phase) -> Run {
        Run {
            kernel: "6.1".into(),
            pages: 8,
            outside_pages: 4,
            totals: phase.oracle.clone(),
            kvm_at_end: Counts::new(),
            oracle_misses: 0,
            phases: vec![phase],
        }
    }

    /// A phase in which only `moved` moved.
    pub(in crate::lab::checks) fn phase(kind: PhaseKind, moved: &[(&str, i64)]) -> Phase {
        let mut oracle: Counts = COUNTED_FUNCTIONS.iter().map(|f| (format!("kprobe:{f}"), 0)).collect();
        for name in ["kvm:pf_fixed", "ksm:pages_shared", "ksm:pages_sharing"] {
            oracle.insert(name.into(), 0);
        }
        oracle.extend(moved.iter().map(|(name, value)| ((*name).to_owned(), *value)));
        Phase { kind, seconds: 1.0, oracle, daemon: None }
    }

    /// A merge with one stable node and no break.
    pub(in crate::lab::checks) fn merge() -> Phase {
        phase(
            PhaseKind::Merge,
            &[
                ("kprobe:__mmu_notifier_change_pte", 15),
                ("kprobe:kvm_set_spte_gfn", 15),
                ("kprobe:__mmu_notifier_invalidate_range_start", 15),
                ("kprobe:kvm_unmap_gfn_range", 15),
                ("kprobe:kvm_flush_remote_tlbs", 8),
                ("kprobe:write_protect_page", 8),
                ("ksm:pages_shared", 1),
                ("ksm:pages_sharing", 7),
            ],
        )
    }

    fn failures(phase: Phase) -> Vec<String> {
        let run = run_of(phase);
        check(&run, &run.phases[0]).into_iter().filter(|c| !c.passed()).map(|c| c.name).collect()
    }

    #[test]
    fn a_merge_passes_and_one_call_more_or_less_fails() {
        assert!(failures(merge()).is_empty());
        for moved in [-1, 1] {
            let mut phase = merge();
            *phase.oracle.get_mut("kprobe:__mmu_notifier_change_pte").unwrap() += moved;
            assert_eq!(failures(phase), ["change_pte"]);
        }
    }

    #[test]
    fn a_broken_merge_costs_two_calls() {
        let mut phase = merge();
        phase.oracle.insert("kprobe:break_cow".into(), 1);
        phase.oracle.insert("kprobe:write_protect_page".into(), 9);
        for name in [
            "kprobe:__mmu_notifier_change_pte",
            "kprobe:kvm_set_spte_gfn",
            "kprobe:__mmu_notifier_invalidate_range_start",
            "kprobe:kvm_unmap_gfn_range",
        ] {
            phase.oracle.insert(name.into(), 17);
        }
        assert!(failures(phase).is_empty());
    }

    #[test]
    fn a_counter_that_is_missing_fails() {
        let mut phase = phase(PhaseKind::ReadAfterGuestWrite, &[]);
        assert!(failures(phase.clone()).is_empty());
        phase.oracle.remove("kprobe:kvm_mmu_page_fault");
        assert_eq!(failures(phase), ["kvm_mmu_page_fault"]);
    }

    #[test]
    fn a_long_zap_may_flush_more_than_once_but_not_never() {
        let discard = |flushes| {
            let brackets = [
                ("kprobe:__mmu_notifier_invalidate_range_start", 1),
                ("kprobe:kvm_unmap_gfn_range", 1),
                ("kprobe:kvm_flush_remote_tlbs", flushes),
            ];
            failures(phase(PhaseKind::Discard, &brackets))
        };
        assert!(discard(1).is_empty() && discard(2).is_empty());
        assert_eq!(discard(0), ["brackets that zapped"]);
    }

    #[test]
    fn writes_to_merged_pages_fault_twice() {
        let mut moved = vec![("kprobe:kvm_mmu_page_fault", 16), ("kvm:pf_fixed", 8)];
        for name in [
            "kprobe:__mmu_notifier_change_pte",
            "kprobe:kvm_set_spte_gfn",
            "kprobe:__mmu_notifier_invalidate_range_start",
            "kprobe:kvm_unmap_gfn_range",
            "kprobe:kvm_flush_remote_tlbs",
        ] {
            moved.push((name, 8));
        }
        assert!(failures(phase(PhaseKind::GuestWrite, &moved)).is_empty());
        moved[0].1 = 8;
        assert_eq!(failures(phase(PhaseKind::GuestWrite, &moved)), ["kvm_mmu_page_fault"]);
    }
}
