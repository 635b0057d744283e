//! A Prometheus of our own, and what it answers.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::replay::{JOB, Replay};
use crate::tools;

/// How long it may take to start: it takes a second on an idle machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running Prometheus; it ends, and its files go, when it is dropped.
pub(super) struct Prometheus {
    child: Child,
    address: SocketAddr,
    dir: PathBuf,
}

impl Prometheus {
    /// Starts one that scrapes `replays` every second and evaluates the rules in `rules` as often.
    pub(super) fn start(program: &Path, replays: &[Replay], rules: &Path) -> Result<Self> {
        let dir = tools::target_dir()?.join(format!("dashboards-{}", std::process::id()));
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let config = dir.join("prometheus.yml");
        fs::write(&config, configuration(replays, rules))?;
        let address = free_address()?;
        let child = Command::new(program)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(File::create(dir.join("prometheus.log"))?)
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let server = Self { child, address, dir };
        server.wait()?;
        Ok(server)
    }

    fn wait(&self) -> Result<()> {
        let start = Instant::now();
        while self.get("/-/ready").is_err() {
            if start.elapsed() > PATIENCE {
                let log = fs::read_to_string(self.dir.join("prometheus.log")).unwrap_or_default();
                bail!("Prometheus does not start:\n{log}");
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// The present, in seconds since the epoch.
    pub(super) fn now(&self) -> Result<f64> {
        Ok(SystemTime::UNIX_EPOCH.elapsed()?.as_secs_f64())
    }

    /// Its name and version.
    pub(super) fn version(&self) -> Result<String> {
        let answer = self.ask("/api/v1/status/buildinfo")?;
        Ok(format!("Prometheus {}", answer["version"].as_str().unwrap_or("of no known version")))
    }

    /// Whether a query finds a number: at `end`, or each second from `start` to it.
    pub(super) fn has_data(&self, query: &str, start: Option<f64>, end: f64) -> Result<bool> {
        let answer = match start {
            None => self.at(query, end)?,
            Some(start) => self.each_second(query, start, end)?,
        };
        Ok(results(&answer).iter().any(has_number))
    }

    /// The last second from `start` to `end` in which a query finds something.
    pub(super) fn last_time(&self, query: &str, start: f64, end: f64) -> Result<Option<f64>> {
        let answer = self.each_second(query, start, end)?;
        let last = |series: &Value| series["values"].as_array()?.last()?[0].as_f64();
        Ok(results(&answer).iter().filter_map(last).reduce(f64::max))
    }

    fn at(&self, query: &str, time: f64) -> Result<Value> {
        let path = format!("/api/v1/query?query={}&time={time}", escaped(query));
        self.ask(&path).with_context(|| query.to_owned())
    }

    fn each_second(&self, query: &str, start: f64, end: f64) -> Result<Value> {
        let path = format!("/api/v1/query_range?query={}&start={start}&end={end}&step=1", escaped(query));
        self.ask(&path).with_context(|| query.to_owned())
    }

    /// The values of `label` in what a query finds at `time`.
    pub(super) fn labels(&self, query: &str, time: f64, label: &str) -> Result<BTreeSet<String>> {
        let answer = self.at(query, time)?;
        let value = |sample: &Value| sample["metric"][label].as_str().map(str::to_owned);
        Ok(results(&answer).iter().filter_map(value).collect())
    }

    /// Rules that cannot be evaluated, and whether there are not `n_rules` of them.
    pub(super) fn sick_rules(&self, n_rules: usize) -> Result<Vec<String>> {
        let answer = self.ask("/api/v1/rules")?;
        let groups = answer["groups"].as_array().context("rules without groups")?;
        let rules: Vec<&Value> =
            groups.iter().filter_map(|group| group["rules"].as_array()).flatten().collect();
        let sick = rules.iter().filter(|rule| rule["health"] != "ok");
        let mut wrong: Vec<String> =
            sick.map(|rule| format!("{}: {}, {}", rule["name"], rule["health"], rule["lastError"])).collect();
        if rules.len() != n_rules {
            wrong.push(format!("{} rules are loaded instead of {n_rules}", rules.len()));
        }
        Ok(wrong)
    }

    fn ask(&self, path: &str) -> Result<Value> {
        let answer: Value = serde_json::from_str(&self.get(path)?)?;
        ensure!(answer["status"] == "success", "Prometheus refuses it: {}", answer["error"]);
        Ok(answer["data"].clone())
    }

    /// The body of an answer; HTTP 1.0 has no chunks.
    fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("an answer without a body")?;
        ensure!(!head.contains(" 503 "), "not ready");
        Ok(body.to_owned())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself, and the next build cleans up what is left.
        _ = self.child.kill();
        _ = self.child.wait();
        _ = fs::remove_dir_all(&self.dir);
    }
}

fn configuration(replays: &[Replay], rules: &Path) -> String {
    let target = |replay: &Replay| {
        format!("      - {{targets: ['{}'], labels: {{instance: '{}'}}}}\n", replay.address, replay.name)
    };
    let targets: String = replays.iter().map(target).collect();
    format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
         rule_files: ['{}/*.yml']\n\
         scrape_configs:\n  - job_name: {JOB}\n    static_configs:\n{targets}",
        rules.display()
    )
}

fn results(answer: &Value) -> &[Value] {
    answer["result"].as_array().map_or(&[], Vec::as_slice)
}

/// Whether a sample, or one of a series, is a number.
fn has_number(result: &Value) -> bool {
    let is_number = |sample: &Value| sample[1].as_str().is_some_and(|value| value != "NaN");
    let series = result["values"].as_array();
    series.map_or_else(|| is_number(&result["value"]), |samples| samples.iter().any(is_number))
}

fn escaped(query: &str) -> String {
    query.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

/// A port that was free a moment ago: Prometheus does not tell which one it took.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
