//! From values to the text format (`text/plain; version=0.0.4`).
//!
//! A thousand VMs have a hundred thousand samples. The labels of each are written once, as they will stand in
//! the text, and serve as its key; the text is put together from them in one go. The client library's
//! encoder would want each sample as a tree of owned strings first.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
};

use super::table::{self, Kind, Series};

/// The values of one scrape by series and labels.
#[derive(Default)]
pub(super) struct Exposition {
    values: BTreeMap<&'static str, BTreeMap<Labels, f64>>,
    histograms: BTreeMap<&'static str, BTreeMap<Labels, Histogram>>,
    /// How long the text may become: what was added, and room for names and values.
    estimate: usize,
}

/// The labels of a sample as in the text, without the braces.
type Labels = Box<str>;

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
const SAMPLE_BYTES: usize = 48;

impl Exposition {
    /// Adds `value` to the sample of `series` with the label values `labels`: a VM that appears
    /// twice gives one sample, not a scrape that Prometheus rejects.
    pub(super) fn add(&mut self, series: &Series, labels: &[&str], value: u64) {
        self.add_f64(series, labels, value as f64);
    }

    /// The same for nanoseconds, shown as seconds.
    pub(super) fn add_ns(&mut self, series: &Series, labels: &[&str], ns: u64) {
        self.add_f64(series, labels, ns as f64 / 1e9);
    }

    pub(super) fn add_f64(&mut self, series: &Series, labels: &[&str], value: f64) {
        *self.sample(series, labels) += value;
    }

    /// Sets the sample of a state.
    pub(super) fn set(&mut self, series: &Series, labels: &[&str], value: f64) {
        *self.sample(series, labels) = value;
    }

    /// Sets the histogram of `series` with the label values `labels`.
    pub(super) fn set_histogram(&mut self, series: &Series, labels: &[&str], histogram: Histogram) {
        let labels = written(series, labels);
        self.estimate += (labels.len() + SAMPLE_BYTES) * (histogram.buckets.len() + 3);
        self.histograms.entry(series.name).or_default().insert(labels, histogram);
    }

    fn sample(&mut self, series: &Series, labels: &[&str]) -> &mut f64 {
        let labels = written(series, labels);
        self.estimate += labels.len() + SAMPLE_BYTES;
        self.values.entry(series.name).or_default().entry(labels).or_default()
    }

    /// The text, families in the table's order; families without a sample are left out.
    pub(super) fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::with_capacity(self.estimate);
        for series in table::ALL {
            match series.kind {
                Kind::Histogram => {
                    let Some(histograms) = self.histograms.get(series.name) else { continue };
                    write_head(&mut text, series)?;
                    for (labels, it) in histograms {
                        write_histogram(&mut text, series.name, labels, it)?;
                    }
                }
                Kind::Counter | Kind::Gauge => {
                    let Some(samples) = self.values.get(series.name) else { continue };
                    write_head(&mut text, series)?;
                    for (labels, value) in samples {
                        write_sample(&mut text, series.name, labels, *value)?;
                    }
                }
            }
        }
        Ok(text)
    }
}

/// The labels of a sample of `series`; a value may hold anything.
fn written(series: &Series, values: &[&str]) -> Labels {
    debug_assert_eq!(series.labels.len(), values.len(), "{}", series.name);
    let names = series.labels.iter().map(|name| name.len());
    let len: usize = names.chain(values.iter().map(|value| value.len())).map(|len| len + 4).sum();
    let mut text = String::with_capacity(len);
    for (name, value) in series.labels.iter().zip(values) {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(name);
        text.push_str("=\"");
        push_escaped(&mut text, value, true);
        text.push('"');
    }
    text.into_boxed_str()
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
    writeln!(text, " {value}")
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
}
