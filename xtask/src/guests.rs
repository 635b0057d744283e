//! Real guests: Linux in QEMU, four of them, to be told apart by who they are.

use serde::{Deserialize, Serialize};

use crate::phase::{Counts, Identity, Series};

/// One of the guests.
#[derive(Clone, Copy, Debug)]
pub struct Guest {
    /// Its name and UUID on QEMU's command line.
    pub identity: Identity,
    /// Whether QEMU is started from a file of another name.
    pub is_renamed: bool,
}

/// All of them: two with the same name, one whose QEMU is not called so, one that will be killed.
pub const GUESTS: [Guest; 4] = [
    guest("web", "d1000000-0000-0000-0000-000000000001"),
    guest("web", "d2000000-0000-0000-0000-000000000002"),
    Guest { is_renamed: true, ..guest("hidden", "d3000000-0000-0000-0000-000000000003") },
    guest("doomed", "d4000000-0000-0000-0000-000000000004"),
];

const fn guest(name: &'static str, uuid: &'static str) -> Guest {
    Guest { identity: Identity { name, uuid }, is_renamed: false }
}

/// What QEMU is called where it is renamed: the first characters are the process's name.
pub const RENAMED: &str = "appliance";

/// What a guest prints on its console once it works.
pub const READY: &str = "lab guest: ready";

/// The file that says which guest was reset before it said a word.
pub const RESET: &str = "guest-reset.txt";

/// What was seen of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Guests {
    /// The process ids, in the order of [`GUESTS`].
    pub pids: Vec<u32>,
    /// The daemon while all ran, once each had pages merged.
    pub running: Series,
    /// `mmu-trace vms --format json` at that time.
    pub vms: serde_json::Value,
    /// The daemon after the last one was killed.
    pub killed: Series,
    /// How many scrapes it took until its series were gone.
    pub scrapes_until_gone: u32,
    /// The kernel's counts from before the first began until after the last had ended.
    pub whole: Counts,
    /// Hits that the kernel's own kprobes missed; anything but 0 makes the counts worthless.
    pub oracle_misses: i64,
}
