//! What a snapshot says, for programs ([`Report`], schema `mmu-trace-report/1`) and for people
//! ([`text`]).
//!
//! Both are computed from a [`crate::model::Snapshot`] and from nothing else. Unknown is `null` in
//! the schema and `unknown` in the text, never 0. The text holds one thing more than the schema:
//! `change_pte` by cause and outcome together.

mod convert;
mod headline;
mod layout;
mod schema;
mod text;
mod vm_section;

pub use layout::{count, duration, plural};
pub use schema::{
    Causes, ChangePte, ChangePtePresence, Host, Invalidation, Ksm, Mode, Outcomes, PageFaults, Quality,
    RefaultCauses, Refaults, Report, SCHEMA, UNATTRIBUTED, Vm, Window,
};
pub use text::text;

pub(crate) use layout::{Align, Table, percent, printable, shorten};
pub(crate) use text::{lacking, shortcomings};
