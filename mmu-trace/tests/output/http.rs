//! The server, spoken to over a socket.

use std::{
    io::{self, Read},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use mmu_trace::{
    http::{MAX_CONNECTIONS, Server},
    metrics::CONTENT_TYPE,
    model::Snapshot,
    scrape::Scraper,
    source::Source,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

use crate::fixture;

/// Gives one error, then the snapshot for ever.
struct Flaky {
    failures: u32,
    snapshot: Snapshot,
}

impl Source for Flaky {
    fn snapshot(&mut self) -> anyhow::Result<Snapshot> {
        if self.failures > 0 {
            self.failures -= 1;
            anyhow::bail!("the map is gone");
        }
        Ok(self.snapshot.clone())
    }
}

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

async fn start(failures: u32) -> Running {
    let mut snapshot = fixture::noop();
    snapshot.vms[0].identity.name = "<script>".into();
    let scraper = Arc::new(Scraper::new(Box::new(Flaky { failures, snapshot })));
    let server = Server::bind(SocketAddr::from(([127, 0, 0, 1], 0)), scraper).unwrap();
    let address = server.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let served = tokio::spawn(server.serve(async { _ = stopped.await }));
    Running { address, stop, served }
}

async fn ask(address: SocketAddr, method: &str, path: &str) -> String {
    String::from_utf8(ask_with(address, method, path, "").await).unwrap()
}

/// `headers` end in a line break each.
async fn ask_with(address: SocketAddr, method: &str, path: &str, headers: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    answer
}

/// The head as text, and the body.
fn split(answer: &[u8]) -> (String, &[u8]) {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    (String::from_utf8(answer[..end].to_vec()).unwrap(), &answer[end..])
}

/// The samples that do not differ from scrape to scrape.
fn lasting(text: &str) -> Vec<&str> {
    text.lines()
        .filter(|line| !line.starts_with("mmu_trace_scrape") && !line.starts_with("process"))
        .collect()
}

#[tokio::test]
async fn metrics_are_compressed_for_those_who_want_it() {
    let server = start(0).await;
    let plain = ask_with(server.address, "GET", "/metrics", "").await;
    let (head, text) = split(&plain);
    assert!(head.contains("vary: Accept-Encoding\r\n") && !head.contains("content-encoding"), "{head}");
    let zipped = ask_with(server.address, "GET", "/metrics", "Accept-Encoding: gzip;q=0.8\r\n").await;
    let (head, body) = split(&zipped);
    for header in [
        "vary: Accept-Encoding",
        "content-encoding: gzip",
        &format!("content-type: {CONTENT_TYPE}"),
        &format!("content-length: {}", body.len()),
    ] {
        assert!(head.contains(&format!("{header}\r\n")), "{header} is not in: {head}");
    }
    let mut unzipped = String::new();
    flate2::read::GzDecoder::new(body).read_to_string(&mut unzipped).unwrap();
    assert_eq!(lasting(&unzipped), lasting(str::from_utf8(text).unwrap()));
    assert!(body.len() * 7 < text.len(), "{} of {} bytes", body.len(), text.len());
}

#[tokio::test]
async fn what_is_not_the_metrics_is_never_compressed() {
    let server = start(1).await;
    for path in ["/metrics", "/", "/healthz", "/none"] {
        let answer = ask_with(server.address, "GET", path, "Accept-Encoding: gzip\r\n").await;
        let (head, _) = split(&answer);
        assert!(!head.contains("content-encoding"), "{path}: {head}");
    }
}

#[tokio::test]
async fn metrics_have_the_type_that_prometheus_wants() {
    let server = start(0).await;
    let answer = ask(server.address, "GET", "/metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains(&format!("content-type: {CONTENT_TYPE}\r\n")), "{answer}");
    assert!(answer.contains("mmu_trace_change_pte_total{domain=\"<script>\""));
}

#[tokio::test]
async fn head_has_the_headers_and_no_body() {
    let server = start(0).await;
    let answer = ask(server.address, "HEAD", "/metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n"), "{answer}");
    assert!(answer.contains("content-length: ") && !answer.contains("# HELP"), "{answer}");
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let server = start(0).await;
    assert!(ask(server.address, "GET", "/healthz").await.ends_with("\r\n\r\nok\n"));
    assert!(ask(server.address, "GET", "/metricsx").await.starts_with("HTTP/1.1 404 "));
    let answer = ask(server.address, "POST", "/metrics").await;
    assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("allow: GET, HEAD\r\n"), "{answer}");
    assert!(ask(server.address, "nonsense\r\n", "").await.starts_with("HTTP/1.1 400 "));
}

#[tokio::test]
async fn the_page_for_people_escapes_names() {
    let server = start(0).await;
    let answer = ask(server.address, "GET", "/").await;
    assert!(answer.contains("&lt;script&gt;") && !answer.contains("<script>"), "{answer}");
    assert!(answer.contains("content-type: text/html; charset=utf-8\r\n"));
}

#[tokio::test]
async fn a_failed_scrape_is_answered_counted_and_survived() {
    let server = start(1).await;
    let answer = ask(server.address, "GET", "/metrics").await;
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    assert!(answer.ends_with("reading the counters: the map is gone\n"), "{answer}");
    let answer = ask(server.address, "GET", "/metrics").await;
    assert!(answer.contains("mmu_trace_scrape_errors_total 1\n"), "{answer}");
}

#[tokio::test]
async fn a_port_in_use_is_an_error() {
    let server = start(0).await;
    let scraper = Scraper::new(Box::new(Flaky { failures: 0, snapshot: fixture::empty() }));
    let error = Server::bind(server.address, Arc::new(scraper)).err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn a_stop_ends_idle_connections_and_frees_the_port() {
    let server = start(0).await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = [0; 512];
    assert!(idle.read(&mut answer).await.unwrap() > 0);
    server.stop.send(()).unwrap();
    timeout(Duration::from_secs(3), server.served).await.unwrap().unwrap();
    assert_eq!(idle.read(&mut answer).await.unwrap(), 0);
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn beyond_the_limit_whoever_is_idle_for_longest_makes_room() {
    let server = start(0).await;
    let mut idle = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        idle.push(TcpStream::connect(server.address).await.unwrap());
    }
    let answer = timeout(Duration::from_secs(3), ask(server.address, "GET", "/metrics")).await.unwrap();
    assert!(answer.contains("mmu_trace_http_evictions_total 1\n"), "{answer}");
    assert_eq!(idle[0].read(&mut [0]).await.unwrap(), 0);
    idle[1].write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(idle[1].read(&mut [0]).await.unwrap() > 0);
}
