//! What a service manager hears of a server: a real socket, and the real program.

use std::{
    net::TcpListener,
    os::unix::net::UnixDatagram,
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{
    fixture,
    served::{capture, get},
};

/// Longer than a slow machine needs.
const PATIENCE: Duration = Duration::from_secs(20);

fn hear(socket: &UnixDatagram) -> String {
    let mut message = [0; 1_024];
    let n = socket.recv(&mut message).unwrap();
    String::from_utf8(message[..n].to_vec()).unwrap()
}

#[test]
fn a_manager_hears_ready_once_the_address_is_served_and_stopping_at_the_end() {
    let dir = TempDir::new().unwrap();
    let path = capture(dir.path(), &[fixture::noop()]);
    let name = dir.path().join("notify");
    let socket = UnixDatagram::bind(&name).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut server = Command::new(env!("CARGO_BIN_EXE_mmu-trace"))
        .args(["replay", path.to_str().unwrap(), "--listen", &address.to_string()])
        .env("NOTIFY_SOCKET", &name)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    assert_eq!(hear(&socket), format!("STATUS=replaying {}\n", path.display()));
    assert_eq!(hear(&socket), "READY=1\n");
    assert!(!get(address, "/metrics").is_empty());
    kill_process(Pid::from_child(&server), Signal::TERM).unwrap();
    assert_eq!(hear(&socket), "STOPPING=1\n");
    assert_eq!(server.wait().unwrap().code(), Some(0));
    socket.set_nonblocking(true).unwrap();
    assert!(socket.recv(&mut [0]).is_err(), "nothing else was said");
}
