//! The report as one HTML page: the same figures as the text, with plots, to be mailed or kept.
//!
//! The page needs nothing but itself: no script, no font, no image, and a content security policy that
//! would refuse them. Plots are inline SVG; what they show also stands in a table beneath. Everything
//! that a guest's owner chose is escaped by [`Markup`], which no text gets around.

mod data;
mod events;
mod figure;
mod frames;
mod histogram;
mod rows;
mod share;
mod vm;

use super::{
    Report,
    headline::answers,
    layout::seconds,
    markup::Markup,
    tables,
    text::{mode_words, shortcomings, verdict},
    timeline::Timeline,
};
use crate::model::{Counters, Snapshot};

const HEAD: &str = concat!(
    "<meta charset=\"utf-8\">\n",
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n",
    "<meta name=\"color-scheme\" content=\"light dark\">\n",
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n",
    "<style>\n",
    include_str!("style.css"),
    "</style>\n",
);

/// What a page is made of.
#[derive(Clone, Copy, Debug)]
pub struct Document<'a> {
    /// The figures.
    pub snapshot: &'a Snapshot,
    /// The capture's events by time.
    pub timeline: &'a Timeline,
    /// Where both come from.
    pub provenance: &'a Provenance,
}

/// Where a report comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provenance {
    /// The capture's file name.
    pub file: String,
    /// Version of the mmu-trace that recorded it; `None` if that part of the capture is damaged.
    pub recorded_with: Option<String>,
    /// Version of the mmu-trace that shows it.
    pub shown_with: String,
    /// The command recorded; empty: none.
    pub command: Vec<String>,
    /// The VMs the recording was limited to; empty: all.
    pub vm_filter: Vec<String>,
    /// How the recording ended, in words.
    pub ended: String,
    /// Events that were lost before they could be written.
    pub events_lost: u64,
}

/// The page.
#[must_use]
pub fn html(document: &Document<'_>) -> String {
    let report = Report::from(document.snapshot);
    let mut page = Markup::default();
    page.raw("<!DOCTYPE html>\n");
    page.nest("html", &[("lang", "en")], |html| {
        html.nest("head", &[], |head| write_head(head, &report));
        html.nest("body", &[], |body| {
            body.raw(share::PATTERNS);
            body.nest("header", &[], |header| write_header(header, document, &report));
            body.nest("main", &[], |main| write_main(main, document, &report));
        });
    });
    page.into_string()
}

fn write_head(head: &mut Markup, report: &Report) {
    head.raw(HEAD);
    head.element("title", &[], &format!("mmu-trace: {} {}", report.host.kernel, report.host.arch));
}

fn write_header(header: &mut Markup, document: &Document<'_>, report: &Report) {
    header.element("p", &[("class", "kind")], "mmu-trace report");
    let answers = answers(document.snapshot, report);
    if let Some((first, rest)) = answers.split_first() {
        header.element("h1", &[], first);
        rest.iter().for_each(|line| header.element("p", &[("class", "lead")], line));
    }
    let host = &report.host;
    let mode = mode_words(host.mode);
    let length = seconds(report.window.seconds);
    header.nest("p", &[], |p| {
        p.text(&format!("Kernel {} {}, {mode}; {length} from ", host.kernel, host.arch));
        p.element("time", &[], &report.window.start);
        p.text(".");
    });
    write_warning(header, document.snapshot);
}

/// A box that cannot be overlooked, if figures are missing.
fn write_warning(header: &mut Markup, snapshot: &Snapshot) {
    if snapshot.quality.is_complete() {
        return;
    }
    header.nest("aside", &[("class", "warning"), ("aria-label", "Warning")], |aside| {
        aside.nest("p", &[], |p| p.element("b", &[], "These figures are incomplete."));
        figure::list(aside, &shortcomings(snapshot));
    });
}

fn write_main(main: &mut Markup, document: &Document<'_>, report: &Report) {
    let snapshot = document.snapshot;
    if !report.vms.is_empty() {
        figure::section(main, "vms", "VMs", |section| {
            let legend = tables::vms_legend(&report.vms);
            figure::linked_table(section, &legend, &tables::vms(&report.vms), "#vm-");
        });
    }
    write_shares(main, snapshot);
    histogram::of_host(main, snapshot);
    events::write(main, document);
    write_vms(main, snapshot, report);
    if !snapshot.unattributed.is_empty() {
        vm::of_nobody(main, &snapshot.unattributed, &report.unattributed);
    }
    data::quality(main, snapshot, &report.quality, verdict(snapshot, &shortcomings(snapshot)));
    data::provenance(main, document.provenance, report);
}

/// A section for each VM; its own plot of shares only where the host's is not the same.
fn write_vms(main: &mut Markup, snapshot: &Snapshot, report: &Report) {
    let n_called = all(snapshot).filter(|counters| share::has_calls(&snapshot.host, counters)).count();
    for (i, (vm, shown)) in snapshot.vms.iter().zip(&report.vms).enumerate() {
        let id = format!("vm-{}", i + 1);
        let shares = share::plot(&id, &snapshot.host, &[&vm.counters]).filter(|_| n_called > 1);
        vm::of_vm(main, &id, &snapshot.host, vm, shown, shares.as_ref());
    }
}

/// Every `change_pte` call of the host, by cause.
fn write_shares(main: &mut Markup, snapshot: &Snapshot) {
    let counters: Vec<&Counters> = all(snapshot).collect();
    if let Some(plot) = share::plot("all", &snapshot.host, &counters) {
        figure::section(main, "change_pte", "change_pte on this host", |section| section.append(&plot));
    }
}

/// The counters of every VM and of nobody.
fn all(snapshot: &Snapshot) -> impl Iterator<Item = &Counters> {
    snapshot.vms.iter().map(|vm| &vm.counters).chain([&snapshot.unattributed])
}
