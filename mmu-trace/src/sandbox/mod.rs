//! What a running process gives up once it no longer needs it, however it was started.
//!
//! ```text
//!  attached, one thread --apply(Needs)--> no_new_privs   no exec gives more than there is
//!                                         no_core_dumps  no core dump, no tracing by the same user
//!                                         landlock       files, TCP, signals: what is named
//!                                         capabilities   those that are used
//!                                         seccomp        system calls: those that are used
//! ```
//!
//! Each layer is tried by itself: one that this kernel or a container refuses is said and shown, and stops
//! nothing. All of them hold for the thread that asks and for those that it starts, so they are taken on
//! before there is a second one.
//!
//! Nothing else names Landlock, seccomp or capabilities. What a command needs is for the command to say.

mod capabilities;
mod files;
mod syscalls;

use std::{fs, io, path::PathBuf};

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

/// What a process still has to do, beside reading `/proc`, its own descriptors and the clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Read the counters of attached probes, and look at the processes of VMMs.
    pub counters: bool,
    /// Attach probes, again and again.
    pub attaching: bool,
    /// Read other processes' descriptors. Landlock forbids it to whoever it restricts.
    pub descriptors: bool,
    /// Accept connections at a socket that is bound.
    pub serving: bool,
    /// Bind that socket first, and give up more afterwards.
    pub binding: bool,
    /// Draw on the terminal and read its keys.
    pub terminal: bool,
    /// Files and folders that are read, beside `/proc` and `/sys`.
    pub readable: Vec<PathBuf>,
    /// A file that is written anew, again and again.
    pub written: Option<PathBuf>,
    /// A process of another user, maybe, that is to be ended and waited for: its id.
    pub child: Option<u32>,
}

/// One kind of privilege to give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// Nothing that is executed gives more privileges than there are.
    NoNewPrivs,
    /// A crash leaves no memory behind, and no process of the same user may look at it.
    NoCoreDumps,
    /// Capabilities.
    Capabilities,
    /// Files, TCP ports and signals.
    Landlock,
    /// System calls.
    Seccomp,
}

impl Layer {
    /// Every one.
    pub const ALL: &[Self] =
        &[Self::NoNewPrivs, Self::NoCoreDumps, Self::Landlock, Self::Capabilities, Self::Seccomp];

    /// Its label value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoNewPrivs => "no_new_privs",
            Self::NoCoreDumps => "no_core_dumps",
            Self::Capabilities => "capabilities",
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
        }
    }

    /// What is given up with it.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::NoNewPrivs => "Privileges that a program would gain by being executed.",
            Self::NoCoreDumps => "Core dumps, which would hold kernel addresses.",
            Self::Capabilities => "Capabilities that are not used any more.",
            Self::Landlock => {
                "Files that are not used; writing any but the text file; TCP connections; signals to others."
            }
            Self::Seccomp => "System calls that are not used, and executable memory.",
        }
    }
}

/// What came of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It is in force.
    InForce,
    /// It is, but for what is said.
    Partly(String),
    /// It is not, and why.
    Off(String),
}

impl State {
    /// Whether it is in force, at least in part.
    #[must_use]
    pub const fn is_in_force(&self) -> bool {
        !matches!(self, Self::Off(_))
    }

    /// What it lacks; empty if nothing.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::InForce => "",
            Self::Partly(reason) | Self::Off(reason) => reason,
        }
    }
}

/// What a process has given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// Each of [`Layer::ALL`].
    pub layers: Vec<(Layer, State)>,
    /// The capabilities that it still has, by name.
    pub capabilities: Vec<String>,
}

impl Sandbox {
    /// Nothing given up, for this reason.
    #[must_use]
    pub fn none(reason: &str) -> Self {
        let off = |&layer| (layer, State::Off(reason.to_owned()));
        Self { layers: Layer::ALL.iter().map(off).collect(), capabilities: capabilities::held() }
    }
}

/// Gives up everything that `needs` does not name. This cannot be undone; what is still there can be given up
/// later, with fewer needs.
#[must_use]
pub fn apply(needs: &Needs) -> Sandbox {
    match n_threads() {
        Ok(1) => {}
        Ok(n) => return Sandbox::none(&format!("{n} threads run already")),
        Err(error) => return Sandbox::none(&format!("its threads cannot be counted: {error}")),
    }
    let layers = Layer::ALL.iter().map(|&layer| (layer, take_on(layer, needs))).collect();
    Sandbox { layers, capabilities: capabilities::held() }
}

fn take_on(layer: Layer, needs: &Needs) -> State {
    let taken = match layer {
        Layer::NoNewPrivs => rustix::thread::set_no_new_privs(true).map_err(|error| error.to_string()),
        Layer::NoCoreDumps => {
            set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|error| error.to_string())
        }
        Layer::Capabilities => capabilities::keep(needs),
        Layer::Landlock => return files::restrict(needs),
        Layer::Seccomp => syscalls::restrict(needs),
    };
    taken.map_or_else(State::Off, |()| State::InForce)
}

/// Threads of this process.
fn n_threads() -> io::Result<usize> {
    Ok(fs::read_dir("/proc/self/task")?.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_meanings_are_told_apart() {
        for (n, layer) in Layer::ALL.iter().enumerate() {
            let others = &Layer::ALL[n + 1..];
            assert!(others.iter().all(|it| it.label() != layer.label() && it.meaning() != layer.meaning()));
        }
    }

    #[test]
    fn beside_other_threads_nothing_is_given_up() {
        // The test's own thread is the second one.
        let sandbox = apply(&Needs::default());
        assert!(sandbox.layers.iter().all(|(_, state)| !state.is_in_force()), "{sandbox:?}");
        assert_eq!(rustix::thread::no_new_privs(), Ok(false));
    }
}
