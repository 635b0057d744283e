//! From a request to its response.

use hyper::{
    Method, Request, Response, StatusCode,
    body::Bytes,
    header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, VARY, X_CONTENT_TYPE_OPTIONS},
};

use super::{
    answers::{Answer, Shared},
    encoding::Encoding,
    page,
};
use crate::{metrics, scrape::Scraper};

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// What is shared by those who ask for the same at the same time.
#[derive(Default)]
pub(super) struct Answers {
    metrics: Shared,
    zipped_metrics: Shared,
    page: Shared,
}

impl Answers {
    fn metrics(&self, encoding: Encoding) -> &Shared {
        match encoding {
            Encoding::Identity => &self.metrics,
            Encoding::Gzip => &self.zipped_metrics,
        }
    }
}

/// The response to any request; hyper leaves the body out where it is `HEAD`.
pub(super) async fn to<B>(request: &Request<B>, answers: &Answers, scraper: &Scraper) -> Response<Bytes> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/metrics" => {
            let wanted = Encoding::wanted(request.headers());
            let make = async || wanted.encode(scraper.metrics().await?).await;
            encoded(answers.metrics(wanted).get(make).await, wanted)
        }
        "/healthz" => response(StatusCode::OK, TEXT, "ok\n"),
        "/" => {
            let make = async || Ok(page::landing(&scraper.snapshot().await?, &server_name()));
            answer(HTML, answers.page.get(make).await)
        }
        _ => response(StatusCode::NOT_FOUND, TEXT, "not found; try /metrics\n"),
    }
}

/// The name of this machine.
fn server_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// A short answer for people.
pub(super) fn plain(status: StatusCode, text: &'static str) -> Response<Bytes> {
    response(status, TEXT, text)
}

/// The exposition in `encoding`.
fn encoded(body: Answer, encoding: Encoding) -> Response<Bytes> {
    let is_ok = body.is_ok();
    let mut response = answer(metrics::CONTENT_TYPE, body);
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    if is_ok && encoding == Encoding::Gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

fn answer(content_type: &'static str, body: Answer) -> Response<Bytes> {
    match body {
        Ok(body) => response(StatusCode::OK, content_type, body),
        Err(error) => response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, error),
    }
}

fn response(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
