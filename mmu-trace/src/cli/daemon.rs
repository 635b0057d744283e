//! `mmu-trace daemon`: serves the metrics.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{
    CliError, Stop, note,
    tracer::{Listener, Tracer, TracerArgs, UPKEEP_EVERY},
};
use crate::http::Server;

/// Where the metrics are served if nobody says otherwise: this host only.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9948);

/// Arguments of `daemon`.
#[derive(Args, Debug)]
pub struct DaemonArgs {
    /// Address and port of the metrics server.
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = DEFAULT_LISTEN)]
    pub listen: SocketAddr,
    /// How to trace.
    #[command(flatten)]
    pub tracer: TracerArgs,
}

/// Traces and serves metrics until SIGINT or SIGTERM. SIGUSR1 makes it let go of KVM, SIGUSR2 take it
/// again.
///
/// # Errors
/// If this host cannot be traced or the address cannot be had.
pub fn run(args: &DaemonArgs) -> Result<(), CliError> {
    let tracer = Tracer::new(args.tracer.options(), Listener::standard_error());
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting tokio")?;
    runtime.block_on(serve(args.listen, tracer))
}

async fn serve(address: SocketAddr, tracer: Tracer) -> Result<(), CliError> {
    let mut stop = Stop::new()?;
    let orders = Orders::new()?;
    let source = Box::new(tracer.clone());
    // Before anything is attached: a daemon that is refused must not cost the guests anything.
    let server = Server::bind(address, source).await.map_err(|source| CliError::Bind { address, source })?;
    tracer.start()?;
    let address = server.local_addr().context("asking for the bound address")?;
    note(&format!("serving http://{address}/metrics"));
    let upkeep = tokio::spawn(upkeep(tracer, orders));
    server.serve(stop.requested()).await;
    upkeep.abort();
    note("stopped");
    Ok(())
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
async fn upkeep(tracer: Tracer, mut orders: Orders) {
    let mut tick = tokio::time::interval(UPKEEP_EVERY);
    let mut said = String::new();
    loop {
        let work: fn(&Tracer) -> anyhow::Result<()> = tokio::select! {
            _ = tick.tick() => Tracer::look_after,
            _ = orders.release.recv() => |tracer| {
                tracer.release();
                Ok(())
            },
            _ = orders.resume.recv() => Tracer::resume,
        };
        let tracer = tracer.clone();
        let done = tokio::task::spawn_blocking(move || work(&tracer)).await;
        let error = done.ok().and_then(Result::err).map_or(String::new(), |error| format!("{error:#}"));
        if error != said {
            note(if error.is_empty() { "tracing works again" } else { &error });
            said = error;
        }
    }
}
