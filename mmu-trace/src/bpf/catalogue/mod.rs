//! The hook catalogue: what is hooked, under which names kernels know it, with which programs, and
//! what is lost without it. What all architectures share is here; the rest, and all other knowledge of an
//! architecture that is not in BTF, is in a file for each.

use mmu_trace_ebpf::kind::Cause;

#[cfg_attr(target_arch = "x86_64", path = "x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
mod arch;

pub(super) use self::arch::{ENUMERATORS, FAULT_HANDLER, FOREIGN_OFFSETS, HOOKS, HOW_TO_LOAD_KVM, RETURNS};

/// One logical hook.
#[derive(Clone, Copy, Debug)]
pub(super) struct HookSpec {
    /// Its name in reports and metrics.
    pub name: &'static str,
    /// Kernel functions, tried in this order.
    pub symbols: &'static [&'static str],
    /// Whether the function belongs to KVM, which may be a module that is not loaded.
    pub in_kvm: bool,
    /// The programs at its entry, for fentry and kprobe.
    pub entry: Option<Programs>,
    /// The programs at its return, for fexit and kretprobe.
    pub exit: Option<Programs>,
    /// On which kernels it is a hook at all.
    pub when: When,
    /// Whether the main figures are wrong without it.
    pub required: Required,
    /// What is lost without it.
    pub without: &'static str,
}

/// The two programs of one attach point; an empty name: none with this backend.
#[derive(Clone, Copy, Debug)]
pub(super) struct Programs {
    pub tracing: &'static str,
    pub kprobe: &'static str,
}

/// When a hook must be attached for a snapshot to be complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Required {
    /// Always.
    Yes,
    /// Where the kernel has `change_pte`.
    WithChangePte,
    /// Never: something is coarser without it, nothing is wrong.
    No,
}

/// On which kernels a hook is needed, or possible.
#[cfg_attr(target_arch = "aarch64", expect(dead_code, reason = "for kernels older than any on arm64"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// On all.
    Always,
    /// Where KVM's handlers take any range of the VMM (`kvm_set_spte_hva`, up to 5.12).
    HandlersByHva,
    /// Where BTF has no `struct kvm_page_fault` (up to 5.15) that would tell the address.
    NoFaultStruct,
    /// Where BTF shows these parameters, by position and name: others mean another function.
    Parameters(&'static [(usize, &'static str)]),
}

const fn programs(tracing: &'static str, kprobe: &'static str) -> Option<Programs> {
    Some(Programs { tracing, kprobe })
}

/// The callback's symbol: where it is missing, tracing is counterfactual.
pub(super) const CHANGE_PTE: &str = "__mmu_notifier_change_pte";
/// KVM's handler of it where that takes any address of the VMM.
pub(super) const SET_SPTE_BY_HVA: &str = "kvm_set_spte_hva";
/// The function whose return hands out address spaces during discovery.
pub(super) const GET_TASK_MM: &str = "get_task_mm";

const INVALIDATE_RANGE_END: HookSpec = HookSpec {
    name: "invalidate_range_end",
    symbols: &["__mmu_notifier_invalidate_range_end"],
    in_kvm: false,
    entry: programs("fe_range_end", "kp_range_end"),
    exit: None,
    when: When::Always,
    required: Required::Yes,
    without: "nothing can be traced",
};

const KVM_CHANGE_PTE: HookSpec = HookSpec {
    name: "kvm_change_pte",
    symbols: &["kvm_mmu_notifier_change_pte"],
    in_kvm: true,
    entry: programs("fe_kvm_cp", "kp_kvm_cp"),
    // The caller of this one is read by nobody, so it may have a return probe; with fexit the
    // duration comes from the outer function.
    exit: programs("", "kr_change_pte"),
    when: When::Always,
    required: Required::WithChangePte,
    without: "calls without a KVM subscriber cannot be told apart",
};

const CHANGE_PTE_CALL: HookSpec = HookSpec {
    name: "change_pte",
    symbols: &[CHANGE_PTE],
    in_kvm: false,
    entry: programs("fe_change_pte", "kp_change_pte"),
    exit: programs("fx_change_pte", ""),
    when: When::Always,
    required: Required::WithChangePte,
    without: "this kernel has no change_pte (dropped in Linux 6.10): counterfactual mode",
};

const INVALIDATE_RANGE_START: HookSpec = HookSpec {
    name: "invalidate_range_start",
    symbols: &["__mmu_notifier_invalidate_range_start"],
    in_kvm: false,
    entry: programs("fe_range_start", "kp_range_start"),
    exit: None,
    when: When::Always,
    required: Required::Yes,
    without: "nothing can be traced",
};

const KSM_WRITE_PROTECT: HookSpec = HookSpec {
    name: "ksm_write_protect",
    symbols: &["write_protect_page"],
    in_kvm: false,
    entry: programs("fe_ksm_wp", "kp_ksm_wp"),
    exit: programs("fx_ksm_wp", "kr_ksm_wp"),
    when: When::Always,
    required: Required::Yes,
    without: "merge attempts that gave up cannot be told apart",
};

const KSM_MERGE: HookSpec = HookSpec {
    name: "ksm_merge",
    symbols: &["try_to_merge_one_page"],
    in_kvm: false,
    entry: programs("fe_ksm_merge", "kp_ksm_merge"),
    exit: programs("fx_ksm_merge", "kr_ksm_merge"),
    when: When::Always,
    required: Required::Yes,
    without: "KSM merges are not counted",
};

const KSM_BREAK: HookSpec = HookSpec {
    name: "ksm_break",
    symbols: &["break_ksm"],
    in_kvm: false,
    entry: programs("fe_ksm_break", "kp_ksm_break"),
    exit: programs("fx_ksm_break", "kr_ksm_break"),
    when: When::Always,
    required: Required::Yes,
    without: "KSM unmerges count as copy on write",
};

const NUMA_SCAN: HookSpec = HookSpec {
    name: "numa_scan",
    symbols: &["change_prot_numa"],
    in_kvm: false,
    entry: programs("fe_numa", "kp_numa"),
    exit: programs("fx_numa", "kr_numa"),
    when: When::Always,
    required: Required::No,
    without: "NUMA balancing counts as protect",
};

const COW: HookSpec = HookSpec {
    name: "cow",
    symbols: &["wp_page_copy", "do_wp_page"],
    in_kvm: false,
    entry: programs("fe_cow", "kp_cow"),
    exit: None,
    when: When::Always,
    required: Required::No,
    without: "copy-on-write breaks of KSM pages are not counted apart",
};

const VM_CREATE: HookSpec = HookSpec {
    name: "vm_create",
    symbols: &["kvm_arch_init_vm"],
    in_kvm: true,
    entry: programs("fe_vm_create", "kp_vm_create"),
    exit: None,
    when: When::Always,
    required: Required::No,
    without: "new VMs are found at their first fault",
};

const VM_DESTROY: HookSpec = HookSpec {
    name: "vm_destroy",
    symbols: &["kvm_destroy_vm"],
    in_kvm: true,
    entry: programs("fe_vm_destroy", "kp_vm_destroy"),
    exit: None,
    when: When::Always,
    required: Required::No,
    without: "ended VMs are noticed by their process alone",
};

const PAGE_FAULT: HookSpec = HookSpec {
    name: "page_fault",
    symbols: &[FAULT_HANDLER],
    in_kvm: true,
    entry: programs("fe_fault", "kp_fault"),
    exit: programs("fx_fault", "kr_fault"),
    when: When::Always,
    required: Required::Yes,
    without: "no guest faults and no refaults",
};

/// Functions that call the notifier, and what their calls mean. Static functions may be inlined
/// into a caller on some builds, so one cause has several names.
pub(super) const CALLERS: &[(&str, Cause)] = &[
    ("write_protect_page", Cause::KsmWriteProtect),
    ("try_to_merge_one_page", Cause::KsmReplace),
    ("replace_page", Cause::KsmReplace),
    ("wp_page_copy", Cause::CowHost),
    ("do_wp_page", Cause::CowHost),
    ("hugetlb_wp", Cause::CowHost),
    ("__replace_page", Cause::Uprobe),
    ("uprobe_write_opcode", Cause::Uprobe),
    ("try_to_migrate_one", Cause::Migrate),
    ("migrate_vma_setup", Cause::Migrate),
    ("migrate_vma_pages", Cause::Migrate),
    ("migrate_vma_collect", Cause::Migrate),
    ("migrate_vma_insert_page", Cause::Migrate),
    ("__migrate_device_pages", Cause::Migrate),
    ("copy_page_range", Cause::Fork),
    ("copy_hugetlb_page_range", Cause::Fork),
    ("change_protection", Cause::Protect),
    ("change_protection_range", Cause::Protect),
    ("change_pmd_range", Cause::Protect),
    ("change_pud_range", Cause::Protect),
    ("hugetlb_change_protection", Cause::Protect),
    ("zap_page_range", Cause::Discard),
    ("zap_page_range_single", Cause::Discard),
    ("zap_page_range_single_batched", Cause::Discard),
    ("zap_vma_range", Cause::Discard),
    ("zap_vma_range_batched", Cause::Discard),
    ("madvise_free_single_vma", Cause::Discard),
    ("unmap_mapping_range_vma", Cause::Discard),
    ("__unmap_hugepage_range", Cause::Discard),
    ("__oom_reap_task_mm", Cause::Discard),
    ("unmap_vmas", Cause::Unmap),
    ("move_page_tables", Cause::Remap),
    ("move_hugetlb_page_tables", Cause::Remap),
    ("try_to_unmap_one", Cause::Reclaim),
    ("collapse_huge_page", Cause::ThpCollapse),
    ("khugepaged", Cause::ThpCollapse),
    ("khugepaged_scan_pmd", Cause::ThpCollapse),
    ("hpage_collapse_scan_pmd", Cause::ThpCollapse),
    ("collapse_and_free_pmd", Cause::ThpCollapse),
    ("collapse_pte_mapped_thp", Cause::ThpCollapse),
    ("retract_page_tables", Cause::ThpCollapse),
    ("__split_huge_pmd", Cause::ThpSplit),
    ("__split_huge_pud", Cause::ThpSplit),
    ("page_vma_mkclean_one", Cause::DirtyTracking),
    ("page_mkclean_one", Cause::DirtyTracking),
    ("clear_refs_write", Cause::DirtyTracking),
    ("do_pagemap_scan", Cause::DirtyTracking),
    ("wp_shared_mapping_range", Cause::DirtyTracking),
];

#[cfg(test)]
mod tests {
    use super::*;
    use mmu_trace_ebpf::abi::N_CALLERS;
    use std::collections::HashSet;

    #[test]
    fn names_and_programs_are_unique_and_short_enough_for_the_kernel() {
        let mut names = HashSet::new();
        let programs = HOOKS.iter().flat_map(|h| [h.entry, h.exit]).flatten();
        for program in programs.flat_map(|p| [p.tracing, p.kprobe]).filter(|p| !p.is_empty()) {
            assert!(program.len() <= 15, "{program}");
            assert!(names.insert(program), "{program} twice");
        }
        assert!(HOOKS.iter().all(|h| names.insert(h.name)));
    }

    #[test]
    fn callers_fit_their_table() {
        // Renamed copies (`.part.0`) need room as well.
        assert!(CALLERS.len() + 16 <= N_CALLERS);
    }

    #[test]
    fn no_return_probe_sits_where_a_caller_is_read() {
        for hook in HOOKS.iter().filter(|h| ["change_pte", "invalidate_range_start"].contains(&h.name)) {
            assert!(hook.exit.is_none_or(|p| p.kprobe.is_empty()), "{}", hook.name);
        }
    }
}
