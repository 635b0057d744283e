//! A Debian system on a disk: entered by process 1, and looked at from one of its units.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::mount::{MountFlags, mount, mount_move};
use rustix::process::{Pid, Signal, kill_process};
use xtask::installed::{CAPABILITIES, FOLDER, INSTEAD, Installed, Said, USER, Unit, VM};
use xtask::phase::{Series, Step};

use crate::boot::load_module_file;
use crate::process::OUT;
use crate::vmm::Vmm;
use crate::{metrics, results};

/// The second disk; the first one takes the results.
const DISK: &str = "/dev/vdb";
const NEW_ROOT: &str = "/tmp";
const UNIT: &str = "mmu-trace.service";
/// Attaching goes through the BPF verifier, which an emulated CPU does slowly; a stalled daemon is noticed
/// after the unit's WatchdogSec.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL_EVERY: Duration = Duration::from_millis(250);
/// Where the page about installing has the metrics written.
const TEXTFILE: &str = "/var/lib/prometheus/node-exporter/mmu-trace.prom";
/// What `systemctl show` is asked for.
const PROPERTIES: &str = "ActiveState,SubState,ConditionResult,Result,MainPID,NRestarts,MemoryCurrent,UnitFileState,LoadState,Type";

/// Leaves the initramfs for the system on the disk. KVM's modules go along, to be loaded there.
pub(crate) fn enter() -> Result<()> {
    mount(DISK, NEW_ROOT, "ext4", MountFlags::empty(), None::<&std::ffi::CStr>)
        .with_context(|| format!("cannot mount {DISK}"))?;
    std::env::set_current_dir(NEW_ROOT)?;
    mount_move(".", "/").context("cannot move the new root")?;
    rustix::process::chroot(".").context("cannot enter the new root")?;
    std::env::set_current_dir("/")?;
    Err(Command::new("/sbin/init").env_clear().exec()).context("cannot run systemd")
}

/// Everything that is done in the system; ships what it said and powers off.
pub(crate) fn look() -> Result<()> {
    fs::create_dir_all(OUT).with_context(|| format!("cannot create {OUT}"))?;
    let mut steps = Vec::new();
    let mut seen = Installed::default();
    match observe(&mut seen) {
        Ok(()) => steps.push(Step { name: "look".to_owned(), exit: 0 }),
        Err(error) => {
            eprintln!("lab: failed: {error:#}");
            steps.push(Step { name: format!("{error:#}"), exit: 1 });
            seen.journal = journal()?;
        }
    }
    fs::write(Path::new(OUT).join("installed.json"), serde_json::to_vec_pretty(&seen)?)
        .context("cannot write what was seen")?;
    results::ship(&steps)?;
    rustix::fs::sync();
    rustix::system::reboot(rustix::system::RebootCommand::PowerOff).context("cannot power off")
}

fn observe(seen: &mut Installed) -> Result<()> {
    eprintln!("lab: without KVM");
    seen.before_kvm = unit()?;
    seen.failed_units = said("systemctl --failed --no-legend --plain")?.text;
    eprintln!("lab: KVM is loaded");
    load_kvm()?;
    seen.with_kvm = wait_for("the daemon after KVM was loaded", is_active)?;
    seen.capabilities = capabilities(&seen.with_kvm)?;
    let mut vmm = start_vm()?;
    seen.vm_after = wait_for_vm(&mut vmm)?;
    eprintln!("lab: stop and start");
    said("systemctl stop mmu-trace")?;
    seen.stopped = unit()?;
    said("systemctl start mmu-trace")?;
    seen.vm_before = wait_for_vm(&mut vmm)?;
    eprintln!("lab: record");
    seen.record = said("mmu-trace record -o /root/look.mmt --duration 2s")?;
    seen.report = said("mmu-trace report /root/look.mmt")?;
    seen.report_json = said("mmu-trace report --format json /root/look.mmt")?;
    seen.security = said("systemd-analyze security --no-pager mmu-trace")?;
    seen.without = without_each()?;
    eprintln!("lab: kill -9");
    seen.killed = signal_and_wait(Signal::KILL, "the daemon after kill -9")?;
    eprintln!("lab: SIGSTOP, until the watchdog sees it");
    seen.stalled = signal_and_wait(Signal::STOP, "the daemon after it was stalled")?;
    seen.journal = journal()?;
    follow_page(seen)?;
    seen.purged = unit()?;
    vmm.stop()
}

fn load_kvm() -> Result<()> {
    let folder = Path::new(FOLDER).join("modules");
    let list = fs::read_to_string(folder.join("order")).context("cannot read the list of modules")?;
    list.lines().try_for_each(|name| load_module_file(&folder.join(name), c""))
}

/// A VMM of a user that is not root, which may open `/dev/kvm` by its group.
fn start_vm() -> Result<Vmm> {
    let id = |kind: &str| -> Result<u32> {
        let said =
            said(&format!("getent {kind} {} | cut -d: -f3", if kind == "group" { "kvm" } else { USER }))?;
        said.text.trim().parse().with_context(|| format!("no {kind} for VMMs"))
    };
    Vmm::start_as(VM, &Path::new(FOLDER).join(crate::vmm::PROGRAM_SUFFIX), id("passwd")?, id("group")?)
}

/// The daemon's figures once they hold faults of the VM.
fn wait_for_vm(vmm: &mut Vmm) -> Result<Series> {
    let start = Instant::now();
    loop {
        vmm.command("discard")?;
        vmm.command("read")?;
        let series = scrape()?;
        let is_of_vm = |key: &str| key.starts_with("mmu_trace_page_faults_total{") && key.contains(VM.uuid);
        if series.iter().any(|(key, n)| is_of_vm(key) && *n > 0.0) || start.elapsed() > PATIENCE / 4 {
            return Ok(series);
        }
        std::thread::sleep(POLL_EVERY);
    }
}

/// Runs the commands of the pages for those who install; what removes comes last.
fn follow_page(seen: &mut Installed) -> Result<()> {
    let path = Path::new(FOLDER).join("commands");
    let commands = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    for command in commands.lines() {
        eprintln!("lab: {command}");
        if command.starts_with("apt-get purge") {
            seen.textfile = said(&format!("head -n 1 {TEXTFILE}"))?;
        }
        seen.page.push((command.to_owned(), said(&format!("cd /root; {command}"))?));
    }
    Ok(())
}

/// The figures of a daemon that lacks one of its capabilities, for each of them.
fn without_each() -> Result<BTreeMap<String, Series>> {
    let folder = Path::new("/run/systemd/system").join(format!("{UNIT}.d"));
    fs::create_dir_all(&folder).context("cannot change the unit")?;
    let mut seen = BTreeMap::new();
    for less in CAPABILITIES {
        eprintln!("lab: without {less}");
        let mut rest: Vec<&str> = CAPABILITIES.into_iter().filter(|name| *name != less).collect();
        if less == "CAP_SYS_ADMIN" {
            rest.push(INSTEAD);
        }
        let change = format!("[Service]\nCapabilityBoundingSet=\nCapabilityBoundingSet={}\n", rest.join(" "));
        fs::write(folder.join("less.conf"), change).context("cannot change the unit")?;
        let restarted = said("systemctl daemon-reload && systemctl restart mmu-trace")?;
        let series = if restarted.exit == 0 { scrape()? } else { Series::new() };
        seen.insert(less.to_owned(), series);
    }
    fs::remove_dir_all(&folder).context("cannot change the unit back")?;
    said("systemctl daemon-reload; systemctl reset-failed mmu-trace; systemctl restart mmu-trace")?;
    Ok(seen)
}

fn scrape() -> Result<Series> {
    metrics::parse(&metrics::get("/metrics").context("cannot scrape the daemon")?)
}

/// Sends the daemon a signal, and waits until there is another one that is ready.
fn signal_and_wait(signal: Signal, what: &str) -> Result<Unit> {
    let before = main_pid(&unit()?)?;
    kill_process(before, signal).context("cannot signal the daemon")?;
    wait_for(what, |unit| is_active(unit) && main_pid(unit).is_ok_and(|pid| pid != before))
}

fn is_active(unit: &Unit) -> bool {
    unit.properties.get("ActiveState").is_some_and(|state| state == "active")
}

fn main_pid(unit: &Unit) -> Result<Pid> {
    let pid = unit.properties.get("MainPID").and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
    pid.context("the unit has no process")
}

fn wait_for(what: &str, is_there: impl Fn(&Unit) -> bool) -> Result<Unit> {
    let start = Instant::now();
    loop {
        let unit = unit()?;
        if is_there(&unit) {
            return Ok(unit);
        }
        ensure!(start.elapsed() < PATIENCE, "{what} did not come within {PATIENCE:?}: {unit:?}");
        std::thread::sleep(POLL_EVERY);
    }
}

fn unit() -> Result<Unit> {
    let shown = said(&format!("systemctl show {UNIT} --property {PROPERTIES}"))?;
    let properties = shown.text.lines().filter_map(|line| line.split_once('='));
    let properties = properties.map(|(key, value)| (key.to_owned(), value.to_owned()));
    Ok(Unit { properties: BTreeMap::from_iter(properties), attached: attached()? })
}

/// What ftrace runs something for: BPF trampolines and most kprobes; the other kprobes.
fn attached() -> Result<usize> {
    let lines = |path: &str| -> Result<usize> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
        Ok(text.lines().count())
    };
    Ok(lines("/sys/kernel/tracing/enabled_functions")? + lines("/sys/kernel/debug/kprobes/list")?)
}

fn capabilities(unit: &Unit) -> Result<String> {
    let path = format!("/proc/{}/status", main_pid(unit)?.as_raw_nonzero());
    let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    Ok(effective.context("no capabilities")?.trim().to_owned())
}

fn journal() -> Result<String> {
    Ok(said("journalctl --no-pager --output short-monotonic --unit mmu-trace")?.text)
}

/// Runs a line of shell.
fn said(line: &str) -> Result<Said> {
    let output = Command::new("/bin/sh")
        .args(["-c", &format!("exec 2>&1; {line}")])
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C.UTF-8")
        .env("SYSTEMD_COLORS", "0")
        .output()
        .with_context(|| format!("cannot run {line}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(Said { exit: output.status.code().unwrap_or(-1), text })
}
