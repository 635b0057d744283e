//! Which part of the `change_pte` calls was a no-op, by cause; where the kernel has no such callback,
//! how often it would have been called.

use std::collections::BTreeMap;

use mmu_trace_ebpf::kind::{Cause, Outcome};

use super::{
    super::{
        layout::{Align, Table, count, percent, plural},
        markup::Markup,
        svg::{Anchor, Rect, Scale, Svg},
    },
    figure,
};
use crate::model::{Counters, Host};

/// The fills that tell parts apart without colour, for every plot on the page.
pub(super) const PATTERNS: &str = concat!(
    "<svg class=\"patterns\" aria-hidden=\"true\"><defs>\n",
    "<pattern id=\"hatch\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" ",
    "patternTransform=\"rotate(45)\"><rect class=\"noop-back\" width=\"6\" height=\"6\"/>",
    "<line class=\"noop-line\" y2=\"6\"/></pattern>\n",
    "<pattern id=\"dots\" width=\"5\" height=\"5\" patternUnits=\"userSpaceOnUse\">",
    "<rect class=\"neither-back\" width=\"5\" height=\"5\"/>",
    "<circle class=\"neither-dot\" cx=\"2\" cy=\"2\" r=\"1\"/></pattern>\n",
    "</defs></svg>\n",
);

const ROW: f64 = 26.0;
const BAR: f64 = 16.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = 560.0;
const LEGEND: f64 = 30.0;

/// The calls of one cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Share {
    effective: u64,
    noop: u64,
    /// Not for guest memory, or not judged.
    neither: u64,
}

impl Share {
    fn add(&mut self, outcome: Outcome, n: u64) {
        let part = match outcome {
            Outcome::EffectiveUpdated | Outcome::EffectiveDropped => &mut self.effective,
            Outcome::NoopZappedByBracket | Outcome::NoopZappedBySameOp | Outcome::NoopNotMapped => {
                &mut self.noop
            }
            Outcome::NotGuestMemory | Outcome::NoSubscriber | Outcome::Unbracketed => &mut self.neither,
        };
        *part += n;
    }

    fn calls(&self) -> u64 {
        self.effective + self.noop + self.neither
    }

    fn parts(&self) -> [(&'static str, &'static str, u64); 3] {
        [
            ("effective", "effective", self.effective),
            ("noop", "no-op", self.noop),
            ("neither", "not for guest memory, or not judged", self.neither),
        ]
    }
}

/// The plot of what `counters` have counted together; `None` if that is nothing.
pub(super) fn plot(id: &str, host: &Host, counters: &[&Counters]) -> Option<Markup> {
    if host.has_change_pte { outcomes(id, counters) } else { would_be(id, counters) }
}

/// Whether there is something to plot.
pub(super) fn has_calls(host: &Host, counters: &Counters) -> bool {
    if host.has_change_pte {
        counters.change_pte_calls() > 0
    } else {
        counters.would_be.values().any(|&n| n > 0)
    }
}

fn outcomes(id: &str, counters: &[&Counters]) -> Option<Markup> {
    let shares = shares(counters);
    let calls: u64 = shares.values().map(Share::calls).sum();
    let noop: u64 = shares.values().map(|share| share.noop).sum();
    let mut svg = Svg::new(ROW * shares.len() as f64 + LEGEND);
    for (i, (cause, share)) in shares.iter().enumerate() {
        draw_share(&mut svg, ROW * i as f64, *cause, share);
    }
    draw_legend(&mut svg, ROW * shares.len() as f64);
    let description = format!("{} of {} were no-ops.", count(noop), plural(calls, "call", "calls"));
    let title = "No-op share of the change_pte calls by cause";
    let svg = svg.finish(&format!("{id}-share"), title, &description);
    (calls > 0).then(|| figure::plot(title, &svg, &share_table(&shares)))
}

fn shares(counters: &[&Counters]) -> BTreeMap<Cause, Share> {
    let mut shares: BTreeMap<Cause, Share> = BTreeMap::new();
    for (&cause, by_outcome) in counters.iter().flat_map(|counters| &counters.change_pte) {
        let share = shares.entry(cause).or_default();
        by_outcome.iter().for_each(|(&outcome, &n)| share.add(outcome, n));
    }
    shares.retain(|_, share| share.calls() > 0);
    shares
}

fn draw_share(svg: &mut Svg, y: f64, cause: Cause, share: &Share) {
    draw_cause(svg, y, cause);
    let scale = Scale { max: share.calls() as f64, from: LEFT, to: RIGHT };
    let mut before = 0;
    for (class, words, n) in share.parts().into_iter().filter(|&(_, _, n)| n > 0) {
        let (from, to) = (scale.at(before as f64), scale.at((before + n) as f64));
        let tip = format!("{}: {} {words}", cause.label(), count(n));
        svg.bar(Rect(from, y + 4.0, to - from, BAR), class, &tip);
        before += n;
    }
    let decided = share.noop + share.effective;
    let verdict = match decided {
        0 => "undecided".to_owned(),
        _ => format!("{} no-op", percent(share.noop, decided)),
    };
    let text = format!("{verdict}, {}", plural(share.calls(), "call", "calls"));
    svg.label((RIGHT + 10.0, y + 17.0), Anchor::Start, &text);
}

fn draw_cause(svg: &mut Svg, y: f64, cause: Cause) {
    svg.label((LEFT - 10.0, y + 17.0), Anchor::End, cause.label());
}

fn draw_legend(svg: &mut Svg, y: f64) {
    let mut x = LEFT;
    for (class, words, _) in Share::default().parts() {
        svg.bar(Rect(x, y + 12.0, 12.0, 12.0), class, words);
        svg.label((x + 18.0, y + 22.0), Anchor::Start, words);
        x += 120.0;
    }
}

fn share_table(shares: &BTreeMap<Cause, Share>) -> Table {
    let mut table = Table::new([
        ("cause", Align::Text),
        ("effective", Align::Number),
        ("no-op", Align::Number),
        ("neither", Align::Number),
        ("no-op share", Align::Number),
    ]);
    for (cause, share) in shares {
        let ratio = percent(share.noop, share.noop + share.effective);
        let [effective, noop, neither] = share.parts().map(|(_, _, n)| count(n));
        table.row([cause.label().to_owned(), effective, noop, neither, ratio]);
    }
    table
}

fn would_be(id: &str, counters: &[&Counters]) -> Option<Markup> {
    let mut calls: BTreeMap<Cause, u64> = BTreeMap::new();
    for (&cause, &n) in counters.iter().flat_map(|counters| &counters.would_be).filter(|&(_, &n)| n > 0) {
        *calls.entry(cause).or_default() += n;
    }
    let max = calls.values().copied().max()?;
    let scale = Scale { max: max as f64, from: LEFT, to: RIGHT };
    let mut svg = Svg::new(ROW * calls.len() as f64 + 4.0);
    for (i, (&cause, &n)) in calls.iter().enumerate() {
        draw_would_be(&mut svg, ROW * i as f64, cause, n, &scale);
    }
    let total = plural(calls.values().sum(), "call", "calls");
    let title = "change_pte calls by cause, had the kernel made them";
    let svg = svg.finish(&format!("{id}-share"), title, &format!("{total} altogether."));
    Some(figure::plot(title, &svg, &would_be_table(&calls)))
}

fn draw_would_be(svg: &mut Svg, y: f64, cause: Cause, n: u64, scale: &Scale) {
    draw_cause(svg, y, cause);
    let calls = plural(n, "call", "calls");
    let tip = format!("{}: {calls}", cause.label());
    svg.bar(Rect(LEFT, y + 4.0, scale.at(n as f64) - LEFT, BAR), "mark", &tip);
    svg.label((scale.at(n as f64) + 10.0, y + 17.0), Anchor::Start, &calls);
}

fn would_be_table(calls: &BTreeMap<Cause, u64>) -> Table {
    let mut table = Table::new([("cause", Align::Text), ("calls", Align::Number)]);
    for (cause, &n) in calls {
        table.row([cause.label().to_owned(), count(n)]);
    }
    table
}
