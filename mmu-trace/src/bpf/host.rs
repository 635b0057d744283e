//! What this host offers, found without changing anything and, but for the first point, without root.

use std::{
    fs,
    os::{linux::fs::MetadataExt, unix::fs::PermissionsExt},
    path::Path,
};

use super::{
    catalogue::{CHANGE_PTE, FAULT_HANDLER, HOW_TO_LOAD_KVM},
    surroundings,
};
use crate::{kernel::kallsyms::Kallsyms, model::Mmu};

/// One thing that tracing needs or profits from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// What it is, e.g. `kernel BTF`.
    pub name: &'static str,
    /// Whether it is met; `None` if that cannot be told from here.
    pub is_met: Option<bool>,
    /// What was found.
    pub found: String,
    /// Whether nothing can be traced without it.
    pub is_essential: bool,
    /// What to do where it is not met.
    pub remedy: &'static str,
}

/// Why a host cannot be traced, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {remedy}")]
pub struct Obstacle {
    /// What is missing.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

const LOCKDOWN: &str = "/sys/kernel/security/lockdown";
const VMLINUX_BTF: &str = "/sys/kernel/btf/vmlinux";
const KPROBE_PMU: &str = "/sys/bus/event_source/devices/kprobe/type";
const BPF_SYSCTL: &str = "/proc/sys/kernel/unprivileged_bpf_disabled";
const KVM: &str = "/sys/module/kvm";

/// Looks at every requirement.
#[must_use]
pub fn requirements() -> Vec<Requirement> {
    let kallsyms = Kallsyms::load().ok();
    let mut all = essentials();
    all.extend([
        exists(
            "kprobes",
            KPROBE_PMU,
            false,
            "use a kernel with CONFIG_KPROBES=y and CONFIG_KPROBE_EVENTS=y; without them only fentry is left",
        ),
        kernel_addresses(kallsyms.as_ref()),
        kvm(kallsyms.as_ref()),
        ksm(),
        change_pte(kallsyms.as_ref()),
    ]);
    all
}

/// What nothing can be traced without. Cheap to ask: it is asked at every start.
fn essentials() -> Vec<Requirement> {
    vec![
        root(),
        pid_namespace(),
        exists("BPF system call", BPF_SYSCTL, true, "use a kernel with CONFIG_BPF_SYSCALL=y"),
        exists("kernel BTF", VMLINUX_BTF, true, "use a kernel with CONFIG_DEBUG_INFO_BTF=y"),
        lockdown(),
        kernel_reads(),
    ]
}

/// The essential requirements that are known not to be met.
#[must_use]
pub fn find_obstacles() -> Vec<Obstacle> {
    essentials()
        .into_iter()
        .filter(|r| r.is_met == Some(false))
        .map(|r| Obstacle { what: format!("{}: {}", r.name, r.found), remedy: r.remedy.to_owned() })
        .collect()
}

/// Whether kprobes can be opened as perf events.
pub(super) fn has_kprobes() -> bool {
    Path::new(KPROBE_PMU).exists()
}

/// Whether there is nothing to trace yet but will be: KVM is not loaded, and nothing else is wrong.
#[must_use]
pub fn must_wait_for_kvm() -> bool {
    !kvm_is_loaded() && find_obstacles().is_empty()
}

/// Whether KVM is loaded or built in.
#[must_use]
pub fn kvm_is_loaded() -> bool {
    kvm_instance().is_some()
}

/// One life of KVM in the kernel: unloaded and loaded again, it is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvmInstance(u64);

impl KvmInstance {
    /// Two that differ, for tests of what depends on it.
    #[cfg(test)]
    pub(crate) const EXAMPLES: [Self; 2] = [Self(1), Self(2)];
}

/// The KVM that can be hooked now.
#[must_use]
pub fn kvm_instance() -> Option<KvmInstance> {
    instance(Path::new(KVM))
}

/// The inode number of a module's folder in sysfs tells its lives apart: kernfs hands none out twice
/// in one boot (`__kernfs_new_node`, since Linux 5.5).
fn instance(module: &Path) -> Option<KvmInstance> {
    let inode = fs::metadata(module).ok()?.st_ino();
    is_live(module).then_some(KvmInstance(inode))
}

/// Whether KVM is a module, which can be unloaded as long as nobody holds it.
pub(super) fn kvm_is_module() -> bool {
    Path::new(KVM).join("initstate").exists()
}

/// Whether the module with this folder in sysfs can be hooked. The folder is there while the module
/// still initialises, when BPF cannot attach to it; built-in code has no state.
fn is_live(module: &Path) -> bool {
    match fs::read_to_string(module.join("initstate")) {
        Ok(state) => state.trim() == "live",
        Err(_) => module.exists(),
    }
}

/// The MMU of every VM, where the module's choice cannot change any more.
pub(super) fn fixed_mmu() -> Option<Mmu> {
    const PARAMETER: &str = "/sys/module/kvm/parameters/tdp_mmu";
    let is_fixed = fs::metadata(PARAMETER).is_ok_and(|m| m.permissions().mode() & 0o222 == 0);
    match fs::read_to_string(PARAMETER).ok()?.trim() {
        "Y" if is_fixed => Some(Mmu::Tdp),
        "N" if is_fixed => Some(Mmu::Rmap),
        _ => None,
    }
}

fn requirement(name: &'static str, is_met: Option<bool>, found: &str, remedy: &'static str) -> Requirement {
    Requirement { name, is_met, found: found.to_owned(), is_essential: false, remedy }
}

fn root() -> Requirement {
    let is_root = rustix::process::geteuid().is_root();
    let found = if is_root { "running as root" } else { "not running as root" };
    Requirement { is_essential: true, ..requirement("root", Some(is_root), found, "run it with sudo") }
}

/// The kernel tells process ids of the initial namespace: `/proc` must show the same ones.
fn pid_namespace() -> Requirement {
    /// `PROC_PID_INIT_INO` (`include/linux/proc_ns.h`).
    const INITIAL: u64 = 0xEFFF_FFFC;
    let inode = fs::metadata("/proc/self/ns/pid").map(|m| m.st_ino());
    let (is_met, found) = match inode {
        Ok(INITIAL) => (Some(true), "the host's".to_owned()),
        Ok(_) => (Some(false), "not the host's".to_owned()),
        Err(e) => (None, format!("cannot be read: {e}")),
    };
    let remedy = "run it on the host, or in a container with the host's PID namespace (--pid=host)";
    Requirement { is_essential: true, ..requirement("PID namespace", is_met, &found, remedy) }
}

fn exists(name: &'static str, path: &str, is_essential: bool, remedy: &'static str) -> Requirement {
    let is_met = Path::new(path).exists();
    let found = format!("{path} {}", if is_met { "exists" } else { "is missing" });
    Requirement { name, is_met: Some(is_met), found, is_essential, remedy }
}

fn lockdown() -> Requirement {
    let remedy = "boot without lockdown=confidentiality (integrity, as under Secure Boot, is fine)";
    let Ok(modes) = fs::read_to_string(LOCKDOWN) else {
        return requirement("lockdown", None, &format!("{LOCKDOWN} cannot be read"), remedy);
    };
    let mode = modes.split(['[', ']']).nth(1).unwrap_or("unknown").to_owned();
    let is_met = mode != "confidentiality";
    Requirement {
        is_essential: true,
        ..requirement("lockdown", Some(is_met), &format!("mode {mode}"), remedy)
    }
}

/// Lockdown as BPF meets it, where its own file does not tell.
fn kernel_reads() -> Requirement {
    let remedy = "boot without lockdown=confidentiality: it forbids BPF programs to read kernel memory";
    let (is_met, found) = match super::sys::may_read_kernel() {
        Ok(true) => (Some(true), "allowed".to_owned()),
        Ok(false) => (Some(false), "refused: the kernel is locked down to confidentiality".to_owned()),
        Err(e) => (None, format!("cannot be tried: {e}")),
    };
    Requirement { is_essential: true, ..requirement("BPF kernel reads", is_met, &found, remedy) }
}

fn kernel_addresses(kallsyms: Option<&Kallsyms>) -> Requirement {
    let remedy = "as root, set kernel.kptr_restrict to 0 or 1; else causes come from the KSM hooks alone";
    let (is_met, found) = match kallsyms {
        None => (Some(false), "/proc/kallsyms cannot be read"),
        Some(k) if k.addresses_hidden() => (Some(false), "/proc/kallsyms hides addresses"),
        Some(_) => (Some(true), "/proc/kallsyms shows addresses"),
    };
    requirement("kernel addresses", is_met, found, remedy)
}

fn kvm(kallsyms: Option<&Kallsyms>) -> Requirement {
    let is_loaded = kvm_is_loaded();
    let hookable = kallsyms.map(|k| k.contains(FAULT_HANDLER));
    let found = match (is_loaded, hookable) {
        (true, Some(true)) => "loaded",
        (true, _) => "loaded, but its functions are not in /proc/kallsyms",
        (false, _) => "not loaded",
    };
    let is_met = is_loaded && hookable != Some(false);
    requirement("kvm", Some(is_met), found, HOW_TO_LOAD_KVM)
}

fn ksm() -> Requirement {
    let found = match surroundings::ksm().map(|ksm| ksm.run) {
        Some(1) => "running",
        Some(_) => "present, not running",
        None => "not in this kernel",
    };
    let remedy = "echo 1 > /sys/kernel/mm/ksm/run starts it; without KSM there is little to see";
    requirement("KSM", Some(found == "running"), found, remedy)
}

fn change_pte(kallsyms: Option<&Kallsyms>) -> Requirement {
    let is_there = kallsyms.map(|k| k.contains(CHANGE_PTE));
    let found = match is_there {
        Some(true) => "present, inside invalidate_range_start and _end: direct mode",
        Some(false) => "removed: counterfactual mode, from the brackets",
        None => "unknown",
    };
    requirement("change_pte", is_there, found, "nothing to do: Linux 6.10 dropped it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_counts_once_it_is_live_or_built_in() {
        let sysfs = tempfile::tempdir().unwrap();
        let module = sysfs.path().join("kvm");
        assert!(!is_live(&module));
        fs::create_dir(&module).unwrap();
        assert!(is_live(&module));
        for (state, expected) in [("coming\n", false), ("live\n", true), ("going\n", false)] {
            fs::write(module.join("initstate"), state).unwrap();
            assert_eq!(is_live(&module), expected, "{state}");
        }
    }

    #[test]
    fn a_module_that_is_loaded_again_is_another_instance() {
        let sysfs = tempfile::tempdir().unwrap();
        let (module, old) = (sysfs.path().join("kvm"), sysfs.path().join("old"));
        assert_eq!(instance(&module), None);
        fs::create_dir(&module).unwrap();
        let first = instance(&module);
        assert!(first.is_some() && first == instance(&module));
        fs::rename(&module, old).unwrap();
        fs::create_dir(&module).unwrap();
        assert!(instance(&module).is_some() && first != instance(&module));
    }
}
