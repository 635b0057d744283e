//! The phases: prepare, read all counters, act, read them again.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use xtask::arch::Arch;
use xtask::phase::{Identity, LAB_VM, Mmu, PLAN, Phase, PhaseKind, Run, Series};

use crate::vmm::{N_OUTSIDE_PAGES, N_PAGES, Vmm};
use crate::{confined, ksm, metrics, oracle, process};

/// How long the guest reads while ksmd merges: longer than a merge takes to settle.
const LIVE_READ: &str = "read-for 1500";

/// The pause between phases of an endless workload, so that a person can follow its graphs.
const PAUSE: Duration = Duration::from_millis(500);

/// Runs the phases once and writes `phases.json`.
pub(crate) fn run() -> Result<()> {
    write(&run_once(LAB_VM)?, "phases.json")
}

/// Writes the record of a run.
pub(crate) fn write(run: &Run, file: &str) -> Result<()> {
    let path = Path::new(process::OUT).join(file);
    fs::write(&path, serde_json::to_vec_pretty(run)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Runs the phases again and again on one VM, without counting.
pub(crate) fn run_forever() -> Result<()> {
    let mut vmm = Vmm::start(LAB_VM)?;
    vmm.command("fill 1")?;
    loop {
        for kind in PLAN {
            prepare(*kind, &mut vmm)?;
            act(*kind, &mut vmm)?;
            std::thread::sleep(PAUSE);
        }
    }
}

/// Runs the phases once on a VM of that name.
pub(crate) fn run_once(identity: Identity) -> Result<Run> {
    ksm::set_mode(ksm::Mode::Unmerge)?;
    ksm::set_mode(ksm::Mode::Stop)?;
    let first = oracle::read()?;
    let mut vmm = Vmm::start(identity)?;
    vmm.command("fill 1")?;
    let mut phases = Vec::new();
    for (index, kind) in PLAN.iter().enumerate() {
        phases.push(run_phase(*kind, &mut vmm)?);
        eprintln!("lab: phase {} of {}: {}", index + 1, PLAN.len(), kind.label());
    }
    let at_end = oracle::read()?;
    if identity == LAB_VM {
        record_live_views()?;
    }
    vmm.stop()?;
    let last = oracle::read()?;
    let kvm_at_end = oracle::delta(&first.counts, &at_end.counts);
    Ok(Run {
        kernel: process::kernel_release()?,
        arch: Arch::OWN,
        mmu: (Arch::OWN == Arch::Amd64).then(kvm_mmu),
        functions: oracle::functions()?,
        pages: N_PAGES as i64,
        outside_pages: N_OUTSIDE_PAGES as i64,
        phases,
        totals: oracle::delta(&first.counts, &last.counts),
        kvm_at_end: kvm_at_end.into_iter().filter(|(name, _)| name.starts_with("kvm:")).collect(),
        oracle_misses: last.misses,
    })
}

/// The MMU of new VMs. Kernels without the parameter have the rmap MMU only.
fn kvm_mmu() -> Mmu {
    match fs::read_to_string("/sys/module/kvm/parameters/tdp_mmu") {
        Ok(value) if value.trim() == "Y" => Mmu::Tdp,
        _ => Mmu::Rmap,
    }
}

/// What only shows while the VM lives: the list of VMs, the daemon's series of this VM, and what `top` says.
fn record_live_views() -> Result<()> {
    if !process::has_tracer() {
        return Ok(());
    }
    let out = Path::new(process::OUT);
    let vms = process::mmu_trace(&["vms"]).output().context("cannot run mmu-trace vms")?;
    fs::write(out.join("vms.txt"), [vms.stdout, vms.stderr].concat())?;
    fs::write(out.join("metrics.txt"), metrics::get("/metrics")?)?;
    confined::look_at_recorder()?;
    let top = process::mmu_trace(&["top", "--once"]).output().context("cannot run mmu-trace top")?;
    fs::write(out.join("top.txt"), [top.stdout, top.stderr].concat())?;
    Ok(())
}

fn run_phase(kind: PhaseKind, vmm: &mut Vmm) -> Result<Phase> {
    let context = || format!("phase {}", kind.label());
    prepare(kind, vmm).with_context(context)?;
    let daemon_before = scrape()?;
    let before = oracle::read()?;
    let start = Instant::now();
    act(kind, vmm).with_context(context)?;
    let seconds = start.elapsed().as_secs_f64();
    let after = oracle::read()?;
    let daemon_after = scrape()?;
    Ok(Phase {
        kind,
        seconds,
        oracle: oracle::delta(&before.counts, &after.counts),
        daemon: daemon_before.zip(daemon_after).map(|(before, after)| metrics::delta(&before, &after)),
    })
}

fn scrape() -> Result<Option<Series>> {
    if !process::has_tracer() {
        return Ok(None);
    }
    let text = metrics::get("/metrics").context("cannot scrape the daemon")?;
    metrics::parse(&text).context("cannot read the daemon's metrics").map(Some)
}

/// What a phase needs and must not count. Nothing in here changes a PTE that the guest has mapped.
fn prepare(kind: PhaseKind, vmm: &mut Vmm) -> Result<()> {
    match kind {
        PhaseKind::Merge | PhaseKind::LiveMerge => {
            // Also forgets the stable node and the checksums of an earlier merge.
            ksm::set_mode(ksm::Mode::Unmerge)?;
            ksm::set_mode(ksm::Mode::Stop)?;
            vmm.command("mergeable")
        }
        PhaseKind::OutsideMerge => {
            ksm::set_mode(ksm::Mode::Unmerge)?;
            ksm::set_mode(ksm::Mode::Stop)?;
            vmm.command("outside-fill 77")?;
            vmm.command("outside-mergeable")
        }
        PhaseKind::Fork => vmm.command("outside-unmergeable"),
        _ => Ok(()),
    }
}

fn act(kind: PhaseKind, vmm: &mut Vmm) -> Result<()> {
    match kind {
        PhaseKind::FirstTouch
        | PhaseKind::ReadAfterMerge
        | PhaseKind::ReadAfterGuestWrite
        | PhaseKind::ReadAfterHostWrite
        | PhaseKind::ReadAfterUnmappedWrite
        | PhaseKind::ReadAfterUnmerge
        | PhaseKind::ReadAfterFork
        | PhaseKind::ReadAfterProtect
        | PhaseKind::ReadAfterDiscard => vmm.command("read"),
        PhaseKind::Merge => ksm::merge(N_PAGES as i64),
        PhaseKind::GuestWrite => vmm.command("write 2"),
        PhaseKind::HostWriteMapped => vmm.command("host-write 3"),
        PhaseKind::HostWriteUnmapped => vmm.command("host-write 4"),
        PhaseKind::UnmergeRun => {
            ksm::set_mode(ksm::Mode::Unmerge)?;
            ksm::set_mode(ksm::Mode::Stop)
        }
        PhaseKind::UnmergeMadvise => vmm.command("unmergeable"),
        PhaseKind::OutsideMerge => ksm::merge(N_OUTSIDE_PAGES as i64),
        PhaseKind::OutsideWrite => vmm.command("outside-write 78"),
        PhaseKind::Fork => vmm.command("fork"),
        PhaseKind::HostWriteAfterFork => {
            vmm.command("host-write 5")?;
            vmm.command("join")
        }
        PhaseKind::Protect => vmm.command("protect"),
        PhaseKind::Discard => vmm.command("discard"),
        PhaseKind::ZeroPageWrite => vmm.command("write 6"),
        PhaseKind::LiveMerge => {
            vmm.send(LIVE_READ)?;
            let merged = ksm::merge(N_PAGES as i64);
            vmm.answer()?;
            merged
        }
    }
}
