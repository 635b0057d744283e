//! The event stream. While nobody records, the verifier drops all of it.

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use mmu_trace_ebpf::{
    abi::{Event, value},
    kind::Gap,
};

use super::{
    config,
    maps::{EVENTS, count},
};

/// Writes the event that `describe` gives; it is not asked while nobody records. Nobody is woken: the reader
/// comes by itself, often enough for the ring's size.
#[inline(always)]
pub(super) fn emit(describe: impl FnOnce() -> Event) {
    if config::value(value::RECORDING) != 1 {
        return;
    }
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
        count(Gap::LostEvent);
        return;
    };
    entry.write(describe());
    entry.submit(BPF_RB_NO_WAKEUP as u64);
}
