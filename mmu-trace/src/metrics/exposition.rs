//! From values to the text format (`text/plain; version=0.0.4`).
//!
//! A thousand VMs have a hundred thousand samples. The labels of each are written once, behind those of the
//! one before, as they will stand in the text; the text is put together from them in one go. The client
//! library's encoder would want each sample as a tree of owned strings first.

use std::fmt::{self, Write as _};

use super::table::{self, Kind, Series};

/// The values of one scrape.
pub(super) struct Exposition {
    /// By [`Series::place`].
    families: Vec<Family>,
}

/// The samples of one series, in the order in which they came.
#[derive(Default)]
struct Family {
    /// The labels of all samples, one behind the other.
    labels: String,
    samples: Vec<(Labels, f64)>,
    histograms: Vec<(Labels, Histogram)>,
}

/// Where in [`Family::labels`] those of a sample are, as in the text, without the braces.
#[derive(Clone, Copy)]
struct Labels {
    start: usize,
    end: usize,
}

/// One histogram.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Histogram {
    /// Upper bounds in seconds, ascending, each with the number of observations up to it.
    pub(super) buckets: Vec<(f64, u64)>,
    /// All observations.
    pub(super) count: u64,
    /// Their sum, seconds.
    pub(super) sum: f64,
}

/// About what a sample takes beside its labels: the name, the braces, the value.
const SAMPLE_BYTES: usize = 56;
/// The same for the lines before the samples.
const HEAD_BYTES: usize = 256;

impl Default for Exposition {
    fn default() -> Self {
        Self { families: table::ALL.iter().map(|_| Family::default()).collect() }
    }
}

impl Exposition {
    /// Adds `value` to the sample of `series`, a counter, with the label values `labels`: a VM that appears
    /// twice gives one sample, not a scrape that Prometheus rejects.
    pub(super) fn add(&mut self, series: &Series, labels: &[&str], value: u64) {
        self.add_f64(series, labels, value as f64);
    }

    /// The same for nanoseconds, shown as seconds.
    pub(super) fn add_ns(&mut self, series: &Series, labels: &[&str], ns: u64) {
        self.add_f64(series, labels, ns as f64 / 1e9);
    }

    pub(super) fn add_f64(&mut self, series: &Series, labels: &[&str], value: f64) {
        debug_assert_eq!(series.kind, Kind::Counter, "{}", series.name);
        self.put(series, labels, value);
    }

    /// Sets the sample of `series`, a gauge; the last one holds.
    pub(super) fn set(&mut self, series: &Series, labels: &[&str], value: f64) {
        debug_assert_eq!(series.kind, Kind::Gauge, "{}", series.name);
        self.put(series, labels, value);
    }

    fn put(&mut self, series: &Series, labels: &[&str], value: f64) {
        let family = &mut self.families[series.place];
        let labels = family.write_labels(series, labels);
        family.samples.push((labels, value));
    }

    /// Sets the histogram of `series` with the label values `labels`; the last one holds.
    pub(super) fn set_histogram(&mut self, series: &Series, labels: &[&str], histogram: Histogram) {
        let family = &mut self.families[series.place];
        let labels = family.write_labels(series, labels);
        family.histograms.push((labels, histogram));
    }

    /// The text, families in the table's order; families without a sample are left out.
    pub(super) fn encode(mut self) -> Result<String, fmt::Error> {
        let mut text = String::with_capacity(self.families.iter().map(Family::estimate).sum());
        for (series, family) in table::ALL.iter().zip(&mut self.families) {
            family.encode(series, &mut text)?;
        }
        Ok(text)
    }
}

impl Family {
    /// Writes the labels of a sample of `series`; a value may hold anything.
    fn write_labels(&mut self, series: &Series, values: &[&str]) -> Labels {
        debug_assert_eq!(series.labels.len(), values.len(), "{}", series.name);
        let text = &mut self.labels;
        let start = text.len();
        for (name, value) in series.labels.iter().zip(values) {
            if text.len() > start {
                text.push(',');
            }
            text.push_str(name);
            text.push_str("=\"");
            push_escaped(text, value, true);
            text.push('"');
        }
        Labels { start, end: text.len() }
    }

    fn estimate(&self) -> usize {
        let lines =
            self.samples.len() + self.histograms.iter().map(|(_, it)| it.buckets.len() + 3).sum::<usize>();
        // Those of a histogram stand on each of its lines.
        let repeated = if self.histograms.is_empty() { 1 } else { 24 };
        if lines == 0 { 0 } else { HEAD_BYTES + self.labels.len() * repeated + lines * SAMPLE_BYTES }
    }

    fn encode(&mut self, series: &Series, text: &mut String) -> fmt::Result {
        let Self { labels, samples, histograms } = self;
        if samples.is_empty() && histograms.is_empty() {
            return Ok(());
        }
        write_head(text, series)?;
        let written = |it: &Labels| &labels[it.start..it.end];
        // Stable, and fast where most are in order: VMs are.
        samples.sort_by(|(a, _), (b, _)| written(a).cmp(written(b)));
        for same in samples.chunk_by(|(a, _), (b, _)| written(a) == written(b)) {
            let value = match series.kind {
                Kind::Counter => same.iter().map(|(_, value)| value).sum(),
                Kind::Gauge | Kind::Histogram => same.last().map_or(0.0, |(_, value)| *value),
            };
            let labels = same.first().map_or("", |(labels, _)| written(labels));
            write_sample(text, series.name, labels, value)?;
        }
        histograms.sort_by(|(a, _), (b, _)| written(a).cmp(written(b)));
        let last_of_same =
            histograms.chunk_by(|(a, _), (b, _)| written(a) == written(b)).filter_map(<[_]>::last);
        for (labels, it) in last_of_same {
            write_histogram(text, series.name, written(labels), it)?;
        }
        Ok(())
    }
}

/// Escapes what would end a line, or, in a label's value, the value.
fn push_escaped(text: &mut String, value: &str, is_quoted: bool) {
    for part in value.split_inclusive(['\\', '\n', '"']) {
        let (plain, special) = match part.char_indices().next_back() {
            Some((at, c @ ('\\' | '\n' | '"'))) => (&part[..at], Some(c)),
            _ => (part, None),
        };
        text.push_str(plain);
        match special {
            Some('\\') => text.push_str("\\\\"),
            Some('\n') => text.push_str("\\n"),
            Some(quote) if is_quoted => text.extend(['\\', quote]),
            Some(quote) => text.push(quote),
            None => {}
        }
    }
}

fn write_head(text: &mut String, series: &Series) -> fmt::Result {
    let kind = match series.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    write!(text, "# HELP {} ", series.name)?;
    push_escaped(text, series.help, false);
    writeln!(text, "\n# TYPE {} {kind}", series.name)
}

fn write_sample(text: &mut String, name: &str, labels: &str, value: f64) -> fmt::Result {
    text.push_str(name);
    if !labels.is_empty() {
        text.push('{');
        text.push_str(labels);
        text.push('}');
    }
    text.push(' ');
    write_number(text, value)?;
    text.push('\n');
    Ok(())
}

/// Most are counts, and whole numbers are faster to write as such.
fn write_number(text: &mut String, value: f64) -> fmt::Result {
    /// Up to here every whole number has its own `f64`.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && (0.0..EXACT).contains(&value) && !value.is_sign_negative() {
        write!(text, "{}", value as u64)
    } else {
        write!(text, "{value}")
    }
}

fn write_histogram(text: &mut String, name: &str, labels: &str, it: &Histogram) -> fmt::Result {
    let separator = if labels.is_empty() { "" } else { "," };
    for (bound, n) in &it.buckets {
        writeln!(text, "{name}_bucket{{{labels}{separator}le=\"{bound}\"}} {n}")?;
    }
    writeln!(text, "{name}_bucket{{{labels}{separator}le=\"+Inf\"}} {}", it.count)?;
    write_sample(text, &format!("{name}_sum"), labels, it.sum)?;
    write_sample(text, &format!("{name}_count"), labels, it.count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_may_hold_anything() {
        let mut exposition = Exposition::default();
        exposition.set(&table::BUILD_INFO, &["a\\b\"c\nd\"\""], 1.0);
        let text = exposition.encode().unwrap();
        assert!(text.contains(r#"{version="a\\b\"c\nd\"\""} 1"#), "{text}");
    }

    #[test]
    fn the_same_labels_are_one_sample() {
        let mut exposition = Exposition::default();
        exposition.add(&table::PROBE_MISSES, &["x"], 1);
        exposition.add(&table::PROBE_MISSES, &["x"], 2);
        let text = exposition.encode().unwrap();
        assert!(text.ends_with("{hook=\"x\"} 3\n"), "{text}");
    }

    #[test]
    fn numbers_are_written_as_ever() {
        for value in [0.0, -0.0, 1.0, 0.5, -3.0, 1e15, 1e16, 1e300, f64::NAN, f64::INFINITY, 0.1 + 0.2] {
            let mut text = String::new();
            write_number(&mut text, value).unwrap();
            assert_eq!(text, value.to_string());
        }
    }
}
