//! A Debian system that has the package: what is done there and what it said.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::phase::{Identity, Series};

/// Its VM, whose process belongs to [`USER`].
pub const VM: Identity = Identity { name: "tenant", uuid: "e1000000-0000-0000-0000-000000000001" };

/// The user that VMMs run as, as libvirt's do.
pub const USER: &str = "libvirt-qemu";

/// Where the folder of the lab is in that system.
pub const FOLDER: &str = "/opt/lab";

/// The unit's capabilities. Each is taken away once, to see that it is needed.
pub const CAPABILITIES: [&str; 4] = ["CAP_SYS_ADMIN", "CAP_SYSLOG", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"];

/// What stands in for `CAP_SYS_ADMIN` then: what the kernel made of it for BPF.
pub const INSTEAD: &str = "CAP_BPF CAP_PERFMON";

/// How a command ended, and what it printed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Said {
    /// Its exit code.
    pub exit: i32,
    /// What it printed on both streams.
    pub text: String,
}

/// The unit at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Unit {
    /// What `systemctl show` says.
    pub properties: BTreeMap<String, String>,
    /// The functions that BPF or a kprobe is attached to.
    pub attached: usize,
}

/// All that was seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Installed {
    /// After boot, before KVM was loaded.
    pub before_kvm: Unit,
    /// Units that failed at boot.
    pub failed_units: String,
    /// After KVM was loaded, with nobody's help.
    pub with_kvm: Unit,
    /// Effective capabilities of the daemon, as its `status` file says them.
    pub capabilities: String,
    /// The daemon's figures with a VM that began after it.
    pub vm_after: Series,
    /// After `systemctl stop`.
    pub stopped: Unit,
    /// The daemon's figures with a VM that began before it.
    pub vm_before: Series,
    /// The daemon's figures with one of [`CAPABILITIES`] less, with a VM that began before it and sleeps.
    pub without: BTreeMap<String, Series>,
    /// `mmu-trace record` as root, beside the daemon.
    pub record: Said,
    /// The report of it.
    pub report: Said,
    /// The same report as JSON.
    pub report_json: Said,
    /// `systemd-analyze security` of the running unit.
    pub security: Said,
    /// After `kill -9`.
    pub killed: Unit,
    /// After the daemon was stopped by SIGSTOP.
    pub stalled: Unit,
    /// The daemon's lines in the journal.
    pub journal: String,
    /// Every command of the pages for those who install, the last of which purges the package.
    pub page: Vec<(String, Said)>,
    /// What node_exporter would read, before that.
    pub textfile: Said,
    /// After that.
    pub purged: Unit,
}
