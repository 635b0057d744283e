//! What a VMM's command line says about its VM. Pure.

/// What was found; names are still untrusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parsed {
    /// The VMM.
    pub(super) vmm: &'static str,
    /// The VM's name.
    pub(super) name: Option<Vec<u8>>,
    /// Its UUID, in lower case.
    pub(super) uuid: Option<String>,
}

/// API sockets with these names say nothing about the VM; their directory does.
const GENERIC_SOCKETS: &[&[u8]] = &[b"api", b"ch", b"clh", b"clh-api", b"cloud-hypervisor"];

/// Reads a NUL-separated command line; `None` if it is no VMM we know.
pub(super) fn parse(cmdline: &[u8]) -> Option<Parsed> {
    let args: Vec<&[u8]> = cmdline.split(|&b| b == 0).collect();
    let args = Args(&args);
    match vmm(file_name(args.0.first()?))? {
        vmm @ "qemu" => Some(qemu(vmm, args)),
        vmm @ "cloud-hypervisor" => Some(cloud_hypervisor(vmm, args)),
        vmm @ "firecracker" => Some(Parsed { vmm, name: args.value(&[b"--id"]), uuid: None }),
        vmm @ "kvmtool" => Some(Parsed { vmm, name: args.value(&[b"--name", b"-n"]), uuid: None }),
        vmm => Some(Parsed { vmm, name: args.value(&[b"--name"]), uuid: None }),
    }
}

/// The VMM behind a program's file name.
fn vmm(program: &[u8]) -> Option<&'static str> {
    let program = program.strip_prefix(b".").unwrap_or(program);
    match program {
        b"qemu-kvm" | b"kvm" => Some("qemu"),
        b"lkvm" | b"kvmtool" => Some("kvmtool"),
        p if p.starts_with(b"qemu-system-") => Some("qemu"),
        p if p.starts_with(b"cloud-hypervisor") => Some("cloud-hypervisor"),
        p if p.starts_with(b"firecracker") => Some("firecracker"),
        p if p.starts_with(b"crosvm") => Some("crosvm"),
        _ => None,
    }
}

/// QEMU, libvirt's and Proxmox' included (its UUID is in `-smbios`, its number in `-id`).
fn qemu(vmm: &'static str, args: Args<'_>) -> Parsed {
    let name = args.value(&[b"-name", b"--name"]).and_then(|value| option(&value, b"guest", Implied::First));
    let smbios = || args.values(&[b"-smbios", b"--smbios"]).find_map(|v| option(&v, b"uuid", Implied::No));
    let uuid = args.value(&[b"-uuid", b"--uuid"]).or_else(smbios);
    Parsed { vmm, name: name.or_else(|| args.value(&[b"-id"])), uuid: uuid.as_deref().and_then(parse_uuid) }
}

fn cloud_hypervisor(vmm: &'static str, args: Args<'_>) -> Parsed {
    let socket = args.value(&[b"--api-socket"]).and_then(|value| option(&value, b"path", Implied::First));
    let uuid = args.value(&[b"--platform"]).and_then(|value| option(&value, b"uuid", Implied::No));
    Parsed {
        vmm,
        name: socket.and_then(|path| socket_name(&path)),
        uuid: uuid.as_deref().and_then(parse_uuid),
    }
}

/// What an API socket's path says: its name, or its directory's where the name is a usual one.
fn socket_name(path: &[u8]) -> Option<Vec<u8>> {
    let file = file_name(path);
    let stem = file.strip_suffix(b".sock").or_else(|| file.strip_suffix(b".socket")).unwrap_or(file);
    let name = if GENERIC_SOCKETS.contains(&stem) {
        file_name(path.strip_suffix(file)?.strip_suffix(b"/")?)
    } else {
        stem
    };
    Some(name.to_vec()).filter(|name| !name.is_empty())
}

/// A UUID in lower case; `None` if `text` is none.
fn parse_uuid(text: &[u8]) -> Option<String> {
    const LEN: usize = 36;
    let is_dash = |i: usize| matches!(i, 8 | 13 | 18 | 23);
    let valid =
        text.iter().enumerate().all(|(i, b)| if is_dash(i) { *b == b'-' } else { b.is_ascii_hexdigit() });
    (text.len() == LEN && valid).then(|| String::from_utf8_lossy(text).to_ascii_lowercase())
}

fn file_name(path: &[u8]) -> &[u8] {
    path.rsplit(|&b| b == b'/').next().unwrap_or(path)
}

/// Whether the first option of a list may stand without its key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Implied {
    First,
    No,
}

/// The value of `key` in a list `key=value,key=value`, where `,,` is a comma within a value.
fn option(list: &[u8], key: &[u8], implied: Implied) -> Option<Vec<u8>> {
    split_options(list).into_iter().enumerate().find_map(|(i, option)| {
        match option.iter().position(|&b| b == b'=') {
            Some(end) if &option[..end] == key => Some(option[end + 1..].to_vec()),
            None if i == 0 && implied == Implied::First => Some(option),
            _ => None,
        }
    })
}

/// Splits at single commas; double ones become one.
fn split_options(list: &[u8]) -> Vec<Vec<u8>> {
    let mut options = vec![Vec::new()];
    let mut bytes = list.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte == b',' && bytes.next_if_eq(&b',').is_none() {
            options.push(Vec::new());
        } else if let Some(option) = options.last_mut() {
            option.push(byte);
        }
    }
    options
}

/// The arguments of a program.
#[derive(Clone, Copy)]
struct Args<'a>(&'a [&'a [u8]]);

impl<'a> Args<'a> {
    /// The last value of any of `flags`, written `--flag value` or `--flag=value`; not if empty.
    fn value(self, flags: &'a [&'a [u8]]) -> Option<Vec<u8>> {
        self.values(flags).last()
    }

    fn values(self, flags: &'a [&'a [u8]]) -> impl Iterator<Item = Vec<u8>> {
        let next = self.0.iter().copied().skip(1).chain([&b""[..]]);
        let values = self.0.iter().zip(next).skip(1).filter_map(move |(&arg, next)| {
            flags.iter().find_map(|&flag| match arg.strip_prefix(flag)? {
                b"" => Some(next),
                rest => rest.strip_prefix(b"="),
            })
        });
        values.filter(|value| !value.is_empty()).map(<[u8]>::to_vec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "7b0f1a4e-3c0e-4b53-9c1d-0d6a2f6f2a11";

    fn parsed(args: &[&str]) -> Option<(String, Option<String>, Option<String>)> {
        let parsed = parse(args.join("\0").as_bytes())?;
        let name = parsed.name.map(|name| String::from_utf8(name).unwrap());
        Some((parsed.vmm.to_owned(), name, parsed.uuid))
    }

    fn is(args: &[&str], vmm: &str, name: Option<&str>, uuid: Option<&str>) {
        let expected = (vmm.to_owned(), name.map(Into::into), uuid.map(Into::into));
        assert_eq!(parsed(args), Some(expected), "{args:?}");
    }

    #[test]
    fn qemu_by_every_kind_of_name() {
        let qemu = "/usr/bin/qemu-system-x86_64";
        is(&[qemu, "-name", "web1"], "qemu", Some("web1"), None);
        is(&[qemu, "-name", "guest=web1,debug-threads=on", "-uuid", UUID], "qemu", Some("web1"), Some(UUID));
        is(&[qemu, "-name", "process=x,guest=web1"], "qemu", Some("web1"), None);
        is(&[qemu, "-name", "guest=a,,b=c,debug-threads=on"], "qemu", Some("a,b=c"), None);
        is(&[qemu, "-name", "process=x"], "qemu", None, None);
        is(&[qemu, "-m", "4096", "-name"], "qemu", None, None);
        is(&["/usr/libexec/qemu-kvm", "-uuid", "nonsense"], "qemu", None, None);
        is(&[".qemu-system-x86_64-wrapped", "-name", "nix"], "qemu", Some("nix"), None);
    }

    #[test]
    fn proxmox_by_name_or_number() {
        let smbios = format!("type=1,uuid={}", UUID.to_uppercase());
        is(
            &["/usr/bin/kvm", "-id", "100", "-name", "db,debug-threads=on", "-smbios", &smbios],
            "qemu",
            Some("db"),
            Some(UUID),
        );
        is(&["/usr/bin/kvm", "-id", "100"], "qemu", Some("100"), None);
    }

    #[test]
    fn the_other_vmms() {
        let platform = format!("num_pci_segments=1,uuid={UUID}");
        is(
            &["cloud-hypervisor", "--api-socket", "/run/ch/web1.sock", "--platform", &platform],
            "cloud-hypervisor",
            Some("web1"),
            Some(UUID),
        );
        is(
            &["cloud-hypervisor", "--api-socket=path=/run/vc/vm/s1/clh-api.sock"],
            "cloud-hypervisor",
            Some("s1"),
            None,
        );
        is(&["cloud-hypervisor", "--api-socket", "api.sock"], "cloud-hypervisor", None, None);
        is(&["/firecracker", "--id=fc-1", "--config-file", "x"], "firecracker", Some("fc-1"), None);
        is(&["crosvm", "run", "--name", "c1"], "crosvm", Some("c1"), None);
        is(&["lkvm", "run", "-n", "k1"], "kvmtool", Some("k1"), None);
    }

    #[test]
    fn anything_else_is_no_vmm() {
        assert_eq!(parsed(&["/bin/bash", "-name", "x"]), None);
        assert_eq!(parse(b""), None);
    }
}
