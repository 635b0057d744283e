//! KVM unloaded and loaded again under two daemons: one holds the module, the other loses its probes.

use std::ffi::CStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use rustix::system::delete_module;
use xtask::life::{Modules, Scene};
use xtask::phase::{Identity, Series};

use super::stage::Stage;
use super::tracers::{Daemon, Recorder, wait_until_idle, wait_until_tracing};
use crate::boot;
use crate::vmm::Vmm;

/// A module's last user may go a moment after it has closed its descriptors.
const UNLOAD_PATIENCE: Duration = Duration::from_secs(10);

const KVM: &CStr = c"kvm";
const KVM_AMD: &CStr = c"kvm_amd";

/// A VM from before KVM is unloaded.
const BEFORE: Identity = Identity { name: "before", uuid: "b0000000-0000-0000-0000-000000000001" };
/// A VM that runs while KVM is released and resumed.
const AFTER: Identity = Identity { name: "after", uuid: "b0000000-0000-0000-0000-000000000002" };

/// Unloads KVM in spite of the first daemon, then with its consent, and loads it again.
pub(super) fn unload_and_load(daemons: &mut [Daemon]) -> Result<Modules> {
    let recorder = Recorder::start("reload", "kprobe")?;
    let mut vmm = Vmm::start(BEFORE)?;
    vmm.command("read")?;
    let tracing = about(daemons)?;
    vmm.stop()?;
    unload(KVM_AMD)?;
    let holds = tracing.first().and_then(|series| series.get("mmu_trace_kvm_module_held")) == Some(&1.0);
    let unload_held = if holds { try_unload(KVM) } else { NOT_HELD.to_owned() };
    daemons[0].signal(Signal::USR1)?;
    wait_until_idle(&daemons[..1])?;
    let released = about(daemons)?;
    let unload_released = unload(KVM).map_or_else(|e| format!("{e:#}"), |()| UNLOADED.to_owned());
    wait_until_idle(daemons)?;
    let without = about(daemons)?;
    load()?;
    wait_until_tracing(daemons, &[2, 2])?;
    let again = about(daemons)?;
    let (recorder_exit, recorded) = recorder.end()?;
    Ok(Modules {
        tracing,
        unload_held,
        released,
        unload_released,
        without,
        again,
        resumed: Vec::new(),
        at_once: Vec::new(),
        recorder_exit,
        recorded,
        logs: Vec::new(),
        confined: Vec::new(),
    })
}

/// Counts after the reload; then the first daemon lets go of KVM and takes it again, while a VM runs.
pub(super) fn release_and_resume(stage: &mut Stage) -> Result<Vec<Series>> {
    let mut vmm = stage.start(AFTER)?;
    let name = AFTER.name;
    stage.command(Scene::Reloaded, &mut vmm, name, &["read", "discard", "read"])?;
    stage.daemons[0].signal(Signal::USR1)?;
    wait_until_idle(&stage.daemons[..1])?;
    vmm.command("discard")?;
    vmm.command("read")?;
    stage.daemons[0].signal(Signal::USR2)?;
    wait_until_tracing(&mut stage.daemons, &[3, 2])?;
    let resumed = about(&stage.daemons)?;
    stage.command(Scene::Resumed, &mut vmm, name, &["discard", "read", "host-write 7", "write 8"])?;
    vmm.stop()?;
    Ok(resumed)
}

/// Unloads and loads KVM so quickly that nobody sees it missing.
pub(super) fn replace(daemons: &mut [Daemon]) -> Result<Vec<Series>> {
    daemons[0].signal(Signal::USR1)?;
    wait_until_idle(&daemons[..1])?;
    unload(KVM_AMD)?;
    unload(KVM)?;
    load()?;
    wait_until_tracing(daemons, &[4, 3])?;
    about(daemons)
}

fn about(daemons: &[Daemon]) -> Result<Vec<Series>> {
    daemons.iter().map(Daemon::about_itself).collect()
}

/// Where fentry does not work on KVM's functions, nothing holds it.
const NOT_HELD: &str = "not held";

/// What [`try_unload`] says of success.
const UNLOADED: &str = "unloaded";

fn try_unload(module: &CStr) -> String {
    match delete_module(module, libc::O_NONBLOCK) {
        Ok(()) => UNLOADED.to_owned(),
        Err(error) => error.to_string(),
    }
}

fn unload(module: &CStr) -> Result<()> {
    let start = Instant::now();
    loop {
        let outcome = try_unload(module);
        if outcome == UNLOADED {
            return Ok(());
        }
        if start.elapsed() > UNLOAD_PATIENCE {
            bail!("{} cannot be unloaded: {outcome}", module.to_string_lossy());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn load() -> Result<()> {
    for module in [KVM, KVM_AMD] {
        boot::load_module(&module.to_string_lossy(), c"").context("cannot load kvm again")?;
    }
    Ok(())
}
