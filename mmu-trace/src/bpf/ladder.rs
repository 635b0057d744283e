//! The attach ladder: fentry/fexit where the function has BTF, else kprobe/kretprobe, else not at
//! all, with the reason. What works is found by trying; no version is compared.

use anyhow::Result;
use aya::{
    Ebpf,
    programs::{KProbe, RawTracePoint},
};

use super::{
    BackendChoice,
    catalogue::{CHANGE_PTE, FAULT_HANDLER, HookSpec, Programs, Required, SET_SPTE_BY_HVA, When},
    host,
    object::LoadedObject,
    side::{End, TracingLink},
};
use crate::{
    kernel::{address::conceal, btf::Btf, kallsyms::Kallsyms},
    model::{Backend, Hook, HookState},
};

/// The hook on the end of tasks.
pub(super) const TASK_EXIT: &str = "task_exit";
/// Its program.
pub(super) const TASK_EXIT_PROGRAM: &str = "tp_task_exit";
/// What finds the VMs that already run.
pub(super) const DISCOVERY: &str = "vm_discovery";

/// What attaching needs to know of the kernel.
pub(super) struct Ladder<'a> {
    pub btf: &'a Btf,
    pub kallsyms: &'a Kallsyms,
    pub backend: BackendChoice,
}

impl Ladder<'_> {
    /// Attaches one hook as well as this kernel allows.
    pub(super) fn attach(
        &self,
        object: &mut LoadedObject,
        links: &mut Vec<TracingLink>,
        spec: &HookSpec,
    ) -> Hook {
        let Some(symbol) = self.find_symbol(spec) else { return self.absent(spec) };
        if !self.has_parameters(spec, &symbol) {
            let reason =
                format!("BTF does not show the arguments that are needed; without it: {}", spec.without);
            return Hook { reason: Some(reason), ..self.absent(spec) };
        }
        let mut refusals = Vec::new();
        let has_tracing = [spec.entry, spec.exit].iter().flatten().any(|p| !p.tracing.is_empty());
        if !has_tracing {
            refusals.push("fentry: an argument that this hook needs is on the stack".to_owned());
        } else if self.backend != BackendChoice::Kprobe {
            match self.attach_tracing(object, spec, &symbol) {
                Ok(attached) => {
                    links.extend(attached);
                    return self.attached(spec, &symbol, Backend::Fentry, None);
                }
                Err(refusal) => refusals.push(format!("fentry: {refusal}")),
            }
        }
        if self.backend != BackendChoice::Fentry {
            match attach_kprobes(&mut object.ebpf, spec, &symbol) {
                Ok(()) => {
                    let reason = refusals.pop();
                    return self.attached(spec, &symbol, Backend::Kprobe, reason);
                }
                Err(refusal) => refusals.push(format!("kprobe: {refusal}")),
            }
        }
        Hook {
            state: HookState::Failed,
            reason: Some(format!("{}; without it: {}", refusals.join("; "), spec.without)),
            ..self.attached(spec, &symbol, Backend::None, None)
        }
    }

    /// The first candidate this kernel has; compilers rename static functions (`.isra.0`).
    fn find_symbol(&self, spec: &HookSpec) -> Option<String> {
        spec.symbols.iter().find_map(|name| self.kallsyms.variants(name).next().map(|s| s.name.to_owned()))
    }

    /// Whether this kernel is one that the hook is for.
    pub(super) fn is_wanted(&self, spec: &HookSpec) -> bool {
        match spec.when {
            When::HandlersByHva => self.kallsyms.contains(SET_SPTE_BY_HVA),
            When::NoFaultStruct => self.btf.member_offset("kvm_page_fault", "slot").is_none(),
            When::Always | When::Parameters(_) => true,
        }
    }

    fn has_parameters(&self, spec: &HookSpec, symbol: &str) -> bool {
        let When::Parameters(needed) = spec.when else { return true };
        let Some(function) = self.btf.function(symbol) else { return false };
        needed
            .iter()
            .all(|(index, name)| function.params.get(*index).is_some_and(|param| param.name == *name))
    }

    fn attach_tracing(
        &self,
        object: &mut LoadedObject,
        spec: &HookSpec,
        symbol: &str,
    ) -> Result<Vec<TracingLink>, String> {
        let mut links = Vec::new();
        // The return first: an entry must not open what no return would close.
        for (programs, end) in [(spec.exit, End::Return), (spec.entry, End::Entry)] {
            let Some(Programs { tracing, .. }) = programs.filter(|p| !p.tracing.is_empty()) else { continue };
            let link =
                object.side.attach(spec.name, tracing, symbol, end, self.btf).map_err(|e| e.to_string())?;
            links.push(link);
        }
        Ok(links)
    }

    fn attached(&self, spec: &HookSpec, symbol: &str, backend: Backend, reason: Option<String>) -> Hook {
        Hook {
            hook: spec.name.to_owned(),
            symbol: symbol.to_owned(),
            backend,
            state: HookState::Attached,
            required: self.is_required(spec),
            reason,
        }
    }

    fn absent(&self, spec: &HookSpec) -> Hook {
        let kvm_missing = spec.in_kvm && !kvm_is_there(self.kallsyms);
        let reason = if kvm_missing {
            "kvm is not loaded".to_owned()
        } else {
            format!("this kernel has none of {}; without it: {}", spec.symbols.join(", "), spec.without)
        };
        Hook {
            state: HookState::Absent,
            reason: Some(reason),
            ..self.attached(spec, spec.symbols.first().unwrap_or(&""), Backend::None, None)
        }
    }

    fn is_required(&self, spec: &HookSpec) -> bool {
        match spec.required {
            Required::Yes => true,
            Required::No => false,
            Required::WithChangePte => self.kallsyms.contains(CHANGE_PTE),
        }
    }
}

/// Whether KVM is loaded or built in.
pub(super) fn kvm_is_there(kallsyms: &Kallsyms) -> bool {
    kallsyms.contains(FAULT_HANDLER)
}

fn attach_kprobes(ebpf: &mut Ebpf, spec: &HookSpec, symbol: &str) -> Result<(), String> {
    let mut attached = Vec::new();
    for programs in [spec.exit, spec.entry].into_iter().flatten().filter(|p| !p.kprobe.is_empty()) {
        if let Err(refusal) = attach_kprobe(ebpf, programs.kprobe, symbol) {
            for name in attached {
                detach_kprobe(ebpf, name);
            }
            return Err(refusal);
        }
        attached.push(programs.kprobe);
    }
    Ok(())
}

fn attach_kprobe(ebpf: &mut Ebpf, program: &str, symbol: &str) -> Result<(), String> {
    let found = ebpf.program_mut(program).ok_or_else(|| format!("the object has no program {program}"))?;
    let kprobe: &mut KProbe = found.try_into().map_err(|e| chain(&e))?;
    if !host::has_kprobes() {
        return Err("this kernel has no kprobes (CONFIG_KPROBES, CONFIG_KPROBE_EVENTS)".to_owned());
    }
    kprobe.load().map_err(|e| chain(&e))?;
    kprobe.attach(symbol, 0).map(drop).map_err(|e| chain(&e))
}

fn detach_kprobe(ebpf: &mut Ebpf, program: &str) {
    if let Some(Ok(kprobe)) = ebpf.program_mut(program).map(<&mut KProbe>::try_from) {
        // Unloading detaches; a program that is not loaded has nothing to detach.
        let _ = kprobe.unload();
    }
}

/// Attaches the tracepoint that cleans up after tasks. Without it thread ids that are used again
/// find an old state, so it is reported like a hook.
pub(super) fn attach_task_exit(ebpf: &mut Ebpf) -> Hook {
    let outcome = (|| {
        let program = ebpf.program_mut(TASK_EXIT_PROGRAM).ok_or("the object does not have its program")?;
        let program: &mut RawTracePoint = program.try_into().map_err(|e| chain(&e))?;
        program.load().map_err(|e| chain(&e))?;
        program.attach("sched_process_exit").map(drop).map_err(|e| chain(&e))
    })();
    let outcome: Result<(), String> = outcome;
    Hook {
        hook: TASK_EXIT.to_owned(),
        symbol: "sched_process_exit".to_owned(),
        backend: if outcome.is_ok() { Backend::RawTracepoint } else { Backend::None },
        state: if outcome.is_ok() { HookState::Attached } else { HookState::Failed },
        required: false,
        reason: outcome.err(),
    }
}

/// Attaches the discovery probe for as long as the returned guard lives.
pub(super) fn attach_discovery(
    object: &mut LoadedObject,
    btf: &Btf,
    symbol: &str,
) -> Result<Discovery, String> {
    match object.side.attach(DISCOVERY, "fx_task_mm", symbol, End::Return, btf) {
        Ok(link) => Ok(Discovery { _link: Some(link) }),
        Err(fentry) => attach_kprobe(&mut object.ebpf, "kr_task_mm", symbol)
            .map(|()| Discovery { _link: None })
            .map_err(|kprobe| format!("fentry: {fentry}; kprobe: {kprobe}")),
    }
}

/// Ends discovery.
pub(super) fn detach_discovery(object: &mut LoadedObject, discovery: Discovery) {
    drop(discovery);
    detach_kprobe(&mut object.ebpf, "kr_task_mm");
}

/// The attached discovery probe.
pub(super) struct Discovery {
    _link: Option<TracingLink>,
}

/// An error with its causes, in one line, without kernel addresses.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let inner = error.to_string();
        if !text.contains(&inner) {
            text = format!("{text}: {inner}");
        }
        cause = error.source();
    }
    conceal(&text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" | "))
}
