//! The in-kernel logic, run in the kernel without its hooks: a sequence of kernel events is played through
//! [`Driver`] on any machine that lets root load BPF programs. Where that is refused the tests say so and pass, unless
//! `MMU_TRACE_BPF_TESTS=required`.

use mmu_trace_ebpf::{
    abi::{
        CallerRange, FIRST_SLOT, N_CALLERS, OTHER, UNATTRIBUTED, arg, driver_op as op, function, offset,
        value,
    },
    decide::scope,
    kind::{Cause, FaultResult, Gap, Initiator, Outcome},
    task::access,
};

use super::{
    constants::Constants,
    counters::CounterTable,
    driver::Driver,
    object::{self, LoadedObject, Setup},
    read,
    slots::SlotTable,
};
use crate::model::{Counters, Refaults};

const REQUIRED: &str = "MMU_TRACE_BPF_TESTS";
/// More than one, so that what is read is a sum.
const N_SHARDS: u32 = 2;
const MM: u64 = 0xffff_8880_0000_1000;
const KVM: u64 = 0xffff_c900_0000_0000;
const FIXED: u64 = FaultResult::Fixed as u64;
const RETRY: u64 = FaultResult::Retry as u64;
const PTE_RO: u64 = 0x25;
const PTE_RW: u64 = 0x27;
const READ: u64 = 0;
const WRITE: u64 = access::WRITE as u64;
const PRESENT: u64 = access::PRESENT as u64;

/// A loaded object without hooks.
struct Bench {
    driver: Driver,
    object: LoadedObject,
    slots: SlotTable,
    counters: CounterTable,
}

/// Loads the object, or says why the test is skipped.
macro_rules! driver_or_skip {
    () => {
        driver_or_skip!(Bench::load())
    };
    ($load:expr) => {
        match $load {
            Ok(driver) => driver,
            Err(reason) => {
                let is_required = std::env::var(REQUIRED).is_ok_and(|v| v == "required");
                assert!(!is_required, "{REQUIRED}=required, and {reason:#}");
                eprintln!("skipped: this machine does not run BPF programs for this user: {reason:#}");
                return;
            }
        }
    };
}

impl Bench {
    fn load() -> anyhow::Result<Self> {
        Self::load_with(None)
    }

    fn load_with(ksmd_tid: Option<u32>) -> anyhow::Result<Self> {
        let constants = Constants {
            offsets: [u32::MAX; offset::COUNT],
            values: [u32::MAX; value::COUNT],
            args: [u32::MAX; arg::COUNT],
            functions: [0; function::COUNT],
        };
        let setup = Setup {
            recording: false,
            vm_histograms: true,
            n_slots: FIRST_SLOT + 3,
            n_shards: N_SHARDS,
            ksmd_tid,
        };
        let mut object = object::load(&constants, &callers(), setup)?;
        read::fill_free_slots(&mut object.ebpf, setup.n_slots)?;
        let driver = Driver::load(&mut object.ebpf, "driver")?;
        // Long ago: what the driver runs is past the grace at the start.
        object::mark_started(&mut object.ebpf, 1)?;
        let slots = SlotTable::new(&object.ebpf)?;
        let counters = CounterTable::new(&object.ebpf, setup.n_shards, setup.vm_histograms)?;
        let mut bench = Self { driver, object, slots, counters };
        bench.run(&[op::VM_START, MM, KVM, 1]);
        Ok(bench)
    }

    fn run(&mut self, args: &[u64]) {
        self.driver.run(args).expect("the driver runs");
    }

    /// One bracket over `n` pages with KVM's unmap and, given a PTE, a `change_pte` call inside.
    fn bracket(&mut self, cause: Cause, page: u64, n: u64, zapped: bool, pte: Option<u64>) {
        let (start, end) = (page << 12, (page + n) << 12);
        self.run(&[op::RANGE_START, MM, start, end, 0x100 | 3, caller(cause)]);
        self.run(&[op::UNMAP, u64::from(zapped)]);
        if let Some(pte) = pte {
            self.run(&[op::CHANGE_PTE, MM, start, pte, caller(cause)]);
            self.run(&[op::SET_SPTE, 1, 0]);
        }
        self.run(&[op::RANGE_END, MM, start]);
    }

    /// KSM write-protects one page inside a merge; `ret` is `write_protect_page`'s.
    fn write_protect(&mut self, page: u64, zapped: bool, ret: i64) {
        self.run(&[op::SCOPE, u64::from(scope::KSM_WRITE_PROTECT), 1]);
        let pte = (ret == 0).then_some(PTE_RO);
        self.bracket(Cause::KsmWriteProtect, page, 1, zapped, pte);
        self.run(&[op::SCOPE, u64::from(scope::KSM_WRITE_PROTECT), 0, ret as u64]);
    }

    /// KSM merges one page that the guest has mapped, or not.
    fn merge(&mut self, page: u64, is_mapped: bool) {
        self.run(&[op::SCOPE, u64::from(scope::KSM_MERGE), 1]);
        self.write_protect(page, is_mapped, 0);
        self.bracket(Cause::KsmReplace, page, 1, false, Some(PTE_RO));
        self.run(&[op::SCOPE, u64::from(scope::KSM_MERGE), 0, 0]);
    }

    fn fault(&mut self, page: u64, error_code: u64, result: u64) {
        self.run(&[op::FAULT, MM, page << 12, error_code]);
        self.run(&[op::FAULT_END, result, page << 12]);
    }

    /// The counters of the only VM.
    fn vm(&self) -> Counters {
        let slots = self.slots.used();
        assert_eq!(slots.len(), 1, "one VM");
        self.counters.counters(slots[0].0).expect("counters")
    }

    fn gap(&self, gap: Gap) -> u64 {
        read::gaps(&self.object.ebpf).expect("gaps").get(&gap).copied().unwrap_or(0)
    }
}

fn caller(cause: Cause) -> u64 {
    0x1_0000 + 0x100 * cause as u64 + 0x10
}

fn callers() -> [CallerRange; N_CALLERS] {
    let mut table = [CallerRange { start: u64::MAX, len: 0, cause: 0 }; N_CALLERS];
    for (slot, &cause) in table.iter_mut().zip(&Cause::ALL[1..]) {
        *slot = CallerRange { start: caller(cause) - 0x10, len: 0x100, cause: cause as u32 };
    }
    table
}

fn outcomes(vm: &Counters, cause: Cause, outcome: Outcome) -> u64 {
    vm.change_pte.get(&cause).and_then(|o| o.get(&outcome)).copied().unwrap_or(0)
}

fn refaults(vm: &Counters, cause: Cause) -> (u64, u64) {
    let Refaults { n, avoidable, .. } = vm.refaults.get(&cause).copied().unwrap_or_default();
    (n, avoidable)
}

#[test]
fn a_merge_is_a_no_op_twice_and_costs_one_avoidable_refault() {
    let mut driver = driver_or_skip!();
    for page in 1..=10 {
        driver.merge(page, true);
    }
    for page in 1..=10 {
        driver.fault(page, READ, FIXED);
        driver.fault(page, READ, FIXED);
    }
    let vm = driver.vm();
    assert_eq!(outcomes(&vm, Cause::KsmWriteProtect, Outcome::NoopZappedByBracket), 10);
    assert_eq!(outcomes(&vm, Cause::KsmReplace, Outcome::NoopZappedBySameOp), 10);
    assert_eq!(vm.change_pte_calls(), 20);
    assert_eq!(refaults(&vm, Cause::KsmWriteProtect), (10, 10));
    assert_eq!(vm.refaults_total().n, 10);
    assert_eq!(vm.faults[&FaultResult::Fixed], 20);
    assert_eq!((vm.ksm_merges, vm.ksm_failed_attempts), (10, 0));
    assert_eq!(vm.would_be[&Cause::KsmWriteProtect], 10);
    assert_eq!(vm.would_be[&Cause::KsmReplace], 10);
}

#[test]
fn ksmd_is_known_by_its_thread_and_followed_like_any_other() {
    let own_tid = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
    let mut driver = driver_or_skip!(Bench::load_with(Some(own_tid)));
    driver.merge(1, true);
    driver.merge(2, true);
    driver.fault(1, READ, FIXED);
    let vm = driver.vm();
    assert_eq!(outcomes(&vm, Cause::KsmReplace, Outcome::NoopZappedBySameOp), 2);
    assert_eq!((vm.ksm_merges, refaults(&vm, Cause::KsmWriteProtect)), (2, (1, 1)));
    let rows = read::invalidations(&driver.object.ebpf).expect("rows");
    assert!(rows.iter().all(|row| row.initiator == Initiator::Ksmd && (row.ranges, row.pages) == (2, 2)));
}

#[test]
fn a_failed_attempt_is_not_a_missing_mapping() {
    let mut driver = driver_or_skip!();
    driver.run(&[op::SCOPE, u64::from(scope::KSM_MERGE), 1]);
    driver.write_protect(1, true, -14);
    driver.run(&[op::SCOPE, u64::from(scope::KSM_MERGE), 0, -14i64 as u64]);
    driver.merge(1, false);
    let vm = driver.vm();
    assert_eq!((vm.ksm_merges, vm.ksm_failed_attempts), (1, 1));
    assert_eq!(outcomes(&vm, Cause::KsmWriteProtect, Outcome::NoopZappedBySameOp), 1);
    assert_eq!(outcomes(&vm, Cause::KsmReplace, Outcome::NoopZappedBySameOp), 1);
    assert_eq!(vm.change_pte_outcome(Outcome::NoopNotMapped), 0);
}

#[test]
fn a_failed_attempt_makes_even_a_write_avoidable() {
    let mut driver = driver_or_skip!();
    driver.run(&[op::SCOPE, u64::from(scope::KSM_MERGE), 1]);
    driver.write_protect(1, true, -14);
    driver.run(&[op::SCOPE, u64::from(scope::KSM_MERGE), 0, -14i64 as u64]);
    driver.fault(1, WRITE, FIXED);
    assert_eq!(refaults(&driver.vm(), Cause::KsmWriteProtect), (1, 1));
}

#[test]
fn a_guest_write_costs_two_faults_and_none_is_avoidable() {
    let mut driver = driver_or_skip!();
    driver.merge(1, true);
    driver.fault(1, READ, FIXED);
    // The write faults on a present mapping, breaks the sharing inside, and must come again.
    driver.run(&[op::FAULT, MM, 0x1000, WRITE | PRESENT]);
    driver.bracket(Cause::CowHost, 1, 1, true, Some(PTE_RW));
    driver.run(&[op::FAULT_END, RETRY, 0x1000]);
    driver.fault(1, WRITE, FIXED);
    let vm = driver.vm();
    assert_eq!(outcomes(&vm, Cause::CowGuest, Outcome::NoopZappedByBracket), 1);
    assert_eq!(refaults(&vm, Cause::CowGuest), (1, 0));
    assert_eq!(vm.faults[&FaultResult::Retry], 1);
    let row = &read::invalidations(&driver.object.ebpf).expect("rows");
    assert!(row.iter().any(|r| r.cause == Cause::CowGuest && r.initiator == Initiator::Vcpu));
}

#[test]
fn a_host_write_to_an_unmapped_merged_page_is_not_mapped_and_not_avoidable() {
    let mut driver = driver_or_skip!();
    driver.merge(1, true);
    driver.bracket(Cause::CowHost, 1, 1, false, Some(PTE_RW));
    driver.fault(1, READ, FIXED);
    let vm = driver.vm();
    assert_eq!(outcomes(&vm, Cause::CowHost, Outcome::NoopNotMapped), 1);
    assert_eq!(refaults(&vm, Cause::KsmWriteProtect), (1, 0), "the merge's, and lost anyway");
    // The next merge of the page is another operation: it finds no mapping that a merge took.
    driver.bracket(Cause::CowHost, 2, 1, true, Some(PTE_RW));
    driver.merge(2, false);
    assert_eq!(outcomes(&driver.vm(), Cause::KsmReplace, Outcome::NoopNotMapped), 1);
}

#[test]
fn effective_calls_are_told() {
    let mut driver = driver_or_skip!();
    for (cause, page, pte) in [(Cause::KsmWriteProtect, 1, PTE_RO), (Cause::CowHost, 2, PTE_RW)] {
        let start = page << 12;
        driver.run(&[op::RANGE_START, MM, start, start + 0x1000, 0x103, caller(cause)]);
        driver.run(&[op::UNMAP, 0]);
        driver.run(&[op::CHANGE_PTE, MM, start, pte, caller(cause)]);
        driver.run(&[op::SET_SPTE, 1, 1]);
        driver.run(&[op::RANGE_END, MM, start]);
        driver.fault(page, READ, FIXED);
    }
    // A handler that forgets to say so (5.10) is given away by its flush.
    driver.run(&[op::RANGE_START, MM, 0x1000, 0x2000, 0x103, caller(Cause::KsmReplace)]);
    driver.run(&[op::CHANGE_PTE, MM, 0x1000, PTE_RO, caller(Cause::KsmReplace)]);
    driver.run(&[op::SET_SPTE, 1, 0]);
    driver.run(&[op::FLUSH]);
    driver.run(&[op::RANGE_END, MM, 0x1000]);
    let vm = driver.vm();
    assert_eq!(vm.change_pte_outcome(Outcome::EffectiveUpdated), 2);
    assert_eq!(vm.change_pte_outcome(Outcome::EffectiveDropped), 1);
    assert_eq!(vm.change_pte_calls(), 3);
    // What was updated is still mapped; what was dropped faults.
    assert_eq!((vm.refaults_total().n, refaults(&vm, Cause::CowHost)), (1, (1, 0)));
}

#[test]
fn memory_outside_memslots_and_without_subscriber_is_told_apart() {
    let mut driver = driver_or_skip!();
    driver.run(&[op::RANGE_START, MM, 0x1000, 0x2000, 0x103, caller(Cause::KsmReplace)]);
    driver.run(&[op::CHANGE_PTE, MM, 0x1000, PTE_RO, caller(Cause::KsmReplace)]);
    driver.run(&[op::SET_SPTE, 0, 0]);
    driver.run(&[op::CHANGE_PTE, MM, 0x1000, PTE_RO, caller(Cause::KsmReplace)]);
    driver.run(&[op::RANGE_END, MM, 0x1000]);
    let vm = driver.vm();
    assert_eq!(outcomes(&vm, Cause::KsmReplace, Outcome::NotGuestMemory), 1);
    assert_eq!(outcomes(&vm, Cause::KsmReplace, Outcome::NoSubscriber), 1);
}

#[test]
fn large_ranges_refault_once_a_page() {
    let mut driver = driver_or_skip!();
    driver.bracket(Cause::Fork, 0, 512, true, None);
    for page in 1..=8 {
        driver.fault(page, READ, FIXED);
        driver.fault(page, READ, FIXED);
    }
    driver.fault(600, READ, FIXED);
    assert_eq!(refaults(&driver.vm(), Cause::Fork), (8, 0));
    // A newer zap of one page inside the range counts on its own.
    driver.bracket(Cause::CowHost, 3, 1, true, Some(PTE_RW));
    driver.fault(3, READ, FIXED);
    driver.fault(3, READ, FIXED);
    let vm = driver.vm();
    assert_eq!((refaults(&vm, Cause::Fork).0, refaults(&vm, Cause::CowHost).0), (8, 1));
}

#[test]
fn nested_orphaned_and_unbracketed_events_are_counted() {
    let mut driver = driver_or_skip!();
    driver.run(&[op::RANGE_START, MM, 0, 0x20_0000, 0x101, caller(Cause::Unmap)]);
    driver.bracket(Cause::ThpSplit, 0, 512, true, None);
    driver.run(&[op::RANGE_END, MM, 0]);
    assert_eq!(driver.gap(Gap::OrphanBracket), 0);
    driver.run(&[op::RANGE_END, MM, 0x5000]);
    assert_eq!(driver.gap(Gap::OrphanBracket), 1);
    driver.run(&[op::CHANGE_PTE, MM, 0x1000, PTE_RO, caller(Cause::KsmReplace)]);
    assert_eq!(driver.gap(Gap::Unbracketed), 1);
    assert_eq!(driver.vm().change_pte_outcome(Outcome::Unbracketed), 1);
    for page in 0..5 {
        driver.run(&[op::RANGE_START, MM, page << 12, 5 << 12, 0x100, caller(Cause::Unmap)]);
    }
    assert_eq!((driver.gap(Gap::NestedTooDeep), driver.gap(Gap::MissedRangeEnd)), (1, 0));
}

#[test]
fn a_missed_end_shows_and_spoils_nothing_that_follows() {
    let mut driver = driver_or_skip!();
    driver.run(&[op::RANGE_START, MM, 0x1000, 0x2000, 0x100, caller(Cause::CowHost)]);
    for page in 2..12 {
        driver.bracket(Cause::CowHost, page, 1, true, Some(PTE_RW));
    }
    assert_eq!(driver.gap(Gap::MissedRangeEnd), 1);
    assert_eq!(driver.vm().change_pte_outcome(Outcome::NoopZappedByBracket), 10);

    // The inner one's end is missed, the outer one's is seen.
    driver.run(&[op::RANGE_START, MM, 0, 0x20_0000, 0x101, caller(Cause::Unmap)]);
    driver.run(&[op::RANGE_START, MM, 0, 0x20_0000, 0x100, caller(Cause::ThpSplit)]);
    driver.run(&[op::RANGE_START, MM, 0x1000, 0x2000, 0x100, caller(Cause::ThpSplit)]);
    driver.run(&[op::RANGE_END, MM, 0]);
    assert_eq!((driver.gap(Gap::MissedRangeEnd), driver.gap(Gap::OrphanBracket)), (2, 0));
}

#[test]
fn a_missed_return_shows() {
    let mut driver = driver_or_skip!();
    driver.run(&[op::FAULT, MM, 0x1000, READ]);
    driver.fault(1, READ, FIXED);
    let vm = driver.vm();
    assert_eq!(driver.gap(Gap::MissedFaultReturn), 1);
    assert_eq!((vm.faults_entered, vm.faults[&FaultResult::Fixed]), (2, 1));
}

#[test]
fn a_missed_entry_shows() {
    let mut driver = driver_or_skip!();
    driver.run(&[op::FAULT_END, FIXED, 0x1000]);
    assert_eq!((driver.gap(Gap::MissedFaultEntry), driver.vm().faults_entered), (1, 0));
}

#[test]
fn a_return_that_was_missed_shows_when_the_task_exits() {
    let mut driver = driver_or_skip!();
    driver.fault(1, READ, FIXED);
    driver.run(&[op::TASK_EXIT]);
    assert_eq!(driver.gap(Gap::MissedFaultReturn), 0);
    driver.run(&[op::FAULT, MM, 0x1000, READ]);
    driver.run(&[op::SCOPE, u64::from(scope::KSM_BREAK), 1]);
    driver.run(&[op::TASK_EXIT]);
    assert_eq!((driver.gap(Gap::MissedFaultReturn), driver.gap(Gap::MissedKsmReturn)), (1, 1));
}

#[test]
fn vms_without_a_slot_of_their_own_are_counted_together() {
    let mut driver = driver_or_skip!();
    let mm = |n: u64| MM + 0x1000 * n;
    for n in 1..5 {
        driver.run(&[op::VM_START, mm(n), KVM, n + 1]);
    }
    assert_eq!((driver.slots.used().len(), driver.gap(Gap::VmsFull)), (3, 2));
    for n in 1..5 {
        driver.run(&[op::RANGE_START, mm(n), 0x1000, 0x2000, 0x100, caller(Cause::Fork)]);
        driver.run(&[op::RANGE_END, mm(n), 0x1000]);
    }
    let ranges = |driver: &Bench, slot: u32| -> u64 {
        let rows = read::invalidations(&driver.object.ebpf).expect("rows");
        rows.iter().filter(|row| row.slot == slot).map(|row| row.ranges).sum()
    };
    assert_eq!((ranges(&driver, OTHER), ranges(&driver, UNATTRIBUTED)), (2, 0));

    // One of them ends; what its process does then is no VM's.
    driver.run(&[op::VM_END, mm(4)]);
    driver.run(&[op::RANGE_START, mm(4), 0x1000, 0x2000, 0x100, caller(Cause::Fork)]);
    driver.run(&[op::RANGE_END, mm(4), 0x1000]);
    assert_eq!((ranges(&driver, OTHER), ranges(&driver, UNATTRIBUTED)), (2, 1));
}

#[test]
fn unknown_address_spaces_are_unattributed_and_an_ended_vm_stays_readable() {
    let mut driver = driver_or_skip!();
    driver.run(&[op::RANGE_START, MM + 0x1000, 0x1000, 0x2000, 0x100, caller(Cause::Unmap)]);
    driver.run(&[op::RANGE_END, MM + 0x1000, 0x1000]);
    let rows = read::invalidations(&driver.object.ebpf).expect("rows");
    assert_eq!((rows.len(), rows[0].slot, rows[0].ranges), (1, 0, 1));
    driver.merge(1, true);
    driver.run(&[op::VM_END, MM]);
    let slots = driver.slots.used();
    assert!(slots[0].1.ended_ns > 0);
    assert_eq!(driver.vm().change_pte_calls(), 2);
    let (slot, holder) = slots[0];
    let Bench { object, slots, counters, .. } = &mut driver;
    let zero = || {
        counters.zero(slot);
        slots.zero(slot);
    };
    read::free_slot(&mut object.ebpf, slot, &holder, zero).expect("freed");
    assert!(driver.slots.used().is_empty());
    assert!(driver.counters.counters(slot).expect("counters").is_empty());
}

#[test]
fn a_merged_page_that_is_discarded_or_covered_is_not_the_merges_fault() {
    let mut driver = driver_or_skip!();
    for page in [1, 2, 3] {
        driver.merge(page, true);
    }
    // Neither finds anything mapped. After the discard it is other memory.
    driver.bracket(Cause::Discard, 1, 1, false, None);
    driver.bracket(Cause::Fork, 2, 8, false, None);
    for page in [1, 2, 3] {
        driver.fault(page, READ, FIXED);
    }
    assert_eq!(refaults(&driver.vm(), Cause::KsmWriteProtect), (2, 0));
    driver.merge(20, true);
    driver.bracket(Cause::Discard, 16, 8, false, None);
    driver.fault(20, READ, FIXED);
    assert_eq!(driver.vm().refaults_total().n, 2);
}

#[test]
fn records_of_an_ended_vm_are_not_those_of_the_next_at_the_same_address() {
    let mut driver = driver_or_skip!();
    driver.merge(1, true);
    driver.run(&[op::VM_END, MM]);
    driver.run(&[op::VM_START, MM, KVM, 1]);
    driver.fault(1, READ, FIXED);
    assert_eq!(driver.vm().refaults_total().n, 0);
}

#[test]
fn a_process_with_the_id_and_the_address_space_of_an_earlier_one_is_another() {
    let mut driver = driver_or_skip!();
    driver.merge(1, true);
    driver.run(&[op::VM_END, MM]);
    driver.run(&[op::VM_START, MM, KVM, 1, 777]);
    driver.fault(1, READ, FIXED);
    let slots = driver.slots.used();
    let figures = |index: usize| driver.counters.counters(slots[index].0).expect("counters");
    let [old, new] = if slots[0].1.born_ns == 777 { [1, 0] } else { [0, 1] };
    assert!(slots[old].1.ended_ns > 0 && slots[new].1.ended_ns == 0);
    assert_eq!((figures(old).change_pte_calls(), figures(old).faults_entered), (2, 0));
    assert_eq!((figures(new).change_pte_calls(), figures(new).faults_entered), (0, 1));
}

#[test]
fn the_vms_of_one_process_share_an_entry_that_ends_with_the_last() {
    const SECOND_KVM: u64 = KVM + 0x1_0000;
    let mut driver = driver_or_skip!();
    let slot = |driver: &Bench| driver.slots.used()[0];
    driver.merge(1, true);
    driver.run(&[op::VM_START, MM, SECOND_KVM, 1]);
    assert_eq!(slot(&driver).1.n_vms, 2);
    // What was zapped before the second began is still waited for.
    driver.fault(1, READ, FIXED);
    assert_eq!(driver.vm().refaults_total().n, 1);
    driver.run(&[op::VM_END, MM]);
    assert_eq!((slot(&driver).1.n_vms, slot(&driver).1.ended_ns), (1, 0));
    driver.run(&[op::VM_END, MM]);
    assert!(slot(&driver).1.ended_ns > 0);
    driver.run(&[op::VM_START, MM, KVM, 1]);
    assert_eq!((slot(&driver).1.n_vms, slot(&driver).1.ended_ns), (1, 0));
    assert_eq!(driver.slots.used().len(), 1);
}

#[test]
fn forgotten_ranges_are_counted() {
    let mut driver = driver_or_skip!();
    for range in 0..9 {
        driver.bracket(Cause::Fork, range * 16, 16, true, None);
    }
    assert_eq!(driver.gap(Gap::RangeForgotten), 1);
}

#[test]
fn a_fault_seen_after_the_next_zap_does_not_take_that_ones_refault() {
    let mut driver = driver_or_skip!();
    driver.bracket(Cause::KsmWriteProtect, 1, 1, true, Some(PTE_RO));
    // The vCPU maps the page, and the next bracket zaps it before the fault's end is seen.
    driver.run(&[op::FAULT, MM, 0x1000, READ]);
    driver.bracket(Cause::CowHost, 1, 1, true, Some(PTE_RW));
    driver.run(&[op::FAULT_END, FIXED, 0x1000]);
    driver.fault(1, READ, FIXED);
    driver.fault(1, READ, FIXED);
    let vm = driver.vm();
    assert_eq!((refaults(&vm, Cause::KsmWriteProtect).0, refaults(&vm, Cause::CowGuest).0), (1, 1));
}
