//! `cargo xtask docs`: writes `docs/metrics.md` from the metric table and the example configuration from
//! the command line's definition, or proves that they are what those give.
//!
//! Names, types, labels and meanings come from the table and from the enumerations that the labels are
//! made of; how many series a VM has from its start is counted in a real exposition. Only what no table
//! knows, what is good and what is bad, stands here ([`chapters`]).

mod chapters;
mod labels;

use std::{fmt::Write, fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use mmu_trace::{
    cli::config,
    metrics::{
        self, Health,
        table::{ALL, Kind, Series, Subject},
    },
    model::{Counters, Histograms, Host, Ksm, KsmAccount, Quality, Snapshot, Vm, VmIdentity, Window},
};

use crate::tools;

/// The page of metrics, relative to the repository.
const PAGE: &str = "docs/metrics.md";
/// The example configuration, relative to the repository.
const CONFIG: &str = "packaging/mmu-trace.toml";
/// The name of the VM whose series are counted.
const IDLE: &str = "idle";

/// Arguments of `cargo xtask docs`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Compare with the committed files instead of replacing them
    #[arg(long)]
    pub(crate) check: bool,
}

/// Writes or checks the files.
pub(crate) fn run(args: &Args) -> Result<()> {
    let repository = tools::repository()?;
    for (name, text) in [(PAGE, page()?), (CONFIG, config::example())] {
        let path = repository.join(name);
        if args.check {
            compare(&path, &text)?;
        } else {
            write(&path, &text)?;
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    println!("{}: {} lines", path.display(), text.lines().count());
    Ok(())
}

fn compare(path: &Path, text: &str) -> Result<()> {
    let committed = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let drift = text.lines().zip(committed.lines()).position(|(now, then)| now != then);
    ensure!(
        committed == text,
        "{} is not what the code gives, from line {} on; run: cargo xtask docs",
        path.display(),
        drift.unwrap_or_else(|| text.lines().count().min(committed.lines().count())) + 1
    );
    Ok(())
}

fn page() -> Result<String> {
    let idle = exposition_of_an_idle_vm()?;
    let mut page = chapters::head(samples(&idle, |line| line.contains(IDLE)));
    for &subject in Subject::ALL {
        let (title, introduction) = chapters::chapter(subject);
        write!(page, "\n## {title}\n\n{introduction}\n\n{}", series_table(subject, &idle))?;
    }
    page.push_str(&labels::chapter(&idle)?);
    Ok(page)
}

fn series_table(subject: Subject, idle: &str) -> String {
    let of_vms = |series: &Series| series.labels.contains(&"domain");
    let series: Vec<&Series> = ALL.iter().filter(|series| series.subject == subject).collect();
    let (extra, line) =
        if series.iter().any(|series| of_vms(series)) { (" idle VM |", " ---: |") } else { ("", "") };
    let mut table = format!("| series | type | labels |{extra} meaning |\n| --- | --- | --- |{line} --- |\n");
    for series in series {
        let n = samples(idle, |line| is_of(line, series.name) && line.contains(IDLE));
        let extra = if extra.is_empty() { String::new() } else { format!(" {n} |") };
        table.push_str(&row(series, &extra));
    }
    table
}

fn row(series: &Series, extra: &str) -> String {
    let kind = match series.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    let unit = if series.unit.is_empty() { String::new() } else { format!(", {}", series.unit) };
    let labels: Vec<String> = series.labels.iter().map(|label| format!("`{label}`")).collect();
    let help = series.help.replace('|', "\\|");
    format!("| `{}` | {kind}{unit} | {} |{extra} {help} |\n", series.name, labels.join(", "))
}

/// How many samples of `exposition` are wanted.
fn samples(exposition: &str, is_wanted: impl Fn(&str) -> bool) -> usize {
    exposition.lines().filter(|line| !line.starts_with('#') && is_wanted(line)).count()
}

/// Whether a line is a sample of the series `name`.
fn is_of(line: &str, name: &str) -> bool {
    line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
}

/// What is exposed for a VM of which nothing is known but that it runs, on a host that offers everything.
fn exposition_of_an_idle_vm() -> Result<String> {
    let identity = VmIdentity { name: IDLE.to_owned(), n_vms: 1, ..VmIdentity::default() };
    let ksm = KsmAccount { merging_pages: Some(0), profit_bytes: Some(0) };
    let idle = Vm { identity, mmu: None, alive: true, counters: Counters::default(), histograms: None, ksm };
    let snapshot = Snapshot {
        host: Host { kernel: String::new(), arch: String::new(), has_change_pte: true },
        window: Window { start_unix_ns: 0, seconds: 0.0 },
        quality: Quality::default(),
        vms: vec![idle],
        unattributed: Counters::default(),
        histograms: Histograms::default(),
        ksm: Some(Ksm::default()),
        programs: None,
    };
    let health = Health {
        scrape_duration: Duration::ZERO,
        scrape_errors: 0,
        textfile_errors: Some(0),
        rejections: Some(metrics::Rejections::default()),
        attachment: None,
        evictions: 0,
        sandbox: None,
        vm_histograms: false,
        process: None,
    };
    Ok(metrics::encode(&snapshot, &health)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_stands_on_the_page_once() {
        let page = page().unwrap();
        for series in ALL {
            assert_eq!(page.matches(&format!("\n| `{}` |", series.name)).count(), 1, "{}", series.name);
        }
    }

    #[test]
    fn drift_is_told_by_its_first_line() {
        let dir = std::env::temp_dir().join(format!("mmu-trace-docs-{}", std::process::id()));
        fs::write(&dir, "a\nb\n").unwrap();
        let (same, longer) = (compare(&dir, "a\nb\n"), compare(&dir, "a\nb\nc\n"));
        fs::remove_file(&dir).unwrap();
        assert!(same.is_ok());
        assert!(longer.unwrap_err().to_string().contains("from line 3 on; run: cargo xtask docs"));
    }
}
