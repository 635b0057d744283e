//! A capture as a source of snapshots, so that Prometheus and dashboards can be tried without KVM.
//!
//! ```text
//!   still:    last snapshot, for ever
//!   playing:  first --spacing / speed--> second --> ... --> last, for ever
//! ```
//!
//! What is played is read when it is asked for: a capture need not fit into memory.

use std::{
    fs::File,
    path::Path,
    time::{Duration, Instant},
};

use super::Source;
use crate::{
    capture::{Item, ReadError, Reader},
    model::Snapshot,
};

/// The figures of a capture.
pub struct Replay {
    current: Snapshot,
    player: Option<Player>,
}

/// What is still to come.
struct Player {
    reader: Reader<File>,
    next: Option<Box<Snapshot>>,
    /// When it began.
    started: Instant,
    /// Where it began, in seconds of the capture.
    origin: f64,
    speed: f64,
}

impl Replay {
    /// Nothing but `snapshot`.
    #[must_use]
    pub fn still(snapshot: Snapshot) -> Self {
        Self { current: snapshot, player: None }
    }

    /// The snapshots of the capture at `path` one after another, `speed` times as fast as they were taken,
    /// from now on. `None` if there is none.
    ///
    /// # Errors
    /// As [`Reader::open`]. Where the capture is damaged behind its beginning, what can be read is played.
    pub fn playing(path: &Path, speed: f64) -> Result<Option<Self>, ReadError> {
        let mut reader = Reader::open(path)?;
        let Some(first) = next_snapshot(&mut reader, &mut None) else { return Ok(None) };
        let origin = first.window.seconds;
        let player = Player { reader, next: None, started: Instant::now(), origin, speed };
        let mut replay = Self { current: *first, player: Some(player) };
        replay.prefetch();
        Ok(Some(replay))
    }

    /// Goes on to the last snapshot that was taken up to `elapsed` after the first one.
    fn advance(&mut self, elapsed: Duration) {
        while let Some(player) = &mut self.player {
            let position = player.origin + elapsed.as_secs_f64() * player.speed;
            match player.next.take_if(|next| next.window.seconds <= position) {
                Some(next) => self.current = *next,
                None => return,
            }
            self.prefetch();
        }
    }

    /// Reads the snapshot behind the current one; without one, the current one stays.
    fn prefetch(&mut self) {
        if let Some(player) = &mut self.player {
            player.next = next_snapshot(&mut player.reader, &mut Some(&mut self.current));
            if player.next.is_none() {
                self.player = None;
            }
        }
    }
}

/// The next snapshot that can be read. If one may be missing before it, `current` is told.
fn next_snapshot(reader: &mut Reader<File>, current: &mut Option<&mut Snapshot>) -> Option<Box<Snapshot>> {
    let mut tell = || {
        if let Some(current) = current {
            current.quality.truncated = true;
        }
    };
    for item in &mut *reader {
        match item {
            Ok(Item::Snapshot(snapshot)) => return Some(snapshot),
            Ok(Item::Damage(_)) | Err(_) => tell(),
            Ok(Item::Meta(_) | Item::Events(_) | Item::End(_)) => {}
        }
    }
    if reader.truncated().is_some() {
        tell();
    }
    None
}

impl Source for Replay {
    fn snapshot(&mut self) -> anyhow::Result<Snapshot> {
        if let Some(player) = &self.player {
            let elapsed = player.started.elapsed();
            self.advance(elapsed);
        }
        Ok(self.current.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        capture::{EndReason, Meta, Writer},
        model::{Counters, Histograms, Host, Quality, Window},
    };

    fn host() -> Host {
        Host { kernel: "6.1".to_owned(), arch: "x86_64".to_owned(), has_change_pte: true }
    }

    fn snapshot(seconds: f64) -> Snapshot {
        Snapshot {
            host: host(),
            window: Window { start_unix_ns: 1, seconds },
            quality: Quality::default(),
            vms: Vec::new(),
            unattributed: Counters::default(),
            histograms: Histograms::default(),
        }
    }

    /// A capture with snapshots after these seconds, with or without an end mark.
    fn capture(dir: &Path, seconds: &[f64], end: Option<EndReason>) -> std::path::PathBuf {
        let path = dir.join("c.mmt");
        let meta = Meta {
            tool_version: String::new(),
            host: host(),
            start_unix_ns: 1,
            start_monotonic_ns: 1,
            hooks: Vec::new(),
            command: Vec::new(),
            vm_filter: Vec::new(),
        };
        let mut writer = Writer::create(&path, &meta).unwrap();
        for &seconds in seconds {
            writer.write_snapshot(&snapshot(seconds)).unwrap();
        }
        if let Some(reason) = end {
            writer.finish(reason, 0).unwrap();
        }
        path
    }

    #[test]
    fn snapshots_come_with_their_spacing_and_the_last_one_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = capture(dir.path(), &[0.5, 1.5, 4.5, 5.5], Some(EndReason::Duration));
        let mut replay = Replay::playing(&path, 2.0).unwrap().unwrap();
        for (elapsed_ms, expected) in
            [(0, 0.5), (400, 0.5), (500, 1.5), (1_999, 1.5), (2_600, 5.5), (9_000, 5.5)]
        {
            replay.advance(Duration::from_millis(elapsed_ms));
            assert_eq!(replay.current.window.seconds, expected, "after {elapsed_ms} ms");
        }
        assert!(replay.player.is_none() && !replay.current.quality.truncated);
    }

    #[test]
    fn where_a_later_snapshot_may_be_missing_the_last_one_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = capture(dir.path(), &[0.0, 1.0], None);
        let mut replay = Replay::playing(&path, 1.0).unwrap().unwrap();
        assert!(!replay.snapshot().unwrap().quality.truncated);
        replay.advance(Duration::from_secs(1));
        assert!(replay.snapshot().unwrap().quality.truncated);
    }

    #[test]
    fn without_a_snapshot_there_is_nothing_to_play() {
        let dir = tempfile::tempdir().unwrap();
        let path = capture(dir.path(), &[], Some(EndReason::Duration));
        assert!(Replay::playing(&path, 1.0).unwrap().is_none());
    }
}
