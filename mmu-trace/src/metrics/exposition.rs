//! From values to the text format.

use std::collections::BTreeMap;

use prometheus::{
    TextEncoder,
    proto::{Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType},
};

use super::table::{self, Kind, Series};

/// The values of one scrape by series and label values.
#[derive(Default)]
pub(super) struct Exposition {
    values: BTreeMap<&'static str, BTreeMap<Vec<String>, f64>>,
    histograms: BTreeMap<&'static str, BTreeMap<Vec<String>, Histogram>>,
}

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
        self.histograms.entry(series.name).or_default().insert(owned(series, labels), histogram);
    }

    fn sample(&mut self, series: &Series, labels: &[&str]) -> &mut f64 {
        self.values.entry(series.name).or_default().entry(owned(series, labels)).or_default()
    }

    /// The text, families in the table's order; families without a sample are left out.
    pub(super) fn encode(&self) -> prometheus::Result<String> {
        let families: Vec<MetricFamily> =
            table::ALL.iter().filter_map(|series| self.family(series)).collect();
        TextEncoder::new().encode_to_string(&families)
    }

    fn family(&self, series: &Series) -> Option<MetricFamily> {
        let metrics = match series.kind {
            Kind::Histogram => {
                let histograms = self.histograms.get(series.name)?.iter();
                histograms.map(|(labels, it)| histogram(series, labels, it)).collect()
            }
            Kind::Counter | Kind::Gauge => self
                .values
                .get(series.name)?
                .iter()
                .map(|(labels, &value)| metric(series, labels, value))
                .collect(),
        };
        let mut family = MetricFamily::default();
        family.set_name(series.name.to_owned());
        family.set_help(series.help.to_owned());
        family.set_field_type(match series.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
        family.set_metric(metrics);
        Some(family)
    }
}

fn owned(series: &Series, labels: &[&str]) -> Vec<String> {
    debug_assert_eq!(series.labels.len(), labels.len(), "{}", series.name);
    labels.iter().map(|&label| label.to_owned()).collect()
}

fn histogram(series: &Series, labels: &[String], histogram: &Histogram) -> Metric {
    let mut metric = labelled(series, labels);
    metric.set_histogram(histogram.clone());
    metric
}

fn labelled(series: &Series, labels: &[String]) -> Metric {
    Metric::from_label(series.labels.iter().zip(labels).map(|(n, v)| label(n, v)).collect())
}

fn metric(series: &Series, labels: &[String], value: f64) -> Metric {
    let mut metric = labelled(series, labels);
    if series.kind == Kind::Counter {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    metric
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}
