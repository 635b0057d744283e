//! What a snapshot says beside the counters: which kernel this is, and what KSM says of itself; and all
//! that there is to say while KVM is not traced.

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    catalogue::{CHANGE_PTE, HOOKS},
    pseudo,
};
use crate::{
    kernel::{
        kallsyms::Kallsyms,
        ksm::{self, KSM_ROOT},
    },
    model::{Counters, Histograms, HookState, Host, Ksm, Quality, Snapshot, Window},
};

/// This kernel.
pub(super) fn describe_host(kallsyms: Option<&Kallsyms>) -> Host {
    let uname = rustix::system::uname();
    Host {
        kernel: uname.release().to_string_lossy().into_owned(),
        arch: uname.machine().to_string_lossy().into_owned(),
        has_change_pte: kallsyms.is_some_and(|k| k.contains(CHANGE_PTE)),
    }
}

/// KSM's state now.
pub(super) fn ksm() -> Option<Ksm> {
    ksm::load(Path::new(KSM_ROOT), Path::new("/proc"))
}

/// Nanoseconds since the Unix epoch.
pub(super) fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// What is known while KVM is not traced: the host, and why there is nothing else.
#[must_use]
pub fn waiting_snapshot(reason: &str) -> Snapshot {
    let kallsyms = Kallsyms::load().ok();
    let reason = Some(reason.to_owned());
    let hooks = HOOKS
        .iter()
        .map(|spec| {
            let symbol = spec.symbols.first().copied().unwrap_or_default();
            pseudo::hook(spec.name, symbol, HookState::Absent, true, reason.clone())
        })
        .collect();
    Snapshot {
        host: describe_host(kallsyms.as_ref()),
        window: Window { start_unix_ns: unix_ns(), seconds: 0.0 },
        quality: Quality { hooks, ..Quality::default() },
        vms: Vec::new(),
        unattributed: Counters::default(),
        histograms: Histograms::default(),
        ksm: ksm(),
        programs: None,
    }
}
