//! Several kernels side by side: what each of them measured, and `docs/kernels.md` made of it.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;
use xtask::phase::{Mmu, Phase, PhaseKind, Run};

use super::checks::{self, Check, Group, formula, series::sum};
use super::kernels::Target;
use crate::tools;

/// The page that the table is in.
const PAGE: &str = "docs/kernels.md";
const BEGIN: &str = "<!-- begin: written by `cargo xtask lab --kernel all --docs` -->\n";
const END: &str = "<!-- end -->\n";

/// Columns that are not the same in each run: the release moves with the mirror, attempts of KSM that
/// give up depend on what else holds a page.
const UNSTABLE: &[usize] = &[1, 8];
/// These as well where ksmd took a merge of its own back, which depends on the same.
const UNSTABLE_IF_TAKEN_BACK: &[usize] = &[5, 6, 10];
const HEADER: [&str; 12] = [
    "kernel",
    "release",
    "MMU",
    "backend",
    "change_pte",
    "calls",
    "no-op",
    "effective",
    "failed attempts",
    "refaults",
    "avoidable",
    "lost",
];

/// What one boot measured.
pub(super) struct Measured {
    target: Target,
    /// Whether `change_pte` had been restored.
    restored: bool,
    run: Run,
    report: Value,
}

impl Measured {
    /// Reads the results of `target`.
    pub(super) fn load(target: Target, out: &Path) -> Result<Self> {
        let (run, report) = (out.join("phases.json"), out.join("report.json"));
        Ok(Self { target, restored: false, run: checks::load(&run)?, report: checks::load(&report)? })
    }

    /// Reads the results of `target` with a working `change_pte`.
    pub(super) fn load_restored(target: Target, out: &Path) -> Result<Self> {
        let (run, report) = (out.join("control-phases.json"), out.join("control.json"));
        Ok(Self { target, restored: true, run: checks::load(&run)?, report: checks::load(&report)? })
    }

    /// The line of the table.
    fn row(&self) -> Vec<String> {
        let run = &self.run;
        let direct = run.has_change_pte();
        let counted = || run.phases.iter().filter(|phase| has_formula(run, phase));
        let total = |name: &str, labels: &[(&str, &str)]| -> Option<i64> {
            counted().map(|phase| Some(sum(phase.daemon.as_ref()?, name, labels))).sum()
        };
        let number = |n: Option<i64>| n.map_or("unknown".to_owned(), |n| n.to_string());
        let calls = total(calls_metric(run), &[]);
        let noop = total("change_pte_noop_total", &[]);
        let effective = total("change_pte_effective_total", &[]);
        let lost = self.report.pointer("/quality/lost_events").and_then(Value::as_i64);
        let if_direct = |n: Option<i64>| if direct { number(n) } else { "-".to_owned() };
        vec![
            self.target.kernel.name.to_owned(),
            run.kernel.clone(),
            self.mmu().to_owned(),
            self.backends(),
            self.change_pte().to_owned(),
            number(calls) + if direct { "" } else { " (would be)" },
            if_direct(noop),
            if_direct(effective),
            number(total("ksm_failed_attempts_total", &[])),
            number(total("refaults_total", &[])),
            number(total("avoidable_refaults_total", &[])),
            number(lost),
        ]
    }

    fn mmu(&self) -> &'static str {
        self.run.mmu.map_or("stage 2", Mmu::name)
    }

    fn change_pte(&self) -> &'static str {
        match (self.restored, self.run.has_change_pte()) {
            (true, _) => "restored",
            (false, true) => "present",
            (false, false) => "absent",
        }
    }

    /// The cells of a line that every run of this target must repeat.
    fn stable(&self, cells: &[String]) -> String {
        let taken_back = self.run.phases.iter().filter_map(formula::broken).sum::<i64>() > 0;
        let is_stable = |index: &usize| {
            !(UNSTABLE.contains(index) || taken_back && UNSTABLE_IF_TAKEN_BACK.contains(index))
        };
        let kept = cells.iter().enumerate().filter(|(index, _)| is_stable(index));
        kept.map(|(_, cell)| cell.as_str()).collect::<Vec<_>>().join(" | ")
    }

    /// Which backends the hooks of the recording have.
    fn backends(&self) -> String {
        let hooks = self.report.pointer("/quality/hooks").and_then(Value::as_array);
        let used = |name: &str| {
            hooks.is_some_and(|hooks| {
                hooks.iter().any(|hook| hook.get("backend").and_then(Value::as_str) == Some(name))
            })
        };
        let names: Vec<&str> = ["fentry", "kprobe"].into_iter().filter(|name| used(name)).collect();
        names.join(", ")
    }
}

/// Whether a phase costs the same on each run.
fn has_formula(run: &Run, phase: &Phase) -> bool {
    formula::change_pte(run, phase).is_some()
}

fn calls_metric(run: &Run) -> &'static str {
    if run.has_change_pte() { "change_pte_total" } else { "would_be_change_pte_total" }
}

/// Whether kernels with and without the callback tell the same of the same workload: the calls and
/// the would-be calls, and the refaults, phase by phase and cause by cause.
pub(super) fn compare(all: &[Measured]) -> Vec<Group> {
    let is_reference = |m: &&Measured| m.target.name() == super::REFERENCE && !m.restored;
    let Some(direct) = all.iter().find(is_reference) else { return Vec::new() };
    let without = all.iter().filter(|m| !m.run.has_change_pte());
    without.map(|other| compare_runs(&other.target.name(), &direct.run, &other.run)).collect()
}

fn compare_runs(name: &str, direct: &Run, other: &Run) -> Group {
    const CAUSES: [&str; 8] = [
        "ksm_write_protect",
        "ksm_replace",
        "ksm_unmerge",
        "cow_guest",
        "cow_host",
        "fork",
        "protect",
        "discard",
    ];
    let mut checks = Vec::new();
    for (index, (one, two)) in direct.phases.iter().zip(&other.phases).enumerate() {
        if one.kind == PhaseKind::LiveMerge {
            continue;
        }
        let title = format!("phase {} {}", index + 1, one.kind.label());
        for cause in CAUSES {
            let refaults = |phase: &Phase| {
                phase.daemon.as_ref().map(|moved| sum(moved, "refaults_total", &[("cause", cause)]))
            };
            checks.push(Check::numbers(
                &format!("{title}: refaults by {cause}"),
                refaults(one),
                refaults(two),
            ));
            if has_formula(direct, one) {
                let calls = |run: &Run, phase: &Phase| {
                    let moved = phase.daemon.as_ref()?;
                    Some(sum(moved, calls_metric(run), &[("cause", cause)]) - own_share(phase, cause)?)
                };
                checks.push(Check::numbers(
                    &format!("{title}: calls by {cause}"),
                    calls(direct, one),
                    calls(other, two),
                ));
            }
        }
    }
    Group { name: format!("{} and {name} tell the same", super::REFERENCE), checks }
}

/// The calls that a merge costs more or less because of how KSM happened to lay out its pages.
fn own_share(phase: &Phase, cause: &str) -> Option<i64> {
    if !matches!(phase.kind, PhaseKind::Merge | PhaseKind::OutsideMerge) {
        return Some(0);
    }
    match cause {
        "ksm_write_protect" => formula::broken(phase),
        "ksm_replace" => formula::stable_nodes(phase).map(|s| -s),
        "ksm_unmerge" => formula::broken(phase),
        _ => Some(0),
    }
}

/// Writes the table into the page.
pub(super) fn write_page(all: &[Measured]) -> Result<()> {
    let path = page()?;
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let (before, _, after) = split(&text)?;
    fs::write(&path, format!("{before}{BEGIN}{}{END}{after}", table(all)))
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("lab: wrote {PAGE}");
    Ok(())
}

/// What `mmu-trace doctor` said on each kernel, kept in the repository.
fn doctor_file(target: Target) -> Result<PathBuf> {
    Ok(tools::repository()?.join(format!("docs/doctor/{}.txt", target.name())))
}

/// Keeps what doctor said.
pub(super) fn write_doctor(target: Target, out: &Path) -> Result<()> {
    let file = doctor_file(target)?;
    let folder = file.parent().context("the file has no folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    fs::copy(out.join("doctor.txt"), &file).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(())
}

/// Whether doctor still says what it said, line by line.
pub(super) fn check_doctor(target: Target, out: &Path) -> Result<Group> {
    let read = |path: &Path| {
        fs::read_to_string(path).with_context(|| format!("cannot read {}; --docs writes it", path.display()))
    };
    let (kept, said) = (read(&doctor_file(target)?)?, read(&out.join("doctor.txt"))?);
    let n_lines = |text: &str| text.lines().count();
    let mut checks = vec![Check::equal("lines", &n_lines(&kept), &n_lines(&said))];
    for (kept, said) in kept.lines().zip(said.lines()).filter(|(kept, said)| kept != said) {
        checks.push(Check::equal("line", &kept, &said));
    }
    Ok(Group { name: format!("doctor on {}", target.name()), checks })
}

/// Whether the page says what these runs measured.
pub(super) fn check_page(all: &[Measured]) -> Result<Group> {
    let path = page()?;
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let (_, documented, _) = split(&text)?;
    let rows: Vec<Vec<String>> = documented.lines().map(cells).collect();
    let checks = all.iter().map(|measured| {
        let stable = |cells: &[String]| measured.stable(cells);
        let row = stable(&measured.row());
        let of_same = |row: &&Vec<String>| {
            row.first().is_some_and(|name| name == measured.target.kernel.name)
                && row.get(2).is_some_and(|mmu| mmu == measured.mmu())
                && row.get(4).is_some_and(|change_pte| change_pte == measured.change_pte())
        };
        let found = rows.iter().find(of_same).map(|row| stable(row));
        let name = format!("{}, change_pte {}", measured.target.name(), measured.change_pte());
        Check::equal(&name, &found.unwrap_or_else(|| "no line".to_owned()), &row)
    });
    Ok(Group { name: PAGE.to_owned(), checks: checks.collect() })
}

fn page() -> Result<PathBuf> {
    Ok(tools::repository()?.join(PAGE))
}

fn table(all: &[Measured]) -> String {
    let mut text = String::new();
    let mut line = |cells: &[String]| {
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    };
    line(&HEADER.map(str::to_owned));
    line(&HEADER.map(|_| "---".to_owned()));
    for measured in all {
        line(&measured.row());
    }
    text
}

fn cells(line: &str) -> Vec<String> {
    line.trim().trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
}

/// The page before, between and after the marks.
fn split(text: &str) -> Result<(&str, &str, &str)> {
    let context = || format!("{PAGE} has no marks for its table");
    let (before, rest) = text.split_once(BEGIN).with_context(context)?;
    let (table, after) = rest.split_once(END).with_context(context)?;
    Ok((before, table, after))
}

#[cfg(test)]
mod tests {
    use xtask::phase::Series;

    use super::super::checks::formula::tests::{merge, run_of};
    use super::*;

    fn run(metric: &str, n_calls: f64) -> Run {
        let mut phase = merge();
        let series = [("ksm_write_protect", 8.0), ("ksm_replace", n_calls)];
        phase.daemon = Some(
            series
                .into_iter()
                .map(|(cause, n)| (format!("mmu_trace_{metric}{{cause=\"{cause}\"}}"), n))
                .collect::<Series>(),
        );
        run_of(phase)
    }

    fn without_callback(n_calls: f64) -> Run {
        let mut run = run("would_be_change_pte_total", n_calls);
        run.functions.remove("change_pte");
        run
    }

    #[test]
    fn calls_and_would_be_calls_are_compared() {
        let direct = run("change_pte_total", 7.0);
        assert!(compare_runs("7", &direct, &without_callback(7.0)).checks.iter().all(Check::passed));
        assert!(!compare_runs("7", &direct, &without_callback(6.0)).checks.iter().all(Check::passed));
    }

    #[test]
    fn a_layout_of_ksm_pages_is_no_difference() {
        let direct = run("change_pte_total", 7.0);
        let mut other = without_callback(6.0);
        other.phases[0].oracle.insert("ksm:pages_shared".into(), 2);
        assert!(compare_runs("7", &direct, &other).checks.iter().all(Check::passed));
    }

    #[test]
    fn the_page_is_split_at_its_marks() {
        let page = format!("a\n{BEGIN}| x |\n{END}b\n");
        assert_eq!(split(&page).unwrap(), ("a\n", "| x |\n", "b\n"));
        assert!(split("a\n").is_err());
        assert_eq!(cells("| 6.1 | tdp |"), ["6.1", "tdp"]);
    }
}
