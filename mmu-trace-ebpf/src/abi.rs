//! Wire types shared by the BPF object and userspace: integers only, explicit padding, fixed sizes.
//!
//! [`ABI_VERSION`] is compared when the object is loaded and written into every capture.

/// Version of everything in this module; raised with every change of a layout or a discriminant.
pub const ABI_VERSION: u32 = 3;

/// The slot that counts what belongs to no known VM.
pub const UNATTRIBUTED: u32 = 0;
/// The slot of all VMs that found no slot of their own.
pub const OTHER: u32 = 1;
/// The first slot that belongs to one address space.
pub const FIRST_SLOT: u32 = 2;

/// An offset, argument or value that this kernel does not have.
pub const MISSING: u32 = u32::MAX;

/// Derives what userspace needs to read a wire type from bytes and to write it into a map.
macro_rules! wire {
    ($(#[$doc:meta])* pub struct $name:ident = $size:expr; { $($(#[$fdoc:meta])* pub $field:ident: $ty:ty,)+ }) => {
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy)]
        #[cfg_attr(not(target_arch = "bpf"), derive(
            zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout,
        ))]
        pub struct $name { $($(#[$fdoc])* pub $field: $ty,)+ }

        const _: () = assert!(size_of::<$name>() == $size, concat!("size of ", stringify!($name)));
    };
}

/// Lengths of arrays indexed by a kind: powers of two, so that a mask bounds the index and the
/// verifier sees it.
pub mod len {
    use crate::kind::{Cause, FaultResult, Gap, Outcome};

    /// Indexed by [`Cause`].
    pub const CAUSES: usize = 32;
    /// Indexed by `Cause::of_change_pte`.
    pub const CHANGE_PTE_CAUSES: usize = 8;
    /// Indexed by [`Outcome`].
    pub const OUTCOMES: usize = 8;
    /// Indexed by [`FaultResult`].
    pub const RESULTS: usize = 8;
    /// Indexed by [`crate::histogram::bucket`].
    pub const BUCKETS: usize = 128;
    /// Indexed by [`Gap`].
    pub const GAPS: usize = 32;

    const _: () = assert!(Cause::COUNT <= CAUSES && Outcome::COUNT <= OUTCOMES);
    const _: () = assert!(Cause::N_OF_CHANGE_PTE <= CHANGE_PTE_CAUSES);
    const _: () = assert!(Gap::COUNT <= GAPS);
    const _: () = assert!(FaultResult::COUNT <= RESULTS && crate::histogram::N_BUCKETS <= BUCKETS);
}

wire! {
    /// Refaults of one cause.
    pub struct RefaultStats = 32; {
        /// Refaults.
        pub n: u64,
        /// Those that a working `change_pte` would have saved.
        pub avoidable: u64,
        /// Time inside `kvm_mmu_page_fault`, nanoseconds.
        pub ns: u64,
        /// The part of `ns` spent in avoidable refaults.
        pub avoidable_ns: u64,
    }
}

wire! {
    /// All counters of one VM in one shard (map `VM_STATS`, indexed by slot and shard).
    pub struct VmStats = 8 * (len::CHANGE_PTE_CAUSES * (len::OUTCOMES + 1) + len::RESULTS + 9) + 32 * len::CAUSES; {
        /// `change_pte` calls by cause and outcome.
        pub change_pte: [[u64; len::OUTCOMES]; len::CHANGE_PTE_CAUSES],
        /// `change_pte` calls that these brackets imply, whether or not the kernel has the callback.
        pub would_be: [u64; len::CHANGE_PTE_CAUSES],
        /// Refaults by the cause of the zap.
        pub refaults: [RefaultStats; len::CAUSES],
        /// Finished guest faults by result.
        pub faults: [u64; len::RESULTS],
        /// Entries of `kvm_mmu_page_fault`, counted when the VM is looked for.
        pub faults_entered: u64,
        /// Those of them that hit a mapping which did not allow the access.
        pub permission_faults: u64,
        /// The time of those that have finished, nanoseconds.
        pub faults_ns: u64,
        /// `change_pte` calls whose duration is known.
        pub change_pte_timed: u64,
        /// Their time, nanoseconds.
        pub change_pte_ns: u64,
        /// `try_to_merge_one_page` calls that merged a page.
        pub ksm_merges: u64,
        /// Copy-on-write breaks of a KSM page.
        pub ksm_cow_breaks: u64,
        /// Brackets of `break_ksm`.
        pub ksm_unmerges: u64,
        /// `write_protect_page` calls that tore the mapping down and then gave up.
        pub ksm_failed_attempts: u64,
    }
}

wire! {
    /// The three histograms of one VM in one shard (map `VM_HISTS`), or of the host on one CPU (map
    /// `HOST_HISTS`); buckets of [`crate::histogram`].
    pub struct VmHistograms = 3 * 8 * len::BUCKETS; {
        /// Time inside `kvm_mmu_page_fault`.
        pub fault: [u64; len::BUCKETS],
        /// The same for refaults only.
        pub refault: [u64; len::BUCKETS],
        /// From the end of the bracket that zapped the page to the refault.
        pub refault_delay: [u64; len::BUCKETS],
    }
}

wire! {
    /// Who holds a slot (map `VM_SLOTS`, indexed by slot).
    pub struct VmSlot = 56; {
        /// The VM's `mm_struct`; 0: the slot is free.
        pub mm: u64,
        /// The newest `struct kvm` seen for it; 0: not seen yet.
        pub kvm: u64,
        /// Time of registration, or of the first VM since all before it ended; `CLOCK_MONOTONIC`
        /// nanoseconds.
        pub created_ns: u64,
        /// Time of `kvm_destroy_vm` of the last VM; 0: one lives. Of an address space that had several
        /// VMs when it was found it may be set too early: only the first of them was counted.
        pub ended_ns: u64,
        /// When its process started, nanoseconds since boot (`start_boottime`); 0: unknown. It tells
        /// a process from an earlier one with the same id.
        pub born_ns: u64,
        /// VMs of this address space that live, as far as they were seen to begin; it counts below 0.
        pub n_vms: u64,
        /// Thread group id of the VMM in the initial PID namespace; 0: unknown.
        pub tgid: u32,
        /// KVM's page-table implementation, see [`mmu`].
        pub mmu: u32,
    }
}

/// Values of [`VmSlot::mmu`].
pub mod mmu {
    /// Not known: no vCPU has faulted yet, or KVM keeps the choice elsewhere.
    pub const UNKNOWN: u32 = 0;
    /// Reverse maps.
    pub const RMAP: u32 = 1;
    /// The TDP MMU.
    pub const TDP: u32 = 2;
}

wire! {
    /// Key of the invalidation table (map `INVALIDATIONS`).
    pub struct InvalidationKey = 8; {
        /// VM slot.
        pub slot: u32,
        /// [`crate::kind::Cause`].
        pub cause: u8,
        /// [`crate::kind::Initiator`].
        pub initiator: u8,
        /// `enum mmu_notifier_event` of the running kernel.
        pub event: u8,
        /// Padding.
        pub pad: u8,
    }
}

wire! {
    /// One row of the invalidation table.
    pub struct InvalidationStats = 40; {
        /// Finished brackets.
        pub ranges: u64,
        /// Their length in 4 KiB pages, less one for each: of most there is nothing to add. Wraps, for a
        /// bracket may count as no page.
        pub more_pages: u64,
        /// Brackets in which KVM zapped at least one SPTE.
        pub zapped: u64,
        /// From `invalidate_range_start` to `invalidate_range_end`, nanoseconds.
        pub ns: u64,
        /// The callers behind it, the last address seen (kernel text; never exported).
        pub caller: u64,
    }
}

wire! {
    /// Key of a page record (map `PAGES`).
    pub struct PageKey = 16; {
        /// The VM's `mm_struct`.
        pub mm: u64,
        /// Host virtual address >> 12.
        pub page: u64,
    }
}

wire! {
    /// Who zapped a page last, and whether it was mapped again since.
    ///
    /// Each field has one kind of writer, so that neither undoes what the other just did: the task
    /// whose bracket zaps (`zap`), or the vCPU whose fault maps the page again (`fault`). A record is
    /// never removed, only evicted.
    pub struct PageRecord = 40; {
        /// `zap`: end of the newest bracket that zapped it, `CLOCK_MONOTONIC` nanoseconds.
        pub zap_ns: u64,
        /// `fault`: the newest zap that it was mapped again after, the page's own or a large range's.
        pub taken_ns: u64,
        /// `zap`: the zap before, if its fault had not been seen when the newest one came.
        pub prev_zap_ns: u64,
        /// `zap`: how many zaps came before the fault of the one before was seen.
        pub carry: u32,
        /// `fault`: how many of those faults were seen since.
        pub carried: u32,
        /// `zap`: [`crate::kind::Cause`] of the newest bracket.
        pub cause: u8,
        /// `zap`: see `page::page_flags`.
        pub flags: u8,
        /// `zap`: the newest PTE that a `change_pte` since then would have carried, see `page::pte_state`.
        pub pte: u8,
        /// `zap`: the same three of the zap before.
        pub prev_cause: u8,
        /// See above.
        pub prev_flags: u8,
        /// See above.
        pub prev_pte: u8,
        /// Padding.
        pub pad: [u8; 2],
    }
}

/// How many large ranges are remembered for each VM.
pub const N_BULK: usize = 8;

wire! {
    /// One bracket over several pages of guest memory.
    pub struct BulkRange = 32; {
        /// First address.
        pub start: u64,
        /// First address behind it.
        pub end: u64,
        /// End of the bracket, `CLOCK_MONOTONIC` nanoseconds; 0: unused.
        pub end_ns: u64,
        /// [`crate::kind::Cause`].
        pub cause: u32,
        /// 1: something in it was mapped and was zapped.
        pub zapped: u32,
    }
}

wire! {
    /// The newest large ranges of a VM (map `BULK_RANGES`, indexed by slot).
    pub struct BulkRanges = 16 + 32 * N_BULK; {
        /// Ranges written so far; the next one goes to `n % N_BULK`.
        pub n: u64,
        /// Always 0, which the verifier does not know: a search that starts from it has one state
        /// to walk, not one for each range.
        pub zero: u64,
        /// The ranges.
        pub ranges: [BulkRange; N_BULK],
    }
}

/// Discriminants of [`Event::kind`].
pub mod event_kind {
    /// A finished bracket.
    pub const INVALIDATION: u8 = 1;
    /// A classified `change_pte` call.
    pub const CHANGE_PTE: u8 = 2;
    /// A finished guest fault.
    pub const PAGE_FAULT: u8 = 3;
    /// A KSM merge attempt of one page that came to an end.
    pub const KSM_MERGE: u8 = 4;
    /// A VM was registered.
    pub const VM_START: u8 = 5;
    /// A VM was destroyed.
    pub const VM_END: u8 = 6;
}

/// Bits of [`Event::flags`].
pub mod event_flags {
    /// Invalidation: KVM found a memslot.
    pub const HIT: u32 = 1;
    /// Invalidation: at least one SPTE was zapped.
    pub const ZAPPED: u32 = 1 << 1;
    /// Page fault: it was a refault.
    pub const REFAULT: u32 = 1 << 2;
    /// Page fault: the refault was avoidable.
    pub const AVOIDABLE: u32 = 1 << 3;
    /// Page fault: a guest write.
    pub const WRITE: u32 = 1 << 4;
    /// Page fault: a mapping was present (P=1).
    pub const PRESENT: u32 = 1 << 5;
}

wire! {
    /// One record of the event stream. It exists only while recording.
    pub struct Event = 64; {
        /// End of what it describes, `CLOCK_MONOTONIC` nanoseconds.
        pub ts_ns: u64,
        /// See [`event_kind`].
        pub kind: u8,
        /// [`crate::kind::Cause`].
        pub cause: u8,
        /// [`crate::kind::Initiator`].
        pub initiator: u8,
        /// Invalidation: kernel event. `change_pte`: [`crate::kind::Outcome`]. Fault: [`crate::kind::FaultResult`]. Merge: 1 if merged.
        pub detail: u8,
        /// See [`event_flags`].
        pub flags: u32,
        /// Thread id in the initial PID namespace.
        pub tid: u32,
        /// VM slot.
        pub slot: u32,
        /// Host virtual address of the start or of the page; 0: unknown.
        pub addr: u64,
        /// Invalidation: length in bytes. `change_pte`: the PTE. Fault: guest physical address. VM: `tgid`.
        pub value: u64,
        /// Return address in the caller (kernel text); 0: unknown.
        pub caller: u64,
        /// Duration, nanoseconds; `u64::MAX`: unknown.
        pub duration_ns: u64,
        /// Refault: nanoseconds since the zap.
        pub delay_ns: u64,
    }
}

wire! {
    /// How often each [`Gap`] happened on one CPU (map `GAPS`).
    pub struct Gaps = 8 * len::GAPS; {
        /// Indexed by [`Gap`].
        pub n: [u64; len::GAPS],
    }
}

/// Most ranges of kernel text in [`CallerRange`] table `CALLERS`.
pub const N_CALLERS: usize = 64;

wire! {
    /// A function of the running kernel whose calls have a known cause. The table is sorted by `start`.
    pub struct CallerRange = 16; {
        /// First address; `u64::MAX`: unused.
        pub start: u64,
        /// Length in bytes.
        pub len: u32,
        /// [`crate::kind::Cause`] before refinement (every copy on write is `CowHost` here).
        pub cause: u32,
    }
}

/// Indices into the constant global `OFFSETS`: byte offsets of kernel struct members and positions
/// of arguments, [`MISSING`] where the kernel has no such thing.
pub mod offset {
    /// Declares the indices and the table of what userspace looks up for each.
    macro_rules! offsets {
        ($($(#[$doc:meta])* $name:ident = $strukt:literal . $member:literal,)+) => {
            #[expect(non_camel_case_types, reason = "the variants become constants")]
            #[repr(usize)]
            enum Index { $($name,)+ }
            $($(#[$doc])* pub const $name: usize = Index::$name as usize;)+
            /// `(struct, member)` of each index, in order.
            pub const MEMBERS: &[(&str, &str)] = &[$(($strukt, $member),)+];
        };
    }
    offsets! {
        /// `mmu_notifier_range.mm`; absent where the range carries its `vma` instead.
        RANGE_MM = "mmu_notifier_range"."mm",
        /// First address.
        RANGE_START = "mmu_notifier_range"."start",
        /// First address behind.
        RANGE_END = "mmu_notifier_range"."end",
        /// Bit 0: blockable.
        RANGE_FLAGS = "mmu_notifier_range"."flags",
        /// `enum mmu_notifier_event`.
        RANGE_EVENT = "mmu_notifier_range"."event",
        /// The VM of a vCPU.
        VCPU_KVM = "kvm_vcpu"."kvm",
        /// The address space of a VM.
        KVM_MM = "kvm"."mm",
        /// The fault's memslot.
        FAULT_SLOT = "kvm_page_fault"."slot",
        /// The fault's guest frame number.
        FAULT_GFN = "kvm_page_fault"."gfn",
        /// Host virtual address of a memslot's first page.
        MEMSLOT_HVA = "kvm_memory_slot"."userspace_addr",
        /// Guest frame number of a memslot's first page.
        MEMSLOT_GFN = "kvm_memory_slot"."base_gfn",
        /// Address space of a task, null for kernel threads.
        TASK_MM = "task_struct"."mm",
        /// Thread group id in the initial namespace.
        TASK_TGID = "task_struct"."tgid",
        /// The first thread of a task's process.
        TASK_LEADER = "task_struct"."group_leader",
        /// When a task started, nanoseconds since boot.
        TASK_BORN = "task_struct"."start_boottime",
        /// The task an address space belongs to (`CONFIG_MEMCG`).
        MM_OWNER = "mm_struct"."owner",
        /// The area a host fault hit.
        VMF_VMA = "vm_fault"."vma",
        /// The page a host fault copies.
        VMF_PAGE = "vm_fault"."page",
        /// Address space of an area.
        VMA_MM = "vm_area_struct"."vm_mm",
        /// Low bits tell KSM pages.
        PAGE_MAPPING = "page"."mapping",
        /// The architecture's part of a VM.
        KVM_ARCH = "kvm"."arch",
        /// The architecture's part of a vCPU.
        VCPU_ARCH = "kvm_vcpu"."arch",
        /// Whether a VM uses the TDP MMU; from 6.2 on a choice of the module, for all VMs.
        ARCH_TDP_MMU = "kvm_arch"."tdp_mmu_enabled",
        /// What the hardware said of its last fault (arm64).
        ARCH_FAULT = "kvm_vcpu_arch"."fault",
        /// `ESR_EL2`.
        FAULT_ESR = "kvm_vcpu_fault_info"."esr_el2",
        /// `HPFAR_EL2`.
        FAULT_HPFAR = "kvm_vcpu_fault_info"."hpfar_el2",
    }
    /// Number of indices.
    pub const COUNT: usize = MEMBERS.len();
    /// Members that nothing but a detail depends on.
    pub const OPTIONAL: &[usize] = &[KVM_ARCH, ARCH_TDP_MMU, MM_OWNER, TASK_LEADER, TASK_BORN];
}

/// Indices into the constant global `VALUES`: enumerators and switches, [`MISSING`] where unknown.
pub mod value {
    /// `RET_PF_RETRY`.
    pub const RET_PF_RETRY: usize = 0;
    /// `RET_PF_EMULATE`.
    pub const RET_PF_EMULATE: usize = 1;
    /// `RET_PF_FIXED`.
    pub const RET_PF_FIXED: usize = 2;
    /// `RET_PF_SPURIOUS`.
    pub const RET_PF_SPURIOUS: usize = 3;
    /// `MMU_NOTIFY_MIGRATE`.
    pub const EVENT_MIGRATE: usize = 4;
    /// 1: write events to the ring buffer.
    pub const RECORDING: usize = 5;
    /// 1: one set of histograms for each VM; 0: slot 0 holds those of the host.
    pub const VM_HISTOGRAMS: usize = 6;
    /// Thread group id of the tracer itself, for VM discovery.
    pub const TRACER_TGID: usize = 7;
    /// 1: KVM's handlers take any range of the VMM's address space, guest memory or not (to 5.12).
    pub const HANDLERS_BY_HVA: usize = 8;
    /// 1: KSM unmerges by unsharing, see `page::Operation::unshares`.
    pub const UNSHARES: usize = 9;
    /// How many shards the counters of a VM have: a power of two.
    pub const SHARDS: usize = 10;
    /// 1: `bpf_get_func_arg` and `bpf_get_func_ret` exist (from 5.17 on).
    pub const FUNC_ARG_HELPERS: usize = 11;
    /// Thread id of `ksmd`.
    pub const KSMD_TID: usize = 12;
    /// Number of indices.
    pub const COUNT: usize = 13;
}

/// Indices into the constant global `ARGS`: numbers of arguments (the return value of a function
/// follows its last argument in an fexit context) and positions of arguments.
pub mod arg {
    /// Number of arguments of `kvm_tdp_page_fault`.
    pub const N_TDP_FAULT: usize = 0;
    /// Position of `struct kvm_page_fault *` in `kvm_tdp_page_fault`; before 5.16 there is none.
    pub const TDP_FAULT: usize = 1;
    /// Number of arguments of KVM's unmap function.
    pub const N_UNMAP: usize = 2;
    /// Number of arguments of KVM's `change_pte` handler.
    pub const N_SET_SPTE: usize = 3;
    /// Number of arguments of `write_protect_page`.
    pub const N_WRITE_PROTECT: usize = 4;
    /// Number of arguments of `try_to_merge_one_page`.
    pub const N_MERGE: usize = 5;
    /// Number of arguments of `get_task_mm`.
    pub const N_GET_TASK_MM: usize = 6;
    /// Number of arguments of `kvm_handle_guest_abort`.
    pub const N_FAULT: usize = 7;
    /// Number of arguments of `kvm_pgtable_stage2_map`.
    pub const N_STAGE2_MAP: usize = 8;
    /// Number of arguments of `kvm_pgtable_stage2_relax_perms`.
    pub const N_STAGE2_RELAX: usize = 9;
    /// Number of indices.
    pub const COUNT: usize = 10;
}

/// Indices into the constant global `FUNCTIONS`: addresses of the functions whose caller an fentry
/// program looks for on the stack, 0 where unknown.
pub mod function {
    /// `__mmu_notifier_invalidate_range_start`.
    pub const RANGE_START: usize = 0;
    /// `__mmu_notifier_change_pte`.
    pub const CHANGE_PTE: usize = 1;
    /// Number of indices.
    pub const COUNT: usize = 2;
}

/// Operations of the program `driver`, which runs the probes' bodies without their hooks: its
/// arguments are the operation, then the plain values that the hook would have read.
pub mod driver_op {
    /// `mm, start, end, event | blockable << 8, caller`.
    pub const RANGE_START: u64 = 1;
    /// `mm, start`.
    pub const RANGE_END: u64 = 2;
    /// `mm, addr, pte, caller`.
    pub const CHANGE_PTE: u64 = 3;
    /// `handled, changed`: KVM's notifier and handler inside the call.
    pub const SET_SPTE: u64 = 4;
    /// `zapped`: KVM's unmap inside the bracket.
    pub const UNMAP: u64 = 5;
    /// KVM's TLB flush.
    pub const FLUSH: u64 = 6;
    /// `mm, gpa, access`: bits of `task::access`.
    pub const FAULT: u64 = 7;
    /// `result, hva`: a `FaultResult`, then the end of the fault.
    pub const FAULT_END: u64 = 8;
    /// `scope, 1 enter | 0 leave, return value`.
    pub const SCOPE: u64 = 9;
    /// `mm, kvm, tgid, born_ns`.
    pub const VM_START: u64 = 10;
    /// `mm`.
    pub const VM_END: u64 = 11;
    /// The task exits.
    pub const TASK_EXIT: u64 = 12;
    /// The open `change_pte` call returns.
    pub const CHANGE_PTE_END: u64 = 14;
    /// `n`: writes that many events, [`MOST_EMITTED`] at most.
    pub const EMIT: u64 = 13;

    /// Most events of one [`EMIT`].
    pub const MOST_EMITTED: u64 = 64;
}
