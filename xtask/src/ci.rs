//! `cargo xtask ci`: every test there is, in one command.

use std::time::Instant;

use anyhow::{Result, bail};

use crate::{bench, browser, dashboards, docs, ebpf, lab, packaging, prometheus, tally::Tally, tools};

/// Arguments of `cargo xtask ci`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Leave the lab out: what is left needs no emulator and no network.
    #[arg(long)]
    no_lab: bool,
}

/// `required`: tests that run BPF programs fail where they would be skipped. Root is expected to be
/// allowed to; a machine that refuses even root sets it to `optional`.
const BPF_TESTS: &str = "MMU_TRACE_BPF_TESTS";

/// `required`: tests that need promtool and Prometheus fail where they would be skipped.
const PROMETHEUS_TESTS: &str = "MMU_TRACE_PROMETHEUS_TESTS";

/// Steps and lab checks, counted together.
#[derive(Default)]
struct Count {
    passed: usize,
    failed: usize,
}

/// Runs everything, whatever fails, and ends with one line of counts.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut count = Count::default();
    warn_of_skipped_tests();
    for arguments in [
        "fmt --all --check",
        "clippy --workspace --all-targets --all-features -- -D warnings",
        "test --workspace",
    ] {
        count.step(&format!("cargo {arguments}"), || {
            let mut cargo = tools::cargo()?;
            if std::env::var_os(BPF_TESTS).is_none() && rustix::process::geteuid().is_root() {
                cargo.env(BPF_TESTS, "required");
            }
            tools::run(cargo.args(arguments.split(' ')))
        });
    }
    count.step("cargo xtask docs --check", || docs::run(&docs::Args { check: true }));
    count.step("cargo xtask bench --check", || bench::run(&bench::Args::check()));
    count.step("cargo xtask dashboards --check", || dashboards::run(&dashboards::Args::check()));
    count.step("cargo xtask ebpf --check", || ebpf::run(&ebpf::Args { check: true }));
    if !args.no_lab {
        count.step("cargo xtask prometheus", || prometheus::run(&prometheus::Args::for_ci()));
        for (arguments, lab) in lab::Args::for_ci() {
            count.tallied(&format!("cargo xtask lab {arguments}"), || lab::run_and_tally(&lab));
        }
        if tools::find("prometheus").is_some() || is_prometheus_required() {
            count.step("cargo xtask dashboards --live", || dashboards::run(&dashboards::Args::live(None)));
        }
        count.step("cargo xtask dashboards --live, Prometheus 3", || {
            let newest = prometheus::fetch()?.join("prometheus");
            dashboards::run(&dashboards::Args::live(Some(newest)))
        });
        count.bench();
        // With the captures that the lab has just made.
        count.tallied("cargo xtask browser", browser::run_and_tally);
        count.packages();
    }
    println!("\nci: {} passed, {} failed", count.passed, count.failed);
    if count.failed > 0 {
        bail!("ci failed");
    }
    Ok(())
}

fn is_prometheus_required() -> bool {
    std::env::var_os(PROMETHEUS_TESTS).is_some_and(|value| value == "required")
}

/// Says what cargo does not: it shows nothing of tests that pass.
fn warn_of_skipped_tests() {
    let missing: Vec<&str> =
        ["promtool", "prometheus"].into_iter().filter(|name| tools::find(name).is_none()).collect();
    if !missing.is_empty() && !is_prometheus_required() {
        let missing = missing.join(" and ");
        println!("{missing} not installed (Debian: prometheus): the tests that need it are skipped");
    }
}

impl Count {
    fn step(&mut self, title: &str, action: impl FnOnce() -> Result<()>) {
        let start = heading(title);
        let outcome = action();
        self.result(title, start, outcome.is_ok());
        if let Err(error) = outcome {
            println!("{error:#}");
        }
    }

    /// The checks of the lab and of the packages count one by one; that it ran to its end is one more.
    fn tallied(&mut self, title: &str, action: impl FnOnce() -> Result<Tally>) {
        let start = heading(title);
        match action() {
            Ok(tally) => {
                self.result(title, start, tally.failed == 0);
                self.passed += tally.passed;
                self.failed += tally.failed;
            }
            Err(error) => {
                self.result(title, start, false);
                println!("{error:#}");
            }
        }
    }

    /// Installing into systems of their own needs root, as installing anywhere does.
    fn packages(&mut self) {
        let args = packaging::Args::for_ci();
        let title = "cargo xtask package --check --lab";
        if rustix::process::geteuid().is_root() {
            self.tallied(title, || packaging::run_and_tally(&args));
        } else {
            println!("\nnot root: {title} is skipped");
        }
    }

    /// Loading BPF programs needs root.
    fn bench(&mut self) {
        if rustix::process::geteuid().is_root() {
            self.tallied("cargo xtask bench", || bench::run_and_tally(&bench::Args::for_ci()));
        } else {
            println!("\nnot root: cargo xtask bench is skipped");
        }
    }

    fn result(&mut self, title: &str, start: Instant, passed: bool) {
        let verdict = if passed { "passed" } else { "FAILED" };
        println!("---- {title}: {verdict} in {:.1} s", start.elapsed().as_secs_f64());
        if passed { self.passed += 1 } else { self.failed += 1 }
    }
}

fn heading(title: &str) -> Instant {
    println!("\n==== {title}");
    Instant::now()
}
