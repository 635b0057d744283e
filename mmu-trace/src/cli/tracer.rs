//! The tracer of `daemon` and `top` over the lives of KVM.
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
//!
//! What happens is told to a [`Listener`], for standard error is not everybody's: `top` owns the terminal.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Args;

use super::{BackendChoice, CliError, Stop, note, start_tracer};
use crate::{
    bpf::{self, KvmInstance, Live, Options},
    memory,
    model::{Hook, Snapshot},
    source::{Attachment, Source},
    vm::Descriptors,
};

const NOT_LOADED: &str = "kvm is not loaded; the tracer waits for it";
const RELEASED: &str = "SIGUSR1 released kvm; SIGUSR2 or loading it again resumes";
const REPLACED: &str = "kvm was unloaded; the tracer looks for it again";

/// How often new VMs are identified, and KVM's comings and goings noticed.
pub(super) const UPKEEP_EVERY: Duration = Duration::from_secs(1);

/// How to trace, as the user says it.
#[derive(Args, Clone, Copy, Debug)]
pub struct TracerArgs {
    /// How to attach to kernel functions.
    #[arg(long, value_enum, default_value_t = BackendChoice::Auto)]
    pub backend: BackendChoice,
    /// Most VMs told apart at a time; the rest is counted as one, called other. Each takes 1.7 KiB of
    /// kernel memory for each CPU, up to 16, and 4 KiB.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=8192))]
    pub max_vms: u32,
}

impl TracerArgs {
    /// For snapshots alone: no events, and histograms of the host only.
    pub(super) fn options(self) -> Options {
        let Self { backend, max_vms } = self;
        Options { backend: backend.into(), recording: false, vm_histograms: false, max_vms }
    }
}

/// KVM's functions can be hooked only once it is loaded.
pub(super) async fn wait_for_kvm(stop: &mut Stop) -> Result<(), CliError> {
    if !bpf::must_wait_for_kvm() {
        return Ok(());
    }
    note("kvm is not loaded: waiting for it (modprobe kvm_intel or kvm_amd; Ctrl-C gives up)");
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    while !bpf::kvm_is_loaded() {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.requested() => return Err(CliError::Interrupted),
        }
    }
    Ok(())
}

/// Who is told what happens to the tracer.
pub(super) struct Listener {
    /// Takes a sentence.
    pub(super) tell: Box<dyn Fn(&str) + Send>,
    /// What makes this command let go of the module kvm.
    pub(super) release: String,
}

impl Listener {
    /// Standard error, of a command that obeys SIGUSR1.
    pub(super) fn standard_error() -> Self {
        Self { tell: Box::new(note), release: format!("kill -USR1 {}", std::process::id()) }
    }
}

/// The tracer as a source of snapshots.
#[derive(Clone)]
pub(super) struct Tracer {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    options: Options,
    descriptors: Descriptors,
    listener: Listener,
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

/// How tracing stands, for a person.
pub(super) struct Standing {
    /// Whether every hook that this kernel offers was tried.
    pub(super) is_tracing: bool,
    /// In one line.
    pub(super) text: String,
}

/// What is traced, and which hooks are missing that the figures need.
fn tracing(n_vms: usize, hooks: &[Hook]) -> String {
    let missing = hooks.iter().filter(|hook| hook.is_missing());
    let missing: Vec<&str> = missing.map(|hook| hook.hook.as_str()).collect();
    let vms = if n_vms == 1 { "1 VM".to_owned() } else { format!("{n_vms} VMs") };
    match missing.len() {
        0 => format!("tracing {vms}, all hooks attached"),
        1 => format!("tracing {vms}, 1 hook missing: {}", missing[0]),
        n => format!("tracing {vms}, {n} hooks missing: {}", missing.join(", ")),
    }
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
    pub(super) fn new(options: Options, descriptors: Descriptors, listener: Listener) -> Self {
        let shared = Shared {
            options,
            descriptors,
            listener,
            state: State::Waiting,
            times: 0,
            untraced: Duration::ZERO,
            idle_since: None,
        };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    /// Begins to trace, if KVM is there; refuses a host that cannot be traced even with KVM.
    pub(super) fn start(&self) -> Result<(), CliError> {
        let mut shared = self.lock();
        if bpf::must_wait_for_kvm() {
            shared.tell("kvm is not loaded: waiting for it (modprobe kvm_intel or kvm_amd)");
        } else {
            let live = start_tracer(shared.options, shared.descriptors.clone())?;
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
                shared.tell(
                    "SIGUSR1: kvm is released, nothing is traced; SIGUSR2 or loading kvm again resumes",
                );
            }
            State::Waiting => shared.tell("SIGUSR1: kvm is not loaded, there is nothing to release"),
            State::Released(_) => shared.tell("SIGUSR1: kvm is released already"),
        }
    }

    /// Traces again after a release.
    pub(super) fn resume(&self) -> anyhow::Result<()> {
        let mut shared = self.lock();
        if let State::Released(_) = shared.state {
            shared.tell("SIGUSR2: resuming");
            shared.state = State::Waiting;
        } else {
            shared.tell("SIGUSR2: kvm is not released, there is nothing to resume");
        }
        drop(shared);
        self.look_after()
    }

    /// Reads the counters of what may have been missed, to see that the kernel's maps can be read.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        match &self.lock().state {
            State::Running { live, .. } => live.check().context("reading the counters"),
            State::Waiting | State::Released(_) => Ok(()),
        }
    }

    /// How tracing stands.
    pub(super) fn standing(&self) -> Standing {
        match &self.lock().state {
            State::Waiting => Standing { is_tracing: false, text: "waiting for the kvm module".to_owned() },
            State::Released(_) => Standing { is_tracing: false, text: RELEASED.to_owned() },
            State::Running { live, .. } => {
                Standing { is_tracing: true, text: tracing(live.identities().len(), live.hooks()) }
            }
        }
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
        self.tell(match loaded {
            Some(_) => "kvm was unloaded and loaded again: its probes are gone",
            None => "kvm was unloaded: its probes are gone; waiting for it",
        });
    }

    fn attach(&mut self) -> anyhow::Result<()> {
        let live = Live::start(self.options, self.descriptors.clone())
            .context("kvm was loaded, but tracing cannot start")?;
        let gap = self.idle_since.map_or(String::new(), |since| {
            format!(" after {:.1} s; all counters start from 0", since.elapsed().as_secs_f64())
        });
        self.tell(&format!("kvm was loaded: tracing{gap}"));
        self.run(live);
        Ok(())
    }

    fn run(&mut self, live: Live) {
        if live.holds_kvm() {
            let release = &self.listener.release;
            self.tell(&format!("fentry holds the module kvm; before unloading it: {release}"));
        }
        self.untraced = self.untraced();
        self.idle_since = None;
        self.times += 1;
        self.state = State::Running { live: Box::new(live), seen: Instant::now() };
        memory::give_back();
    }

    fn tell(&self, text: &str) {
        (self.listener.tell)(text);
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
    fn look_after(&mut self) -> anyhow::Result<()> {
        Self::look_after(self)
    }

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
    use crate::model::Backend;
    use crate::model::HookState;

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
    fn the_hooks_that_are_missing_are_named() {
        let hook = |name: &str, state, required| Hook {
            hook: name.to_owned(),
            symbol: name.to_owned(),
            backend: Backend::Fentry,
            state,
            required,
            reason: None,
        };
        let mut hooks = vec![hook("a", HookState::Attached, true), hook("b", HookState::Absent, false)];
        assert_eq!(tracing(1, &hooks), "tracing 1 VM, all hooks attached");
        hooks.push(hook("c", HookState::Failed, true));
        assert_eq!(tracing(12, &hooks), "tracing 12 VMs, 1 hook missing: c");
        hooks.push(hook("d", HookState::Absent, true));
        assert_eq!(tracing(0, &hooks), "tracing 0 VMs, 2 hooks missing: c, d");
    }

    #[test]
    fn before_kvm_nothing_is_held_and_nothing_missed() {
        let options =
            Options { backend: bpf::BackendChoice::Auto, recording: false, vm_histograms: false, max_vms: 1 };
        let tracer = Tracer::new(options, Descriptors::Own, Listener::standard_error());
        assert_eq!(tracer.attachment(), Some(Attachment::default()));
        tracer.release();
        assert_eq!(tracer.attachment(), Some(Attachment::default()));
    }
}
