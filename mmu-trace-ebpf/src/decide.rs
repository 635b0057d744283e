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
    page::page_flags,
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
    /// All that are left by the return of a function of memory management.
    pub const MM: u32 = KSM_WRITE_PROTECT | KSM_MERGE | KSM_BREAK | NUMA;
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
    /// A `change_pte` inside mapped the page, whatever was torn down before.
    pub const INSTALLED: u8 = 1 << 7;

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
/// The table is sorted by `start`; its unused entries come last.
#[inline(always)]
#[must_use]
pub fn caller_cause(caller: u64, table: &[CallerRange; N_CALLERS]) -> u8 {
    const { assert!(N_CALLERS.is_power_of_two()) };
    // The black boxes keep the compiler from dropping a mask that it can prove needless and the verifier
    // cannot, and from taking branches, of which the verifier would walk every combination.
    let at = |index: usize| &table[core::hint::black_box(index) & (N_CALLERS - 1)];
    let mut index = 0;
    let mut step = N_CALLERS / 2;
    while step > 0 {
        let start = at(index + step).start;
        // The borrow of `caller - start`: 1 if the range begins behind the caller.
        let borrow = ((!caller & start) | ((!caller | start) & caller.wrapping_sub(start))) >> 63;
        index += step & (core::hint::black_box(borrow) as usize).wrapping_sub(1);
        step /= 2;
    }
    let range = at(index);
    if caller.wrapping_sub(range.start) < range.len as u64 { range.cause as u8 } else { Cause::Other as u8 }
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

/// Whether `cause` is a copy on write.
#[inline(always)]
#[must_use]
pub fn is_cow(cause: u8) -> bool {
    cause == Cause::CowGuest as u8 || cause == Cause::CowHost as u8
}

/// Whether a `change_pte` call follows each successful bracket of `cause`, seen or not, that is not
/// decided by a KSM function's return value.
#[inline(always)]
#[must_use]
pub fn implies_change_pte(cause: u8) -> bool {
    cause == Cause::KsmUnmerge as u8 || is_cow(cause) || cause == Cause::Uprobe as u8
}

/// Whether an operation is part of a KSM merge: one of its two steps, or ksmd taking back a first
/// step because the second failed (`break_cow`).
#[inline(always)]
#[must_use]
pub fn in_merge(cause: u8, initiator: u8) -> bool {
    is_merge(cause) || cause == Cause::KsmUnmerge as u8 && initiator == Initiator::Ksmd as u8
}

/// What one `change_pte` call came to; `call` are [`call_flags`], `bracket` the [`bracket_flags`] of
/// the enclosing range, `page` the record from before it. `installs`: whether KVM maps the page, always
/// read-only (arm64), where otherwise it changes a mapping, and drops it if the PTE is writable (x86-64).
#[inline(always)]
#[must_use]
pub fn outcome(in_merge: bool, call: u8, bracket: u8, page: Option<&PageRecord>, installs: bool) -> u8 {
    let observed = call & call_flags::OBSERVED != 0;
    let outcome = if observed && call & call_flags::SUBSCRIBER == 0 {
        Outcome::NoSubscriber
    } else if observed && call & call_flags::HANDLED == 0 {
        Outcome::NotGuestMemory
    } else if call & (call_flags::CHANGED | call_flags::FLUSHED) != 0 {
        let drops = call & call_flags::WRITABLE != 0 && !installs;
        if drops { Outcome::EffectiveDropped } else { Outcome::EffectiveUpdated }
    } else if bracket_flags::zapped(bracket) {
        Outcome::NoopZappedByBracket
    } else if in_merge && page.is_some_and(|p| p.flags & page_flags::MERGE_OPEN != 0) {
        Outcome::NoopZappedBySameOp
    } else {
        Outcome::NoopNotMapped
    };
    outcome as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::no_record;

    fn callers() -> [CallerRange; N_CALLERS] {
        let mut table = [CallerRange { start: u64::MAX, len: 0, cause: 0 }; N_CALLERS];
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
    fn ksmd_taking_back_its_own_merge_is_part_of_it() {
        let unmerge = Cause::KsmUnmerge as u8;
        assert!(in_merge(unmerge, Initiator::Ksmd as u8) && !in_merge(unmerge, Initiator::Vmm as u8));
        assert!(in_merge(Cause::KsmReplace as u8, Initiator::Ksmd as u8));
        assert!(!in_merge(Cause::CowHost as u8, Initiator::Ksmd as u8));
    }

    #[test]
    fn outcomes_cover_every_kind_of_call() {
        use bracket_flags as b;
        use call_flags::{ACTIVE, CHANGED, FLUSHED, HANDLED, OBSERVED, SUBSCRIBER, WRITABLE};
        let seen = ACTIVE | OBSERVED | SUBSCRIBER | HANDLED;
        let open = PageRecord { flags: page_flags::PENDING | page_flags::MERGE_OPEN, ..no_record() };
        let closed = PageRecord { flags: page_flags::PENDING, ..no_record() };
        let (wp, replace, cow) = (true, true, false);
        for (in_merge, call, bracket, page, expected) in [
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
            assert_eq!(outcome(in_merge, call, bracket, page, false), expected as u8, "{expected:?}");
        }
    }
}
