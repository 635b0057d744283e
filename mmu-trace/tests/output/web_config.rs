//! Web configurations, as `replay` takes them and as promtool does.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

use crate::{fixture, pki::Authority, prometheus::find, served::capture};

/// Who takes a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Both do.
    Good,
    /// None does.
    Bad,
    /// promtool does and we do not, for this reason.
    OursRefuses(&'static str),
    /// We do; promtool from the version on that knows the key.
    Newer,
    /// Older versions of promtool do; we do not.
    OursAndNewerRefuse,
}
use Verdict::{Bad, Good, Newer, OursAndNewerRefuse, OursRefuses};

/// Keys of `tls_server_config` beside a certificate and its key.
const TLS: &[(&str, Verdict)] = &[
    ("", Good),
    ("min_version: TLS10", Good),
    ("min_version: TLS11", Good),
    ("min_version: TLS13", Good),
    ("max_version: TLS12", Good),
    ("min_version: SSL3", Bad),
    ("min_version: tls12", Bad),
    ("max_version: TLS11", OursRefuses("before TLS12")),
    ("{min_version: TLS13, max_version: TLS12}", OursRefuses("below min_version")),
    ("cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_AES_128_GCM_SHA256]", Good),
    (
        "cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256]",
        Good,
    ),
    ("cipher_suites: [TLS_AES_128_GCM_SHA256]", Good),
    ("cipher_suites: []", Good),
    ("cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA]", OursRefuses("none of these is served")),
    ("{max_version: TLS12, cipher_suites: [TLS_AES_128_GCM_SHA256]}", OursRefuses("TLS 1.3 is ruled out")),
    ("cipher_suites: [TLS_RSA_WITH_AES_128_GCM_SHA256]", OursAndNewerRefuse),
    ("cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]", Bad),
    ("cipher_suites: [foo]", Bad),
    ("prefer_server_cipher_suites: false", Good),
    ("curve_preferences: [X25519, CurveP256, CurveP384, CurveP521]", Good),
    ("curve_preferences: [CurveP521]", OursRefuses("CurveP521 is not served")),
    ("curve_preferences: [P256]", Bad),
    ("client_auth_type: NoClientCert", Good),
    ("client_auth_type: RequestClientCert", Good),
    ("client_auth_type: RequireClientCert", Good),
    ("client_auth_type: RequireAnyClientCert", Good),
    ("{client_auth_type: VerifyClientCertIfGiven, client_ca_file: ca.crt}", Good),
    ("{client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.crt}", Good),
    ("client_auth_type: RequireAndVerifyClientCert", OursRefuses("without client_ca")),
    ("client_auth_type: VerifyClientCertIfGiven", OursRefuses("without client_ca")),
    ("client_auth_type: Always", Bad),
    ("client_ca_file: ca.crt", Bad),
    ("{client_auth_type: NoClientCert, client_ca_file: ca.crt}", Bad),
    ("{client_auth_type: RequireAndVerifyClientCert, client_ca_file: none.crt}", Bad),
    ("{client_auth_type: RequireAndVerifyClientCert, client_ca_file: s.key}", OursRefuses("no certificate")),
    (
        "{client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.crt, client_allowed_sans: [a]}",
        Newer,
    ),
    ("client_certs: x", Bad),
];

/// Whole files.
const FILES: &[(&str, Verdict)] = &[
    ("", Good),
    ("# nothing\n", Good),
    ("basic_auth_users:\n", Good),
    ("tls_server_config:\n", Good),
    ("tls_server_config: {}\n", Good),
    ("hello", Bad),
    ("- a\n", Bad),
    ("{", Bad),
    ("tls_server_config: 1\n", Bad),
    ("tls_config: {}\n", Bad),
    ("basic_auth_users: {}\nbasic_auth_users: {}\n", Bad),
    ("tls_server_config: {cert_file: s.crt}\n", Bad),
    ("tls_server_config: {key_file: s.key}\n", Bad),
    ("tls_server_config: {cert_file: s.crt, key_file: none.key}\n", Bad),
    ("tls_server_config: {cert_file: none.crt, key_file: s.key}\n", Bad),
    ("tls_server_config: {cert_file: s.crt, key_file: ca.crt}\n", Bad),
    ("tls_server_config: {cert_file: s.key, key_file: s.key}\n", Bad),
    ("tls_server_config: {cert_file: s.crt, key_file: other.key}\n", Bad),
    ("tls_server_config: {cert_file: '', key_file: ''}\n", Good),
    ("tls_server_config: {client_ca_file: ca.crt}\n", Bad),
    ("tls_server_config: {client_auth_type: RequireAnyClientCert}\n", Bad),
    ("http_server_config: {http2: false}\n", Good),
    ("http_server_config: {http2: maybe}\n", Bad),
    ("http_server_config: {http3: true}\n", Bad),
    ("http_server_config: {headers: {X-Frame-Options: deny, X-Content-Type-Options: nosniff}}\n", Good),
    ("http_server_config: {headers: {Strict-Transport-Security: max-age=1, X-XSS-Protection: '0'}}\n", Good),
    ("http_server_config: {headers: {Content-Security-Policy: ''}}\n", Good),
    ("http_server_config: {headers: {X-Frame-Options: allow}}\n", Bad),
    ("http_server_config: {headers: {x-frame-options: deny}}\n", Bad),
    ("http_server_config: {headers: {Server: x}}\n", Bad),
    ("http_server_config: {headers: {X-XSS-Protection: \"a\\nb\"}}\n", OursRefuses("not fit for a header")),
    ("basic_auth_users: {a: secret}\n", Bad),
    ("basic_auth_users: {a: ''}\n", Bad),
    ("basic_auth_users: {a: $2y$10$short}\n", Bad),
    ("basic_auth_users: {a: $3y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG}\n", Bad),
    ("basic_auth_users: {a: $2y$99$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG}\n", Bad),
    ("basic_auth_users: {a: $2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG}\n", Good),
    (
        "basic_auth_users: {a: $2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7z~}\n",
        OursRefuses("no bcrypt hash"),
    ),
    ("rate_limit: {interval: 1s, burst: 5}\n", Newer),
    ("rate_limit: {interval: 0, burst: 0}\n", Newer),
    ("rate_limit: {interval: 1m30s, burst: 5}\n", Newer),
    ("rate_limit: {interval: 1d, burst: 5}\n", Bad),
    ("rate_limit: {interval: 1 s, burst: 5}\n", Bad),
    ("rate_limit: {interval: soon, burst: 5}\n", Bad),
    ("rate_limit: {interval: 1s, bursts: 5}\n", Bad),
];

fn folder() -> TempDir {
    let dir = TempDir::new().unwrap();
    let authority = Authority::new();
    authority.server().write(dir.path(), "s");
    authority.server().write(dir.path(), "other");
    fs::write(dir.path().join("ca.crt"), authority.pem()).unwrap();
    dir
}

/// The file that a row of [`TLS`] stands for.
fn with_certificate(keys: &str) -> String {
    let keys = keys.trim_start_matches('{').trim_end_matches('}');
    let keys = if keys.is_empty() { String::new() } else { format!(", {keys}") };
    format!("tls_server_config: {{cert_file: s.crt, key_file: s.key{keys}}}\n")
}

/// `replay` with this configuration, on an address that cannot be had: it fails in any case, with 2 if it
/// refuses the configuration, and else with 1.
fn replay(dir: &Path, config: &Path) -> Output {
    let listen = SocketAddr::from(([203, 0, 113, 1], 9)).to_string();
    let capture = capture(dir, &[fixture::noop()]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_mmu-trace"));
    command.arg("replay").arg(capture).args(["--listen", &listen, "--web.config.file"]).arg(config);
    command.output().unwrap()
}

/// Whether `replay` takes it, and what it says.
fn ours(dir: &Path, config: &Path) -> (bool, String) {
    let output = replay(dir, config);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!said.contains("PRIVATE") && !said.contains("X0h1gDsPsz"), "a secret is shown: {said}");
    match output.status.code() {
        Some(1) => (true, said),
        Some(2) => (false, said),
        code => panic!("{code:?}: {said}"),
    }
}

fn promtool(program: &Path, config: &Path) -> (bool, String) {
    let output = Command::new(program).args(["check", "web-config"]).arg(config).output().unwrap();
    (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[test]
fn what_promtool_refuses_is_refused() {
    let promtool_program = find("promtool");
    let dir = folder();
    let config = dir.path().join("web.yml");
    let tls = TLS.iter().map(|(keys, verdict)| (with_certificate(keys), *verdict));
    for (text, verdict) in tls.chain(FILES.iter().map(|(text, verdict)| ((*text).to_owned(), *verdict))) {
        fs::write(&config, &text).unwrap();
        let (is_taken, said) = ours(dir.path(), &config);
        assert_eq!(is_taken, matches!(verdict, Good | Newer), "{text}{said}");
        if let OursRefuses(reason) = verdict {
            assert!(said.contains(reason), "{text}{said}");
        }
        let Some(program) = &promtool_program else { continue };
        let (theirs, said) = promtool(program, &config);
        match verdict {
            Good | OursRefuses(_) => assert!(theirs, "{text}{said}"),
            Bad => assert!(!theirs, "{text}{said}"),
            // It depends on the version, but then on nothing else.
            Newer => assert!(theirs || said.contains("not found"), "{text}{said}"),
            OursAndNewerRefuse => assert!(theirs || said.contains("unknown cipher"), "{text}{said}"),
        }
    }
}

#[test]
fn certificates_may_stand_in_the_file() {
    let dir = TempDir::new().unwrap();
    let identity = Authority::new().server();
    let indented = |pem: &str| pem.lines().map(|line| format!("    {line}\n")).collect::<String>();
    let config = dir.path().join("web.yml");
    let (cert, key) = (indented(&identity.cert), indented(&identity.key));
    fs::write(&config, format!("tls_server_config:\n  cert: |\n{cert}  key: |\n{key}")).unwrap();
    assert!(ours(dir.path(), &config).0);
    fs::write(&config, format!("tls_server_config:\n  cert: |\n{cert}  key: |\n{key}  x: y\n")).unwrap();
    assert!(!ours(dir.path(), &config).0);
}

#[test]
fn the_file_itself_must_be_a_short_file() {
    let dir = TempDir::new().unwrap();
    assert!(ours(dir.path(), &dir.path().join("none.yml")).1.contains("none.yml"));
    assert!(ours(dir.path(), dir.path()).1.contains("no regular file"));
    let long = dir.path().join("long.yml");
    fs::write(&long, "#".repeat((1 << 20) + 1)).unwrap();
    assert!(ours(dir.path(), &long).1.contains("longer than"));
}

#[test]
fn the_example_is_good() {
    let dir = folder();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/web-config.yml");
    let text = fs::read_to_string(example).unwrap();
    let config: PathBuf = dir.path().join("web-config.yml");
    let identity = Authority::new().server();
    identity.write(dir.path(), "mmu-trace");
    fs::write(dir.path().join("clients.crt"), Authority::new().pem()).unwrap();
    // As it is, and with everything that it offers.
    for text in [text.clone(), text.replace("\n#:", "\n")] {
        fs::write(&config, &text).unwrap();
        let (is_taken, said) = ours(dir.path(), &config);
        assert!(is_taken, "{text}{said}");
        if let Some(program) = find("promtool") {
            let (is_taken, said) = promtool(&program, &config);
            assert!(is_taken, "{text}{said}");
        }
    }
    assert!(text.contains("\n#:"));
}

/// The first block of `language` after `heading` in the documentation.
fn documented(heading: &str, language: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/web-config.md");
    let text = fs::read_to_string(page).unwrap();
    let (_, chapter) = text.split_once(&format!("\n## {heading}\n")).unwrap();
    let (_, block) = chapter.split_once(&format!("```{language}\n")).unwrap();
    block.split_once("```").unwrap().0.to_owned()
}

#[test]
fn what_the_documentation_shows_works() {
    let dir = TempDir::new().unwrap();
    let mut openssl = Command::new("sh");
    openssl.arg("-c").arg(documented("A certificate", "sh")).current_dir(dir.path());
    match openssl.output() {
        Ok(output) if output.status.success() => {}
        // Not every machine has it; what it makes, others make too.
        _ => {
            println!("skipped: openssl is not installed");
            Authority::new().server().write(dir.path(), "mmu-trace");
        }
    }
    let config = dir.path().join("web.yml");
    let text = documented("A certificate", "yaml") + &documented("A password", "yaml");
    fs::write(&config, &text).unwrap();
    let (is_taken, said) = ours(dir.path(), &config);
    assert!(is_taken, "{text}{said}");
    let Some(program) = find("promtool") else { return };
    let (is_taken, said) = promtool(&program, &config);
    assert!(is_taken, "{text}{said}");
    let scrape = dir.path().join("prometheus.yml");
    // The files that it names are those of another machine.
    fs::write(&scrape, documented("On the side of Prometheus", "yaml")).unwrap();
    let output =
        Command::new(&program).args(["check", "config", "--syntax-only"]).arg(&scrape).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}
