//! VMs in several processes and in one, processes without a VM, and memory operations under guests.

use anyhow::Result;
use xtask::life::{NOBODY, Scene};
use xtask::phase::Identity;

use super::stage::Stage;
use crate::ksm;
use crate::vm::Pages;
use crate::vmm::{N_OUTSIDE_PAGES, N_PAGES};

const ONE: Identity = Identity { name: "one", uuid: "a0000000-0000-0000-0000-000000000001" };
const TWO: Identity = Identity { name: "two", uuid: "a0000000-0000-0000-0000-000000000002" };
const TWINS: Identity = Identity { name: "twins", uuid: "a0000000-0000-0000-0000-000000000003" };
const SHARED: Identity = Identity { name: "shared", uuid: "a0000000-0000-0000-0000-000000000004" };
const FORMER: Identity = Identity { name: "former", uuid: "a0000000-0000-0000-0000-000000000005" };
const HUGE: Identity = Identity { name: "huge", uuid: "a0000000-0000-0000-0000-000000000006" };
const RACER: Identity = Identity { name: "racer", uuid: "a0000000-0000-0000-0000-000000000007" };

/// All scenes.
pub(super) fn play(stage: &mut Stage) -> Result<()> {
    two_processes(stage)?;
    one_process(stage)?;
    shared_memory(stage)?;
    former_vm(stage)?;
    no_vm(stage)?;
    nested(stage)?;
    races(stage)
}

fn two_processes(stage: &mut Stage) -> Result<()> {
    const SCENE: Scene = Scene::TwoProcesses;
    let mut one = stage.start(ONE)?;
    let mut two = stage.start(TWO)?;
    stage.list("two processes")?;
    for vmm in [&mut one, &mut two] {
        vmm.command("fill 1")?;
    }
    stage.command(SCENE, &mut one, ONE.name, &["read"])?;
    stage.command(SCENE, &mut two, TWO.name, &["read", "discard", "read"])?;
    for vmm in [&mut one, &mut two] {
        vmm.command("fill 2")?;
        vmm.command("mergeable")?;
    }
    stage.act(SCENE, "ksmd merges both", None, || merge(2 * N_PAGES))?;
    stage.command(SCENE, &mut one, ONE.name, &["read", "host-write 3", "read"])?;
    stage.command(SCENE, &mut two, TWO.name, &["write 4", "read"])?;
    one.stop()?;
    stage.command(SCENE, &mut two, TWO.name, &["protect", "read"])?;
    two.stop()
}

/// The second of two VMs ends first, then, of another two, the first.
fn one_process(stage: &mut Stage) -> Result<()> {
    const SCENE: Scene = Scene::OneProcess;
    let name = TWINS.name;
    let new = format!("new {N_PAGES}");
    let mut vmm = stage.start(TWINS)?;
    vmm.command("fill 5")?;
    stage.command(SCENE, &mut vmm, name, &["read", "discard", &new, "select 0", "read"])?;
    stage.list("two VMs in one process")?;
    vmm.command("fill 5")?;
    vmm.command("mergeable")?;
    vmm.command("select 1")?;
    vmm.command("fill 5")?;
    vmm.command("mergeable")?;
    stage.command(SCENE, &mut vmm, name, &["select 1", "read"])?;
    stage.act(SCENE, "ksmd merges both", Some(name), || merge(2 * N_PAGES))?;
    stage.command(SCENE, &mut vmm, name, &["select 0", "read", "select 1", "write 6"])?;
    vmm.command("end")?;
    // The daemons see twice that a VM has ended: an entry that ended with it would now be gone.
    stage.scrape()?;
    stage.scrape()?;
    vmm.command("select 0")?;
    stage.command(SCENE, &mut vmm, name, &["discard", "read"])?;
    stage.command(SCENE, &mut vmm, name, &[&new, "read"])?;
    vmm.command("select 0")?;
    vmm.command("end")?;
    stage.scrape()?;
    stage.scrape()?;
    vmm.command("select 2")?;
    stage.command(SCENE, &mut vmm, name, &["discard", "read", "host-write 7"])?;
    stage.list("one VM left")?;
    vmm.stop()
}

fn shared_memory(stage: &mut Stage) -> Result<()> {
    const SCENE: Scene = Scene::SharedMemory;
    let name = SHARED.name;
    let mut vmm = stage.start(SHARED)?;
    vmm.command("fill 8")?;
    vmm.command("new-shared")?;
    stage.command(SCENE, &mut vmm, name, &["select 0", "read", "select 1", "read"])?;
    vmm.command("mergeable")?;
    stage.act(SCENE, "ksmd merges", Some(name), || merge(N_PAGES))?;
    stage.command(SCENE, &mut vmm, name, &["select 1", "read", "select 0", "read"])?;
    stage.command(SCENE, &mut vmm, name, &["host-write 9"])?;
    stage.command(SCENE, &mut vmm, name, &["discard", "read", "select 0", "write 1"])?;
    vmm.stop()
}

/// The notifier goes with the VM, the kernel's readiness to call notifiers only with the process.
fn former_vm(stage: &mut Stage) -> Result<()> {
    let mut vmm = stage.start(FORMER)?;
    vmm.command("outside-fill 9")?;
    vmm.command("end")?;
    stage.scrape()?;
    stage.scrape()?;
    stage.list("a VM that ended before its process")?;
    vmm.command("outside-mergeable")?;
    stage.act(Scene::FormerVm, "ksmd merges", Some(NOBODY), || merge(N_OUTSIDE_PAGES))?;
    stage.command(
        Scene::FormerVm,
        &mut vmm,
        NOBODY,
        &["outside-write 10", "fork", "outside-write 11", "join"],
    )?;
    vmm.stop()
}

/// This process has no VM and never had one.
fn no_vm(stage: &mut Stage) -> Result<()> {
    let pages = Pages::map(N_OUTSIDE_PAGES, libc::MAP_PRIVATE)?;
    pages.fill(12);
    forget_merges()?;
    pages.advise(libc::MADV_MERGEABLE)?;
    stage.act(Scene::NoVm, "ksmd merges", Some(NOBODY), || ksm::merge(N_OUTSIDE_PAGES as i64))?;
    stage.act(Scene::NoVm, "write, unmerge, protect, discard", Some(NOBODY), || {
        pages.write_each(13);
        pages.advise(libc::MADV_UNMERGEABLE)?;
        pages.protect(libc::PROT_READ)?;
        pages.protect(libc::PROT_READ | libc::PROT_WRITE)?;
        pages.advise(libc::MADV_DONTNEED)
    })
}

fn nested(stage: &mut Stage) -> Result<()> {
    const SCENE: Scene = Scene::Nested;
    let name = HUGE.name;
    let mut vmm = stage.start(HUGE)?;
    vmm.command(&format!("new-aligned {N_PAGES}"))?;
    vmm.command("fill 1")?;
    stage.command(SCENE, &mut vmm, name, &["collapse"])?;
    stage.command(SCENE, &mut vmm, name, &["read", "protect-part", "read"])?;
    stage.command(SCENE, &mut vmm, name, &["collapse", "write 2", "discard-part", "read"])?;
    stage.command(SCENE, &mut vmm, name, &["fork", "write 3", "join"])?;
    vmm.stop()
}

fn races(stage: &mut Stage) -> Result<()> {
    const SCENE: Scene = Scene::Race;
    let name = RACER.name;
    let mut vmm = stage.start(RACER)?;
    vmm.command(&format!("new-aligned {N_PAGES}"))?;
    vmm.command("fill 1")?;
    for race in ["race thp 3000", "race unmap 3000", "race fork 2000", "race userfault 3000"] {
        stage.command(SCENE, &mut vmm, name, &[race])?;
    }
    vmm.command("mergeable")?;
    stage.act(SCENE, "ksmd merges while pages are taken away", Some(name), || {
        ksm::set_mode(ksm::Mode::Run)?;
        let raced = vmm.command("race unmap 3000");
        ksm::set_mode(ksm::Mode::Unmerge)?;
        ksm::set_mode(ksm::Mode::Stop)?;
        raced
    })?;
    vmm.stop()
}

/// Merges `pages` that are mergeable and not merged yet.
fn merge(pages: usize) -> Result<()> {
    forget_merges()?;
    ksm::merge(pages as i64)
}

/// Also forgets the stable node and the checksums of an earlier merge.
fn forget_merges() -> Result<()> {
    ksm::set_mode(ksm::Mode::Unmerge)?;
    ksm::set_mode(ksm::Mode::Stop)
}
