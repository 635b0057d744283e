//! Every map: key, value, who writes and reads it, how large it is, and what happens when it is full.
//!
//! Counters of a VM are in shards, which CPUs share by number: enough of them that CPUs rarely meet in
//! one, and few enough that memory and reading do not grow with the machine (a host of 640 CPUs with 256
//! VMs would keep 290 MB of them per CPU). What all VMs share is per CPU. All are added to atomically:
//! even on one CPU a probe may be preempted by another task's.

use core::{
    hint::black_box,
    intrinsics::{AtomicOrdering, atomic_xadd},
};

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns},
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, Queue, RingBuf},
};
use mmu_trace_ebpf::{
    abi::{
        BulkRanges, CallerRange, Event, Gaps, InvalidationKey, InvalidationStats, N_CALLERS, PageKey,
        PageRecord, UNATTRIBUTED, VmHistograms, VmSlot, VmStats, value,
    },
    decide,
    kind::Gap,
    page::is_pending,
    task::TaskState,
};

use super::config;

/// What a task is doing, by the low bits of its thread id: a place is found without a search. Written and
/// read by probes of the task that holds the place; given back when the task exits.
#[map]
static TASKS: Array<TaskState> = Array::with_max_entries(N_PLACES, 0);

/// Place to the thread id that holds it: whoever inserts first. (5.10 has no other atomic test-and-set.)
#[map]
static PLACES: HashMap<u32, u32> = HashMap::with_max_entries(N_PLACES, 0);

/// Thread id to what it is doing, of those whose place another task holds. Preallocated. Full: the task's
/// brackets and faults are not followed, `Gap::TasksFull`.
#[map]
static MORE_TASKS: HashMap<u32, TaskState> = HashMap::with_max_entries(16_384, 0);

/// One idle task, never written: the initial value of the others, too large for the stack.
#[map]
pub(super) static IDLE_TASK: Array<TaskState> = Array::with_max_entries(1, 0);

/// Who zapped a page last. Written at the end of a bracket, settled by the refault. Full: the least
/// recently used record goes; userspace counts those that still waited.
#[map]
pub(super) static PAGES: LruHashMap<PageKey, PageRecord> = LruHashMap::with_max_entries(131_072, 0);

/// VM slot to the newest large ranges; as large as `VM_SLOTS`. Full: the oldest range goes,
/// `Gap::RangeForgotten`.
#[map]
pub(super) static BULK_RANGES: Array<BulkRanges> = Array::with_max_entries(256, 0);

/// Address space to VM slot. Written by probes at registration; removed by userspace when it frees
/// the slot. Larger than `VM_SLOTS`, for those that share the slot `OTHER`. Full: `UNATTRIBUTED`.
#[map]
pub(super) static VMS: HashMap<u64, u32> = HashMap::with_max_entries(16_384, 0);

/// VM slot to who holds it; the slots below `FIRST_SLOT` are never held. Sized by userspace, which has
/// it mapped.
#[map]
pub(super) static VM_SLOTS: Array<VmSlot> = Array::with_max_entries(256, BPF_F_MMAPABLE);

/// Free slots, filled by userspace. Empty: the VM shares the slot `OTHER`, `Gap::VmsFull`.
#[map]
pub(super) static FREE_SLOTS: Queue<u32> = Queue::with_max_entries(256, 0);

/// VM slot and shard to counters, see [`sharded`]. Userspace has it mapped and reads it at scrape.
#[map]
pub(super) static VM_STATS: Array<VmStats> = Array::with_max_entries(256, BPF_F_MMAPABLE);

/// VM slot and shard to histograms, where each VM has its own. Userspace has it mapped.
#[map]
pub(super) static VM_HISTS: Array<VmHistograms> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The histograms of the host, where VMs have none.
#[map]
pub(super) static HOST_HISTS: PerCpuArray<VmHistograms> = PerCpuArray::with_max_entries(1, 0);

/// The invalidation table, sized by userspace for the number of VMs. Preallocated. Full:
/// `Gap::InvalidationsFull`.
#[map]
pub(super) static INVALIDATIONS: HashMap<InvalidationKey, InvalidationStats> =
    HashMap::with_max_entries(8_192, 0);

/// How often each gap happened.
#[map]
pub(super) static GAPS: PerCpuArray<Gaps> = PerCpuArray::with_max_entries(1, 0);

/// The table of known callers, written once by userspace. Not a constant: the verifier would walk
/// the rest of the program once for each entry's cause.
#[map]
static CALLERS: Array<[CallerRange; N_CALLERS]> = Array::with_max_entries(1, 0);

/// What has been looked for in `CALLERS`: by a hash of the address, its low 56 bits and, below, the cause. A word
/// is read and written at once, and says all by itself.
#[map]
static FOUND_CALLERS: Array<[u64; N_FOUND_CALLERS]> = Array::with_max_entries(1, 0);

/// When every hook was in place, `CLOCK_MONOTONIC` nanoseconds; 0: not yet. Written by userspace.
#[map]
pub(super) static STARTED: Array<u64> = Array::with_max_entries(1, 0);

/// The event stream; sized by userspace. Full: `Gap::LostEvent`.
#[map]
pub(super) static EVENTS: RingBuf = RingBuf::with_byte_size(4096, 0);

/// Places of tasks: the vCPUs of a large host. A power of two.
const N_PLACES: u32 = 8_192;

/// More than there are places that call the notifiers.
const N_FOUND_CALLERS: usize = 256;

/// `BPF_NOEXIST`.
pub(super) const NO_EXIST: u64 = 1;

/// Adds to a counter in a map value.
#[inline(always)]
pub(super) fn add(counter: &mut u64, n: u64) {
    // SAFETY: a `&mut u64` is valid and aligned. (`AtomicU64` has no `fetch_add` on this target,
    // which lacks compare-and-swap; the instruction itself exists since the first BPF.)
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, n) };
}

/// The element of a counter array at `index`. Lengths are powers of two; the black box keeps the
/// compiler from dropping a mask that it can prove needless and the verifier cannot.
#[inline(always)]
pub(super) fn element<T, const N: usize>(array: &mut [T; N], index: usize) -> &mut T {
    const { assert!(N.is_power_of_two()) };
    &mut array[black_box(index) & (N - 1)]
}

/// Counts a gap.
#[inline(always)]
pub(super) fn count(gap: Gap) {
    count_n(gap, 1);
}

/// Counts `n` gaps at once; often there are none.
#[inline(always)]
pub(super) fn count_n(gap: Gap, n: u64) {
    if n == 0 {
        return;
    }
    if let Some(gaps) = GAPS.get_ptr_mut(0) {
        // SAFETY: the map holds aligned counters, only added to atomically.
        add(unsafe { &mut (*gaps).n[gap as usize] }, n);
    }
}

/// Longest time a bracket may be open: one that ends sooner after the start of tracing may have
/// begun before it, and its missing start is no loss.
const START_GRACE_NS: u64 = 1_000_000_000;

/// Counts a gap, or, around the start of tracing, an event whose beginning nobody could see.
#[inline(always)]
pub(super) fn count_since_start(gap: Gap) {
    let started = STARTED.get(0).copied().unwrap_or(0);
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    let is_early = started == 0 || now.wrapping_sub(started) < START_GRACE_NS;
    count(if is_early { Gap::BeforeStart } else { gap });
}

/// The index of the current CPU's shard of a slot.
#[inline(always)]
fn sharded(slot: u32) -> u32 {
    let n_shards = config::value(value::SHARDS);
    // SAFETY: no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    slot.wrapping_mul(n_shards) + (cpu & n_shards.wrapping_sub(1))
}

/// The counters of a slot.
#[inline(always)]
pub(super) fn stats(slot: u32) -> Option<&'static mut VmStats> {
    // SAFETY: values are aligned, and every field is only added to atomically.
    VM_STATS.get_ptr_mut(sharded(slot)).map(|stats| unsafe { &mut *stats })
}

/// The histograms of a slot, or those of the host.
#[inline(always)]
pub(super) fn histograms(slot: u32) -> Option<&'static mut VmHistograms> {
    let histograms = if config::value(value::VM_HISTOGRAMS) == 1 {
        VM_HISTS.get_ptr_mut(sharded(slot))
    } else {
        HOST_HISTS.get_ptr_mut(UNATTRIBUTED)
    };
    // SAFETY: as for the counters.
    histograms.map(|histograms| unsafe { &mut *histograms })
}

/// The cause that a caller stands for; `Cause::Other` if it is not known.
#[inline(always)]
pub(super) fn caller_cause(caller: u64) -> Option<u8> {
    const CAUSE_BITS: u32 = 8;
    let found = FOUND_CALLERS.get_ptr_mut(0)?.cast::<u64>();
    let index = black_box(caller ^ caller >> 8) as usize & (N_FOUND_CALLERS - 1);
    // SAFETY: within the array, and aligned. Read and written volatile: tasks on other CPUs do as well.
    let found = unsafe { &mut *found.add(index) };
    // SAFETY: as above.
    let known = unsafe { core::ptr::from_ref(found).read_volatile() };
    if known >> CAUSE_BITS == caller << CAUSE_BITS >> CAUSE_BITS {
        return Some(known as u8);
    }
    let cause = decide::caller_cause(caller, CALLERS.get(0)?);
    // SAFETY: as above.
    unsafe { core::ptr::from_mut(found).write_volatile(caller << CAUSE_BITS | cause as u64) };
    Some(cause)
}

/// Whether a thread is `ksmd`.
#[inline(always)]
pub(super) fn is_ksmd(tid: u32) -> bool {
    tid == config::value(value::KSMD_TID)
}

/// The state of a task, if it has one.
#[inline(always)]
pub(super) fn task(tid: u32) -> Option<&'static mut TaskState> {
    // SAFETY: only probes running in this very task touch its state. Of another's only `tid` is read.
    let at_place = TASKS.get_ptr_mut(place(tid)).map(|task| unsafe { &mut *task })?;
    if at_place.tid == tid && tid != 0 {
        return Some(at_place);
    }
    // SAFETY: as above.
    MORE_TASKS.get_ptr_mut(tid).map(|task| unsafe { &mut *task })
}

/// The place of a task.
#[inline(always)]
fn place(tid: u32) -> u32 {
    tid & (N_PLACES - 1)
}

/// The state of a task, created if need be.
#[inline(always)]
pub(super) fn task_or_new(tid: u32) -> Option<&'static mut TaskState> {
    if let Some(task) = task(tid) {
        return Some(task);
    }
    let idle = IDLE_TASK.get(0)?;
    if tid != 0 && PLACES.insert(place(tid), tid, NO_EXIST).is_ok() && TASKS.set(place(tid), idle, 0).is_ok()
    {
        // SAFETY: as above.
        let task = TASKS.get_ptr_mut(place(tid)).map(|task| unsafe { &mut *task })?;
        task.tid = tid;
        return Some(task);
    }
    if MORE_TASKS.insert(tid, idle, 0).is_err() {
        count(Gap::TasksFull);
        return None;
    }
    // SAFETY: as above.
    MORE_TASKS.get_ptr_mut(tid).map(|task| unsafe { &mut *task })
}

/// Forgets a task, which exits.
#[inline(always)]
pub(super) fn forget_task(task: &mut TaskState, tid: u32) {
    if task.tid == tid {
        task.tid = 0;
        let _ = PLACES.remove(place(tid));
    } else {
        let _ = MORE_TASKS.remove(tid);
    }
}

/// The record of a page of the VM in `slot`, if it has one. One from before the VM began belongs to
/// another that had the same `mm_struct` address.
#[inline(always)]
pub(super) fn page(key: &PageKey, slot: u32) -> Option<&'static mut PageRecord> {
    // SAFETY: aligned plain values; each field has one kind of writer.
    let page = PAGES.get_ptr_mut(key).map(|page| unsafe { &mut *page })?;
    let created_ns = VM_SLOTS.get(slot).map_or(0, |holder| holder.created_ns);
    if page.zap_ns >= created_ns || page.taken_ns >= created_ns { Some(page) } else { None }
}

/// A page is mapped since `now_ns`: nobody waits for its fault any more.
#[inline(always)]
pub(super) fn settle(page: &mut PageRecord, now_ns: u64) {
    if is_pending(page) {
        count(Gap::PageSettled);
    }
    page.carried = page.carry;
    page.taken_ns = now_ns;
}

/// Creates the record of a page that has none, or replaces one from before the VM began.
#[inline(always)]
pub(super) fn put_page(key: &PageKey, record: &PageRecord) {
    if PAGES.insert(key, record, NO_EXIST).is_ok() {
        count(Gap::PageCreated);
    } else if PAGES.insert(key, record, 0).is_err() {
        count(Gap::PagesFull);
    }
}

/// Size check of what the ring holds.
const _: () = assert!(size_of::<Event>() == 64);
