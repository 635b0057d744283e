//! A recording: the live tracer on one side, the capture on the other.
//!
//! The figures of a capture come from snapshots of the kernel's counters, which lose nothing when
//! the event stream does. One is written at the start, one now and then, so that a capture which
//! is cut short still says most of the truth, and one at the end.

mod addresses;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use mmu_trace_ebpf::{
    abi::{Event, FIRST_SLOT, UNATTRIBUTED},
    kind::Gap,
};

pub use addresses::Addresses;

use crate::{
    bpf::Live,
    capture::{EndReason, Meta, WriteError, Writer},
    model::{Snapshot, VmIdentity},
};

/// How often to call [`Recording::poll`]; the ring buffer holds a second of the busiest merge.
pub const POLL_EVERY: Duration = Duration::from_millis(50);
/// How often a snapshot is written: what a crash may cost.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(2);
/// How often new VMs are asked who they are.
const IDENTIFY_EVERY: Duration = Duration::from_millis(200);
/// Events fetched and written together: 1 MiB of memory, however many there are.
const BATCH: usize = 16_384;
/// Most batches fetched at a time: what a full ring buffer holds. A host that makes events faster than they
/// are written must not keep the recorder from snapshots, signals and its end.
const MAX_BATCHES: usize = 16;
/// Events after which the next are fetched at once: half of a full ring buffer.
const BEHIND: usize = MAX_BATCHES * BATCH / 2;

/// What is wanted of a recording.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Names, UUIDs or process ids of VMs; empty: all.
    pub vms: Vec<String>,
    /// The command recorded, for the capture's head; empty: none.
    pub command: Vec<String>,
    /// Whether kernel addresses are wanted.
    pub addresses: Addresses,
}

/// How far a recording is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Time since the start.
    pub elapsed: Duration,
    /// Events written.
    pub events: u64,
    /// Events lost to a full ring buffer, up to the last snapshot.
    pub lost: u64,
    /// VMs seen.
    pub vms: usize,
    /// Whether there were so many events that the next ones should be fetched at once.
    pub is_behind: bool,
}

/// Why a recording failed.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The capture cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The tracer failed.
    #[error("cannot read the tracer's counters")]
    Trace(#[source] anyhow::Error),
}

/// A recording under way.
pub struct Recording {
    live: Live,
    writer: Writer,
    path: PathBuf,
    wanted: Vec<String>,
    addresses: Addresses,
    started: Instant,
    last_snapshot: Instant,
    last_identified: Instant,
    /// Events lost until the last snapshot.
    lost: u64,
    batch: Vec<Event>,
}

/// A finished recording.
pub struct Recorded {
    /// Where the capture is.
    pub path: PathBuf,
    /// The last snapshot.
    pub snapshot: Snapshot,
    /// Events written.
    pub events: u64,
}

impl Recording {
    /// Begins to write what `live` traces.
    ///
    /// # Errors
    /// The capture cannot be created, or the counters cannot be read.
    pub fn start(live: Live, path: &Path, wanted: Wanted) -> Result<Self, RecordError> {
        let meta = Meta {
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            host: live.host().clone(),
            start_unix_ns: live.start_unix_ns(),
            start_monotonic_ns: live.start_monotonic_ns(),
            hooks: live.hooks().to_vec(),
            command: wanted.command,
            vm_filter: wanted.vms.clone(),
        };
        let now = Instant::now();
        let mut recording = Self {
            writer: Writer::create(path, &meta)?,
            live,
            path: path.to_owned(),
            wanted: wanted.vms,
            addresses: wanted.addresses,
            started: now,
            last_snapshot: now,
            last_identified: now,
            lost: 0,
            batch: Vec::new(),
        };
        recording.write_snapshot()?;
        Ok(recording)
    }

    /// Fetches what came since the last call. Call it every [`POLL_EVERY`], and again at once while it is behind.
    ///
    /// # Errors
    /// The capture cannot be written any further; what is in it stays readable.
    pub fn poll(&mut self) -> Result<Progress, RecordError> {
        if self.last_identified.elapsed() >= IDENTIFY_EVERY {
            self.live.identify_new_vms().map_err(RecordError::Trace)?;
            self.last_identified = Instant::now();
        }
        let is_behind = self.drain()? >= BEHIND;
        if self.last_snapshot.elapsed() >= SNAPSHOT_EVERY {
            self.write_snapshot()?;
        }
        Ok(Progress {
            elapsed: self.started.elapsed(),
            events: self.writer.events_written(),
            lost: self.lost,
            vms: self.live.identities().len(),
            is_behind,
        })
    }

    /// Ends the recording: fetches the rest, writes the last snapshot and the end mark.
    ///
    /// # Errors
    /// As for [`Recording::poll`].
    pub fn finish(mut self, reason: EndReason) -> Result<Recorded, RecordError> {
        self.drain()?;
        let snapshot = self.write_snapshot()?;
        let end = self.writer.finish(reason, self.lost)?;
        Ok(Recorded { path: self.path, snapshot, events: end.events_written })
    }

    /// Fetches what is in the ring buffer now, and perhaps some of what comes meanwhile; how much it was.
    fn drain(&mut self) -> Result<usize, RecordError> {
        let mut total = 0;
        for _ in 0..MAX_BATCHES {
            self.batch.clear();
            let n = self.live.drain(BATCH, |event| self.batch.push(event));
            self.keep_wanted()?;
            if self.addresses == Addresses::Concealed {
                self.batch.iter_mut().for_each(addresses::conceal);
            }
            self.writer.write_events(&self.batch)?;
            total += n;
            if n < BATCH {
                break;
            }
        }
        Ok(total)
    }

    /// Leaves the events of the wanted VMs in the batch. VMs that are new are asked who they are.
    fn keep_wanted(&mut self) -> Result<(), RecordError> {
        if self.wanted.is_empty() {
            return Ok(());
        }
        let slots: BTreeSet<u32> = self.batch.iter().map(|event| event.slot).collect();
        if slots.range(FIRST_SLOT..).any(|slot| !self.live.identities().contains_key(slot)) {
            self.live.identify_new_vms().map_err(RecordError::Trace)?;
        }
        let wanted: BTreeSet<u32> = slots.into_iter().filter(|&slot| self.is_wanted_slot(slot)).collect();
        self.batch.retain(|event| wanted.contains(&event.slot));
        Ok(())
    }

    fn write_snapshot(&mut self) -> Result<Snapshot, RecordError> {
        let mut snapshot = self.live.snapshot().map_err(RecordError::Trace)?;
        if !self.wanted.is_empty() {
            snapshot.vms.retain(|vm| is_wanted(&self.wanted, &vm.identity));
        }
        self.lost = snapshot.quality.gap(Gap::LostEvent);
        self.writer.write_snapshot(&snapshot)?;
        self.writer.flush()?;
        self.last_snapshot = Instant::now();
        Ok(snapshot)
    }

    fn is_wanted_slot(&self, slot: u32) -> bool {
        let identity = self.live.identities().get(&slot);
        slot != UNATTRIBUTED && identity.is_some_and(|identity| is_wanted(&self.wanted, identity))
    }
}

/// Whether a VM is among the wanted ones, by name, UUID or process id.
#[must_use]
pub fn is_wanted(wanted: &[String], identity: &VmIdentity) -> bool {
    let pid = identity.pid.to_string();
    wanted.iter().any(|w| *w == identity.name || Some(w) == identity.uuid.as_ref() || *w == pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_is_wanted_by_name_uuid_or_pid() {
        let vm = VmIdentity { name: "web".into(), uuid: Some("1-2".into()), pid: 7, ..VmIdentity::default() };
        for wanted in ["web", "1-2", "7"] {
            assert!(is_wanted(&[wanted.to_owned()], &vm));
        }
        assert!(!is_wanted(&["we".to_owned()], &vm));
    }
}
