//! The web configuration: TLS, passwords, headers and a rate limit, in the format of the Prometheus
//! exporter toolkit (`docs/web-config.md`).
//!
//! A file is good or it is refused as a whole. What the toolkit takes and this server cannot do is refused
//! too, unless leaving it out makes the server stricter.

mod file;
mod headers;
mod tls;

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bcrypt::HashParts;
use hyper::header::{HeaderName, HeaderValue};
use tokio_rustls::rustls::{self, ServerConfig};

use self::{file::File, tls::Material};

/// The longest file that is read; a bundle of all public certificate authorities has 0.2 MB.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Why a web configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum WebConfigError {
    /// It, or a file that it names, cannot be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is not of the format.
    #[error("{} is no web configuration", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What and where.
        source: Box<serde_saphyr::Error>,
    },
    /// A value makes no sense, or cannot be served.
    #[error("{key} in {}: {reason}", .path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// TLS cannot be served so.
    #[error("tls_server_config in {}: {what}", .path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What cannot be used.
        what: &'static str,
        /// Why not.
        source: rustls::Error,
    },
    /// The system gives no random numbers.
    #[error("cannot get random numbers from the system")]
    Randomness,
    /// TLS has come or gone.
    #[error("tls_server_config in {} has come or gone since the start; restart to change that", .path.display())]
    Switched {
        /// The file.
        path: PathBuf,
    },
}

/// How the server is to be secured.
pub(super) struct WebConfig {
    /// `None`: plain text.
    pub(super) tls: Option<Arc<ServerConfig>>,
    /// Sent with every response.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// Names and password hashes; empty: nobody is asked.
    pub(super) users: BTreeMap<String, String>,
    /// `None`: no limit.
    pub(super) rate: Option<Rate>,
}

/// How many requests are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    /// The time between two requests.
    pub(super) interval: Duration,
    /// How many may come at once after a pause.
    pub(super) burst: u32,
}

/// The files that a configuration was made of: with the same ones it is the same.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Inputs(Vec<(PathBuf, Vec<u8>)>);

impl Inputs {
    /// The folder of each, and of what it is a symbolic link to.
    pub(super) fn folders(&self) -> Vec<PathBuf> {
        let targets = self.0.iter().filter_map(|(path, _)| fs::canonicalize(path).ok());
        let files = self.0.iter().map(|(path, _)| path.clone()).chain(targets);
        let mut folders: Vec<PathBuf> = files.filter_map(|path| Some(folder(path.parent()?))).collect();
        folders.sort_unstable();
        folders.dedup();
        folders
    }
}

/// Of a bare file name the parent is empty.
fn folder(parent: &Path) -> PathBuf {
    if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent.to_owned() }
}

/// What is read while a configuration is.
struct Reader<'p> {
    path: &'p Path,
    inputs: Inputs,
}

/// Reads and checks the file at `path`.
pub(super) fn load(path: &Path) -> Result<(Inputs, WebConfig), WebConfigError> {
    let mut reader = Reader { path, inputs: Inputs::default() };
    let (file, material) = reader.read_all()?;
    let config = reader.check(file, material)?;
    Ok((reader.inputs, config))
}

/// The same, if it or anything that it names is not what it was in `last`.
pub(super) fn reload(path: &Path, last: &Inputs) -> Result<Option<(Inputs, WebConfig)>, WebConfigError> {
    let mut reader = Reader { path, inputs: Inputs::default() };
    let (file, material) = reader.read_all()?;
    if reader.inputs == *last {
        return Ok(None);
    }
    let config = reader.check(file, material)?;
    Ok(Some((reader.inputs, config)))
}

impl Reader<'_> {
    /// The configuration as it is written, with the certificates and keys that it names.
    fn read_all(&mut self) -> Result<(File, Option<Material>), WebConfigError> {
        let text = self.read(self.path)?;
        // A snippet would show keys and hashes in a log.
        let options = serde_saphyr::options! { with_snippet: false };
        let file: Option<File> = serde_saphyr::from_slice_with_options(&text, options).map_err(|source| {
            WebConfigError::Format { path: self.path.to_owned(), source: Box::new(source) }
        })?;
        let file = file.unwrap_or_default();
        let material = match &file.tls_server_config {
            Some(tls) => Material::read(tls, self)?,
            None => None,
        };
        Ok((file, material))
    }

    fn check(&self, file: File, material: Option<Material>) -> Result<WebConfig, WebConfigError> {
        let tls = match (&file.tls_server_config, material) {
            (Some(tls), Some(material)) => Some(Arc::new(tls::server_config(tls, &material, self)?)),
            _ => None,
        };
        let headers = file.http_server_config.and_then(|http| http.headers).unwrap_or_default();
        Ok(WebConfig {
            tls,
            headers: headers::parse(headers).map_err(|(header, reason)| self.value(&header, reason))?,
            users: self.users(file.basic_auth_users.unwrap_or_default())?,
            rate: self.rate(file.rate_limit.unwrap_or_default())?,
        })
    }

    /// The content of `path`, relative to the folder of the configuration.
    fn read(&mut self, path: &Path) -> Result<Vec<u8>, WebConfigError> {
        let is_main = path == self.path;
        let path = match self.path.parent() {
            Some(folder) if !is_main => folder.join(path),
            _ => path.to_owned(),
        };
        let bytes =
            read_limited(&path).map_err(|source| WebConfigError::Read { path: path.clone(), source })?;
        self.inputs.0.push((path, bytes.clone()));
        Ok(bytes)
    }

    fn value(&self, key: &str, reason: impl Into<String>) -> WebConfigError {
        WebConfigError::Value { path: self.path.to_owned(), key: key.to_owned(), reason: reason.into() }
    }

    fn users(&self, users: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, WebConfigError> {
        for (user, hash) in &users {
            let is_hash = hash.parse::<HashParts>().is_ok_and(|parts| (4..=31).contains(&parts.get_cost()));
            if !is_hash {
                let reason = format!(
                    "the password of {user:?} is no bcrypt hash; make one with: htpasswd -nBC 10 {user}"
                );
                return Err(self.value("basic_auth_users", reason));
            }
        }
        Ok(users)
    }

    fn rate(&self, rate: file::Rate) -> Result<Option<Rate>, WebConfigError> {
        let interval = rate.interval.unwrap_or_else(|| "0".to_owned());
        let interval = parse_interval(&interval).map_err(|reason| self.value("rate_limit", reason))?;
        match (interval, rate.burst.unwrap_or(0)) {
            (Duration::ZERO, _) => Ok(None),
            (_, 0) => Err(self.value("rate_limit", "burst must be at least 1, or no request is answered")),
            (interval, burst) => Ok(Some(Rate { interval, burst })),
        }
    }
}

/// `1m30s`, with the units that Go has; 0 needs none.
fn parse_interval(text: &str) -> Result<Duration, String> {
    const UNITS: [&str; 7] = ["", "ns", "us", "ms", "s", "m", "h"];
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let has_only_units = text.split(|c: char| c.is_ascii_digit()).all(|unit| UNITS.contains(&unit));
    match humantime::parse_duration(text) {
        Ok(interval) if has_only_units => Ok(interval),
        _ => Err(format!("interval: {text:?} is no time; write it as 100ms or 1m30s")),
    }
}

fn read_limited(path: &Path) -> io::Result<Vec<u8>> {
    let file = fs::File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other("it is longer than 1 MiB"));
    }
    Ok(bytes)
}
