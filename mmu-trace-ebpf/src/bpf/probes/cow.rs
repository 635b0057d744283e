//! Copy on write: is the page that is copied KSM's?
//!
//! ```c
//! static vm_fault_t wp_page_copy(struct vm_fault *vmf); // to 6.11; then inlined in do_wp_page
//! static vm_fault_t do_wp_page(struct vm_fault *vmf);
//! ```
//! (`mm/memory.c`.) `vmf->page` is set when `wp_page_copy` begins, but not yet when `do_wp_page` does. So
//! the entry only keeps `vmf`, and the bracket around the copy, which begins in the same task while `vmf`
//! lives, asks for the page. Address spaces without KVM are left at once.

use mmu_trace_ebpf::abi::{UNATTRIBUTED, offset};

use super::super::{
    call::{Entry, entry_hook},
    maps, read, vm,
};

entry_hook!(fe_cow, kp_cow, copy_probe);

/// `PAGE_MAPPING_KSM` (`include/linux/page-flags.h`).
const MAPPING_KSM: u64 = 3;

#[inline(always)]
fn copy_probe(call: &impl Entry) -> Option<()> {
    let vmf = call.arg(0)?;
    let vma = read::member(vmf, offset::VMF_VMA)?;
    let mm = read::member(vma, offset::VMA_MM)?;
    let tid = read::current_ids().0;
    if let Some(task) = maps::task(tid) {
        if vm::slot_for(task, mm) == UNATTRIBUTED {
            return None;
        }
        task.copied_by = vmf;
    } else if vm::slot_of(mm) != UNATTRIBUTED {
        maps::task_or_new(tid)?.copied_by = vmf;
    }
    Some(())
}

/// Whether the page that is copied on behalf of `vmf` is KSM's.
#[inline(always)]
pub(super) fn copies_ksm_page(vmf: u64) -> bool {
    let page = read::member(vmf, offset::VMF_PAGE).unwrap_or(0);
    let mapping: u64 = read::member(page, offset::PAGE_MAPPING).unwrap_or(0);
    mapping & MAPPING_KSM == MAPPING_KSM
}
