//! The VMM: one process with one VM, driven line by line over its standard input.
//!
//! It is started under the name and with the arguments of a QEMU that libvirt runs, so that whatever
//! identifies VMs by their command line is tested with it. Each command is answered with `ok`, or
//! with `error` and the reason. No command allocates more than a few bytes: what moves the counters
//! is the command and nothing beside it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use xtask::phase::Identity;

use crate::vm::{Access, Pages, Vm};

/// N, the pages of the guest: 4 MiB, enough for several batches of everything the kernel batches.
pub(crate) const N_PAGES: usize = 1024;
/// M, the mergeable pages of the VMM outside the guest's memory.
pub(crate) const N_OUTSIDE_PAGES: usize = 64;
/// How the program name of a VMM process ends.
pub(crate) const PROGRAM_SUFFIX: &str = "qemu-system-x86_64";

/// How long the VMM may take from its answer to its next read.
const PATIENCE: Duration = Duration::from_secs(10);
const COMM: &std::ffi::CStr = c"lab-vmm";

/// The other end: a running VMM process.
pub(crate) struct Vmm {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Vmm {
    /// Starts a VMM; on return the VM exists, and its guest has run its code once without
    /// touching its data.
    pub(crate) fn start(vm: Identity) -> Result<Self> {
        use std::os::unix::process::CommandExt;
        let mut child = Command::new("/proc/self/exe")
            .arg0(format!("/usr/bin/{PROGRAM_SUFFIX}"))
            .args(["-name", &format!("guest={},debug-threads=on", vm.name), "-uuid", vm.uuid])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the VMM")?;
        let commands = child.stdin.take().context("the VMM has no standard input")?;
        let answers = BufReader::new(child.stdout.take().context("the VMM has no standard output")?);
        let mut vmm = Self { child, commands, answers };
        vmm.answer().context("the VMM did not start")?;
        Ok(vmm)
    }

    /// Sends `command` and waits until it is done.
    pub(crate) fn command(&mut self, command: &str) -> Result<()> {
        self.send(command)?;
        self.answer().with_context(|| format!("the VMM's {command:?}"))
    }

    /// Sends `command` without waiting; [`Vmm::answer`] must follow.
    pub(crate) fn send(&mut self, command: &str) -> Result<()> {
        writeln!(self.commands, "{command}").context("the VMM takes no command")
    }

    /// Waits for the answer to the last command.
    pub(crate) fn answer(&mut self) -> Result<()> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        ensure!(line == "ok\n", "{}", if line.is_empty() { "it died" } else { line.trim_end() });
        self.wait_until_asleep()
    }

    /// Waits until the VMM sleeps in the read of its next command. On its way there it writes to its
    /// stack, which after a fork is a copy on write and would be counted in one phase or the next.
    fn wait_until_asleep(&mut self) -> Result<()> {
        let path = format!("/proc/{}/stat", self.child.id());
        let start = Instant::now();
        loop {
            let stat = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
            // The state follows the name, which is in parentheses.
            if stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('S')) {
                return Ok(());
            }
            ensure!(start.elapsed() < PATIENCE, "it answered, and is still busy after {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends the VMM and its VM.
    pub(crate) fn stop(self) -> Result<()> {
        let Self { mut child, commands, answers } = self;
        drop(commands);
        let status = child.wait()?;
        drop(answers);
        ensure!(status.success(), "the VMM ended with {status}");
        Ok(())
    }
}

/// The VMM process itself.
pub(crate) fn serve() -> Result<()> {
    // SAFETY: the argument is a NUL-terminated string that outlives the call.
    unsafe { libc::prctl(libc::PR_SET_NAME, COMM.as_ptr()) };
    let mut machine = Machine::new()?;
    let mut stdout = std::io::stdout();
    stdout.write_all(b"ok\n")?;
    stdout.flush()?;
    for line in std::io::stdin().lines() {
        match machine.execute(&line?) {
            Ok(()) => stdout.write_all(b"ok\n")?,
            Err(error) => writeln!(stdout, "error: {error:#}")?,
        }
        stdout.flush()?;
    }
    Ok(())
}

/// What commands work on.
struct Machine {
    vm: Vm,
    outside: Pages,
    forked: Option<libc::pid_t>,
}

impl Machine {
    fn new() -> Result<Self> {
        let mut vm = Vm::new(N_PAGES)?;
        let outside = Pages::map(N_OUTSIDE_PAGES, libc::MAP_PRIVATE)?;
        // So that the fault on the code page is in no phase.
        vm.touch(Access::Read, 0, 0)?;
        Ok(Self { vm, outside, forked: None })
    }

    fn execute(&mut self, line: &str) -> Result<()> {
        let (command, argument) = line.split_once(' ').unwrap_or((line, ""));
        let byte = || argument.parse::<u8>().with_context(|| format!("{line:?} needs a byte"));
        let data = &self.vm.data;
        match command {
            "fill" => data.fill(byte()?),
            "host-write" => data.write_each(byte()?),
            "read" => self.vm.touch_all(Access::Read, 0)?,
            "write" => self.vm.touch_all(Access::Write, byte()?)?,
            "read-for" => self.read_for(Duration::from_millis(argument.parse().context("milliseconds")?))?,
            "mergeable" => data.advise(libc::MADV_MERGEABLE)?,
            "unmergeable" => data.advise(libc::MADV_UNMERGEABLE)?,
            "discard" => data.advise(libc::MADV_DONTNEED)?,
            "protect" => {
                data.protect(libc::PROT_READ)?;
                data.protect(libc::PROT_READ | libc::PROT_WRITE)?;
            }
            "outside-fill" => self.outside.fill(byte()?),
            "outside-write" => self.outside.write_each(byte()?),
            "outside-mergeable" => self.outside.advise(libc::MADV_MERGEABLE)?,
            "outside-unmergeable" => self.outside.advise(libc::MADV_UNMERGEABLE)?,
            "fork" => self.fork()?,
            "join" => self.join()?,
            _ => bail!("unknown command {line:?}"),
        }
        Ok(())
    }

    fn read_for(&mut self, duration: Duration) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < duration {
            self.vm.touch_all(Access::Read, 0)?;
        }
        Ok(())
    }

    /// Forks a child that does nothing but share our memory.
    fn fork(&mut self) -> Result<()> {
        ensure!(self.forked.is_none(), "there is a child already");
        // SAFETY: the process has one thread, and the child calls async-signal-safe functions only.
        match unsafe { libc::fork() } {
            -1 => Err(std::io::Error::last_os_error()).context("fork"),
            0 => loop {
                // SAFETY: no pointers.
                unsafe {
                    libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                    libc::pause();
                }
            },
            child => {
                self.forked = Some(child);
                Ok(())
            }
        }
    }

    fn join(&mut self) -> Result<()> {
        let child = self.forked.take().context("there is no child")?;
        // SAFETY: the child is ours and not yet reaped, so the id is still its own.
        let reaped = unsafe {
            libc::kill(child, libc::SIGKILL);
            libc::waitpid(child, std::ptr::null_mut(), 0)
        };
        ensure!(reaped == child, "cannot reap the child");
        Ok(())
    }
}
