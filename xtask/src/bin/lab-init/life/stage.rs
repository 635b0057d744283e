//! Acts: everything is read, something is done, everything is read again.

use std::time::Instant;

use anyhow::{Context, Result};
use xtask::life::{Act, Listing, Scene};
use xtask::phase::{Identity, Series};

use super::tracers::Daemon;
use crate::process::mmu_trace;
use crate::vmm::Vmm;
use crate::{metrics, oracle};

/// Who looks on, and what was seen.
pub(super) struct Stage {
    pub(super) daemons: Vec<Daemon>,
    pub(super) acts: Vec<Act>,
    pub(super) listings: Vec<Listing>,
}

impl Stage {
    pub(super) fn new(daemons: Vec<Daemon>) -> Self {
        Self { daemons, acts: Vec::new(), listings: Vec::new() }
    }

    /// Starts a VM, and lets the daemons see who it is.
    pub(super) fn start(&self, vm: Identity) -> Result<Vmm> {
        let vmm = Vmm::start(vm).with_context(|| format!("the VM {}", vm.name))?;
        self.scrape()?;
        Ok(vmm)
    }

    /// Everything that the daemons expose now.
    pub(super) fn scrape(&self) -> Result<Vec<Series>> {
        self.daemons.iter().map(Daemon::scrape).collect()
    }

    /// Does something that concerns `domain` alone, or several if it is `None`.
    pub(super) fn act(
        &mut self,
        scene: Scene,
        what: &str,
        domain: Option<&str>,
        act: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        eprintln!("lab: life: {}: {what}", scene.label());
        let daemons_before = self.scrape()?;
        let before = oracle::read()?;
        let start = Instant::now();
        act().with_context(|| format!("{}: {what}", scene.label()))?;
        let seconds = start.elapsed().as_secs_f64();
        let after = oracle::read()?;
        let daemons_after = self.scrape()?;
        let moved = daemons_before.iter().zip(&daemons_after).map(|(b, a)| metrics::delta(b, a)).collect();
        self.acts.push(Act {
            scene,
            what: what.to_owned(),
            domain: domain.map(str::to_owned),
            seconds,
            oracle: oracle::delta(&before.counts, &after.counts),
            daemons: moved,
        });
        Ok(())
    }

    /// Has one VMM execute commands, which concern `domain` alone.
    pub(super) fn command(
        &mut self,
        scene: Scene,
        vmm: &mut Vmm,
        domain: &str,
        commands: &[&str],
    ) -> Result<()> {
        self.act(scene, &commands.join(", "), Some(domain), || {
            commands.iter().try_for_each(|command| vmm.command(command))
        })
    }

    /// Keeps the list of VMs.
    pub(super) fn list(&mut self, when: &str) -> Result<()> {
        let output = mmu_trace(&["vms", "--format", "json"]).output().context("cannot run mmu-trace vms")?;
        let vms = serde_json::from_slice(&output.stdout).context("the list of VMs is no JSON")?;
        self.listings.push(Listing { when: when.to_owned(), vms });
        Ok(())
    }
}
