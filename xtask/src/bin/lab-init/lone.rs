//! Copies on write of a page that is alone in its page table, and of one that is not.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use xtask::arch::Arch;
use xtask::lone::{Copied, Lone};
use xtask::phase::{Identity, LONE_VMS};

use crate::vmm::Vmm;
use crate::{metrics, oracle, process};

/// Runs it and writes `lone.json`.
pub(crate) fn run() -> Result<()> {
    let guests = LONE_VMS.into_iter().zip(1..);
    let copied = guests.map(|(vm, pages)| copy_first(vm, pages)).collect::<Result<Vec<_>>>()?;
    let has_change_pte = oracle::functions()?.contains_key("change_pte");
    let lone = Lone { arch: Arch::OWN, has_change_pte, copied };
    let path = Path::new(process::OUT).join("lone.json");
    fs::write(&path, serde_json::to_vec_pretty(&lone)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

fn copy_first(vm: Identity, pages: usize) -> Result<Copied> {
    let mut vmm = Vmm::start(vm)?;
    for command in [&format!("new {pages}"), "fill 1", "read", "fork", "read"] {
        vmm.command(command)?;
    }
    let (before, daemon_before) = (oracle::read()?, scrape()?);
    vmm.command("host-write-first 2")?;
    vmm.command("read-first 1")?;
    let (after, daemon_after) = (oracle::read()?, scrape()?);
    vmm.command("join")?;
    vmm.stop()?;
    Ok(Copied {
        pages,
        oracle: oracle::delta(&before.counts, &after.counts),
        daemon: metrics::delta(&daemon_before, &daemon_after),
    })
}

fn scrape() -> Result<xtask::phase::Series> {
    metrics::parse(&metrics::get("/metrics").context("cannot scrape the daemon")?)
}
