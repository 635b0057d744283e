//! `mmu-trace daemon`: serves the metrics.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context;
use clap::Args;

use super::{BackendChoice, CliError, Stop, note, start_tracer};
use crate::{
    bpf::{self, Live, Options},
    http::Server,
    model::Snapshot,
    source::Source,
};

/// How often new VMs are identified and, where KVM is missing, looked for.
const UPKEEP_EVERY: Duration = Duration::from_secs(1);

/// Where the metrics are served if nobody says otherwise: this host only.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9948);

/// Arguments of `daemon`.
#[derive(Args, Debug)]
pub struct DaemonArgs {
    /// Address and port of the metrics server.
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = DEFAULT_LISTEN)]
    pub listen: SocketAddr,
    /// How to attach to kernel functions.
    #[arg(long, value_enum, default_value_t = BackendChoice::Auto)]
    pub backend: BackendChoice,
    /// Most VMs told apart at a time; the rest counts as unattributed.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub max_vms: u32,
}

/// Traces and serves metrics until SIGINT or SIGTERM.
///
/// # Errors
/// If this host cannot be traced or the address cannot be had.
pub fn run(args: &DaemonArgs) -> Result<(), CliError> {
    let options = Options {
        backend: args.backend.into(),
        recording: false,
        vm_histograms: false,
        max_vms: args.max_vms,
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting tokio")?;
    runtime.block_on(serve(args.listen, Tracer::new(options)))
}

async fn serve(address: SocketAddr, tracer: Tracer) -> Result<(), CliError> {
    let mut stop = Stop::new()?;
    let source = Box::new(tracer.clone());
    // Before anything is attached: a daemon that is refused must not cost the guests anything.
    let server = Server::bind(address, source).await.map_err(|source| CliError::Bind { address, source })?;
    tracer.start()?;
    let address = server.local_addr().context("asking for the bound address")?;
    note(&format!("serving http://{address}/metrics"));
    let upkeep = tokio::spawn(upkeep(tracer));
    server.serve(stop.requested()).await;
    upkeep.abort();
    note("stopped");
    Ok(())
}

/// Looks after the tracer between scrapes.
async fn upkeep(tracer: Tracer) {
    let mut tick = tokio::time::interval(UPKEEP_EVERY);
    loop {
        tick.tick().await;
        let tracer = tracer.clone();
        let done = tokio::task::spawn_blocking(move || tracer.look_after()).await;
        if let Ok(Err(error)) = done {
            note(&format!("{error:#}"));
        }
    }
}

/// The tracer as a source of snapshots; before KVM is loaded it waits.
#[derive(Clone)]
struct Tracer {
    state: Arc<Mutex<State>>,
}

enum State {
    /// KVM is not loaded: nothing to hook yet.
    Waiting(Options),
    Running(Box<Live>),
}

impl Tracer {
    fn new(options: Options) -> Self {
        Self { state: Arc::new(Mutex::new(State::Waiting(options))) }
    }

    /// Begins to trace, if KVM is there; refuses a host that cannot be traced even with KVM.
    fn start(&self) -> Result<(), CliError> {
        let mut state = self.lock();
        let State::Waiting(options) = &*state else { return Ok(()) };
        if bpf::must_wait_for_kvm() {
            note("kvm is not loaded: waiting for it (modprobe kvm_intel or kvm_amd)");
        } else {
            *state = State::Running(Box::new(start_tracer(*options)?));
        }
        Ok(())
    }

    /// Begins to trace once KVM is there; asks new VMs who they are while they live.
    fn look_after(&self) -> anyhow::Result<()> {
        let mut state = self.lock();
        match &mut *state {
            State::Running(live) => live.identify_new_vms(),
            State::Waiting(options) if bpf::kvm_is_loaded() => {
                let live = Live::start(*options).context("kvm was loaded, but tracing cannot start")?;
                *state = State::Running(Box::new(live));
                note("kvm was loaded: tracing");
                Ok(())
            }
            State::Waiting(_) => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it was held aborts a release build; elsewhere the state is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for Tracer {
    fn snapshot(&mut self) -> anyhow::Result<Snapshot> {
        match &mut *self.lock() {
            State::Waiting(_) => Ok(bpf::waiting_snapshot()),
            State::Running(live) => {
                // VMs that the last snapshot showed as ended go now: a scrape saw their last figures.
                live.reap_ended_vms()?;
                live.snapshot()
            }
        }
    }
}
