//! What the object must know of the running kernel: offsets, enum values, argument counts,
//! addresses. All of it is asked of BTF and kallsyms; what is not there stays `MISSING`.

use mmu_trace_ebpf::{
    abi::{CallerRange, MISSING, N_CALLERS, arg, function, offset, value},
    kind::Cause,
};

use super::catalogue::{
    CALLERS, CHANGE_PTE, ENUMERATORS, FOREIGN_OFFSETS, GET_TASK_MM, HOOKS, RETURNS, SET_SPTE_BY_HVA,
};
use crate::kernel::{btf::Btf, kallsyms::Kallsyms};

/// The constant globals of the object, by index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Constants {
    pub offsets: [u32; offset::COUNT],
    pub values: [u32; value::COUNT],
    pub args: [u32; arg::COUNT],
    pub functions: [u64; function::COUNT],
}

impl Constants {
    /// Asks BTF and kallsyms.
    pub(super) fn find(btf: &Btf, kallsyms: &Kallsyms) -> Self {
        Self {
            offsets: offsets(btf),
            values: values(btf, kallsyms),
            args: args(btf),
            functions: functions(kallsyms),
        }
    }

    /// What this kernel's BTF lacks and figures need: members as `struct.member`, enumerators.
    ///
    /// Up to 5.15 there is no `struct kvm_page_fault`, and the hook `page_fault_hva` takes its place.
    pub(super) fn missing(&self) -> Vec<String> {
        const FAULT: &[usize] = &[offset::FAULT_SLOT, offset::FAULT_GFN];
        let no_fault = FAULT.iter().all(|index| self.offsets[*index] == MISSING);
        let replaced = |index: &usize| no_fault && FAULT.contains(index);
        let unknown = |&&(index, _): &&(usize, &str)| self.values[index] == MISSING;
        let enumerators = ENUMERATORS.iter().filter(unknown).map(|(_, name)| (*name).to_owned());
        offset::MEMBERS
            .iter()
            .zip(self.offsets)
            .enumerate()
            .filter(|(index, (_, offset))| *offset == MISSING && !offset::OPTIONAL.contains(index))
            .filter(|(index, _)| !FOREIGN_OFFSETS.contains(index))
            .filter(|(index, _)| !replaced(index))
            .map(|(_, ((strukt, member), _))| format!("{strukt}.{member}"))
            .chain(enumerators)
            .collect()
    }
}

fn offsets(btf: &Btf) -> [u32; offset::COUNT] {
    let mut offsets = [MISSING; offset::COUNT];
    for (slot, (strukt, member)) in offsets.iter_mut().zip(offset::MEMBERS) {
        *slot = btf.member_offset(strukt, member).unwrap_or(MISSING);
    }
    offsets
}

/// `RET_PF_*` of Linux 5.10 (`arch/x86/kvm/mmu/mmu_internal.h`), whose kvm.ko has no BTF.
const RET_PF_OF_5_10: &[(usize, u32)] = &[
    (value::RET_PF_RETRY, 0),
    (value::RET_PF_EMULATE, 1),
    (value::RET_PF_FIXED, 3),
    (value::RET_PF_SPURIOUS, 4),
];

fn values(btf: &Btf, kallsyms: &Kallsyms) -> [u32; value::COUNT] {
    let mut values = [MISSING; value::COUNT];
    for &(index, enumerator) in ENUMERATORS {
        let found = btf.enum_value(enumerator).and_then(|v| u32::try_from(v).ok());
        values[index] = found.unwrap_or(MISSING);
    }
    let by_hva = kallsyms.contains(SET_SPTE_BY_HVA);
    // Of the kernels with this handler (to 5.12), those from 5.11 on have the enum in kvm.ko's BTF.
    if by_hva
        && ENUMERATORS
            .iter()
            .filter(|(_, name)| name.starts_with("RET_PF"))
            .all(|(i, _)| values[*i] == MISSING)
    {
        for &(index, number) in RET_PF_OF_5_10 {
            values[index] = number;
        }
    }
    let has_helpers = btf.enum_value("BPF_FUNC_get_func_arg").is_some();
    values[value::FUNC_ARG_HELPERS] = has_helpers.into();
    values[value::HANDLERS_BY_HVA] = by_hva.into();
    // KSM unshares from 6.2 on. Where the callback is still there, it shows the PTE itself.
    values[value::UNSHARES] = (!kallsyms.contains(CHANGE_PTE)).into();
    values
}

fn args(btf: &Btf) -> [u32; arg::COUNT] {
    let mut args = [MISSING; arg::COUNT];
    let returns = RETURNS.iter().map(|(index, hook)| (*index, hook.symbols));
    for (index, symbols) in returns.chain([(arg::N_GET_TASK_MM, &[GET_TASK_MM][..])]) {
        let function = symbols.iter().find_map(|symbol| btf.function(symbol));
        args[index] = function.map_or(MISSING, |f| f.params.len() as u32);
    }
    let tdp = hook_symbols("page_fault_result").iter().find_map(|symbol| btf.function(symbol));
    let position = tdp.and_then(|f| f.params.iter().position(|p| p.name == "fault"));
    args[arg::TDP_FAULT] = position.map_or(MISSING, |p| p as u32);
    args
}

fn hook_symbols(name: &str) -> &'static [&'static str] {
    HOOKS.iter().find(|h| h.name == name).map_or(&[], |h| h.symbols)
}

fn functions(kallsyms: &Kallsyms) -> [u64; function::COUNT] {
    let mut functions = [0; function::COUNT];
    for (index, symbol) in
        [(function::RANGE_START, "__mmu_notifier_invalidate_range_start"), (function::CHANGE_PTE, CHANGE_PTE)]
    {
        functions[index] = kallsyms.exact(symbol).map(|s| s.addr).next().unwrap_or(0);
    }
    functions
}

/// The table of known callers for this kernel, sorted; the names that did not fit are returned too.
pub(super) fn callers(kallsyms: &Kallsyms) -> ([CallerRange; N_CALLERS], Vec<String>) {
    let mut table = [CallerRange { start: u64::MAX, len: 0, cause: Cause::Other as u32 }; N_CALLERS];
    let mut n = 0;
    let mut left_out = Vec::new();
    for (symbol, cause) in CALLERS {
        for found in kallsyms.variants(symbol).filter(|s| s.module.is_none() && s.addr != 0) {
            let Some(range) = kallsyms.function_range(found.addr) else { continue };
            let Some(slot) = table.get_mut(n) else {
                left_out.push(found.name.to_owned());
                continue;
            };
            let len = u32::try_from(range.end - range.start).unwrap_or(u32::MAX);
            *slot = CallerRange { start: range.start, len, cause: *cause as u32 };
            n += 1;
        }
    }
    table.sort_unstable_by_key(|range| range.start);
    (table, left_out)
}
