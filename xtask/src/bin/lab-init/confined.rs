//! What the tracer has given up: looked at from outside, in `/proc`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use xtask::confined::{Confined, FIELDS, Process, Seen};

use crate::{metrics, process};

/// What the recorder is called whose command this process is.
const RECORDER: &str = "confined-record.json";

/// Looks at the daemon and writes `confined.json`.
pub(crate) fn look_at_daemon(pid: u32) -> Result<()> {
    let mut layers = metrics::parse(&metrics::get("/metrics").context("cannot scrape the daemon")?)?;
    layers.retain(|key, _| key.starts_with("mmu_trace_sandbox{"));
    write(&Seen { landlock_abi: landlock_abi(), daemon: look_at(pid)?, layers }, "confined.json")
}

/// Looks at the recorder that runs this process.
pub(crate) fn look_at_recorder() -> Result<()> {
    write(&look_at(std::os::unix::process::parent_id())?, RECORDER)
}

/// A command and its helpers.
pub(crate) fn look_at(pid: u32) -> Result<Confined> {
    Ok(Confined {
        command: status(pid)?,
        helpers: helpers(pid)?.into_iter().map(status).collect::<Result<_>>()?,
    })
}

fn write(seen: &impl serde::Serialize, file: &str) -> Result<()> {
    let path = Path::new(process::OUT).join(file);
    fs::write(&path, serde_json::to_vec_pretty(seen)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

fn status(pid: u32) -> Result<Process> {
    let folder = format!("/proc/{pid}/task");
    let mut threads = Vec::new();
    for thread in fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))? {
        // A thread of the daemon's pool may have ended.
        let Ok(status) = fs::read_to_string(thread?.path().join("status")) else { continue };
        let fields = status.lines().filter_map(|line| line.split_once(":\t"));
        let fields = fields.filter(|(name, _)| FIELDS.contains(name));
        threads.push(BTreeMap::from_iter(fields.map(|(name, value)| (name.to_owned(), value.to_owned()))));
    }
    Ok(Process { threads })
}

/// The processes that `parent` runs to look at descriptors.
fn helpers(parent: u32) -> Result<Vec<u32>> {
    let pids = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Ok(pids.filter(|&pid| is_helper(pid, parent).unwrap_or(false)).collect())
}

fn is_helper(pid: u32, parent: u32) -> Option<bool> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ppid: u32 = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
    let cmdline = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    Some(ppid == parent && cmdline.split(|byte| *byte == 0).nth(1) == Some(b"descriptors"))
}

/// What `landlock_create_ruleset` says with `LANDLOCK_CREATE_RULESET_VERSION`.
fn landlock_abi() -> i64 {
    const VERSION: u32 = 1;
    // SAFETY: with this flag the first argument is not looked at.
    let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0, VERSION) };
    abi.max(0)
}
