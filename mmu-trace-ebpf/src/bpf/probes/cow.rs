//! Copy on write: is the page that is copied KSM's?
//!
//! ```c
//! static vm_fault_t wp_page_copy(struct vm_fault *vmf); // to 6.11; then inlined in do_wp_page
//! static vm_fault_t do_wp_page(struct vm_fault *vmf);
//! ```
//! (`mm/memory.c`.) `vmf->page` is set when `wp_page_copy` begins. Address spaces without KVM are
//! left at once. The answer is kept for the bracket that follows in the same task.

use mmu_trace_ebpf::abi::{UNATTRIBUTED, offset};

use super::super::{
    call::{Entry, entry_hook},
    maps, read, vm,
};

entry_hook!(fe_cow, kp_cow, copy_probe);

/// `PAGE_MAPPING_KSM` (`include/linux/page-flags.h`).
const MAPPING_KSM: u64 = 3;

#[inline(always)]
fn copy_probe(call: &Entry) -> Option<()> {
    let vmf = call.args[0];
    let vma = read::member(vmf, offset::VMF_VMA)?;
    let mm = read::member(vma, offset::VMA_MM)?;
    if vm::slot_of(mm) == UNATTRIBUTED {
        return None;
    }
    let page = read::member(vmf, offset::VMF_PAGE)?;
    let mapping: u64 = read::member(page, offset::PAGE_MAPPING)?;
    let task = maps::task_or_new(read::current_ids().0)?;
    task.cow_of_ksm = (mapping & MAPPING_KSM == MAPPING_KSM) as u32;
    Some(())
}
