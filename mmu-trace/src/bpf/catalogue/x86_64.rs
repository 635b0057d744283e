//! What is hooked on x86-64 alone.

use mmu_trace_ebpf::abi::{arg, offset, value};

use super::{
    CHANGE_PTE_CALL, COW, HookSpec, INVALIDATE_RANGE_END, INVALIDATE_RANGE_START, KSM_BREAK, KSM_MERGE,
    KSM_WRITE_PROTECT, KVM_CHANGE_PTE, NUMA_SCAN, PAGE_FAULT, Required, SET_SPTE_BY_HVA, VM_CREATE,
    VM_DESTROY, When, programs,
};

/// What enters for every guest fault.
pub(in super::super) const FAULT_HANDLER: &str = "kvm_mmu_page_fault";
/// How KVM comes into a kernel that does not have it.
pub(in super::super) const HOW_TO_LOAD_KVM: &str = "modprobe kvm_intel or kvm_amd; the tracer waits for it";
/// Offsets that only other architectures have.
pub(in super::super) const FOREIGN_OFFSETS: &[usize] =
    &[offset::VCPU_ARCH, offset::ARCH_FAULT, offset::FAULT_ESR, offset::FAULT_HPFAR];
/// Hooks whose programs must know how many arguments the function has, to find its return value.
pub(in super::super) const RETURNS: &[(usize, HookSpec)] = &[
    (arg::N_TDP_FAULT, PAGE_FAULT_RESULT),
    (arg::N_UNMAP, KVM_UNMAP),
    (arg::N_SET_SPTE, KVM_SET_SPTE),
    (arg::N_WRITE_PROTECT, KSM_WRITE_PROTECT),
    (arg::N_MERGE, KSM_MERGE),
];
/// The enumerators that are looked up, with their index in `VALUES`.
pub(in super::super) const ENUMERATORS: &[(usize, &str)] = &[
    (value::RET_PF_RETRY, "RET_PF_RETRY"),
    (value::RET_PF_EMULATE, "RET_PF_EMULATE"),
    (value::RET_PF_FIXED, "RET_PF_FIXED"),
    (value::RET_PF_SPURIOUS, "RET_PF_SPURIOUS"),
    (value::EVENT_MIGRATE, "MMU_NOTIFY_MIGRATE"),
];

/// Every hook, in attach order: what opens a state comes after what closes it, so that nothing is
/// opened that the next instant could not close.
pub(in super::super) const HOOKS: &[HookSpec] = &[
    INVALIDATE_RANGE_END,
    KVM_UNMAP,
    KVM_FLUSH_REMOTE_TLBS,
    KVM_SET_SPTE,
    KVM_SET_PTE,
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
    KVM_PREFETCH,
    PAGE_FAULT_HVA,
    PAGE_FAULT_RESULT,
    PAGE_FAULT,
];

const KVM_UNMAP: HookSpec = HookSpec {
    name: "kvm_unmap",
    symbols: &["kvm_unmap_gfn_range", "kvm_mmu_unmap_gfn_range", "kvm_unmap_hva_range"],
    in_kvm: true,
    // fexit sees the arguments itself.
    entry: programs("", "kp_unmap"),
    exit: programs("fx_unmap", "kr_unmap"),
    when: When::Always,
    required: Required::Yes,
    without: "what was zapped is told by TLB flushes alone",
};

const KVM_FLUSH_REMOTE_TLBS: HookSpec = HookSpec {
    name: "kvm_flush_remote_tlbs",
    symbols: &["kvm_flush_remote_tlbs"],
    in_kvm: true,
    entry: programs("fe_flush", "kp_flush"),
    exit: None,
    when: When::Always,
    required: Required::Yes,
    without: "what was zapped is told by return values alone, which are wrong on some paths",
};

const KVM_SET_SPTE: HookSpec = HookSpec {
    name: "kvm_set_spte",
    symbols: &["kvm_set_spte_gfn", SET_SPTE_BY_HVA],
    in_kvm: true,
    entry: programs("", "kp_set_spte"),
    exit: programs("fx_set_spte", "kr_set_spte"),
    when: When::Always,
    required: Required::WithChangePte,
    without: "change_pte calls outside guest memory cannot be told apart",
};

const KVM_SET_PTE: HookSpec = HookSpec {
    name: "kvm_set_pte",
    symbols: &["kvm_set_pte_rmapp"],
    in_kvm: true,
    entry: programs("fe_set_pte", "kp_set_pte"),
    exit: None,
    when: When::HandlersByHva,
    required: Required::WithChangePte,
    without: "change_pte calls for guest memory cannot be told apart",
};

const KVM_PREFETCH: HookSpec = HookSpec {
    name: "kvm_prefetch",
    symbols: &["mmu_set_spte"],
    in_kvm: true,
    // The seventh argument is on the stack, where a tracing program does not see it.
    entry: programs("", "kp_prefetch"),
    exit: None,
    when: When::Parameters(&[(1, "slot"), (4, "gfn"), (6, "fault")]),
    required: Required::No,
    without: "a page that the rmap MMU maps ahead of its fault keeps the cause of an older teardown",
};

const PAGE_FAULT_HVA: HookSpec = HookSpec {
    name: "page_fault_hva",
    symbols: &["hva_to_pfn"],
    in_kvm: true,
    entry: programs("fe_fault_hva", "kp_fault_hva"),
    exit: None,
    when: When::NoFaultStruct,
    required: Required::Yes,
    without: "no refaults: the pages of guest faults are unknown",
};

const PAGE_FAULT_RESULT: HookSpec = HookSpec {
    name: "page_fault_result",
    symbols: &["kvm_tdp_page_fault"],
    in_kvm: true,
    // fexit sees the arguments itself; a return probe needs them kept at entry.
    entry: programs("", "kp_tdp_fault"),
    exit: programs("fx_tdp_fault", "kr_tdp_fault"),
    when: When::Always,
    required: Required::Yes,
    without: "results of guest faults and refaults are unknown",
};
