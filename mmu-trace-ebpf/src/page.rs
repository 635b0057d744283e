//! What is remembered of a page of guest memory: who zapped it last, and what a refault of it means.

use crate::{
    abi::PageRecord,
    decide::{bracket_flags, implies_change_pte, in_merge, is_merge},
    kind::Cause,
    opaque_zero,
};

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

/// One bracket over a single page, as far as the page's record is concerned.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// [`Cause`].
    pub cause: u8,
    /// [`crate::kind::Initiator`].
    pub initiator: u8,
    /// See `decide::bracket_flags`.
    pub flags: u8,
    /// Whether this kernel's KSM unmerges with `FAULT_FLAG_UNSHARE` (from 6.2 on), which leaves a
    /// read-only PTE where a write fault leaves a writable one.
    pub unshares: bool,
    /// Whether this kernel's `change_pte` maps the page again, see `decide::outcome`; where it has none,
    /// whether it did when it had one.
    pub installs: bool,
}

impl Operation {
    #[inline(always)]
    fn in_merge(&self) -> bool {
        in_merge(self.cause, self.initiator)
    }

    /// The PTE that it leaves behind: what a `change_pte` inside carried, else what its cause implies
    /// (a kernel without the callback shows none).
    #[inline(always)]
    fn pte_after(&self) -> u8 {
        let unshared = self.unshares && self.cause == Cause::KsmUnmerge as u8;
        if self.flags & bracket_flags::CHANGED_WRITABLE != 0 {
            pte_state::WRITABLE
        } else if self.flags & bracket_flags::CHANGED_READ_ONLY != 0 || is_merge(self.cause) || unshared {
            pte_state::READ_ONLY
        } else if implies_change_pte(self.cause) {
            pte_state::WRITABLE
        } else {
            pte_state::UNCHANGED
        }
    }
}

/// Whether a bracket of `cause` takes the pages themselves away: what is mapped there afterwards is
/// other memory, and no refault.
#[inline(always)]
#[must_use]
pub fn discards(cause: u8) -> bool {
    cause == Cause::Discard as u8 || cause == Cause::Unmap as u8 || cause == Cause::Remap as u8
}

/// The record of a page that an operation just zapped.
#[inline(always)]
#[must_use]
pub fn zapped_page(op: &Operation, now_ns: u64) -> PageRecord {
    let open = if op.in_merge() { page_flags::MERGE_OPEN } else { 0 };
    PageRecord {
        zap_ns: now_ns,
        cause: op.cause,
        flags: page_flags::PENDING | open,
        pte: op.pte_after(),
        ..no_record()
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
        ..no_record()
    }
}

/// Brings a page's record up to date with an operation that found no mapping to zap.
///
/// Whatever it is, if not a step of a merge: had the mapping survived so far, it would have been
/// torn down now, and, unless `change_pte` maps the page again, for good.
#[inline(always)]
pub fn touch_page(page: &mut PageRecord, op: &Operation) {
    let pte = op.pte_after();
    if pte != pte_state::UNCHANGED {
        page.pte = pte;
    }
    let maps_again = op.installs && implies_change_pte(op.cause);
    if !is_merge(op.cause) && !maps_again {
        page.flags |= page_flags::LOST_ANYWAY;
    }
    if !op.in_merge() {
        page.flags &= !page_flags::MERGE_OPEN;
    }
    if discards(op.cause) {
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
#[inline(always)]
#[must_use]
pub fn no_record() -> PageRecord {
    let zero = opaque_zero();
    PageRecord {
        zap_ns: zero,
        taken_ns: zero,
        prev_zap_ns: zero,
        carry: zero as u32,
        carried: zero as u32,
        cause: zero as u8,
        flags: zero as u8,
        pte: zero as u8,
        prev_cause: zero as u8,
        prev_flags: zero as u8,
        prev_pte: zero as u8,
        pad: [zero as u8; 2],
    }
}

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
///
/// Where `change_pte` maps the page itself, read-only (`installs`), every cause that calls it counts, and
/// a page that is writable is as good for a read as any.
#[inline(always)]
#[must_use]
pub fn is_avoidable(page: &PageRecord, is_write: bool, installs: bool) -> bool {
    let by_ksm = is_merge(page.cause) || page.cause == Cause::KsmUnmerge as u8;
    let counts = by_ksm || installs && implies_change_pte(page.cause);
    if !counts || page.flags & page_flags::LOST_ANYWAY != 0 {
        return false;
    }
    match page.pte {
        pte_state::UNCHANGED => true,
        pte_state::READ_ONLY => !is_write,
        _ => installs && !is_write,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Initiator;

    fn op(cause: Cause, flags: u8) -> Operation {
        let initiator = if is_merge(cause as u8) { Initiator::Ksmd } else { Initiator::Vmm };
        Operation { cause: cause as u8, initiator: initiator as u8, flags, unshares: false, installs: false }
    }

    fn around(newest: (u64, Cause), zap: (u64, Cause)) -> Around {
        let (newest_ns, newest_cause) = (newest.0, newest.1 as u32);
        Around { newest_ns, newest_cause, zap_ns: zap.0, zap_cause: zap.1 as u32 }
    }

    const NONE: (u64, Cause) = (0, Cause::Other);

    #[test]
    fn a_pending_page_keeps_its_cause_unless_it_was_taken_away() {
        let own = zapped_page(&op(Cause::KsmWriteProtect, bracket_flags::ZAPPED), 10);
        assert!(is_avoidable(&refault(own, &around(NONE, NONE)), false, false));

        let fork = (20, Cause::Fork);
        let covered = refault(own, &around(fork, fork));
        assert!(is_pending(&covered) && covered.cause == Cause::KsmWriteProtect as u8);
        assert!(!is_avoidable(&covered, false, false), "fork would have torn it down");
        let before = refault(own, &around((5, Cause::Fork), NONE));
        assert!(is_avoidable(&before, false, false), "the fork was earlier");

        let discarded = refault(own, &around((20, Cause::Discard), NONE));
        assert!(!is_pending(&discarded), "other memory now");
    }

    #[test]
    fn a_fault_that_is_seen_late_belongs_to_the_zap_before() {
        let mut page = zapped_page(&op(Cause::KsmWriteProtect, bracket_flags::ZAPPED), 10);
        let again = zapped_page(&op(Cause::KsmReplace, bracket_flags::ZAPPED), 20);
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
        let mapped = PageRecord { zap_ns: 3, taken_ns: 10, ..no_record() };
        let (old, new) = ((5, Cause::Fork), (15, Cause::Fork));
        let after = refault(mapped, &around(new, new));
        assert!(is_pending(&after) && after.cause == Cause::Fork as u8 && after.zap_ns == 15);
        assert!(!is_pending(&refault(mapped, &around(old, old))));
        assert!(!is_pending(&refault(mapped, &around(new, NONE))), "it zapped nothing");
        assert!(is_pending(&refault(no_record(), &around(new, new))));
        assert!(!is_pending(&refault(no_record(), &around(NONE, NONE))));
    }

    #[test]
    fn only_read_only_changes_and_failed_merges_are_avoidable() {
        let merged = zapped_page(&op(Cause::KsmWriteProtect, bracket_flags::ZAPPED), 1);
        assert!(is_avoidable(&merged, false, false));
        assert!(!is_avoidable(&merged, true, false), "a write breaks the sharing anyway");

        let mut gave_up = merged;
        gave_up.pte = pte_state::UNCHANGED;
        assert!(is_avoidable(&gave_up, false, false) && is_avoidable(&gave_up, true, false));

        let mut broken = merged;
        touch_page(&mut broken, &op(Cause::CowHost, bracket_flags::CHANGED_WRITABLE));
        assert!(!is_avoidable(&broken, false, false), "change_pte would have dropped the mapping");

        let unshared =
            zapped_page(&op(Cause::KsmUnmerge, bracket_flags::ZAPPED | bracket_flags::CHANGED_READ_ONLY), 1);
        assert!(is_avoidable(&unshared, false, false));
        let cow = zapped_page(&op(Cause::CowGuest, bracket_flags::ZAPPED), 1);
        assert!(!is_avoidable(&cow, false, false));
        let fork = zapped_page(&op(Cause::Fork, bracket_flags::ZAPPED), 1);
        assert!(!is_avoidable(&fork, false, false));
    }

    #[test]
    fn a_merge_that_ksmd_takes_back_stays_open_and_is_not_avoidable() {
        let mut page = zapped_page(&op(Cause::KsmWriteProtect, bracket_flags::ZAPPED), 1);
        let back = Operation { initiator: Initiator::Ksmd as u8, ..op(Cause::KsmUnmerge, 0) };
        touch_page(&mut page, &back);
        assert!(page.flags & page_flags::MERGE_OPEN != 0);
        touch_page(&mut page, &op(Cause::KsmReplace, 0));
        assert!(!is_avoidable(&page, false, false), "the write in between would have dropped the mapping");
    }

    #[test]
    fn unsharing_leaves_a_read_only_page() {
        let shared = op(Cause::KsmUnmerge, bracket_flags::ZAPPED);
        assert!(!is_avoidable(&zapped_page(&shared, 1), false, false));
        let unshared = zapped_page(&Operation { unshares: true, ..shared }, 1);
        assert!(is_avoidable(&unshared, false, false) && !is_avoidable(&unshared, true, false));
    }

    #[test]
    fn a_change_pte_that_installs_saves_reads_after_any_copy() {
        let installs = |cause| Operation { installs: true, ..op(cause, bracket_flags::ZAPPED) };
        let copied = zapped_page(&installs(Cause::CowHost), 1);
        assert!(is_avoidable(&copied, false, true) && !is_avoidable(&copied, true, true));
        assert!(!is_avoidable(&copied, false, false));
        let mut merged = zapped_page(&installs(Cause::KsmWriteProtect), 1);
        touch_page(&mut merged, &installs(Cause::CowHost));
        assert!(is_avoidable(&merged, false, true));
        touch_page(&mut merged, &installs(Cause::Fork));
        assert!(!is_avoidable(&merged, false, true), "nothing maps it again after a fork");
    }
}
