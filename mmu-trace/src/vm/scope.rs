//! The name under which a VM is registered with systemd: that of its scope.
//!
//! systemd-machined (and libvirt without it) names the scope `machine-NAME.scope`, where libvirt's NAME is
//! `DRIVER-ID-DOMAIN` (`virDomainDriverGenerateMachineName`); Proxmox has `/qemu.slice/VMID.scope`. What
//! systemd does not allow in a unit's name is written `\xHH` (`unit_name_escape`).

use super::untrusted::{MAX_NAME_BYTES, clean};

/// The machine's name in a cgroup path, cleaned; `None` if the path has no machine's scope.
pub(super) fn machine(cgroup: &str) -> Option<String> {
    let mut slice = "";
    for part in cgroup.split('/') {
        if let Some(unit) = part.strip_suffix(".scope") {
            let name = match unit.strip_prefix("machine-") {
                Some(machine) => Some(libvirt_domain(&unescape(machine))),
                None if slice == "qemu.slice" => Some(unit.as_bytes().to_vec()),
                None => None,
            };
            if let Some(name) = name {
                return Some(clean(&name, MAX_NAME_BYTES)).filter(|name| !name.is_empty());
            }
        }
        slice = part;
    }
    None
}

/// `db` of `qemu-3-db`, anything else as it is.
fn libvirt_domain(machine: &[u8]) -> Vec<u8> {
    let mut parts = machine.splitn(3, |&byte| byte == b'-');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(b"qemu" | b"ch"), Some(id), Some(domain))
            if !id.is_empty() && id.iter().all(u8::is_ascii_digit) && !domain.is_empty() =>
        {
            domain.to_vec()
        }
        _ => machine.to_vec(),
    }
}

/// Undoes `\xHH`; what is no such sequence stays.
fn unescape(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = name.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let escaped = tail.strip_prefix(b"x").filter(|_| byte == b'\\').and_then(|hex| hex.get(..2));
        let value = escaped.and_then(|hex| u8::from_str_radix(str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(value.unwrap_or(byte));
        rest = if value.is_some() { &tail[3..] } else { tail };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_as_systemd_names_their_scopes() {
        let cases = [
            (r"/machine.slice/machine-qemu\x2d1\x2dweb\x2d1.scope/libvirt/vcpu0", Some("web-1")),
            (r"/machine.slice/machine-qemu\x2d1\x2dweb1.scope", Some("web1")),
            (r"/machine.slice/machine-debian.scope", Some("debian")),
            (r"/machine.slice/machine-qemu\x2dx\x2dweb1.scope", Some("qemu-x-web1")),
            ("/qemu.slice/100.scope", Some("100")),
            ("/user.slice/session-3.scope", None),
            ("/machine.slice/machine-.scope", None),
            (r"/machine.slice/machine-a\x1bb.scope", Some("a\u{fffd}b")),
            (r"/machine-a\x2.scope", Some(r"a\x2")),
            ("/", None),
        ];
        for (cgroup, expected) in cases {
            assert_eq!(machine(cgroup).as_deref(), expected, "{cgroup}");
        }
    }
}
