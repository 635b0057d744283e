//! From `tls_server_config` to what rustls serves.
//!
//! Sessions are not resumed: every handshake checks the client's certificate anew.

use std::{path::Path, sync::Arc};

use tokio_rustls::rustls::{
    self, CipherSuite, ProtocolVersion, RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};

use super::{
    Reader, WebConfigError,
    file::{Tls, Version},
};
use crate::http::client_cert::{AllowedSans, AnyCertificate, Demand};

/// The suites that Go has by these names and rustls does not.
const NOT_SERVED_SUITES: &[&str] = &[
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
];

/// Go's names of the suites for TLS 1.3, all of which are always on.
const TLS13_SUITES: &[&str] =
    &["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];

/// Certificates and keys, in PEM.
pub(super) struct Material {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Material {
    /// Reads what the section names; `None` if it says nothing about TLS.
    pub(super) fn read(tls: &Tls, reader: &mut Reader<'_>) -> Result<Option<Self>, WebConfigError> {
        let client_auth = tls.client_auth_type.as_deref().filter(|value| !value.is_empty());
        let cert = pem(&tls.cert_file, &tls.cert, reader)?;
        let key = pem(&tls.key_file, &tls.key, reader)?;
        let client_ca = pem(&tls.client_ca_file, &tls.client_ca, reader)?;
        match (cert, key) {
            (Some(cert), Some(key)) => Ok(Some(Self { cert, key, client_ca })),
            (None, None)
                if client_ca.is_none() && client_auth.is_none() && tls.client_allowed_sans.is_none() =>
            {
                Ok(None)
            }
            (None, _) => Err(reader.value("tls_server_config", "cert_file or cert is missing")),
            (_, None) => Err(reader.value("tls_server_config", "key_file or key is missing")),
        }
    }
}

/// The file if there is one, as the toolkit does; an empty string is none.
fn pem(
    file: &Option<String>,
    text: &Option<String>,
    reader: &mut Reader<'_>,
) -> Result<Option<Vec<u8>>, WebConfigError> {
    match (file.as_deref().unwrap_or_default(), text.as_deref().unwrap_or_default()) {
        ("", "") => Ok(None),
        ("", text) => Ok(Some(text.as_bytes().to_vec())),
        (file, _) => reader.read(Path::new(file)).map(Some),
    }
}

/// The whole configuration.
pub(super) fn server_config(
    tls: &Tls,
    material: &Material,
    reader: &Reader<'_>,
) -> Result<ServerConfig, WebConfigError> {
    let wrong = |what| move |source| WebConfigError::Tls { path: reader.path.to_owned(), what, source };
    let (chain, key) = identity(material, reader)?;
    let mut provider = ring::default_provider();
    let mut versions = versions(tls, reader)?;
    if let Some(names) = tls.cipher_suites.as_ref().filter(|names| !names.is_empty()) {
        let has_tls12 = restrict_suites(&mut provider, names, reader)?;
        versions.retain(|version| has_tls12 || version.version != ProtocolVersion::TLSv1_2);
        if versions.is_empty() {
            return Err(reader.value("cipher_suites", "none is left for TLS 1.2, and TLS 1.3 is ruled out"));
        }
    }
    if let Some(names) = tls.curve_preferences.as_ref().filter(|names| !names.is_empty()) {
        provider.kx_groups = curves(names, reader)?;
    }
    let provider = Arc::new(provider);
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)
        .map_err(wrong("the versions and suites do not fit together"))?;
    let builder = match client_verifier(tls, material.client_ca.as_deref(), &provider, reader)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config =
        builder.with_single_cert(chain, key).map_err(wrong("the certificate and the key cannot be used"))?;
    config.ignore_client_order = tls.prefer_server_cipher_suites.unwrap_or(true);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn identity(
    material: &Material,
    reader: &Reader<'_>,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), WebConfigError> {
    let chain = certificates(&material.cert, "cert", reader)?;
    let key = PrivateKeyDer::from_pem_slice(&material.key)
        .map_err(|_| reader.value("key", "it holds no unencrypted private key in PEM"))?;
    Ok((chain, key))
}

/// The certificates of a PEM file, at least one.
fn certificates(
    pem: &[u8],
    key: &str,
    reader: &Reader<'_>,
) -> Result<Vec<CertificateDer<'static>>, WebConfigError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(reader.value(key, "it holds no certificate in PEM, or a damaged one")),
    }
}

fn versions(
    tls: &Tls,
    reader: &Reader<'_>,
) -> Result<Vec<&'static SupportedProtocolVersion>, WebConfigError> {
    let min = tls.min_version.unwrap_or(Version::Tls12);
    let max = tls.max_version.unwrap_or(Version::Tls13);
    if max < Version::Tls12 {
        return Err(reader.value("max_version", "versions before TLS12 are not served"));
    }
    if max < min {
        return Err(reader.value("max_version", "it is below min_version"));
    }
    let mut versions = Vec::new();
    if max >= Version::Tls13 {
        versions.push(&TLS13);
    }
    if min <= Version::Tls12 {
        versions.push(&TLS12);
    }
    Ok(versions)
}

/// Leaves the named suites of TLS 1.2, in the order in which they are named; whether there are any.
fn restrict_suites(
    provider: &mut CryptoProvider,
    names: &[String],
    reader: &Reader<'_>,
) -> Result<bool, WebConfigError> {
    let (tls13, tls12): (Vec<_>, Vec<_>) =
        provider.cipher_suites.iter().copied().partition(|suite| suite.tls13().is_some());
    let mut chosen = Vec::new();
    for name in names {
        match tls12.iter().find(|suite| go_name(suite.suite()).as_deref() == Some(name.as_str())) {
            Some(suite) => chosen.push(*suite),
            None if TLS13_SUITES.contains(&name.as_str()) => {}
            None if NOT_SERVED_SUITES.contains(&name.as_str()) => {}
            None => return Err(reader.value("cipher_suites", format!("there is no suite {name:?}"))),
        }
    }
    let only_tls13 = names.iter().all(|name| TLS13_SUITES.contains(&name.as_str()));
    if chosen.is_empty() && !only_tls13 {
        let known: Vec<String> = tls12.iter().filter_map(|suite| go_name(suite.suite())).collect();
        let reason = format!("none of these is served; name one of {}", known.join(", "));
        return Err(reader.value("cipher_suites", reason));
    }
    let has_tls12 = !chosen.is_empty();
    provider.cipher_suites = tls13.into_iter().chain(chosen).collect();
    Ok(has_tls12)
}

/// Go's name of a suite: that of the standard, also rustls's.
fn go_name(suite: CipherSuite) -> Option<String> {
    suite.as_str().map(str::to_owned)
}

fn curves(
    names: &[String],
    reader: &Reader<'_>,
) -> Result<Vec<&'static dyn rustls::crypto::SupportedKxGroup>, WebConfigError> {
    let mut groups = Vec::new();
    for name in names {
        match name.as_str() {
            "CurveP256" => groups.push(ring::kx_group::SECP256R1),
            "CurveP384" => groups.push(ring::kx_group::SECP384R1),
            "X25519" => groups.push(ring::kx_group::X25519),
            "CurveP521" => {}
            _ => return Err(reader.value("curve_preferences", format!("there is no curve {name:?}"))),
        }
    }
    if groups.is_empty() {
        return Err(
            reader.value("curve_preferences", "CurveP521 is not served; add X25519, CurveP256 or CurveP384")
        );
    }
    Ok(groups)
}

/// Who checks the client's certificate; `None`: nobody asks for one.
fn client_verifier(
    tls: &Tls,
    ca: Option<&[u8]>,
    provider: &Arc<CryptoProvider>,
    reader: &Reader<'_>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, WebConfigError> {
    let any = |demand| -> Arc<dyn ClientCertVerifier> { Arc::new(AnyCertificate::new(demand, provider)) };
    let verified = |demand| verified(demand, tls, ca, provider, reader);
    let (verifier, is_verified) = match tls.client_auth_type.as_deref().unwrap_or_default() {
        "" | "NoClientCert" if ca.is_some() => {
            return Err(reader.value("client_auth_type", "there is a client CA, and nobody is asked for a certificate; write RequireAndVerifyClientCert"));
        }
        "" | "NoClientCert" => (None, false),
        "RequestClientCert" => (Some(any(Demand::Optional)), false),
        "RequireAnyClientCert" | "RequireClientCert" => (Some(any(Demand::Required)), false),
        "VerifyClientCertIfGiven" => (Some(verified(Demand::Optional)?), true),
        "RequireAndVerifyClientCert" => (Some(verified(Demand::Required)?), true),
        other => return Err(reader.value("client_auth_type", format!("there is no type {other:?}"))),
    };
    if tls.client_allowed_sans.is_some() && !is_verified {
        let reason = "names in certificates that nobody verifies mean nothing; write client_auth_type: RequireAndVerifyClientCert";
        return Err(reader.value("client_allowed_sans", reason));
    }
    Ok(verifier)
}

fn verified(
    demand: Demand,
    tls: &Tls,
    ca: Option<&[u8]>,
    provider: &Arc<CryptoProvider>,
    reader: &Reader<'_>,
) -> Result<Arc<dyn ClientCertVerifier>, WebConfigError> {
    let ca = ca.ok_or_else(|| {
        reader.value(
            "client_auth_type",
            "client certificates cannot be verified without client_ca_file or client_ca",
        )
    })?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca, "client_ca", reader)? {
        roots.add(certificate).map_err(|source| WebConfigError::Tls {
            path: reader.path.to_owned(),
            what: "the client CA cannot be used",
            source,
        })?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = if demand == Demand::Optional { builder.allow_unauthenticated() } else { builder };
    let verifier = builder.build().map_err(|error| reader.value("client_ca", error.to_string()))?;
    Ok(match &tls.client_allowed_sans {
        Some(sans) => Arc::new(AllowedSans::new(verifier, sans.clone())),
        None => verifier,
    })
}
