//! Attaching and detaching again and again while a guest faults without a pause.

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use xtask::phase::Step;

use crate::process::{self, mmu_trace};
use crate::vmm::Vmm;

const CAPTURE: &str = "/tmp/storm.mmt";
/// Guest writes and reads that fault on every page, and host work that takes the pages away.
const BUSY: [&str; 3] = ["write 9", "discard", "read"];

/// Records `times` times, as shortly as possible; each is a step.
pub(crate) fn run(mut vm: Vmm, times: u32, steps: &mut Vec<Step>) -> Result<()> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| keep_busy(&mut vm, &done));
        for turn in 1..=times {
            // As this host likes it best, and with kprobes.
            let backend = if turn % 2 == 0 { "kprobe" } else { "auto" };
            let mut record =
                mmu_trace(&["record", "--duration", "100ms", "-o", CAPTURE, "--backend", backend]);
            steps.push(process::run(&format!("storm {turn} ({backend})"), record.stderr(Stdio::null()))?);
            if busy.is_finished() {
                break;
            }
        }
        done.store(true, Ordering::Relaxed);
        busy.join().unwrap_or_else(|_| anyhow::bail!("the busy thread panicked"))
    })
    .context("the busy guest")?;
    vm.stop()
}

fn keep_busy(vm: &mut Vmm, done: &AtomicBool) -> Result<()> {
    while !done.load(Ordering::Relaxed) {
        for command in BUSY {
            vm.command(command)?;
        }
    }
    Ok(())
}
