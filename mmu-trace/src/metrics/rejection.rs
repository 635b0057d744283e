//! Whom the HTTP server did not answer.

/// Why a connection or a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The web configuration is bad.
    Config,
    /// The TLS handshake failed: no certificate, plain text, or a client that went away.
    Handshake,
    /// No user and password, or wrong ones.
    Password,
    /// Too many requests.
    Rate,
}

impl Rejection {
    /// Every one.
    pub const ALL: &[Self] = &[Self::Config, Self::Handshake, Self::Password, Self::Rate];

    /// Its label value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Handshake => "handshake",
            Self::Password => "password",
            Self::Rate => "rate",
        }
    }
}

/// How often each of [`Rejection::ALL`] came.
pub type Rejections = [u64; Rejection::ALL.len()];
