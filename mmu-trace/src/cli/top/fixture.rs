//! Two snapshots, two seconds apart, for the tests.

use std::collections::BTreeMap;

use mmu_trace_ebpf::kind::{Cause, FaultResult, Gap, Initiator, Outcome};

use crate::model::{
    Backend, Counters, Histograms, Hook, HookState, Host, Invalidation, InvalidationKey, KsmAccount, Mmu,
    Quality, Refaults, Snapshot, Vm, VmIdentity, Window,
};

/// A busy VM, a less busy one with a long history, and an idle one.
pub(super) fn interval() -> [Snapshot; 2] {
    let vms = |now: u64| {
        vec![
            vm("web1", 4242, busy(100 + 400 * now)),
            vm("db-primary", 77, busy(1_000_000 + 12 * now)),
            vm("idle", 5, Counters::default()),
        ]
    };
    [snapshot(8.0, vms(0)), snapshot(10.0, vms(1))]
}

/// The same on a kernel without `change_pte`, with losses and a hook that is missing.
pub(super) fn incomplete() -> [Snapshot; 2] {
    interval().map(|mut snapshot| {
        snapshot.host.has_change_pte = false;
        snapshot.quality.gaps = BTreeMap::from([(Gap::OrphanBracket, 3)]);
        snapshot.quality.hooks.push(Hook {
            hook: "ksm_merge".to_owned(),
            symbol: "try_to_merge_one_page".to_owned(),
            backend: Backend::None,
            state: HookState::Failed,
            required: true,
            reason: Some("operation not permitted".to_owned()),
        });
        for vm in &mut snapshot.vms {
            vm.counters.change_pte.clear();
        }
        snapshot
    })
}

fn snapshot(seconds: f64, vms: Vec<Vm>) -> Snapshot {
    let hook = Hook {
        hook: "invalidate_range_start".to_owned(),
        symbol: "__mmu_notifier_invalidate_range_start".to_owned(),
        backend: Backend::Fentry,
        state: HookState::Attached,
        required: true,
        reason: None,
    };
    Snapshot {
        host: Host { kernel: "6.1.0-38-cloud-amd64".into(), arch: "x86_64".into(), has_change_pte: true },
        window: Window { start_unix_ns: 7, seconds },
        quality: Quality { hooks: vec![hook], ..Quality::default() },
        vms,
        unattributed: Counters::default(),
        histograms: Histograms::default(),
        ksm: None,
        programs: None,
    }
}

fn vm(name: &str, pid: u32, counters: Counters) -> Vm {
    let identity =
        VmIdentity { name: name.into(), pid, vmm: "qemu".into(), n_vms: 1, ..VmIdentity::default() };
    Vm { identity, mmu: Some(Mmu::Tdp), alive: true, counters, histograms: None, ksm: KsmAccount::default() }
}

/// Counters of a VM that lost `n` pages to KSM.
fn busy(n: u64) -> Counters {
    let refaults = |n, avoidable| Refaults { n, avoidable, ns: n * 60_000, avoidable_ns: avoidable * 60_000 };
    Counters {
        change_pte: BTreeMap::from([
            (Cause::KsmWriteProtect, BTreeMap::from([(Outcome::NoopZappedByBracket, n)])),
            (
                Cause::KsmReplace,
                BTreeMap::from([(Outcome::NoopZappedBySameOp, n - n / 4), (Outcome::NotGuestMemory, n / 4)]),
            ),
        ]),
        would_be: BTreeMap::from([(Cause::KsmWriteProtect, n), (Cause::KsmReplace, n)]),
        invalidations: vec![
            row(Cause::KsmWriteProtect, Initiator::Ksmd, n, None),
            row(Cause::KsmReplace, Initiator::Ksmd, n / 8, None),
            row(Cause::Other, Initiator::Vmm, n / 4, Some("zap_page_range_single")),
        ],
        faults_entered: n + n / 10,
        faults: BTreeMap::from([(FaultResult::Fixed, n), (FaultResult::Retry, n / 10)]),
        refaults: BTreeMap::from([
            (Cause::KsmWriteProtect, refaults(n / 2, n / 2)),
            (Cause::CowGuest, refaults(n / 4, 0)),
        ]),
        ksm_merges: n,
        ksm_cow_breaks: n / 4,
        ..Counters::default()
    }
}

fn row(cause: Cause, initiator: Initiator, n: u64, caller: Option<&str>) -> Invalidation {
    let key = InvalidationKey { cause, initiator, event: "clear".to_owned() };
    Invalidation { key, ranges: n, pages: 2 * n, zapped: n, ns: 900 * n, caller: caller.map(Into::into) }
}
