//! `mmu-trace daemon`: serves the metrics.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{BackendChoice, CliError, note};
use crate::{http::Server, source::Source};

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
}

/// Serves the metrics of `source` until SIGINT or SIGTERM.
///
/// # Errors
/// If the address cannot be had.
pub fn run(args: &DaemonArgs, source: Box<dyn Source>) -> Result<(), CliError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting tokio")?;
    runtime.block_on(serve(args.listen, source))
}

async fn serve(address: SocketAddr, source: Box<dyn Source>) -> Result<(), CliError> {
    let mut stop = Stop::new()?;
    let server = Server::bind(address, source).await.map_err(|source| CliError::Bind { address, source })?;
    let address = server.local_addr().context("asking for the bound address")?;
    note(&format!("serving http://{address}/metrics"));
    server.serve(stop.requested()).await;
    note("stopped");
    Ok(())
}

/// The two signals that end the daemon.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn new() -> Result<Self, CliError> {
        let catch = |kind| signal(kind).context("catching signals");
        Ok(Self { interrupt: catch(SignalKind::interrupt())?, terminate: catch(SignalKind::terminate())? })
    }

    async fn requested(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
