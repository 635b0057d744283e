//! Sums over Prometheus series.

use xtask::phase::Series;

/// The sum of all series called `name` (without the prefix) that have every label given, to the
/// nearest integer. Series that did not move are not in a delta, so nothing found is 0.
pub(in crate::lab) fn sum(series: &Series, name: &str, labels: &[(&str, &str)]) -> i64 {
    let full = format!("mmu_trace_{name}");
    let total: f64 =
        series.iter().filter(|(key, _)| matches(key, &full, labels)).map(|(_, value)| value).sum();
    total.round() as i64
}

/// The values of `label` among the series called `name`.
pub(super) fn values<'s>(series: &'s Series, name: &str, label: &str) -> Vec<&'s str> {
    let full = format!("mmu_trace_{name}");
    series.keys().filter(|key| split(key).0 == full).filter_map(|key| value(split(key).1, label)).collect()
}

fn matches(key: &str, name: &str, labels: &[(&str, &str)]) -> bool {
    let (found, text) = split(key);
    found == name && labels.iter().all(|(label, wanted)| value(text, label) == Some(wanted))
}

/// A series into its name and what stands between the braces.
fn split(key: &str) -> (&str, &str) {
    match key.split_once('{') {
        Some((name, labels)) => (name, labels.trim_end_matches('}')),
        None => (key, ""),
    }
}

/// The value of one label. Our own labels that are compared hold neither quotes nor backslashes.
fn value<'t>(labels: &'t str, label: &str) -> Option<&'t str> {
    let opening = format!("{label}=\"");
    let start = labels
        .match_indices(&opening)
        .map(|(at, _)| at)
        .find(|&at| at == 0 || labels.as_bytes()[at - 1] == b',')?;
    labels[start + opening.len()..].split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_matched_whole_and_in_any_order() {
        let series = Series::from([
            ("mmu_trace_a{cause=\"x\",initiator=\"ksmd\"}".into(), 1.0),
            ("mmu_trace_a{cause=\"y\",initiator=\"ksmd\"}".into(), 2.0),
            ("mmu_trace_a{subcause=\"x\",initiator=\"vmm\"}".into(), 4.0),
            ("mmu_trace_ab{cause=\"x\"}".into(), 8.0),
        ]);
        assert_eq!(sum(&series, "a", &[]), 7);
        assert_eq!(sum(&series, "a", &[("cause", "x")]), 1);
        assert_eq!(sum(&series, "a", &[("initiator", "ksmd"), ("cause", "y")]), 2);
        assert_eq!(sum(&series, "c", &[]), 0);
        assert_eq!(values(&series, "a", "cause"), ["x", "y"]);
    }
}
