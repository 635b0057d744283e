//! A running `mmu-trace replay` of a capture made from hand-built snapshots.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Stdio},
    time::Duration,
};

use mmu_trace::{
    capture::{EndReason, Meta, Writer},
    model::Snapshot,
};
use rustix::process::{Pid, Signal, kill_process};

/// Writes a capture of `snapshots`.
pub(crate) fn capture(dir: &Path, snapshots: &[Snapshot]) -> PathBuf {
    let path = dir.join("c.mmt");
    let meta = Meta {
        tool_version: "0.1.0".to_owned(),
        host: snapshots[0].host.clone(),
        start_unix_ns: 1,
        start_monotonic_ns: 5,
        hooks: Vec::new(),
        command: Vec::new(),
        vm_filter: Vec::new(),
    };
    let mut writer = Writer::create(&path, &meta).unwrap();
    for snapshot in snapshots {
        writer.write_snapshot(snapshot).unwrap();
    }
    writer.finish(EndReason::Duration, 0).unwrap();
    path
}

/// A program that serves; it is killed when the test drops it.
pub(crate) struct Served {
    child: Child,
    said: BufReader<ChildStderr>,
    /// What it has said so far.
    pub(crate) messages: String,
    pub(crate) address: SocketAddr,
}

impl Served {
    /// Starts `replay` of `capture` on a free port.
    pub(crate) fn start(capture: &Path, args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mmu-trace"))
            .arg("replay")
            .arg(capture)
            .args(["--listen", "127.0.0.1:0"])
            .args(args)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut served = Self { child, said, messages: String::new(), address };
        while served.address.port() == 0 {
            let line = served.next_message();
            if let Some(url) = line.trim().strip_prefix("mmu-trace: serving ") {
                let (_, address) = url.split_once("://").unwrap();
                served.address = address.strip_suffix("/metrics").unwrap().parse().unwrap();
            }
        }
        served
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line that it says.
    pub(crate) fn next_message(&mut self) -> String {
        let mut line = String::new();
        assert!(self.said.read_line(&mut line).unwrap() > 0, "it ended: {}", self.messages);
        self.messages.push_str(&line);
        line
    }

    /// The text of `/metrics`.
    pub(crate) fn metrics(&self) -> String {
        let answer = String::from_utf8(get(self.address, "/metrics")).unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    /// Asks it to end as a service manager would; its exit code and the rest of what it said.
    pub(crate) fn stop(mut self) -> (Option<i32>, String) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).unwrap();
        let mut rest = String::new();
        self.said.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // After a stop it is gone already.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// The whole answer to a `GET`.
pub(crate) fn get(address: SocketAddr, path: &str) -> Vec<u8> {
    try_get(address, path).unwrap()
}

/// The same of a server that may not be there.
pub(crate) fn try_get(address: SocketAddr, path: &str) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// Cuts the end of a file off.
pub(crate) fn truncate(path: &Path, bytes: usize) {
    let mut content = fs::read(path).unwrap();
    content.truncate(content.len() - bytes);
    fs::write(path, content).unwrap();
}
