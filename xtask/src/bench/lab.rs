//! What tracers cost on a KVM host: the lab's measurements as figures.

use anyhow::{Context, Result, ensure};
use xtask::{
    cost::{Arm, Cost, N_PAGES, Run},
    figure::{Figure, median},
};

use crate::lab::cost::{self, Measured};

/// The last generation with `change_pte`, and the newest.
pub(super) const KERNELS: &[&str] = &["6.1", "7"];

const TIME: &str = "median of the rounds, 1 ns for each instruction: CPU time of ksmd and of the vCPU until KSM has \
    merged 16,384 pages, the guest has read them again and has written them";
const ADDED: &str = "median of the rounds: the same, less that of the round with nothing attached";
const OVER: &str = "one median by the other";
const CALLS: &str = "runs of the empty programs in one workload (run_cnt with kernel.bpf_stats_enabled): how often the \
    daemon's hooks are hit";
const PER_CALL: &str = "median of the rounds: run_time_ns of all programs of one workload by the calls of the hooks; what \
    the kernel's accounting costs is in it";
const VERIFIED: &str = "verified_insns of the attached program";
const AGREE: &str = "totals (change_pte calls, invalidations, merges, guest faults, refaults) in which the daemon \
    and bpftrace, attached at the same time, differ";

/// Measures.
pub(super) fn measure(kernels: &[String], rounds: u32) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (kernel, measured) in kernels.iter().zip(cost::measure(kernels, rounds)?) {
        let Measured { cost, bpftrace } = &measured;
        eprintln!("bench: {N_PAGES} pages on {} with bpftrace {bpftrace}", cost.kernel);
        figures.extend(of_kernel(kernel, cost)?);
    }
    Ok(figures)
}

fn of_kernel(kernel: &str, cost: &Cost) -> Result<Vec<Figure>> {
    let name = |what: &str| format!("lab/{kernel}/{what}");
    let time = middle(cost, Arm::Nothing, |run, _| run.timed.cpu_ns() as f64 / 1e6)?;
    let calls = middle(cost, Arm::Floor, |run, _| run.runs() as f64)?;
    let mut figures = vec![
        Figure::new(name("nothing/time of the workload"), time, "ms", TIME),
        Figure::new(name("calls of the hooks"), calls, "calls", CALLS),
    ];
    let mut added = Vec::new();
    let mut per_call = Vec::new();
    for arm in [Arm::Floor, Arm::Daemon, Arm::Record, Arm::Bpftrace] {
        let more =
            |run: &Run, nothing: &Run| (run.timed.cpu_ns() as f64 - nothing.timed.cpu_ns() as f64) / 1e6;
        let added_ms = middle(cost, arm, more)?;
        let call_ns = middle(cost, arm, |run, _| run.run_ns() as f64 / calls)?;
        let name = |what: &str| format!("lab/{kernel}/{}/{what}", arm.name());
        figures.push(Figure::new(name("added time"), added_ms, "ms", ADDED));
        figures.push(Figure::new(name("BPF time for a call"), call_ns, "ns", PER_CALL));
        added.push((arm, added_ms));
        per_call.push((arm, call_ns));
    }
    for (what, arm, other, of) in [
        ("daemon/added time over bpftrace's", Arm::Daemon, Arm::Bpftrace, &added),
        ("record/added time over bpftrace's", Arm::Record, Arm::Bpftrace, &added),
        ("daemon/BPF time for a call over bpftrace's", Arm::Daemon, Arm::Bpftrace, &per_call),
        ("daemon/BPF time for a call over the floor's", Arm::Daemon, Arm::Floor, &per_call),
    ] {
        figures.push(Figure::new(name(what), ratio(of, arm, other)?, "x", OVER));
    }
    let Cost { agreement, .. } = cost;
    let differ = agreement.daemon.iter().filter(|(key, n)| agreement.bpftrace.get(*key) != Some(*n)).count();
    ensure!(!agreement.daemon.is_empty(), "the daemon and bpftrace were not compared");
    figures.push(Figure::new(name("totals that differ"), differ as f64, "totals", AGREE));
    figures.extend(verified(kernel, cost)?);
    Ok(figures)
}

/// The verifier's work for each program of the daemon, and for all.
fn verified(kernel: &str, cost: &Cost) -> Result<Vec<Figure>> {
    let run = cost.runs.iter().find(|run| run.arm == Arm::Daemon).context("the daemon was not measured")?;
    let total: u64 = run.programs.iter().map(|program| program.verified).sum();
    let figure = |name: &str, n: u64| {
        Figure::new(format!("lab/{kernel}/verified/{name}"), n as f64, "instructions", VERIFIED)
    };
    let each = run.programs.iter().map(|program| figure(&program.name, program.verified));
    Ok(each.chain([figure("all", total)]).collect())
}

/// The median over the rounds of what `of` makes of a run and of its round's run with nothing attached.
fn middle(cost: &Cost, arm: Arm, of: impl Fn(&Run, &Run) -> f64) -> Result<f64> {
    let of_arm = |arm| cost.runs.iter().filter(move |run| run.arm == arm);
    let values = of_arm(arm).filter_map(|run| {
        let nothing = of_arm(Arm::Nothing).find(|nothing| nothing.round == run.round)?;
        Some(of(run, nothing))
    });
    let values: Vec<f64> = values.collect();
    median(&values).with_context(|| format!("no round with {} was measured", arm.name()))
}

fn ratio(of: &[(Arm, f64)], arm: Arm, other: Arm) -> Result<f64> {
    let find = |arm| of.iter().find(|(it, _)| *it == arm).map(|(_, value)| *value);
    let (value, other) = find(arm).zip(find(other)).context("an arm is missing")?;
    Ok(value / other)
}
