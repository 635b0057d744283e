//! Brackets: `__mmu_notifier_invalidate_range_start` and `_end`.
//!
//! ```c
//! int  __mmu_notifier_invalidate_range_start(struct mmu_notifier_range *range);
//! void __mmu_notifier_invalidate_range_end(struct mmu_notifier_range *range, bool only_end); // to 6.5
//! void __mmu_notifier_invalidate_range_end(struct mmu_notifier_range *range);                // 6.6
//! ```
//! (`mm/mmu_notifier.c`.) Up to 6.5 the range names its `vma` first and its `mm` second; BTF knows.
//! Nothing looks at the return of the start function: a bracket whose non-blocking start failed is told by
//! `TaskState::push`.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use mmu_trace_ebpf::{
    abi::{
        BulkRange, Event, FIRST_SLOT, InvalidationKey, InvalidationStats, N_BULK, OTHER, PageKey, PageRecord,
        event_flags, event_kind, function, offset, value,
    },
    decide::{self, bracket_flags},
    kind::{Cause, Gap, Initiator},
    page::{self, Operation},
    task::{Bracket, TaskState},
};

use super::{
    super::{
        arch,
        call::{Entry, entry_hook},
        config,
        maps::{self, BULK_RANGES, INVALIDATIONS, NO_EXIST, add, count, count_n, count_since_start, element},
        read::{self, Block},
        stream, vm,
    },
    change_pte, cow,
};

entry_hook!(fe_range_start, kp_range_start, start_probe);
entry_hook!(fe_range_end, kp_range_end, end_probe);

/// What a probe reads from `struct mmu_notifier_range`.
#[derive(Clone, Copy)]
pub(super) struct Range {
    pub mm: u64,
    pub start: u64,
    pub end: u64,
    pub event: u32,
    pub blockable: bool,
    pub caller: u64,
}

#[inline(always)]
fn start_probe(call: &impl Entry) -> Option<()> {
    let range: Block<RANGE_WORDS> = Block::read(call.arg(0)?)?;
    begin(&Range {
        mm: range.u64(offset::RANGE_MM)?,
        start: range.u64(offset::RANGE_START)?,
        end: range.u64(offset::RANGE_END)?,
        event: range.u32(offset::RANGE_EVENT)?,
        blockable: range.u32(offset::RANGE_FLAGS)? & 1 != 0,
        caller: call.caller(function::RANGE_START, 1),
    })
}

/// Words of `struct mmu_notifier_range` up to its owner: up to 6.5 a pointer, an `mm`, two addresses, flags and
/// event; then the same without the pointer.
pub(super) const RANGE_WORDS: usize = 5;

/// Words of it up to the first address.
pub(super) const RANGE_HEAD: usize = 3;

#[inline(always)]
fn end_probe(call: &impl Entry) -> Option<()> {
    let range: Block<RANGE_HEAD> = Block::read(call.arg(0)?)?;
    finish(range.u64(offset::RANGE_MM)?, range.u64(offset::RANGE_START)?)
}

/// Opens a bracket.
#[inline(always)]
pub(super) fn begin(range: &Range) -> Option<()> {
    let (tid, _) = read::current_ids();
    let task = maps::task_or_new(tid)?;
    let initiator = read::forgotten(initiator(tid, range.mm, task.scopes), tid);
    let cause = read::forgotten(cause(range.caller, task.scopes, initiator, range.event), tid);
    let bracket = Bracket {
        mm: range.mm,
        start: range.start,
        end: range.end,
        // SAFETY: no preconditions.
        t0_ns: unsafe { bpf_ktime_get_ns() },
        caller: range.caller,
        slot: vm::slot_for(task, range.mm),
        cause,
        initiator,
        event: range.event as u8,
        flags: bracket_start_flags(task, range, cause),
    };
    let pushed = task.push(bracket);
    count_n(Gap::AbandonedBracket, pushed.abandoned);
    count_n(Gap::MissedRangeEnd, pushed.missed_ends);
    count_n(Gap::NestedTooDeep, pushed.too_deep);
    Some(())
}

/// Closes the innermost bracket of `mm` that begins at `start`.
///
/// Runs at the entry of `invalidate_range_end`, before KVM lets a vCPU map the page again: the
/// page's record is in place when its refault comes.
#[inline(always)]
pub(super) fn finish(mm: u64, start: u64) -> Option<()> {
    let (tid, _) = read::current_ids();
    let Some(task) = maps::task(tid) else {
        count_since_start(Gap::OrphanBracket);
        return None;
    };
    let Some(index) = task.find(|b| b.mm == mm && b.start == start) else {
        orphan(task);
        return None;
    };
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    let bracket = &task.brackets[index & 3];
    let key = PageKey { mm, page: start >> 12 };
    let is_page = bracket.end.wrapping_sub(start) <= 4096;
    let page = if is_page { maps::page(&key, bracket.slot) } else { None };
    change_pte::close(task, tid, now, |of, slot| {
        let is_same = is_page && of.page == key.page && of.mm == mm;
        if is_same { page.as_deref() } else { maps::page(of, slot).map(|page| &*page) }
    });
    let bracket = task.brackets[index & 3];
    count_n(Gap::MissedRangeEnd, (task.depth as u64).wrapping_sub(index as u64 + 1));
    task.depth = index as u32;
    task.note_ksm(&bracket);
    if is_page {
        note_page(&bracket, &key, page, now);
    } else {
        note_range(&bracket, now);
    }
    note_totals(&bracket);
    note_invalidation(&bracket, now);
    emit(&bracket, tid, now);
    Some(())
}

/// An end whose start is not stored.
#[inline(always)]
fn orphan(task: &mut TaskState) {
    if task.overflow > 0 {
        task.overflow -= 1;
    } else {
        count_since_start(Gap::OrphanBracket);
    }
}

/// Who runs the operation on `mm`: the thread `tid`.
#[inline(always)]
fn initiator(tid: u32, mm: u64, scopes: u32) -> u8 {
    if maps::is_ksmd(tid) {
        return Initiator::Ksmd as u8;
    }
    let current_mm = read::current_mm().unwrap_or(mm);
    let comm = if current_mm == 0 { read::current_comm() } else { 0 };
    decide::initiator(current_mm, mm, scopes, comm)
}

/// Why: the caller's cause, refined.
#[inline(always)]
pub(super) fn cause(caller: u64, scopes: u32, initiator: u8, event: u32) -> u8 {
    let known = if caller == 0 {
        count(Gap::UnknownCaller);
        None
    } else {
        maps::caller_cause(caller)
    };
    let by_caller = known.unwrap_or(Cause::Other as u8);
    decide::refine(by_caller, scopes, initiator, event == config::value(value::EVENT_MIGRATE))
}

#[inline(always)]
fn bracket_start_flags(task: &mut TaskState, range: &Range, cause: u8) -> u8 {
    let nonblock = if range.blockable { 0 } else { bracket_flags::NONBLOCK };
    if !decide::is_cow(cause) {
        return nonblock;
    }
    let vmf = core::mem::take(&mut task.copied_by);
    if cow::copies_ksm_page(vmf) { nonblock | bracket_flags::KSM_PAGE } else { nonblock }
}

/// Remembers who zapped a page; `page` is its record so far.
#[inline(always)]
fn note_page(bracket: &Bracket, key: &PageKey, page: Option<&mut PageRecord>, now: u64) {
    let zapped = bracket_flags::zapped(bracket.flags);
    let was_pending = page.as_deref().is_some_and(page::is_pending);
    let operation = Operation {
        cause: bracket.cause,
        initiator: bracket.initiator,
        flags: bracket.flags,
        unshares: config::value(value::UNSHARES) == 1,
        installs: arch::INSTALLS,
    };
    if bracket.flags & bracket_flags::INSTALLED != 0 {
        if let Some(page) = page {
            maps::settle(page, now);
        }
    } else if zapped {
        let record = page::zapped_page(&operation, now);
        match page {
            Some(page) => page::zap_again(page, &record),
            None => maps::put_page(key, &record),
        }
        if !was_pending {
            count(Gap::PagePending);
        }
    } else if let Some(page) = page {
        page::touch_page(page, &operation);
        if was_pending && !page::is_pending(page) {
            count(Gap::PageSettled);
        }
    }
}

/// Remembers a large range. Those of VMs without a slot of their own would mix.
///
/// Where only a zap tells that there was guest memory in it, it may have been about pages that the
/// guest had not mapped. If they were taken away, that is worth an entry, but none of another's.
#[inline(always)]
fn note_range(bracket: &Bracket, now: u64) {
    let zapped = bracket_flags::zapped(bracket.flags);
    let hit = zapped || bracket.flags & bracket_flags::HIT != 0;
    let may_discard = config::value(value::HANDLERS_BY_HVA) == 1 && page::discards(bracket.cause);
    if !(hit || may_discard) {
        return;
    }
    if bracket.slot < FIRST_SLOT {
        if bracket.slot == OTHER && zapped {
            count(Gap::RangeForgotten);
        }
        return;
    }
    let Some(bulk) = BULK_RANGES.get_ptr_mut(bracket.slot) else { return };
    // SAFETY: plain values; two tasks writing at once cost at most one range.
    let bulk = unsafe { &mut *bulk };
    let index = bulk.n as usize & (N_BULK - 1);
    if bulk.ranges[index].zapped != 0 {
        if !hit {
            return;
        }
        count(Gap::RangeForgotten);
    }
    bulk.ranges[index] = BulkRange {
        start: bracket.start,
        end: bracket.end,
        end_ns: now,
        cause: bracket.cause as u32,
        zapped: zapped as u32,
    };
    bulk.n += 1;
}

/// Counts what a bracket alone decides.
#[inline(always)]
fn note_totals(bracket: &Bracket) {
    let implies = decide::implies_change_pte(bracket.cause);
    if !implies {
        return;
    }
    let Some(stats) = maps::stats(bracket.slot) else { return };
    add(element(&mut stats.would_be, Cause::of_change_pte(bracket.cause)), 1);
    if bracket.cause == Cause::KsmUnmerge as u8 {
        add(&mut stats.ksm_unmerges, 1);
    } else if bracket.flags & bracket_flags::KSM_PAGE != 0 {
        add(&mut stats.ksm_cow_breaks, 1);
    }
}

/// Adds to the row of the invalidation table.
#[inline(always)]
fn note_invalidation(bracket: &Bracket, now: u64) {
    let key = InvalidationKey {
        slot: bracket.slot,
        cause: bracket.cause,
        initiator: bracket.initiator,
        event: bracket.event,
        pad: 0,
    };
    let Some(row) = invalidation_row(&key) else {
        count(Gap::InvalidationsFull);
        return;
    };
    add(&mut row.ranges, 1);
    let more_pages = decide::n_pages(bracket.start, bracket.end).wrapping_sub(1);
    if more_pages != 0 {
        add(&mut row.more_pages, more_pages);
    }
    if bracket_flags::zapped(bracket.flags) {
        add(&mut row.zapped, 1);
    }
    add(&mut row.ns, now.wrapping_sub(bracket.t0_ns));
    row.caller = bracket.caller;
}

#[inline(always)]
fn invalidation_row(key: &InvalidationKey) -> Option<&'static mut InvalidationStats> {
    const EMPTY: InvalidationStats =
        InvalidationStats { ranges: 0, more_pages: 0, zapped: 0, ns: 0, caller: 0 };
    let row = match INVALIDATIONS.get_ptr_mut(key) {
        Some(row) => row,
        None => {
            // Another CPU's row must not be overwritten.
            let _ = INVALIDATIONS.insert(key, &EMPTY, NO_EXIST);
            INVALIDATIONS.get_ptr_mut(key)?
        }
    };
    // SAFETY: aligned values, only added to atomically (`caller` is any recent one).
    Some(unsafe { &mut *row })
}

#[inline(always)]
fn emit(bracket: &Bracket, tid: u32, now: u64) {
    let hit = if bracket.flags & bracket_flags::HIT != 0 { event_flags::HIT } else { 0 };
    let zapped = if bracket_flags::zapped(bracket.flags) { event_flags::ZAPPED } else { 0 };
    stream::emit(|| Event {
        ts_ns: now,
        kind: event_kind::INVALIDATION,
        cause: bracket.cause,
        initiator: bracket.initiator,
        detail: bracket.event,
        flags: hit | zapped,
        tid,
        slot: bracket.slot,
        addr: bracket.start,
        value: bracket.end.wrapping_sub(bracket.start),
        caller: bracket.caller,
        duration_ns: now.wrapping_sub(bracket.t0_ns),
        delay_ns: 0,
    });
}
