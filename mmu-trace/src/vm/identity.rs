//! A process's VM: from the command line, else from its machine's scope, else from the command's name and
//! pid.

use std::{collections::BTreeMap, path::Path};

use super::{
    cmdline::{self, Parsed},
    proc::{ProcError, load},
    scope,
    untrusted::{MAX_NAME_BYTES, clean},
};
use crate::model::VmIdentity;

/// Longest cgroup path kept, in bytes.
const MAX_CGROUP_BYTES: usize = 256;

/// Characters of a UUID that tell equal names apart.
const UUID_PREFIX: usize = 8;

/// Who the VM of process `pid` is, without how many there are in it. Its cgroup is left out if it cannot
/// be read.
///
/// # Errors
/// If the process is gone, or not ours to look at.
pub fn identify(proc_root: &Path, pid: u32) -> Result<VmIdentity, ProcError> {
    let comm = load(proc_root, pid, "comm")?;
    let comm = clean(comm.trim_ascii_end(), MAX_NAME_BYTES);
    let parsed = cmdline::parse(&load(proc_root, pid, "cmdline")?).unwrap_or_default();
    let cgroup = load(proc_root, pid, "cgroup").ok().and_then(|file| parse_cgroup(&file));
    Ok(identity(pid, &comm, parsed, cgroup))
}

fn identity(pid: u32, comm: &str, parsed: Parsed, cgroup: Option<String>) -> VmIdentity {
    let libkrun = comm.strip_prefix("VM:").filter(|_| parsed.vmm.is_empty());
    let vmm = match (parsed.vmm, libkrun) {
        ("", Some(_)) => "libkrun",
        ("", None) => comm,
        (vmm, _) => vmm,
    };
    let given = parsed.name.map(|name| clean(&name, MAX_NAME_BYTES)).or(libkrun.map(str::to_owned));
    let registered = || cgroup.as_deref().and_then(scope::machine);
    let name = given.filter(|name| !name.is_empty()).or_else(registered);
    VmIdentity {
        name: name.unwrap_or_else(|| format!("{comm}-{pid}")),
        uuid: parsed.uuid,
        pid,
        vmm: vmm.to_owned(),
        cgroup,
        n_vms: 0,
    }
}

/// The path in the unified hierarchy, else in systemd's, else in the memory controller's; the root
/// only if none says more.
fn parse_cgroup(file: &[u8]) -> Option<String> {
    let lines: Vec<(&[u8], &[u8])> = file.split(|&b| b == b'\n').filter_map(controllers_and_path).collect();
    let of = |wanted: &[u8]| {
        let mut found =
            lines.iter().filter(|(names, _)| names.split(|&b| b == b',').any(|name| name == wanted));
        found.next().map(|(_, path)| *path)
    };
    let paths: Vec<&[u8]> = [of(b""), of(b"name=systemd"), of(b"memory")].into_iter().flatten().collect();
    let path = paths.iter().find(|path| **path != b"/").or(paths.first())?;
    Some(clean(path, MAX_CGROUP_BYTES))
}

/// The second and the third of a line's three fields.
fn controllers_and_path(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut fields = line.splitn(3, |&b| b == b':').skip(1);
    Some((fields.next()?, fields.next()?))
}

/// The name of all VMs together that are not told apart.
pub const OTHER: &str = "other";

/// Names that stand for something else.
const RESERVED: [&str; 2] = [OTHER, crate::report::UNATTRIBUTED];

/// Tells VMs with equal names apart: by the start of their UUID, else (or if that is equal too) by
/// their pid. So it does with one whose name stands for something else.
pub fn disambiguate(identities: &mut [VmIdentity]) {
    rename_twins(identities, |id| id.uuid.as_ref().map(|uuid| uuid.chars().take(UUID_PREFIX).collect()));
    rename_twins(identities, |_| None);
}

fn rename_twins(identities: &mut [VmIdentity], suffix: impl Fn(&VmIdentity) -> Option<String>) {
    let mut n_by_name: BTreeMap<String, usize> = RESERVED.map(|name| (name.to_owned(), 1)).into();
    for id in identities.iter() {
        *n_by_name.entry(id.name.clone()).or_default() += 1;
    }
    for id in identities.iter_mut().filter(|id| n_by_name[&id.name] > 1) {
        let suffix = suffix(id).unwrap_or_else(|| id.pid.to_string());
        id.name = format!("{}-{suffix}", id.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(name: &str, uuid: Option<&str>, pid: u32) -> VmIdentity {
        VmIdentity { name: name.into(), uuid: uuid.map(Into::into), pid, ..VmIdentity::default() }
    }

    #[test]
    fn equal_names_are_told_apart() {
        let mut vms = [
            vm("a", Some("11111111-x"), 1),
            vm("a", Some("22222222-x"), 2),
            vm("b", None, 3),
            vm("b", None, 4),
            vm("c", Some("33333333-x"), 5),
            vm("d", Some("44444444-x"), 6),
            vm("d", Some("44444444-x"), 7),
            vm("other", None, 8),
        ];
        disambiguate(&mut vms);
        let names: Vec<&str> = vms.iter().map(|vm| vm.name.as_str()).collect();
        assert_eq!(
            names,
            ["a-11111111", "a-22222222", "b-3", "b-4", "c", "d-44444444-6", "d-44444444-7", "other-8"]
        );
    }

    #[test]
    fn without_a_known_vmm_the_command_and_the_pid_are_the_name() {
        let id = identity(7, "my-vmm", Parsed::default(), None);
        assert_eq!((id.name.as_str(), id.vmm.as_str()), ("my-vmm-7", "my-vmm"));
        let id = identity(7, "VM:tiny", Parsed::default(), None);
        assert_eq!((id.name.as_str(), id.vmm.as_str()), ("tiny", "libkrun"));
    }

    #[test]
    fn a_nameless_vm_has_the_name_under_which_it_is_registered() {
        let cgroup = || Some("/machine.slice/machine-qemu\\x2d3\\x2ddb.scope/libvirt/emulator".to_owned());
        assert_eq!(identity(7, "my-vmm", Parsed::default(), cgroup()).name, "db");
        let parsed = Parsed { vmm: "qemu", name: Some(b"web1".to_vec()), uuid: None };
        assert_eq!(identity(7, "my-vmm", parsed, cgroup()).name, "web1");
    }

    #[test]
    fn names_are_made_harmless() {
        let parsed = Parsed { vmm: "qemu", name: Some(vec![0x1b; 500]), uuid: None };
        let id = identity(7, "x", parsed, None);
        assert!(id.name.len() <= MAX_NAME_BYTES && !id.name.contains('\u{1b}'));
    }

    #[test]
    fn the_cgroup_that_says_most() {
        let cgroup = |file: &str| parse_cgroup(file.as_bytes());
        assert_eq!(cgroup("0::/a/b\n").as_deref(), Some("/a/b"));
        assert_eq!(cgroup("9:cpu,memory:/m\n1:name=systemd:/s:x\n0::/\n").as_deref(), Some("/s:x"));
        assert_eq!(cgroup("0::/\n").as_deref(), Some("/"));
        assert_eq!(cgroup("nonsense"), None);
    }
}
