//! `cargo xtask dashboards`: writes Grafana's dashboards, the recording rules and the alerts from the
//! metric table, or proves that the committed ones are what it gives, that the alerts fire when they
//! should (promtool), and that each has its runbook. With `--live` every query is asked of a real
//! Prometheus ([`live`]).

mod dashboard;
mod figures;
mod fleet;
mod host;
mod live;
mod own;
mod panel;
mod promql;
mod rules;
mod runbooks;
mod vm;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use self::dashboard::Dashboard;
use crate::tools;

/// Where the files are, relative to the repository.
const DIR: &str = "dashboards";

/// Arguments of `cargo xtask dashboards`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Compare with the committed files instead of replacing them
    #[arg(long)]
    pub(crate) check: bool,
    /// Ask every query of a Prometheus that scrapes replays of the lab's captures
    #[arg(long, conflicts_with = "check")]
    pub(crate) live: bool,
    /// The Prometheus to run, instead of the installed one
    #[arg(long, requires = "live", value_name = "PROGRAM")]
    pub(crate) prometheus: Option<PathBuf>,
    /// Where the lab's captures are, instead of lab-out
    #[arg(long, requires = "live", value_name = "DIR")]
    pub(crate) captures: Option<PathBuf>,
}

impl Args {
    /// `--check`.
    pub(crate) const fn check() -> Self {
        Self { check: true, live: false, prometheus: None, captures: None }
    }

    /// `--live`, with the installed Prometheus or another one.
    pub(crate) const fn live(prometheus: Option<PathBuf>) -> Self {
        Self { check: false, live: true, prometheus, captures: None }
    }
}

/// Writes or checks the files.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.live {
        return live::run(args.prometheus.as_deref(), args.captures.as_deref());
    }
    let repository = tools::repository()?;
    let dir = repository.join(DIR);
    for (name, content) in files()? {
        let path = dir.join(&name);
        if args.check {
            compare(&path, &content)?;
        } else {
            fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
            println!("{DIR}/{}", name.display());
        }
    }
    if args.check {
        runbooks::check(&repository)?;
        rules::promtool::check(&dir.join("rules"))?;
    }
    Ok(())
}

fn compare(path: &Path, content: &str) -> Result<()> {
    let committed = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(
        committed == content,
        "{} is not what the metric table gives; run: cargo xtask dashboards",
        path.display()
    );
    Ok(())
}

/// Every dashboard.
fn dashboards() -> Vec<Dashboard> {
    vec![fleet::dashboard(), host::dashboard(), vm::dashboard(), own::dashboard()]
}

/// Every file, by its name.
fn files() -> Result<Vec<(PathBuf, String)>> {
    let file = |dashboard: Dashboard| {
        let name = PathBuf::from(dashboard.name).with_extension("json");
        Ok((name, serde_json::to_string_pretty(&dashboard.json())? + "\n"))
    };
    let rules = [
        (PathBuf::from("rules/recording.yml"), rules::recording_file()),
        (PathBuf::from("rules/alerts.yml"), rules::alert_file()),
    ];
    dashboards().into_iter().map(file).chain(rules.map(Ok)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use mmu_trace::metrics::table::ALL;

    use super::{dashboard::COLUMNS, *};

    /// Series that no dashboard and no rule shows, and why.
    const NOT_SHOWN: &[(&str, &str)] = &[
        (
            "mmu_trace_change_pte_seconds_total",
            "time of a call that does nothing is of no use to an operator",
        ),
        ("mmu_trace_invalidations_total", "those that zap are shown; the others cost the guest nothing"),
        ("mmu_trace_page_faults_started_total", "proves that none of the finished ones is missing"),
        (
            "mmu_trace_permission_faults_total",
            "faults on mappings that are there: no teardown is behind them",
        ),
        ("mmu_trace_sandbox", "a state of the start, which the log tells"),
        ("mmu_trace_http_evictions_total", "nobody's loss: a scraper is served at once"),
        ("mmu_trace_page_fault_seconds", "that of each VM is shown, and the refaults of the host"),
    ];

    fn number(value: &Value) -> u64 {
        value.as_u64().unwrap()
    }

    #[test]
    fn panels_do_not_overlap_and_stay_on_the_grid() {
        for dashboard in dashboards() {
            let json = dashboard.json();
            let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
            for panel in json["panels"].as_array().unwrap() {
                assert!(ids.insert(number(&panel["id"])), "{}: {}", dashboard.name, panel["id"]);
                let at = &panel["gridPos"];
                let (x, y, w, h) = (number(&at["x"]), number(&at["y"]), number(&at["w"]), number(&at["h"]));
                assert!(w > 0 && h > 0 && x + w <= u64::from(COLUMNS), "{}", panel["title"]);
                for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                    assert!(cells.insert(cell), "{}: {}", dashboard.name, panel["title"]);
                }
            }
        }
    }

    #[test]
    fn every_panel_says_what_it_means_in_which_unit_and_why_it_may_be_empty() {
        for dashboard in dashboards() {
            for panel in dashboard.panels() {
                let at = format!("{}: {}", dashboard.name, panel.title);
                assert!(panel.description.ends_with('.') && panel.description.len() > 60, "{at}");
                assert!(
                    !panel.unit.is_empty() && !panel.no_value.is_empty() && !panel.targets.is_empty(),
                    "{at}"
                );
            }
        }
    }

    #[test]
    fn every_series_is_shown_or_has_a_reason_not_to_be() {
        let files = files().unwrap();
        for series in ALL {
            let words = |name: &str| files.iter().any(|(_, text)| has_word(text, name));
            let is_shown = words(series.name) || words(&format!("{}_bucket", series.name));
            let reason = NOT_SHOWN.iter().find(|(name, _)| *name == series.name);
            assert_ne!(is_shown, reason.is_some(), "{}: {reason:?}", series.name);
        }
        let is_series = |name: &str| ALL.iter().any(|series| series.name == name);
        assert!(NOT_SHOWN.iter().all(|(name, _)| is_series(name)));
    }

    fn has_word(text: &str, word: &str) -> bool {
        let is_end = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        text.split(word).skip(1).any(is_end)
    }

    #[test]
    fn columns_of_a_table_can_join() {
        let tables =
            dashboards().into_iter().flat_map(|dashboard| dashboard.panels().cloned().collect::<Vec<_>>());
        for panel in tables.filter(|panel| panel.kind == panel::Kind::Table && panel.targets.len() > 1) {
            for target in &panel.targets {
                // A bare series keeps its name, which would differ between the columns.
                let inner = target.expr.text().trim_start_matches("topk(20, ").trim_start_matches('(');
                assert!(!inner.starts_with("mmu_trace"), "{}: {inner}", panel.title);
            }
        }
    }

    /// The names in `{{label}}` of a legend.
    fn legend_labels(legend: &str) -> impl Iterator<Item = &str> {
        legend.split("{{").skip(1).filter_map(|part| Some(part.split_once("}}")?.0))
    }

    #[test]
    fn legends_and_columns_name_labels_that_the_answers_have() {
        for dashboard in dashboards() {
            for panel in dashboard.panels() {
                for target in &panel.targets {
                    for label in legend_labels(&target.legend) {
                        assert!(target.expr.has_label(label), "{}: {label}", panel.title);
                    }
                }
                for column in panel.columns.iter().filter(|column| !column.field.contains('#')) {
                    let has = panel.targets.iter().any(|target| target.expr.has_label(column.field));
                    assert!(has, "{}: {}", panel.title, column.field);
                }
            }
        }
    }

    #[test]
    fn every_variable_that_is_used_is_defined() {
        for dashboard in dashboards() {
            let json = dashboard.json();
            let defined: BTreeSet<&str> = json["templating"]["list"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(|variable| variable["name"].as_str())
                .collect();
            let text = json["panels"].to_string();
            for part in text.split('$').skip(1) {
                let name = part.trim_start_matches('{');
                let name = name.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap();
                assert!(name.starts_with("__") || defined.contains(name), "{}: {name}", dashboard.name);
            }
        }
    }
}
