//! A small SVG writer for plots inside an HTML page.
//!
//! It knows shapes and axes, not what they mean. Colours are left to the page's style sheet by class, so
//! that one plot serves light, dark and paper.

use super::markup::{Attribute, Markup};

/// Width of every plot, in user units: pixels, where there is room for them.
pub(super) const WIDTH: f64 = 760.0;

/// Where a label stands relative to its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    /// To the right of it.
    Start,
    /// Centred on it.
    Middle,
    /// To the left of it.
    End,
}

/// A rectangle: x, y, width and height.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rect(pub(super) f64, pub(super) f64, pub(super) f64, pub(super) f64);

/// A plot under construction.
#[derive(Debug)]
pub(super) struct Svg {
    height: f64,
    body: Markup,
}

impl Svg {
    /// An empty plot of [`WIDTH`] by `height`.
    pub(super) fn new(height: f64) -> Self {
        Self { height, body: Markup::default() }
    }

    /// A filled rectangle; `tip` is shown by a pointer that rests on it.
    pub(super) fn bar(&mut self, rect: Rect, class: &str, tip: &str) {
        self.filled(rect, &[("class", class)], tip);
    }

    /// A rectangle whose fill is as opaque as `opacity`, from 0 to 1.
    pub(super) fn cell(&mut self, rect: Rect, class: &str, opacity: f64, tip: &str) {
        self.filled(rect, &[("class", class), ("fill-opacity", &format!("{opacity:.2}"))], tip);
    }

    /// A straight line.
    pub(super) fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        let [x1, y1, x2, y2] = [from.0, from.1, to.0, to.1].map(number);
        self.body.empty("line", &[("class", class), ("x1", &x1), ("y1", &y1), ("x2", &x2), ("y2", &y2)]);
    }

    /// A text on the base line `y`.
    pub(super) fn label(&mut self, (x, y): (f64, f64), anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let (x, y) = (number(x), number(y));
        self.body.element("text", &[("x", &x), ("y", &y), ("text-anchor", anchor)], text);
    }

    /// The plot with a name and a description in words; `id` must be unique on the page.
    pub(super) fn finish(self, id: &str, title: &str, description: &str) -> Markup {
        let (title_id, description_id) = (format!("{id}-title"), format!("{id}-desc"));
        let view = format!("0 0 {} {}", number(WIDTH), number(self.height));
        let names = format!("{title_id} {description_id}");
        let mut out = Markup::default();
        out.nest("svg", &[("viewBox", &view), ("role", "img"), ("aria-labelledby", &names)], |svg| {
            svg.element("title", &[("id", &title_id)], title);
            svg.element("desc", &[("id", &description_id)], description);
            svg.append(&self.body);
        });
        out
    }

    fn filled(&mut self, Rect(x, y, width, height): Rect, style: &[Attribute<'_>], tip: &str) {
        let [x, y, width, height] = [x, y, width, height].map(number);
        let place = [("x", &*x), ("y", &*y), ("width", &*width), ("height", &*height)];
        let attributes: Vec<Attribute<'_>> = style.iter().copied().chain(place).collect();
        self.body.nest("rect", &attributes, |rect| rect.element("title", &[], tip));
    }
}

/// A linear scale: values from 0 on, drawn between two coordinates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scale {
    /// The value at `to`; that at `from` is 0.
    pub(super) max: f64,
    /// Coordinate of 0.
    pub(super) from: f64,
    /// Coordinate of `max`.
    pub(super) to: f64,
}

impl Scale {
    /// The coordinate of `value`.
    pub(super) fn at(&self, value: f64) -> f64 {
        let part = if self.max > 0.0 { (value / self.max).clamp(0.0, 1.0) } else { 0.0 };
        self.from + (self.to - self.from) * part
    }

    /// Round values from 0 to `max`, about `n` of them.
    pub(super) fn ticks(&self, n: u32) -> Vec<f64> {
        let rough = self.max / f64::from(n.max(1));
        if !rough.is_normal() || rough < 0.0 {
            return vec![0.0];
        }
        let decade = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0].map(|m| m * decade).into_iter().find(|&s| s >= rough);
        let step = step.unwrap_or(10.0 * decade);
        let count = (self.max / step).floor() as u32;
        (0..=count).map(|i| f64::from(i) * step).collect()
    }
}

/// A coordinate with at most one decimal.
fn number(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or_else(|| text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        let ticks = |max| Scale { max, from: 0.0, to: 100.0 }.ticks(6);
        assert_eq!(ticks(5.85), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(ticks(30.0), [0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0]);
        assert_eq!(ticks(0.0), [0.0]);
        for max in [1e-9, 0.7, 11.0, 86_400.0, 1e12] {
            assert!((3..=8).contains(&ticks(max).len()), "{max}");
        }
    }

    #[test]
    fn a_value_beyond_the_scale_stays_in_the_plot() {
        let scale = Scale { max: 10.0, from: 50.0, to: 100.0 };
        assert_eq!([-1.0, 0.0, 5.0, 20.0].map(|v| scale.at(v)), [50.0, 50.0, 75.0, 100.0]);
    }

    #[test]
    fn a_plot_has_a_name_and_a_description() {
        let mut svg = Svg::new(20.0);
        svg.bar(Rect(0.0, 1.25, 2.0, 3.0), "noop", "<tip>");
        let svg = svg.finish("p", "T", "D").into_string();
        assert!(svg.contains("aria-labelledby=\"p-title p-desc\"") && svg.contains("viewBox=\"0 0 760 20\""));
        assert!(svg.contains("width=\"2\" height=\"3\"><title>&lt;tip&gt;</title></rect>"), "{svg}");
    }
}
