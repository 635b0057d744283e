//! The VMM: one process with one VM (or more, which `select` tells apart), driven line by line over its
//! standard input.
//!
//! It is started under the name and with the arguments of a QEMU that libvirt runs, so that whatever
//! identifies VMs by their command line is tested with it. Each command is answered with `ok`, or
//! with `error` and the reason. No command allocates more than a few bytes: what moves the counters
//! is the command and nothing beside it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use xtask::arch::Arch;
use xtask::phase::Identity;

use crate::race;
use crate::vm::{Access, Pages, Vm};

/// N, the pages of the guest: 4 MiB, enough for several batches of everything the kernel batches.
pub(crate) const N_PAGES: usize = 1024;
/// M, the mergeable pages of the VMM outside the guest's memory.
pub(crate) const N_OUTSIDE_PAGES: usize = 64;
/// How the program name of a VMM process ends.
pub(crate) const PROGRAM_SUFFIX: &str = match Arch::OWN {
    Arch::Amd64 => "qemu-system-x86_64",
    Arch::Arm64 => "qemu-system-aarch64",
};

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
        let mut command = Command::new("/proc/self/exe");
        Self::spawn(command.arg0(format!("/usr/bin/{PROGRAM_SUFFIX}")), vm)
    }

    /// The same from a file, as another user and group.
    pub(crate) fn start_as(vm: Identity, program: &Path, uid: u32, gid: u32) -> Result<Self> {
        Self::spawn(Command::new(program).uid(uid).gid(gid), vm)
    }

    fn spawn(command: &mut Command, vm: Identity) -> Result<Self> {
        let mut child = command
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

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
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
        if line.is_empty() {
            bail!("it ended: {}", self.child.wait()?);
        }
        ensure!(line == "ok\n", "{}", line.trim_end());
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
    /// The VMs of this process; `None` once one was ended.
    vms: Vec<Option<Vm>>,
    /// The one that commands are about.
    selected: usize,
    outside: Pages,
    forked: Option<libc::pid_t>,
}

impl Machine {
    fn new() -> Result<Self> {
        let vm = Vm::new(N_PAGES)?;
        let outside = Pages::map(N_OUTSIDE_PAGES, libc::MAP_PRIVATE)?;
        let mut machine = Self { vms: Vec::new(), selected: 0, outside, forked: None };
        machine.add(vm)?;
        Ok(machine)
    }

    /// Adds a VM and selects it.
    fn add(&mut self, mut vm: Vm) -> Result<()> {
        // So that the fault on the code page is in no phase.
        vm.touch(Access::Read, 0, 0)?;
        self.selected = self.vms.len();
        self.vms.push(Some(vm));
        Ok(())
    }

    fn vm(&mut self) -> Result<&mut Vm> {
        self.vms.get_mut(self.selected).and_then(Option::as_mut).context("this VM was ended")
    }

    /// Ends the selected VM; the process goes on.
    fn end(&mut self) -> Result<()> {
        let vm = self.vms.get_mut(self.selected).and_then(Option::take);
        vm.map(drop).context("this VM was ended already")
    }

    fn execute(&mut self, line: &str) -> Result<()> {
        let (command, argument) = line.split_once(' ').unwrap_or((line, ""));
        let byte = || argument.parse::<u8>().with_context(|| format!("{line:?} needs a byte"));
        let number = || argument.parse::<usize>().with_context(|| format!("{line:?} needs a number"));
        match command {
            "fill" => self.data()?.fill(byte()?),
            "host-write" => self.data()?.write_each(byte()?),
            "host-write-first" => self.data()?.part(0, 1).write_each(byte()?),
            "read" => self.vm()?.touch_all(Access::Read, 0)?,
            "read-first" => self.vm()?.touch(Access::Read, number()?, 0)?,
            "write" => self.vm()?.touch_all(Access::Write, byte()?)?,
            "read-for" => self.read_for(Duration::from_millis(argument.parse().context("milliseconds")?))?,
            "mergeable" => self.data()?.advise(libc::MADV_MERGEABLE)?,
            "unmergeable" => self.data()?.advise(libc::MADV_UNMERGEABLE)?,
            "discard" => self.data()?.advise(libc::MADV_DONTNEED)?,
            "protect" => {
                self.data()?.protect(libc::PROT_READ)?;
                self.data()?.protect(libc::PROT_READ | libc::PROT_WRITE)?;
            }
            "new" => self.add(Vm::new(number()?)?)?,
            "new-aligned" => self.add(Vm::with_data(Pages::map_aligned(number()?)?)?)?,
            "new-shared" => {
                let shared = Vm::with_data(*self.data()?)?;
                self.add(shared)?;
            }
            "select" => self.selected = number()?,
            "end" => self.end()?,
            "collapse" => race::collapse(self.data()?)?,
            "protect-part" => race::protect_part(self.data()?)?,
            "discard-part" => race::discard_part(self.data()?)?,
            "race" => race::run(self.vm()?, argument)?,
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

    fn data(&mut self) -> Result<&Pages> {
        self.vm().map(|vm| &vm.data)
    }

    fn read_for(&mut self, duration: Duration) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < duration {
            self.vm()?.touch_all(Access::Read, 0)?;
        }
        Ok(())
    }

    /// Forks a child that does nothing but share our memory.
    fn fork(&mut self) -> Result<()> {
        ensure!(self.forked.is_none(), "there is a child already");
        self.forked = Some(race::fork_and_pause()?);
        Ok(())
    }

    fn join(&mut self) -> Result<()> {
        race::end(self.forked.take().context("there is no child")?)
    }
}
