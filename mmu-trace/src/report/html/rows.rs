//! Invalidations over time: one strip for each cause, so that nobody has to tell colours apart.

use super::{
    super::{
        layout::{Align, Table, count, plural},
        markup::Markup,
        svg::{Anchor, Rect, Scale, Svg},
        timeline::{Bins, N_BINS, Timeline, total},
    },
    events::{Axis, LEFT, RIGHT},
    figure,
    histogram::tick,
};

/// Strips that are drawn; rarer causes share the last one.
const MAX_STRIPS: usize = 8;
const HEIGHT: f64 = 44.0;
/// Of a strip, the part that bars may fill.
const BAR: f64 = 34.0;

/// The plot, or that there is nothing to plot.
pub(super) fn write(out: &mut Markup, timeline: &Timeline, axis: Axis) {
    let strips = strips(timeline);
    if strips.is_empty() {
        out.element("p", &[], "No invalidation was recorded as an event.");
        return;
    }
    let title =
        format!("Invalidations by cause, in steps of {}; each cause has its own scale", tick(axis.bin_ns));
    let bottom = HEIGHT * strips.len() as f64;
    let mut svg = Svg::new(bottom + 28.0);
    axis.draw(&mut svg, 0.0, bottom);
    for (i, (name, bins)) in strips.iter().enumerate() {
        draw(&mut svg, axis, HEIGHT * (i + 1) as f64, name, bins);
    }
    let n = strips.iter().map(|(_, bins)| total(bins)).sum();
    let description = format!("{}, by cause and time.", plural(n, "invalidation", "invalidations"));
    out.append(&figure::plot(&title, &svg.finish("strips", &title, &description), &table(&strips, axis)));
}

/// The most frequent causes, and the others in one.
fn strips(timeline: &Timeline) -> Vec<(&'static str, Bins)> {
    let rows = timeline.invalidations();
    let n_own = if rows.len() > MAX_STRIPS { MAX_STRIPS - 1 } else { rows.len() };
    let (own, further) = rows.split_at(n_own);
    let mut strips: Vec<(&'static str, Bins)> = own.iter().map(|(c, bins)| (c.label(), **bins)).collect();
    if !further.is_empty() {
        let sum = |bin: usize| further.iter().filter_map(|(_, bins)| bins.get(bin)).sum();
        let joined: [u32; N_BINS] = std::array::from_fn(sum);
        strips.push(("further causes", joined));
    }
    strips
}

fn draw(svg: &mut Svg, axis: Axis, bottom: f64, name: &str, bins: &Bins) {
    let max = bins.iter().copied().max().unwrap_or(0);
    let scale = Scale { max: f64::from(max), from: bottom, to: bottom - BAR };
    svg.line((LEFT, bottom), (RIGHT, bottom), "grid");
    svg.label((LEFT - 10.0, bottom - 6.0), Anchor::End, name);
    svg.label((RIGHT + 10.0, bottom - 6.0), Anchor::Start, &format!("peak {}", count(max.into())));
    for (bin, n) in axis.filled(bins) {
        let ((left, right), top) = (axis.edges(bin), scale.at(n.into()).min(bottom - 1.0));
        let tip = format!("{name}: {} in {}, {}", count(n.into()), tick(axis.bin_ns), axis.when(bin));
        svg.bar(Rect(left, top, (right - left - 0.5).max(1.0), bottom - top), "mark", &tip);
    }
}

fn table(strips: &[(&'static str, Bins)], axis: Axis) -> Table {
    let mut table = Table::new([
        ("cause", Align::Text),
        ("invalidations", Align::Number),
        ("peak", Align::Number),
        ("peak at", Align::Number),
    ]);
    for (name, bins) in strips {
        // The first of several peaks.
        let peak = axis.filled(bins).reduce(|best, next| if next.1 > best.1 { next } else { best });
        let (bin, n) = peak.unwrap_or_default();
        let when = tick(bin as u64 * axis.bin_ns);
        table.row([(*name).to_owned(), count(total(bins)), count(n.into()), when]);
    }
    table
}
