//! From a TCP connection to a TLS one.

use std::{sync::Arc, time::Duration};

use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::guard::Guard;
use crate::{metrics::Rejection, scrape::Scraper};

/// How long a client may take for its part of the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The first byte of every TLS handshake.
const HANDSHAKE_RECORD: u8 = 0x16;
const PLAIN_HTTP: &[u8] = b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Connection: close\r\n\r\nthis port speaks HTTPS\n";

/// Does the handshake; `None` if it fails or takes too long, which is counted.
pub(super) async fn accept(
    stream: TcpStream,
    guard: &Arc<Guard>,
    scraper: &Scraper,
) -> Option<TlsStream<TcpStream>> {
    let config = guard.tls(scraper).await?;
    let accepted = timeout(HANDSHAKE_TIMEOUT, async {
        if is_plain(&stream).await {
            answer_plainly(stream).await;
            return None;
        }
        TlsAcceptor::from(config).accept(stream).await.ok()
    });
    let accepted = accepted.await.ok().flatten();
    if accepted.is_none() {
        scraper.count_rejection(Rejection::Handshake);
    }
    accepted
}

async fn is_plain(stream: &TcpStream) -> bool {
    let mut first = [0];
    stream.peek(&mut first).await.is_ok_and(|n| n == 1) && first[0] != HANDSHAKE_RECORD
}

/// Tells a client that speaks HTTP what is wrong.
async fn answer_plainly(mut stream: TcpStream) {
    // What was not read would make the kernel reset the connection, and the answer be lost.
    let mut request = [0; 4096];
    _ = stream.try_read(&mut request);
    // A client that has gone does not need it.
    _ = stream.write_all(PLAIN_HTTP).await;
    _ = stream.shutdown().await;
}
