//! What is hooked on arm64 alone. KVM is built in there, so BTF of vmlinux knows all of it.

use mmu_trace_ebpf::abi::{arg, offset, value};

use super::{
    CHANGE_PTE_CALL, COW, HookSpec, INVALIDATE_RANGE_END, INVALIDATE_RANGE_START, KSM_BREAK, KSM_MERGE,
    KSM_WRITE_PROTECT, KVM_CHANGE_PTE, NUMA_SCAN, PAGE_FAULT, Required, VM_CREATE, VM_DESTROY, When,
    programs,
};

/// What enters for every guest fault.
pub(in super::super) const FAULT_HANDLER: &str = "kvm_handle_guest_abort";
/// How KVM comes into a kernel that does not have it.
pub(in super::super) const HOW_TO_LOAD_KVM: &str = "boot the kernel at EL2, with CONFIG_KVM=y";
/// Offsets that only other architectures have.
pub(in super::super) const FOREIGN_OFFSETS: &[usize] =
    &[offset::FAULT_SLOT, offset::FAULT_GFN, offset::ARCH_TDP_MMU];
/// Hooks whose programs must know how many arguments the function has, to find its return value.
pub(in super::super) const RETURNS: &[(usize, HookSpec)] = &[
    (arg::N_FAULT, PAGE_FAULT),
    (arg::N_STAGE2_MAP, STAGE2_MAP),
    (arg::N_STAGE2_RELAX, STAGE2_RELAX),
    (arg::N_WRITE_PROTECT, KSM_WRITE_PROTECT),
    (arg::N_MERGE, KSM_MERGE),
];
/// The enumerators that are looked up, with their index in `VALUES`.
pub(in super::super) const ENUMERATORS: &[(usize, &str)] = &[(value::EVENT_MIGRATE, "MMU_NOTIFY_MIGRATE")];

/// Every hook, in attach order: what opens a state comes after what closes it, so that nothing is
/// opened that the next instant could not close.
pub(in super::super) const HOOKS: &[HookSpec] = &[
    INVALIDATE_RANGE_END,
    KVM_UNMAP,
    STAGE2_PUT,
    STAGE2_MAP,
    KVM_SET_SPTE,
    KVM_CHANGE_PTE,
    CHANGE_PTE_CALL,
    INVALIDATE_RANGE_START,
    KSM_WRITE_PROTECT,
    KSM_MERGE,
    KSM_BREAK,
    NUMA_SCAN,
    COW,
    VM_CREATE,
    VM_DESTROY,
    STAGE2_RELAX,
    PAGE_FAULT_GFN,
    PAGE_FAULT,
];

const KVM_UNMAP: HookSpec = HookSpec {
    name: "kvm_unmap",
    symbols: &["kvm_unmap_gfn_range"],
    in_kvm: true,
    entry: programs("fe_unmap", "kp_unmap"),
    // It returns false whatever it did.
    exit: None,
    when: When::Always,
    required: Required::Yes,
    without: "invalidations of memory that no guest has cannot be told apart",
};

const STAGE2_PUT: HookSpec = HookSpec {
    name: "stage2_put",
    symbols: &["kvm_s2_put_page"],
    in_kvm: true,
    entry: programs("fe_s2_put", "kp_s2_put"),
    exit: None,
    when: When::Always,
    required: Required::Yes,
    without: "what was zapped is unknown, and with it no refaults",
};

const STAGE2_MAP: HookSpec = HookSpec {
    name: "stage2_map",
    symbols: &["kvm_pgtable_stage2_map"],
    in_kvm: true,
    entry: None,
    exit: programs("fx_s2_map", "kr_s2_map"),
    when: When::Always,
    required: Required::Yes,
    without: "effective change_pte calls and fixed faults cannot be told",
};

const STAGE2_RELAX: HookSpec = HookSpec {
    name: "stage2_relax",
    symbols: &["kvm_pgtable_stage2_relax_perms"],
    in_kvm: true,
    entry: None,
    exit: programs("fx_s2_relax", "kr_s2_relax"),
    when: When::Always,
    required: Required::Yes,
    without: "permission faults that were fixed count as retried",
};

const KVM_SET_SPTE: HookSpec = HookSpec {
    name: "kvm_set_spte",
    symbols: &["kvm_set_spte_gfn"],
    in_kvm: true,
    entry: programs("fe_set_spte", "kp_set_spte"),
    // As of `kvm_unmap`.
    exit: None,
    when: When::Always,
    required: Required::WithChangePte,
    without: "change_pte calls outside guest memory cannot be told apart",
};

const PAGE_FAULT_GFN: HookSpec = HookSpec {
    name: "page_fault_gfn",
    symbols: &["__kvm_faultin_pfn", "__gfn_to_pfn_memslot"],
    in_kvm: true,
    entry: programs("fe_fault_gfn", "kp_fault_gfn"),
    exit: None,
    when: When::Always,
    required: Required::Yes,
    without: "no refaults: the pages of guest faults are unknown",
};
