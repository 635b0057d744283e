//! The closed enumerations behind every label: cause, initiator, outcome, fault result.
//!
//! ABI structs carry their `u8` discriminants; userspace converts with `from_u8`, where an unknown
//! discriminant is `None` and therefore an error of the reader, never a wrong label.

/// Declares a fieldless `repr(u8)` enum with its label, its count and its checked conversion.
macro_rules! kinds {
    ($(#[$doc:meta])* $name:ident { $($(#[doc = $vdoc:literal])* $variant:ident = $label:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[doc = $vdoc])* $variant,)+ }

        impl $name {
            /// Every value, in discriminant order.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];
            /// How many values there are: the length of an array indexed by this enum.
            pub const COUNT: usize = Self::ALL.len();

            /// The label used in reports and metrics.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }

            /// What the value means, for the documents: its own comment.
            #[cfg(not(target_arch = "bpf"))]
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($vdoc),*).trim_ascii(),)+ }
            }

            /// The value with discriminant `raw`, if there is one.
            #[must_use]
            pub fn from_u8(raw: u8) -> Option<Self> {
                Self::ALL.get(usize::from(raw)).copied()
            }

            /// The value called `label`, if there is one.
            #[must_use]
            pub fn from_label(label: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|kind| kind.label() == label)
            }
        }

        #[cfg(feature = "serde")]
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.label())
            }
        }

        #[cfg(feature = "serde")]
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Label;
                impl serde::de::Visitor<'_> for Label {
                    type Value = $name;
                    fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                        f.write_str(concat!("a label of ", stringify!($name)))
                    }
                    fn visit_str<E: serde::de::Error>(self, label: &str) -> Result<$name, E> {
                        $name::from_label(label)
                            .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(label), &self))
                    }
                }
                deserializer.deserialize_str(Label)
            }
        }
    };
}

kinds! {
    /// Why the kernel changed or tore down a host PTE range, taken from the caller of the notifier
    /// (the kernel's own event enum says `MMU_NOTIFY_CLEAR` for almost everything).
    Cause {
        /// A caller that is not in the table; its address is kept for the report.
        Other = "other",
        /// KSM's `write_protect_page`: the page is made read-only before it is compared again.
        KsmWriteProtect = "ksm_write_protect",
        /// KSM's `replace_page`, inlined in `try_to_merge_one_page`: the PTE now maps the stable node.
        KsmReplace = "ksm_replace",
        /// `break_ksm`: `MADV_UNMERGEABLE`, `echo 2 > run`, or ksmd taking back an own merge.
        KsmUnmerge = "ksm_unmerge",
        /// Copy on write for a guest's write (also through async page fault workers).
        CowGuest = "cow_guest",
        /// Copy on write for a write from the host side (VMM, vhost, device model).
        CowHost = "cow_host",
        /// `uprobe_write_opcode` replaced a text page.
        Uprobe = "uprobe",
        /// Page migration: compaction, NUMA balancing's moves, `migrate_vma`, memory hotplug.
        Migrate = "migrate",
        /// `copy_page_range`: the VMM forked.
        Fork = "fork",
        /// `change_protection` outside NUMA balancing: `mprotect`, userfaultfd write-protect.
        Protect = "protect",
        /// `change_prot_numa`: NUMA balancing's hinting scan.
        NumaBalancing = "numa_balancing",
        /// `MADV_DONTNEED`, `MADV_FREE`, hole punching and truncation: balloon and memory unplug.
        Discard = "discard",
        /// `munmap` or exit.
        Unmap = "unmap",
        /// `mremap`.
        Remap = "remap",
        /// Reclaim: `try_to_unmap_one` before swap-out.
        Reclaim = "reclaim",
        /// khugepaged or `MADV_COLLAPSE` built a huge page.
        ThpCollapse = "thp_collapse",
        /// A huge page was split.
        ThpSplit = "thp_split",
        /// Write-back or soft-dirty tracking cleaned or write-protected the range.
        DirtyTracking = "dirty_tracking",
    }
}

impl Cause {
    /// How many causes call `change_pte`; they come first.
    pub const N_OF_CHANGE_PTE: usize = Self::Migrate as usize + 1;

    /// The cause `raw` of a `change_pte` call as an index below [`Self::N_OF_CHANGE_PTE`]; callers that
    /// are not known to call it count as `other`.
    #[inline(always)]
    #[must_use]
    pub fn of_change_pte(raw: u8) -> usize {
        if usize::from(raw) < Self::N_OF_CHANGE_PTE { usize::from(raw) } else { Self::Other as usize }
    }
}

kinds! {
    /// Whose task ran the operation.
    Initiator {
        /// A task whose memory is not the VM's: another process, say through `process_vm_writev`.
        OtherProcess = "other_process",
        /// A vCPU thread inside a guest page fault.
        Vcpu = "vcpu",
        /// A thread of the VMM outside a guest page fault, NUMA balancing's task work included.
        Vmm = "vmm",
        /// `ksmd`.
        Ksmd = "ksmd",
        /// `khugepaged`.
        Khugepaged = "khugepaged",
        /// `kcompactd*`.
        Kcompactd = "kcompactd",
        /// `kswapd*`.
        Kswapd = "kswapd",
        /// `oom_reaper`.
        OomReaper = "oom_reaper",
        /// `kworker/*`, async page fault workers among them.
        Kworker = "kworker",
        /// Any other kernel thread.
        OtherKthread = "other_kthread",
    }
}

kinds! {
    /// What one `change_pte` call came to.
    Outcome {
        /// KVM changed a mapping to the new, read-only PTE.
        EffectiveUpdated = "effective_updated",
        /// KVM found a mapping and dropped it, because the new PTE is writable.
        EffectiveDropped = "effective_dropped",
        /// Nothing left to change: the enclosing `invalidate_range_start` had zapped it.
        NoopZappedByBracket = "noop_zapped_by_bracket",
        /// Nothing left to change: an earlier bracket of the same KSM operation had zapped it.
        NoopZappedBySameOp = "noop_zapped_by_same_op",
        /// The guest had no mapping of the page before the operation either.
        NoopNotMapped = "noop_not_mapped",
        /// No memslot covers the address.
        NotGuestMemory = "not_guest_memory",
        /// No KVM notifier was called for this address space.
        NoSubscriber = "no_subscriber",
        /// No enclosing bracket was seen: a gap in the data, never a property of the kernel since 3.7.
        Unbracketed = "unbracketed",
    }
}

kinds! {
    /// How one call of `kvm_mmu_page_fault` ended.
    FaultResult {
        /// MMIO, shadow paging, exits to userspace, or a result nobody saw.
        Other = "other",
        /// `RET_PF_FIXED`: a mapping was installed.
        Fixed = "fixed",
        /// `RET_PF_RETRY`: the vCPU must fault again, mostly because an invalidation was running.
        Retry = "retry",
        /// `RET_PF_SPURIOUS`: somebody else had installed the mapping.
        Spurious = "spurious",
        /// `RET_PF_EMULATE`.
        Emulate = "emulate",
    }
}

kinds! {
    /// Where a figure may have become incomplete; one kernel-side counter each.
    Gap {
        /// The ring buffer had no room: an event of the recording is lost (the counters are not).
        LostEvent = "lost_event",
        /// `invalidate_range_end` without a known start: the bracket was open when tracing began, or a hook missed.
        OrphanBracket = "orphan_bracket",
        /// A `change_pte` outside every known bracket.
        Unbracketed = "unbracketed",
        /// More than `task::MAX_DEPTH` nested brackets in one task.
        NestedTooDeep = "nested_too_deep",
        /// A non-blocking `invalidate_range_start` that failed and so has no end; not a loss.
        AbandonedBracket = "abandoned_bracket",
        /// The return of `kvm_mmu_page_fault` was not seen.
        MissedFaultReturn = "missed_fault_return",
        /// The return of the handler with the `RET_PF_*` code was not seen.
        MissedResultReturn = "missed_result_return",
        /// The return of a KSM function was not seen.
        MissedKsmReturn = "missed_ksm_return",
        /// The per-task map was full.
        TasksFull = "tasks_full",
        /// A page record could not be written.
        PagesFull = "pages_full",
        /// Every VM slot was taken: the VM is counted as unattributed.
        VmsFull = "vms_full",
        /// The invalidation map was full: brackets are missing from the invalidation table.
        InvalidationsFull = "invalidations_full",
        /// The caller of a hook could not be read; the cause came from the KSM hooks alone.
        UnknownCaller = "unknown_caller",
        /// A large range was forgotten for a newer one: refaults on it are not counted any more.
        RangeForgotten = "range_forgotten",
        /// The end of something that began before tracing did; not a loss.
        BeforeStart = "before_start",
        /// A page record was created (bookkeeping).
        PageCreated = "page_created",
        /// A page record began to wait for a fault (bookkeeping).
        PagePending = "page_pending",
        /// A page record ceased to wait (bookkeeping: pending - settled - waiting now = evicted).
        PageSettled = "page_settled",
        /// The return of a `kvm_mmu_page_fault` whose entry was not seen.
        MissedFaultEntry = "missed_fault_entry",
        /// A bracket that had ended unseen when its task began the next; it is in no figure.
        MissedRangeEnd = "missed_range_end",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_of_change_pte_come_first() {
        assert_eq!(Cause::of_change_pte(Cause::CowHost as u8), Cause::CowHost as usize);
        for cause in [Cause::Fork, Cause::DirtyTracking, Cause::Other] {
            assert_eq!(Cause::of_change_pte(cause as u8), 0);
        }
        assert_eq!(Cause::of_change_pte(255), 0);
    }

    #[test]
    fn conversions_are_inverse_and_unknown_is_none() {
        for &cause in Cause::ALL {
            assert_eq!(Cause::from_u8(cause as u8), Some(cause));
            assert_eq!(Cause::from_label(cause.label()), Some(cause));
        }
        assert_eq!(Cause::from_u8(Cause::COUNT as u8), None);
        assert_eq!(Outcome::from_u8(255), None);
    }
}
