//! `mmu-trace daemon`: serves the metrics.

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{
    CliError, SandboxArgs, Stop,
    complaint::Complaint,
    confine,
    manager::Manager,
    serve::{self, ServeArgs},
    tracer::{Listener, Standing, Tracer, TracerArgs, UPKEEP_EVERY},
};
use crate::{bpf::Options, sandbox::Needs};

/// Arguments of `daemon`.
#[derive(Args, Debug)]
pub struct DaemonArgs {
    /// Where the metrics go.
    #[command(flatten)]
    pub serve: ServeArgs,
    /// How to trace.
    #[command(flatten)]
    pub tracer: TracerArgs,
    /// What is given up.
    #[command(flatten)]
    pub sandbox: SandboxArgs,
    /// Print the settings in force as a configuration file that says where each came from, and end.
    #[arg(long)]
    pub print_config: bool,
}

/// Traces and serves metrics until SIGINT or SIGTERM. SIGUSR1 makes it let go of KVM, SIGUSR2 take it
/// again.
///
/// # Errors
/// If this host cannot be traced or the address cannot be had.
pub fn run(args: &DaemonArgs) -> Result<(), CliError> {
    serve::runtime()?.block_on(serve(args))
}

async fn serve(args: &DaemonArgs) -> Result<(), CliError> {
    let mut stop = Stop::new()?;
    let orders = Orders::new()?;
    let options = Options { vm_histograms: args.serve.vm_histograms, ..args.tracer.options() };
    let descriptors = confine::descriptors(args.sandbox);
    let needs = Needs { attaching: true, ..confine::needs_of_tracing(&descriptors) };
    let tracer = Tracer::new(options, descriptors, Listener::standard_error());
    // Before anything is attached: a daemon that is refused must not cost the guests anything.
    let mut serving = args.serve.bind(Box::new(tracer.clone())).await?;
    tracer.start()?;
    serving.confine(args.sandbox, needs);
    let mut manager = Manager::new();
    report(tracer.standing(), &mut manager);
    let upkeep = tokio::spawn(upkeep(tracer, orders, manager));
    let served = serving.run(&mut stop).await;
    upkeep.abort();
    served
}

/// SIGUSR1 and SIGUSR2, caught from creation on.
struct Orders {
    release: Signal,
    resume: Signal,
}

impl Orders {
    fn new() -> Result<Self, CliError> {
        let catch = |kind| signal(kind).context("catching signals");
        Ok(Self { release: catch(SignalKind::user_defined1())?, resume: catch(SignalKind::user_defined2())? })
    }
}

/// Looks after the tracer between scrapes, and does what it is told. An error is said once, until
/// there is another.
async fn upkeep(tracer: Tracer, mut orders: Orders, mut manager: Manager) {
    let every = manager.watchdog_period().map_or(UPKEEP_EVERY, |period| period.min(UPKEEP_EVERY));
    let mut tick = tokio::time::interval(every);
    let mut complaint = Complaint::default();
    loop {
        let work: fn(&Tracer) -> anyhow::Result<()> = tokio::select! {
            _ = tick.tick() => Tracer::look_after,
            _ = orders.release.recv() => |tracer| {
                tracer.release();
                Ok(())
            },
            _ = orders.resume.recv() => Tracer::resume,
        };
        let (worker, is_due) = (tracer.clone(), manager.is_due());
        let done = tokio::task::spawn_blocking(move || {
            work(&worker)?;
            if is_due { worker.check() } else { Ok(()) }
        });
        let done = done.await;
        if is_due && matches!(done, Ok(Ok(()))) {
            manager.works();
        }
        // A panic has been told already.
        complaint.hear(done.unwrap_or(Ok(())), "tracing works again");
        // The lock may be held by a slow reader: not waited for on the thread that serves.
        let worker = tracer.clone();
        if let Ok(standing) = tokio::task::spawn_blocking(move || worker.standing()).await {
            report(standing, &mut manager);
        }
    }
}

/// Tells the service manager how tracing stands. It is ready once the hooks are attached: not while it
/// waits for KVM.
fn report(standing: Standing, manager: &mut Manager) {
    manager.status(standing.text);
    if standing.is_tracing {
        manager.ready();
    }
}
