//! Serving metrics until a signal comes: what `daemon` and `replay` share.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use tokio::{
    runtime::{Builder, Runtime},
    sync::watch,
};

use super::{
    CliError, SandboxArgs, Stop, complaint::Complaint, confine, duration, manager, note, textfile::Textfile,
};
use crate::{
    http::{Guard, Server, WebConfigError},
    sandbox::Needs,
    scrape::Scraper,
    source::Source,
};

/// Where the metrics are served if nobody says otherwise: this host only.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9948);

/// Threads for what may block: a scrape, its encoding, its compression, a password, the tracer's upkeep, and
/// the web configuration for some clients at once. Others wait.
const MAX_BLOCKING: usize = 16;

/// What a server runs on.
///
/// # Errors
/// The system gives no event queue.
pub(super) fn runtime() -> Result<Runtime, CliError> {
    let mut builder = Builder::new_current_thread();
    Ok(builder.enable_all().max_blocking_threads(MAX_BLOCKING).build().context("starting tokio")?)
}

/// Where the metrics go.
#[derive(Args, Debug)]
pub struct ServeArgs {
    /// Address and port of the metrics server.
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = DEFAULT_LISTEN)]
    pub listen: SocketAddr,
    /// Also serve histograms of each VM: 69 more series for each.
    #[arg(long)]
    pub vm_histograms: bool,
    /// TLS, client certificates, passwords and headers, in the format of the Prometheus exporter toolkit.
    #[arg(long = "web.config.file", value_name = "FILE")]
    pub web_config: Option<PathBuf>,
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
    scheme: &'static str,
    /// Files and folders of the web configuration.
    readable: Vec<PathBuf>,
}

impl ServeArgs {
    /// Takes the address.
    pub(super) async fn bind(&self, source: Box<dyn Source>) -> Result<Serving, CliError> {
        let path = self.textfile.clone();
        let textfile = path.map(|path| Textfile { path, interval: self.textfile_interval });
        let scraper = Scraper::new(source).with_vm_histograms(self.vm_histograms);
        let guard = self.web_config.clone().map(guard).transpose()?;
        let scraper = if textfile.is_some() { scraper.with_textfile() } else { scraper };
        let scraper = Arc::new(if guard.is_some() { scraper.with_rejections() } else { scraper });
        let address = self.listen;
        let server = Server::bind(address, Arc::clone(&scraper));
        let server = server.map_err(|source| CliError::Bind { address, source })?;
        if let Some(warning) = exposure(address, guard.as_ref()) {
            note(&warning);
        }
        let readable = guard.as_ref().map(Guard::folders).unwrap_or_default();
        let scheme = if guard.as_ref().is_some_and(Guard::has_tls) { "https" } else { "http" };
        let server = match guard {
            Some(guard) => server.guarded(guard),
            None => server,
        };
        Ok(Serving { server, scraper, textfile, scheme, readable })
    }
}

/// The guard of the web configuration at `path`, which says once if that becomes bad.
fn guard(path: PathBuf) -> Result<Guard, CliError> {
    let complaint = Mutex::new(Complaint::default());
    let tell = move |read: Result<(), WebConfigError>| {
        let read = read.map_err(|error| {
            let consequence = consequence(&error);
            anyhow::Error::new(error).context(consequence)
        });
        complaint
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .hear(read, "the web configuration is good again");
    };
    Ok(Guard::new(path, Box::new(tell))?)
}

/// What a bad web configuration means, and what helps where that is not plain from `error`.
fn consequence(error: &WebConfigError) -> &'static str {
    match error {
        WebConfigError::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            "nobody is let in (files in folders that were not named at the start take a restart)"
        }
        _ => "nobody is let in",
    }
}

/// What whoever reaches `address` can do, if that is more than it should be.
fn exposure(address: SocketAddr, guard: Option<&Guard>) -> Option<String> {
    let has_tls = guard.is_some_and(Guard::has_tls);
    if address.ip().to_canonical().is_loopback() || has_tls {
        return None;
    }
    let danger = if guard.is_some_and(Guard::has_users) {
        "passwords and metrics cross the network in plain text"
    } else {
        "whoever reaches it can read the metrics, in plain text"
    };
    Some(format!(
        "warning: {address} is not this host alone, and {danger}; --web.config.file sets TLS and passwords"
    ))
}

impl Serving {
    /// Gives up what neither serving nor `needs` takes, and says so.
    pub(super) fn confine(&mut self, args: SandboxArgs, needs: Needs) {
        let needs = Needs {
            serving: true,
            readable: self.readable.clone(),
            written: self.textfile.as_ref().map(|textfile| textfile.path.clone()),
            ..needs
        };
        let sandbox = confine::confine(args, &needs);
        confine::describe(&sandbox);
        self.scraper.set_sandbox(sandbox);
    }

    /// Says where it serves, and serves until SIGINT or SIGTERM.
    pub(super) async fn run(self, stop: &mut Stop) -> Result<(), CliError> {
        let address = self.server.local_addr().context("asking for the bound address")?;
        note(&format!("serving {}://{address}/metrics", self.scheme));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_others_can_reach_is_warned_of() {
        for address in ["127.0.0.1:9948", "127.9.9.9:1", "[::1]:9948", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(exposure(address.parse().unwrap(), None), None, "{address}");
        }
        for address in ["0.0.0.0:9948", "[::]:9948", "10.0.0.1:9948", "[::ffff:10.0.0.1]:1"] {
            let warning = exposure(address.parse().unwrap(), None).unwrap();
            assert!(warning.contains(address) && warning.contains("--web.config.file"), "{warning}");
        }
    }

    #[test]
    fn a_password_in_plain_text_is_warned_of_and_tls_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("web.yml");
        let hash = bcrypt::hash("x", 4).unwrap();
        std::fs::write(&file, format!("basic_auth_users: {{a: {hash}}}")).unwrap();
        let guard = guard(file).unwrap();
        let warning = exposure("10.0.0.1:1".parse().unwrap(), Some(&guard)).unwrap();
        assert!(warning.contains("passwords"), "{warning}");
    }
}
