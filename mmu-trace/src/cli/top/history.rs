//! The refault rates of the last minutes, for the sparkline.

use std::collections::VecDeque;

use crate::model::{Delta, VmKey};

/// Rates kept: the width of a very wide terminal.
const MAX_RATES: usize = 512;

/// Refaults per second, of all VMs and of each, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    all: VecDeque<f64>,
    vms: Vec<(VmKey, VecDeque<f64>)>,
}

impl History {
    /// Adds the rates of `delta` and forgets the VMs that are not in it.
    pub(super) fn add(&mut self, delta: &Delta) {
        let rates = delta.vms.iter().map(|vm| delta.rate(vm.counted.refaults_total().n));
        let rates: Vec<f64> = rates.collect();
        push(&mut self.all, rates.iter().sum());
        let mut old = std::mem::take(&mut self.vms);
        for (vm, rate) in delta.vms.iter().zip(rates) {
            let known = old.iter().position(|(key, _)| key.is_same(&vm.key));
            let mut past = known.map_or_else(VecDeque::new, |at| old.swap_remove(at).1);
            push(&mut past, rate);
            self.vms.push((vm.key.clone(), past));
        }
    }

    /// The rates of `vm`, or of all; empty for a VM that is gone.
    pub(super) fn of(&self, vm: Option<&VmKey>) -> Vec<f64> {
        let past = match vm {
            None => Some(&self.all),
            Some(vm) => self.vms.iter().find(|(key, _)| key.is_same(vm)).map(|(_, past)| past),
        };
        past.into_iter().flatten().copied().collect()
    }
}

fn push(past: &mut VecDeque<f64>, rate: f64) {
    if past.len() == MAX_RATES {
        past.pop_front();
    }
    past.push_back(rate);
}

#[cfg(test)]
mod tests {
    use mmu_trace_ebpf::kind::Cause;

    use super::*;
    use crate::model::{Counters, Refaults, VmDelta, VmIdentity};

    fn delta(vms: &[(u32, u64)]) -> Delta {
        let vm = |&(pid, n): &(u32, u64)| {
            let identity = VmIdentity { name: "a".into(), pid, ..VmIdentity::default() };
            let refaults = [(Cause::CowGuest, Refaults { n, ..Refaults::default() })].into();
            let counted = Counters { refaults, ..Counters::default() };
            let key = VmKey::from(&identity);
            VmDelta { key, identity, mmu: None, alive: true, total: counted.clone(), counted }
        };
        Delta { seconds: 2.0, vms: vms.iter().map(vm).collect() }
    }

    #[test]
    fn each_vm_has_its_own_and_those_that_go_are_forgotten() {
        let mut history = History::default();
        let first = delta(&[(1, 10), (2, 4)]);
        history.add(&first);
        history.add(&delta(&[(2, 6)]));
        let of = |at: usize| history.of(Some(&first.vms[at].key));
        assert_eq!((of(0), of(1), history.of(None)), (vec![], vec![2.0, 3.0], vec![7.0, 3.0]));
    }

    #[test]
    fn it_does_not_grow_for_ever() {
        let mut history = History::default();
        for _ in 0..2 * MAX_RATES {
            history.add(&delta(&[(1, 1)]));
        }
        assert_eq!(history.of(None).len(), MAX_RATES);
    }
}
