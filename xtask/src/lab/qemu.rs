//! The emulator: its command line, its console, its end.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use xtask::arch::Arch;
use xtask::phase::DAEMON_PORT;

use super::checks::{Check, Group};
use super::emulator::Emulator;

/// What emulates a host of an architecture. On x86-64:
/// no 5-level paging (old kvm-amd cannot nest it), no XSAVE (the emulator does not intercept a nested
/// guest's XSETBV) and so no AVX, no protection keys; SVM on top of everything else it can emulate.
///
/// On arm64: a CPU without VHE, and EL2 for the kernel to put its hypervisor in.
const fn machine(arch: Arch) -> &'static [&'static str] {
    match arch {
        Arch::Amd64 => &["-cpu", "max,-la57,-xsave,-xsaveopt,-xgetbv1,-avx,-avx2,-fma,-f16c,-pku,+svm"],
        Arch::Arm64 => &["-M", "virt,virtualization=on,gic-version=3", "-cpu", "cortex-a72"],
    }
}

/// Sparse: only what the lab writes takes space.
const RESULTS_SIZE: u64 = 1 << 30;
/// How much of the console an error shows.
const TAIL_LINES: usize = 40;
/// What the kernel prints when something is wrong with it.
const ALARMS: &[&str] =
    &["Kernel panic", "BUG:", "kernel BUG at", "WARNING: CPU:", "Oops:", "general protection fault"];
/// Progress lines of the lab's process 1.
const PROGRESS: &str = "lab: ";

/// The files of one boot.
pub(super) struct Files {
    kernel: PathBuf,
    initramfs: PathBuf,
    /// The disk that the lab writes its results to.
    pub(super) results: PathBuf,
}

impl Files {
    /// Writes the images and an empty results disk into `dir`.
    pub(super) fn write(dir: &Path, kernel: &[u8], initramfs: &[u8]) -> Result<Self> {
        let files = Self {
            kernel: dir.join("vmlinuz"),
            initramfs: dir.join("initramfs.cpio"),
            results: dir.join("results.img"),
        };
        fs::write(&files.kernel, kernel).context("cannot write the kernel image")?;
        fs::write(&files.initramfs, initramfs).context("cannot write the initramfs")?;
        let disk = File::create(&files.results).context("cannot create the results disk")?;
        disk.set_len(RESULTS_SIZE).context("cannot create the results disk")?;
        Ok(files)
    }
}

/// What QEMU's SVM emulation does now and then, and what another boot may not show.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The lab had to be killed.
    #[error("the lab did not finish in {seconds} s; --timeout gives it more")]
    Hung { seconds: u64 },
    /// A nested guest's machine was reset before its kernel said a word.
    #[error("{0}")]
    GuestReset(String),
}

/// What time is to the emulated machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clock {
    /// That of this machine.
    Real,
    /// One nanosecond for each instruction: the same work takes the same time, whatever else this machine
    /// does. There is one CPU, as others would advance the time too.
    Instructions,
}

impl Clock {
    const fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Real => &["-accel", "tcg,thread=multi", "-smp", "2"],
            Self::Instructions => {
                &["-accel", "tcg,thread=single", "-icount", "shift=0,align=off,sleep=off", "-smp", "1"]
            }
        }
    }

    /// What the kernel is told on top. Instructions are counted without a drift, which it cannot know.
    pub(super) const fn command_line(self) -> &'static str {
        match self {
            Self::Real => "",
            Self::Instructions => " tsc=reliable clocksource=tsc",
        }
    }
}

/// How to run.
pub(super) struct Options {
    /// When to give up; `None` means never.
    pub(super) timeout: Option<Duration>,
    /// Whether to show the whole console and not only the progress.
    pub(super) verbose: bool,
    /// The kernel's command line.
    pub(super) command_line: String,
    /// The host's architecture.
    pub(super) arch: Arch,
    /// Its time.
    pub(super) clock: Clock,
    /// Whether the daemon's port is forwarded to this side.
    pub(super) forward_port: bool,
    /// A second disk, with a system on it.
    pub(super) system: Option<PathBuf>,
}

/// Boots and waits for the end. A timeout kills the emulator.
pub(super) fn run(emulator: &Emulator, files: &Files, options: &Options, log: &Path) -> Result<Console> {
    let mut command = command(emulator, files, options);
    let mut child = command.spawn().with_context(|| format!("cannot run {command:?}"))?;
    let stdout = child.stdout.take().context("the emulator has no console")?;
    let log = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
    let verbose = options.verbose;
    let reader = std::thread::spawn(move || Console::read(stdout, log, verbose));
    if options.forward_port {
        println!("lab: metrics on http://127.0.0.1:{DAEMON_PORT}/metrics once the daemon is up; Ctrl-C ends");
    }
    let timed_out = wait(&mut child, options.timeout)?;
    let console = join(reader)?;
    if timed_out {
        println!("the lab's console ended with:\n{}\n", console.tail());
        bail!(Fault::Hung { seconds: options.timeout.unwrap_or_default().as_secs() });
    }
    Ok(console)
}

fn command(emulator: &Emulator, files: &Files, options: &Options) -> Command {
    let mut command = emulator.command();
    command
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .args(options.clock.arguments())
        .args(["-m", "2048"])
        .args(machine(options.arch))
        .args(["-serial", "stdio", "-append", &options.command_line])
        .arg("-kernel")
        .arg(&files.kernel)
        .arg("-initrd")
        .arg(&files.initramfs)
        .arg("-drive")
        .arg(format!("if=none,id=results,format=raw,file={}", files.results.display()))
        .args(["-device", "virtio-blk-pci,drive=results"]);
    if let Some(system) = &options.system {
        let drive = format!("if=none,id=system,format=raw,cache=unsafe,file={}", system.display());
        command.args(["-drive", &drive, "-device", "virtio-blk-pci,drive=system"]);
    }
    if options.forward_port {
        let forward = format!("user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{DAEMON_PORT}-:{DAEMON_PORT}");
        command.args(["-netdev", &forward, "-device", "virtio-net-pci,netdev=net,romfile="]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    // SAFETY: between fork and exec only `prctl` is called, which is async-signal-safe.
    unsafe { command.pre_exec(end_with_parent) };
    command
}

/// However this task ends, the emulator must not outlive it.
fn end_with_parent() -> std::io::Result<()> {
    // SAFETY: no pointers.
    match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Returns whether the emulator had to be killed.
fn wait(child: &mut Child, timeout: Option<Duration>) -> Result<bool> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            if !status.success() {
                bail!("the emulator ended with {status}");
            }
            return Ok(false);
        }
        if timeout.is_some_and(|timeout| start.elapsed() > timeout) {
            child.kill().context("cannot end the emulator")?;
            child.wait()?;
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn join(reader: JoinHandle<Result<Console>>) -> Result<Console> {
    match reader.join() {
        Ok(console) => console,
        Err(_) => bail!("the console reader panicked"),
    }
}

/// What the lab printed on its serial port.
#[derive(Default)]
pub(super) struct Console {
    tail: VecDeque<String>,
    alarms: Vec<String>,
}

impl Console {
    fn read(stdout: ChildStdout, mut log: File, verbose: bool) -> Result<Self> {
        let mut console = Self::default();
        let mut lines = BufReader::new(stdout);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line)? > 0 {
            log.write_all(&line)?;
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if verbose || text.starts_with(PROGRESS) {
                eprintln!("{text}");
            }
            console.push(text);
            line.clear();
        }
        Ok(console)
    }

    fn push(&mut self, line: String) {
        if ALARMS.iter().any(|alarm| line.contains(alarm)) {
            self.alarms.push(line.clone());
        }
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }

    /// The last lines.
    pub(super) fn tail(&self) -> String {
        Vec::from_iter(self.tail.iter().map(String::as_str)).join("\n")
    }

    /// Whether the kernel complained.
    pub(super) fn check(&self) -> Group {
        Group {
            name: "console".to_owned(),
            checks: vec![Check::equal(
                "kernel alarms",
                &"none",
                &match self.alarms.first() {
                    None => "none",
                    Some(first) => first.as_str(),
                },
            )],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_of_the_kernel_fails_the_run() {
        let mut console = Console::default();
        console.push("[    1.0] all is well".to_owned());
        console.push("WARNING: a program of ours said this".to_owned());
        assert!(console.check().checks.iter().all(Check::passed));
        console.push("[    2.0] WARNING: CPU: 1 PID: 7 at mm/rmap.c:1".to_owned());
        assert!(!console.check().checks.iter().all(Check::passed));
    }

    #[test]
    fn the_tail_is_bounded() {
        let mut console = Console::default();
        for n in 0..100 {
            console.push(n.to_string());
        }
        assert_eq!(console.tail().lines().count(), TAIL_LINES);
        assert!(console.tail().ends_with("99"));
    }
}
