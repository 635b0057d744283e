//! Who is let in: the web configuration as it is now.
//!
//! The file and what it names are read again for every connection and every request, so that a new
//! password or a renewed certificate counts at once. While the file is bad nobody is let in.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use hyper::{
    Request, Response, StatusCode,
    body::Bytes,
    header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE},
};
use tokio_rustls::rustls::ServerConfig;

use super::{
    auth::{Admission, Authenticator},
    rate::Bucket,
    reply::{self, Answers},
    web_config::{self, Inputs, WebConfig, WebConfigError},
};
use crate::{metrics::Rejection, scrape::Scraper};

const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"mmu-trace\", charset=\"UTF-8\"");

/// Who hears how reading the configuration went, each time.
type Tell = Box<dyn Fn(Result<(), WebConfigError>) + Send + Sync>;

/// A web configuration that is kept up to date.
pub struct Guard {
    path: PathBuf,
    /// This does not change: a server that began with TLS never answers in plain text.
    has_tls: bool,
    has_users: bool,
    current: Mutex<(Inputs, Arc<WebConfig>)>,
    authenticator: Authenticator,
    bucket: Mutex<Bucket>,
    tell: Tell,
}

impl Guard {
    /// Reads the configuration at `path`; `tell` hears of every later reading.
    ///
    /// # Errors
    /// If it is refused.
    pub fn new(path: PathBuf, tell: Tell) -> Result<Self, WebConfigError> {
        let (inputs, config) = web_config::load(&path)?;
        let authenticator = Authenticator::new().map_err(|_| WebConfigError::Randomness)?;
        Ok(Self {
            path,
            has_tls: config.tls.is_some(),
            has_users: !config.users.is_empty(),
            current: Mutex::new((inputs, Arc::new(config))),
            authenticator,
            bucket: Mutex::new(Bucket::new(Instant::now())),
            tell,
        })
    }

    /// Whether it serves TLS.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        self.has_tls
    }

    /// Whether it asked for a password at the start.
    #[must_use]
    pub fn has_users(&self) -> bool {
        self.has_users
    }

    /// The folders of the files that it was made of, symbolic links followed or not: where their successors
    /// will be.
    #[must_use]
    pub fn folders(&self) -> Vec<PathBuf> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).0.folders()
    }

    /// What TLS is served with now; `None` while the configuration is bad, which is counted.
    pub(super) async fn tls(self: &Arc<Self>, scraper: &Scraper) -> Option<Arc<ServerConfig>> {
        self.config(scraper).await?.tls.clone()
    }

    /// The response to a request, if it is let in, else the refusal.
    pub(super) async fn reply<B>(
        self: &Arc<Self>,
        request: &Request<B>,
        answers: &Answers,
        scraper: &Scraper,
    ) -> Response<Bytes> {
        let Some(config) = self.config(scraper).await else {
            return reply::plain(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the web configuration is bad; see the log\n",
            );
        };
        let mut response = match self.admission(request.headers(), &config).await {
            Admission::Admitted => reply::to(request, answers, scraper).await,
            Admission::Refused => {
                scraper.count_rejection(Rejection::Password);
                unauthorized()
            }
            Admission::Busy => {
                scraper.count_rejection(Rejection::Rate);
                reply::plain(StatusCode::TOO_MANY_REQUESTS, "too many requests\n")
            }
        };
        for (name, value) in &config.headers {
            response.headers_mut().insert(name, value.clone());
        }
        response
    }

    async fn admission(&self, headers: &HeaderMap, config: &WebConfig) -> Admission {
        if !self.is_in_rate(config) {
            Admission::Busy
        } else if config.users.is_empty() {
            Admission::Admitted
        } else {
            self.authenticator.admits(headers, &config.users).await
        }
    }

    fn is_in_rate(&self, config: &WebConfig) -> bool {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        config.rate.is_none_or(|rate| bucket.take(rate, Instant::now()))
    }

    async fn config(self: &Arc<Self>, scraper: &Scraper) -> Option<Arc<WebConfig>> {
        let guard = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || guard.read()).await.ok()?;
        let (config, said) = match read {
            Ok(config) => (Some(config), Ok(())),
            Err(error) => {
                scraper.count_rejection(Rejection::Config);
                (None, Err(error))
            }
        };
        (self.tell)(said);
        config
    }

    fn read(&self) -> Result<Arc<WebConfig>, WebConfigError> {
        let (inputs, config) = self.current.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some((inputs, fresh)) = web_config::reload(&self.path, &inputs)? else { return Ok(config) };
        if fresh.tls.is_some() != self.has_tls {
            return Err(WebConfigError::Switched { path: self.path.clone() });
        }
        let fresh = Arc::new(fresh);
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = (inputs, Arc::clone(&fresh));
        Ok(fresh)
    }
}

fn unauthorized() -> Response<Bytes> {
    let mut response = reply::plain(StatusCode::UNAUTHORIZED, "a user and a password are needed\n");
    response.headers_mut().insert(WWW_AUTHENTICATE, CHALLENGE);
    response
}
