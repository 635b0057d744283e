//! What a probe decides, as functions over plain values.
//!
//! The rules follow how the kernel behaves, not its version:
//! - The *cause* of a bracket is its caller; the kernel's event enum says `CLEAR` for nearly all.
//! - A KSM merge is two brackets on the same page. The first one zaps, so the second finds nothing:
//!   only the page's record tells that the mapping fell to the same operation.
//! - KVM on x86 drops a mapping when the new PTE is writable (`kvm_set_pte_rmap`), so only a
//!   read-only change could ever have saved a fault.

use crate::{
    abi::{CallerRange, N_CALLERS, PageRecord},
    kind::{Cause, Initiator, Outcome},
};

/// What a task is inside of; bits of `TaskState::scopes`.
pub mod scope {
    /// KSM's `write_protect_page`.
    pub const KSM_WRITE_PROTECT: u32 = 1;
    /// KSM's `try_to_merge_one_page`.
    pub const KSM_MERGE: u32 = 1 << 1;
    /// KSM's `break_ksm`.
    pub const KSM_BREAK: u32 = 1 << 2;
    /// NUMA balancing's `change_prot_numa`.
    pub const NUMA: u32 = 1 << 3;
    /// `kvm_mmu_page_fault`.
    pub const FAULT: u32 = 1 << 4;
    /// Set for good by a vCPU thread's first fault.
    pub const VCPU: u32 = 1 << 5;
}

/// Bits of `PageRecord::flags`.
pub mod page_flags {
    /// Zapped and not mapped again since.
    pub const PENDING: u8 = 1;
    /// A KSM merge of this page began with this zap and no other operation touched the page since.
    pub const MERGE_OPEN: u8 = 1 << 1;
    /// A later operation would have torn the mapping down even if this one had not.
    pub const LOST_ANYWAY: u8 = 1 << 2;
}

/// Values of `PageRecord::pte`: the host PTE since the zap.
pub mod pte_state {
    /// Nothing changed it: the operation gave up or only tore the mapping down.
    pub const UNCHANGED: u8 = 0;
    /// Now read-only.
    pub const READ_ONLY: u8 = 1;
    /// Now writable.
    pub const WRITABLE: u8 = 2;
}

/// Bits of `Bracket::flags`.
pub mod bracket_flags {
    /// KVM found a memslot in the range.
    pub const HIT: u8 = 1;
    /// KVM's unmap said that it zapped something.
    pub const ZAPPED: u8 = 1 << 1;
    /// KVM flushed TLBs inside the bracket, which it does only after a zap.
    pub const FLUSHED: u8 = 1 << 2;
    /// The range may not sleep: its start can fail, and then no end follows.
    pub const NONBLOCK: u8 = 1 << 3;
    /// A copy on write of a KSM page.
    pub const KSM_PAGE: u8 = 1 << 4;
    /// A `change_pte` with a read-only PTE was seen inside.
    pub const CHANGED_READ_ONLY: u8 = 1 << 5;
    /// A `change_pte` with a writable PTE was seen inside.
    pub const CHANGED_WRITABLE: u8 = 1 << 6;

    /// Whether KVM tore down at least one mapping.
    #[inline(always)]
    #[must_use]
    pub const fn zapped(flags: u8) -> bool {
        flags & (ZAPPED | FLUSHED) != 0
    }
}

/// Bits of `ChangePte::flags`.
pub mod call_flags {
    /// The call is open.
    pub const ACTIVE: u8 = 1;
    /// KVM's notifier was entered.
    pub const SUBSCRIBER: u8 = 1 << 1;
    /// KVM found a memslot and looked for a mapping.
    pub const HANDLED: u8 = 1 << 2;
    /// KVM's handler said that it changed a mapping.
    pub const CHANGED: u8 = 1 << 3;
    /// KVM flushed TLBs inside the call.
    pub const FLUSHED: u8 = 1 << 4;
    /// The new PTE is writable.
    pub const WRITABLE: u8 = 1 << 5;
    /// The hooks that set `SUBSCRIBER` and `HANDLED` are in place.
    pub const OBSERVED: u8 = 1 << 6;
}

/// The cause that the table of known callers gives for a return address, before [`refine`].
///
/// The table ends at its first unused entry.
#[inline(always)]
#[must_use]
pub fn caller_cause(caller: u64, table: &[CallerRange; N_CALLERS]) -> u8 {
    for range in table {
        if range.start == 0 {
            break;
        }
        if caller.wrapping_sub(range.start) < range.len as u64 {
            return range.cause as u8;
        }
    }
    Cause::Other as u8
}

/// The cause of a bracket or call: its caller's, refined by what the task is inside of.
///
/// Where the caller is not known (`Other`), the KSM scopes still tell; `event_is_migrate` is
/// `MMU_NOTIFY_MIGRATE`, which only `migrate_vma` sets.
#[inline(always)]
#[must_use]
pub fn refine(caller: u8, scopes: u32, initiator: u8, event_is_migrate: bool) -> u8 {
    let cause = if caller == Cause::CowHost as u8 {
        if scopes & scope::KSM_BREAK != 0 {
            Cause::KsmUnmerge
        } else if scopes & scope::FAULT != 0 || initiator == Initiator::Kworker as u8 {
            Cause::CowGuest
        } else {
            Cause::CowHost
        }
    } else if caller == Cause::Protect as u8 && scopes & scope::NUMA != 0 {
        Cause::NumaBalancing
    } else if caller != Cause::Other as u8 {
        return caller;
    } else if scopes & scope::KSM_WRITE_PROTECT != 0 {
        Cause::KsmWriteProtect
    } else if scopes & scope::KSM_MERGE != 0 {
        Cause::KsmReplace
    } else if scopes & scope::KSM_BREAK != 0 {
        Cause::KsmUnmerge
    } else if event_is_migrate {
        Cause::Migrate
    } else {
        Cause::Other
    };
    cause as u8
}

/// Who runs the operation: `current_mm` is the task's address space, 0 for a kernel thread; `comm`
/// the first eight bytes of its name, little endian, needed for kernel threads only.
#[inline(always)]
#[must_use]
pub fn initiator(current_mm: u64, mm: u64, scopes: u32, comm: u64) -> u8 {
    let initiator = if current_mm == mm {
        if scopes & scope::FAULT != 0 { Initiator::Vcpu } else { Initiator::Vmm }
    } else if current_mm != 0 {
        Initiator::OtherProcess
    } else if comm == name(b"ksmd\0\0\0\0") {
        Initiator::Ksmd
    } else if comm == name(b"khugepag") {
        Initiator::Khugepaged
    } else if comm == name(b"kcompact") {
        Initiator::Kcompactd
    } else if comm & 0xffff_ffff_ffff == name(b"kswapd\0\0") {
        Initiator::Kswapd
    } else if comm == name(b"oom_reap") {
        Initiator::OomReaper
    } else if comm == name(b"kworker/") {
        Initiator::Kworker
    } else {
        Initiator::OtherKthread
    };
    initiator as u8
}

const fn name(bytes: &[u8; 8]) -> u64 {
    u64::from_le_bytes(*bytes)
}

/// The length of a range in pages of 4 KiB. The whole address space, which a dying process unmaps,
/// counts as none: there is no page left in it.
#[inline(always)]
#[must_use]
pub fn n_pages(start: u64, end: u64) -> u64 {
    let len = end.wrapping_sub(start);
    if len >> 47 != 0 { 0 } else { (len + 4095) >> 12 }
}

/// Whether `cause` is one of the two steps of a KSM merge.
#[inline(always)]
#[must_use]
pub fn is_merge(cause: u8) -> bool {
    cause == Cause::KsmWriteProtect as u8 || cause == Cause::KsmReplace as u8
}

/// Whether a `change_pte` call follows each successful bracket of `cause`, seen or not, that is not
/// decided by a KSM function's return value.
#[inline(always)]
#[must_use]
pub fn implies_change_pte(cause: u8) -> bool {
    cause == Cause::KsmUnmerge as u8
        || cause == Cause::CowGuest as u8
        || cause == Cause::CowHost as u8
        || cause == Cause::Uprobe as u8
}

/// The PTE that a bracket leaves behind: what a `change_pte` inside it carried, else what its cause
/// implies (a kernel without the callback shows none).
#[inline(always)]
#[must_use]
pub fn pte_after(cause: u8, flags: u8) -> u8 {
    if flags & bracket_flags::CHANGED_WRITABLE != 0 {
        pte_state::WRITABLE
    } else if flags & bracket_flags::CHANGED_READ_ONLY != 0 || is_merge(cause) {
        pte_state::READ_ONLY
    } else if implies_change_pte(cause) {
        pte_state::WRITABLE
    } else {
        pte_state::UNCHANGED
    }
}

/// What one `change_pte` call came to; `call` are [`call_flags`], `bracket` the [`bracket_flags`] of
/// the enclosing range, `page` the record from before it.
#[inline(always)]
#[must_use]
pub fn outcome(cause: u8, call: u8, bracket: u8, page: Option<&PageRecord>) -> u8 {
    let observed = call & call_flags::OBSERVED != 0;
    let outcome = if observed && call & call_flags::SUBSCRIBER == 0 {
        Outcome::NoSubscriber
    } else if observed && call & call_flags::HANDLED == 0 {
        Outcome::NotGuestMemory
    } else if call & (call_flags::CHANGED | call_flags::FLUSHED) != 0 {
        if call & call_flags::WRITABLE != 0 { Outcome::EffectiveDropped } else { Outcome::EffectiveUpdated }
    } else if bracket_flags::zapped(bracket) {
        Outcome::NoopZappedByBracket
    } else if is_merge(cause) && page.is_some_and(|p| p.flags & page_flags::MERGE_OPEN != 0) {
        Outcome::NoopZappedBySameOp
    } else {
        Outcome::NoopNotMapped
    };
    outcome as u8
}

/// Whether a bracket of `cause` takes the pages themselves away: what is mapped there afterwards is
/// other memory, and no refault.
#[inline(always)]
#[must_use]
pub fn discards(cause: u8) -> bool {
    cause == Cause::Discard as u8 || cause == Cause::Unmap as u8 || cause == Cause::Remap as u8
}

/// The record of a page that a bracket just zapped.
#[inline(always)]
#[must_use]
pub fn zapped_page(cause: u8, flags: u8, now_ns: u64) -> PageRecord {
    let open = if is_merge(cause) { page_flags::MERGE_OPEN } else { 0 };
    PageRecord {
        zap_ns: now_ns,
        cause,
        flags: page_flags::PENDING | open,
        pte: pte_after(cause, flags),
        ..NO_RECORD
    }
}

/// Whether a page waits for the fault that maps it again.
#[inline(always)]
#[must_use]
pub fn is_pending(page: &PageRecord) -> bool {
    page.flags & page_flags::PENDING != 0 && page.zap_ns > page.taken_ns
}

/// Brings the record of a page up to date with another zap.
///
/// If it still waits, a fault must have mapped the page in between, or there had been nothing to
/// zap: that fault's end is on its way, and must not be taken for the end of a later one.
#[inline(always)]
pub fn zap_again(page: &mut PageRecord, zapped: &PageRecord) {
    if is_pending(page) {
        page.prev_zap_ns = page.zap_ns;
        page.prev_cause = page.cause;
        page.prev_flags = page.flags;
        page.prev_pte = page.pte;
        page.carry = page.carry.wrapping_add(1);
    }
    page.cause = zapped.cause;
    page.flags = zapped.flags;
    page.pte = zapped.pte;
    page.zap_ns = zapped.zap_ns;
}

/// Whether a fault that began at `t0_ns` and has now mapped the page belongs to the zap before the
/// newest: it began before the newest one was over, and that one found the page mapped.
#[inline(always)]
#[must_use]
pub fn is_late(page: &PageRecord, t0_ns: u64) -> bool {
    page.carry != page.carried && t0_ns < page.zap_ns
}

/// The record of the zap before the newest.
#[inline(always)]
#[must_use]
pub fn previous(page: &PageRecord) -> PageRecord {
    PageRecord {
        zap_ns: page.prev_zap_ns,
        cause: page.prev_cause,
        flags: page.prev_flags,
        pte: page.prev_pte,
        ..NO_RECORD
    }
}

/// Brings a page's record up to date with a bracket that found no mapping to zap.
///
/// Whatever it is, if not a step of a merge: had the mapping survived so far, it would have been
/// torn down now.
#[inline(always)]
pub fn touch_page(page: &mut PageRecord, cause: u8, flags: u8) {
    let pte = pte_after(cause, flags);
    if pte != pte_state::UNCHANGED {
        page.pte = pte;
    }
    if !is_merge(cause) {
        page.flags &= !page_flags::MERGE_OPEN;
        page.flags |= page_flags::LOST_ANYWAY;
    }
    if discards(cause) {
        page.flags &= !page_flags::PENDING;
    }
}

/// The large ranges around a page: the newest of all, and the newest that zapped something. A time
/// of 0: there is none.
#[derive(Clone, Copy, Debug)]
pub struct Around {
    /// End of the newest one's bracket, nanoseconds.
    pub newest_ns: u64,
    /// Its [`Cause`].
    pub newest_cause: u32,
    /// The cause of the newest one that zapped.
    pub zap_cause: u32,
    /// The end of its bracket, nanoseconds.
    pub zap_ns: u64,
}

/// A page record that says nothing.
pub const NO_RECORD: PageRecord = PageRecord {
    zap_ns: 0,
    taken_ns: 0,
    prev_zap_ns: 0,
    carry: 0,
    carried: 0,
    cause: 0,
    flags: 0,
    pte: 0,
    prev_cause: 0,
    prev_flags: 0,
    prev_pte: 0,
    pad: [0; 2],
};

/// The refault that a fault on a page is, from the page's own record and the ranges around it;
/// without `PENDING` it is none. (No `Option`: what it leaves unset the verifier would not let pass.)
///
/// A page with a pending record was not mapped when a later range came, so that range did not zap
/// it; but it would have, had the mapping survived, and it may have taken the page away.
#[inline(always)]
#[must_use]
pub fn refault(own: PageRecord, around: &Around) -> PageRecord {
    let mut record = own;
    if is_pending(&own) {
        if around.newest_ns > own.zap_ns {
            record.flags |= page_flags::LOST_ANYWAY;
            if discards(around.newest_cause as u8) {
                record.flags = 0;
            }
        }
        return record;
    }
    record.flags = if around.zap_ns > own.taken_ns { page_flags::PENDING } else { 0 };
    record.taken_ns = 0;
    record.cause = around.zap_cause as u8;
    record.zap_ns = around.zap_ns;
    record.pte = pte_state::UNCHANGED;
    record
}

/// Whether a refault would not have happened, had `change_pte` worked.
///
/// Only a KSM merge changes a mapped page to a read-only PTE (and, from 6.2 on, an unsharing
/// unmerge). After a merge that gave up the old mapping would simply still be there. Once the page
/// became writable again, KVM's `change_pte` would have dropped the mapping, and any later bracket
/// around the page would have torn it down, so nothing was saved.
#[inline(always)]
#[must_use]
pub fn is_avoidable(page: &PageRecord, is_write: bool) -> bool {
    let by_ksm = is_merge(page.cause) || page.cause == Cause::KsmUnmerge as u8;
    if !by_ksm || page.flags & page_flags::LOST_ANYWAY != 0 {
        return false;
    }
    match page.pte {
        pte_state::UNCHANGED => true,
        pte_state::READ_ONLY => !is_write,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn callers() -> [CallerRange; N_CALLERS] {
        let mut table = [CallerRange { start: 0, len: 0, cause: 0 }; N_CALLERS];
        table[0] = CallerRange { start: 0x1000, len: 0x100, cause: Cause::KsmWriteProtect as u32 };
        table[1] = CallerRange { start: 0x2000, len: 0x10, cause: Cause::CowHost as u32 };
        table
    }

    #[test]
    fn lengths_are_rounded_up_and_a_whole_address_space_is_none() {
        for (start, end, n) in [(0, 0, 0), (0, 1, 1), (4096, 8192, 1), (0, 4097, 2), (0, u64::MAX, 0)] {
            assert_eq!(n_pages(start, end), n, "{start:#x}..{end:#x}");
        }
    }

    #[test]
    fn callers_are_matched_by_range() {
        let table = callers();
        for (caller, cause) in [
            (0x1000, Cause::KsmWriteProtect),
            (0x10ff, Cause::KsmWriteProtect),
            (0x1100, Cause::Other),
            (0xfff, Cause::Other),
            (0x200f, Cause::CowHost),
            (0, Cause::Other),
        ] {
            assert_eq!(caller_cause(caller, &table), cause as u8, "{caller:#x}");
        }
    }

    #[test]
    fn copy_on_write_is_told_apart_by_what_the_task_does() {
        let cow = Cause::CowHost as u8;
        let vmm = Initiator::Vmm as u8;
        for (scopes, initiator, cause) in [
            (0, vmm, Cause::CowHost),
            (scope::FAULT, vmm, Cause::CowGuest),
            (0, Initiator::Kworker as u8, Cause::CowGuest),
            (scope::KSM_BREAK, vmm, Cause::KsmUnmerge),
            (scope::KSM_BREAK, Initiator::Ksmd as u8, Cause::KsmUnmerge),
        ] {
            assert_eq!(refine(cow, scopes, initiator, false), cause as u8);
        }
    }

    #[test]
    fn unknown_callers_fall_back_to_the_scope() {
        let (other, ksmd) = (Cause::Other as u8, Initiator::Ksmd as u8);
        let merge = scope::KSM_MERGE;
        for (scopes, migrate, cause) in [
            (merge | scope::KSM_WRITE_PROTECT, false, Cause::KsmWriteProtect),
            (merge, false, Cause::KsmReplace),
            (scope::KSM_BREAK, false, Cause::KsmUnmerge),
            (0, true, Cause::Migrate),
            (0, false, Cause::Other),
        ] {
            assert_eq!(refine(other, scopes, ksmd, migrate), cause as u8);
        }
        assert_eq!(refine(Cause::Protect as u8, scope::NUMA, ksmd, false), Cause::NumaBalancing as u8);
        assert_eq!(refine(Cause::Fork as u8, merge, ksmd, true), Cause::Fork as u8);
    }

    #[test]
    fn initiators_are_told_by_address_space_then_by_name() {
        for (current, scopes, comm, expected) in [
            (7, 0, b"qemu\0\0\0\0", Initiator::Vmm),
            (7, scope::FAULT, b"CPU 0/KV", Initiator::Vcpu),
            (8, 0, b"ksmd\0\0\0\0", Initiator::OtherProcess),
            (0, 0, b"ksmd\0\0\0\0", Initiator::Ksmd),
            (0, 0, b"kswapd0\0", Initiator::Kswapd),
            (0, 0, b"kcompact", Initiator::Kcompactd),
            (0, 0, b"kworker/", Initiator::Kworker),
            (0, 0, b"vhost-12", Initiator::OtherKthread),
        ] {
            assert_eq!(initiator(current, 7, scopes, u64::from_le_bytes(*comm)), expected as u8);
        }
    }

    #[test]
    fn outcomes_cover_every_kind_of_call() {
        use bracket_flags as b;
        use call_flags::{ACTIVE, CHANGED, FLUSHED, HANDLED, OBSERVED, SUBSCRIBER, WRITABLE};
        let seen = ACTIVE | OBSERVED | SUBSCRIBER | HANDLED;
        let open = zapped_page(Cause::KsmWriteProtect as u8, b::ZAPPED, 1);
        let mut closed = open;
        touch_page(&mut closed, Cause::CowHost as u8, 0);
        let (wp, replace, cow) =
            (Cause::KsmWriteProtect as u8, Cause::KsmReplace as u8, Cause::CowHost as u8);
        for (cause, call, bracket, page, expected) in [
            (wp, ACTIVE | OBSERVED, b::ZAPPED, None, Outcome::NoSubscriber),
            (wp, ACTIVE | OBSERVED | SUBSCRIBER, 0, None, Outcome::NotGuestMemory),
            (wp, seen | CHANGED, b::HIT, None, Outcome::EffectiveUpdated),
            (wp, seen | FLUSHED, b::HIT, None, Outcome::EffectiveUpdated),
            (cow, seen | CHANGED | WRITABLE, b::HIT, None, Outcome::EffectiveDropped),
            (wp, seen, b::HIT | b::ZAPPED, None, Outcome::NoopZappedByBracket),
            (wp, seen, b::HIT | b::FLUSHED, None, Outcome::NoopZappedByBracket),
            (replace, seen, b::HIT, Some(&open), Outcome::NoopZappedBySameOp),
            (wp, seen, b::HIT, Some(&open), Outcome::NoopZappedBySameOp),
            (wp, seen, b::HIT, Some(&closed), Outcome::NoopNotMapped),
            (cow, seen, b::HIT, Some(&open), Outcome::NoopNotMapped),
            (replace, seen, b::HIT, None, Outcome::NoopNotMapped),
        ] {
            assert_eq!(outcome(cause, call, bracket, page), expected as u8, "{expected:?}");
        }
    }

    fn around(newest: (u64, Cause), zap: (u64, Cause)) -> Around {
        let (newest_ns, newest_cause) = (newest.0, newest.1 as u32);
        Around { newest_ns, newest_cause, zap_ns: zap.0, zap_cause: zap.1 as u32 }
    }

    const NONE: (u64, Cause) = (0, Cause::Other);

    #[test]
    fn a_pending_page_keeps_its_cause_unless_it_was_taken_away() {
        let own = zapped_page(Cause::KsmWriteProtect as u8, bracket_flags::ZAPPED, 10);
        assert!(is_avoidable(&refault(own, &around(NONE, NONE)), false));

        let fork = (20, Cause::Fork);
        let covered = refault(own, &around(fork, fork));
        assert!(is_pending(&covered) && covered.cause == Cause::KsmWriteProtect as u8);
        assert!(!is_avoidable(&covered, false), "fork would have torn it down");
        let before = refault(own, &around((5, Cause::Fork), NONE));
        assert!(is_avoidable(&before, false), "the fork was earlier");

        let discarded = refault(own, &around((20, Cause::Discard), NONE));
        assert!(!is_pending(&discarded), "other memory now");
    }

    #[test]
    fn a_fault_that_is_seen_late_belongs_to_the_zap_before() {
        let mut page = zapped_page(Cause::KsmWriteProtect as u8, bracket_flags::ZAPPED, 10);
        let again = zapped_page(Cause::KsmReplace as u8, bracket_flags::ZAPPED, 20);
        zap_again(&mut page, &again);
        assert!(is_late(&page, 15) && !is_late(&page, 25));
        let before = previous(&page);
        assert!(is_pending(&before) && before.cause == Cause::KsmWriteProtect as u8 && before.zap_ns == 10);
        page.carried += 1;
        assert!(!is_late(&page, 15) && is_pending(&page) && page.cause == Cause::KsmReplace as u8);

        page.taken_ns = page.zap_ns;
        assert!(!is_pending(&page));
        zap_again(&mut page, &PageRecord { zap_ns: 30, ..again });
        assert!(is_pending(&page) && !is_late(&page, 25), "its fault had been seen");
    }

    #[test]
    fn a_mapped_page_refaults_after_a_range_that_zapped() {
        let mapped = PageRecord { zap_ns: 3, taken_ns: 10, ..NO_RECORD };
        let (old, new) = ((5, Cause::Fork), (15, Cause::Fork));
        let after = refault(mapped, &around(new, new));
        assert!(is_pending(&after) && after.cause == Cause::Fork as u8 && after.zap_ns == 15);
        assert!(!is_pending(&refault(mapped, &around(old, old))));
        assert!(!is_pending(&refault(mapped, &around(new, NONE))), "it zapped nothing");
        assert!(is_pending(&refault(NO_RECORD, &around(new, new))));
        assert!(!is_pending(&refault(NO_RECORD, &around(NONE, NONE))));
    }

    #[test]
    fn only_read_only_changes_and_failed_merges_are_avoidable() {
        let wp = Cause::KsmWriteProtect as u8;
        let merged = zapped_page(wp, bracket_flags::ZAPPED, 1);
        assert!(is_avoidable(&merged, false));
        assert!(!is_avoidable(&merged, true), "a write breaks the sharing anyway");

        let mut gave_up = merged;
        gave_up.pte = pte_state::UNCHANGED;
        assert!(is_avoidable(&gave_up, false) && is_avoidable(&gave_up, true));

        let mut broken = merged;
        touch_page(&mut broken, Cause::CowHost as u8, bracket_flags::CHANGED_WRITABLE);
        assert!(!is_avoidable(&broken, false), "change_pte would have dropped the mapping");

        let unshared =
            zapped_page(Cause::KsmUnmerge as u8, bracket_flags::ZAPPED | bracket_flags::CHANGED_READ_ONLY, 1);
        assert!(is_avoidable(&unshared, false));
        let cow = zapped_page(Cause::CowGuest as u8, bracket_flags::ZAPPED, 1);
        assert!(!is_avoidable(&cow, false));
        let fork = zapped_page(Cause::Fork as u8, bracket_flags::ZAPPED, 1);
        assert!(!is_avoidable(&fork, false));
    }
}
