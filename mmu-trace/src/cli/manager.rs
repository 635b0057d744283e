//! The service manager that may have started this process: systemd's notify protocol.
//!
//! Without `NOTIFY_SOCKET` in the environment nothing is said. What cannot be said is nobody's loss: the
//! manager notices by itself that it hears nothing.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// The variables of the protocol. They concern this process, not its children.
pub(super) const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// What the manager was told last.
pub(super) struct Manager {
    is_ready: bool,
    status: String,
    watchdog: Option<Watchdog>,
}

struct Watchdog {
    /// Half of what the manager allows.
    period: Duration,
    last: Option<Instant>,
}

impl Manager {
    pub(super) fn new() -> Self {
        let watchdog = sd_notify::watchdog_enabled().map(|limit| Watchdog { period: limit / 2, last: None });
        Self { is_ready: false, status: String::new(), watchdog }
    }

    /// How often the watchdog wants to hear of this process.
    pub(super) fn watchdog_period(&self) -> Option<Duration> {
        self.watchdog.as_ref().map(|watchdog| watchdog.period)
    }

    /// Everything that a service needs is in place. The manager wants to hear it once.
    pub(super) fn ready(&mut self) {
        if !self.is_ready {
            self.is_ready = true;
            say(NotifyState::Ready);
        }
    }

    /// What goes on, for `systemctl status`; said when it is news.
    pub(super) fn status(&mut self, status: String) {
        if self.status != status {
            say(NotifyState::Status(&status));
            self.status = status;
        }
    }

    /// Whether it is time to tell that this process works.
    pub(super) fn is_due(&self) -> bool {
        self.watchdog.as_ref().is_some_and(|dog| dog.last.is_none_or(|last| last.elapsed() >= dog.period))
    }

    /// This process works: the manager need not restart it.
    pub(super) fn works(&mut self) {
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.last = Some(Instant::now());
            say(NotifyState::Watchdog);
        }
    }
}

/// This process is about to end.
pub(super) fn stopping() {
    say(NotifyState::Stopping);
}

fn say(state: NotifyState<'_>) {
    // See the head of this file.
    _ = sd_notify::notify(&[state]);
}
