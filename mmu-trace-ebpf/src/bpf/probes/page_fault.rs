//! Guest faults: from the exit for a page until KVM has dealt with it. The hooks are in `arch`.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use mmu_trace_ebpf::{
    abi::{Event, N_BULK, PageKey, PageRecord, UNATTRIBUTED, event_flags, event_kind, offset},
    decide::scope,
    histogram::bucket,
    kind::{FaultResult, Gap, Initiator},
    opaque_zero,
    page::{self, Around, page_flags},
    task::{Fault, KnownVm, TaskState, access, fault_flags},
};

use super::super::{
    arch,
    maps::{self, BULK_RANGES, add, count, count_since_start, element},
    read, stream, vm,
};

/// Whose fault it is.
#[inline(always)]
fn attribute(task: &mut TaskState) -> Option<()> {
    if task.fault.flags & fault_flags::ATTRIBUTED != 0 {
        return Some(());
    }
    let vcpu = task.fault.vcpu;
    if task.vm.vcpu == vcpu && vcpu != 0 && vm::lives_in(task.vm.mm, task.vm.slot) {
        return attribute_to(task, task.vm.mm, task.vm.slot);
    }
    let kvm = read::member(vcpu, offset::VCPU_KVM).unwrap_or(0);
    let mm = read::member(kvm, offset::KVM_MM).unwrap_or(0);
    let slot = if mm == 0 { UNATTRIBUTED } else { vm::slot_or_register(mm, kvm) };
    task.vm = KnownVm { mm, vcpu, slot, pad: 0 };
    if task.scopes & scope::VCPU == 0 {
        task.scopes |= scope::VCPU;
        vm::note_kvm(slot, kvm);
    }
    attribute_to(task, mm, slot)
}

/// The same for a fault whose end was missed: what it knew of the VM may be gone, so that no VM is registered.
#[inline(always)]
pub(super) fn attribute_missed(task: &mut TaskState) {
    if task.fault.flags & fault_flags::ATTRIBUTED == 0 {
        let kvm = read::member(task.fault.vcpu, offset::VCPU_KVM).unwrap_or(0);
        let mm = read::member(kvm, offset::KVM_MM).unwrap_or(0);
        let _ = attribute_to(task, mm, vm::slot_of(mm));
    }
}

/// Counts the fault as begun.
#[inline(always)]
pub(super) fn attribute_to(task: &mut TaskState, mm: u64, slot: u32) -> Option<()> {
    task.fault.mm = mm;
    task.fault.slot = slot;
    task.fault.flags |= fault_flags::ATTRIBUTED;
    let stats = maps::stats(slot)?;
    add(&mut stats.faults_entered, 1);
    if task.fault.access & access::PRESENT != 0 {
        add(&mut stats.permission_faults, 1);
    }
    Some(())
}

/// The page at `hva` was mapped without a fault of its own: what tore it down is over.
#[inline(always)]
#[cfg_attr(bpf_target_arch = "aarch64", expect(dead_code, reason = "arm64's KVM maps no neighbours"))]
pub(in super::super) fn mapped_ahead(hva: u64) -> Option<()> {
    let task = faulting_task()?;
    attribute(task)?;
    let key = PageKey { mm: task.fault.mm, page: hva >> 12 };
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    if let Some(page) = maps::page(&key, task.fault.slot) {
        maps::settle(page, now);
    } else if ranges_around(task.fault.slot, hva).zap_ns != 0 {
        maps::put_page(&key, &PageRecord { taken_ns: now, ..page::no_record() });
    }
    Some(())
}

/// The current task, if it is inside a guest fault.
#[inline(always)]
pub(in super::super) fn faulting_task() -> Option<&'static mut TaskState> {
    let task = maps::task(read::current_ids().0)?;
    if task.scopes & scope::FAULT != 0 { Some(task) } else { None }
}

/// Where the guest's frame `gfn` lies in the VMM.
#[inline(always)]
pub(in super::super) fn memslot_hva(slot: u64, gfn: u64) -> Option<u64> {
    let (base_gfn, base_hva) = read::two_members(slot, offset::MEMSLOT_GFN, offset::MEMSLOT_HVA)?;
    Some(base_hva.wrapping_add(gfn.wrapping_sub(base_gfn) << 12))
}

/// A guest fault begins: a vCPU enters KVM's fault handler; `how` are bits of [`access`].
///
/// This is the first that runs after the guest, with the caches full of the guest's data: whatever can wait is
/// done once KVM has been at work itself.
#[inline(always)]
pub(in super::super) fn begin(vcpu: u64, gpa: u64, how: u8) -> Option<&'static mut TaskState> {
    let task = maps::task_or_new(read::current_ids().0)?;
    if task.scopes & scope::FAULT != 0 {
        count(Gap::MissedFaultReturn);
        attribute_missed(task);
    }
    task.scopes |= scope::FAULT;
    const { assert!(UNATTRIBUTED == 0) };
    let zero = opaque_zero();
    task.fault = Fault {
        // SAFETY: no preconditions.
        t0_ns: unsafe { bpf_ktime_get_ns() },
        gpa,
        vcpu,
        fault: zero,
        hva: zero,
        mm: zero,
        delay_ns: zero,
        slot: zero as u32,
        result: FaultResult::Other as u8,
        cause: zero as u8,
        flags: zero as u8,
        access: how,
    };
    Some(task)
}

/// The result of the guest fault is known: was it a refault?
#[inline(always)]
pub(in super::super) fn resolved(task: &mut TaskState, result: u8, hva: u64) -> Option<()> {
    task.fault.result = result;
    task.fault.hva = hva;
    let not_present = task.fault.access & access::PRESENT == 0;
    if result != FaultResult::Fixed as u8 || !not_present || hva == 0 {
        return None;
    }
    attribute(task)?;
    let key = PageKey { mm: task.fault.mm, page: hva >> 12 };
    let record = take_record(&key, task.fault.slot, hva, task.fault.t0_ns);
    if record.flags & page_flags::PENDING == 0 {
        return None;
    }
    let is_avoidable = page::is_avoidable(&record, task.fault.access & access::WRITE != 0, arch::INSTALLS);
    task.fault.cause = record.cause;
    task.fault.delay_ns = task.fault.t0_ns.saturating_sub(record.zap_ns);
    task.fault.flags |= fault_flags::REFAULT | if is_avoidable { fault_flags::AVOIDABLE } else { 0 };
    let stats = maps::stats(task.fault.slot)?;
    let refaults = element(&mut stats.refaults, record.cause as usize);
    add(&mut refaults.n, 1);
    if is_avoidable {
        add(&mut refaults.avoidable, 1);
    }
    Some(())
}

/// Takes the record of a page that is mapped again; without `PENDING` the fault is no refault.
#[inline(always)]
fn take_record(key: &PageKey, slot: u32, hva: u64, t0_ns: u64) -> PageRecord {
    let around = ranges_around(slot, hva);
    let Some(page) = maps::page(key, slot) else {
        if around.zap_ns != 0 {
            // A mark inside a large zapped range: mapped again after that zap.
            maps::put_page(key, &PageRecord { taken_ns: around.zap_ns, ..page::no_record() });
        }
        return page::refault(page::no_record(), &around);
    };
    let own = *page;
    if page::is_late(&own, t0_ns) {
        page.carried = own.carried.wrapping_add(1);
        return page::previous(&own);
    }
    if page::is_pending(&own) {
        count(Gap::PageSettled);
    }
    page.carried = own.carry;
    page.taken_ns = if own.zap_ns > around.zap_ns { own.zap_ns } else { around.zap_ns };
    page::refault(own, &around)
}

#[inline(always)]
fn ranges_around(slot: u32, hva: u64) -> Around {
    const NOTHING: Around = Around { newest_ns: 0, newest_cause: 0, zap_cause: 0, zap_ns: 0 };
    let Some(bulk) = BULK_RANGES.get(slot).filter(|bulk| bulk.n != 0) else { return NOTHING };
    let zero = bulk.zero;
    let mut around =
        Around { newest_ns: zero, newest_cause: zero as u32, zap_cause: zero as u32, zap_ns: zero };
    for index in 0..N_BULK {
        // By index, not by iterator: the compiler would compute with differences of pointers.
        let range = &bulk.ranges[core::hint::black_box(index) & (N_BULK - 1)];
        if range.start > hva || hva >= range.end {
            continue;
        }
        if range.end_ns > around.newest_ns {
            around.newest_ns = range.end_ns;
            around.newest_cause = range.cause;
        }
        if range.zapped != 0 && range.end_ns > around.zap_ns {
            around.zap_ns = range.end_ns;
            around.zap_cause = range.cause;
        }
    }
    around
}

/// A guest fault ends.
#[inline(always)]
pub(in super::super) fn finish() -> Option<()> {
    let Some(task) = faulting_task() else {
        count_since_start(Gap::MissedFaultEntry);
        return None;
    };
    task.scopes &= !scope::FAULT;
    let _ = attribute(task);
    if task.fault.flags & fault_flags::RESULT_PENDING != 0 {
        count(Gap::MissedResultReturn);
    }
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    let fault = &task.fault;
    let ns = now.wrapping_sub(fault.t0_ns);
    let refault = fault.flags & fault_flags::REFAULT != 0;
    let stats = maps::stats(fault.slot)?;
    add(element(&mut stats.faults, fault.result as usize), 1);
    add(&mut stats.faults_ns, ns);
    if refault {
        let refaults = element(&mut stats.refaults, fault.cause as usize);
        add(&mut refaults.ns, ns);
        if fault.flags & fault_flags::AVOIDABLE != 0 {
            add(&mut refaults.avoidable_ns, ns);
        }
    }
    note_durations(fault, ns, refault);
    emit(fault, now, ns);
    Some(())
}

#[inline(always)]
fn note_durations(fault: &Fault, ns: u64, refault: bool) -> Option<()> {
    let histograms = maps::histograms(fault.slot)?;
    let duration = bucket(ns);
    add(element(&mut histograms.fault, duration), 1);
    if refault {
        add(element(&mut histograms.refault, duration), 1);
        add(element(&mut histograms.refault_delay, bucket(fault.delay_ns)), 1);
    }
    Some(())
}

#[inline(always)]
fn emit(fault: &Fault, now: u64, ns: u64) {
    let flag = |is_set: bool, flag: u32| if is_set { flag } else { 0 };
    stream::emit(|| Event {
        ts_ns: now,
        kind: event_kind::PAGE_FAULT,
        cause: fault.cause,
        initiator: Initiator::Vcpu as u8,
        detail: fault.result,
        flags: flag(fault.flags & fault_flags::REFAULT != 0, event_flags::REFAULT)
            | flag(fault.flags & fault_flags::AVOIDABLE != 0, event_flags::AVOIDABLE)
            | flag(fault.access & access::WRITE != 0, event_flags::WRITE)
            | flag(fault.access & access::PRESENT != 0, event_flags::PRESENT),
        tid: read::current_ids().0,
        slot: fault.slot,
        addr: fault.hva,
        value: fault.gpa,
        caller: 0,
        duration_ns: ns,
        delay_ns: fault.delay_ns,
    });
}
