//! TLS, client certificates and passwords, spoken by a client of ours and by a real Prometheus.

use std::{
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use tempfile::TempDir;
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};

use crate::{
    fixture,
    pki::{Authority, Identity},
    prometheus::{Prometheus, find},
    served::{Served, capture, get},
};

/// A folder with certificates and a configuration that wants everything.
struct Site {
    dir: TempDir,
    authority: Authority,
}

impl Site {
    fn new() -> Self {
        let site = Self { dir: TempDir::new().unwrap(), authority: Authority::new() };
        site.authority.server().write(site.path(), "s");
        fs::write(site.path().join("ca.crt"), site.authority.pem()).unwrap();
        site.configure("secret");
        site
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn configure(&self, password: &str) {
        let hash = bcrypt::hash(password, 4).unwrap();
        let text = format!(
            "tls_server_config: {{cert_file: s.crt, key_file: s.key, client_ca_file: ca.crt, \
             client_auth_type: RequireAndVerifyClientCert, client_allowed_sans: [scraper]}}\n\
             http_server_config: {{headers: {{X-Frame-Options: deny}}}}\nbasic_auth_users: {{a: {hash}}}\n"
        );
        fs::write(self.path().join("web.yml"), text).unwrap();
    }

    fn serve(&self) -> Served {
        let config = self.path().join("web.yml");
        let args = ["--web.config.file", config.to_str().unwrap()];
        Served::start(&capture(self.path(), &[fixture::noop()]), &args)
    }

    /// Asks for `path` with this certificate and this user and password.
    fn ask(
        &self,
        address: SocketAddr,
        identity: Option<&Identity>,
        user: &str,
        path: &str,
    ) -> io::Result<String> {
        ask(&self.authority, address, identity, user, path)
    }
}

/// Asks for `path` over TLS, trusting `authority` alone.
pub(crate) fn ask(
    authority: &Authority,
    address: SocketAddr,
    identity: Option<&Identity>,
    user: &str,
    path: &str,
) -> io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match identity {
        Some(identity) => {
            let cert = CertificateDer::from_pem_slice(identity.cert.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![cert], key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    let name = ServerName::from(address.ip());
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut stream = StreamOwned::new(connection, stream);
    let token = BASE64_STANDARD.encode(user);
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Basic {token}\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The rejections counted so far, for one reason.
fn rejections(answer: &str, rejection: &str) -> u32 {
    let start = format!("mmu_trace_http_rejections_total{{rejection=\"{rejection}\"}} ");
    answer.lines().find_map(|line| line.strip_prefix(&start)).unwrap().parse().unwrap()
}

#[test]
fn only_the_right_certificate_and_password_are_let_in() {
    let site = Site::new();
    let served = site.serve();
    let client = site.authority.client("scraper");
    let answer = site.ask(served.address, Some(&client), "a:secret", "/metrics").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("x-frame-options: deny\r\n"), "{answer}");
    assert!(site.ask(served.address, None, "a:secret", "/metrics").is_err());
    let wrong_name = site.authority.client("other");
    assert!(site.ask(served.address, Some(&wrong_name), "a:secret", "/metrics").is_err());
    let stranger = Authority::new().client("scraper");
    assert!(site.ask(served.address, Some(&stranger), "a:secret", "/metrics").is_err());
    for (user, path) in [("a:wrong", "/metrics"), ("b:secret", "/"), ("", "/healthz"), ("a:wrong", "/none")] {
        let answer = site.ask(served.address, Some(&client), user, path).unwrap();
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
        assert!(answer.contains("www-authenticate: Basic realm=\"mmu-trace\""), "{answer}");
        assert!(answer.contains("x-frame-options: deny\r\n"), "{answer}");
    }
    let plain = String::from_utf8(get(served.address, "/metrics")).unwrap();
    assert!(plain.starts_with("HTTP/1.0 400 ") && plain.ends_with("speaks HTTPS\n"), "{plain}");
    let answer = site.ask(served.address, Some(&client), "a:secret", "/metrics").unwrap();
    assert_eq!((rejections(&answer, "handshake"), rejections(&answer, "password")), (4, 4));
}

#[test]
fn what_changes_counts_at_once_and_what_is_bad_lets_nobody_in() {
    let site = Site::new();
    let mut served = site.serve();
    let address = served.address;
    let client = site.authority.client("scraper");
    let status = |user: &str| site.ask(address, Some(&client), user, "/healthz").map(|a| a[9..12].to_owned());
    assert_eq!(status("a:secret").unwrap(), "200");
    site.configure("new");
    assert_eq!(status("a:secret").unwrap(), "401");
    assert_eq!(status("a:new").unwrap(), "200");
    // Another certificate, of another authority: whoever trusts the old one alone does not talk to it.
    let renewed = Authority::new();
    renewed.server().write(site.path(), "s");
    assert!(status("a:new").is_err());
    assert!(ask(&renewed, address, Some(&client), "a:new", "/healthz").unwrap().starts_with("HTTP/1.1 200 "));
    site.authority.server().write(site.path(), "s");
    let good = fs::read_to_string(site.path().join("web.yml")).unwrap();
    for bad in ["nonsense", "", "basic_auth_users: {}\n"] {
        fs::write(site.path().join("web.yml"), bad).unwrap();
        for _ in 0..2 {
            assert!(status("a:new").is_err());
            let plain = get_or_nothing(address);
            assert!(!plain.contains("200 OK"), "{plain}");
        }
    }
    fs::write(site.path().join("web.yml"), good).unwrap();
    assert_eq!(status("a:new").unwrap(), "200");
    let answer = site.ask(address, Some(&client), "a:new", "/metrics").unwrap();
    assert_eq!(rejections(&answer, "config"), 12);
    let said: Vec<String> = (0..3).map(|_| served.next_message()).collect();
    assert!(said[0].contains("no web configuration") && said[1].contains("has come or gone"), "{said:?}");
    assert!(said[2].contains("is good again"), "{said:?}");
}

/// What a client in plain text gets; nothing if the connection ends.
fn get_or_nothing(address: SocketAddr) -> String {
    crate::served::try_get(address, "/metrics")
        .map_or(String::new(), |answer| String::from_utf8_lossy(&answer).into_owned())
}

#[test]
fn prometheus_scrapes_with_certificate_and_password() {
    let Some(program) = find("prometheus") else { return };
    let site = Site::new();
    let served = site.serve();
    site.authority.client("scraper").write(site.path(), "c");
    let job = |password: &str| {
        format!(
            ", scheme: https, basic_auth: {{username: a, password: {password}}}, \
             tls_config: {{ca_file: ca.crt, cert_file: c.crt, key_file: c.key}}"
        )
    };
    let good = Prometheus::start(&program, site.path(), served.address, &job("secret"));
    good.expect("up{job=\"mmu-trace\"}", 1.0);
    good.expect("mmu_trace_ksm_merges_total{domain=\"web1\"}", 1_024.0);
    drop(good);
    let dir = TempDir::new().unwrap();
    for file in ["ca.crt", "c.crt", "c.key"] {
        fs::copy(site.path().join(file), dir.path().join(file)).unwrap();
    }
    let bad = Prometheus::start(&program, dir.path(), served.address, &job("wrong"));
    bad.expect("up{job=\"mmu-trace\"}", 0.0);
}

#[test]
fn too_many_requests_are_refused() {
    let site = Site::new();
    fs::write(site.path().join("web.yml"), "rate_limit: {interval: 1h, burst: 2}\n").unwrap();
    let served = site.serve();
    let statuses =
        [(); 3].map(|()| String::from_utf8(get(served.address, "/healthz")).unwrap()[9..12].to_owned());
    assert_eq!(statuses, ["200", "200", "429"]);
}
