//! What can go wrong, as the user sees it, and the exit code of each.

use std::{error::Error, io, net::SocketAddr};

use super::config::ConfigError;
use crate::http::WebConfigError;

/// The documented exit codes, for `--help`.
pub const EXIT_CODES: &str = "\
Exit codes:
    0  done
    1  a bug or an I/O error
    2  wrong usage
    3  this host cannot be traced
    4  the capture is damaged or of an unreadable version
  130  interrupted, with the capture closed properly";

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The user asked for something that makes no sense; the message says what would.
    #[error("{0}")]
    Usage(String),
    /// The configuration file makes no sense or cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address of the metrics server cannot be had.
    #[error("{}", bind_message(.address, .source))]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The web configuration is refused.
    #[error(transparent)]
    WebConfig(#[from] WebConfigError),
    /// An output file or standard output could not be written.
    #[error("writing {target}")]
    Output {
        /// The file, or `standard output`.
        target: String,
        /// Why not.
        source: io::Error,
    },
    /// This host cannot be traced; the message says which requirement fails and what to do.
    #[error("this host cannot be traced: {0}")]
    Untraceable(String),
    /// A capture is damaged or of a version this program does not read.
    #[error(transparent)]
    Capture(anyhow::Error),
    /// The user interrupted, and everything was closed properly.
    #[error("interrupted")]
    Interrupted,
    /// Anything else.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

impl CliError {
    /// The exit code, see `--help`.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Bind { .. } | Self::Output { .. } | Self::Failed(_) => 1,
            Self::Usage(_) | Self::Config(_) | Self::WebConfig(_) => 2,
            Self::Untraceable(_) => 3,
            Self::Capture(_) => 4,
            Self::Interrupted => 130,
        }
    }

    /// The error and its sources in one line.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut line = self.to_string();
        let mut source = self.source();
        while let Some(error) = source {
            line.push_str(": ");
            line.push_str(&error.to_string());
            source = error.source();
        }
        line
    }
}

fn bind_message(address: &SocketAddr, source: &io::Error) -> String {
    let advice = match source.kind() {
        io::ErrorKind::AddrInUse => "; another mmu-trace may be running, or choose a free port with --listen",
        io::ErrorKind::AddrNotAvailable => "; choose an address of this host with --listen",
        io::ErrorKind::PermissionDenied => "; choose a port from 1024 on with --listen",
        _ => "",
    };
    format!("cannot listen on {address}{advice}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_used_port_says_what_to_do() {
        let error = CliError::Bind {
            address: SocketAddr::from(([127, 0, 0, 1], 9948)),
            source: io::Error::from(io::ErrorKind::AddrInUse),
        };
        let line = error.chain();
        assert!(line.starts_with("cannot listen on 127.0.0.1:9948; another mmu-trace"), "{line}");
        assert!(line.ends_with("address in use"), "{line}");
        assert_eq!(error.exit_code(), 1);
    }

    #[test]
    fn every_exit_code_is_documented() {
        for code in [0, 1, 2, 3, 4, 130] {
            assert!(
                EXIT_CODES.lines().any(|line| line.trim_start().starts_with(&format!("{code}  "))),
                "{code}"
            );
        }
    }
}
