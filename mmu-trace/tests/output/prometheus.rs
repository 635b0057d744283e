//! The real thing: promtool reads a live scrape, and a Prometheus scrapes a replay and answers queries.
//!
//! Both come with Debian's package `prometheus`. Without them these tests are skipped and say so; with
//! `MMU_TRACE_PROMETHEUS_TESTS=required`, as in ci, they fail instead. The tests start a process of their
//! own on a free port and end it; a service that the package may run is left alone.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::Write,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    fixture,
    served::{Served, capture, try_get},
};

/// How long Prometheus may take to start, scrape twice and answer: it takes three seconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// The path of `program`; `None` where it may be missing and is.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file());
    let is_required = env::var_os("MMU_TRACE_PROMETHEUS_TESTS").is_some_and(|value| value == "required");
    assert!(found.is_some() || !is_required, "{program} is missing; on Debian: apt-get install prometheus");
    match &found {
        Some(path) => println!("with {}", version(path)),
        None => println!("skipped: {program} is not installed; on Debian: apt-get install prometheus"),
    }
    found
}

/// The line in which `program` tells its version.
fn version(program: &Path) -> String {
    let output = Command::new(program).arg("--version").output().unwrap();
    // Debian's 2.42 says it on standard error.
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    said.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn promtool_finds_nothing_wrong_with_a_scrape() {
    let Some(promtool) = find("promtool") else { return };
    let dir = TempDir::new().unwrap();
    for snapshot in [fixture::noop(), fixture::effective(), fixture::counterfactual(), fixture::incomplete()]
    {
        let textfile = dir.path().join("mmu-trace.prom");
        let args = ["--textfile", textfile.to_str().unwrap()];
        let served = Served::start(&capture(dir.path(), &[snapshot]), &args);
        assert_eq!(check(&promtool, &served.metrics()), (true, String::new()));
    }
}

#[test]
fn promtool_would_find_it() {
    let Some(promtool) = find("promtool") else { return };
    let (is_good, said) = check(&promtool, "# HELP bytes X.\n# TYPE bytes counter\nbytes 1\n");
    assert!(!is_good && said.contains("_total"), "{said}");
}

/// Whether promtool is content with `text`, and what it says.
fn check(promtool: &Path, text: &str) -> (bool, String) {
    let mut command = Command::new(promtool);
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[test]
fn prometheus_answers_what_the_capture_says() {
    let Some(program) = find("prometheus") else { return };
    let dir = TempDir::new().unwrap();
    let served = Served::start(&capture(dir.path(), &[fixture::noop()]), &[]);
    let prometheus = Prometheus::start(&program, dir.path(), served.address, "");
    for (query, expected) in [
        ("up{job=\"mmu-trace\"}", 1.0),
        ("mmu_trace_ksm_merges_total{domain=\"web1\"}", 1_024.0),
        ("mmu_trace_ksm_merges_total{domain=\"sleeper-4300\"}", 0.0),
        ("sum(mmu_trace_change_pte_noop_total) / sum(mmu_trace_change_pte_total)", 1.0),
        (
            "sum(mmu_trace_refaults_total * on (domain) group_left (vmm) mmu_trace_vm_info{vmm=\"qemu\"})",
            2_048.0,
        ),
        ("mmu_trace_refault_seconds_bucket{le=\"+Inf\"}", 2_048.0),
        ("sum(rate(mmu_trace_refaults_total[1m]))", 0.0),
    ] {
        prometheus.expect(query, expected);
    }
}

/// A Prometheus of our own, ended when it is dropped.
pub(crate) struct Prometheus {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Prometheus {
    /// Starts one in `dir` that scrapes `target` every second, with `keys` in the job beside its target.
    pub(crate) fn start(program: &Path, dir: &Path, target: SocketAddr, keys: &str) -> Self {
        let config = dir.join("prometheus.yml");
        let job = format!("{{job_name: mmu-trace, static_configs: [{{targets: ['{target}']}}]{keys}}}");
        fs::write(&config, format!("global: {{scrape_interval: 1s}}\nscrape_configs: [{job}]\n")).unwrap();
        let address = free_address();
        let log = dir.join("prometheus.log");
        let flag = |name: &str, value: &OsStr| {
            let mut flag = OsString::from(name);
            flag.push(value);
            flag
        };
        let child = Command::new(program)
            .arg(flag("--config.file=", config.as_os_str()))
            .arg(flag("--storage.tsdb.path=", dir.join("data").as_os_str()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { child, address, log }
    }

    /// Asks until the answer is as expected, or patience is at its end.
    pub(crate) fn expect(&self, query: &str, expected: f64) {
        let start = Instant::now();
        loop {
            let answer = self.ask(query);
            if answer.as_ref().and_then(value).is_some_and(|value| (value - expected).abs() < 1e-9) {
                return;
            }
            let log = || fs::read_to_string(&self.log).unwrap_or_default();
            assert!(start.elapsed() < PATIENCE, "{query} is not {expected}: {answer:?}\n{}", log());
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// The answer to an instant query; `None` while it starts.
    fn ask(&self, query: &str) -> Option<Value> {
        let query: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let answer = try_get(self.address, &format!("/api/v1/query?query={query}")).ok()?;
        let body = answer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        serde_json::from_slice(&answer[body..]).ok()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// The value of an answer that has exactly one sample.
fn value(answer: &Value) -> Option<f64> {
    match answer["data"]["result"].as_array()?.as_slice() {
        [sample] => sample["value"][1].as_str()?.parse().ok(),
        _ => None,
    }
}

/// A port that was free a moment ago: Prometheus does not tell which one it took.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
