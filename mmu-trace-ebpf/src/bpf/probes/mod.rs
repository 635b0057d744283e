//! The probes, one file per kernel subject, each in the same order: what is hooked and what may be
//! missing, the attach variants, the bodies, the helpers.

mod change_pte;
mod cow;
mod driver;
mod invalidate;
mod ksm;
mod kvm_mmu;
mod lifetime;
pub(super) mod page_fault;
