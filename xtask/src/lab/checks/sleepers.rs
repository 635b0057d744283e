//! Returns that kretprobes miss must show: in `missed_returns`, in the report's quality, and never as
//! figures that are merely smaller.

use serde_json::Value;
use xtask::sleepers::{MOST_FOLLOWED, N_SLEEPERS, Sleepers};

use super::{Check, crowd::within, report::sum_over, series::sum};

/// Every comparison. `with_fentry`: whether the daemon had no need of kretprobes.
///
/// Each return probe has a pool of its own. While all sleep, every one of them misses the same calls;
/// when they wake, calls may be retried, and which probe runs short then is a matter of chance. So
/// a probe is held to what it says itself, and to the least that it must have missed.
pub(super) fn check(counted: &Sleepers, recorded: &Value, with_fentry: bool) -> Vec<Check> {
    let Sleepers { calls, returns, missed, .. } = *counted;
    let faults = |name: &str| sum_over(recorded, &format!("/page_faults/{name}"));
    let quality = |name: &str| recorded.pointer(&format!("/quality/{name}"));
    let unfinished = faults("unfinished").unwrap_or(0);
    // The probe of the result runs short as well, and newer kernels count both.
    let told = quality("missed_returns").and_then(Value::as_i64).unwrap_or(0);
    let complete = quality("complete").map_or("missing".into(), Value::to_string);
    let daemon = |name: &str, labels: &[(&str, &str)]| sum(&counted.daemon, name, labels);
    let missed_by_daemon = daemon("missed_returns_total", &[("hook", "page_fault")]);
    // Hits at which a preempting kernel did not run its programs.
    let not_run = daemon("probe_misses_total", &[]);
    let must_have_missed = |n: i64| n >= (N_SLEEPERS - MOST_FOLLOWED) as i64;
    vec![
        Check::equal("the kernel's own return probe missed sleepers", &true, &must_have_missed(missed)),
        Check::numbers("and saw the rest", Some(calls), Some(returns + missed)),
        Check::numbers("page_faults.total = kernel's calls", Some(calls), faults("total")),
        Check::equal("page_faults.unfinished has the sleepers", &true, &must_have_missed(unfinished)),
        Check::equal("quality.missed_returns has all of those", &true, &(told >= unfinished && told > 0)),
        Check::equal("quality.complete", &"false", &complete),
        Check::equal("the daemon missed sleepers", &!with_fentry, &must_have_missed(missed_by_daemon)),
        within(
            "the daemon's page_faults_total, and what it missed,",
            Some(calls),
            Some(daemon("page_faults_total", &[]) + missed_by_daemon),
            not_run,
        ),
        within(
            "the daemon's page_faults_started_total",
            Some(calls),
            Some(daemon("page_faults_started_total", &[])),
            not_run,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use xtask::phase::Series;

    use super::*;

    fn failures(report: &Value) -> Vec<String> {
        let series = [("page_faults_total", 62.0), ("page_faults_started_total", 62.0)];
        let daemon: Series = series.map(|(name, n)| (format!("mmu_trace_{name}"), n)).into();
        let counted = Sleepers { calls: 62, returns: 48, missed: 14, daemon };
        check(&counted, report, true).into_iter().filter(|c| !c.passed()).map(|c| c.name).collect()
    }

    fn report(total: i64, unfinished: i64, missed: i64, complete: bool) -> Value {
        json!({
            "vms": [{ "page_faults": { "total": total, "unfinished": unfinished } }],
            "unattributed": { "page_faults": { "total": 0, "unfinished": 0 } },
            "quality": { "complete": complete, "missed_returns": missed },
        })
    }

    #[test]
    fn misses_that_are_told_pass() {
        assert_eq!(failures(&report(62, 14, 14, false)), Vec::<String>::new());
        assert_eq!(failures(&report(62, 14, 28, false)), Vec::<String>::new());
    }

    #[test]
    fn misses_that_are_kept_silent_fail() {
        assert_eq!(
            failures(&report(48, 0, 0, true)),
            [
                "page_faults.total = kernel's calls",
                "page_faults.unfinished has the sleepers",
                "quality.missed_returns has all of those",
                "quality.complete"
            ]
        );
    }
}
