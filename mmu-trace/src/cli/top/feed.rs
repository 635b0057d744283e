//! The source in a thread of its own, so that keys are answered while a tracer attaches or reads its maps.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    thread,
};

use tokio::sync::mpsc::Sender;

use super::{super::tracer::UPKEEP_EVERY, state::Event};
use crate::source::Source;

/// Asks the source for snapshots; dropping it ends the thread.
pub(super) struct Feed {
    asked: SyncSender<()>,
}

impl Feed {
    /// Starts the thread. What it finds goes to `events`.
    pub(super) fn start(source: Box<dyn Source>, events: Sender<Event>) -> Self {
        // One snapshot is enough to wait for: a slow source gets no backlog.
        let (asked, questions) = sync_channel(1);
        thread::spawn(move || answer(source, &questions, events));
        Self { asked }
    }

    /// Asks for a snapshot; it comes as an event. Whether the thread still runs.
    pub(super) fn ask(&self) -> bool {
        !matches!(self.asked.try_send(()), Err(TrySendError::Disconnected(())))
    }
}

/// Answers until nobody asks any more. Between questions it looks after the source.
fn answer(source: Box<dyn Source>, questions: &Receiver<()>, events: Sender<Event>) {
    let mut reader = Reader { source, events, said: None, has_ended: false };
    loop {
        let is_heard = match questions.recv_timeout(UPKEEP_EVERY) {
            Ok(()) => reader.read(),
            Err(RecvTimeoutError::Timeout) => reader.look_after(),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if !is_heard {
            return;
        }
    }
}

/// Every function returns whether there is still anybody to tell.
struct Reader {
    source: Box<dyn Source>,
    events: Sender<Event>,
    /// The last error: it is said once, until there is another or none.
    said: Option<String>,
    has_ended: bool,
}

impl Reader {
    fn look_after(&mut self) -> bool {
        let result = self.source.look_after();
        self.tell(result.err())
    }

    fn read(&mut self) -> bool {
        let neglected = self.source.look_after().err();
        let is_heard = match self.source.snapshot() {
            Ok(snapshot) => self.send(Event::Snapshot(Box::new(snapshot))) && self.tell(neglected),
            Err(error) => self.tell(Some(error)),
        };
        let ends_now = self.source.is_over() && !self.has_ended;
        self.has_ended |= ends_now;
        is_heard && (!ends_now || self.send(Event::Over))
    }

    fn tell(&mut self, error: Option<anyhow::Error>) -> bool {
        let failure = error.map(|error| format!("{error:#}"));
        if failure == self.said {
            return true;
        }
        self.said.clone_from(&failure);
        self.send(Event::Failed(failure))
    }

    fn send(&self, event: Event) -> bool {
        self.events.blocking_send(event).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;
    use tokio::sync::mpsc::channel;

    use super::*;
    use crate::{bpf, model::Snapshot};

    /// Gives a snapshot, an error twice, and the last snapshot.
    struct Moody(u32);

    impl Source for Moody {
        fn snapshot(&mut self) -> anyhow::Result<Snapshot> {
            self.0 += 1;
            match self.0 {
                2 | 3 => bail!("a map cannot be read"),
                _ => Ok(bpf::waiting_snapshot("a test")),
            }
        }

        fn is_over(&self) -> bool {
            self.0 == 4
        }
    }

    #[test]
    fn an_error_is_said_once_and_the_end_too() {
        let (events, mut received) = channel(16);
        let mut reader = Reader { source: Box::new(Moody(0)), events, said: None, has_ended: false };
        assert!((0..4).all(|_| reader.read()));
        drop(reader);
        let mut seen = Vec::new();
        while let Some(event) = received.blocking_recv() {
            seen.push(match event {
                Event::Snapshot(_) => "snapshot".to_owned(),
                Event::Failed(failure) => failure.unwrap_or_else(|| "works again".to_owned()),
                Event::Over => "over".to_owned(),
                other => panic!("{other:?}"),
            });
        }
        assert_eq!(seen, ["snapshot", "a map cannot be read", "snapshot", "works again", "over"]);
    }

    #[test]
    fn without_a_listener_the_thread_ends() {
        let (events, received) = channel(1);
        drop(received);
        let feed = Feed::start(Box::new(Moody(0)), events);
        while feed.ask() {
            thread::yield_now();
        }
    }
}
