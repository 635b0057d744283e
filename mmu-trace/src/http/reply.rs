//! From a request to its response.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Bytes,
    header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, VARY, X_CONTENT_TYPE_OPTIONS},
};
use tokio::sync::Mutex;

use super::{
    encoding::{self, Encoding},
    page,
};
use crate::{
    metrics::{self, Health, Process},
    model::Snapshot,
    source::{Attachment, Source},
};

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// Answers requests from one source of snapshots.
pub(super) struct Scraper {
    source: Arc<Mutex<Box<dyn Source>>>,
    errors: AtomicU64,
}

impl Scraper {
    pub(super) fn new(source: Box<dyn Source>) -> Self {
        Self { source: Arc::new(Mutex::new(source)), errors: AtomicU64::new(0) }
    }

    /// The response to any request; hyper leaves the body out where it is `HEAD`.
    pub(super) async fn reply<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/metrics" => encoded(self.metrics().await, Encoding::wanted(request.headers())),
            "/healthz" => response(StatusCode::OK, TEXT, "ok\n"),
            "/" => answer(HTML, self.snapshot().await.map(|(snapshot, ..)| page::landing(&snapshot))),
            _ => response(StatusCode::NOT_FOUND, TEXT, "not found; try /metrics\n"),
        }
    }

    async fn metrics(&self) -> anyhow::Result<String> {
        let (snapshot, attachment, scrape_duration) = self.snapshot().await?;
        let scrape_errors = self.errors.load(Ordering::Relaxed);
        let health = Health { scrape_duration, scrape_errors, attachment, process: Process::load() };
        Ok(metrics::encode(&snapshot, &health)?)
    }

    /// A snapshot, how its source stands to the kernel, and how long it took. Readers queue here, on no
    /// thread.
    async fn snapshot(&self) -> anyhow::Result<(Snapshot, Option<Attachment>, Duration)> {
        let mut source = Arc::clone(&self.source).lock_owned().await;
        let read = tokio::task::spawn_blocking(move || {
            let start = Instant::now();
            source.snapshot().map(|snapshot| (snapshot, source.attachment(), start.elapsed()))
        });
        let snapshot = read.await.context("the reader of the counters panicked").and_then(|result| result);
        if snapshot.is_err() {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
        snapshot.context("reading the counters")
    }
}

/// The exposition in the coding that the client wants.
fn encoded(text: anyhow::Result<String>, encoding: Encoding) -> Response<Full<Bytes>> {
    let body = text.and_then(|text| match encoding {
        Encoding::Identity => Ok(text.into_bytes()),
        Encoding::Gzip => encoding::gzip(text.as_bytes()).context("compressing the metrics"),
    });
    let is_ok = body.is_ok();
    let mut response = answer(metrics::CONTENT_TYPE, body);
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    if is_ok && encoding == Encoding::Gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

fn answer(content_type: &'static str, body: anyhow::Result<impl Into<Bytes>>) -> Response<Full<Bytes>> {
    match body {
        Ok(body) => response(StatusCode::OK, content_type, body),
        Err(error) => response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error:#}\n")),
    }
}

fn response(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
