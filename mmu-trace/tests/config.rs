//! Settings as a user gives them: by flag, by variable, by file.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

fn daemon(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mmu-trace"));
    command.arg("daemon").arg("--config.file").arg(config);
    command
}

fn file(text: &str) -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("mmu-trace.toml");
    fs::write(&path, text).unwrap();
    (dir, path)
}

fn printed(output: Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_flag_wins_over_a_variable_over_the_file_over_the_default() {
    let (_dir, path) = file("max-vms = 5\nbackend = \"kprobe\"\ntextfile-interval = \"9s\"\n");
    let mut command = daemon(&path);
    command.env("MMU_TRACE_MAX_VMS", "6").env("MMU_TRACE_BACKEND", "fentry");
    let text = printed(command.args(["--max-vms", "7", "--print-config"]).output().unwrap());
    for line in [
        "max-vms = 7 # flag --max-vms",
        "backend = \"fentry\" # environment variable MMU_TRACE_BACKEND",
        "listen = \"127.0.0.1:9948\" # default",
    ] {
        assert!(text.lines().any(|printed| printed == line), "{line} is not in:\n{text}");
    }
    assert!(text.contains("textfile-interval = \"9s\" # file /"), "{text}");
}

#[test]
fn the_variable_names_the_file_too() {
    let (_dir, path) = file("max-vms = 5");
    let mut command = Command::new(env!("CARGO_BIN_EXE_mmu-trace"));
    command.args(["daemon", "--print-config"]).env("MMU_TRACE_CONFIG_FILE", path);
    assert!(printed(command.output().unwrap()).contains("max-vms = 5 # file "));
}

#[test]
fn a_file_that_makes_no_sense_is_wrong_usage() {
    let (_dir, path) = file("\nmax_vms = 5");
    for (path, expected) in [
        (path.as_path(), "mmu-trace.toml, line 2: unknown key max_vms; did you mean max-vms?\n"),
        (Path::new("/none.toml"), "cannot read the configuration file /none.toml: No such file"),
    ] {
        let output = daemon(path).arg("--print-config").output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{message}");
        assert!(message.starts_with("mmu-trace: error: ") && message.contains(expected), "{message}");
    }
}

#[test]
fn a_variable_meant_for_record_does_not_cost_the_capture() {
    let (_dir, path) = file("a capture");
    let mut command = Command::new(env!("CARGO_BIN_EXE_mmu-trace"));
    let output = command.arg("report").arg(&path).env("MMU_TRACE_OUTPUT", &path).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("would replace the capture"), "{message}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "a capture");
}

#[test]
fn only_the_journal_is_told_priorities() {
    let (dir, _path) = file("");
    let log = File::create(dir.path().join("log")).unwrap();
    let stat = log.metadata().unwrap();
    let stream = format!("{}:{}", stat.dev(), stat.ino());
    for (stream, expected) in [(stream, "<3>mmu-trace: error: "), ("1:2".to_owned(), "mmu-trace: error: ")] {
        let mut command = daemon(Path::new("/none.toml"));
        command.env("JOURNAL_STREAM", stream).stderr(log.try_clone().unwrap()).status().unwrap();
        let text = fs::read_to_string(dir.path().join("log")).unwrap();
        assert!(text.lines().last().unwrap().starts_with(expected), "{text}");
    }
}
