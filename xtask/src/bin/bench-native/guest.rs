//! Events as a guest under KSM makes them, for measurements that are to need no lab.
//!
//! In the lab's captures a page is merged, read, and written again: ten events, of four kinds, by three
//! threads. Here as well, with what the lab does not show: the pages come in no order, several VMs and
//! vCPUs take turns, and times are those of hardware.

use mmu_trace_ebpf::{
    abi::{Event, FIRST_SLOT, event_flags, event_kind},
    kind::{Cause, FaultResult, Initiator, Outcome},
};

/// Pages of each VM: 512 MiB.
const PAGES: u64 = 1 << 17;
/// VMs, two vCPUs each.
const VMS: u64 = 4;
/// How many merges are between a page's merge and its refault, and between that and its write.
const LAG: u64 = 5_000;
const KSMD: u32 = 61;

/// A host of guests whose pages are merged and unmerged all the time.
pub(crate) struct Guests {
    now_ns: u64,
    noise: u64,
    merged: u64,
}

impl Guests {
    pub(crate) fn new() -> Self {
        Self { now_ns: 1_000_000_000_000, noise: 0x9e37_79b9_7f4a_7c15, merged: LAG * 2 }
    }

    /// At least `n` events, in the order of their time.
    pub(crate) fn events(&mut self, n: usize) -> Vec<Event> {
        let mut events = Vec::with_capacity(n + 10);
        while events.len() < n {
            let step = self.merged;
            // Who is first changes: the three are threads of their own.
            let first = self.below(3);
            for turn in 0..3 {
                match (first + turn) % 3 {
                    0 => self.merge(step, &mut events),
                    1 => self.read(step - LAG, &mut events),
                    _ => self.write(step - 2 * LAG, &mut events),
                }
            }
            self.merged += 1;
        }
        events
    }

    /// KSM write-protects a page, replaces it and is done.
    fn merge(&mut self, step: u64, events: &mut Vec<Event>) {
        for (cause, outcome, flags) in [
            (Cause::KsmWriteProtect, Outcome::NoopZappedByBracket, event_flags::HIT | event_flags::ZAPPED),
            (Cause::KsmReplace, Outcome::NoopZappedBySameOp, event_flags::HIT),
        ] {
            let event = Event { tid: KSMD, initiator: Initiator::Ksmd as u8, ..self.event(step) };
            self.bracket(&Event { cause: cause as u8, flags, ..event }, outcome, events);
        }
        let duration_ns = u64::MAX;
        let (kind, cause, detail) = (event_kind::KSM_MERGE, Cause::KsmReplace as u8, 1);
        let initiator = Initiator::Ksmd as u8;
        events.push(Event { kind, cause, detail, initiator, tid: KSMD, duration_ns, ..self.event(step) });
    }

    /// The guest reads a merged page.
    fn read(&mut self, step: u64, events: &mut Vec<Event>) {
        let flags = event_flags::REFAULT | event_flags::AVOIDABLE;
        self.fault(step, Cause::KsmWriteProtect, FaultResult::Fixed, flags, events);
    }

    /// The guest writes a merged page: the fault copies it, and comes again.
    fn write(&mut self, step: u64, events: &mut Vec<Event>) {
        let flags = event_flags::HIT | event_flags::ZAPPED;
        let event = Event { cause: Cause::CowGuest as u8, flags, ..self.event(step) };
        self.bracket(&event, Outcome::NoopZappedByBracket, events);
        let write = event_flags::WRITE;
        self.fault(step, Cause::Other, FaultResult::Retry, write | event_flags::PRESENT, events);
        self.fault(step, Cause::CowGuest, FaultResult::Fixed, write | event_flags::REFAULT, events);
    }

    /// An invalidation with a `change_pte` inside, which ends with it.
    fn bracket(&mut self, event: &Event, outcome: Outcome, events: &mut Vec<Event>) {
        let caller = 0xffff_ffff_8130_0000 + 0x40 * u64::from(event.cause);
        let (pte, duration_ns) = (self.below(1 << 22) << 12 | 0x8000_0000_0000_0025, 40 + self.below(128));
        let (kind, detail) = (event_kind::CHANGE_PTE, outcome as u8);
        events.push(Event { kind, detail, flags: 0, caller, value: pte, duration_ns, ..*event });
        let (kind, detail, duration_ns) = (event_kind::INVALIDATION, 1, 600 + self.below(1024));
        let caller = caller - 0xcd;
        events.push(Event { kind, detail, caller, value: 4096, duration_ns, ..*event });
    }

    fn fault(&mut self, step: u64, cause: Cause, result: FaultResult, flags: u32, events: &mut Vec<Event>) {
        let event = self.event(step);
        let delay_ns = if flags & event_flags::REFAULT == 0 { 0 } else { self.below(1 << 30) };
        events.push(Event {
            kind: event_kind::PAGE_FAULT,
            cause: cause as u8,
            detail: result as u8,
            flags,
            value: event.addr - base(event.slot) + (1 << 32) + self.below(512) * 8,
            duration_ns: 1500 + self.below(2048),
            delay_ns,
            ..event
        });
    }

    /// What the events of one page have in common; time goes on.
    fn event(&mut self, step: u64) -> Event {
        self.now_ns += 150 + self.below(512);
        // An odd factor: every page once before any comes again.
        let page = (step / VMS).wrapping_mul(0x9_e375) % PAGES;
        let slot = FIRST_SLOT + (step % VMS) as u32;
        Event {
            ts_ns: self.now_ns,
            kind: 0,
            cause: 0,
            initiator: Initiator::Vcpu as u8,
            detail: 0,
            flags: 0,
            tid: 2_000 + 10 * slot + (page % 2) as u32,
            slot,
            addr: base(slot) + (page << 12),
            value: 0,
            caller: 0,
            duration_ns: 0,
            delay_ns: 0,
        }
    }

    /// A number without pattern (xorshift).
    fn below(&mut self, limit: u64) -> u64 {
        self.noise ^= self.noise << 13;
        self.noise ^= self.noise >> 7;
        self.noise ^= self.noise << 17;
        (self.noise >> 16) % limit
    }
}

/// Where a VM's memory begins in its VMM.
fn base(slot: u32) -> u64 {
    0x7f00_0000_0000 + (u64::from(slot) << 32)
}
