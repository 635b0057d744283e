//! What the running kernel says about itself: its types and its symbols.
//!
//! Parsers only, apart from [`btf::Btf::load`] and [`kallsyms::Kallsyms::load`]; what is made of the
//! answers (offsets for the BPF object, the choice of hooks) is decided elsewhere.

pub mod btf;
pub mod kallsyms;
