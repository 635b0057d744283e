//! The table of VM slots.

use anyhow::Result;
use aya::Ebpf;
use mmu_trace_ebpf::abi::{FIRST_SLOT, VmSlot};

use super::mapped::Mapped;

/// Words of one slot.
const WORDS: usize = size_of::<VmSlot>() / size_of::<u64>();

/// The map `VM_SLOTS`.
pub(super) struct SlotTable(Mapped<VmSlot>);

impl SlotTable {
    /// Maps the table.
    ///
    /// # Errors
    /// The object is another one, or the kernel refuses.
    pub(super) fn new(ebpf: &Ebpf) -> Result<Self> {
        Ok(Self(Mapped::new(ebpf, "VM_SLOTS")?))
    }

    /// The slots in use, with their numbers.
    pub(super) fn used(&self) -> Vec<(u32, VmSlot)> {
        let all = (FIRST_SLOT..self.0.n()).map(|slot| (slot, self.read(slot)));
        all.filter(|(_, holder)| holder.mm != 0).collect()
    }

    /// A slot as it was at one moment: read until it is twice the same.
    fn read(&self, slot: u32) -> VmSlot {
        let mut words = self.words(slot);
        loop {
            let again = self.words(slot);
            if words == again {
                return zerocopy::transmute!(words);
            }
            words = again;
        }
    }

    fn words(&self, slot: u32) -> [u64; WORDS] {
        let mut words = [0; WORDS];
        for (to, word) in words.iter_mut().zip(self.0.words(slot)) {
            *to = word;
        }
        words
    }

    /// Marks a slot as free.
    pub(super) fn zero(&self, slot: u32) {
        self.0.zero(slot);
    }
}
