//! From a request to its response.

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Bytes,
    header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, VARY, X_CONTENT_TYPE_OPTIONS},
};

use super::{encoding::Encoding, page};
use crate::{metrics, scrape::Scraper};

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// The response to any request; hyper leaves the body out where it is `HEAD`.
pub(super) async fn to<B>(request: &Request<B>, scraper: &Scraper) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/metrics" => {
            let wanted = Encoding::wanted(request.headers());
            let body = match scraper.metrics().await {
                Ok(text) => wanted.encode(text).await,
                Err(error) => Err(error),
            };
            encoded(body, wanted)
        }
        "/healthz" => response(StatusCode::OK, TEXT, "ok\n"),
        "/" => {
            answer(HTML, scraper.snapshot().await.map(|snapshot| page::landing(&snapshot, &server_name())))
        }
        _ => response(StatusCode::NOT_FOUND, TEXT, "not found; try /metrics\n"),
    }
}

/// The name of this machine.
fn server_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// A short answer for people.
pub(super) fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    response(status, TEXT, text)
}

/// The exposition in `encoding`.
fn encoded(body: anyhow::Result<Vec<u8>>, encoding: Encoding) -> Response<Full<Bytes>> {
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
