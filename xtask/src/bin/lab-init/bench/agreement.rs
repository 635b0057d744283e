//! Whether the daemon and the script of bpftrace count the same: both attached to one workload.

use anyhow::{Context, Result};
use serde_json::Value;
use xtask::cost::{Agreement, Arm, Totals};
use xtask::phase::Series;

use super::arm::Attached;
use super::workload;
use crate::metrics;
use crate::vmm::Vmm;

/// Maps of the script, and the daemon's counters for the same.
const COUNTED: [(&str, &str); 5] = [
    ("change_pte", "change_pte_total"),
    ("invalidations", "invalidations_total"),
    ("page_faults", "page_faults_total"),
    ("refaults", "refaults_total"),
    ("merges", "ksm_merges_total"),
];

/// Runs the workload once and asks both.
pub(super) fn find(vmm: &mut Vmm) -> Result<Agreement> {
    let daemon = Attached::attach(Arm::Daemon)?;
    let bpftrace = Attached::attach(Arm::Bpftrace).context("bpftrace")?;
    let before = scrape()?;
    workload::run(vmm)?;
    let after = scrape()?;
    let printed = bpftrace.detach().context("bpftrace")?;
    daemon.detach()?;
    Ok(Agreement { daemon: of_daemon(&metrics::delta(&before, &after)), bpftrace: of_bpftrace(&printed)? })
}

fn scrape() -> Result<Series> {
    metrics::parse(&metrics::get("/metrics").context("cannot scrape the daemon")?)
}

fn of_daemon(moved: &Series) -> Totals {
    let sum = |counter: &str| -> i64 {
        let is_it = |series: &&String| series.split('{').next() == Some(&format!("mmu_trace_{counter}"));
        moved.keys().filter(is_it).map(|series| moved[series] as i64).sum()
    };
    COUNTED.iter().map(|(name, counter)| ((*name).to_owned(), sum(counter))).collect()
}

/// The sum over every key of each map: of a histogram, of all its buckets.
fn of_bpftrace(printed: &str) -> Result<Totals> {
    let mut totals: Totals = COUNTED.iter().map(|(name, _)| ((*name).to_owned(), 0)).collect();
    for line in printed.lines().filter(|line| !line.is_empty()) {
        let said: Value = serde_json::from_str(line).with_context(|| format!("bpftrace printed {line}"))?;
        let Some(maps) = said["data"].as_object() else { continue };
        for (map, value) in maps {
            if let Some(total) = totals.get_mut(map.trim_start_matches('@')) {
                *total += counted(value);
            }
        }
    }
    Ok(totals)
}

/// What a map holds: numbers, buckets (`{"min", "max", "count"}`), or either of these by key.
fn counted(value: &Value) -> i64 {
    match value {
        Value::Object(bucket) if bucket.contains_key("count") => bucket["count"].as_i64().unwrap_or(0),
        Value::Object(keys) => keys.values().map(counted).sum(),
        Value::Array(buckets) => buckets.iter().map(counted).sum(),
        other => other.as_i64().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_count_with_all_their_buckets() {
        let printed = r#"{"type": "attached_probes", "data": {"probes": 3}}

{"type": "hist", "data": {"@invalidations": {"1,2,0,0": [{"min": 4, "max": 7, "count": 3}, {"min": 8, "max": 15, "count": 4}], "1,3,0,0": [{"max": 0, "count": 1}]}}}
{"type": "map", "data": {"@merges": {"1": 5, "2": 6}}}"#;
        let totals = of_bpftrace(printed).unwrap();
        assert_eq!((totals["invalidations"], totals["merges"], totals["refaults"]), (8, 11, 0));
        assert!(of_bpftrace("Lost 3 events").is_err());
    }
}
