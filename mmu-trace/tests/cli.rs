//! The command as a user meets it: what it prints and how it exits.

use std::{
    fs::File,
    process::{Command, Output, Stdio},
};

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
