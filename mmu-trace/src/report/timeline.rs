//! What the events of a capture say about *when* and *where*: the one thing counters cannot tell.
//!
//! Events are counted while they are read and then forgotten. Memory is bounded whatever the capture's
//! length: a fixed number of time bins, which become twice as wide when the time outgrows them, and a
//! bounded number of guest frames ([`HeatMap`]).

use std::{cmp::Reverse, collections::BTreeMap};

use mmu_trace_ebpf::{
    abi::{Event, FIRST_SLOT, event_flags, event_kind},
    kind::{Cause, FaultResult},
};

use super::heat::{Frame, Heat, HeatMap, Holder};

/// Number of time bins: a plot's columns stay wide enough to be seen.
pub const N_BINS: usize = 96;
/// Width of a bin before the first doubling, nanoseconds.
const FIRST_BIN_NS: u64 = 1_000_000;
/// VM slots whose process is remembered; the kernel side has fewer.
const MAX_SLOTS: usize = 4096;

/// Counts by time.
pub type Bins = [u32; N_BINS];

/// Events of a capture by time.
#[derive(Clone, Debug)]
pub struct Timeline {
    /// Time 0 on the events' clock; `None` until the capture or its first event tells.
    origin_ns: Option<u64>,
    bin_ns: u64,
    /// The last time that is in a bin, nanoseconds behind time 0.
    last_ns: Option<u64>,
    invalidations: BTreeMap<Cause, Bins>,
    frames: HeatMap,
    /// The process that holds a slot.
    pids: BTreeMap<u32, u32>,
    events: u64,
    unreadable: u64,
    shared_faults: u64,
}

impl Default for Timeline {
    fn default() -> Self {
        Self {
            origin_ns: None,
            bin_ns: FIRST_BIN_NS,
            last_ns: None,
            invalidations: BTreeMap::new(),
            frames: HeatMap::default(),
            pids: BTreeMap::new(),
            events: 0,
            unreadable: 0,
            shared_faults: 0,
        }
    }
}

impl Timeline {
    /// Sets time 0, `CLOCK_MONOTONIC` nanoseconds. Without it the first event does.
    pub fn begin(&mut self, origin_ns: u64) {
        self.origin_ns = Some(origin_ns);
    }

    /// Counts `event`.
    pub fn add(&mut self, event: &Event) {
        self.events += 1;
        let counted = match event.kind {
            event_kind::INVALIDATION => self.add_invalidation(event),
            event_kind::PAGE_FAULT => self.add_fault(event),
            event_kind::VM_START => self.add_vm(event),
            event_kind::CHANGE_PTE | event_kind::KSM_MERGE | event_kind::VM_END => Some(()),
            _ => None,
        };
        if counted.is_none() {
            self.unreadable += 1;
        }
    }

    /// The same with bins wide enough for a recording of `seconds`, which may have been quiet at its end, and
    /// with the `n_frames` hottest frames only.
    #[must_use]
    pub fn covering(&self, seconds: f64, n_frames: usize) -> Self {
        let (invalidations, pids) = (self.invalidations.clone(), self.pids.clone());
        let mut wide = Self { frames: self.frames.with_hottest(n_frames), invalidations, pids, ..*self };
        wide.widen((seconds * 1e9) as u64);
        wide
    }

    /// Events counted.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Those of them that this version does not understand.
    #[must_use]
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }

    /// Faults of frames that were forgotten for hotter ones.
    #[must_use]
    pub fn forgotten_faults(&self) -> u64 {
        self.frames.forgotten_faults
    }

    /// How much too low the count of a frame can be, because it had been forgotten before.
    #[must_use]
    pub fn forgotten_of_one(&self) -> u64 {
        self.frames.forgotten_of_one
    }

    /// Faults of VMs that had no slot of their own: nobody can say whose frames they hit.
    #[must_use]
    pub fn shared_faults(&self) -> u64 {
        self.shared_faults
    }

    /// Width of a bin, nanoseconds.
    #[must_use]
    pub fn bin_ns(&self) -> u64 {
        self.bin_ns
    }

    /// Invalidations by cause and time, the most frequent cause first.
    #[must_use]
    pub fn invalidations(&self) -> Vec<(Cause, &Bins)> {
        let mut rows: Vec<(Cause, &Bins)> = self.invalidations.iter().map(|(&c, bins)| (c, bins)).collect();
        rows.sort_by_key(|(cause, bins)| (Reverse(total(bins)), *cause));
        rows
    }

    /// The `n` frames with the most faults, the hottest first.
    #[must_use]
    pub fn hottest(&self, n: usize) -> Vec<(Frame, Heat)> {
        self.frames.hottest(n)
    }

    /// The last bin that is not empty.
    #[must_use]
    pub fn last_bin(&self) -> Option<usize> {
        self.last_ns.map(|ns| (ns / self.bin_ns) as usize)
    }

    /// Frames that are remembered.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.frames.len()
    }

    fn add_invalidation(&mut self, event: &Event) -> Option<()> {
        let cause = Cause::from_u8(event.cause)?;
        let bin = self.bin(event.ts_ns);
        count(self.invalidations.entry(cause).or_insert([0; N_BINS]), bin);
        Some(())
    }

    fn add_fault(&mut self, event: &Event) -> Option<()> {
        match FaultResult::from_u8(event.detail)? {
            FaultResult::Fixed | FaultResult::Retry | FaultResult::Spurious => {}
            FaultResult::Other | FaultResult::Emulate => return Some(()),
        }
        let Some(holder) = self.holder(event.slot) else {
            self.shared_faults += 1;
            return Some(());
        };
        let frame = Frame { holder, gfn: event.value >> 12 };
        let bin = self.bin(event.ts_ns);
        self.frames.add(frame, bin, event.flags & event_flags::REFAULT != 0);
        Some(())
    }

    /// `None` for slots in which the frames of several VMs would look the same.
    fn holder(&self, slot: u32) -> Option<Holder> {
        let process = self.pids.get(&slot).copied().map(Holder::Process);
        process.or((slot >= FIRST_SLOT).then_some(Holder::Slot(slot)))
    }

    fn add_vm(&mut self, event: &Event) -> Option<()> {
        let pid = u32::try_from(event.value).ok()?;
        if self.pids.len() < MAX_SLOTS || self.pids.contains_key(&event.slot) {
            self.pids.insert(event.slot, pid);
        }
        Some(())
    }

    /// The bin of a time.
    fn bin(&mut self, ts_ns: u64) -> usize {
        let since = ts_ns.saturating_sub(*self.origin_ns.get_or_insert(ts_ns));
        self.widen(since);
        self.last_ns = self.last_ns.max(Some(since));
        (since / self.bin_ns) as usize
    }

    /// Makes the bins wider until one holds the moment `since` nanoseconds behind time 0.
    fn widen(&mut self, since: u64) {
        while since / self.bin_ns >= N_BINS as u64 {
            self.bin_ns *= 2;
            self.invalidations.values_mut().for_each(halve);
            self.frames.halve();
        }
    }
}

/// The sum of all bins.
pub(super) fn total(bins: &Bins) -> u64 {
    bins.iter().copied().map(u64::from).sum()
}

/// Counts in a bin, up to what it holds.
pub(super) fn count(bins: &mut Bins, bin: usize) {
    if let Some(n) = bins.get_mut(bin) {
        *n = n.saturating_add(1);
    }
}

/// Joins each two neighbours.
pub(super) fn halve(bins: &mut Bins) {
    let joined = bins.chunks(2).map(|pair| pair.iter().fold(0_u32, |sum, &n| sum.saturating_add(n)));
    let joined: Vec<u32> = joined.collect();
    *bins = [0; N_BINS];
    bins.iter_mut().zip(joined).for_each(|(bin, n)| *bin = n);
}

#[cfg(test)]
mod tests {
    use mmu_trace_ebpf::abi::OTHER;
    use zerocopy::FromZeros;

    use super::*;

    fn event(kind: u8, ts_ns: u64) -> Event {
        Event { kind, ts_ns, ..Event::new_zeroed() }
    }

    fn fault(gfn: u64, ts_ns: u64) -> Event {
        let detail = FaultResult::Fixed as u8;
        Event { value: gfn << 12, detail, slot: 2, ..event(event_kind::PAGE_FAULT, ts_ns) }
    }

    #[test]
    fn bins_widen_and_lose_nothing() {
        let mut timeline = Timeline::default();
        timeline.begin(1_000);
        for i in 0..10_000_u64 {
            timeline.add(&event(event_kind::INVALIDATION, 1_000 + i * 777_777));
            timeline.add(&fault(7, 1_000 + i * 777_777));
        }
        let rows = timeline.invalidations();
        assert_eq!((rows.len(), total(rows[0].1)), (1, 10_000));
        assert_eq!(total(&timeline.hottest(1)[0].1.bins), 10_000);
        assert_eq!(timeline.bin_ns(), 128_000_000);
        assert!(rows[0].1[N_BINS / 2 - 1] > 0);
    }

    #[test]
    fn a_quiet_end_is_covered_too() {
        let mut timeline = Timeline::default();
        timeline.begin(0);
        timeline.add(&fault(1, 90_000_000));
        assert_eq!(
            [30.0, 0.01, -1.0, f64::NAN].map(|s| timeline.covering(s, 0).bin_ns() / 1_000_000),
            [512, 1, 1, 1]
        );
        assert_eq!(timeline.covering(f64::INFINITY, 1).hottest(1)[0].1.bins[0], 1);
    }

    #[test]
    fn a_time_at_the_end_of_the_clock_is_survived() {
        let mut timeline = Timeline::default();
        timeline.begin(0);
        timeline.add(&fault(1, u64::MAX));
        timeline.add(&fault(1, 0));
        assert_eq!(timeline.hottest(9)[0].1.faults, 2);
    }

    #[test]
    fn frames_belong_to_the_process_that_held_the_slot_then() {
        let mut timeline = Timeline::default();
        let start = |pid| Event { slot: 2, value: pid, ..event(event_kind::VM_START, 0) };
        timeline.add(&fault(1, 1));
        for pid in [70, 80] {
            timeline.add(&start(pid));
            timeline.add(&fault(1, 1));
        }
        let holders: Vec<_> = timeline.hottest(9).iter().map(|(frame, _)| frame.holder).collect();
        assert_eq!(holders, [Holder::Process(70), Holder::Process(80), Holder::Slot(2)]);
    }

    #[test]
    fn frames_of_vms_that_share_a_slot_are_not_mixed_up() {
        let mut timeline = Timeline::default();
        timeline.add(&Event { slot: OTHER, ..fault(1, 1) });
        assert_eq!((timeline.frames(), timeline.shared_faults()), (0, 1));
    }

    #[test]
    fn unknown_discriminants_are_counted_and_mmio_is_no_memory() {
        let mut timeline = Timeline::default();
        timeline.add(&event(200, 1));
        timeline.add(&Event { cause: 200, ..event(event_kind::INVALIDATION, 1) });
        timeline.add(&Event { detail: FaultResult::Emulate as u8, ..fault(1, 1) });
        assert_eq!((timeline.events(), timeline.unreadable(), timeline.frames()), (3, 2, 0));
    }
}
