//! Who is connected: a bounded number of clients, and who makes room for a newcomer.
//!
//! ```text
//!  accepted --> Waiting --request--> Answering --> Sending
//!                  ^                                  |
//!                  '------------- all sent -----------'
//! ```
//!
//! A newcomer that finds no room takes the place of whoever has been waiting for longest, or else of whoever
//! has been reading its answer for longest. Nobody is ended whose answer is being made: that takes
//! milliseconds, and all who ask meanwhile share one. So a scraper, which asks at once and reads at once, is
//! served however many others are slow. Answers that nobody reads are bounded as well, in bytes and in time.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hyper::body::Bytes;
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use crate::scrape::Scraper;

/// Clients at a time: some scrapers, some people, and room for a burst of others before one must go.
pub const MAX_CONNECTIONS: usize = 256;
/// Answers that wait to be read, in bytes: four of a host with a thousand VMs.
const MAX_UNSENT_BYTES: usize = 64 << 20;
/// How long a client may take to read an answer.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The places for clients.
pub(super) struct Places {
    table: Mutex<Table>,
    /// Room may have come.
    changed: Notify,
    /// Counts who is ended.
    scraper: Arc<Scraper>,
}

#[derive(Default)]
struct Table {
    next: u64,
    clients: BTreeMap<u64, Client>,
    unsent_bytes: usize,
}

struct Client {
    state: State,
    since: Instant,
    ended: Arc<Notify>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// For its next request, or for its part of a handshake.
    Waiting,
    /// Its answer is being made.
    Answering,
    /// This many bytes of an answer are not all sent.
    Sending(usize),
}

/// The place of one client, given back when dropped.
pub(super) struct Place {
    places: Arc<Places>,
    id: u64,
    ended: Arc<Notify>,
}

impl Places {
    pub(super) fn new(scraper: Arc<Scraper>) -> Arc<Self> {
        Arc::new(Self { table: Mutex::default(), changed: Notify::new(), scraper })
    }

    /// Returns once there is a place that is free or can be made free.
    pub(super) async fn room(&self) {
        loop {
            let changed = self.changed.notified();
            if self.table().has_room() {
                return;
            }
            changed.await;
        }
    }

    /// A place, if need be another client's; `None` if every answer is being made.
    pub(super) fn take(self: &Arc<Self>) -> Option<Arc<Place>> {
        let mut table = self.table();
        if table.clients.len() >= MAX_CONNECTIONS {
            let oldest = table.oldest_waiting().or_else(|| table.oldest_sending(None))?;
            self.end(&mut table, oldest);
        }
        let (id, ended) = (table.next, Arc::new(Notify::new()));
        table.next += 1;
        let client = Client { state: State::Waiting, since: Instant::now(), ended: Arc::clone(&ended) };
        table.clients.insert(id, client);
        Some(Arc::new(Place { places: Arc::clone(self), id, ended }))
    }

    /// Counts a client for which there was no place.
    pub(super) fn refuse(&self) {
        self.scraper.count_eviction();
    }

    fn end(&self, table: &mut Table, id: u64) {
        if let Some(client) = table.remove(id) {
            client.ended.notify_one();
            self.scraper.count_eviction();
        }
    }

    fn set(&self, id: u64, state: State) {
        let mut table = self.table();
        table.set(id, state);
        while table.unsent_bytes > MAX_UNSENT_BYTES
            && let Some(oldest) = table.oldest_sending(Some(id))
        {
            self.end(&mut table, oldest);
        }
        drop(table);
        self.changed.notify_one();
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn has_room(&self) -> bool {
        let can_end = |client: &Client| client.state != State::Answering;
        self.clients.len() < MAX_CONNECTIONS || self.clients.values().any(can_end)
    }

    fn oldest_waiting(&self) -> Option<u64> {
        self.oldest(|_, state| state == State::Waiting)
    }

    fn oldest_sending(&self, but: Option<u64>) -> Option<u64> {
        self.oldest(|id, state| matches!(state, State::Sending(_)) && Some(id) != but)
    }

    fn oldest(&self, is_meant: impl Fn(u64, State) -> bool) -> Option<u64> {
        let meant = self.clients.iter().filter(|(id, client)| is_meant(**id, client.state));
        meant.min_by_key(|(_, client)| client.since).map(|(id, _)| *id)
    }

    /// Does nothing for a client that was ended.
    fn set(&mut self, id: u64, state: State) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        self.unsent_bytes -= client.state.unsent_bytes();
        self.unsent_bytes += state.unsent_bytes();
        (client.state, client.since) = (state, Instant::now());
    }

    fn remove(&mut self, id: u64) -> Option<Client> {
        let client = self.clients.remove(&id)?;
        self.unsent_bytes -= client.state.unsent_bytes();
        Some(client)
    }
}

impl State {
    fn unsent_bytes(self) -> usize {
        if let Self::Sending(bytes) = self { bytes } else { 0 }
    }
}

impl Place {
    /// A request has come.
    pub(super) fn answering(&self) {
        self.places.set(self.id, State::Answering);
    }

    /// The answer is `body`, which is on its way until what this returns is dropped.
    pub(super) fn sending(self: &Arc<Self>, body: Bytes) -> Bytes {
        self.places.set(self.id, State::Sending(body.len()));
        Bytes::from_owner(Unsent { body, place: Arc::clone(self) })
    }

    /// Returns when the client must go: for another one, or because it does not read.
    pub(super) async fn ended(&self) {
        loop {
            tokio::select! {
                () = self.ended.notified() => return,
                () = sleep(LOOK_EVERY) => {}
            }
            let mut table = self.places.table();
            if table.clients.get(&self.id).is_some_and(Client::is_stuck) {
                return self.places.end(&mut table, self.id);
            }
        }
    }
}

impl Client {
    fn is_stuck(&self) -> bool {
        matches!(self.state, State::Sending(_)) && self.since.elapsed() > SEND_TIMEOUT
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.table().remove(self.id);
        self.places.changed.notify_one();
    }
}

/// An answer that is not all sent.
struct Unsent {
    body: Bytes,
    place: Arc<Place>,
}

impl AsRef<[u8]> for Unsent {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        self.place.places.set(self.place.id, State::Waiting);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::{bpf, source::Replay};

    fn places() -> Arc<Places> {
        let source = Replay::still(bpf::waiting_snapshot("a test"));
        Places::new(Arc::new(Scraper::new(Box::new(source))))
    }

    async fn is_ended(place: &Place) -> bool {
        timeout(Duration::from_millis(10), place.ended()).await.is_ok()
    }

    #[tokio::test]
    async fn the_newcomer_takes_the_place_of_whoever_waits_longest() {
        let places = places();
        let clients: Vec<_> = (0..MAX_CONNECTIONS).map(|_| places.take().unwrap()).collect();
        clients[0].answering();
        let body = clients[1].sending(Bytes::from_static(b"x"));
        let newcomer = places.take().unwrap();
        assert!(is_ended(&clients[2]).await);
        for client in [&clients[0], &clients[1], &clients[3], &newcomer] {
            assert!(!is_ended(client).await);
        }
        clients.iter().skip(3).for_each(|client| client.answering());
        newcomer.answering();
        let last = places.take().unwrap();
        assert!(is_ended(&clients[1]).await && !is_ended(&clients[0]).await);
        last.answering();
        assert!(places.take().is_none() && timeout(Duration::from_millis(10), places.room()).await.is_err());
        drop(body);
        drop(last);
        places.room().await;
        assert!(places.take().is_some());
    }

    #[tokio::test]
    async fn answers_that_nobody_reads_are_bounded() {
        let places = places();
        let clients: Vec<_> = (0..5).map(|_| places.take().unwrap()).collect();
        let body = Bytes::from(vec![0; MAX_UNSENT_BYTES / 3]);
        let bodies: Vec<_> = clients.iter().map(|client| client.sending(body.clone())).collect();
        for (n, client) in clients.iter().enumerate() {
            assert_eq!(is_ended(client).await, n < 2, "{n}");
        }
        drop(bodies);
        assert_eq!(places.table().unsent_bytes, 0);
        // One answer alone may be of any length.
        let client = places.take().unwrap();
        let _long = client.sending(Bytes::from(vec![0; 2 * MAX_UNSENT_BYTES]));
        assert!(!is_ended(&client).await);
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_its_answer_is_ended_and_who_is_idle_is_not() {
        let places = places();
        let (slow, idle) = (places.take().unwrap(), places.take().unwrap());
        let _body = slow.sending(Bytes::from_static(b"x"));
        let start = Instant::now();
        slow.ended().await;
        assert!(start.elapsed() > SEND_TIMEOUT && start.elapsed() < 2 * SEND_TIMEOUT);
        assert!(timeout(3 * SEND_TIMEOUT, idle.ended()).await.is_err());
    }

    #[tokio::test]
    async fn a_place_is_given_back() {
        let places = places();
        drop(places.take().unwrap());
        assert!(places.table().clients.is_empty());
        let client = places.take().unwrap();
        let body = client.sending(Bytes::from_static(b"x"));
        drop(client);
        drop(body);
        assert!(places.table().clients.is_empty());
    }
}
