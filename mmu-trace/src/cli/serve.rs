//! Serving metrics until a signal comes: what `daemon` and `replay` share.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Context;
use clap::Args;

use super::{CliError, Stop, note};
use crate::{http::Server, source::Source};

/// Where the metrics are served if nobody says otherwise: this host only.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9948);

/// Where the metrics go.
#[derive(Args, Debug)]
pub struct ServeArgs {
    /// Address and port of the metrics server.
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = DEFAULT_LISTEN)]
    pub listen: SocketAddr,
}

/// A server that is bound.
pub(super) struct Serving {
    server: Server,
}

impl ServeArgs {
    /// Takes the address.
    pub(super) async fn bind(&self, source: Box<dyn Source>) -> Result<Serving, CliError> {
        let address = self.listen;
        let server =
            Server::bind(address, source).await.map_err(|source| CliError::Bind { address, source })?;
        Ok(Serving { server })
    }
}

impl Serving {
    /// Says where it serves, and serves until SIGINT or SIGTERM.
    pub(super) async fn run(self, stop: &mut Stop) -> Result<(), CliError> {
        let address = self.server.local_addr().context("asking for the bound address")?;
        note(&format!("serving http://{address}/metrics"));
        self.server.serve(stop.requested()).await;
        note("stopped");
        Ok(())
    }
}
