//! `mmu-trace replay` as a user and a scraper meet it.

use std::{
    fs,
    process::{Command, Output},
    thread,
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    fixture,
    served::{Served, capture, get, truncate},
};

const MERGES: &str =
    "mmu_trace_ksm_merges_total{domain=\"web1\",uuid=\"7b0f1a4e-3c0e-4b53-9c1d-0d6a2f6f2a11\"}";

fn replay(args: &[&str]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } =
        Command::new(env!("CARGO_BIN_EXE_mmu-trace")).arg("replay").args(args).output().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

#[test]
fn the_last_figures_are_served_as_the_daemon_would() {
    let dir = TempDir::new().unwrap();
    let path = capture(dir.path(), &[fixture::empty(), fixture::noop()]);
    let served = Served::start(&path, &[]);
    let metrics = served.metrics();
    assert!(metrics.contains(&format!("{MERGES} 1024\n")), "{metrics}");
    assert!(!metrics.contains("mmu_trace_attachments_total"), "a replay attaches nothing");
    let page = String::from_utf8(get(served.address, "/")).unwrap();
    assert!(page.contains("6.1.0-38-cloud-amd64"), "{page}");
    assert!(served.messages.contains("its last figures, after 30.0 s\n"), "{}", served.messages);
    assert_eq!(served.stop(), (Some(0), "mmu-trace: stopped\n".to_owned()));
}

#[test]
fn a_vm_that_had_ended_is_told_of_and_has_no_series() {
    let mut snapshot = fixture::noop();
    snapshot.vms[0].alive = false;
    let dir = TempDir::new().unwrap();
    let served = Served::start(&capture(dir.path(), &[snapshot]), &[]);
    assert!(!served.metrics().contains("web1"));
    assert!(served.messages.contains("1 of its 2 VMs had ended"), "{}", served.messages);
}

#[test]
fn a_capture_is_played_from_its_beginning() {
    let mut first = fixture::noop();
    first.window.seconds = 0.0;
    first.vms[0].counters.ksm_merges = 3;
    let dir = TempDir::new().unwrap();
    let path = capture(dir.path(), &[first, fixture::noop()]);
    let slow = Served::start(&path, &["--speed", "0.001"]);
    assert!(slow.metrics().contains(&format!("{MERGES} 3\n")));
    let fast = Served::start(&path, &["--speed", "1e9"]);
    assert!(fast.metrics().contains(&format!("{MERGES} 1024\n")));
}

#[test]
fn a_truncated_capture_is_served_and_refused_at_the_end() {
    let dir = TempDir::new().unwrap();
    let path = capture(dir.path(), &[fixture::noop()]);
    truncate(&path, 1);
    let served = Served::start(&path, &[]);
    assert!(served.messages.contains("its end is missing"), "{}", served.messages);
    assert!(served.metrics().contains(MERGES));
    let (code, rest) = served.stop();
    assert_eq!(code, Some(4));
    assert!(rest.contains("the metrics show the last figures that could be read\n"), "{rest}");
}

#[test]
fn what_cannot_be_replayed_is_refused_at_once() {
    let dir = TempDir::new().unwrap();
    let path = capture(dir.path(), &[fixture::noop()]);
    let file = path.to_str().unwrap();
    let (code, message) = replay(&[file, "--speed", "0"]);
    assert!(code == Some(2) && message.contains("must be a number above 0"), "{message}");
    let (code, message) = replay(&["/proc/none/c.mmt"]);
    assert!(code == Some(1) && message.contains("cannot open /proc/none/c.mmt"), "{message}");
    let (code, message) = replay(&[env!("CARGO_BIN_EXE_mmu-trace")]);
    assert!(code == Some(4) && message.contains("is not a capture"), "{message}");
    let served = Served::start(&path, &[]);
    let (code, message) = replay(&[file, "--listen", &served.address.to_string()]);
    assert!(code == Some(1) && message.contains("another mmu-trace may be running"), "{message}");
    truncate(&path, fs::metadata(&path).unwrap().len() as usize - 20);
    let (code, message) = replay(&[file]);
    assert!(code == Some(4) && message.contains("there is nothing to show; record again"), "{message}");
}

/// Waits until `is_there` says so.
fn wait_for(what: &str, is_there: impl Fn() -> bool) {
    for _ in 0..1_000 {
        if is_there() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("{what} did not come");
}

#[test]
fn the_text_file_has_the_same_figures_while_it_runs() {
    let dir = TempDir::new().unwrap();
    let path = capture(dir.path(), &[fixture::noop()]);
    let textfile = dir.path().join("mmu-trace.prom");
    let served = Served::start(&path, &["--textfile", textfile.to_str().unwrap()]);
    wait_for("the text file", || textfile.exists());
    assert!(fs::read_to_string(&textfile).unwrap().contains(&format!("{MERGES} 1024\n")));
    assert_eq!(served.stop().0, Some(0));
    assert!(!textfile.exists());
}

#[test]
fn a_text_file_that_cannot_be_written_is_said_once_and_stops_nothing() {
    let dir = TempDir::new().unwrap();
    let path = capture(dir.path(), &[fixture::noop()]);
    let mut served = Served::start(&path, &["--textfile", "/dev/full", "--textfile-interval", "10ms"]);
    assert_eq!(
        served.next_message(),
        "mmu-trace: writing /dev/full: No space left on device (os error 28)\n"
    );
    wait_for("a third failure", || {
        let metrics = served.metrics();
        let errors = metrics.lines().find_map(|line| line.strip_prefix("mmu_trace_textfile_errors_total "));
        errors.unwrap().parse::<u32>().unwrap() >= 3
    });
    assert_eq!(served.stop(), (Some(0), "mmu-trace: stopped\n".to_owned()));
}

#[test]
fn an_interval_without_a_text_file_is_wrong_usage() {
    let (code, message) = replay(&["c.mmt", "--textfile-interval", "1s"]);
    assert!(code == Some(2) && message.contains("--textfile"), "{message}");
}
