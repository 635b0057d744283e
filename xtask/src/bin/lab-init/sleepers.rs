//! Missed returns, provoked: every vCPU sleeps in its fault until the last one does too.

use std::fs;
use std::path::Path;
use std::sync::{Barrier, Mutex};

use anyhow::{Context, Result, anyhow};
use xtask::sleepers::{N_SLEEPERS, Sleepers};

use crate::userfault::Userfault;
use crate::vm::{Access, Vcpu, Vm};
use crate::{metrics, oracle, process};

/// Runs it and writes `sleepers.json`.
pub(crate) fn run() -> Result<()> {
    let functions = oracle::functions()?;
    let handler = functions.get("page_fault").context("no function is counted as page_fault")?;
    let returns = oracle::Returns::count("page_fault_return", handler)?;
    let calls =
        || -> Result<i64> { Ok(oracle::read()?.counts.get("calls:page_fault").copied().unwrap_or(0)) };
    let (before, daemon_before) = (calls()?, scrape()?);
    let vm = sleep_and_wake()?;
    // While it lives: the series of a VM end with it.
    let (after, daemon_after) = (calls()?, scrape()?);
    drop(vm);
    let (returns, missed) = returns.finish()?;
    let daemon = metrics::delta(&daemon_before, &daemon_after);
    let counted = Sleepers { calls: after - before, returns, missed, daemon };
    let path = Path::new(process::OUT).join("sleepers.json");
    fs::write(&path, serde_json::to_vec_pretty(&counted)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

fn scrape() -> Result<xtask::phase::Series> {
    metrics::parse(&metrics::get("/metrics").context("cannot scrape the daemon")?)
}

fn sleep_and_wake() -> Result<Vm> {
    let vm = Vm::new(2 * N_SLEEPERS)?;
    let userfault = Userfault::hold_missing(&vm.data)?;
    let awake = Barrier::new(N_SLEEPERS);
    let turn = Mutex::new(());
    let ended = std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for number in 0..N_SLEEPERS {
            let vcpu = vm.add_vcpu(number as u64 + 1)?;
            let (awake, turn) = (&awake, &turn);
            threads.push(scope.spawn(move || sleep(vcpu, number, awake, turn)));
        }
        userfault.wait_for(N_SLEEPERS)?;
        userfault.fill_missing(&vm.data)?;
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(anyhow!("a vCPU panicked"))))
    });
    ended.map(|()| vm)
}

/// Sleeps on a page of its own; once all are awake, touches another, alone: whoever missed the return
/// of the first fault sees its thread enter again.
fn sleep(mut vcpu: Vcpu, number: usize, awake: &Barrier, turn: &Mutex<()>) -> Result<()> {
    let slept = vcpu.touch(Access::Read, number, 1, 0);
    awake.wait();
    slept?;
    let _turn = turn.lock().map_err(|_| anyhow!("a vCPU panicked"))?;
    vcpu.touch(Access::Read, N_SLEEPERS + number, 1, 0)
}
