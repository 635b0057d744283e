//! The guest frames with the most faults, as a heat map over time.

use super::{
    super::{
        heat::{Frame, Heat, Holder},
        layout::{Align, Table, count, plural, shorten},
        markup::Markup,
        svg::{Anchor, Rect, Svg},
    },
    Document,
    events::{Axis, LEFT, RIGHT},
    figure,
    histogram::tick,
};
use crate::model::Snapshot;

/// Frames that are shown.
pub(super) const MAX_FRAMES: usize = 24;
const ROW: f64 = 18.0;
/// The faintest cell, so that one fault is still seen.
const MIN_OPACITY: f64 = 0.3;
/// Longest name beside a frame number, in characters.
const MAX_NAME: usize = 12;

/// A frame with what is written beside it.
type Row = (String, Frame, Heat);

/// The plot, or that there is nothing to plot.
pub(super) fn write(out: &mut Markup, document: &Document<'_>, axis: Axis) {
    let rows = rows(document);
    if rows.is_empty() {
        out.element("p", &[], "No guest fault on a frame of a known VM was recorded as an event.");
        out.element("p", &[], &legend(document));
        return;
    }
    let max = rows.iter().flat_map(|(_, _, heat)| heat.bins).max().unwrap_or(0);
    let step = tick(axis.bin_ns);
    let title =
        format!("Faults on the hottest guest frames, in steps of {step}; strongest colour: {}", faults(max));
    let bottom = ROW * rows.len() as f64;
    let mut svg = Svg::new(bottom + 28.0);
    axis.draw(&mut svg, 0.0, bottom);
    for (i, row) in rows.iter().enumerate() {
        draw(&mut svg, axis, ROW * i as f64, row, max);
    }
    let description =
        format!("The {} with the most faults, by time.", plural(rows.len() as u64, "frame", "frames"));
    let svg = svg.finish("frames", &title, &description);
    out.append(&figure::plot(&title, &svg, &table(&rows, document.snapshot)));
    out.element("p", &[], &legend(document));
}

/// The hottest frames, with the name of their VM if there are several.
fn rows(document: &Document<'_>) -> Vec<Row> {
    let hottest = document.timeline.hottest(MAX_FRAMES);
    let one_vm = document.snapshot.vms.len() == 1;
    let label = |frame: Frame| match one_vm {
        true => gfn(frame),
        false => format!("{} {}", shorten(&vm(frame, document.snapshot), MAX_NAME), gfn(frame)),
    };
    hottest.into_iter().map(|(frame, heat)| (label(frame), frame, heat)).collect()
}

fn draw(svg: &mut Svg, axis: Axis, y: f64, (label, _, heat): &Row, max: u32) {
    svg.label((LEFT - 10.0, y + 13.0), Anchor::End, label);
    svg.label((RIGHT + 10.0, y + 13.0), Anchor::Start, &plural(heat.faults, "fault", "faults"));
    svg.line((LEFT, y + ROW), (RIGHT, y + ROW), "grid");
    for (bin, n) in axis.filled(&heat.bins) {
        let (left, right) = axis.edges(bin);
        let tip = format!("{label}: {} in {}, {}", faults(n), tick(axis.bin_ns), axis.when(bin));
        svg.cell(Rect(left, y + 1.0, right - left, ROW - 2.0), "mark", opacity(n, max), &tip);
    }
}

/// From the faintest for one fault to opaque for `max`; the square root keeps small numbers apart.
fn opacity(n: u32, max: u32) -> f64 {
    let part = if max > 1 { f64::from(n.saturating_sub(1)) / f64::from(max - 1) } else { 1.0 };
    MIN_OPACITY + (1.0 - MIN_OPACITY) * part.sqrt()
}

fn faults(n: u32) -> String {
    plural(n.into(), "fault", "faults")
}

fn gfn(frame: Frame) -> String {
    format!("gfn {:#x}", frame.gfn)
}

/// The name of a frame's VM; with a process id used twice, of the later one.
fn vm(frame: Frame, snapshot: &Snapshot) -> String {
    let pid = match frame.holder {
        Holder::Process(pid) => pid,
        Holder::Slot(slot) => return format!("slot {slot}"),
    };
    let named = snapshot.vms.iter().rev().find(|vm| vm.identity.pid == pid);
    named.map_or_else(|| format!("pid {pid}"), |vm| vm.identity.name.clone())
}

fn legend(document: &Document<'_>) -> String {
    let faults = |n| plural(n, "fault", "faults");
    let (forgotten, shared) = (document.timeline.forgotten_faults(), document.timeline.shared_faults());
    let mut text =
        "Only faults that concern a mapping count here: those fixed, retried or spurious.".to_owned();
    if forgotten > 0 {
        text.push_str(&format!(
            " {} on colder frames were left out to bound memory: the count of a frame shown can be too low, by {} \
             at most.",
            faults(forgotten),
            count(document.timeline.forgotten_of_one())
        ));
    }
    if shared > 0 {
        text.push_str(&format!(" {} of VMs that are not told apart are not here.", faults(shared)));
    }
    text
}

fn table(rows: &[Row], snapshot: &Snapshot) -> Table {
    let mut table = Table::new([
        ("frame", Align::Text),
        ("VM", Align::Text),
        ("faults", Align::Number),
        ("refaults", Align::Number),
    ]);
    for (_, frame, heat) in rows {
        table.row([gfn(*frame), vm(*frame, snapshot), count(heat.faults), count(heat.refaults)]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_fault_is_seen_and_the_most_is_opaque() {
        assert_eq!([opacity(1, 100), opacity(100, 100), opacity(1, 1)], [MIN_OPACITY, 1.0, 1.0]);
        assert!(opacity(2, 100) > opacity(1, 100));
    }
}
