//! `cargo xtask dashboards --live`: a real Prometheus scrapes replays of real captures, with our rules
//! loaded, and every query of every dashboard, rule and alert is asked.
//!
//! A query must find something in every capture; one that cannot says in which it does ([`Expect`]), and
//! is held to that as well: an exception that is none any more is a failure too.

mod prometheus;
mod replay;
mod scrapes;

use std::{
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use mmu_trace::metrics::table;

use self::{prometheus::Prometheus, replay::Replay};
use super::{
    dashboards, figures,
    panel::{Expect, Panel, Target},
    promql::{Expr, Selector},
    rules,
};
use crate::tools;

/// Where the lab leaves captures, relative to the repository.
const CAPTURES: &str = "lab-out";

/// What must be there: a kernel with `change_pte` and one without.
const REQUIRED: &[&str] = &["6.1/lab.mmt", "7/lab.mmt"];

/// Captures of real guests, where the lab was asked for them.
const OPTIONAL: &[&str] = &["6.1/guests.mmt", "7/guests.mmt"];

/// How long each capture plays, whatever its length.
const PLAY: Duration = Duration::from_secs(60);

/// When the questions are asked: before the last figures.
const ASK_AFTER: Duration = Duration::from_secs(54);

/// The time that the questions are about; in its first seconds Prometheus was starting.
const SHOWN: Duration = Duration::from_secs(45);

/// Alerts that captures cannot raise, and why.
const NOT_WATCHED: &[(&str, &str)] = &[("MmuTraceUntraced", "a replay attaches nothing")];

/// What was asked, and what was wrong with the answers.
#[derive(Default)]
struct Findings {
    asked: usize,
    wrong: Vec<String>,
}

/// Plays the captures below `captures` and asks everything.
pub(super) fn run(prometheus: Option<&Path>, captures: Option<&Path>) -> Result<()> {
    let repository = tools::repository()?;
    let captures = captures.map_or_else(|| repository.join(CAPTURES), Path::to_owned);
    let program = find_prometheus(prometheus)?;
    scrapes::check(&captures)?;
    let replays = start(&captures)?;
    let started = Instant::now();
    let server = Prometheus::start(&program, &replays, &repository.join(super::DIR).join("rules"))?;
    thread::sleep(ASK_AFTER.saturating_sub(started.elapsed()));
    let findings = ask(&server, &replays)?;
    println!("{} queries on {} captures, {}", findings.asked, replays.len(), server.version()?);
    findings.wrong.iter().for_each(|wrong| println!("{wrong}"));
    ensure!(findings.wrong.is_empty(), "{} answers are not as expected", findings.wrong.len());
    Ok(())
}

fn find_prometheus(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    tools::find("prometheus").context("prometheus is not installed; on Debian: apt-get install prometheus")
}

/// Starts all replays at about the same time.
fn start(captures: &Path) -> Result<Vec<Replay>> {
    let program = replay::build()?;
    let mut replays = Vec::new();
    for name in REQUIRED {
        let path = captures.join(name);
        ensure!(path.is_file(), "{} is missing; cargo xtask lab makes it", path.display());
        replays.push(Replay::start(&program, &path, name)?);
    }
    for name in OPTIONAL {
        match captures.join(name) {
            path if path.is_file() => replays.push(Replay::start(&program, &path, name)?),
            _ => println!("skipped: {name}: cargo xtask lab --guests makes it"),
        }
    }
    Ok(replays)
}

fn ask(server: &Prometheus, replays: &[Replay]) -> Result<Findings> {
    let mut findings = Findings::default();
    let now = server.now()?;
    findings.wrong.extend(server.sick_rules(rules::recording::ALL.len() + rules::alerts().len())?);
    for replay in replays {
        let vm = busiest_vm(server, replay, now)?;
        let now = last_seen(server, replay, &vm, now)?;
        let asker = Asker { server, replay, vm, now };
        for dashboard in dashboards() {
            for panel in dashboard.panels() {
                asker.panel(dashboard.name, panel, &mut findings)?;
            }
        }
        asker.rules(&mut findings)?;
    }
    Ok(findings)
}

/// The VM that a person would open.
fn busiest_vm(server: &Prometheus, replay: &Replay, now: f64) -> Result<String> {
    let refaults = Selector::of(&table::REFAULTS).is("instance", &replay.name);
    let window = format!("{}s", SHOWN.as_secs());
    let busiest = refaults.unlike("domain", figures::NO_VM).increase(&window).sum_by(&["domain"]).top(1);
    let found = server.labels(busiest.text(), now, "domain")?;
    found.into_iter().next().with_context(|| format!("{}: no VM at the end", replay.name))
}

/// The last second in which this VM ran.
fn last_seen(server: &Prometheus, replay: &Replay, vm: &str, now: f64) -> Result<f64> {
    let info = Selector::of(&table::VM_INFO).is("instance", &replay.name).is("domain", vm).value();
    let seen = server.last_time(info.text(), now - SHOWN.as_secs_f64(), now)?;
    seen.with_context(|| format!("{}: {vm} never ran", replay.name))
}

/// Asks about one capture.
struct Asker<'a> {
    server: &'a Prometheus,
    replay: &'a Replay,
    vm: String,
    now: f64,
}

impl Asker<'_> {
    fn panel(&self, dashboard: &str, panel: &Panel, findings: &mut Findings) -> Result<()> {
        for target in &panel.targets {
            let at = format!("{dashboard}: {}", panel.title);
            let is_found = self.finds(&target.expr, panel.is_instant())?;
            findings.add(self.verdict(target, is_found).map(|wrong| format!("{at}: {wrong}")));
        }
        Ok(())
    }

    /// What is wrong with an answer.
    fn verdict(&self, target: &Target, is_found: bool) -> Option<String> {
        let (is_expected, why) = match target.expect {
            Expect::Always => (true, "data in every capture"),
            Expect::Direct => (self.replay.is_direct, "data with change_pte alone"),
            Expect::Recent => (!self.replay.is_direct, "data on the recent kernel alone"),
            Expect::Maybe => (is_found, ""),
            Expect::Never(reason) => (false, reason),
        };
        let found = if is_found { "data" } else { "nothing" };
        let (name, query) = (&self.replay.name, target.expr.text());
        (is_found != is_expected).then(|| format!("{name}: found {found}, expected: {why}\n    {query}"))
    }

    fn rules(&self, findings: &mut Findings) -> Result<()> {
        for rule in rules::recording::ALL {
            let is_found = self.finds_own(&rule.selector().value())?;
            findings.add(self.listed(rule.name, is_found, &[]));
        }
        for alert in rules::alerts() {
            let is_found = self.finds_own(&alert.watched)?;
            findings.add(self.listed(alert.name, is_found, NOT_WATCHED));
        }
        Ok(())
    }

    /// What is wrong if all but the listed names have data.
    fn listed(&self, name: &str, is_found: bool, without: &[(&str, &str)]) -> Option<String> {
        let exception = without.iter().find(|(listed, _)| *listed == name);
        let replay = &self.replay.name;
        match (is_found, exception) {
            (true, None) | (false, Some(_)) => None,
            (false, None) => Some(format!("{name}: {replay}: no data")),
            (true, Some((_, reason))) => Some(format!("{name}: {replay}: has data, but is listed: {reason}")),
        }
    }

    /// Whether a query of a panel finds something, at the end or over the time shown.
    fn finds(&self, expr: &Expr, is_instant: bool) -> Result<bool> {
        let query = self.fill_in(expr.text());
        let from = if is_instant { None } else { Some(self.now - SHOWN.as_secs_f64()) };
        self.server.has_data(&query, from, self.now)
    }

    /// Whether the query of a rule, which is about all hosts, finds something of this one.
    fn finds_own(&self, expr: &Expr) -> Result<bool> {
        Ok(self.server.labels(expr.text(), self.now, "instance")?.contains(&self.replay.name))
    }

    /// What Grafana puts in place of its variables.
    fn fill_in(&self, query: &str) -> String {
        query
            .replace("$__rate_interval", "6s")
            .replace("$__range", &format!("{}s", SHOWN.as_secs()))
            .replace("$job", replay::JOB)
            .replace("$instance", &self.replay.name)
            .replace("$domain", &self.vm)
    }
}

impl Findings {
    fn add(&mut self, wrong: Option<String>) {
        self.asked += 1;
        self.wrong.extend(wrong);
    }
}
