//! The helper that looks at descriptors: what it answers, what it may do, and when it ends.

use std::{
    fs,
    io::{Read, Write},
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

struct Helper {
    child: Child,
    stream: UnixStream,
}

impl Helper {
    fn start() -> Self {
        let (stream, theirs) = UnixStream::pair().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_mmu-trace"))
            .arg("descriptors")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { child, stream }
    }

    /// VMs of process `pid`, or minus the system's error.
    fn ask(&mut self, pid: u32) -> i64 {
        self.stream.write_all(&pid.to_ne_bytes()).unwrap();
        let mut answer = [0; 8];
        self.stream.read_exact(&mut answer).unwrap();
        i64::from_ne_bytes(answer)
    }

    /// What it says until it ends, after nobody can ask any more.
    fn end(mut self) -> String {
        drop(self.stream);
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(self.child.wait().unwrap().success());
        said
    }
}

#[test]
fn processes_of_anybody_are_looked_at() {
    let mut helper = Helper::start();
    assert_eq!(helper.ask(std::process::id()), 0);
    // Beyond the largest process id there is.
    assert_eq!(helper.ask(1 << 30), -i64::from(libc::ENOENT));
    if rustix::process::geteuid().is_root() {
        let mut sleep = Command::new("sleep").arg("60").uid(65_534).gid(65_534).spawn().unwrap();
        assert_eq!(helper.ask(sleep.id()), 0);
        sleep.kill().unwrap();
        sleep.wait().unwrap();
    } else {
        println!("skipped in part: run it as root");
    }
    assert_eq!(helper.end(), "");
}

#[test]
fn it_keeps_two_capabilities_and_its_own_filter() {
    let mut helper = Helper::start();
    assert_eq!(helper.ask(std::process::id()), 0);
    let status = fs::read_to_string(format!("/proc/{}/status", helper.child.id())).unwrap();
    for line in ["NoNewPrivs:\t1\n", "Seccomp:\t2\n"] {
        assert!(status.contains(line), "{status}");
    }
    if rustix::process::geteuid().is_root() {
        // CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE.
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            assert!(status.contains(&format!("{set}:\t0000000000080004\n")), "{status}");
        }
    } else {
        println!("skipped in part: run it as root");
    }
    assert_eq!(helper.end(), "");
}

#[test]
fn signals_do_not_end_it() {
    let mut helper = Helper::start();
    assert_eq!(helper.ask(std::process::id()), 0);
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        kill_process(Pid::from_child(&helper.child), signal).unwrap();
    }
    thread::sleep(Duration::from_millis(50));
    assert_eq!(helper.ask(std::process::id()), 0);
    assert_eq!(helper.end(), "");
}
