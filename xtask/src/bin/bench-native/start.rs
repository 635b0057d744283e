//! What it takes to start: reading the kernel's types and symbols, creating the maps, and the kernel's verifier.
//!
//! Where no program may be attached, the verifier is asked about one that holds the bodies of all: what an
//! instruction that it walks costs here. How many it walks for those that are attached is counted in the
//! lab.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use mmu_trace::{
    bpf::{BackendChoice, Live, Options},
    memory,
};
use xtask::figure::{Figure, median};

/// The argument that makes this program start a tracer and say what that took.
pub(crate) const START: &str = "start-once";
const ROUNDS: usize = 5;

const OWN: &str = "median of 5: user and system time of a process from exec until its maps exist and every kernel \
    type, symbol and caller is known; nothing is attached";
const VERIFIER: &str = "median of 5: CPU time of BPF_PROG_LOAD of the program that holds the bodies of all probes, by \
    the instructions that the verifier walked";

/// Measures.
pub(crate) fn measure() -> Result<Vec<Figure>> {
    let mut own_ms = Vec::new();
    let mut ns_per_instruction = Vec::new();
    for _ in 0..ROUNDS {
        let output = Command::new(std::env::current_exe()?).arg(START).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let [own, verified]: [f64; 2] = serde_json::from_slice(&output.stdout).context("two numbers")?;
        own_ms.push(own);
        ns_per_instruction.push(verified);
    }
    let middle = |values: &[f64]| median(values).unwrap_or(f64::NAN);
    Ok(vec![
        Figure::new("start/own CPU without the verifier", middle(&own_ms), "ms", OWN),
        Figure::new("start/verifier", middle(&ns_per_instruction), "ns an instruction", VERIFIER),
    ])
}

/// Starts a tracer without hooks, and prints what it took.
pub(crate) fn start_once() -> Result<()> {
    memory::keep_little();
    let options =
        Options { backend: BackendChoice::Auto, recording: false, vm_histograms: false, max_vms: 1_000 };
    let mut live = Live::unattached(options)?;
    let started_ms = cpu_ms();
    let driver = live.driver("driver")?;
    let verifier_ms = cpu_ms() - started_ms;
    let instructions = driver.verified_instructions()?;
    ensure!(instructions > 0, "the kernel does not say how many instructions its verifier walked");
    println!("[{started_ms}, {}]", verifier_ms * 1e6 / f64::from(instructions));
    Ok(())
}

/// User and system time of this process, milliseconds.
fn cpu_ms() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    now.tv_sec as f64 * 1e3 + now.tv_nsec as f64 / 1e6
}
