//! Process 1: prepares the kernel, runs the tracer and the workload, ships the results, powers off.

use std::ffi::CStr;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, finit_module, reboot};
use xtask::phase::{DAEMON_PORT, EARLY_VM, Mmu, Step};

use crate::process::{OUT, has_tracer, mmu_trace, terminate};
use crate::refusals::{BeforeKvm, Stage};
use crate::vmm::Vmm;
use crate::{
    bench, confined, ksm, life, lone, metrics, network, oracle, process, race, results, storm, system,
};

/// Attaching goes through the BPF verifier, which an emulated CPU does slowly.
const DAEMON_START: Duration = Duration::from_secs(90);
const DAEMON_STOP: Duration = Duration::from_secs(20);
/// The address that QEMU's user network gives its first guest.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);

/// The life of process 1. Never returns to the kernel, which would panic.
pub(crate) fn run() -> ! {
    let mut steps = Vec::new();
    if let Err(error) = prepare().and_then(|(options, stage)| measure(&options, stage, &mut steps)) {
        eprintln!("lab: failed: {error:#}");
        steps.push(Step { name: format!("{error:#}"), exit: 1 });
    }
    if let Err(error) = results::ship(&steps) {
        eprintln!("lab: failed: cannot ship the results: {error:#}");
    }
    rustix::fs::sync();
    let _ = reboot(RebootCommand::PowerOff);
    loop {
        std::thread::park();
    }
}

/// What `cargo xtask lab` asked for, on the kernel's command line.
struct Options {
    ladder: bool,
    /// The phases once more, with a working `change_pte`.
    control: bool,
    serve: bool,
    /// How often to attach and detach, instead of everything else.
    storm: Option<u32>,
    /// How many rounds to measure what tracers cost, instead of everything else.
    bench: Option<u32>,
    /// What a host lives through, after the phases.
    life: bool,
    /// Linux guests in QEMU.
    guests: bool,
    /// Instead of everything else: the system on the second disk.
    system: bool,
    /// Leave the refusals out.
    short: bool,
    /// The value of kvm's parameter `tdp_mmu`, where it is not the kernel's default.
    tdp_mmu: Option<bool>,
}

impl Options {
    fn parse(command_line: &str) -> Self {
        let has = |word| command_line.split_whitespace().any(|w| w == word);
        let value = |key| command_line.split_whitespace().find_map(|w| w.strip_prefix(key));
        Self {
            ladder: has("lab.ladder=1"),
            control: has("lab.control=1"),
            serve: has("lab.serve=1"),
            storm: value("lab.storm=").and_then(|times: &str| times.parse().ok()),
            bench: value("lab.bench=").and_then(|rounds: &str| rounds.parse().ok()),
            life: has("lab.life=1"),
            guests: has("lab.guests=1"),
            system: has("lab.system=1"),
            short: has("lab.short=1"),
            tdp_mmu: value("lab.mmu=").map(|mmu: &str| mmu == Mmu::Tdp.name()),
        }
    }
}

/// Also begins the refusals, unless nobody would look at them.
fn prepare() -> Result<(Options, Option<Stage>)> {
    mount_all()?;
    let options = Options::parse(&fs::read_to_string("/proc/cmdline")?);
    if options.system {
        load_modules(None)?;
        system::enter()?;
    }
    network::loopback_up()?;
    let is_other = options.serve || options.short || options.storm.is_some() || options.bench.is_some();
    let refuses = has_tracer() && !is_other;
    let waiting = if refuses { Some(BeforeKvm::start()?) } else { None };
    load_modules(options.tdp_mmu)?;
    let stage = waiting.map(BeforeKvm::finish).transpose()?;
    if options.serve {
        network::ethernet_up("eth0", ADDRESS)?;
    }
    // A huge page would be split before KSM merges it: true, and not what the phases count.
    race::set_thp("never")?;
    stop_damon()?;
    ksm::set_up()?;
    if options.bench.is_none() {
        count_bpf_runs()?;
        // Before the tracer: whatever the tracer sees, these must have counted.
        oracle::set_up()?;
    }
    eprintln!("lab: ready, {}", process::kernel_release()?);
    Ok((options, stage))
}

fn measure(options: &Options, mut stage: Option<Stage>, steps: &mut Vec<Step>) -> Result<()> {
    if !has_tracer() {
        let mut workload = Command::new("/init");
        steps.push(process::run("workload", workload.arg("workload"))?);
        return Ok(());
    }
    if let Some(rounds) = options.bench {
        return bench::run(rounds, steps);
    }
    let mut early = Vmm::start(EARLY_VM).context("the VM before the tracer")?;
    if let Some(times) = options.storm {
        return storm::run(early, times, steps);
    }
    steps.push(save("doctor", &["doctor"], "doctor.txt")?);
    let daemon = start_daemon(options)?;
    if options.serve {
        let mut workload = Command::new("/init");
        steps.push(process::run("workload", workload.args(["workload", "--forever"]))?);
    } else {
        let recorded = process::run("record", &mut recorder(options.ladder));
        steps.push(recorded?);
    }
    if !options.serve {
        let inner = ["record", "--backend", "kprobe", "-o", "/out/sleepers.mmt", "--", "/init", "sleepers"];
        steps.push(process::run("record (sleepers)", &mut mmu_trace(&inner))?);
        // The one capture that may hold them: the others are searched for them.
        let inner = ["record", "--kernel-addresses", "--backend", "kprobe", "-o", "/out/crowd.mmt"];
        let mut recorder = mmu_trace(&inner);
        steps.push(process::run("record (crowd)", recorder.args(["--", "/init", "crowd"]))?);
        eprintln!("lab: lone page");
        lone::run()?;
    }
    if !options.serve {
        confined::look_at_daemon(daemon.id())?;
    }
    if options.guests {
        let inner = ["record", "-o", "/out/guests.mmt", "--", "/init", "guests"];
        steps.push(process::run("record (guests)", &mut mmu_trace(&inner))?);
    }
    if options.control {
        let inner = ["record", "-o", "/out/control.mmt", "--", "/init", "workload", "--control"];
        steps.push(process::run("record (control)", &mut mmu_trace(&inner))?);
    }
    if let Some(stage) = &mut stage {
        stage.second_daemon()?;
    }
    steps.push(terminate("daemon", daemon, DAEMON_STOP)?);
    if let Some(stage) = stage {
        stage.finish(&mut early)?;
    }
    early.stop()?;
    if !options.serve {
        write_reports(options, steps)?;
    }
    if options.life {
        // KVM will be unloaded, and probes on a module's functions die with it.
        oracle::tear_down()?;
        life::run(steps)?;
    }
    Ok(())
}

fn start_daemon(options: &Options) -> Result<Child> {
    let listen = if options.serve { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
    eprintln!("lab: daemon");
    let mut daemon = mmu_trace(&["daemon", "--listen", &format!("{listen}:{DAEMON_PORT}")])
        .spawn()
        .context("cannot run mmu-trace daemon")?;
    match metrics::wait_until_healthy(DAEMON_START, || matches!(daemon.try_wait(), Ok(None))) {
        Ok(()) => Ok(daemon),
        Err(error) => {
            let ended = terminate("daemon", daemon, DAEMON_STOP)?;
            bail!("{error:#} (exit code {})", ended.exit)
        }
    }
}

/// The workload inside `record`, and that, for the ladder, inside a second `record` that may use
/// kprobes only. Both see the same calls, so both must report the same counts.
fn recorder(ladder: bool) -> Command {
    let inner = ["record", "-o", "/out/lab.mmt", "--", "/init", "workload"];
    if !ladder {
        return mmu_trace(&inner);
    }
    let mut outer =
        mmu_trace(&["record", "--backend", "kprobe", "-o", "/out/kprobe.mmt", "--", "/bin/mmu-trace"]);
    outer.args(inner);
    outer
}

fn write_reports(options: &Options, steps: &mut Vec<Step>) -> Result<()> {
    let mut report = |name: &str, format: &str, to: &str, capture: &str| -> Result<()> {
        let to = format!("{OUT}/{to}");
        let capture = format!("{OUT}/{capture}");
        steps.push(process::run(name, &mut mmu_trace(&["report", "--format", format, "-o", &to, &capture]))?);
        Ok(())
    };
    report("report (json)", "json", "report.json", "lab.mmt")?;
    report("report (text)", "text", "report.txt", "lab.mmt")?;
    if options.ladder {
        report("report (json, kprobe)", "json", "kprobe.json", "kprobe.mmt")?;
    }
    report("report (json, sleepers)", "json", "sleepers-report.json", "sleepers.mmt")?;
    report("report (text, sleepers)", "text", "sleepers-report.txt", "sleepers.mmt")?;
    report("report (json, crowd)", "json", "crowd-report.json", "crowd.mmt")?;
    report("report (text, crowd)", "text", "crowd-report.txt", "crowd.mmt")?;
    if options.guests {
        report("report (json, guests)", "json", "guests-report.json", "guests.mmt")?;
        report("report (text, guests)", "text", "guests-report.txt", "guests.mmt")?;
    }
    if options.control {
        report("report (json, control)", "json", "control.json", "control.mmt")?;
        report("report (text, control)", "text", "control.txt", "control.mmt")?;
    }
    Ok(())
}

/// Runs an `mmu-trace` command and keeps what it prints.
fn save(name: &str, args: &[&str], file: &str) -> Result<Step> {
    let path = Path::new(OUT).join(file);
    let output = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    let errors = output.try_clone()?;
    process::run(name, mmu_trace(args).stdout(output).stderr(errors))
}

/// Ends what some kernels start by themselves: `DAMON_STAT` clears the access flag of pages that it draws
/// by lot (`damon_folio_mkold` in `mm/damon`). On arm64 the guest's next access then faults: true, and
/// not what the phases count.
fn stop_damon() -> Result<()> {
    let switch = Path::new("/sys/module/damon_stat/parameters/enabled");
    if !switch.exists() {
        return Ok(());
    }
    fs::write(switch, "N").context("cannot end DAMON_STAT")?;
    let state = fs::read_to_string(switch).context("cannot read whether DAMON_STAT runs")?;
    ensure!(state.trim() == "N", "DAMON_STAT still runs: {}", state.trim());
    Ok(())
}

/// Has the kernel count the runs of BPF programs: what it counts must be what it called.
fn count_bpf_runs() -> Result<()> {
    fs::write("/proc/sys/kernel/bpf_stats_enabled", "1").context("cannot switch the BPF statistics on")
}

fn mount_all() -> Result<()> {
    const MOUNTS: &[(&str, &str)] = &[
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tmpfs", "/tmp"),
        ("tmpfs", "/run"),
        ("tmpfs", OUT),
        ("tracefs", "/sys/kernel/tracing"),
        ("debugfs", "/sys/kernel/debug"),
        ("bpf", "/sys/fs/bpf"),
        ("cgroup2", "/sys/fs/cgroup"),
    ];
    for (kind, target) in MOUNTS {
        if *target == "/proc" && Path::new("/proc/self").exists() {
            continue;
        }
        match fs::create_dir(target) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("cannot create {target}"));
            }
            _ => {}
        }
        mount(*kind, *target, *kind, MountFlags::empty(), None::<&CStr>)
            .with_context(|| format!("cannot mount {kind} on {target}"))?;
    }
    Ok(())
}

/// Loads one module.
pub(crate) fn load_module(name: &str, parameters: &CStr) -> Result<()> {
    load_module_file(&Path::new("/modules").join(name), parameters)
}

/// Loads a module from its file.
pub(crate) fn load_module_file(path: &Path, parameters: &CStr) -> Result<()> {
    let module = File::open(path).with_context(|| format!("no module {}", path.display()))?;
    finit_module(&module, parameters, 0).with_context(|| format!("cannot load {}", path.display()))
}

/// Loads what `/modules` lists, in its order: dependencies come first.
fn load_modules(tdp_mmu: Option<bool>) -> Result<()> {
    let list = fs::read_to_string("/modules/order").context("cannot read the list of modules")?;
    for name in list.lines() {
        let parameters = match tdp_mmu {
            Some(true) if name == "kvm" => c"tdp_mmu=1",
            Some(false) if name == "kvm" => c"tdp_mmu=0",
            _ => c"",
        };
        load_module(name, parameters)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_whole_words() {
        let options = Options::parse("console=ttyS0 lab.serve=1 lab.ladder=10\n");
        assert!(options.serve && !options.ladder);
    }
}
