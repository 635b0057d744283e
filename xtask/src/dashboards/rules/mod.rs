//! Recording rules and alerts as Prometheus reads them.

mod alerts;
pub(super) mod promtool;
pub(super) mod recording;

use std::fmt::Write;

pub(super) use self::alerts::{Alert, all as alerts};

/// Where runbooks are found.
const RUNBOOKS: &str = "https://github.com/mmu-trace/mmu-trace/blob/main/docs/runbooks";

/// What stands at the head of both files.
const HEAD: &str = "# Written by cargo xtask dashboards from the metric table.\n";

/// The file of recording rules.
pub(super) fn recording_file() -> String {
    let mut file = format!("{HEAD}groups:\n  - name: mmu-trace-recording\n    rules:\n");
    for rule in recording::ALL {
        file.push_str(&entry("record", rule.name, rule.expr().text()));
    }
    file
}

/// The file of alerts.
pub(super) fn alert_file() -> String {
    let mut file = format!("{HEAD}groups:\n  - name: mmu-trace-alerts\n    rules:\n");
    alerts().iter().for_each(|alert| file.push_str(&alert_entry(alert)));
    file
}

fn alert_entry(alert: &Alert) -> String {
    let mut text = entry("alert", alert.name, alert.expr.text());
    let severity = alert.severity.label();
    // Writing to a string cannot fail.
    _ = write!(
        text,
        "        for: {}\n        labels:\n          severity: {severity}\n        annotations:\n",
        alert.pending
    );
    let runbook = format!("{RUNBOOKS}/{}.md", alert.name);
    for (key, value) in
        [("summary", alert.summary), ("description", alert.description), ("runbook_url", &runbook)]
    {
        _ = writeln!(text, "          {key}: {}", quoted(value));
    }
    text
}

fn entry(kind: &str, name: &str, expr: &str) -> String {
    format!("      - {kind}: {name}\n        expr: {}\n", quoted(expr))
}

/// A scalar in single quotes, in which only these are special.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() {
        const CASES: &str = include_str!("../../../../dashboards/rules/tests/alerts.yml");
        for alert in alerts() {
            let silent = format!("alertname: {}, exp_alerts: []}}", alert.name);
            let firing = format!("alertname: {}\n        exp_alerts:\n", alert.name);
            assert!(CASES.contains(&silent) && CASES.contains(&firing), "{}", alert.name);
        }
    }

    #[test]
    fn a_quote_is_doubled() {
        assert_eq!(quoted("KSM's"), "'KSM''s'");
    }
}
