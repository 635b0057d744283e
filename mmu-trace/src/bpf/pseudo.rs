//! Sources of knowledge that are no probes but are reported like hooks: the kernel's types, its symbols,
//! and the discovery of VMs that already run.

use std::{fs, path::Path};

use super::{catalogue::GET_TASK_MM, constants::Constants, ladder, object::LoadedObject};
use crate::{
    kernel::{btf::Btf, kallsyms::Kallsyms},
    model::{Backend, Hook, HookState},
    vm::{self, Descriptors},
};

/// Registers the VMs that already run: reading a VMM's status makes the kernel hand out its address
/// space, which the discovery probe sees.
pub(super) fn discover(
    object: &mut LoadedObject,
    btf: &Btf,
    kallsyms: &Kallsyms,
    descriptors: &Descriptors,
) -> Hook {
    let symbol = kallsyms.variants(GET_TASK_MM).next().map_or(GET_TASK_MM, |s| s.name).to_owned();
    let found = match vm::discover(Path::new("/proc"), descriptors) {
        Ok(found) => found,
        Err(e) => {
            return hook(ladder::DISCOVERY, &symbol, HookState::Failed, false, Some(ladder::chain(&e)));
        }
    };
    let reason = match ladder::attach_discovery(object, btf, &symbol) {
        Err(refusal) => Some(refusal),
        Ok(discovery) => {
            for vm in &found.vms {
                // A process that is gone by now has no VM to register.
                let _ = fs::read_to_string(format!("/proc/{}/status", vm.pid));
            }
            ladder::detach_discovery(object, discovery);
            None
        }
    };
    let state = if reason.is_some() { HookState::Failed } else { HookState::Attached };
    hook(ladder::DISCOVERY, &symbol, state, false, reason)
}

/// The kernel types that the object is told of.
pub(super) fn types_hook(constants: &Constants) -> Hook {
    let missing = constants.missing();
    let reason = (!missing.is_empty()).then(|| format!("BTF has no {}", missing.join(", ")));
    let state = if reason.is_some() { HookState::Failed } else { HookState::Attached };
    hook("kernel_types", "BTF", state, true, reason)
}

/// The symbols by which causes are known.
pub(super) fn callers_hook(kallsyms: &Kallsyms, left_out: &[String]) -> Hook {
    let reason = if kallsyms.addresses_hidden() {
        Some(
            "/proc/kallsyms hides addresses (kernel.kptr_restrict): causes come from the KSM hooks alone"
                .into(),
        )
    } else if left_out.is_empty() {
        None
    } else {
        Some(format!("no room in the table of callers for {}", left_out.join(", ")))
    };
    let state = if reason.is_some() { HookState::Failed } else { HookState::Attached };
    hook("caller_symbols", "/proc/kallsyms", state, true, reason)
}

/// A source of knowledge that is reported like a hook.
pub(super) fn hook(
    hook: &str,
    symbol: &str,
    state: HookState,
    required: bool,
    reason: Option<String>,
) -> Hook {
    Hook { hook: hook.to_owned(), symbol: symbol.to_owned(), backend: Backend::None, state, required, reason }
}
