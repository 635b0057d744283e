//! `mmu-trace record`: writes a capture for a time, for the life of a command, or until Ctrl-C.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Args;
use tokio::{
    process::{Child, Command},
    time::{MissedTickBehavior, interval},
};

use super::{
    BackendChoice, CliError, ProgressLine, SandboxArgs, Stop, confine, duration, manager, note, start_tracer,
    tracer::wait_for_kvm,
};
use crate::{
    bpf::{self, Live, Options},
    capture::{EndReason, WriteError},
    model::{Snapshot, VmIdentity},
    record::{Addresses, POLL_EVERY, RecordError, Recorded, Recording, Wanted, is_wanted},
    report::count,
    sandbox::Needs,
    vm::{self, Descriptors},
};

/// VMs that may come while recording and still be told apart: as many as there are, and these.
/// Each costs 4.7 KiB of kernel memory per CPU.
const MORE_VMS: u32 = 64;

/// Arguments of `record`.
#[derive(Args, Debug)]
pub struct RecordArgs {
    /// The capture to write.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// How long to record, e.g. 30s or 5min; without it and without a command, until Ctrl-C.
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub duration: Option<Duration>,
    /// Record only this VM; may be given several times.
    #[arg(long = "vm", value_name = "NAME")]
    pub vms: Vec<String>,
    /// How to attach to kernel functions.
    #[arg(long, value_enum, default_value_t = BackendChoice::Auto)]
    pub backend: BackendChoice,
    /// Keep kernel addresses in the capture, and the physical ones in PTEs: no report needs them.
    #[arg(long)]
    pub kernel_addresses: bool,
    /// What is given up.
    #[command(flatten)]
    pub sandbox: SandboxArgs,
    /// Record for the life of this command.
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

impl RecordArgs {
    /// Checks that every VM asked for is among `known`.
    ///
    /// # Errors
    /// A usage error that lists the names there are.
    fn check_vms(&self, known: &[&VmIdentity]) -> Result<(), CliError> {
        let is_known = |wanted: &&String| known.iter().any(|id| is_wanted(&[(*wanted).clone()], id));
        match self.vms.iter().find(|wanted| !is_known(wanted)) {
            None => Ok(()),
            Some(unknown) => Err(unknown_vm(unknown, known)),
        }
    }

    fn wanted(&self) -> Wanted {
        let command = self.command.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
        let addresses = if self.kernel_addresses { Addresses::Kept } else { Addresses::Concealed };
        Wanted { vms: self.vms.clone(), command, addresses }
    }
}

fn unknown_vm(name: &str, known: &[&VmIdentity]) -> CliError {
    let names: Vec<&str> = known.iter().map(|id| id.name.as_str()).collect();
    let there_are = if names.is_empty() {
        "none is running".to_owned()
    } else {
        format!("there are {}", names.join(", "))
    };
    CliError::Usage(format!("no VM is called {name:?}; {there_are}"))
}

/// Records.
///
/// # Errors
/// If this host cannot be traced, the capture not be written, or the user interrupted; a capture
/// that was begun is closed properly in each case.
pub fn run(args: &RecordArgs) -> Result<(), CliError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting tokio")?;
    runtime.block_on(record(args))
}

async fn record(args: &RecordArgs) -> Result<(), CliError> {
    let mut stop = Stop::new()?;
    check_directory(&args.output)?;
    wait_for_kvm(&mut stop).await?;
    let descriptors = confine::descriptors(args.sandbox);
    let live = start(args, descriptors.clone())?;
    let mut recording = Recording::start(live, &args.output, args.wanted()).map_err(failed)?;
    let mut command = match spawn(&args.command) {
        Ok(command) => command,
        Err(error) => {
            recording.finish(EndReason::Error).map_err(failed)?;
            return Err(error);
        }
    };
    // The command keeps what the user has.
    let child = command.as_ref().and_then(Child::id);
    let needs = Needs { child, ..confine::needs_of_tracing(&descriptors) };
    confine::warn(&confine::confine(args.sandbox, &needs));
    let ended = watch(&mut recording, args.duration, command.as_mut(), &mut stop).await;
    end_command(command).await;
    let reason = *ended.as_ref().unwrap_or(&EndReason::Error);
    let recorded = recording.finish(reason).map_err(failed);
    ended.map_err(failed)?;
    summarise(&recorded?);
    if reason == EndReason::Interrupted { Err(CliError::Interrupted) } else { Ok(()) }
}

/// Refuses an output that cannot be, before waiting for KVM and attaching to it; where the host is what
/// is wrong, that is said instead.
fn check_directory(output: &Path) -> Result<(), CliError> {
    // Of a bare file name the parent is empty.
    let directory = output.parent().filter(|parent| !parent.as_os_str().is_empty());
    match directory.map(fs::metadata) {
        Some(Err(source)) if bpf::find_obstacles().is_empty() => {
            Err(failed(WriteError::Create { path: output.to_owned(), source }.into()))
        }
        _ => Ok(()),
    }
}

fn start(args: &RecordArgs, descriptors: Descriptors) -> Result<Live, CliError> {
    let found = vm::discover(Path::new("/proc"), &descriptors).context("looking for VMs")?;
    // Where `/proc` shows everything, a name that is not there need not be attached for.
    if found.skipped.is_empty() {
        args.check_vms(&found.vms.iter().map(|vm| &vm.identity).collect::<Vec<_>>())?;
    }
    let max_vms = u32::try_from(found.vms.len()).unwrap_or(u32::MAX / 4) * 2 + MORE_VMS;
    let options = Options { backend: args.backend.into(), recording: true, vm_histograms: true, max_vms };
    let live = start_tracer(options, descriptors)?;
    args.check_vms(&live.identities().values().collect::<Vec<_>>())?;
    Ok(live)
}

/// Starts the command; the tracer already runs, so nothing of it is missed.
fn spawn(command: &[OsString]) -> Result<Option<Child>, CliError> {
    let Some((program, args)) = command.split_first() else { return Ok(None) };
    let mut child = Command::new(program);
    manager::VARIABLES.iter().for_each(|name| _ = child.env_remove(name));
    let child = child.args(args).spawn();
    child.map(Some).map_err(|e| CliError::Usage(format!("cannot run {}: {e}", program.display())))
}

/// Polls until something ends the recording.
async fn watch(
    recording: &mut Recording,
    duration: Option<Duration>,
    mut command: Option<&mut Child>,
    stop: &mut Stop,
) -> Result<EndReason, RecordError> {
    let mut tick = interval(POLL_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let started = Instant::now();
    let mut progress = ProgressLine::new();
    loop {
        tokio::select! {
            _ = tick.tick() => {
                let now = recording.poll()?;
                progress.recording(&now);
                if now.is_behind {
                    tick.reset_immediately();
                }
            }
            () = stop.requested() => return Ok(EndReason::Interrupted),
            () = exited(command.as_deref_mut()) => return Ok(EndReason::Command),
        }
        if duration.is_some_and(|duration| started.elapsed() >= duration) {
            return Ok(EndReason::Duration);
        }
    }
}

/// Returns when the command has ended; never, if there is none.
async fn exited(command: Option<&mut Child>) {
    match command {
        // Waiting fails only for a child that somebody else has waited for: it is gone as well.
        Some(child) => drop(child.wait().await),
        None => std::future::pending().await,
    }
}

/// Ends a command that outlives its recording, and says how one failed.
async fn end_command(command: Option<Child>) {
    let Some(mut child) = command else { return };
    if let Some(pid) =
        child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw)
    {
        // It may have ended in between.
        _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    match child.wait().await {
        Ok(status) if !status.success() => note(&format!("the command ended with {status}")),
        _ => {}
    }
}

fn summarise(recorded: &Recorded) {
    let Recorded { path, snapshot, events } = recorded;
    note(&format!(
        "wrote {}: {} events in {:.1} s; show it with: mmu-trace report {}",
        path.display(),
        count(*events),
        snapshot.window.seconds,
        path.display()
    ));
    if let Some(warning) = quality_warning(snapshot) {
        note(&warning);
    }
}

fn quality_warning(snapshot: &Snapshot) -> Option<String> {
    (!snapshot.quality.is_complete()).then(|| {
        "the figures are not complete; the report's second paragraph says what is missing".to_owned()
    })
}

fn failed(error: RecordError) -> CliError {
    CliError::Failed(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(vms: &[&str]) -> RecordArgs {
        RecordArgs {
            output: "x".into(),
            duration: None,
            vms: vms.iter().map(|vm| (*vm).to_owned()).collect(),
            backend: BackendChoice::Auto,
            kernel_addresses: false,
            sandbox: SandboxArgs::default(),
            command: Vec::new(),
        }
    }

    #[test]
    fn an_unknown_vm_is_a_usage_error_that_lists_the_known() {
        let known = VmIdentity { name: "web1".into(), ..VmIdentity::default() };
        let error = args(&["web2"]).check_vms(&[&known]).unwrap_err();
        assert_eq!(
            (error.exit_code(), error.to_string().as_str()),
            (2, "no VM is called \"web2\"; there are web1")
        );
        assert!(args(&["web1"]).check_vms(&[&known]).is_ok());
        assert!(args(&[]).check_vms(&[]).is_ok());
    }
}
