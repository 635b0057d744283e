//! What a snapshot says, for programs ([`Report`], schema `mmu-trace-report/1`) and for people, as text
//! ([`text`]) or as a page with plots ([`html`]).
//!
//! All are computed from a [`crate::model::Snapshot`] and from nothing else, apart from the page's plots
//! over time: those come from a capture's events ([`Timeline`]). Unknown is `null` in the schema and
//! `unknown` for people, never 0. People get one thing more than the schema holds: `change_pte` by cause
//! and outcome together.

mod convert;
mod headline;
mod heat;
mod html;
mod layout;
mod markup;
mod schema;
mod svg;
mod tables;
mod text;
mod timeline;
mod vm_section;

pub use heat::{Frame, Heat, Holder};
pub use html::{Document, Provenance, html};
pub use layout::{count, duration, plural};
pub use schema::{
    Causes, ChangePte, ChangePtePresence, Host, Invalidation, Ksm, Mode, Outcomes, PageFaults, Quality,
    RefaultCauses, Refaults, Report, SCHEMA, UNATTRIBUTED, Vm, Window,
};
pub use text::text;
pub use timeline::{Bins, N_BINS, Timeline};

pub(crate) use layout::{Align, Table, cause_with_caller, percent, printable, shorten};
pub(crate) use markup::escape;
pub(crate) use text::{lacking, shortcomings};
