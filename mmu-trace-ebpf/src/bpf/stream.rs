//! The event stream. While nobody records, the verifier drops all of it.

use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use mmu_trace_ebpf::{
    abi::{Event, value},
    kind::Gap,
};

use super::{
    config,
    maps::{EVENTS, count},
};

/// Writes one event. The reader is woken when the ring is filled to the set mark; a timer of its
/// own fetches the rest.
#[inline(always)]
pub(super) fn emit(event: &Event) {
    if config::value(value::RECORDING) != 1 {
        return;
    }
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
        count(Gap::LostEvent);
        return;
    };
    entry.write(*event);
    let filled = EVENTS.query(BPF_RB_AVAIL_DATA as u64);
    let wake = filled >= config::value(value::WAKEUP_BYTES) as u64;
    entry.submit(if wake { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP } as u64);
}
