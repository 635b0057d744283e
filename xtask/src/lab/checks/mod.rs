//! Whether every count is what it must be. Pure functions over the files that the lab leaves.

mod addresses;
mod confined;
mod control;
mod crowd;
mod daemon;
pub(crate) mod formula;
mod guests;
mod installed;
mod life;
mod lone;
mod refusals;
mod report;
pub(crate) mod series;
mod sleepers;

use std::fmt::Display;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;
use xtask::confined::{Confined, Seen};
use xtask::crowd::Crowd;
use xtask::lone::Lone;
use xtask::phase::{PLAN, Run, Step};
use xtask::refusal::Refusals;
use xtask::sleepers::Sleepers;

use crate::tally::Tally;

/// One comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    name: String,
    expected: String,
    got: String,
}

impl Check {
    /// Compares what both sides look like.
    pub(crate) fn equal(name: &str, expected: &impl Display, got: &impl Display) -> Self {
        Self { name: name.to_owned(), expected: expected.to_string(), got: got.to_string() }
    }

    /// Compares numbers of which one or both may be missing. A missing one never equals anything.
    pub(crate) fn numbers(name: &str, expected: Option<i64>, got: Option<i64>) -> Self {
        let show = |number: Option<i64>, missing: &str| number.map_or(missing.to_owned(), |n| n.to_string());
        Self { name: name.to_owned(), expected: show(expected, "unknown"), got: show(got, "missing") }
    }

    /// Whether it holds.
    pub(crate) fn passed(&self) -> bool {
        self.expected == self.got
    }
}

/// Checks that are printed together.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// Its heading.
    pub(crate) name: String,
    /// Its checks.
    pub(crate) checks: Vec<Check>,
}

/// Everything that the checks read.
#[derive(Clone, Debug)]
pub(crate) struct Outputs {
    steps: Vec<Step>,
    run: Run,
    /// `None` where the lab ran without the tracer.
    report: Option<Value>,
    /// What `mmu-trace vms`, the daemon's `/metrics` and `mmu-trace top` said while the VM ran; empty without
    /// the tracer.
    vms: String,
    metrics: String,
    top: String,
    /// `None` without the ladder.
    kprobe_report: Option<Value>,
    /// The run with a working `change_pte` and its report.
    control: Option<(Run, Value)>,
    /// Missed returns and the report about them; `None` without the tracer.
    sleepers: Option<(Sleepers, Value)>,
    /// Misses that the kernel counts and the report about them; `None` without the tracer.
    crowd: Option<(Crowd, Value)>,
    /// `None` without the tracer.
    lone: Option<Lone>,
    /// The daemon and the recorder; `None` without the tracer.
    confined: Option<(Seen, Confined)>,
    /// `None` where nothing of the kind was tried.
    refusals: Option<Refusals>,
}

impl Outputs {
    /// Reads the files in `out`. With the tracer in the lab its report must exist.
    pub(crate) fn load(out: &Path, ladder: bool, control: bool, short: bool) -> Result<Self> {
        let steps: Vec<Step> = load(&out.join("steps.json"))?;
        if let Some(failed) = steps.iter().find(|step| step.exit != 0)
            && !out.join("phases.json").exists()
        {
            anyhow::bail!("{} (exit code {})", failed.name, failed.exit);
        }
        let with_tracer = steps.iter().any(|step| step.name == "record");
        Ok(Self {
            run: load(&out.join("phases.json"))?,
            report: with_tracer.then(|| load(&out.join("report.json"))).transpose()?,
            vms: fs::read_to_string(out.join("vms.txt")).unwrap_or_default(),
            metrics: fs::read_to_string(out.join("metrics.txt")).unwrap_or_default(),
            top: fs::read_to_string(out.join("top.txt")).unwrap_or_default(),
            kprobe_report: ladder.then(|| load(&out.join("kprobe.json"))).transpose()?,
            control: control
                .then(|| {
                    anyhow::Ok((load(&out.join("control-phases.json"))?, load(&out.join("control.json"))?))
                })
                .transpose()?,
            sleepers: with_tracer
                .then(|| {
                    anyhow::Ok((load(&out.join("sleepers.json"))?, load(&out.join("sleepers-report.json"))?))
                })
                .transpose()?,
            crowd: with_tracer
                .then(|| anyhow::Ok((load(&out.join("crowd.json"))?, load(&out.join("crowd-report.json"))?)))
                .transpose()?,
            lone: with_tracer.then(|| load(&out.join("lone.json"))).transpose()?,
            confined: with_tracer
                .then(|| {
                    anyhow::Ok((load(&out.join("confined.json"))?, load(&out.join("confined-record.json"))?))
                })
                .transpose()?,
            refusals: (with_tracer && !short).then(|| load(&out.join("refusals.json"))).transpose()?,
            steps,
        })
    }
}

/// Reads a JSON file of the lab.
pub(crate) fn load<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("cannot understand {}", path.display()))
}

/// All checks.
pub(crate) fn run(outputs: &Outputs) -> Vec<Group> {
    let mut groups = vec![steps(&outputs.steps), workload(&outputs.run)];
    for (index, phase) in outputs.run.phases.iter().enumerate() {
        let mut checks = formula::check(&outputs.run, phase);
        if let Some(moved) = &phase.daemon {
            checks.extend(daemon::check(&outputs.run, phase, moved));
        } else if outputs.report.is_some() {
            checks.push(Check::equal("daemon scraped", &"yes", &"no"));
        }
        groups.push(Group { name: format!("phase {:2} {}", index + 1, phase.kind.label()), checks });
    }
    if let Some(report) = &outputs.report {
        groups.push(Group { name: "report".to_owned(), checks: report::check(&outputs.run, report) });
        let checks = report::check_identity(&outputs.vms, &outputs.metrics, &outputs.top);
        groups.push(Group { name: "identity".to_owned(), checks });
        if let Some(kprobe) = &outputs.kprobe_report {
            groups.push(Group {
                name: "ladder".to_owned(),
                checks: report::check_ladder(&outputs.run, report, kprobe),
            });
        }
    }
    if let (Some((counted, told)), Some(report)) = (&outputs.sleepers, &outputs.report) {
        let checks = sleepers::check(counted, told, report::has_fentry_for(report, "page_fault"));
        groups.push(Group { name: "missed returns".to_owned(), checks });
    }
    if let Some((crowd, report)) = &outputs.crowd {
        groups.push(Group { name: "crowd".to_owned(), checks: crowd::check(crowd, report) });
    }
    if let Some(lone) = &outputs.lone {
        groups.push(Group { name: "lone page".to_owned(), checks: lone::check(lone) });
    }
    if let Some((seen, recorder)) = &outputs.confined {
        groups.push(Group { name: "sandbox".to_owned(), checks: confined::check(seen, recorder) });
    }
    if let Some((run, report)) = &outputs.control {
        groups.extend(control::check(&outputs.run, run, report));
    }
    if let Some(tried) = &outputs.refusals {
        groups.extend(refusals::check(tried));
    }
    groups
}

/// Whether a boot's files tell where the kernel is.
pub(crate) fn run_addresses(out: &Path) -> Result<Group> {
    addresses::check(out)
}

/// The checks of a storm of `times` attachments.
pub(crate) fn run_storm(out: &Path, times: u32) -> Result<Vec<Group>> {
    let ended: Vec<Step> = load(&out.join("steps.json"))?;
    let mut group = steps(&ended);
    group.checks.push(Check::equal("attachments", &times, &ended.len()));
    Ok(vec![group])
}

/// The checks of what a host lives through.
pub(crate) fn run_life(out: &Path) -> Result<Vec<Group>> {
    let mut groups = life::check(&load(&out.join("life.json"))?);
    for group in &mut groups {
        group.name.insert_str(0, "life: ");
    }
    Ok(groups)
}

/// The checks of a system that has the package.
pub(crate) fn run_installed(out: &Path) -> Result<Vec<Group>> {
    let mut groups = vec![steps(&load::<Vec<Step>>(&out.join("steps.json"))?)];
    groups.extend(installed::check(&load(&out.join("installed.json"))?));
    Ok(groups)
}

/// The checks of the Linux guests.
pub(crate) fn run_guests(out: &Path) -> Result<Vec<Group>> {
    let (seen, report) = (load(&out.join("guests.json"))?, load(&out.join("guests-report.json"))?);
    Ok(vec![Group { name: "guests".to_owned(), checks: guests::check(&seen, &report) }])
}

fn steps(steps: &[Step]) -> Group {
    let checks = steps.iter().map(|step| Check::equal(&step.name, &0, &step.exit)).collect();
    Group { name: "exit codes".to_owned(), checks }
}

fn workload(run: &Run) -> Group {
    let kinds: Vec<_> = run.phases.iter().map(|phase| phase.kind).collect();
    let checks = vec![
        Check::equal("all phases ran", &"yes", &if kinds == PLAN { "yes" } else { "no" }),
        Check::equal("hits missed by the kernel's own probes", &0, &run.oracle_misses),
        Check::equal(
            "every invalidate_range_start has its end",
            &total(run, "range_start"),
            &total(run, "range_end"),
        ),
    ];
    Group { name: "workload".to_owned(), checks }
}

/// The kernel's count of the calls named `name` over the whole run; -1 if it was not counted.
fn total(run: &Run, name: &str) -> i64 {
    run.totals.get(&format!("calls:{name}")).copied().unwrap_or(-1)
}

/// Prints one line for each group, and each failed check under its group.
pub(crate) fn print(groups: &[Group]) -> Tally {
    let mut tally = Tally::default();
    for group in groups {
        let failed: Vec<&Check> = group.checks.iter().filter(|check| !check.passed()).collect();
        let passed = group.checks.len() - failed.len();
        let mark = if failed.is_empty() { "ok  " } else { "FAIL" };
        println!("{mark} {:40} {passed} of {} checks", group.name, group.checks.len());
        for check in &failed {
            println!("       {:48} expected {:>10}  got {:>10}", check.name, check.expected, check.got);
        }
        tally.passed += passed;
        tally.failed += failed.len();
    }
    println!("lab: {} checks passed, {} failed", tally.passed, tally.failed);
    tally
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_is_missing_never_passes() {
        assert!(!Check::numbers("x", Some(0), None).passed());
        assert!(!Check::numbers("x", None, Some(0)).passed());
        assert!(!Check::numbers("x", None, None).passed());
        assert!(Check::numbers("x", Some(0), Some(0)).passed());
    }

    #[test]
    fn a_failed_step_fails() {
        let group = steps(&[Step { name: "daemon".into(), exit: 137 }]);
        assert!(!group.checks[0].passed());
    }

    #[test]
    fn an_empty_run_fails() {
        let run = Run {
            kernel: String::new(),
            arch: xtask::arch::Arch::Amd64,
            mmu: None,
            functions: BTreeMap::new(),
            pages: 1,
            outside_pages: 1,
            phases: Vec::new(),
            totals: BTreeMap::new(),
            kvm_at_end: BTreeMap::new(),
            oracle_misses: 0,
        };
        assert!(!workload(&run).checks[0].passed());
    }
}
