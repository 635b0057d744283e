//! `cargo xtask bench`: what mmu-trace costs, measured and compared with its budgets.
//!
//! ```text
//!  native   a measuring program on this machine  --.
//!  lab      a workload on an emulated KVM host   --+--> figures --> budgets --> table, JSON, verdict
//! ```
//!
//! Timings of two programs are taken in one run and compared as ratios; counts are exact. Nothing is kept:
//! what a figure may be stands in `xtask/budgets.toml`.

mod budgets;
mod lab;
mod native;
mod page;
mod table;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use xtask::figure::Figure;

use self::budgets::{Budgets, Verdict};
use crate::tally::Tally;

/// Arguments of `cargo xtask bench`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Measure only these parts.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Rounds of the lab. It counts instructions, so few are enough to see a change; the page has 10.
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Kernels of the lab.
    #[arg(long, value_delimiter = ',', default_values = lab::KERNELS)]
    kernels: Vec<String>,
    /// Measure nothing: take the figures that an earlier run printed.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["only", "rounds"])]
    from: Option<PathBuf>,
    /// Write docs/performance.md from what was measured.
    #[arg(long, conflicts_with = "only")]
    write: bool,
    /// Measure nothing: check that docs/performance.md says what its figures come to.
    #[arg(long, conflicts_with_all = ["only", "write"])]
    check: bool,
}

/// What is measured together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Programs on this machine.
    Native,
    /// Tracers on an emulated KVM host.
    Lab,
}

impl Part {
    const ALL: [Self; 2] = [Self::Native, Self::Lab];

    fn measure(self, args: &Args) -> Result<Vec<Figure>> {
        match self {
            Self::Native => native::measure(),
            Self::Lab => lab::measure(&args.kernels, args.rounds),
        }
    }
}

impl Args {
    /// What `cargo xtask ci` runs: everything, with one round.
    pub(crate) fn for_ci() -> Self {
        Self {
            only: Vec::new(),
            rounds: 1,
            from: None,
            kernels: lab::KERNELS.iter().map(|&kernel| kernel.to_owned()).collect(),
            write: false,
            check: false,
        }
    }

    /// Only a look at the page.
    pub(crate) fn check() -> Self {
        Self { check: true, ..Self::for_ci() }
    }
}

/// Measures and compares; a figure beyond its budget is an error.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.check {
        return page::check();
    }
    let tally = run_and_tally(args)?;
    if tally.failed > 0 {
        bail!("{} of {} budgets do not hold", tally.failed, tally.passed + tally.failed);
    }
    Ok(())
}

/// Measures, and counts the budgets that hold. The table goes to standard error, the figures as JSON to
/// standard output.
pub(crate) fn run_and_tally(args: &Args) -> Result<Tally> {
    let parts = if args.only.is_empty() { Part::ALL.to_vec() } else { args.only.clone() };
    let budgets = Budgets::load()?;
    let mut figures = Vec::new();
    if let Some(file) = &args.from {
        let printed = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        figures =
            serde_json::from_slice(&printed).with_context(|| format!("{} has no figures", file.display()))?;
    } else {
        for part in &parts {
            figures.extend(part.measure(args)?);
        }
        figures.extend(starts(&figures));
    }
    let has_all = |part| parts.contains(part);
    let is_complete = Part::ALL.iter().all(has_all) && args.kernels.len() == lab::KERNELS.len();
    let verdicts = budgets.judge(&figures, is_complete);
    eprint!("{}", table::render(&figures, &verdicts));
    println!("{}", serde_json::to_string_pretty(&figures)?);
    if args.write {
        page::write(&figures, &budgets)?;
    }
    let failed = verdicts.iter().filter(|verdict| !verdict.holds()).count();
    Ok(Tally { passed: verdicts.len() - failed, failed })
}

/// What starting takes with the verifier: this machine's figures, and the lab's numbers of instructions.
fn starts(figures: &[Figure]) -> Vec<Figure> {
    const METHOD: &str = "The process's own CPU time, and the instructions that the verifier walks for what the daemon \
        attaches on that kernel (lab/*/verified/all), at this machine's time for one.";
    let value = |name: &str| figures.iter().find(|figure| figure.name == name).map(|figure| figure.value);
    let own = value(OWN_START).zip(value(VERIFIER));
    let on = |kernel: &&str| {
        let (own_ms, ns_each) = own?;
        let ms = own_ms + value(&format!("lab/{kernel}/verified/all"))? * ns_each / 1e6;
        Some(Figure::new(format!("start/own CPU with the verifier of {kernel}"), ms, "ms", METHOD))
    };
    lab::KERNELS.iter().filter_map(on).collect()
}

/// Figures of `bench-native`.
const OWN_START: &str = "start/own CPU without the verifier";
const VERIFIER: &str = "start/verifier";

/// The verdict on the figure called `name`, if it has a budget.
fn verdict_on<'a>(verdicts: &'a [Verdict], name: &str) -> Option<&'a Verdict> {
    verdicts.iter().find(|verdict| verdict.figure == name)
}
