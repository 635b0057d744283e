//! What a running `replay` has given up, as the kernel and its own metrics tell it, and what those have that read
//! a capture.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;

use crate::{
    fixture,
    pki::Authority,
    served::{Served, capture, get},
};

/// The status of every thread of `served`, once it has served something.
fn statuses(served: &Served) -> Vec<String> {
    assert!(served.metrics().contains("mmu_trace_build_info"));
    let tasks = fs::read_dir(format!("/proc/{}/task", served.pid())).unwrap();
    let tasks: Vec<PathBuf> = tasks.map(|task| task.unwrap().path().join("status")).collect();
    assert!(tasks.len() > 1, "it has one thread alone: {tasks:?}");
    tasks.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}

fn field(status: &str, name: &str) -> String {
    status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
}

#[test]
fn every_thread_has_given_up_what_it_does_not_need() {
    let dir = TempDir::new().unwrap();
    let served = Served::start(&capture(dir.path(), &[fixture::noop()]), &[]);
    for status in statuses(&served) {
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(field(&status, set), "0000000000000000", "{set}");
        }
        assert_eq!((field(&status, "NoNewPrivs:").as_str(), field(&status, "Seccomp:").as_str()), ("1", "2"));
    }
    let metrics = served.metrics();
    for layer in ["no_new_privs", "no_core_dumps", "capabilities", "seccomp"] {
        assert!(
            metrics.contains(&format!("mmu_trace_sandbox{{layer=\"{layer}\",reason=\"\"}} 1\n")),
            "{layer}"
        );
    }
    assert!(metrics.contains("mmu_trace_sandbox{layer=\"landlock\""));
    assert!(served.messages.contains("sandbox: no_new_privs"), "{}", served.messages);
    // What it is asked for takes nothing that it has not.
    assert!(metrics.contains("process_open_fds") && !get(served.address, "/").is_empty());
}

#[test]
fn who_does_not_want_it_keeps_everything_and_sees_that() {
    let dir = TempDir::new().unwrap();
    let served = Served::start(&capture(dir.path(), &[fixture::noop()]), &["--no-sandbox"]);
    let own = fs::read_to_string("/proc/self/status").unwrap();
    for status in statuses(&served) {
        for name in ["CapPrm:", "CapEff:", "NoNewPrivs:", "Seccomp:"] {
            assert_eq!(field(&status, name), field(&own, name), "{name}");
        }
    }
    let off = "mmu_trace_sandbox{layer=\"seccomp\",reason=\"--no-sandbox\"} 0\n";
    assert!(served.metrics().contains(off));
    let said = "sandbox: nothing is given up: --no-sandbox\n";
    assert!(served.messages.contains(said), "{}", served.messages);
}

#[test]
fn certificates_are_renewed_in_their_folders_and_read_from_no_other() {
    let dir = TempDir::new().unwrap();
    let (etc, live, archive, other) = (
        dir.path().join("etc"),
        dir.path().join("live"),
        dir.path().join("archive"),
        dir.path().join("other"),
    );
    for folder in [&etc, &live, &archive, &other] {
        fs::create_dir(folder).unwrap();
        Authority::new().server().write(folder, "1");
        Authority::new().server().write(folder, "2");
    }
    // As certbot does it.
    let point_to = |n: u32| {
        for kind in ["crt", "key"] {
            _ = fs::remove_file(live.join(format!("s.{kind}")));
            std::os::unix::fs::symlink(archive.join(format!("{n}.{kind}")), live.join(format!("s.{kind}")))
                .unwrap();
        }
    };
    point_to(1);
    let config = etc.join("web.yml");
    let configure = |folder: &str| {
        let text = format!("tls_server_config: {{cert_file: ../{folder}.crt, key_file: ../{folder}.key}}\n");
        fs::write(&config, text).unwrap();
    };
    configure("live/s");
    let args = ["--web.config.file", config.to_str().unwrap()];
    let mut served = Served::start(&capture(dir.path(), &[fixture::noop()]), &args);
    let plain = || String::from_utf8(get(served.address, "/healthz")).unwrap();
    let speaks_https = |answer: &str| answer.ends_with("speaks HTTPS\n");
    assert!(speaks_https(&plain()));
    point_to(2);
    assert!(speaks_https(&plain()));
    configure("etc/2");
    assert!(speaks_https(&plain()));
    if !served.messages.contains("landlock") || served.messages.contains("without landlock") {
        println!("skipped in part: this kernel has no Landlock, and every file can be read");
        return;
    }
    configure("other/1");
    assert!(!crate::served::try_get(served.address, "/healthz").is_ok_and(|answer| !answer.is_empty()));
    let said = served.next_message();
    assert!(said.contains("nobody is let in") && said.contains("restart"), "{said}");
}

/// A capture of which nothing can be read yet.
fn pending_capture(dir: &TempDir) -> PathBuf {
    let path = dir.path().join("pending.mmt");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    path
}

#[test]
fn a_capture_is_read_with_nothing_left() {
    let dir = TempDir::new().unwrap();
    let path = pending_capture(&dir);
    let page = dir.path().join("page.html");
    let commands: [&[&str]; 3] = [
        &["report", "--format", "html", "-o", page.to_str().unwrap()],
        &["replay", "--listen", "127.0.0.1:0"],
        &["top", "--once", "--replay"],
    ];
    for args in commands {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mmu-trace"));
        let mut child = command.args(args).arg(&path).stdout(Stdio::null()).spawn().unwrap();
        // Opening the capture waits for somebody who writes it, and everything comes before that.
        let status = || fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let is_confined = || field(&status(), "Seccomp:") == "2";
        for _ in 0..1_000 {
            if is_confined() {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        assert!(is_confined(), "{args:?}");
        let kept = u64::from_str_radix(&field(&status(), "CapEff:"), 16).unwrap();
        // CAP_NET_BIND_SERVICE: the address is bound once the capture is known to be one.
        let allowed = if args[0] == "replay" { 1 << 10 } else { 0 };
        assert_eq!(kept & !allowed, 0, "{args:?}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn another_users_capture_is_read_by_root() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: run it as root");
        return;
    }
    let dir = TempDir::new().unwrap();
    let path = capture(dir.path(), &[fixture::noop()]);
    for owned in [path.as_path(), dir.path()] {
        std::os::unix::fs::chown(owned, Some(65_534), Some(65_534)).unwrap();
    }
    let report = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mmu-trace"));
        command.arg("report").arg(&path).args(args).output().unwrap()
    };
    let output = report(&[]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let page = dir.path().join("page.html");
    let output = report(&["--format", "html", "-o", page.to_str().unwrap()]);
    assert!(output.status.success() && page.exists(), "{output:?}");
}
