//! What tracers cost: one workload, with nothing attached and with each tracer, in rounds.
//!
//! ```text
//! attach -> workload, timed -> workload, with the kernel's BPF statistics -> detach -> next arm
//! ```
//! The arms of a round run one after another, in another order in each round. Statistics cost time by
//! themselves, so what is timed runs without. None of the kernel's own probes of the lab is there.

mod agreement;
mod arm;
mod programs;
mod workload;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use xtask::cost::{Arm, Cost, N_PAGES, Run};
use xtask::phase::{LAB_VM, Step};

use self::arm::Attached;
use crate::process::{OUT, kernel_release, step_of};
use crate::vmm::Vmm;

pub(crate) use self::arm::hold;

/// What the workload may leave behind in the caches of a fresh host.
const WARM_UPS: u32 = 1;

/// Measures every arm `rounds` times and writes `cost.json`.
pub(crate) fn run(rounds: u32, steps: &mut Vec<Step>) -> Result<()> {
    let measured = measure(rounds)?;
    let path = Path::new(OUT).join("cost.json");
    fs::write(&path, serde_json::to_vec(&measured)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    steps.push(step_of("bench"));
    Ok(())
}

fn measure(rounds: u32) -> Result<Cost> {
    programs::set_statistics(false)?;
    let mut vmm = Vmm::start(LAB_VM)?;
    vmm.command(&format!("new {N_PAGES}"))?;
    vmm.command("fill 1")?;
    vmm.command("read")?;
    for _ in 0..WARM_UPS {
        workload::run(&mut vmm)?;
    }
    let agreement = agreement::find(&mut vmm)?;
    let mut runs = Vec::new();
    for round in 0..rounds {
        for turn in 0..Arm::ALL.len() {
            let arm = Arm::ALL[(turn + round as usize) % Arm::ALL.len()];
            let run = run_once(&mut vmm, arm, round).with_context(|| arm.name())?;
            eprintln!("lab: {}", line(&run));
            runs.push(run);
        }
    }
    vmm.stop()?;
    Ok(Cost { kernel: kernel_release()?, agreement, runs })
}

fn run_once(vmm: &mut Vmm, arm: Arm, round: u32) -> Result<Run> {
    let attached = Attached::attach(arm)?;
    let own_before = attached.cpu_ns()?;
    let timed = workload::run(vmm)?;
    let own_cpu_ns = attached.cpu_ns()? - own_before;
    let programs = if arm == Arm::Nothing { Vec::new() } else { programs::measure(|| workload::run(vmm))? };
    let attach_ns = attached.attach_ns;
    attached.detach()?;
    Ok(Run { arm, round, attach_ns, timed, own_cpu_ns, programs })
}

fn line(run: &Run) -> String {
    let ms = |ns: u64| ns as f64 / 1e6;
    format!(
        "round {} {:8} attached in {:5.0} ms, workload {:5.0} ms, CPU {:5.0} ms, {} runs of programs, {:4.0} ms",
        run.round,
        run.arm.name(),
        ms(run.attach_ns),
        ms(run.timed.wall_ns()),
        ms(run.timed.cpu_ns()),
        run.runs(),
        ms(run.run_ns())
    )
}
