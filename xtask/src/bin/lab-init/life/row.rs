//! Many VMs, one after the other, under one process id: nothing of one may be found with the next.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use xtask::life::{ROW, RowVm};
use xtask::phase::Identity;

use super::stage::Stage;
use crate::oracle;

/// The process id that was given last (`CONFIG_CHECKPOINT_RESTORE`).
const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";
/// One that nothing else in the lab has.
const PID: u32 = 20_000;
/// Several times as long as a recorder waits until it looks again.
const LIFETIME: Duration = Duration::from_millis(300);

/// Runs them. Each does as much as its number says, so that no two have the same figures.
pub(super) fn run(stage: &mut Stage) -> Result<Vec<RowVm>> {
    eprintln!("lab: life: {ROW} VMs in a row");
    (0..ROW).map(|number| run_one(stage, number)).collect()
}

fn run_one(stage: &mut Stage, number: usize) -> Result<RowVm> {
    let name = format!("row{number:02}");
    let uuid = format!("c0000000-0000-0000-0000-0000000000{number:02}");
    // Identities are constants everywhere else, and these are few.
    let identity = Identity { name: name.clone().leak(), uuid: uuid.leak() };
    let before = oracle::read()?;
    fs::write(LAST_PID, (PID - 1).to_string()).context("cannot choose a process id")?;
    let mut vmm = stage.start(identity)?;
    let pid = vmm.pid();
    ensure!(pid == PID, "the VM has process id {pid}, not {PID}");
    let read = format!("read-first {}", number + 1);
    for command in ["fill 1", &read, "discard", &read] {
        vmm.command(command)?;
    }
    // A VM that ends before its recorder has looked who it is has no name.
    std::thread::sleep(LIFETIME);
    let daemons = stage.scrape()?;
    let scraped = oracle::read()?;
    vmm.stop()?;
    let after = oracle::read()?;
    Ok(RowVm {
        name,
        pid,
        until_scrape: oracle::delta(&before.counts, &scraped.counts),
        whole: oracle::delta(&before.counts, &after.counts),
        daemons,
    })
}
