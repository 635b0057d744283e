//! Compression of an answer, where the client wants it (RFC 9110, 12.5.3).
//!
//! An exposition is some hundred lines for each VM that hardly differ: of 16 MB for 1,000 VMs 0.7 are left.

use std::io::{self, Write};

use anyhow::Context;
use flate2::{Compression, write::GzEncoder};
use hyper::header::{ACCEPT_ENCODING, HeaderMap};

/// The lowest level: the daemon runs beside guests, and higher ones gain little on such text.
const LEVEL: Compression = Compression::fast();

/// A content coding that can be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
}

impl Encoding {
    /// The one that a client with these request headers wants: gzip only if it says that it takes it, and
    /// does not say that it prefers none.
    pub(super) fn wanted(headers: &HeaderMap) -> Self {
        let offers = Offers::from_headers(headers);
        let gzip = offers.weight(&["gzip", "x-gzip"]).or(offers.any).unwrap_or(0);
        let identity = offers.weight(&["identity"]).unwrap_or(0);
        if gzip > 0 && gzip >= identity { Self::Gzip } else { Self::Identity }
    }

    /// `text` in this coding. It is made where it may take its time.
    ///
    /// # Errors
    /// Never in practice: it is written to memory.
    pub(super) async fn encode(self, text: String) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::Identity => Ok(text.into_bytes()),
            Self::Gzip => {
                let zipped = tokio::task::spawn_blocking(move || gzip(text.as_bytes())).await;
                Ok(zipped.context("the compressor panicked")??)
            }
        }
    }
}

/// What a client takes, each with its weight in thousandths.
struct Offers {
    codings: Vec<(String, u16)>,
    /// Of `*`: whatever is not named.
    any: Option<u16>,
}

impl Offers {
    fn from_headers(headers: &HeaderMap) -> Self {
        let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        let mut codings: Vec<(String, u16)> =
            values.flat_map(|value| value.split(',')).filter_map(parse_offer).collect();
        let any = codings.iter().find(|(coding, _)| coding == "*").map(|(_, weight)| *weight);
        codings.retain(|(coding, _)| coding != "*");
        Self { codings, any }
    }

    /// The weight of a coding with these names, if it is named.
    fn weight(&self, names: &[&str]) -> Option<u16> {
        self.codings.iter().find(|(coding, _)| names.contains(&coding.as_str())).map(|(_, weight)| *weight)
    }
}

/// A coding and its weight; `None` for what is no offer.
fn parse_offer(offer: &str) -> Option<(String, u16)> {
    let (coding, parameter) = match offer.split_once(';') {
        Some((coding, parameter)) => (coding, Some(parameter)),
        None => (offer, None),
    };
    let weight = parameter.map_or(Some(1000), parse_weight)?;
    let coding = coding.trim().to_ascii_lowercase();
    (!coding.is_empty()).then_some((coding, weight))
}

/// `q=0.5` in thousandths; `None` if it is not a number from 0 to 1.
fn parse_weight(parameter: &str) -> Option<u16> {
    let (name, value) = parameter.split_once('=')?;
    let value: f64 = value.trim().parse().ok()?;
    let is_weight = name.trim().eq_ignore_ascii_case("q") && (0.0..=1.0).contains(&value);
    is_weight.then_some((value * 1000.0).round() as u16)
}

/// `body` in gzip's format.
fn gzip(body: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 8), LEVEL);
    encoder.write_all(body)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn wanted(values: &[&'static str]) -> Encoding {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(ACCEPT_ENCODING, HeaderValue::from_static(value));
        }
        Encoding::wanted(&headers)
    }

    #[test]
    fn gzip_is_for_those_who_take_it() {
        for values in [
            &["gzip"][..],
            &["GZip"],
            &["x-gzip"],
            &["deflate, gzip;q=1.0, *;q=0.5"],
            &["gzip ; q=0.001"],
            &["*"],
            &["br", "gzip"],
            &["identity;q=0.5, gzip;q=0.5"],
            &["identity;q=0, gzip;Q=0.1"],
        ] {
            assert_eq!(wanted(values), Encoding::Gzip, "{values:?}");
        }
    }

    #[test]
    fn everybody_else_gets_the_text() {
        for values in [
            &[][..],
            &[""],
            &["br, deflate"],
            &["gzip;q=0"],
            &["gzip;q=0.000, *"],
            &["*;q=0"],
            &["identity, gzip;q=0.5"],
            &["gzip;q=2"],
            &["gzip;q=NaN"],
            &["gzip;level=9"],
            &["gzipped"],
            &[",;q=1,"],
        ] {
            assert_eq!(wanted(values), Encoding::Identity, "{values:?}");
        }
    }
}
