//! The command as a user meets it: what it prints and how it exits.

use std::{
    fs::{self, File, Permissions},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Command, Output, Stdio},
};

use mmu_trace::{
    capture::{EndReason, Meta, Writer},
    model::{Counters, Histograms, Host, KsmAccount, Quality, Snapshot, Vm, VmIdentity, Window},
};
use mmu_trace_ebpf::kind::{Cause, Outcome};
use tempfile::TempDir;

fn mmu_trace(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mmu-trace"));
    command.args(args);
    command
}

fn run(args: &[&str]) -> (Option<i32>, Output) {
    let output = mmu_trace(args).output().unwrap();
    (output.status.code(), output)
}

#[test]
fn help_documents_the_exit_codes() {
    let (code, output) = run(&["--help"]);
    let help = String::from_utf8(output.stdout).unwrap();
    assert_eq!(code, Some(0));
    assert!(help.contains("this host cannot be traced") && help.contains("130"), "{help}");
}

#[test]
fn wrong_usage_exits_with_2() {
    for args in [&["--nonsense"][..], &["report"], &["report", "x", "--format", "pdf"], &[]] {
        assert_eq!(run(args).0, Some(2), "{args:?}");
    }
}

#[test]
fn vms_lists_as_json() {
    let (code, output) = run(&["vms", "--format", "json"]);
    assert_eq!(code, Some(0));
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(list["schema"], "mmu-trace-vms/1");
    assert!(list["vms"].is_array());
}

#[test]
fn a_reader_that_went_away_is_no_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = mmu_trace(&["vms"]).stdout(writer).status().unwrap();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_full_disk_is_an_error() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output =
        mmu_trace(&["vms"]).stdout(full).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(message.starts_with("mmu-trace: error: writing standard output: "), "{message}");
}

/// A host, a VM and `calls` calls of `change_pte`, so that each snapshot's report is recognised.
fn snapshot(calls: u64) -> Snapshot {
    let outcomes = [(Outcome::NoopZappedByBracket, calls)].into();
    let counters = Counters { change_pte: [(Cause::KsmReplace, outcomes)].into(), ..Counters::default() };
    let identity = VmIdentity { name: "guest".to_owned(), pid: 7, ..VmIdentity::default() };
    Snapshot {
        host: host(),
        window: Window { start_unix_ns: 1, seconds: 2.5 },
        quality: Quality::default(),
        vms: vec![Vm {
            identity,
            mmu: None,
            alive: true,
            counters,
            histograms: None,
            ksm: KsmAccount::default(),
        }],
        unattributed: Counters::default(),
        histograms: Histograms::default(),
        ksm: None,
        programs: None,
    }
}

fn host() -> Host {
    Host { kernel: "6.1.0-56-cloud-amd64".to_owned(), arch: "x86_64".to_owned(), has_change_pte: true }
}

/// A whole capture: two snapshots, of 111 and 222 calls, and the end mark.
fn capture() -> Vec<u8> {
    let meta = Meta {
        tool_version: "0.1.0".to_owned(),
        host: host(),
        start_unix_ns: 1,
        start_monotonic_ns: 5,
        hooks: Vec::new(),
        command: Vec::new(),
        vm_filter: Vec::new(),
    };
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("whole");
    let mut writer = Writer::create(&path, &meta).unwrap();
    writer.write_snapshot(&snapshot(111)).unwrap();
    writer.write_snapshot(&snapshot(222)).unwrap();
    writer.finish(EndReason::Duration, 0).unwrap();
    fs::read(path).unwrap()
}

/// Where the blocks of [`capture`] start: META, two SNAPSHOTs, END.
fn blocks(bytes: &[u8]) -> Vec<usize> {
    let magic = 0xb10c_6d74_u32.to_le_bytes();
    let starts: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at..].starts_with(&magic)).collect();
    assert_eq!(starts.len(), 4);
    starts
}

/// What `report` made of a file.
struct Reported {
    code: Option<i32>,
    text: String,
    message: String,
}

/// Runs `report` on a file of `bytes` and makes sure that it leaves them alone.
fn report(bytes: &[u8]) -> Reported {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("c.mmut");
    fs::write(&path, bytes).unwrap();
    let reported = report_path(&path);
    assert_eq!(fs::read(&path).unwrap(), bytes, "the capture was changed");
    reported
}

fn report_path(path: &Path) -> Reported {
    let (code, output) = run(&["report", path.to_str().unwrap()]);
    Reported { code, text: text(output.stdout), message: text(output.stderr) }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// The command failed with `code`, said `words` in one line, and printed nothing else.
fn assert_refused(reported: &Reported, code: i32, words: &[&str]) {
    let message = &reported.message;
    assert_eq!((reported.code, reported.text.as_str()), (Some(code), ""), "{message}");
    assert!(message.starts_with("mmu-trace: error: ") && message.lines().count() == 1, "{message}");
    for word in words {
        assert!(message.contains(word), "{word:?} is not in: {message}");
    }
}

/// The report of the snapshot of `calls` calls was printed all the same, and `words` were said.
fn assert_shown(reported: &Reported, calls: &str, words: &[&str]) {
    let Reported { code, text, message } = reported;
    assert_eq!(*code, Some(4), "{message}");
    assert!(text.starts_with(&format!("change_pte was a no-op in {calls} of {calls} calls")), "{text}");
    for word in words {
        assert!(message.contains(word), "{word:?} is not in: {message}");
    }
}

#[test]
fn a_whole_capture_is_reported_without_a_word_beside() {
    let reported = report(&capture());
    assert_eq!((reported.code, reported.message.as_str()), (Some(0), ""));
    assert!(reported.text.contains("222 of 222 calls"), "{}", reported.text);
}

#[test]
fn a_truncated_capture_shows_its_last_intact_figures() {
    let bytes = capture();
    let starts = blocks(&bytes);
    let cases = [
        (bytes.len() - 1, "222", starts[3]),
        (starts[3], "222", starts[3]),
        (starts[3] - 1, "111", starts[2]),
    ];
    for (len, calls, end) in cases {
        let reported = report(&bytes[..len]);
        let missing = format!("c.mmut: its end is missing, from byte {end} on; ");
        assert_shown(&reported, calls, &[&missing, "the report shows the last figures that could be read\n"]);
        let text = reported.text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains("the end of the capture is missing or damaged"), "{text}");
        assert!(!reported.message.contains("damaged"), "{}", reported.message);
    }
}

#[test]
fn a_capture_cut_before_its_first_figures_says_so() {
    let bytes = capture();
    for len in [1, 19, 20, blocks(&bytes)[1]] {
        assert_refused(&report(&bytes[..len]), 4, &["its end is missing", "record again"]);
    }
}

#[test]
fn damage_in_the_middle_costs_only_what_it_hit() {
    let bytes = capture();
    let starts = blocks(&bytes);
    let damaged = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x5a;
        report(&bytes)
    };
    let first = damaged(starts[1] + 30);
    assert_shown(
        &first,
        "222",
        &["bytes are damaged; the last figures are intact and the report shows them\n"],
    );
    assert!(!first.text.contains("INCOMPLETE"), "{}", first.text);
    let last = damaged(starts[2] + 30);
    assert_shown(
        &last,
        "111",
        &["bytes are damaged; the report shows the last figures that could be read\n"],
    );
    assert!(last.text.contains("INCOMPLETE"), "{}", last.text);
}

#[test]
fn damage_and_a_missing_end_are_both_said() {
    let mut bytes = capture();
    let starts = blocks(&bytes);
    bytes[starts[1] + 30] ^= 0x5a;
    let reported = report(&bytes[..starts[3]]);
    assert_shown(&reported, "222", &["bytes are damaged and its end is missing, from byte"]);
}

#[test]
fn a_block_of_a_later_version_does_not_hide_what_is_before_it() {
    let bytes = capture();
    let end = blocks(&bytes)[3];
    let mut block = [0x74, 0x6d, 0x0c, 0xb1, 77].to_vec();
    block.resize(20, 0);
    block.extend(crc32c::crc32c(&block).to_le_bytes());
    let reported = report(&[&bytes[..end], &block, &bytes[end..]].concat());
    assert_shown(
        &reported,
        "222",
        &["unknown type 77", "use a newer mmu-trace", "last figures that could be read"],
    );
}

#[test]
fn a_capture_of_another_version_says_which_program_reads_it() {
    for (at, version, words) in [
        (8, 1, "use the mmu-trace that recorded it, or record again"),
        (8, 100, "use a newer mmu-trace"),
        (12, 100, "use the mmu-trace that recorded it"),
    ] {
        let mut bytes = capture();
        bytes[at] = version;
        let crc = crc32c::crc32c(&bytes[..16]);
        bytes[16..20].copy_from_slice(&crc.to_le_bytes());
        assert_refused(&report(&bytes), 4, &["c.mmut", "version", words]);
    }
}

#[test]
fn what_is_no_capture_is_refused() {
    assert_refused(&report(b""), 4, &["c.mmut is empty", "record again"]);
    assert_refused(&report(b"\x7fELF, say"), 4, &["c.mmut is not a capture", "mmu-trace record"]);
}

#[test]
fn what_cannot_be_opened_is_an_io_error() {
    let dir = TempDir::new().unwrap();
    let missing = report_path(&dir.path().join("none.mmut"));
    assert_refused(&missing, 1, &["cannot open ", "none.mmut: No such file or directory"]);
    assert_refused(&report_path(dir.path()), 1, &["cannot open ", "is a directory"]);
}

#[test]
fn a_capture_is_shown_as_a_page_that_names_it() {
    let dir = TempDir::new().unwrap();
    let (path, page) = (dir.path().join("c.mmt"), dir.path().join("c.html"));
    fs::write(&path, capture()).unwrap();
    let (file, out) = (path.to_str().unwrap(), page.to_str().unwrap());
    let (code, output) = run(&["report", file, "--format", "html", "-o", out]);
    assert_eq!((code, output.stdout.as_slice(), output.stderr.as_slice()), (Some(0), &b""[..], &b""[..]));
    let page = fs::read_to_string(page).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>\n<html") && page.ends_with("</html>\n"));
    assert!(page.contains("222 of 222 calls") && page.contains("<bdi>c.mmt</bdi>"));
}

#[test]
fn a_report_that_cannot_be_written_is_an_io_error() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("c.mmut");
    fs::write(&path, capture()).unwrap();
    let file = path.to_str().unwrap();
    for (out, words) in [
        ("/dev/full", "writing /dev/full: No space left on device"),
        ("/proc/none/report.txt", "writing /proc/none/report.txt: No such file or directory"),
        ("/", "writing /: Is a directory"),
    ] {
        let (code, output) = run(&["report", file, "-o", out]);
        let reported = Reported { code, text: text(output.stdout), message: text(output.stderr) };
        assert_refused(&reported, 1, &[words]);
    }
    assert_eq!(fs::read(&path).unwrap(), capture());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_recording_without_a_length_is_wrong_usage() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("c.mmut");
    for duration in ["0", "0s", "soon", "30", "-5s", ""] {
        let option = format!("--duration={duration}");
        let (code, output) = run(&["record", "-o", path.to_str().unwrap(), &option]);
        let message = text(output.stderr);
        assert_eq!(code, Some(2), "{message}");
        assert!(message.contains("--duration") && message.contains("write 30s, 5min or 1h"), "{message}");
        assert!(!path.exists(), "{duration}");
    }
}

/// Runs `top` on a file of `bytes`, whose output goes to a pipe.
fn top(bytes: &[u8], options: &[&str]) -> Reported {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("c.mmut");
    fs::write(&path, bytes).unwrap();
    let (code, output) = run(&[&["top", "--replay", path.to_str().unwrap()], options].concat());
    Reported { code, text: text(output.stdout), message: text(output.stderr) }
}

#[test]
fn top_prints_the_means_of_a_capture_once() {
    let top = top(&capture(), &["--once"]);
    assert_eq!((top.code, top.message.as_str()), (Some(0), ""));
    let lines: Vec<&str> = top.text.lines().collect();
    assert_eq!(lines[0], "6.1.0-56-cloud-amd64 x86_64, direct, 2.5 s, data complete");
    let head: Vec<&str> = lines[1].split_whitespace().collect();
    let vm: Vec<&str> = lines[2].split_whitespace().collect();
    assert_eq!((lines.len(), head.len(), &head[..4]), (3, vm.len(), &["VM", "pid", "calls/s", "no-op%"][..]));
    assert_eq!(vm[..4], ["guest", "7", "88.8", "100.0"]);
}

#[test]
fn top_without_a_terminal_says_once() {
    let words = ["standard output is not a terminal", "use --once"];
    assert_refused(&top(&capture(), &[]), 2, &words);
    let (code, output) = run(&["top"]);
    let live = Reported { code, text: text(output.stdout), message: text(output.stderr) };
    assert_refused(&live, 2, &words);
}

#[test]
fn top_of_a_truncated_capture_shows_what_there_is() {
    let bytes = capture();
    let top = top(&bytes[..blocks(&bytes)[3] - 1], &["--once"]);
    assert_eq!(top.code, Some(4), "{}", top.message);
    assert!(top.text.contains("44.4") && top.text.contains("INCOMPLETE"), "{}", top.text);
    assert!(top.message.contains("the view shows the last figures that could be read"), "{}", top.message);
}

#[test]
fn top_refuses_what_is_no_capture_and_no_interval() {
    assert_refused(&top(b"\x7fELF, say", &["--once"]), 4, &["c.mmut is not a capture"]);
    for interval in ["0s", "1", "99ms"] {
        let top = top(&capture(), &["--once", "--interval", interval]);
        assert_eq!(top.code, Some(2), "{}", top.message);
        assert!(top.message.contains("--interval"), "{}", top.message);
    }
}

/// The user and group of nobody.
const NOBODY: u32 = 65534;

/// Runs the command as a user without rights; `None` where this process may not become one.
fn run_unprivileged(args: &[&str]) -> Option<Output> {
    if !rustix::process::geteuid().is_root() {
        return Some(mmu_trace(args).output().unwrap());
    }
    // The build's directory may be closed to others.
    let dir = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
    let program = dir.path().join("mmu-trace");
    fs::copy(env!("CARGO_BIN_EXE_mmu-trace"), &program).unwrap();
    let command = Command::new(program).args(args).current_dir("/").uid(NOBODY).gid(NOBODY).output();
    match command {
        Ok(output) => Some(output),
        Err(error) => {
            println!("skipped {args:?}: cannot run a program as user {NOBODY}: {error}");
            None
        }
    }
}

#[test]
fn tracing_without_root_says_sudo() {
    let out = std::env::temp_dir().join(format!("mmu-trace-unprivileged-{}", std::process::id()));
    for args in [
        &["daemon", "--listen", "127.0.0.1:0"][..],
        &["top", "--once"],
        &["record", "--duration", "1s", "-o", out.to_str().unwrap()],
    ] {
        let Some(output) = run_unprivileged(args) else { continue };
        let reported =
            Reported { code: output.status.code(), text: text(output.stdout), message: text(output.stderr) };
        assert_refused(&reported, 3, &["this host cannot be traced: root: ", "run it with sudo"]);
    }
    assert!(!out.exists());
}

#[test]
fn doctor_without_root_tells_what_it_can() {
    let Some(output) = run_unprivileged(&["doctor"]) else { return };
    let (found, message) = (text(output.stdout), text(output.stderr));
    assert_eq!((output.status.code(), message.as_str()), (Some(0), ""));
    for words in ["kernel BTF", "kprobes", "root: run it with sudo", "Hooks: not tried. Run it with sudo"] {
        assert!(found.contains(words), "{words:?} is not in: {found}");
    }
}

#[test]
fn a_capture_of_root_says_sudo_to_others() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can make a file that this user cannot read");
        return;
    }
    let dir = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
    let path = dir.path().join("c.mmut");
    fs::write(&path, capture()).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let Some(output) = run_unprivileged(&["report", path.to_str().unwrap()]) else { return };
    let reported =
        Reported { code: output.status.code(), text: text(output.stdout), message: text(output.stderr) };
    assert_refused(&reported, 1, &["cannot open ", "run it with sudo", "Permission denied"]);
}
