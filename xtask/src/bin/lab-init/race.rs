//! What a VMM may do to its guest's memory, in parts of huge pages and while the guest runs.
//!
//! Huge pages come from `MADV_COLLAPSE` alone, which needs no khugepaged: with THP otherwise off,
//! nothing happens behind the back of whoever counts. On kernels without it the pages are mapped anew and
//! touched while THP is on for them.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::userfault::Userfault;
use crate::vm::{Access, HUGE, Pages, Vm};

/// `MADV_COLLAPSE`, since Linux 6.1.
const MADV_COLLAPSE: i32 = 25;

/// Makes huge pages of all of `data`, as far as the kernel can.
pub(crate) fn collapse(data: &Pages) -> Result<()> {
    // A length of 0 is fine for any advice that the kernel knows.
    if data.part(0, 0).advise(MADV_COLLAPSE).is_err() {
        return refill_huge(data);
    }
    for huge in huge_pages(data) {
        match data.part(huge, HUGE).advise(MADV_COLLAPSE) {
            Err(error) if is_temporary(&error) => {}
            done => done?,
        }
    }
    Ok(())
}

/// Mapped anew, and not only emptied: where a page table is, no huge page comes.
fn refill_huge(data: &Pages) -> Result<()> {
    set_thp("madvise")?;
    data.map_again()?;
    data.advise(libc::MADV_HUGEPAGE)?;
    data.write_each(1);
    set_thp("never")
}

/// Sets for whom the kernel makes huge pages.
pub(crate) fn set_thp(mode: &str) -> Result<()> {
    std::fs::write("/sys/kernel/mm/transparent_hugepage/enabled", mode)
        .with_context(|| format!("cannot set huge pages to {mode}"))
}

/// EAGAIN, EBUSY, ENOMEM: it may work later. EINVAL: nothing of it is mapped.
fn is_temporary(error: &anyhow::Error) -> bool {
    let code = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
    [libc::EAGAIN, libc::EBUSY, libc::ENOMEM, libc::EINVAL].map(Some).contains(&code)
}

/// `mprotect` of the first half of each huge page, away and back: each splits its page in a bracket of
/// its own within that of the whole.
pub(crate) fn protect_part(data: &Pages) -> Result<()> {
    for huge in huge_pages(data) {
        let half = data.part(huge, HUGE / 2);
        half.protect(libc::PROT_READ)?;
        half.protect(libc::PROT_READ | libc::PROT_WRITE)?;
    }
    Ok(())
}

/// `MADV_DONTNEED` of the second half of each huge page.
pub(crate) fn discard_part(data: &Pages) -> Result<()> {
    huge_pages(data).try_for_each(|huge| data.part(huge + HUGE / 2, HUGE / 2).advise(libc::MADV_DONTNEED))
}

fn huge_pages(data: &Pages) -> impl Iterator<Item = usize> + use<> {
    (0..data.n_pages()).step_by(HUGE)
}

/// `KIND MILLISECONDS`: the guest reads and writes its pages without a pause while the host does one
/// kind of thing to them again and again.
pub(crate) fn run(vm: &mut Vm, argument: &str) -> Result<()> {
    let (kind, time) = argument.split_once(' ').context("a race needs its kind and milliseconds")?;
    let time = Duration::from_millis(time.parse().context("milliseconds")?);
    let data = vm.data;
    let mut host = Host::new(kind, data)?;
    let done = AtomicBool::new(false);
    // A thread that only starts maps memory of its own, which must not come to lie where ours was just
    // unmapped.
    let started = Barrier::new(2);
    vm.vcpu.is_raced = true;
    let outcome = std::thread::scope(|scope| {
        let guest = scope.spawn(|| {
            started.wait();
            keep_touching(vm, &done)
        });
        started.wait();
        let raced = race(&mut host, time);
        done.store(true, Ordering::Relaxed);
        // A guest that waits for a page it may not write must not wait for ever.
        let rested = host.rest();
        guest.join().unwrap_or_else(|_| bail!("the guest's thread panicked"))?;
        raced.and(rested)
    });
    vm.vcpu.is_raced = false;
    outcome
}

fn keep_touching(vm: &mut Vm, done: &AtomicBool) -> Result<()> {
    let mut value = 0;
    while !done.load(Ordering::Relaxed) {
        vm.touch_all(Access::Read, 0)?;
        vm.touch_all(Access::Write, value)?;
        value = value.wrapping_add(1);
    }
    Ok(())
}

fn race(host: &mut Host, time: Duration) -> Result<()> {
    let start = Instant::now();
    let mut turn = 0;
    while start.elapsed() < time {
        host.act(turn)?;
        turn += 1;
    }
    ensure!(turn > 0, "there was no time for a single turn");
    Ok(())
}

/// The host's side of a race.
enum Host {
    /// Splits and collapses huge pages in every way there is.
    Thp(Pages),
    /// Takes pages away, and the right to write to them.
    Unmap(Pages),
    /// Forks, and writes what it then shares.
    Fork(Pages),
    /// Protects pages from writes with userfaultfd, and lets them go on.
    Userfault(Pages, Userfault),
}

impl Host {
    fn new(kind: &str, data: Pages) -> Result<Self> {
        Ok(match kind {
            "thp" => Self::Thp(data),
            "unmap" => Self::Unmap(data),
            "fork" => Self::Fork(data),
            "userfault" => Self::Userfault(data, Userfault::watch_writes(&data)?),
            _ => bail!("unknown race {kind:?}"),
        })
    }

    fn act(&mut self, turn: usize) -> Result<()> {
        match self {
            Self::Thp(data) => match turn % 4 {
                0 => collapse(data),
                1 => protect_part(data),
                2 => collapse(data),
                _ => discard_part(data),
            },
            Self::Unmap(data) => {
                let part = data.part(turn * 64 % data.n_pages(), 64);
                match turn % 3 {
                    0 => part.unmap().and_then(|()| part.map_again()),
                    1 => part.advise(libc::MADV_DONTNEED),
                    _ => {
                        part.protect(libc::PROT_READ)?;
                        part.protect(libc::PROT_READ | libc::PROT_WRITE)
                    }
                }
            }
            Self::Fork(data) => {
                let child = fork_and_pause()?;
                data.write_each(turn as u8);
                end(child)
            }
            Self::Userfault(data, userfault) => {
                let part = data.part(turn * 64 % data.n_pages(), 64);
                userfault.protect(&part, true)?;
                userfault.protect(&part, false)
            }
        }
    }

    /// Leaves nothing behind that would stop the guest.
    fn rest(&mut self) -> Result<()> {
        match self {
            Self::Userfault(data, userfault) => userfault.protect(data, false),
            Self::Thp(_) | Self::Unmap(_) | Self::Fork(_) => Ok(()),
        }
    }
}

/// A child that shares our memory and does nothing.
pub(crate) fn fork_and_pause() -> Result<libc::pid_t> {
    // SAFETY: the child calls async-signal-safe functions only.
    match unsafe { libc::fork() } {
        -1 => Err(std::io::Error::last_os_error()).context("fork"),
        0 => loop {
            // SAFETY: no pointers.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                libc::pause();
            }
        },
        child => Ok(child),
    }
}

/// Ends and reaps such a child.
pub(crate) fn end(child: libc::pid_t) -> Result<()> {
    // SAFETY: the child is ours and not yet reaped, so the id is still its own.
    let reaped = unsafe {
        libc::kill(child, libc::SIGKILL);
        libc::waitpid(child, std::ptr::null_mut(), 0)
    };
    ensure!(reaped == child, "cannot reap the child");
    Ok(())
}
