//! `mmu-trace top`: what each VM pays, live.
//!
//! ```text
//!  Feed (thread: Tracer or Replay) --snapshots--.
//!  keys (thread: the terminal)     --keys-------+--> Event --> View (pure) --> render --> Screen
//!  Tracer's listener               --sentences--'
//! ```
//!
//! One loop takes events one after the other, so the view needs no lock; it asks for a snapshot once per
//! interval, unless it is paused.

mod column;
mod detail;
mod feed;
#[cfg(test)]
mod fixture;
mod history;
mod once;
mod render;
mod screen;
mod state;
mod summary;

use std::{
    env,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use tokio::{
    sync::mpsc::{Receiver, Sender, channel},
    time::{Instant, MissedTickBehavior, interval_at, sleep},
};

use self::{
    feed::Feed,
    render::{Palette, render},
    screen::Screen,
    state::{Event, Flow, View},
};
use super::{
    CliError, SandboxArgs, Stop, confine, damage, duration, output, start_tracer,
    tracer::{Listener, Tracer, TracerArgs, wait_for_kvm},
};
use crate::{
    capture,
    sandbox::Needs,
    source::{Replay, Source},
};

/// Events on their way to the view: keys of a fast typist while it draws.
const EVENTS: usize = 64;

/// The shortest interval: reading the maps of many VMs on many CPUs takes milliseconds.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// Arguments of `top`.
#[derive(Args, Debug)]
pub struct TopArgs {
    /// How often the figures change, e.g. 1s or 500ms.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_interval)]
    pub interval: Duration,
    /// Print the figures of one interval as a plain table and end; with --replay, of the whole capture.
    #[arg(long)]
    pub once: bool,
    /// Show a capture's snapshots, one per interval, instead of this host.
    #[arg(long, value_name = "FILE")]
    pub replay: Option<PathBuf>,
    /// How to trace.
    #[command(flatten)]
    pub tracer: TracerArgs,
    /// What is given up.
    #[command(flatten)]
    pub sandbox: SandboxArgs,
}

impl TopArgs {
    fn confine(&self, needs: &Needs) {
        confine::warn(&confine::confine(self.sandbox, needs));
    }
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    match duration::parse(text)? {
        interval if interval < MIN_INTERVAL => Err("must be at least 100ms".to_owned()),
        interval => Ok(interval),
    }
}

/// Shows what each VM pays until the user has seen enough.
///
/// # Errors
/// If this host cannot be traced, the capture not be read, or standard output is no terminal.
pub fn run(args: &TopArgs) -> Result<(), CliError> {
    if !args.once && !io::stdout().is_terminal() {
        let message = "standard output is not a terminal; use --once for a plain table";
        return Err(CliError::Usage(message.to_owned()));
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting tokio")?;
    runtime.block_on(async {
        match &args.replay {
            Some(path) => replay(args, path).await,
            None if args.once => trace_once(args).await,
            None => trace(args).await,
        }
    })
}

/// Shows a capture. What is damaged in it is left out, and said in the end.
async fn replay(args: &TopArgs, path: &Path) -> Result<(), CliError> {
    // Before a capture is read: it may be anybody's.
    args.confine(&Needs { terminal: !args.once, readable: vec![path.to_owned()], ..Needs::default() });
    let summary = capture::summary(path).map_err(damage::unreadable)?;
    match (&summary.snapshot, args.once) {
        (None, _) => {}
        (Some(snapshot), true) => output::print(&once::table(snapshot))?,
        (Some(_), false) => {
            let source = Replay::stepping(path).map_err(damage::unreadable)?;
            let source = source.context("the capture has lost its figures since it was looked through")?;
            let (events, received) = channel(EVENTS);
            watch(args.interval, Box::new(source), events, received).await?;
        }
    }
    damage::check(path, summary, "the view shows")
}

async fn trace_once(args: &TopArgs) -> Result<(), CliError> {
    let mut stop = Stop::new()?;
    wait_for_kvm(&mut stop).await?;
    let descriptors = confine::descriptors(args.sandbox);
    let mut live = start_tracer(args.tracer.options(), descriptors.clone())?;
    args.confine(&confine::needs_of_tracing(&descriptors));
    tokio::select! {
        () = sleep(args.interval) => {}
        () = stop.requested() => return Err(CliError::Interrupted),
    }
    output::print(&once::table(&live.snapshot()?))
}

async fn trace(args: &TopArgs) -> Result<(), CliError> {
    let (events, received) = channel(EVENTS);
    let told = events.clone();
    // A sentence that finds the queue full is not worth waiting for: the summary says the same.
    let tell = Box::new(move |text: &str| _ = told.try_send(Event::Told(text.to_owned())));
    let listener = Listener { tell, release: "end mmu-trace top".to_owned() };
    let descriptors = confine::descriptors(args.sandbox);
    let needs = Needs { attaching: true, terminal: true, ..confine::needs_of_tracing(&descriptors) };
    let tracer = Tracer::new(args.tracer.options(), descriptors, listener);
    // Before the terminal is taken: a refusal belongs on the ordinary screen.
    tracer.start()?;
    args.confine(&needs);
    watch(args.interval, Box::new(tracer), events, received).await
}

/// Shows `source` until a key or a signal ends it.
async fn watch(
    interval: Duration,
    source: Box<dyn Source>,
    events: Sender<Event>,
    mut received: Receiver<Event>,
) -> Result<(), CliError> {
    let mut stop = Stop::new()?;
    let palette = palette();
    let mut screen = Screen::open()?;
    let size = screen.terminal.size().context("asking for the terminal's size")?;
    let mut view = View::new((size.width, size.height));
    screen::read_keys(events.clone());
    let feed = Feed::start(source, events);
    let mut tick = interval_at(Instant::now() + interval, interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        screen.terminal.draw(|frame| render(&view, palette, frame)).context("drawing")?;
        let event = tokio::select! {
            () = stop.requested() => return Ok(()),
            event = received.recv() => event,
            _ = tick.tick() => {
                if view.wants_snapshot() && !feed.ask() {
                    return Err(anyhow::anyhow!("the thread that reads the figures has ended").into());
                }
                continue;
            }
        };
        if event.is_none_or(|event| view.update(event) == Flow::Quit) {
            return Ok(());
        }
    }
}

/// No colours if the user says so, see <https://no-color.org>.
fn palette() -> Palette {
    let is_plain = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if is_plain { Palette::Plain } else { Palette::Colour }
}
