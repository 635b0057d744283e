//! Serving metrics until a signal comes: what `daemon` and `replay` share.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use tokio::sync::watch;

use super::{CliError, Stop, duration, manager, note, textfile::Textfile};
use crate::{http::Server, scrape::Scraper, source::Source};

/// Where the metrics are served if nobody says otherwise: this host only.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9948);

/// Where the metrics go.
#[derive(Args, Debug)]
pub struct ServeArgs {
    /// Address and port of the metrics server.
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = DEFAULT_LISTEN)]
    pub listen: SocketAddr,
    /// Also serve histograms of each VM: 69 more series for each.
    #[arg(long)]
    pub vm_histograms: bool,
    /// Also write the metrics to this file, for the textfile collector of node_exporter, which reads what
    /// ends in .prom.
    #[arg(long, value_name = "FILE")]
    pub textfile: Option<PathBuf>,
    /// How often to write that file.
    #[arg(
        long, value_name = "TIME", default_value = "15s", requires = "textfile", value_parser = duration::parse
    )]
    pub textfile_interval: Duration,
}

/// A server that is bound.
pub(super) struct Serving {
    server: Server,
    scraper: Arc<Scraper>,
    textfile: Option<Textfile>,
}

impl ServeArgs {
    /// Takes the address.
    pub(super) async fn bind(&self, source: Box<dyn Source>) -> Result<Serving, CliError> {
        let path = self.textfile.clone();
        let textfile = path.map(|path| Textfile { path, interval: self.textfile_interval });
        let scraper = Scraper::new(source).with_vm_histograms(self.vm_histograms);
        let scraper = Arc::new(if textfile.is_some() { scraper.with_textfile() } else { scraper });
        let address = self.listen;
        let server = Server::bind(address, Arc::clone(&scraper)).await;
        let server = server.map_err(|source| CliError::Bind { address, source })?;
        Ok(Serving { server, scraper, textfile })
    }
}

impl Serving {
    /// Says where it serves, and serves until SIGINT or SIGTERM.
    pub(super) async fn run(self, stop: &mut Stop) -> Result<(), CliError> {
        let address = self.server.local_addr().context("asking for the bound address")?;
        note(&format!("serving http://{address}/metrics"));
        let (stopping, stopped) = watch::channel(());
        let textfile = self.textfile.map(|textfile| tokio::spawn(textfile.keep(self.scraper, stopped)));
        self.server.serve(stop.requested()).await;
        manager::stopping();
        drop(stopping);
        if let Some(textfile) = textfile {
            textfile.await.context("the keeper of the text file panicked")?;
        }
        note("stopped");
        Ok(())
    }
}
