//! Events as columns: the payload of an EVENTS block before compression.
//!
//! Most fields of an event are those of an earlier one: they make its *shape*, and an event names its shape
//! by number. What is left are five numbers, small as differences from what was last seen. Times and
//! durations are noise, and most of what a capture consists of.
//!
//! ```text
//! payload  u32 shapes | columns of the shapes | columns of the events
//!
//! shapes   kinds (kind, cause, initiator, detail) | flags | tid | slot | caller
//!          each as its difference from the shape before
//! events   shape        its number
//!          ts_ns        difference from the event before
//!          addr         difference from the last one of the same tid
//!          value        difference from the last one of the same shape; of a fault: first less addr,
//!                       which leaves where the guest's memory lies
//!          duration_ns  plus 1, so that the unknown one is 0
//!          delay_ns
//! ```
//!
//! Differences wrap at 64 bit and are zigzag coded: 0, -1, 1, -2 are 0, 1, 2, 3. All numbers are
//! little-endian. Whatever the fields hold, they come back as they were.

use std::collections::HashMap;

use mmu_trace_ebpf::abi::{Event, event_kind};

use super::{
    column::{Column, MAX_NUMBER, split, unzigzag, zigzag},
    u32_at,
};

/// Most events in a block: what a reader can be made to allocate by a hostile file.
pub(super) const MAX_EVENTS: u32 = 1 << 16;
/// Columns of the shapes.
const N_OF_SHAPE: usize = 5;
/// Columns of the events.
const N_OF_EVENT: usize = 6;
/// Bytes before the columns.
const HEAD_LEN: usize = 4;

/// Whether `raw_len` bytes can be the columns of `n_events`: to be asked before anything is allocated for
/// them.
pub(super) fn is_possible(n_events: u32, raw_len: usize) -> bool {
    if n_events > MAX_EVENTS {
        return false;
    }
    let n = n_events as usize;
    let columns_len = n * N_OF_EVENT..=n * MAX_NUMBER * (N_OF_EVENT + N_OF_SHAPE);
    raw_len.checked_sub(HEAD_LEN).is_some_and(|len| columns_len.contains(&len))
}

/// `events` as columns.
pub(super) fn encode(events: &[Event]) -> Vec<u8> {
    let mut shapes = Shapes::default();
    let mut history = History::default();
    let mut columns: [Column; N_OF_EVENT] = std::array::from_fn(|_| Column::with_capacity(events.len()));
    for event in events {
        let shape = shapes.number_of(event, &mut history);
        let [number, differences @ ..] = &mut columns;
        number.push(shape as u64);
        for (column, difference) in differences.iter_mut().zip(history.differences(shape, event)) {
            column.push(difference);
        }
    }
    let mut raw = (history.shapes.len() as u32).to_le_bytes().to_vec();
    encode_shapes(&history.shapes).iter().chain(&columns).for_each(|column| column.write(&mut raw));
    raw
}

/// The `n_events` events of which `raw` are the columns; `None` if it is anything else.
pub(super) fn decode(raw: &[u8], n_events: u32) -> Option<Vec<Event>> {
    let n_shapes = u32_at(raw, 0);
    if !is_possible(n_events, raw.len()) || n_shapes > n_events {
        return None;
    }
    let mut rest = &raw[HEAD_LEN..];
    let mut history = decode_shapes(&mut rest, n_shapes as usize)?;
    let [mut shapes, mut times, mut addrs, mut values, mut durations, mut delays] =
        split::<N_OF_EVENT>(&mut rest, n_events as usize)?;
    let mut events = Vec::with_capacity(n_events as usize);
    for _ in 0..n_events {
        let shape = usize::try_from(shapes.next()?).ok()?;
        let differences = [times.next()?, addrs.next()?, values.next()?, durations.next()?, delays.next()?];
        events.push(history.event(shape, differences)?);
    }
    rest.is_empty().then_some(events)
}

/// The fields that make a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Shape {
    kinds: [u8; 4],
    flags: u32,
    tid: u32,
    slot: u32,
    caller: u64,
}

impl Shape {
    fn of(event: &Event) -> Self {
        let &Event { kind, cause, initiator, detail, flags, tid, slot, caller, .. } = event;
        Self { kinds: [kind, cause, initiator, detail], flags, tid, slot, caller }
    }

    fn numbers(&self) -> [u64; N_OF_SHAPE] {
        let kinds = u32::from_le_bytes(self.kinds);
        [kinds.into(), self.flags.into(), self.tid.into(), self.slot.into(), self.caller]
    }

    /// `None` if a number is too large for its field.
    fn from_numbers([kinds, flags, tid, slot, caller]: [u64; N_OF_SHAPE]) -> Option<Self> {
        let [kinds, flags, tid, slot] = [kinds, flags, tid, slot].map(u32::try_from);
        Some(Self {
            kinds: kinds.ok()?.to_le_bytes(),
            flags: flags.ok()?,
            tid: tid.ok()?,
            slot: slot.ok()?,
            caller,
        })
    }
}

/// The numbers of the shapes, while they are given.
#[derive(Default)]
struct Shapes {
    numbers: HashMap<Shape, usize>,
    /// For each shape the one that came behind it last: mostly it does again.
    successors: Vec<usize>,
    last: usize,
}

impl Shapes {
    /// The number of the event's shape, a new one if there is none.
    fn number_of(&mut self, event: &Event, history: &mut History) -> usize {
        let shape = Shape::of(event);
        let guess = self.successors.get(self.last).copied().unwrap_or(0);
        if history.shapes.get(guess).is_some_and(|known| known.shape == shape) {
            self.last = guess;
            return guess;
        }
        let number = *self.numbers.entry(shape).or_insert_with(|| history.add(shape));
        if number == self.successors.len() {
            self.successors.push(number);
        }
        self.successors[self.last] = number;
        self.last = number;
        number
    }
}

/// A shape, and what the next event of that shape is compared with.
struct Known {
    shape: Shape,
    /// Where [`History::addrs`] has its thread.
    thread: usize,
    value: u64,
}

/// What the next event is compared with: the same on both sides.
#[derive(Default)]
struct History {
    ts_ns: u64,
    shapes: Vec<Known>,
    threads: HashMap<u32, usize>,
    addrs: Vec<u64>,
}

impl History {
    /// Adds a shape and returns its number.
    fn add(&mut self, shape: Shape) -> usize {
        let n_threads = self.threads.len();
        let thread = *self.threads.entry(shape.tid).or_insert(n_threads);
        self.addrs.resize(self.threads.len(), 0);
        self.shapes.push(Known { shape, thread, value: 0 });
        self.shapes.len() - 1
    }

    /// The numbers of `event`, which has the shape numbered `shape`.
    fn differences(&mut self, shape: usize, event: &Event) -> [u64; N_OF_EVENT - 1] {
        let known = &mut self.shapes[shape];
        let addr = &mut self.addrs[known.thread];
        let value = event.value.wrapping_sub(part_of_value(known.shape, event.addr));
        let differences = [
            zigzag(event.ts_ns.wrapping_sub(self.ts_ns)),
            zigzag(event.addr.wrapping_sub(*addr)),
            zigzag(value.wrapping_sub(known.value)),
            event.duration_ns.wrapping_add(1),
            event.delay_ns,
        ];
        (self.ts_ns, *addr, known.value) = (event.ts_ns, event.addr, value);
        differences
    }

    /// The event that these are the numbers of; `None` if there is no such shape.
    fn event(&mut self, shape: usize, differences: [u64; N_OF_EVENT - 1]) -> Option<Event> {
        let [ts, addr, value, duration, delay_ns] = differences;
        let known = self.shapes.get_mut(shape)?;
        let last_addr = self.addrs.get_mut(known.thread)?;
        self.ts_ns = self.ts_ns.wrapping_add(unzigzag(ts));
        *last_addr = last_addr.wrapping_add(unzigzag(addr));
        known.value = known.value.wrapping_add(unzigzag(value));
        let Shape { kinds: [kind, cause, initiator, detail], flags, tid, slot, caller } = known.shape;
        Some(Event {
            ts_ns: self.ts_ns,
            kind,
            cause,
            initiator,
            detail,
            flags,
            tid,
            slot,
            addr: *last_addr,
            value: known.value.wrapping_add(part_of_value(known.shape, *last_addr)),
            caller,
            duration_ns: duration.wrapping_sub(1),
            delay_ns,
        })
    }
}

/// What of an event's value follows from its address.
fn part_of_value(shape: Shape, addr: u64) -> u64 {
    if shape.kinds[0] == event_kind::PAGE_FAULT { addr } else { 0 }
}

fn encode_shapes(shapes: &[Known]) -> [Column; N_OF_SHAPE] {
    let mut columns = std::array::from_fn(|_| Column::with_capacity(shapes.len()));
    let mut last = [0; N_OF_SHAPE];
    for known in shapes {
        let numbers = known.shape.numbers();
        for ((column, number), last) in columns.iter_mut().zip(numbers).zip(last) {
            column.push(zigzag(number.wrapping_sub(last)));
        }
        last = numbers;
    }
    columns
}

fn decode_shapes(rest: &mut &[u8], n: usize) -> Option<History> {
    let mut columns = split::<N_OF_SHAPE>(rest, n)?;
    let mut history = History::default();
    let mut numbers = [0_u64; N_OF_SHAPE];
    for _ in 0..n {
        for (number, column) in numbers.iter_mut().zip(&mut columns) {
            *number = number.wrapping_add(unzigzag(column.next()?));
        }
        history.add(Shape::from_numbers(numbers)?);
    }
    Some(history)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{
        Just, ProptestConfig, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest,
    };
    use zerocopy::{FromBytes, IntoBytes};

    use super::*;

    /// A field's value: often an earlier one, at times an extreme.
    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![
            0..4_u64,
            (0..8_u64).prop_map(|page| page << 12),
            prop_oneof![0..2_u64, Just(u64::MAX), Just(1 << 63), Just((1 << 63) - 1)],
            any::<u64>(),
        ]
    }

    fn events() -> impl Strategy<Value = Vec<[u64; 8]>> {
        prop::collection::vec(prop::array::uniform8(number()), 0..100)
    }

    fn event(words: &[u64; 8]) -> Event {
        Event::read_from_bytes(words.as_bytes()).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn events_come_back_as_they_were(words in events()) {
            let raw = encode(&words.iter().map(event).collect::<Vec<_>>());
            let n = words.len() as u32;
            prop_assert!(is_possible(n, raw.len()));
            let read = decode(&raw, n).unwrap();
            prop_assert_eq!(read.as_bytes(), words.as_bytes());
        }

        #[test]
        fn columns_that_are_cut_or_longer_are_refused(words in events(), len: prop::sample::Index) {
            let raw = encode(&words.iter().map(event).collect::<Vec<_>>());
            let n = words.len() as u32;
            prop_assert!(decode(&raw[..len.index(raw.len())], n).is_none());
            prop_assert!(decode(&[&raw, &[0][..]].concat(), n).is_none());
        }

        #[test]
        fn whatever_is_changed_no_reader_panics(words in events(), at: prop::sample::Index, bit in 0..8_u32) {
            let mut raw = encode(&words.iter().map(event).collect::<Vec<_>>());
            let at = at.index(raw.len());
            raw[at] ^= 1 << bit;
            prop_assert!(decode(&raw, words.len() as u32).is_none_or(|read| read.len() == words.len()));
        }
    }

    /// The columns of two equal events, of which the parts are told below.
    fn two_equal() -> Vec<u8> {
        let raw = encode(&[event(&[0; 8]), event(&[0; 8])]);
        assert_eq!(raw, [&[1, 0, 0, 0], &[0; 5][..], &[0, 0], &[0; 6], &[1, 1], &[1, 1], &[0, 0]].concat());
        raw
    }

    #[test]
    fn impossible_columns_are_refused() {
        let raw = two_equal();
        assert!(decode(&raw, 2).is_some());
        let changed = |at: usize, to: u8| {
            let mut raw = raw.clone();
            raw[at] = to;
            decode(&raw, 2).is_none()
        };
        assert!(changed(0, 0), "an event of a shape that is not there");
        assert!(changed(0, 3), "more shapes than events");
        assert!(changed(3, 0xff), "far more shapes than events");
        assert!(changed(17, 9), "a number of nine bytes");
        assert!(changed(9, 1), "a column that is longer than the block");
    }

    #[test]
    fn a_field_that_its_number_does_not_fit_into_is_refused() {
        let shape = [&[5, 0, 0, 0, 0][..], &[0xff; 5]].concat();
        let raw = [&[1, 0, 0, 0], &shape[..], &[0; 4], &[1], &[0], &[1]].concat();
        assert!(is_possible(1, raw.len()) && decode(&raw, 1).is_none());
    }

    #[test]
    fn only_possible_lengths_are_unpacked() {
        assert!(is_possible(0, 4) && is_possible(1, 10) && is_possible(1, 103));
        assert!(!is_possible(0, 3) && !is_possible(0, 5) && !is_possible(1, 9) && !is_possible(1, 104));
        assert!(is_possible(MAX_EVENTS, 1 << 20) && !is_possible(MAX_EVENTS + 1, 1 << 20));
        assert!(!is_possible(u32::MAX, usize::MAX) && !is_possible(u32::MAX, 0));
    }
}
