//! A helper process that looks at the descriptors of VMMs for a process that may not.
//!
//! The kernel shows descriptors only to whom it would let trace their owner. Landlock takes that away from
//! whoever it restricts, and `CAP_SYS_PTRACE` is too much for a process that answers the network. So this
//! program runs once more, with that capability and without a network: it is asked for a process id, and
//! answers how many VMs the process has.
//!
//! ```text
//!  asks     u32 process id
//!  answers  i64 number of VMs; below 0: minus the system's error
//! ```
//!
//! It ends when nobody can ask any more. If it ends before that, every question is an error from then on: a
//! VM that cannot be counted must not pass for one that has ended.

use std::{
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::{descriptors, proc::ProcError};

/// The hidden command that is the helper.
pub const COMMAND: &str = "descriptors";
/// This program, also when its file has been replaced.
const PROGRAM: &str = "/proc/self/exe";
/// A process with a million descriptors takes about a second.
const PATIENCE: Duration = Duration::from_secs(20);
const PROC: &str = "/proc";

/// A running helper.
#[derive(Debug)]
pub struct Helper {
    stream: Mutex<UnixStream>,
}

impl Helper {
    /// Starts one.
    ///
    /// # Errors
    /// It cannot be run, or does not answer.
    pub fn start() -> io::Result<Self> {
        let (stream, theirs) = UnixStream::pair()?;
        // It neither hears Ctrl-C nor speaks to a service manager; it ends with the stream.
        Command::new(PROGRAM)
            .arg(COMMAND)
            .env_clear()
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let helper = Self { stream: Mutex::new(stream) };
        helper.ask(std::process::id())?;
        Ok(helper)
    }

    /// As [`super::count_vms`] of the real `/proc`.
    pub(super) fn count_vms(&self, pid: u32) -> Result<u32, ProcError> {
        let answer = self.ask(pid).map_err(ProcError::Helper)?;
        u32::try_from(answer).map_err(|_| ProcError::Read {
            path: PathBuf::from(format!("{PROC}/{pid}/fd")),
            source: io::Error::from_raw_os_error(i32::try_from(-answer).unwrap_or_default()),
        })
    }

    fn ask(&self, pid: u32) -> io::Result<i64> {
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        stream.write_all(&pid.to_ne_bytes())?;
        let mut answer = [0; size_of::<i64>()];
        stream.read_exact(&mut answer)?;
        Ok(i64::from_ne_bytes(answer))
    }
}

/// Answers whoever started this process, until it is gone.
///
/// # Errors
/// Standard input is not what a helper is given.
pub fn answer() -> io::Result<()> {
    let mut stream = UnixStream::from(rustix::io::dup(io::stdin())?);
    let mut pid = [0; size_of::<u32>()];
    // Its end is the other one's end.
    while stream.read_exact(&mut pid).is_ok() {
        let answer = to_answer(descriptors::count_vms(Path::new(PROC), u32::from_ne_bytes(pid)));
        stream.write_all(&answer.to_ne_bytes())?;
    }
    Ok(())
}

fn to_answer(counted: Result<u32, ProcError>) -> i64 {
    match counted {
        Ok(n) => n.into(),
        Err(ProcError::Read { source, .. }) => -i64::from(source.raw_os_error().unwrap_or(libc::EIO)),
        Err(ProcError::Stat { .. } | ProcError::Helper(_)) => -i64::from(libc::EIO),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// A helper whose other end is `serve`.
    fn helper(serve: impl FnOnce(UnixStream) + Send + 'static) -> Helper {
        let (stream, theirs) = UnixStream::pair().unwrap();
        thread::spawn(|| serve(theirs));
        Helper { stream: Mutex::new(stream) }
    }

    fn answering(answer: i64) -> Helper {
        helper(move |mut stream| {
            stream.read_exact(&mut [0; 4]).unwrap();
            stream.write_all(&answer.to_ne_bytes()).unwrap();
        })
    }

    #[test]
    fn a_number_and_an_error_come_through() {
        assert_eq!(answering(3).count_vms(7).unwrap(), 3);
        let error = answering(-i64::from(libc::ENOENT)).count_vms(7).unwrap_err();
        let ProcError::Read { path, source } = error else { panic!("{error}") };
        assert_eq!((path.to_str(), source.kind()), (Some("/proc/7/fd"), io::ErrorKind::NotFound));
        assert_eq!(to_answer(Ok(2)), 2);
        assert_eq!(to_answer(Err(ProcError::Stat { pid: 1 })), -i64::from(libc::EIO));
    }

    #[test]
    fn a_helper_that_is_gone_is_an_error_of_its_own() {
        let gone = helper(drop);
        for _ in 0..2 {
            assert!(matches!(gone.count_vms(7), Err(ProcError::Helper(_))));
        }
    }
}
