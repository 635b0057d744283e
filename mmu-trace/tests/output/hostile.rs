//! Clients that are slow or mean harm, against a real `mmu-trace replay`: meanwhile another client's scrape
//! stays fast and the server's memory flat.

use std::{
    fs,
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use mmu_trace::model::{Snapshot, VmIdentity};
use tempfile::TempDir;

use crate::{
    fixture,
    pki::Authority,
    served::{Served, capture},
};

/// A scrape takes milliseconds. On a busy machine it may take longer, but far less than the server waits for
/// a slow client.
const FAST: Duration = Duration::from_secs(3);
/// What connections may cost the server: their buffers, and what the allocator keeps of them.
const FLAT_KIB: u64 = 16 << 10;
/// What answers may take that nobody reads.
const UNREAD_KIB: u64 = 64 << 10;
const REQUEST: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";

struct Victim {
    served: Served,
    before_kib: u64,
    _dir: TempDir,
}

impl Victim {
    fn start(n_vms: usize) -> Self {
        let dir = TempDir::new().unwrap();
        let served = Served::start(&capture(dir.path(), &[crowded(n_vms)]), &[]);
        Self::warmed_up(served, dir)
    }

    /// What the first scrapes allocate stays.
    fn warmed_up(served: Served, dir: TempDir) -> Self {
        let mut victim = Self { served, before_kib: 0, _dir: dir };
        for _ in 0..5 {
            victim.scrape();
        }
        victim.before_kib = victim.resident_kib();
        victim
    }

    fn address(&self) -> SocketAddr {
        self.served.address
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// How long the scrape of somebody else takes, as Prometheus does it.
    fn scrape(&self) -> Duration {
        let start = Instant::now();
        let mut stream = self.connect();
        write!(
            stream,
            "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(&answer));
        start.elapsed()
    }

    /// Scrapes for a while.
    fn is_served_for(&self, duration: Duration) {
        let (start, mut slowest) = (Instant::now(), Duration::ZERO);
        while start.elapsed() < duration {
            let took = self.scrape();
            assert!(took < FAST, "a scrape took {took:?}");
            slowest = slowest.max(took);
            thread::sleep(Duration::from_millis(50));
        }
        println!("the slowest scrape took {slowest:?}");
    }

    fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.served.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    fn has_grown_by_at_most(&self, kib: u64) {
        let now = self.resident_kib();
        println!("resident memory went from {} to {now} KiB", self.before_kib);
        assert!(now < self.before_kib + kib, "from {} to {now} KiB", self.before_kib);
    }

    fn metric(&self, name: &str) -> u64 {
        let metrics = self.served.metrics();
        metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap()
    }
}

/// A host with many VMs.
fn crowded(n_vms: usize) -> Snapshot {
    let mut snapshot = fixture::noop();
    let vm = snapshot.vms.remove(0);
    for n in 0..n_vms {
        let identity =
            VmIdentity { name: format!("vm{n}"), uuid: None, pid: n as u32 + 1, ..vm.identity.clone() };
        snapshot.vms.push(mmu_trace::model::Vm { identity, ..vm.clone() });
    }
    snapshot
}

/// Ends the attack when the test does, also if it fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Whether the server has ended the connection, or does within 20 seconds.
fn is_ended(mut stream: &TcpStream) -> bool {
    loop {
        match stream.read(&mut [0; 4096]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }
}

#[test]
fn headers_that_come_byte_by_byte() {
    let victim = Victim::start(1);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut streams: Vec<TcpStream> = (0..1_000).map(|_| victim.connect()).collect();
            for byte in b"GET /metrics HTTP/1.1\r\nX-Slow: ".iter().chain([b'a'; 1_000].iter()) {
                // One that was ended comes again at once.
                for stream in &mut streams {
                    if stream.write_all(&[*byte]).is_err() {
                        *stream = victim.connect();
                    }
                }
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                thread::sleep(Duration::from_millis(50));
            }
        });
        let _over = Over(&is_over);
        victim.is_served_for(Duration::from_secs(4));
        victim.has_grown_by_at_most(FLAT_KIB);
    });
    assert!(victim.metric("mmu_trace_http_evictions_total ") > 500);
}

#[test]
fn ten_thousand_connections() {
    let victim = Victim::start(1);
    let mut streams = Vec::new();
    for _ in 0..10 {
        streams.extend((0..1_000).map(|_| victim.connect()));
        assert!(victim.scrape() < FAST);
        victim.has_grown_by_at_most(FLAT_KIB);
    }
    victim.is_served_for(Duration::from_secs(1));
    let ended = streams.iter().take(9_000).filter(|stream| is_ended(stream)).count();
    assert_eq!(ended, 9_000);
}

#[test]
fn answers_that_nobody_reads() {
    let victim = Victim::start(60);
    let mut streams: Vec<TcpStream> = (0..400).map(|_| victim.connect()).collect();
    for stream in &mut streams {
        // Some are ended by now to make room for others.
        _ = stream.write_all(REQUEST);
    }
    victim.is_served_for(Duration::from_secs(4));
    victim.has_grown_by_at_most(FLAT_KIB + UNREAD_KIB);
}

#[test]
fn requests_that_never_end() {
    let victim = Victim::start(1);
    let mut streams: Vec<TcpStream> = (0..200).map(|_| victim.connect()).collect();
    let head = b"POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (n, stream) in streams.iter_mut().enumerate() {
        // A body without an end, or headers without one.
        stream.write_all(if n % 2 == 0 { head } else { b"GET / HTTP/1.1\r\n" }).unwrap();
        let part = if n % 2 == 0 {
            format!("400\r\n{}\r\n", "a".repeat(1_024))
        } else {
            format!("X-{n}: {}\r\n", "a".repeat(1_024))
        };
        for _ in 0..1_024 {
            if stream.write_all(part.as_bytes()).is_err() {
                break;
            }
        }
    }
    victim.is_served_for(Duration::from_secs(1));
    victim.has_grown_by_at_most(FLAT_KIB);
    assert!(streams.iter().skip(1).step_by(2).all(is_ended), "headers of a megabyte are taken");
}

#[test]
fn headers_that_are_too_long_are_refused() {
    let victim = Victim::start(1);
    let ask = |header: String| -> io::Result<String> {
        let mut stream = victim.connect();
        write!(stream, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n")?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    assert_eq!(ask(format!("X: {}\r\n", "a".repeat(8 << 10))).unwrap(), "HTTP/1.1 200");
    assert_eq!(ask(format!("X: {}\r\n", "a".repeat(15 << 10))).unwrap(), "HTTP/1.1 200");
    let answer = ask(format!("X: {}\r\n", "a".repeat(17 << 10)));
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer == "HTTP/1.1 431"));
    assert_eq!(ask("X: a\r\n".repeat(200)).unwrap(), "HTTP/1.1 431");
}

#[test]
fn garbage() {
    let victim = Victim::start(1);
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random as u8
    };
    let kinds: [Vec<u8>; 6] = [
        (0..4_096).map(|_| next()).collect(),
        vec![0; 4_096],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(100),
        b"GET\0 /metrics HTTP/9.9\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"GET /metrics HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdefgh".to_vec(),
    ];
    for _ in 0..50 {
        for bytes in &kinds {
            let mut stream = victim.connect();
            // It may hang up before everything is sent.
            _ = stream.write_all(bytes);
            _ = stream.shutdown(std::net::Shutdown::Write);
            assert!(is_ended(&stream), "{:?}", String::from_utf8_lossy(&bytes[..20.min(bytes.len())]));
        }
    }
    victim.is_served_for(Duration::from_millis(200));
    victim.has_grown_by_at_most(FLAT_KIB);
}

#[test]
fn ten_thousand_requests_at_once_on_each_connection() {
    let victim = Victim::start(60);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut stream = victim.connect();
                stream.set_nonblocking(true).unwrap();
                let requests = REQUEST.repeat(10_000);
                let mut sent = 0;
                while sent < requests.len() && !is_over.load(Ordering::Relaxed) {
                    match stream.write(&requests[sent..]) {
                        Ok(n) => sent += n,
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {
                            thread::sleep(Duration::from_millis(20));
                        }
                        Err(_) => return,
                    }
                }
            });
        }
        let _over = Over(&is_over);
        victim.is_served_for(Duration::from_secs(3));
        victim.has_grown_by_at_most(FLAT_KIB + UNREAD_KIB);
    });
}

#[test]
fn many_who_scrape_again_and_again() {
    let victim = Victim::start(60);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let mut stream = victim.connect();
                    _ = stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n");
                    _ = io::copy(&mut stream, &mut io::sink());
                }
            });
        }
        let _over = Over(&is_over);
        victim.is_served_for(Duration::from_secs(3));
        victim.has_grown_by_at_most(FLAT_KIB + UNREAD_KIB);
    });
}

#[test]
fn handshakes_that_never_end() {
    /// What the server waits for a handshake.
    const HANDSHAKE: Duration = Duration::from_secs(10);
    let dir = TempDir::new().unwrap();
    let authority = Authority::new();
    authority.server().write(dir.path(), "s");
    let config = dir.path().join("web.yml");
    fs::write(&config, "tls_server_config: {cert_file: s.crt, key_file: s.key}\n").unwrap();
    let args = ["--web.config.file", config.to_str().unwrap()];
    let served = Served::start(&capture(dir.path(), &[fixture::noop()]), &args);
    let scrape = || {
        let start = Instant::now();
        let answer = crate::tls::ask(&authority, served.address, None, "", "/metrics").unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        (start.elapsed(), answer)
    };
    scrape();
    let start = Instant::now();
    // Few enough that none has to make room.
    let connect = |n: usize| {
        let mut stream = TcpStream::connect(served.address).unwrap();
        stream.set_read_timeout(Some(3 * HANDSHAKE)).unwrap();
        // Nothing at all, or the beginning of a ClientHello.
        stream.write_all(&b"\x16\x03\x01\x02\x00\x01"[..n % 7]).unwrap();
        stream
    };
    let streams: Vec<TcpStream> = (0..100).map(connect).collect();
    while start.elapsed() < HANDSHAKE / 2 {
        assert!(scrape().0 < FAST);
    }
    assert!(streams.iter().all(is_ended));
    let took = start.elapsed();
    assert!(took > HANDSHAKE / 2 && took < 2 * HANDSHAKE, "{took:?}");
    let rejected = "mmu_trace_http_rejections_total{rejection=\"handshake\"} 100\n";
    assert!(scrape().1.contains(rejected));
    let crowd: Vec<TcpStream> = (0..2_000).map(connect).collect();
    assert!(scrape().0 < FAST);
    drop(crowd);
}
