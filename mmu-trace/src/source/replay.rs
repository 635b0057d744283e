//! A capture as a source of snapshots, so that Prometheus and dashboards can be tried without KVM.
//!
//! ```text
//!   still:     last snapshot, for ever
//!   playing:   first --spacing / speed--> second --> ... --> last, for ever
//!   stepping:  first --each call--------> second --> ... --> last, for ever
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
    capture::{Events, Item, ReadError, Reader},
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
    pace: Pace,
}

/// When it is the next one's turn.
#[derive(Clone, Copy)]
enum Pace {
    /// With the time since `started`, where the capture was at `origin` seconds.
    Time { started: Instant, origin: f64, speed: f64 },
    /// With each call but the first.
    Calls { is_first: bool },
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
        let started = Instant::now();
        Self::open(path, |first| Pace::Time { started, origin: first.window.seconds, speed })
    }

    /// The snapshots of the capture at `path` one after another, one for each call. `None` if there is none.
    ///
    /// # Errors
    /// As [`Replay::playing`].
    pub fn stepping(path: &Path) -> Result<Option<Self>, ReadError> {
        Self::open(path, |_| Pace::Calls { is_first: true })
    }

    fn open(path: &Path, pace: impl FnOnce(&Snapshot) -> Pace) -> Result<Option<Self>, ReadError> {
        let mut reader = Reader::open(path, Events::Count)?;
        // What is missing before the first one is no matter of its figures.
        let Some(first) = next_snapshot(&mut reader, &mut false) else { return Ok(None) };
        let player = Player { reader, next: None, pace: pace(&first) };
        let mut replay = Self { current: *first, player: Some(player) };
        replay.prefetch();
        Ok(Some(replay))
    }

    /// Goes on to the last snapshot that was taken up to `elapsed` after the first one.
    fn advance(&mut self, elapsed: Duration, origin: f64, speed: f64) {
        let position = origin + elapsed.as_secs_f64() * speed;
        while self.step_if(|next| next.window.seconds <= position) {}
    }

    /// Goes on to the next snapshot, if there is one and it is due.
    fn step_if(&mut self, is_due: impl Fn(&Snapshot) -> bool) -> bool {
        let Some(player) = &mut self.player else { return false };
        let Some(next) = player.next.take_if(|next| is_due(next)) else { return false };
        self.current = *next;
        self.prefetch();
        true
    }

    /// Reads the snapshot behind the current one; without one, the current one stays.
    fn prefetch(&mut self) {
        if let Some(player) = &mut self.player {
            player.next = next_snapshot(&mut player.reader, &mut self.current.quality.truncated);
            if player.next.is_none() {
                self.player = None;
            }
        }
    }
}

/// The next snapshot that can be read; `is_damaged` is set if one may be missing before it.
fn next_snapshot(reader: &mut Reader<File>, is_damaged: &mut bool) -> Option<Box<Snapshot>> {
    for item in &mut *reader {
        match item {
            Ok(Item::Snapshot(snapshot)) => return Some(snapshot),
            Ok(Item::Damage(_)) | Err(_) => *is_damaged = true,
            Ok(Item::Meta(_) | Item::Events(_) | Item::EventCount(_) | Item::End(_)) => {}
        }
    }
    *is_damaged |= reader.truncated().is_some();
    None
}

impl Source for Replay {
    fn snapshot(&mut self) -> anyhow::Result<Snapshot> {
        match self.player.as_mut().map(|player| &mut player.pace) {
            Some(&mut Pace::Time { started, origin, speed }) => {
                self.advance(started.elapsed(), origin, speed)
            }
            Some(Pace::Calls { is_first: is_first @ true }) => *is_first = false,
            Some(Pace::Calls { .. }) => _ = self.step_if(|_| true),
            None => {}
        }
        Ok(self.current.clone())
    }

    fn is_over(&self) -> bool {
        self.player.is_none()
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
            ksm: None,
            programs: None,
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
            replay.advance(Duration::from_millis(elapsed_ms), 0.5, 2.0);
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
        replay.advance(Duration::from_secs(1), 0.0, 1.0);
        assert!(replay.snapshot().unwrap().quality.truncated);
    }

    #[test]
    fn each_call_is_a_step_and_the_last_one_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = capture(dir.path(), &[0.0, 9.0, 10.0], Some(EndReason::Duration));
        let mut replay = Replay::stepping(&path).unwrap().unwrap();
        for (expected, is_over) in [(0.0, false), (9.0, false), (10.0, true), (10.0, true)] {
            assert_eq!(replay.snapshot().unwrap().window.seconds, expected);
            assert_eq!(replay.is_over(), is_over, "at {expected}");
        }
    }

    #[test]
    fn without_a_snapshot_there_is_nothing_to_play() {
        let dir = tempfile::tempdir().unwrap();
        let path = capture(dir.path(), &[], Some(EndReason::Duration));
        assert!(Replay::playing(&path, 1.0).unwrap().is_none());
    }
}
