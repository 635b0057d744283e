//! A scrape of the daemon, as small as HTTP allows.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use xtask::phase::{DAEMON_PORT, Series};

/// A daemon that needs longer than this to answer is broken, on any machine.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The body of `GET path` from the lab's daemon.
pub(crate) fn get(path: &str) -> Result<String> {
    get_from(DAEMON_PORT, path)
}

/// The body of `GET path` from the daemon on `port`.
pub(crate) fn get_from(port: u16, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.lines().next().unwrap_or_default();
    ensure!(status.split(' ').nth(1) == Some("200"), "GET {path} answered {status:?}");
    Ok(body.to_owned())
}

/// Waits until the daemon is healthy; `alive` tells whether it is worth waiting.
pub(crate) fn wait_until_healthy(patience: Duration, mut alive: impl FnMut() -> bool) -> Result<()> {
    let start = Instant::now();
    loop {
        let Err(error) = get("/healthz") else { return Ok(()) };
        if !alive() {
            bail!("the daemon ended before it was healthy");
        }
        if start.elapsed() > patience {
            return Err(error.context(format!("the daemon was not healthy within {patience:?}")));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Every series of a text exposition.
pub(crate) fn parse(text: &str) -> Result<Series> {
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').with_context(|| format!("odd sample {line:?}"))?;
            let value: f64 = value.parse().with_context(|| format!("odd value in {line:?}"))?;
            Ok((series.to_owned(), value))
        })
        .collect()
}

/// What moved from `before` to `after`; a series that came into being counts from 0.
pub(crate) fn delta(before: &Series, after: &Series) -> Series {
    after
        .iter()
        .map(|(series, value)| (series.clone(), value - before.get(series).unwrap_or(&0.0)))
        .filter(|(_, moved)| *moved != 0.0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_keep_their_labels() {
        let series = parse("# HELP a b\n# TYPE a counter\na{x=\"1 2\"} 3\nb 4.5\n").unwrap();
        assert_eq!(series, Series::from([("a{x=\"1 2\"}".into(), 3.0), ("b".into(), 4.5)]));
        assert!(parse("a{} x\n").is_err());
    }

    #[test]
    fn deltas_leave_out_what_stood_still() {
        let before = Series::from([("a".into(), 1.0), ("b".into(), 2.0)]);
        let after = Series::from([("a".into(), 1.0), ("b".into(), 5.0), ("c".into(), 1.0)]);
        assert_eq!(delta(&before, &after), Series::from([("b".into(), 3.0), ("c".into(), 1.0)]));
    }
}
