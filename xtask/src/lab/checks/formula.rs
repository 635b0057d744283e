//! What the kernel itself must count in each phase.
//!
//! N guest pages, S stable nodes that hold them, b calls of `break_cow` (ksmd takes back a merge of
//! its own); N, M, S and b are read in the same run. One KSM merge is `write_protect_page` on every
//! page and `replace_page` on every page but the first of a stable node, hence 2N - S; each
//! `break_cow` costs one call itself and one `write_protect_page` that must be repeated. Attempts
//! that give up, F, cost a bracket and no call; only the rmap MMU has them.
//!
//! Where `change_pte` maps the page itself (arm64 up to 6.9), every bracket finds a mapping to tear down,
//! and no read after it faults.

use xtask::arch::Arch;
use xtask::phase::{Counts, Mmu, Phase, PhaseKind, Run, SPTES_ZAPPED};

use super::Check;

const CHANGE_PTE: &str = "change_pte";
const RANGE_START: &str = "range_start";

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
    /// Leaf SPTEs zapped.
    sptes: i64,
    faults: i64,
    fixed: i64,
}

const NOTHING: Calls = Calls {
    change_pte: Some(0),
    set_spte: 0,
    range_start: Some(0),
    unmap: 0,
    zapped: 0,
    sptes: 0,
    faults: 0,
    fixed: 0,
};

/// Compares one phase with its formulae.
pub(super) fn check(run: &Run, phase: &Phase) -> Vec<Check> {
    let counted = |function: &str| phase.calls(function);
    let Some(calls) = formula(run, phase) else { return check_live(run, phase) };
    let (set_spte, unmap) = if run.handlers_see_guest_memory_only() {
        (Some(calls.set_spte), Some(calls.unmap))
    } else {
        (counted(CHANGE_PTE), counted(RANGE_START))
    };
    let mut checks = vec![
        Check::numbers("kvm_unmap", unmap, counted("kvm_unmap")),
        Check::numbers("brackets that zapped", Some(calls.zapped), zapped(run, phase)),
        Check::numbers("page_fault", Some(calls.faults), counted("page_fault")),
        Check::numbers("faults that KVM fixed", Some(calls.fixed), fixed(run, &phase.oracle)),
    ];
    if run.mmu == Some(Mmu::Tdp) && run.handlers_see_guest_memory_only() {
        let zapped = phase.oracle.get(SPTES_ZAPPED).copied();
        checks.push(Check::numbers("kvm_tdp_mmu_spte_changed to nothing", Some(calls.sptes), zapped));
    }
    checks.push(exits(run, phase));
    if run.has_change_pte() {
        checks.push(Check::numbers("kvm_set_spte", set_spte, counted("kvm_set_spte")));
        if calls.change_pte.is_some() {
            checks.push(Check::numbers("change_pte", calls.change_pte, counted(CHANGE_PTE)));
        }
    }
    if let Some(range_start) = calls.range_start {
        checks.push(Check::numbers("range_start", Some(range_start), counted(RANGE_START)));
    }
    if let Some(pages) = merged_pages(run, phase.kind) {
        let merged =
            stable_nodes(phase).zip(phase.oracle.get("ksm:pages_sharing")).map(|(s, sharing)| s + sharing);
        checks.push(Check::numbers("KSM's pages_shared + pages_sharing", Some(pages), merged));
        let failed = failed_attempts(run, phase);
        let allowed = failed.map(|failed| if may_fail(run, phase.kind) { failed.clamp(0, pages) } else { 0 });
        checks.push(Check::numbers("write_protect_page that gave up", allowed, failed));
    }
    checks
}

/// KVM's exits. On x86-64 each is a fault, an interrupt of the host, or the guest's end of an errand; arm64
/// does not count interrupts apart.
fn exits(run: &Run, phase: &Phase) -> Check {
    let stat = |name: &str| phase.oracle.get(&format!("kvm:{name}")).copied();
    let (faults, exits) = (phase.calls("page_fault"), stat("exits"));
    if run.arch == Arch::Arm64 {
        let enough = exits.zip(faults).is_some_and(|(exits, faults)| exits >= faults);
        return Check::equal("KVM's exits hold all faults", &true, &enough);
    }
    let parts = [faults, stat("irq_exits"), stat("halt_exits")].into_iter().sum();
    Check::numbers("faults, interrupts and halts = KVM's exits", exits, parts)
}

/// Brackets in which KVM zapped something. On x86-64 it flushes once for each, which the kernel counts for
/// us; only the zap of many pages also flushes whenever it yields the CPU, and there one bracket is all
/// that a phase has. On arm64 a page table page loses a reference for each entry; where pages go one by
/// one and nothing takes their place, each table's last one frees it, which drops two more.
pub(super) fn zapped(run: &Run, phase: &Phase) -> Option<i64> {
    const ENTRIES: i64 = 512;
    let zaps = match run.arch {
        Arch::Amd64 => phase.calls("kvm_flush"),
        Arch::Arm64 => phase.calls("stage2_put").map(|n| match phase.kind {
            PhaseKind::Merge
            | PhaseKind::HostWriteMapped
            | PhaseKind::HostWriteAfterFork
            | PhaseKind::UnmergeRun
            | PhaseKind::UnmergeMadvise
                if !run.installs() =>
            {
                n - 2 * (run.pages / ENTRIES)
            }
            _ => n,
        }),
    };
    match phase.kind {
        PhaseKind::Fork | PhaseKind::Protect | PhaseKind::Discard => zaps.map(|n| n.min(1)),
        _ => zaps,
    }
}

/// The results of guest faults that [`fixed`] is about: on arm64 a page may be found mapped by then.
pub(super) fn fixed_results(arch: Arch) -> &'static [&'static str] {
    match arch {
        Arch::Amd64 => &["fixed"],
        Arch::Arm64 => &["fixed", "spurious"],
    }
}

/// Guest faults that ended in a mapping. x86-64's KVM counts them itself; on arm64 they are the calls that
/// change the page table and are not `change_pte`'s.
pub(super) fn fixed(run: &Run, oracle: &Counts) -> Option<i64> {
    let calls = |name: &str| oracle.get(&format!("calls:{name}")).copied();
    match run.arch {
        Arch::Amd64 => oracle.get("kvm:pf_fixed").copied(),
        Arch::Arm64 => {
            let by_change_pte = if run.has_change_pte() { calls("kvm_set_spte") } else { Some(0) };
            Some(calls("stage2_map")? + calls("stage2_relax")? - by_change_pte?)
        }
    }
}

/// What holds while guest and ksmd race: all of it is about guest memory.
fn check_live(run: &Run, phase: &Phase) -> Vec<Check> {
    let equal =
        |name: &str, one: &str, other: &str| Check::numbers(name, phase.calls(one), phase.calls(other));
    let mut checks = vec![equal("kvm_unmap = range_start", RANGE_START, "kvm_unmap")];
    if run.has_change_pte() {
        checks.push(equal("kvm_set_spte = change_pte", CHANGE_PTE, "kvm_set_spte"));
    }
    checks
}

/// The `change_pte` calls that a phase costs, or would cost where the kernel has none any more.
pub(in crate::lab) fn change_pte(run: &Run, phase: &Phase) -> Option<i64> {
    formula(run, phase)?.change_pte
}

/// Those of them in guest memory.
pub(super) fn change_pte_in_guest(run: &Run, phase: &Phase) -> Option<i64> {
    formula(run, phase).map(|calls| calls.set_spte)
}

/// F: calls of `write_protect_page` that zapped the mapping and then gave up, because somebody else
/// held a reference to the page. The kernel tries again at the next scan.
pub(super) fn failed_attempts(run: &Run, phase: &Phase) -> Option<i64> {
    let merged = merged_pages(run, phase.kind)? + broken(phase)?;
    Some(phase.calls("write_protect_page")? - merged)
}

/// The rmap MMU, and 5.10's TDP MMU, tell the page's accessed bit to the LRU lists, which keep
/// a reference for a while.
fn may_fail(run: &Run, kind: PhaseKind) -> bool {
    let told = run.mmu == Some(Mmu::Rmap) || !run.handlers_see_guest_memory_only();
    told && kind == PhaseKind::Merge
}

/// The faults that map all of the guest's pages while they are writable: N, or, where the rmap MMU
/// maps the neighbours of a page as well (`direct_pte_prefetch`), one for each eight. Pages that are
/// not writable are never mapped ahead. The first touch of the run tells which; both are formulae.
pub(super) fn faults_on_writable(run: &Run) -> i64 {
    const PREFETCHED_WITH: i64 = 8;
    let first = run.phases.iter().find(|phase| phase.kind == PhaseKind::FirstTouch);
    let ahead = run.pages / PREFETCHED_WITH;
    match first.and_then(|phase| phase.calls("page_fault")) {
        Some(faults) if faults == ahead && run.mmu == Some(Mmu::Rmap) => ahead,
        _ => run.pages,
    }
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
pub(in crate::lab) fn stable_nodes(phase: &Phase) -> Option<i64> {
    phase.oracle.get("ksm:pages_shared").copied()
}

/// b.
pub(in crate::lab) fn broken(phase: &Phase) -> Option<i64> {
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
    let copies = if run.has_change_pte() { phase.calls(CHANGE_PTE).or(Some(UNKNOWN)) } else { None };
    let read = Calls { faults: n, fixed: n, ..NOTHING };
    let copied = Calls {
        change_pte: Some(n),
        set_spte: n,
        range_start: Some(n),
        unmap: n,
        zapped: n,
        sptes: n,
        ..NOTHING
    };
    let read_writable = Calls { faults: faults_on_writable(run), fixed: faults_on_writable(run), ..NOTHING };
    let calls = match phase.kind {
        PhaseKind::ReadAfterMerge
        | PhaseKind::ReadAfterHostWrite
        | PhaseKind::ReadAfterUnmappedWrite
        | PhaseKind::ReadAfterUnmerge
            if run.installs() =>
        {
            NOTHING
        }
        PhaseKind::FirstTouch
        | PhaseKind::ReadAfterHostWrite
        | PhaseKind::ReadAfterUnmappedWrite
        | PhaseKind::ReadAfterUnmerge
        | PhaseKind::ReadAfterProtect => read_writable,
        PhaseKind::ReadAfterMerge | PhaseKind::ReadAfterDiscard => read,
        PhaseKind::ReadAfterGuestWrite => NOTHING,
        PhaseKind::Merge => {
            let brackets = merge(n) + failed_attempts(run, phase).unwrap_or(UNKNOWN);
            Calls {
                change_pte: Some(merge(n)),
                set_spte: merge(n),
                range_start: Some(brackets),
                unmap: brackets,
                zapped: if run.installs() { brackets } else { n },
                sptes: n,
                ..NOTHING
            }
        }
        // Two faults for each page: the copy's own invalidation makes the first one stale.
        PhaseKind::GuestWrite | PhaseKind::ZeroPageWrite => Calls { faults: 2 * n, fixed: n, ..copied },
        PhaseKind::HostWriteMapped | PhaseKind::UnmergeRun | PhaseKind::UnmergeMadvise => copied,
        PhaseKind::HostWriteUnmapped if run.installs() => copied,
        PhaseKind::HostWriteUnmapped => Calls { zapped: 0, sptes: 0, ..copied },
        PhaseKind::OutsideMerge => {
            Calls { change_pte: Some(merge(m)), range_start: Some(merge(m)), ..NOTHING }
        }
        PhaseKind::OutsideWrite => Calls { change_pte: Some(m), range_start: Some(m), ..NOTHING },
        // One bracket for each VMA of the VMM that can be copied on write; one of them is the guest's.
        PhaseKind::Fork => {
            Calls { change_pte: None, range_start: None, unmap: 1, zapped: 1, sptes: n, ..NOTHING }
        }
        // The VMM still copies pages of its own that it shares with its child.
        PhaseKind::ReadAfterFork => Calls { change_pte: None, range_start: copies, ..read },
        PhaseKind::HostWriteAfterFork => Calls { change_pte: None, range_start: copies, ..copied },
        // Away and back: the second call finds nothing mapped.
        PhaseKind::Protect => Calls { range_start: Some(2), unmap: 2, zapped: 1, sptes: n, ..NOTHING },
        PhaseKind::Discard => Calls { range_start: Some(1), unmap: 1, zapped: 1, sptes: n, ..NOTHING },
        PhaseKind::LiveMerge => return None,
    };
    Some(calls)
}

#[cfg(test)]
pub(in crate::lab) mod tests {
    use xtask::phase::{Counted, MERGING_PAGES, PERMISSION_FAULTS};

    use super::*;

    /// A run of nothing but `phase`, N = 8, M = 4.
    pub(in crate::lab) fn run_of(phase: Phase) -> Run {
        Run {
            kernel: "6.1".into(),
            arch: Arch::Amd64,
            mmu: Some(Mmu::Tdp),
            functions: Counted::on(Arch::Amd64)
                .map(|c| (c.name.to_owned(), c.symbols[0].to_owned()))
                .collect(),
            pages: 8,
            outside_pages: 4,
            totals: phase.oracle.clone(),
            kvm_at_end: Counts::new(),
            oracle_misses: 0,
            phases: vec![phase],
        }
    }

    /// A phase in which only `moved` moved.
    pub(in crate::lab) fn phase(kind: PhaseKind, moved: &[(&str, i64)]) -> Phase {
        let mut oracle: Counts = Counted::on(Arch::Amd64).map(|c| (format!("calls:{}", c.name), 0)).collect();
        for name in
            ["kvm:pf_fixed", "kvm:irq_exits", "kvm:halt_exits", "ksm:pages_shared", "ksm:pages_sharing"]
        {
            oracle.insert(name.into(), 0);
        }
        let takes_all_away = [PhaseKind::Merge, PhaseKind::GuestWrite, PhaseKind::Discard].contains(&kind);
        oracle.insert(PERMISSION_FAULTS.into(), 0);
        oracle.insert(SPTES_ZAPPED.into(), if takes_all_away { 8 } else { 0 });
        oracle.extend(moved.iter().map(|(name, value)| ((*name).to_owned(), *value)));
        oracle.insert("kvm:exits".into(), oracle["calls:page_fault"]);
        Phase { kind, seconds: 1.0, oracle, daemon: None }
    }

    /// A merge with one stable node and no break.
    pub(in crate::lab) fn merge() -> Phase {
        phase(
            PhaseKind::Merge,
            &[
                ("calls:change_pte", 15),
                ("calls:kvm_set_spte", 15),
                ("calls:range_start", 15),
                ("calls:kvm_unmap", 15),
                ("calls:kvm_flush", 8),
                ("calls:write_protect_page", 8),
                ("ksm:pages_shared", 1),
                ("ksm:pages_sharing", 7),
                (MERGING_PAGES, 8),
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
            *phase.oracle.get_mut("calls:change_pte").unwrap() += moved;
            assert_eq!(failures(phase), ["change_pte"]);
        }
    }

    #[test]
    fn a_broken_merge_costs_two_calls() {
        let mut phase = merge();
        phase.oracle.insert("calls:break_cow".into(), 1);
        phase.oracle.insert("calls:write_protect_page".into(), 9);
        for name in ["calls:change_pte", "calls:kvm_set_spte", "calls:range_start", "calls:kvm_unmap"] {
            phase.oracle.insert(name.into(), 17);
        }
        assert!(failures(phase).is_empty());
    }

    #[test]
    fn attempts_that_give_up_are_for_the_rmap_mmu_only() {
        let mut phase = merge();
        phase.oracle.insert("calls:write_protect_page".into(), 8 + 6);
        for name in ["calls:range_start", "calls:kvm_unmap"] {
            phase.oracle.insert(name.into(), 15 + 6);
        }
        let mut run = run_of(phase.clone());
        run.mmu = Some(Mmu::Rmap);
        assert!(check(&run, &phase).iter().all(Check::passed));
        assert_eq!(failures(phase), ["write_protect_page that gave up"]);
    }

    #[test]
    fn without_change_pte_the_brackets_remain() {
        let mut phase = merge();
        phase.oracle.remove("calls:change_pte");
        phase.oracle.remove("calls:kvm_set_spte");
        let mut run = run_of(phase.clone());
        run.functions.remove("change_pte");
        assert!(check(&run, &phase).iter().all(Check::passed));
        assert_eq!(change_pte(&run, &phase), Some(15));
        phase.oracle.insert("calls:range_start".into(), 14);
        assert!(!check(&run, &phase).iter().all(Check::passed));
    }

    #[test]
    fn a_counter_that_is_missing_fails() {
        let mut phase = phase(PhaseKind::ReadAfterGuestWrite, &[]);
        assert!(failures(phase.clone()).is_empty());
        phase.oracle.remove("calls:page_fault");
        assert_eq!(failures(phase), ["page_fault", "faults, interrupts and halts = KVM's exits"]);
    }

    #[test]
    fn a_long_zap_may_flush_more_than_once_but_not_never() {
        let discard = |flushes| {
            let brackets = [("calls:range_start", 1), ("calls:kvm_unmap", 1), ("calls:kvm_flush", flushes)];
            failures(phase(PhaseKind::Discard, &brackets))
        };
        assert!(discard(1).is_empty() && discard(2).is_empty());
        assert_eq!(discard(0), ["brackets that zapped"]);
    }

    #[test]
    fn writes_to_merged_pages_fault_twice() {
        let mut moved = vec![("calls:page_fault", 16), ("kvm:pf_fixed", 8)];
        for name in [
            "calls:change_pte",
            "calls:kvm_set_spte",
            "calls:range_start",
            "calls:kvm_unmap",
            "calls:kvm_flush",
        ] {
            moved.push((name, 8));
        }
        assert!(failures(phase(PhaseKind::GuestWrite, &moved)).is_empty());
        moved[0].1 = 8;
        assert_eq!(failures(phase(PhaseKind::GuestWrite, &moved)), ["page_fault"]);
        let mut phase = phase(PhaseKind::GuestWrite, &moved);
        phase.oracle.insert("calls:page_fault".into(), 16);
        assert_eq!(failures(phase), ["faults, interrupts and halts = KVM's exits"]);
    }
}
