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
const UNSTABLE: &[&str] = &["release", "failed attempts"];
/// These as well where ksmd took a merge of its own back, which depends on the same.
const UNSTABLE_IF_TAKEN_BACK: &[&str] = &["calls", "no-op", "effective", "avoidable"];
/// Columns that tell the lines of the table apart.
const KEY: &[&str] = &["kernel", "arch", "MMU", "change_pte"];
const HEADER: [&str; 13] = [
    "kernel",
    "arch",
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
            self.target.arch.debian().to_owned(),
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
        let is_stable = |column: &&str| {
            !(UNSTABLE.contains(column) || taken_back && UNSTABLE_IF_TAKEN_BACK.contains(column))
        };
        let kept = HEADER.iter().zip(cells).filter(|(column, _)| is_stable(column));
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
///
/// Where `change_pte` maps the page itself the faults differ, by just those that are called avoidable on
/// the kernel without it.
pub(super) fn compare(all: &[Measured]) -> Vec<Group> {
    let is_reference =
        |m: &&Measured| m.target.kernel.name == super::REFERENCE && m.target.mmu.is_none() && !m.restored;
    let Some(direct) = all.iter().find(is_reference) else { return Vec::new() };
    let without = all.iter().filter(|m| !m.run.has_change_pte());
    let groups = without.map(|other| {
        let (one, two) = (&direct.run, &other.run);
        let checks = if one.installs() { compare_faults(one, two) } else { compare_refaults(one, two) };
        let name = format!("{} and {} tell the same", direct.target.name(), other.target.name());
        Group { name, checks: [compare_calls(one, two), checks].concat() }
    });
    groups.collect()
}

/// Pairs of the same phase, with a title; a race is another each time.
fn phases<'r>(one: &'r Run, two: &'r Run) -> impl Iterator<Item = (String, &'r Phase, &'r Phase)> {
    let pairs = one.phases.iter().zip(&two.phases).enumerate();
    pairs
        .filter(|(_, (one, _))| one.kind != PhaseKind::LiveMerge)
        .map(|(index, (one, two))| (format!("phase {} {}", index + 1, one.kind.label()), one, two))
}

/// The faults that the first kernel was spared.
fn compare_faults(direct: &Run, other: &Run) -> Vec<Check> {
    let moved = |phase: &Phase, name: &str| phase.daemon.as_ref().map(|moved| sum(moved, name, &[]));
    phases(direct, other)
        .map(|(title, one, two)| {
            let spared = two.calls("page_fault").zip(one.calls("page_fault")).map(|(two, one)| two - one);
            let avoidable = moved(two, "avoidable_refaults_total");
            Check::numbers(&format!("{title}: faults spared = avoidable refaults"), spared, avoidable)
        })
        .collect()
}

fn compare_refaults(direct: &Run, other: &Run) -> Vec<Check> {
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
    for (title, one, two) in phases(direct, other) {
        for cause in CAUSES {
            let refaults = |phase: &Phase| {
                phase.daemon.as_ref().map(|moved| sum(moved, "refaults_total", &[("cause", cause)]))
            };
            let title = format!("{title}: refaults by {cause}");
            checks.push(Check::numbers(&title, refaults(one), refaults(two)));
        }
    }
    checks
}

/// The calls and the would-be calls.
fn compare_calls(direct: &Run, other: &Run) -> Vec<Check> {
    const CAUSES: [&str; 5] = ["ksm_write_protect", "ksm_replace", "ksm_unmerge", "cow_guest", "cow_host"];
    let mut checks = Vec::new();
    for (title, one, two) in phases(direct, other).filter(|(_, one, _)| has_formula(direct, one)) {
        for cause in CAUSES {
            let calls = |run: &Run, phase: &Phase| {
                let moved = phase.daemon.as_ref()?;
                Some(sum(moved, calls_metric(run), &[("cause", cause)]) - own_share(phase, cause)?)
            };
            let title = format!("{title}: calls by {cause}");
            checks.push(Check::numbers(&title, calls(direct, one), calls(other, two)));
        }
    }
    checks
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

/// Writes the table into the page; lines of other architectures stay.
pub(super) fn write_page(all: &[Measured]) -> Result<()> {
    let path = page()?;
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let (before, documented, after) = split(&text)?;
    let mut rows: Vec<Vec<String>> = all.iter().map(Measured::row).collect();
    let arch = |row: &[String]| cell(row, "arch").to_owned();
    let own = rows.first().map(|row| arch(row)).unwrap_or_default();
    // Behind the header and the line under it.
    rows.extend(documented.lines().skip(2).map(cells).filter(|row| arch(row) != own));
    rows.sort_by_key(|row| arch(row));
    fs::write(&path, format!("{before}{BEGIN}{}{END}{after}", table(&rows)))
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
        let own = measured.row();
        let is_same = |row: &&Vec<String>| KEY.iter().all(|column| cell(row, column) == cell(&own, column));
        let found = rows.iter().find(is_same).map(|row| stable(row));
        let row = stable(&own);
        let name = format!("{}, change_pte {}", measured.target.name(), measured.change_pte());
        Check::equal(&name, &found.unwrap_or_else(|| "no line".to_owned()), &row)
    });
    Ok(Group { name: PAGE.to_owned(), checks: checks.collect() })
}

fn page() -> Result<PathBuf> {
    Ok(tools::repository()?.join(PAGE))
}

fn table(rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    let mut line = |cells: &[String]| {
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    };
    line(&HEADER.map(str::to_owned));
    line(&HEADER.map(|_| "---".to_owned()));
    rows.iter().for_each(|row| line(row));
    text
}

/// The cell of a row in a column.
fn cell<'r>(row: &'r [String], column: &str) -> &'r str {
    let index = HEADER.iter().position(|name| *name == column);
    index.and_then(|index| row.get(index)).map_or("", String::as_str)
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
        assert!(compare_calls(&direct, &without_callback(7.0)).iter().all(Check::passed));
        assert!(!compare_calls(&direct, &without_callback(6.0)).iter().all(Check::passed));
    }

    #[test]
    fn faults_that_were_spared_are_those_that_are_avoidable() {
        let direct = run("change_pte_total", 7.0);
        let mut other = without_callback(7.0);
        let fault = |run: &mut Run, faults: i64, avoidable: f64| {
            run.phases[0].oracle.insert("calls:page_fault".into(), faults);
            let series = run.phases[0].daemon.as_mut().unwrap();
            series.insert("mmu_trace_avoidable_refaults_total{cause=\"x\"}".into(), avoidable);
        };
        fault(&mut other, 8, 8.0);
        assert!(compare_faults(&direct, &other).iter().all(Check::passed));
        fault(&mut other, 8, 7.0);
        assert!(!compare_faults(&direct, &other).iter().all(Check::passed));
    }

    #[test]
    fn a_layout_of_ksm_pages_is_no_difference() {
        let direct = run("change_pte_total", 7.0);
        let mut other = without_callback(6.0);
        other.phases[0].oracle.insert("ksm:pages_shared".into(), 2);
        assert!(compare_calls(&direct, &other).iter().all(Check::passed));
    }

    #[test]
    fn the_page_is_split_at_its_marks() {
        let page = format!("a\n{BEGIN}| x |\n{END}b\n");
        assert_eq!(split(&page).unwrap(), ("a\n", "| x |\n", "b\n"));
        assert!(split("a\n").is_err());
        assert_eq!(cells("| 6.1 | tdp |"), ["6.1", "tdp"]);
    }
}
