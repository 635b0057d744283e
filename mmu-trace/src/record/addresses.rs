//! What events say of where things are, in the kernel's text and in physical memory.
//!
//! No report needs it: a caller's cause is known by then, and of a PTE its flags say what became of the page.
//! A capture is passed on, so without being asked for it holds none of it.

use mmu_trace_ebpf::abi::{Event, event_kind};

/// Bits of a PTE that are a physical address, on x86-64 and arm64: 12 to 51. The others are flags.
const PTE_ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Whether a capture holds kernel addresses and physical ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Addresses {
    /// It does not.
    #[default]
    Concealed,
    /// As the kernel side saw them.
    Kept,
}

/// Takes them out of `event`. The virtual address in the VMM and the guest's physical one stay.
pub(super) fn conceal(event: &mut Event) {
    event.caller = 0;
    if event.kind == event_kind::CHANGE_PTE {
        event.value &= !PTE_ADDRESS;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zerocopy::{FromBytes, FromZeros, IntoBytes};

    use super::*;

    #[test]
    fn of_a_pte_the_flags_stay() {
        let mut event =
            Event { kind: event_kind::CHANGE_PTE, value: 0x8000_0001_2345_6865, ..Event::new_zeroed() };
        conceal(&mut event);
        assert_eq!(event.value, 0x8000_0000_0000_0865);
    }

    #[test]
    fn what_other_events_are_about_stays() {
        for kind in [event_kind::INVALIDATION, event_kind::PAGE_FAULT, event_kind::VM_START] {
            let event = Event { kind, value: 0x1_2345_6000, addr: 0x7f00_1234_5000, ..Event::new_zeroed() };
            let mut concealed = Event { caller: 0xffff_ffff_81a0_b1c2, ..event };
            conceal(&mut concealed);
            assert_eq!(concealed.as_bytes(), event.as_bytes());
        }
    }

    proptest! {
        #[test]
        fn no_event_keeps_a_caller_or_the_address_in_a_pte(bytes: [u8; size_of::<Event>()]) {
            let mut event = Event::read_from_bytes(&bytes).unwrap();
            conceal(&mut event);
            prop_assert_eq!(event.caller, 0);
            prop_assert!(event.kind != event_kind::CHANGE_PTE || event.value & PTE_ADDRESS == 0);
        }
    }
}
