//! The daemon's tracer over the lives of KVM.
//!
//! ```text
//!              kvm is there             SIGUSR1
//!   Waiting ----------------> Running ----------> Released
//!      ^                         |                    |
//!      |<---- kvm has gone ------'                    |
//!      '<----- SIGUSR2, or another kvm is there ------'
//! ```
//!
//! KVM's functions can be hooked only while it is loaded. fentry keeps its module from being unloaded
//! until SIGUSR1 makes the tracer let go. kprobes do not, and die without a word when it goes: so the
//! life of KVM that is hooked is compared with the one that is loaded every second, and a new one is
//! hooked anew. Each time the tracer is another, with new maps: every counter starts from 0. No VM
//! outlives its KVM, so what is lost are figures of VMs that have ended, and a gap in time, which is
//! counted.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context;

use super::{CliError, note, start_tracer};
use crate::{
    bpf::{self, KvmInstance, Live, Options},
    model::Snapshot,
    source::{Attachment, Source},
};

const NOT_LOADED: &str = "kvm is not loaded; the tracer waits for it";
const RELEASED: &str = "SIGUSR1 released kvm; SIGUSR2 or loading it again resumes";
const REPLACED: &str = "kvm was unloaded; the tracer looks for it again";

/// The tracer as a source of snapshots.
#[derive(Clone)]
pub(super) struct Tracer {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    options: Options,
    state: State,
    times: u64,
    /// For how long nothing was traced, up to `idle_since`.
    untraced: Duration,
    /// Since when nothing is traced; `None` while tracing, and before it began for the first time.
    idle_since: Option<Instant>,
}

enum State {
    /// KVM is not loaded: nothing to hook.
    Waiting,
    /// Tracing; when KVM was last seen to be the one that is hooked.
    Running { live: Box<Live>, seen: Instant },
    /// Asked to leave this life of KVM alone.
    Released(Option<KvmInstance>),
}

/// What a look at KVM calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    /// There is a KVM to hook.
    Attach,
    /// The hooked one is gone.
    Detach,
}

impl Tracer {
    pub(super) fn new(options: Options) -> Self {
        let shared =
            Shared { options, state: State::Waiting, times: 0, untraced: Duration::ZERO, idle_since: None };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    /// Begins to trace, if KVM is there; refuses a host that cannot be traced even with KVM.
    pub(super) fn start(&self) -> Result<(), CliError> {
        let mut shared = self.lock();
        if bpf::must_wait_for_kvm() {
            note("kvm is not loaded: waiting for it (modprobe kvm_intel or kvm_amd)");
        } else {
            let live = start_tracer(shared.options)?;
            shared.run(live);
        }
        Ok(())
    }

    /// Follows KVM's comings and goings; asks new VMs who they are while they live.
    pub(super) fn look_after(&self) -> anyhow::Result<()> {
        let mut shared = self.lock();
        let loaded = bpf::kvm_instance();
        if shared.due(loaded) == Due::Detach {
            shared.lose(loaded);
        }
        if shared.due(loaded) == Due::Attach {
            shared.attach()?;
        }
        match &mut shared.state {
            State::Running { live, seen } => {
                *seen = Instant::now();
                live.identify_new_vms()
            }
            State::Waiting | State::Released(_) => Ok(()),
        }
    }

    /// Detaches everything, so that KVM can be unloaded.
    pub(super) fn release(&self) {
        let mut shared = self.lock();
        match shared.state {
            State::Running { .. } => {
                shared.idle_since = Some(Instant::now());
                shared.state = State::Released(bpf::kvm_instance());
                note("SIGUSR1: kvm is released, nothing is traced; SIGUSR2 or loading kvm again resumes");
            }
            State::Waiting => note("SIGUSR1: kvm is not loaded, there is nothing to release"),
            State::Released(_) => note("SIGUSR1: kvm is released already"),
        }
    }

    /// Traces again after a release.
    pub(super) fn resume(&self) -> anyhow::Result<()> {
        let mut shared = self.lock();
        if let State::Released(_) = shared.state {
            note("SIGUSR2: resuming");
            shared.state = State::Waiting;
        } else {
            note("SIGUSR2: kvm is not released, there is nothing to resume");
        }
        drop(shared);
        self.look_after()
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // A panic while it was held aborts a release build; elsewhere the state is still whole.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn due(&self, loaded: Option<KvmInstance>) -> Due {
        match &self.state {
            State::Running { live, .. } => due(Hooked::Yes(live.kvm()), loaded),
            State::Waiting => due(Hooked::No, loaded),
            State::Released(from) => due(Hooked::NotThis(*from), loaded),
        }
    }

    /// KVM was unloaded under the hooks, at some time after it was last seen.
    fn lose(&mut self, loaded: Option<KvmInstance>) {
        let State::Running { seen, .. } = self.state else { return };
        self.idle_since = Some(seen);
        self.state = State::Waiting;
        note(match loaded {
            Some(_) => "kvm was unloaded and loaded again: its probes are gone",
            None => "kvm was unloaded: its probes are gone; waiting for it",
        });
    }

    fn attach(&mut self) -> anyhow::Result<()> {
        let live = Live::start(self.options).context("kvm was loaded, but tracing cannot start")?;
        let gap = self.idle_since.map_or(String::new(), |since| {
            format!(" after {:.1} s; all counters start from 0", since.elapsed().as_secs_f64())
        });
        note(&format!("kvm was loaded: tracing{gap}"));
        self.run(live);
        Ok(())
    }

    fn run(&mut self, live: Live) {
        if live.holds_kvm() {
            let pid = std::process::id();
            note(&format!("fentry holds the module kvm; before unloading it: kill -USR1 {pid}"));
        }
        self.untraced = self.untraced();
        self.idle_since = None;
        self.times += 1;
        self.state = State::Running { live: Box::new(live), seen: Instant::now() };
    }

    fn untraced(&self) -> Duration {
        self.untraced + self.idle_since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

/// What the hooks of KVM are on.
enum Hooked {
    /// Nothing, and any KVM will do.
    No,
    /// This one.
    Yes(Option<KvmInstance>),
    /// Nothing, and this one must be left alone.
    NotThis(Option<KvmInstance>),
}

fn due(hooked: Hooked, loaded: Option<KvmInstance>) -> Due {
    match hooked {
        Hooked::Yes(kvm) if kvm != loaded => Due::Detach,
        Hooked::No if loaded.is_some() => Due::Attach,
        Hooked::NotThis(kvm) if loaded.is_some() && kvm != loaded => Due::Attach,
        Hooked::Yes(_) | Hooked::No | Hooked::NotThis(_) => Due::Nothing,
    }
}

impl Source for Tracer {
    fn snapshot(&mut self) -> anyhow::Result<Snapshot> {
        let mut shared = self.lock();
        let is_gone = shared.due(bpf::kvm_instance()) == Due::Detach;
        match &mut shared.state {
            State::Waiting => Ok(bpf::waiting_snapshot(NOT_LOADED)),
            State::Released(_) => Ok(bpf::waiting_snapshot(RELEASED)),
            State::Running { .. } if is_gone => Ok(bpf::waiting_snapshot(REPLACED)),
            State::Running { live, .. } => {
                // VMs that the last snapshot showed as ended go now: a scrape saw their last figures.
                live.reap_ended_vms()?;
                live.snapshot()
            }
        }
    }

    fn attachment(&self) -> Option<Attachment> {
        let shared = self.lock();
        let holds_kvm = matches!(&shared.state, State::Running { live, .. } if live.holds_kvm());
        Some(Attachment { holds_kvm, times: shared.times, untraced: shared.untraced() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kvm_that_is_hooked_must_be_the_one_that_is_loaded() {
        let [first, second] = KvmInstance::EXAMPLES.map(Some);
        let cases = [
            (Hooked::No, None, Due::Nothing),
            (Hooked::No, first, Due::Attach),
            (Hooked::Yes(first), first, Due::Nothing),
            (Hooked::Yes(first), None, Due::Detach),
            (Hooked::Yes(first), second, Due::Detach),
            (Hooked::NotThis(first), first, Due::Nothing),
            (Hooked::NotThis(first), None, Due::Nothing),
            (Hooked::NotThis(first), second, Due::Attach),
        ];
        for (n, (hooked, loaded, expected)) in cases.into_iter().enumerate() {
            assert_eq!(due(hooked, loaded), expected, "case {n}");
        }
    }

    #[test]
    fn before_kvm_nothing_is_held_and_nothing_missed() {
        let options =
            Options { backend: bpf::BackendChoice::Auto, recording: false, vm_histograms: false, max_vms: 1 };
        let tracer = Tracer::new(options);
        assert_eq!(tracer.attachment(), Some(Attachment::default()));
        tracer.release();
        assert_eq!(tracer.attachment(), Some(Attachment::default()));
    }
}
