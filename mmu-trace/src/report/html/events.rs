//! Plots of a capture's events: what was invalidated when, and which guest frames faulted most.

use super::{
    super::{
        layout::{count, plural},
        markup::Markup,
        svg::{Anchor, Scale, Svg, WIDTH},
        timeline::{Bins, N_BINS, Timeline},
    },
    Document, figure, frames,
    histogram::tick,
    rows,
};

/// Space for what stands to the left of the bins.
pub(super) const LEFT: f64 = 190.0;
/// Where the bins end.
pub(super) const RIGHT: f64 = WIDTH - 120.0;

/// The time axis of every plot here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    /// Bins that are shown.
    pub(super) n_bins: usize,
    /// Their width in time, nanoseconds.
    pub(super) bin_ns: u64,
}

impl Axis {
    /// As long as the recording, and no shorter than what `timeline` holds.
    fn new(timeline: &Timeline, seconds: f64) -> Self {
        let bin_ns = timeline.bin_ns();
        let used = timeline.last_bin().map_or(0, |bin| bin + 1);
        let window = (seconds * 1e9 / bin_ns as f64).ceil() as usize;
        Self { n_bins: window.max(used).clamp(1, N_BINS), bin_ns }
    }

    /// The coordinates of a bin's edges.
    pub(super) fn edges(&self, bin: usize) -> (f64, f64) {
        let scale = Scale { max: self.n_bins as f64, from: LEFT, to: RIGHT };
        (scale.at(bin as f64), scale.at((bin + 1) as f64))
    }

    /// The shown bins that are not empty.
    pub(super) fn filled(&self, bins: &Bins) -> impl Iterator<Item = (usize, u32)> {
        bins.iter().copied().enumerate().take(self.n_bins).filter(|&(_, n)| n > 0)
    }

    /// When a bin begins, in words.
    pub(super) fn when(&self, bin: usize) -> String {
        match bin {
            0 => "at the start".to_owned(),
            _ => format!("{} after the start", tick(bin as u64 * self.bin_ns)),
        }
    }

    /// The axis under a plot that ends at `bottom`.
    pub(super) fn draw(&self, svg: &mut Svg, top: f64, bottom: f64) {
        let seconds = self.n_bins as f64 * self.bin_ns as f64 / 1e9;
        let scale = Scale { max: seconds, from: LEFT, to: RIGHT };
        for second in scale.ticks(6) {
            let x = scale.at(second);
            svg.line((x, top), (x, bottom + 5.0), "grid");
            svg.label((x, bottom + 20.0), Anchor::Middle, &tick((second * 1e9).round() as u64));
        }
        svg.line((LEFT, bottom), (RIGHT, bottom), "axis");
    }
}

/// The section about events; without any it says why.
pub(super) fn write(out: &mut Markup, document: &Document<'_>) {
    figure::section(out, "events", "Events over time", |section| {
        for line in shortcomings(document) {
            section.element("p", &[], &line);
        }
        if document.timeline.events() > 0 {
            write_plots(section, document);
        }
    });
}

fn write_plots(out: &mut Markup, document: &Document<'_>) {
    let seconds = document.snapshot.window.seconds;
    let timeline = &document.timeline.covering(seconds, frames::MAX_FRAMES);
    let axis = Axis::new(timeline, seconds);
    rows::write(out, timeline, axis);
    frames::write(out, &Document { timeline, ..*document }, axis);
}

/// What these plots do not show.
fn shortcomings(document: &Document<'_>) -> Vec<String> {
    let (timeline, lost) = (document.timeline, document.provenance.events_lost);
    let lines = [
        (timeline.events() == 0).then(|| {
            "The capture holds no events, so there is nothing to show over time. The figures of this report \
             do not come from events."
                .to_owned()
        }),
        (lost > 0).then(|| {
            format!(
                "{} lost before the recording could write them: what is here is less than what happened. The \
                 figures elsewhere in this report do not come from events.",
                plural(lost, "event was", "events were")
            )
        }),
        (timeline.unreadable() > 0).then(|| {
            format!("Events of a kind that this version does not know: {}.", count(timeline.unreadable()))
        }),
    ];
    lines.into_iter().flatten().collect()
}
