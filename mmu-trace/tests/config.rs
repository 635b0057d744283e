//! Settings as a user gives them: by flag, by variable, by file.

use std::{
    fs,
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
