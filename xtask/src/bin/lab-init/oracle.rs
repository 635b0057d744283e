//! The kernel's own counts, independent of everything the tracer does: hits of tracefs kprobe
//! events, records of KVM's own tracepoints, its statistics in debugfs, KSM's files in sysfs.

mod records;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use xtask::arch::Arch;
use xtask::phase::{Counted, Counts, KSM_COPIES, KSM_COUNTERS, KVM_COUNTERS, MERGING_PAGES, SUPPRESSED};

use crate::control;

const TRACEFS: &str = "/sys/kernel/tracing";
const KVM_STATS: &str = "/sys/kernel/debug/kvm";

/// One reading of every counter.
pub(crate) struct Reading {
    /// Counter name to value.
    pub(crate) counts: Counts,
    /// Hits that the kernel says its probes missed.
    pub(crate) misses: i64,
}

/// Defines and enables the kprobe events. Needs kvm.ko.
pub(crate) fn set_up() -> Result<()> {
    let tracefs = Path::new(TRACEFS);
    // Only the profile is read: the ring buffers may be as small as they get.
    fs::write(tracefs.join("buffer_size_kb"), "4").context("cannot shrink the trace buffers")?;
    for (name, function) in functions()? {
        append(&tracefs.join("kprobe_events"), &format!("p:lab/{name} {function}\n"))
            .with_context(|| format!("this kernel cannot count calls of {function}"))?;
    }
    fs::write(tracefs.join("events/lab/enable"), "1").context("cannot enable the kprobe events")?;
    records::set_up()
}

/// Disables and removes the kprobe events.
pub(crate) fn tear_down() -> Result<()> {
    let tracefs = Path::new(TRACEFS);
    fs::write(tracefs.join("events/lab/enable"), "0").context("cannot disable the kprobe events")?;
    for name in functions()?.keys() {
        append(&tracefs.join("kprobe_events"), &format!("-:lab/{name}\n"))
            .with_context(|| format!("cannot remove the kprobe event {name}"))?;
    }
    records::tear_down()
}

/// Counter name to the function that this kernel has for it.
pub(crate) fn functions() -> Result<BTreeMap<String, String>> {
    let text = fs::read_to_string("/proc/kallsyms").context("cannot read /proc/kallsyms")?;
    let symbols: HashSet<&str> = text.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    let mut functions = BTreeMap::new();
    for counted in Counted::on(Arch::OWN) {
        match counted.symbols.iter().find(|symbol| symbols.contains(*symbol)) {
            Some(symbol) => {
                functions.insert(counted.name.to_owned(), (*symbol).to_owned());
            }
            None if counted.belongs_to_change_pte => {}
            None => bail!("this kernel has none of {}", counted.symbols.join(", ")),
        }
    }
    Ok(functions)
}

/// Reads every counter. Exact only while nothing runs.
pub(crate) fn read() -> Result<Reading> {
    let path = Path::new(TRACEFS).join("kprobe_profile");
    let profile = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let (mut counts, misses) = parse_profile(&profile)?;
    ensure!(!counts.is_empty(), "kprobe_profile shows none of the lab's events");
    for name in KVM_COUNTERS {
        let path = Path::new(KVM_STATS).join(name);
        if path.exists() {
            counts.insert(format!("kvm:{name}"), number(&path)?);
        }
    }
    records::read_into(&mut counts)?;
    if let Some(n) = control::suppressed()? {
        counts.insert(SUPPRESSED.to_owned(), n);
    }
    for name in KSM_COUNTERS {
        counts.insert(format!("ksm:{name}"), crate::ksm::read(name)?);
    }
    counts.insert(MERGING_PAGES.to_owned(), crate::ksm::merging_pages()?);
    if let Some(copies) = crate::ksm::copies()? {
        counts.insert(KSM_COPIES.to_owned(), copies);
    }
    Ok(Reading { counts, misses })
}

/// The returns of a function, and those that the kernel's own return probe missed.
pub(crate) struct Returns {
    name: &'static str,
}

impl Returns {
    /// Counts them from now on.
    pub(crate) fn count(name: &'static str, function: &str) -> Result<Self> {
        let tracefs = Path::new(TRACEFS);
        append(&tracefs.join("kprobe_events"), &format!("r:lab/{name} {function}\n"))
            .with_context(|| format!("this kernel cannot count returns of {function}"))?;
        fs::write(tracefs.join(format!("events/lab/{name}/enable")), "1").context("cannot enable it")?;
        Ok(Self { name })
    }

    /// Ends the counting: returns seen, returns missed.
    pub(crate) fn finish(self) -> Result<(i64, i64)> {
        let tracefs = Path::new(TRACEFS);
        let profile = fs::read_to_string(tracefs.join("kprobe_profile")).context("kprobe_profile")?;
        let fields = profile.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let line = fields.into_iter().find(|fields| fields.first() == Some(&self.name));
        let line = line.with_context(|| format!("kprobe_profile shows no {}", self.name))?;
        let [_, hits, missed] = line[..] else { bail!("odd line in kprobe_profile: {line:?}") };
        fs::write(tracefs.join(format!("events/lab/{}/enable", self.name)), "0")
            .context("cannot disable it")?;
        append(&tracefs.join("kprobe_events"), &format!("-:lab/{}\n", self.name))
            .context("cannot remove it")?;
        Ok((hits.parse().context("hits")?, missed.parse().context("misses")?))
    }
}

/// What moved from `before` to `after`.
pub(crate) fn delta(before: &Counts, after: &Counts) -> Counts {
    after.iter().map(|(name, value)| (name.clone(), value - before.get(name).unwrap_or(&0))).collect()
}

/// Reads a file that holds one number.
pub(crate) fn number(path: &Path) -> Result<i64> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    text.trim().parse().with_context(|| format!("{} holds no number: {text:?}", path.display()))
}

fn parse_profile(profile: &str) -> Result<(Counts, i64)> {
    let mut counts = Counts::new();
    let mut misses = 0;
    for line in profile.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [name, hits, missed] = fields[..] else { anyhow::bail!("odd line in kprobe_profile: {line:?}") };
        if Counted::on(Arch::OWN).any(|counted| counted.name == name) {
            counts.insert(format!("calls:{name}"), hits.parse().context("hits")?);
            misses += missed.parse::<i64>().context("misses")?;
        }
    }
    Ok((counts, misses))
}

fn append(path: &Path, line: &str) -> Result<()> {
    use std::io::Write;
    fs::OpenOptions::new().append(true).open(path)?.write_all(line.as_bytes())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profile_lines_of_other_events_are_left_out() {
        let text = "  break_cow                       3        1\n  other                 9          9\n";
        let (counts, misses) = parse_profile(text).unwrap();
        assert_eq!(counts, Counts::from([("calls:break_cow".into(), 3)]));
        assert_eq!(misses, 1);
    }

    #[test]
    fn a_profile_of_another_shape_is_an_error() {
        assert!(parse_profile("break_cow 3\n").is_err());
    }
}
