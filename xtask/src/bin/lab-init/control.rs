//! The positive control: the same workload on a kernel whose `change_pte` has something to change.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::system::{delete_module, finit_module};
use xtask::phase::CONTROL_VM;

use crate::{oracle, workload};

/// The module, in the initramfs.
const MODULE: &str = "/modules/control";
/// How often the module kept KVM from tearing a mapping down.
const SUPPRESSED: &str = "/sys/module/mmu_trace_control/parameters/suppressed";

/// Runs the phases with the module in place.
pub(crate) fn run_workload() -> Result<()> {
    let module = File::open(MODULE).with_context(|| format!("cannot open {MODULE}"))?;
    finit_module(&module, c"", 0).context("cannot load the control module")?;
    let ran = workload::run_once(CONTROL_VM).and_then(|run| workload::write(&run, "control-phases.json"));
    let removed = delete_module(c"mmu_trace_control", 0).context("cannot unload the control module");
    ran.and(removed)
}

/// The module's count, if it is loaded.
pub(crate) fn suppressed() -> Result<Option<i64>> {
    let path = Path::new(SUPPRESSED);
    if path.exists() { oracle::number(path).map(Some) } else { Ok(None) }
}
