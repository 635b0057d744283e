//! Where tasks preempt each other inside BPF, programs are not run for some calls. The kernel counts that,
//! and so the tracer must: what is missing from a figure is never more than what it says it missed.

use serde_json::Value;
use xtask::crowd::Crowd;
use xtask::phase::Counts;

use super::{
    Check,
    report::{ranges, sum_over},
    series::sum,
};

/// Every comparison. `recorded` is the report of a recording with kprobes.
pub(super) fn check(crowd: &Crowd, recorded: &Value) -> Vec<Check> {
    let calls = |counts: &Counts, name: &str| counts.get(&format!("calls:{name}")).copied();
    let daemon = |name: &str| sum(&crowd.daemon, name, &[]);
    let daemon_missed = daemon("probe_misses_total");
    let told = recorded.pointer("/quality/missed_returns").and_then(Value::as_i64).unwrap_or(-1);
    let complete = recorded.pointer("/quality/complete").map_or("missing".into(), Value::to_string);
    let busy = calls(&crowd.scraped, "page_fault").is_some_and(|n| n > 1000) && crowd.scrapes > 10;
    let mut checks = vec![
        Check::equal("hits missed by the kernel's own probes", &0, &crowd.oracle_misses),
        Check::equal("the guest faulted and the daemon was scraped", &true, &busy),
        Check::equal("quality.complete", &(told == 0), &complete),
    ];
    for (name, counter, recorded) in [
        ("page_faults_started_total", "page_fault", sum_over(recorded, "/page_faults/total")),
        ("invalidations_total", "range_start", ranges(recorded)),
    ] {
        let (scraped, whole) = (calls(&crowd.scraped, counter), calls(&crowd.whole, counter));
        checks.push(within(&format!("daemon's {name}"), scraped, Some(daemon(name)), daemon_missed));
        checks.push(within(&format!("recorded {counter}"), whole, recorded, told));
    }
    checks
}

/// Whether `got` is short of `expected` by no more than `missed`.
pub(super) fn within(name: &str, expected: Option<i64>, got: Option<i64>, missed: i64) -> Check {
    let short = expected.zip(got).map(|(expected, got)| expected - got);
    let title = format!("{name} is short by no more than the misses told");
    if short.is_some_and(|short| (0..=missed).contains(&short)) {
        return Check::equal(&title, &"told", &"told");
    }
    Check::numbers(&format!("{title} ({missed})"), expected, got)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use xtask::phase::Series;

    use super::*;

    fn failures(daemon_faults: f64, daemon_missed: f64, recorded: i64, told: i64, complete: bool) -> usize {
        let counts: Counts =
            [("calls:page_fault".to_owned(), 2000), ("calls:range_start".to_owned(), 500)].into();
        let series = [
            ("page_faults_started_total", daemon_faults),
            ("invalidations_total", 500.0),
            ("probe_misses_total", daemon_missed),
        ];
        let crowd = Crowd {
            whole: counts.clone(),
            scraped: counts,
            daemon: series.map(|(name, n)| (format!("mmu_trace_{name}"), n)).into_iter().collect::<Series>(),
            scrapes: 99,
            oracle_misses: 0,
        };
        let part = json!({ "page_faults": { "total": recorded }, "invalidations": [{ "ranges": 500 }] });
        let nobody = json!({ "page_faults": { "total": 0 }, "invalidations": [] });
        let report = json!({ "vms": [part], "unattributed": nobody,
            "quality": { "complete": complete, "missed_returns": told } });
        check(&crowd, &report).iter().filter(|check| !check.passed()).count()
    }

    #[test]
    fn what_is_missing_must_be_told() {
        assert_eq!(failures(2000.0, 0.0, 2000, 0, true), 0);
        assert_eq!(failures(1990.0, 12.0, 1995, 7, false), 0);
        assert_eq!(failures(1990.0, 9.0, 2000, 0, true), 1);
        assert_eq!(failures(2000.0, 0.0, 1995, 4, false), 1);
        assert_eq!(failures(2000.0, 0.0, 2000, 4, true), 1);
        assert_eq!(failures(2001.0, 0.0, 2000, 0, true), 1);
    }
}
