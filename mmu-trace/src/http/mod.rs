//! The daemon's HTTP server: `/metrics`, `/healthz` and a page for people.
//!
//! One task accepts, one task serves each connection, one blocking call at a time reads the
//! counters, for all who ask meanwhile (`answers`). Everything is bounded: connections by
//! [`MAX_CONNECTIONS`], where the slowest make room for others, and answers that nobody reads
//! (`places`); the life of a connection by [`MAX_CONNECTION_LIFE`], a request's header by
//! [`MAX_HEADER_BYTES`] and [`HEADER_TIMEOUT`], a TLS handshake by its own limit. With a [`Guard`]
//! nobody is answered whom the web configuration does not let in. A failed scrape is answered with
//! 500, counted, and stops nothing.

mod answers;
mod auth;
mod client_cert;
mod encoding;
mod guard;
mod page;
mod places;
mod rate;
mod reply;
mod tls;
mod web_config;

use std::{future::Future, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::{JoinSet, yield_now},
    time::{sleep, timeout},
};

pub use self::{guard::Guard, places::MAX_CONNECTIONS, web_config::WebConfigError};
use self::{
    places::{Place, Places},
    reply::Answers,
};
use crate::scrape::Scraper;

/// Connections that the kernel keeps until they are accepted; it takes less if `net.core.somaxconn` is less.
const BACKLOG: u32 = 4_096;
/// The longest header of a request: a scraper's has a few hundred bytes, a proxy adds some thousand.
const MAX_HEADER_BYTES: usize = 16 << 10;
/// How long a client may take to send a request's header, and stay idle between two requests.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection is closed after this, so that stuck readers do not hold their place for ever.
const MAX_CONNECTION_LIFE: Duration = Duration::from_secs(600);
/// How long a request under way may take when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a failed accept (out of descriptors, say), which would otherwise spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound server that does not serve yet.
pub struct Server {
    listener: TcpListener,
    house: House,
}

/// What every connection shares.
#[derive(Clone)]
struct House {
    scraper: Arc<Scraper>,
    answers: Arc<Answers>,
    /// `None`: plain text for everybody.
    guard: Option<Arc<Guard>>,
}

impl Server {
    /// Binds `address`, to serve what `scraper` knows; port 0 takes any free port.
    ///
    /// # Errors
    /// If the address is in use, not ours or not permitted.
    pub fn bind(address: SocketAddr, scraper: Arc<Scraper>) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // Connections of the last run that are still closing are in nobody's way.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        Ok(Self { listener, house: House { scraper, answers: Arc::default(), guard: None } })
    }

    /// The same, with a guard at its door.
    #[must_use]
    pub fn guarded(mut self, guard: Guard) -> Self {
        self.house.guard = Some(Arc::new(guard));
        self
    }

    /// The address it is bound to.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` is ready, then lets requests under way finish for a few seconds.
    pub async fn serve(self, stop: impl Future<Output = ()>) {
        let (stopping, stopped) = watch::channel(());
        let places = Places::new(Arc::clone(&self.house.scraper));
        let mut connections = JoinSet::new();
        let mut stop = pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                Some((stream, place)) = accept(&self.listener, &places) => {
                    connections.spawn(connection(stream, place, self.house.clone(), stopped.clone()));
                    // Its request may be there already: it is read before the next client is let in.
                    yield_now().await;
                }
                Some(_) = connections.join_next() => {}
            }
        }
        drop((self.listener, stopping));
        // Whatever does not finish in time is aborted when the set is dropped.
        _ = timeout(STOP_TIMEOUT, async { while connections.join_next().await.is_some() {} }).await;
    }
}

/// The next connection, as soon as there is room for it; `None` after an error and a pause.
async fn accept(listener: &TcpListener, places: &Arc<Places>) -> Option<(TcpStream, Arc<Place>)> {
    places.room().await;
    match listener.accept().await {
        Ok((stream, _)) => {
            let place = places.take();
            if place.is_none() {
                // All of them have asked since.
                places.refuse();
            }
            Some((stream, place?))
        }
        Err(_) => {
            sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// Serves one connection, behind TLS if the guard wants it.
async fn connection(stream: TcpStream, place: Arc<Place>, house: House, mut stopped: watch::Receiver<()>) {
    let Some(guard) = house.guard.clone().filter(|guard| guard.has_tls()) else {
        return speak(stream, place, house, stopped).await;
    };
    let stream = tokio::select! {
        stream = tls::accept(stream, &guard, &house.scraper) => stream,
        () = place.ended() => None,
        _ = stopped.changed() => None,
    };
    if let Some(stream) = stream {
        speak(stream, place, house, stopped).await;
    }
}

/// Speaks HTTP to the connection's end, to the end of its life, or to the server's.
async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    place: Arc<Place>,
    house: House,
    mut stopped: watch::Receiver<()>,
) {
    let asking = Arc::clone(&place);
    let service = service_fn(move |request: Request<Incoming>| {
        let (house, place) = (house.clone(), Arc::clone(&asking));
        async move {
            place.answering();
            let response = match &house.guard {
                Some(guard) => guard.reply(&request, &house.answers, &house.scraper).await,
                None => reply::to(&request, &house.answers, &house.scraper).await,
            };
            Ok::<_, std::convert::Infallible>(response.map(|body| Full::new(place.sending(body))))
        }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(MAX_HEADER_BYTES)
            .serve_connection(TokioIo::new(stream), service)
    );
    tokio::select! {
        // A client that goes away or talks nonsense is its own affair.
        _ = connection.as_mut() => return,
        () = place.ended() => return,
        _ = stopped.changed() => {}
        () = sleep(MAX_CONNECTION_LIFE) => {}
    }
    connection.as_mut().graceful_shutdown();
    _ = timeout(STOP_TIMEOUT, connection).await;
}
