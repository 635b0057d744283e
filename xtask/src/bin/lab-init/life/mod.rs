//! Life on a host that is traced: VMs come and go, memory is changed under running guests, KVM is
//! unloaded and loaded again. Two daemons and a recorder see it; the kernel's own counts are the measure.

mod modules;
mod row;
mod scenes;
mod stage;
mod tracers;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use xtask::life::Life;
use xtask::phase::Step;

use crate::process::{self, OUT};
use crate::vmm::N_PAGES;
use crate::{ksm, oracle};
use stage::Stage;
use tracers::{Daemon, Recorder, wait_until_tracing};

/// All of it, once. KVM is loaded, and nothing counts its calls yet.
pub(crate) fn run(steps: &mut Vec<Step>) -> Result<()> {
    eprintln!("lab: life: two daemons");
    let mut daemons = vec![Daemon::fentry()?, Daemon::kprobe()?];
    wait_until_tracing(&mut daemons, &[1, 1])?;
    eprintln!("lab: life: kvm is unloaded and loaded");
    let mut modules = modules::unload_and_load(&mut daemons)?;
    oracle::set_up()?;
    ksm::set_up()?;

    let mut stage = Stage::new(daemons);
    modules.resumed = modules::release_and_resume(&mut stage)?;
    eprintln!("lab: life: recorder");
    let recorder = Recorder::start("life", "auto")?;
    let first = oracle::read()?;
    scenes::play(&mut stage)?;
    let row = row::run(&mut stage)?;
    let last = oracle::read()?;
    let (recorder_exit, report) = recorder.end()?;

    let Stage { mut daemons, acts, listings } = stage;
    eprintln!("lab: life: kvm is unloaded and loaded at once");
    modules.at_once = modules::replace(&mut daemons)?;
    for daemon in daemons {
        modules.confined.push(daemon.confined()?);
        let (step, log) = daemon.stop()?;
        steps.push(step);
        modules.logs.push(log);
    }
    let life = Life {
        kernel: process::kernel_release()?,
        pages: N_PAGES as i64,
        modules,
        acts,
        row,
        listings,
        recorded: oracle::delta(&first.counts, &last.counts),
        recorder_exit,
        report,
        oracle_misses: last.misses,
    };
    let path = Path::new(OUT).join("life.json");
    fs::write(&path, serde_json::to_vec_pretty(&life)?)
        .with_context(|| format!("cannot write {}", path.display()))
}
