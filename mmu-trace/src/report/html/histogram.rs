//! Histograms of durations, on a logarithmic axis: the kernel side's buckets are four to a power of two.

use std::collections::BTreeMap;

use mmu_trace_ebpf::histogram::{N_BUCKETS, lower_bound_ns};

use super::{
    super::{
        layout::{Align, Table, count, duration, plural},
        markup::Markup,
        svg::{Anchor, Rect, Scale, Svg, WIDTH},
    },
    figure,
};
use crate::model::{Histograms, Snapshot, quantile_ns};

const HEIGHT: f64 = 210.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = WIDTH - 32.0;
/// Room for the label of a quantile.
const LABEL: f64 = 120.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = HEIGHT - 28.0;

/// A histogram ready to be drawn, and the decades it spans.
struct Plot {
    histogram: BTreeMap<u16, u64>,
    /// Powers of ten, nanoseconds, at both ends of the axis.
    decades: (u32, u32),
}

/// The plots of one VM or of the host, those that are not empty.
pub(super) fn plots(id: &str, histograms: &Histograms) -> Vec<Markup> {
    [
        ("fault", "Latency of guest faults", &histograms.fault),
        ("refault", "Latency of refaults", &histograms.refault),
        ("delay", "Delay of refaults after the zap", &histograms.refault_delay),
    ]
    .into_iter()
    .filter_map(|(name, title, histogram)| Some(draw(&format!("{id}-{name}"), title, &Plot::new(histogram)?)))
    .collect()
}

/// The host's durations, where no VM has its own.
pub(super) fn of_host(out: &mut Markup, snapshot: &Snapshot) {
    if snapshot.vms.iter().any(|vm| vm.histograms.is_some()) {
        return;
    }
    let plots = plots("all", &snapshot.histograms);
    if !plots.is_empty() {
        figure::section(out, "durations", "Durations on this host", |section| {
            plots.iter().for_each(|plot| section.append(plot));
        });
    }
}

impl Plot {
    /// `None` if there is nothing to draw. What a damaged file claims beyond the last bucket is left out.
    fn new(histogram: &BTreeMap<u16, u64>) -> Option<Self> {
        let histogram: BTreeMap<u16, u64> = histogram
            .iter()
            .map(|(&bucket, &n)| (bucket, n))
            .filter(|&(bucket, n)| usize::from(bucket) < N_BUCKETS && n > 0)
            .collect();
        let (&first, &last) = (histogram.keys().next()?, histogram.keys().next_back()?);
        let decades = (from_ns(first.into()).ilog10(), to_ns(last.into()).ilog10() + 1);
        Some(Self { histogram, decades })
    }

    fn buckets(&self) -> impl Iterator<Item = (usize, u64)> {
        self.histogram.iter().map(|(&bucket, &n)| (usize::from(bucket), n))
    }

    /// The coordinate of a duration.
    fn x(&self, ns: u64) -> f64 {
        let (first, last) = (f64::from(self.decades.0), f64::from(self.decades.1));
        let scale = Scale { max: last - first, from: LEFT, to: RIGHT };
        scale.at((ns.max(1) as f64).log10() - first)
    }

    fn max(&self) -> u64 {
        self.histogram.values().copied().max().unwrap_or(0)
    }
}

/// Where a bucket is drawn from; the first one has no lower bound above 0.
fn from_ns(bucket: usize) -> u64 {
    if bucket == 0 { lower_bound_ns(1) / 2 } else { lower_bound_ns(bucket) }
}

fn to_ns(bucket: usize) -> u64 {
    lower_bound_ns(bucket + 1)
}

fn draw(id: &str, title: &str, plot: &Plot) -> Markup {
    let mut svg = Svg::new(HEIGHT);
    let max = plot.max();
    let scale = Scale { max: max as f64, from: BOTTOM, to: TOP };
    draw_axes(&mut svg, plot, max);
    for (bucket, n) in plot.buckets() {
        let (left, right, top) = (plot.x(from_ns(bucket)), plot.x(to_ns(bucket)), scale.at(n as f64));
        let tip = format!("{}: {}", range(bucket), count(n));
        svg.bar(Rect(left, top, (right - left - 0.5).max(1.0), BOTTOM - top), "mark", &tip);
    }
    // Neither line crosses the other's label: the median is to the left and lower.
    draw_quantile(&mut svg, plot, ("median", 0.5), TOP - 12.0, Anchor::End);
    draw_quantile(&mut svg, plot, ("p99", 0.99), TOP - 28.0, Anchor::Start);
    let svg = svg.finish(id, title, &description(plot));
    figure::plot(&format!("{title}: {}", description(plot)), &svg, &table(plot))
}

fn draw_axes(svg: &mut Svg, plot: &Plot, max: u64) {
    for exponent in plot.decades.0..=plot.decades.1 {
        let ns = 10_u64.saturating_pow(exponent);
        let x = plot.x(ns);
        svg.line((x, TOP), (x, BOTTOM + 5.0), "grid");
        svg.label((x, BOTTOM + 20.0), Anchor::Middle, &tick(ns));
    }
    svg.line((LEFT, TOP), (RIGHT, TOP), "grid");
    svg.line((LEFT, BOTTOM), (RIGHT, BOTTOM), "axis");
    svg.label((LEFT - 8.0, TOP + 4.0), Anchor::End, &count(max));
    svg.label((LEFT - 8.0, BOTTOM + 4.0), Anchor::End, "0");
}

/// A dashed line at a quantile, its label at the height `y` on the side `anchor`, or where there is room.
fn draw_quantile(svg: &mut Svg, plot: &Plot, (name, q): (&str, f64), y: f64, anchor: Anchor) {
    let Some(ns) = quantile_ns(&plot.histogram, q) else { return };
    let x = plot.x(ns);
    svg.line((x, y), (x, BOTTOM), "quantile");
    let is_left = if anchor == Anchor::End { x - LABEL > LEFT } else { x + LABEL > WIDTH };
    let (x, anchor) = if is_left { (x - 6.0, Anchor::End) } else { (x + 6.0, Anchor::Start) };
    svg.label((x, y + 8.0), anchor, &format!("{name} {}", duration(ns)));
}

/// A round duration, without decimals.
pub(super) fn tick(ns: u64) -> String {
    if ns == 0 { "0".to_owned() } else { duration(ns).replace(".0 ", " ") }
}

fn description(plot: &Plot) -> String {
    let quantile = |q| quantile_ns(&plot.histogram, q).map_or_else(|| "unknown".to_owned(), duration);
    let n = plot.histogram.values().sum();
    format!("{}, median {}, p99 {}", plural(n, "measured", "measured"), quantile(0.5), quantile(0.99))
}

fn range(bucket: usize) -> String {
    match bucket {
        0 => format!("below {}", duration(lower_bound_ns(1))),
        _ if bucket == N_BUCKETS - 1 => format!("{} or more", duration(lower_bound_ns(bucket))),
        _ => format!("{} to {}", duration(lower_bound_ns(bucket)), duration(to_ns(bucket))),
    }
}

fn table(plot: &Plot) -> Table {
    let mut table = Table::new([("duration", Align::Text), ("number", Align::Number)]);
    for (bucket, n) in plot.buckets() {
        table.row([range(bucket), count(n)]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_at_both_ends_and_beyond_are_drawn_or_left_out() {
        let last = (N_BUCKETS - 1) as u16;
        let histogram = BTreeMap::from([(0, 1), (last, 2), (last + 1, 3), (u16::MAX, 4)]);
        let plot = Plot::new(&histogram).unwrap();
        assert_eq!((plot.histogram.len(), plot.max(), plot.decades), (2, 2, (1, 11)));
        assert!((LEFT..RIGHT).contains(&plot.x(from_ns(0))));
        assert!(Plot::new(&BTreeMap::from([(last + 1, 3), (5, 0)])).is_none());
    }

    #[test]
    fn one_bucket_spans_a_decade_with_labels_at_both_ends() {
        let histogram = BTreeMap::from([(26, 7)]);
        let plot = Plot::new(&histogram).unwrap();
        assert_eq!(plot.decades.1 - plot.decades.0, 1);
        assert_eq!([1_000, 100_000_000, 0].map(tick), ["1 us", "100 ms", "0"]);
    }
}
