//! `cargo xtask browser`: looks at what people see in a browser and in a terminal.
//!
//! ```text
//!   captures of the lab ----> mmu-trace replay ----> Prometheus ----> dashboards, drawn with Grafana's library
//!                       `---> mmu-trace report, top                        |
//!                                      |                                  v
//!                                      `-----------------> Chromium ----> checks, screenshots
//! ```
//!
//! The drawing and looking is TypeScript, in `xtask/browser`; here stands what it needs.

mod npm;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use crate::{tally::Tally, tools};

/// Arguments of `cargo xtask browser`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {}

/// `required`: what is missing on this machine is a failure, not a reason to skip.
const BROWSER_TESTS: &str = "MMU_TRACE_BROWSER_TESTS";

/// Programs that are called, and Debian's packages of them.
const PROGRAMS: [(&str, &str); 5] = [
    ("node", "nodejs"),
    ("npm", "npm"),
    ("chromium", "chromium"),
    ("prometheus", "prometheus"),
    ("tmux", "tmux"),
];

/// The oldest Node.js that the packages run on.
const OLDEST_NODE: u32 = 20;

/// Captures of the lab. Those with guests are there after `cargo xtask lab --guests`.
const CAPTURES: [(&str, Need); 4] = [
    ("6.1/lab.mmt", Need::Always),
    ("7/lab.mmt", Need::Always),
    ("6.1/guests.mmt", Need::IfThere),
    ("7/guests.mmt", Need::IfThere),
];

/// Whether a capture has to be there.
#[derive(Clone, Copy, PartialEq)]
enum Need {
    Always,
    IfThere,
}

/// What `xtask/browser/src/run/order.ts` describes.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Order {
    out: PathBuf,
    chromium: PathBuf,
    prometheus: PathBuf,
    mmu_trace: PathBuf,
    tmux: PathBuf,
    captures: Vec<Capture>,
    dashboards: Vec<PathBuf>,
    rules: Vec<PathBuf>,
}

#[derive(Serialize)]
struct Capture {
    name: String,
    path: PathBuf,
}

/// Looks at everything; what is wrong is printed and makes it fail.
pub(crate) fn run(_: &Args) -> Result<()> {
    let tally = run_and_tally()?;
    ensure!(tally.failed == 0, "{} of the checks failed", tally.failed);
    Ok(())
}

/// As [`run`], for those who count.
pub(crate) fn run_and_tally() -> Result<Tally> {
    if let Some(missing) = missing()? {
        if std::env::var_os(BROWSER_TESTS).is_some_and(|value| value == "required") {
            bail!("{missing}");
        }
        println!("{missing}\nbrowser: 0 passed, 0 failed, 1 skipped: nothing was looked at");
        return Ok(Tally::default());
    }
    let target = tools::target_dir()?;
    let out = target.join("browser");
    let order = order(&out)?;
    let home = npm::build(&target.join("browser-npm"))?;
    let tally = look(&home, &order)?;
    println!("browser: {} passed, {} failed; screenshots in {}", tally.passed, tally.failed, out.display());
    Ok(tally)
}

/// What this machine lacks, and how to get it.
fn missing() -> Result<Option<String>> {
    let packages: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(program, _)| tools::find(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if !packages.is_empty() {
        let packages = packages.join(" ");
        return Ok(Some(format!("not installed; on Debian: sudo apt-get install {packages}")));
    }
    let node = tools::first_line(Command::new("node").arg("--version")).context("node --version fails")?;
    let major = node.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    let is_too_old = major.is_none_or(|major| major < OLDEST_NODE);
    Ok(is_too_old
        .then(|| format!("node is {node}, and has to be {OLDEST_NODE} or later: https://nodejs.org")))
}

fn order(out: &Path) -> Result<Order> {
    if out.exists() {
        fs::remove_dir_all(out).with_context(|| format!("cannot empty {}", out.display()))?;
    }
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let program = |name: &str| tools::find(name).with_context(|| format!("{name} is not installed"));
    Ok(Order {
        out: out.to_owned(),
        chromium: program("chromium")?,
        prometheus: program("prometheus")?,
        mmu_trace: mmu_trace()?,
        tmux: program("tmux")?,
        captures: captures()?,
        dashboards: dashboards()?,
        rules: rules()?,
    })
}

/// The program itself, built as the tests build it.
fn mmu_trace() -> Result<PathBuf> {
    tools::run(tools::cargo()?.args(["build", "--package", "mmu-trace"]))?;
    Ok(tools::target_dir()?.join("debug/mmu-trace"))
}

fn captures() -> Result<Vec<Capture>> {
    let lab = tools::repository()?.join("lab-out");
    let mut captures = Vec::new();
    for (file, need) in CAPTURES {
        let path = lab.join(file);
        if path.is_file() {
            captures.push(Capture { name: file.trim_end_matches(".mmt").replace('/', "-"), path });
        } else {
            ensure!(
                need == Need::IfThere,
                "{} is missing; `cargo xtask lab --kernel {}` records it",
                path.display(),
                file.split('/').next().unwrap_or(file),
            );
            println!("{} is missing: its guests are not looked at", path.display());
        }
    }
    Ok(captures)
}

fn dashboards() -> Result<Vec<PathBuf>> {
    let dir = tools::repository()?.join("dashboards");
    let entries = fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut dashboards = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    dashboards.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    dashboards.sort();
    ensure!(!dashboards.is_empty(), "{} holds no dashboard", dir.display());
    Ok(dashboards)
}

/// The recording rules that dashboards draw from.
fn rules() -> Result<Vec<PathBuf>> {
    let recording = tools::repository()?.join("dashboards/rules/recording.yml");
    Ok(if recording.is_file() { vec![recording] } else { Vec::new() })
}

/// Runs the looking program; its last line is the tally, the others are for people.
fn look(home: &Path, order: &Order) -> Result<Tally> {
    let mut node = Command::new("node");
    node.arg(home.join("dist/run.mjs")).arg(serde_json::to_string(order)?).stderr(Stdio::inherit());
    let output = node.output().context("cannot run node")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let (lines, last) = said.trim_end().rsplit_once('\n').unwrap_or(("", said.trim_end()));
    println!("{lines}");
    ensure!(output.status.success(), "looking at the pages ended with {}:\n{last}", output.status);
    serde_json::from_str(last).with_context(|| format!("the last line is no tally: {last}"))
}
