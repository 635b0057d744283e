//! PromQL, built from the metric table: a series that does not exist does not compile, and a label that a
//! series lacks panics when the files are generated, which a test does.

use std::collections::BTreeSet;

use mmu_trace::metrics::table::{Kind, Series};

/// Labels that the scraper adds to every series: one host's daemon.
pub(super) const HOST: &[&str] = &["job", "instance"];
/// One VM, wherever it runs.
pub(super) const VM: &[&str] = &["job", "instance", "domain", "uuid"];

/// Grafana's window for rates: never shorter than what holds samples enough.
pub(super) const RATE: &str = "$__rate_interval";
/// Grafana's window for sums over what the page shows.
pub(super) const RANGE: &str = "$__range";

/// Series of one name, narrowed by their labels.
#[derive(Clone, Debug)]
pub(super) struct Selector {
    name: String,
    labels: BTreeSet<&'static str>,
    matchers: Vec<String>,
}

/// An expression, and the labels that its samples have.
#[derive(Clone, Debug)]
pub(super) struct Expr {
    text: String,
    labels: BTreeSet<&'static str>,
    /// Whether it needs parentheses as an operand.
    is_compound: bool,
}

impl Selector {
    /// The samples of a counter or gauge.
    pub(super) fn of(series: &Series) -> Self {
        assert!(series.kind != Kind::Histogram, "{} is a histogram: ask for its buckets", series.name);
        Self::named(series.name, series.labels)
    }

    /// The buckets of a histogram.
    pub(super) fn buckets(series: &Series) -> Self {
        assert!(series.kind == Kind::Histogram, "{} is no histogram", series.name);
        let mut selector = Self::named(&format!("{}_bucket", series.name), series.labels);
        selector.labels.insert("le");
        selector
    }

    /// Series of a recording rule or of the scraper, which have `labels` beside the host's.
    pub(super) fn named(name: &str, labels: &[&'static str]) -> Self {
        let labels = labels.iter().chain(HOST).copied().collect();
        Self { name: name.to_owned(), labels, matchers: Vec::new() }
    }

    /// Only those whose `label` has this value.
    pub(super) fn is(self, label: &'static str, value: &str) -> Self {
        self.matching(label, "=", value)
    }

    /// Only those whose `label` matches a regular expression.
    pub(super) fn like(self, label: &'static str, pattern: &str) -> Self {
        self.matching(label, "=~", pattern)
    }

    /// Only those whose `label` does not match a regular expression.
    pub(super) fn unlike(self, label: &'static str, pattern: &str) -> Self {
        self.matching(label, "!~", pattern)
    }

    fn matching(mut self, label: &'static str, operator: &str, value: &str) -> Self {
        assert!(self.labels.contains(label), "{} has no label {label}", self.name);
        self.matchers.push(format!("{label}{operator}\"{value}\""));
        self
    }

    /// The values as they are.
    pub(super) fn value(&self) -> Expr {
        Expr { text: self.text(), labels: self.labels.clone(), is_compound: false }
    }

    /// Growth per second.
    pub(super) fn rate(&self, window: &str) -> Expr {
        self.over("rate", window)
    }

    /// Growth in the window.
    pub(super) fn increase(&self, window: &str) -> Expr {
        self.over("increase", window)
    }

    fn over(&self, function: &str, window: &str) -> Expr {
        let text = format!("{function}({}[{window}])", self.text());
        Expr { text, labels: self.labels.clone(), is_compound: false }
    }

    fn text(&self) -> String {
        match self.matchers.as_slice() {
            [] => self.name.clone(),
            matchers => format!("{}{{{}}}", self.name, matchers.join(",")),
        }
    }
}

impl Expr {
    /// The text that Prometheus reads.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether its samples have `label`.
    pub(super) fn has_label(&self, label: &str) -> bool {
        self.labels.contains(label)
    }

    /// The sum of all.
    pub(super) fn sum(self) -> Self {
        self.sum_by(&[])
    }

    /// Sums of those that agree in `labels`.
    pub(super) fn sum_by(self, labels: &[&'static str]) -> Self {
        self.aggregate("sum", labels)
    }

    /// The largest of those that agree in `labels`.
    pub(super) fn max_by(self, labels: &[&'static str]) -> Self {
        self.aggregate("max", labels)
    }

    fn aggregate(self, function: &str, labels: &[&'static str]) -> Self {
        self.expect(labels);
        let by = if labels.is_empty() { String::new() } else { format!(" by ({})", labels.join(", ")) };
        let text = format!("{function}{by} ({})", self.text);
        Self { text, labels: labels.iter().copied().collect(), is_compound: false }
    }

    /// The `n` largest.
    pub(super) fn top(self, n: usize) -> Self {
        Self { text: format!("topk({n}, {})", self.text), is_compound: false, ..self }
    }

    /// The quantile `q` of buckets.
    pub(super) fn quantile(self, q: f64) -> Self {
        self.expect(&["le"]);
        let mut labels = self.labels;
        labels.remove("le");
        Self { text: format!("histogram_quantile({q}, {})", self.text), labels, is_compound: false }
    }

    /// Both added; samples pair up by all labels.
    pub(super) fn plus(self, other: Self) -> Self {
        self.paired("+", other)
    }

    /// Divided by `other`; samples pair up by all labels.
    pub(super) fn per(self, other: Self) -> Self {
        self.paired("/", other)
    }

    /// Multiplied by `other`; samples pair up by all labels.
    pub(super) fn times(self, other: Self) -> Self {
        self.paired("*", other)
    }

    /// `other` where this has no sample.
    pub(super) fn or(self, other: Self) -> Self {
        self.paired("or", other)
    }

    /// The larger one; `other` where only that exists.
    pub(super) fn larger_of(self, other: Self) -> Self {
        self.paired(">", other.clone()).or(other)
    }

    fn paired(self, operator: &str, other: Self) -> Self {
        assert_eq!(self.labels, other.labels, "{} {operator} {}", self.text, other.text);
        self.binary(operator, &other.operand())
    }

    /// The same, only where `other` has a sample of the same labels.
    pub(super) fn where_also(self, other: Self) -> Self {
        self.paired("and", other)
    }

    /// 0 where it is 0, and 1 if there is none at all.
    pub(super) fn down_or_absent(self) -> Self {
        let absent = format!("absent({})", self.text);
        self.binary("== 0 or", &absent)
    }

    /// The same, without the hosts of which `other` has a sample.
    pub(super) fn except_hosts_with(self, other: &Self) -> Self {
        self.expect(HOST);
        other.expect(HOST);
        self.binary("unless on (job, instance)", &other.operand())
    }

    /// Multiplied by a number.
    pub(super) fn scaled(self, factor: f64) -> Self {
        self.binary("*", &factor.to_string())
    }

    /// Divided by a number.
    pub(super) fn scaled_down(self, divisor: u64) -> Self {
        self.binary("/", &divisor.to_string())
    }

    /// How long ago this point of time was.
    pub(super) fn age(self) -> Self {
        let text = format!("time() - {}", self.operand());
        Self { text, is_compound: true, ..self }
    }

    /// Only what is larger.
    pub(super) fn above(self, limit: f64) -> Self {
        self.binary(">", &limit.to_string())
    }

    /// Only what is this.
    pub(super) fn equal(self, value: f64) -> Self {
        self.binary("==", &value.to_string())
    }

    /// 1 where it is 0, else 0.
    pub(super) fn zero_as_one(self) -> Self {
        self.binary("== bool", "0")
    }

    fn binary(self, operator: &str, other: &str) -> Self {
        let text = format!("{} {operator} {other}", self.operand());
        Self { text, labels: self.labels, is_compound: true }
    }

    fn operand(&self) -> String {
        if self.is_compound { format!("({})", self.text) } else { self.text.clone() }
    }

    fn expect(&self, labels: &[&'static str]) {
        for label in labels {
            assert!(self.labels.contains(label), "no label {label} in {}", self.text);
        }
    }
}

#[cfg(test)]
mod tests {
    use mmu_trace::metrics::table::{REFAULT_SECONDS, REFAULTS};

    use super::*;

    #[test]
    fn expressions_read_as_written() {
        let refaults = Selector::of(&REFAULTS).is("domain", "web1").unlike("cause", "ksm_.*");
        let all = Selector::of(&REFAULTS).rate(RATE).sum_by(&["domain"]);
        assert_eq!(
            refaults.rate(RATE).sum_by(&["domain"]).per(all).above(0.5).text(),
            "(sum by (domain) (rate(mmu_trace_refaults_total{domain=\"web1\",cause!~\"ksm_.*\"}[$__rate_interval])) \
             / sum by (domain) (rate(mmu_trace_refaults_total[$__rate_interval]))) > 0.5"
        );
        assert_eq!(
            Selector::buckets(&REFAULT_SECONDS).rate("5m").sum_by(&["le"]).quantile(0.99).text(),
            "histogram_quantile(0.99, sum by (le) (rate(mmu_trace_refault_seconds_bucket[5m])))"
        );
    }

    #[test]
    #[should_panic(expected = "mmu_trace_refaults_total has no label reason")]
    fn a_label_that_the_series_lacks_is_refused() {
        _ = Selector::of(&REFAULTS).is("reason", "x");
    }

    #[test]
    #[should_panic(expected = "no label cause in sum by (domain)")]
    fn a_label_that_was_summed_away_is_refused() {
        _ = Selector::of(&REFAULTS).value().sum_by(&["domain"]).sum_by(&["cause"]);
    }

    #[test]
    #[should_panic(expected = "sum by (domain)")]
    fn operands_that_cannot_pair_up_are_refused() {
        _ = Selector::of(&REFAULTS).value().sum_by(&["domain"]).per(Selector::of(&REFAULTS).value());
    }
}
