//! What the running kernel says about itself: its types, its symbols, and KSM's figures.
//!
//! Parsers only, apart from [`btf::Btf::load`], [`kallsyms::Kallsyms::load`] and [`ksm`]; what is made of the
//! answers (offsets for the BPF object, the choice of hooks) is decided elsewhere.

pub mod address;
pub mod btf;
pub mod kallsyms;
pub mod ksm;
mod small;

pub use small::read_small;
