//! What figures may be: `xtask/budgets.toml`.
//!
//! ```toml
//! ["scrape/210 VMs/time"]
//! at_most = 10.0
//! unit = "ms"
//! ```
//!
//! A name may end in `*`: the budget holds for every figure that begins so. `aim` is what was aimed at where the
//! budget is less strict: it is shown, and fails nothing.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;
use xtask::figure::Figure;

use crate::tools;

/// What one figure may be.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Budget {
    at_most: Option<f64>,
    at_least: Option<f64>,
    aim: Option<f64>,
    unit: String,
}

/// All budgets.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(transparent)]
pub(super) struct Budgets(BTreeMap<String, Budget>);

/// What a budget says of a figure.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Verdict {
    /// The figure's name; the budget's, if nothing was measured for it.
    pub(super) figure: String,
    /// The limit, as in `<= 10 ms`.
    pub(super) limit: String,
    /// `None`: it holds.
    pub(super) fault: Option<String>,
}

impl Verdict {
    /// Whether the figure is within its budget.
    pub(super) fn holds(&self) -> bool {
        self.fault.is_none()
    }
}

impl Budgets {
    /// Reads the file.
    pub(super) fn load() -> Result<Self> {
        let path = tools::repository()?.join("xtask/budgets.toml");
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} is no list of budgets", path.display()))
    }

    /// Compares. If everything was measured, a budget without a figure is a fault: somebody renamed one of
    /// them.
    pub(super) fn judge(&self, figures: &[Figure], is_complete: bool) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for (name, budget) in &self.0 {
            let matching: Vec<_> = figures.iter().filter(|figure| is_for(name, &figure.name)).collect();
            if matching.is_empty() && is_complete {
                verdicts.push(budget.verdict(name, Some("nothing was measured for it".to_owned())));
            }
            verdicts.extend(
                matching.into_iter().map(|figure| budget.verdict(&figure.name, budget.fault(figure))),
            );
        }
        verdicts
    }
}

/// Whether the budget called `budget` is for `figure`.
fn is_for(budget: &str, figure: &str) -> bool {
    budget.strip_suffix('*').map_or(budget == figure, |start| figure.starts_with(start))
}

impl Budget {
    fn verdict(&self, figure: &str, fault: Option<String>) -> Verdict {
        let bound = |sign, limit: Option<f64>| limit.map(|limit| format!("{sign} {limit} {}", self.unit));
        let bounds = [bound("<=", self.at_most), bound(">=", self.at_least)];
        let aim = self.aim.map_or(String::new(), |aim| format!(", aim {aim}"));
        let limit = bounds.into_iter().flatten().collect::<Vec<_>>().join(", ") + &aim;
        Verdict { figure: figure.to_owned(), limit, fault }
    }

    fn fault(&self, figure: &Figure) -> Option<String> {
        if figure.unit != self.unit {
            return Some(format!("it is in {}, the budget in {}", figure.unit, self.unit));
        }
        // Whatever is no number exceeds every budget.
        let is_within = self.at_most.is_none_or(|most| figure.value <= most)
            && self.at_least.is_none_or(|least| figure.value >= least);
        (!is_within).then(|| "beyond its budget".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budgets() -> Budgets {
        toml::from_str("[\"a/time\"]\nat_most = 10\nunit = \"ms\"\n[\"b/*\"]\nat_least = 2\nunit = \"x\"")
            .unwrap()
    }

    fn faults(figures: &[(&str, f64, &str)], is_complete: bool) -> Vec<String> {
        let figures: Vec<_> = figures.iter().map(|(n, v, u)| Figure::new(*n, *v, u, "")).collect();
        let verdicts = budgets().judge(&figures, is_complete);
        verdicts.into_iter().filter(|verdict| !verdict.holds()).map(|verdict| verdict.figure).collect()
    }

    #[test]
    fn a_figure_beyond_its_budget_is_told() {
        assert!(faults(&[("a/time", 10.0, "ms"), ("b/1", 2.0, "x"), ("b/2", 3.0, "x")], true).is_empty());
        assert_eq!(
            faults(&[("a/time", 10.1, "ms"), ("b/1", 1.9, "x"), ("b/2", 3.0, "x")], true),
            ["a/time", "b/1"]
        );
        assert_eq!(faults(&[("a/time", f64::NAN, "ms"), ("b/1", 2.0, "x")], true), ["a/time"]);
        assert_eq!(faults(&[("a/time", 1.0, "s"), ("b/1", 2.0, "x")], true), ["a/time"]);
    }

    #[test]
    fn a_budget_of_nothing_is_told_once_everything_was_measured() {
        assert_eq!(faults(&[("a/time", 1.0, "ms")], true), ["b/*"]);
        assert!(faults(&[("a/time", 1.0, "ms")], false).is_empty());
    }

    #[test]
    fn the_committed_budgets_can_be_read() {
        Budgets::load().unwrap();
    }
}
