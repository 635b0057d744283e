//! The two interfaces, brought up by `ioctl`.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::net::{AddressFamily, SocketType, socket};

/// Brings the loopback interface up.
pub(crate) fn loopback_up() -> Result<()> {
    let control = control()?;
    up(&control, "lo")
}

/// Gives the virtio interface the address that QEMU's user network forwards to, and brings it up.
pub(crate) fn ethernet_up(name: &str, address: Ipv4Addr) -> Result<()> {
    let control = control()?;
    let mut request = request(name);
    let socket_address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from(address).to_be() },
        sin_zero: [0; 8],
    };
    // SAFETY: `sockaddr_in` and `sockaddr` have the same size; any bytes are valid in both.
    request.ifr_ifru.ifru_addr =
        unsafe { std::mem::transmute::<libc::sockaddr_in, libc::sockaddr>(socket_address) };
    ioctl(&control, libc::SIOCSIFADDR, &request)
        .with_context(|| format!("cannot set the address of {name}"))?;
    up(&control, name)
}

fn up(control: &OwnedFd, name: &str) -> Result<()> {
    let mut request = request(name);
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    ioctl(control, libc::SIOCSIFFLAGS, &request).with_context(|| format!("cannot bring up {name}"))
}

fn control() -> Result<OwnedFd> {
    socket(AddressFamily::INET, SocketType::DGRAM, None).context("cannot make a socket")
}

fn request(name: &str) -> libc::ifreq {
    // SAFETY: all-zero bytes are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // One byte less than the array, so that the name ends in NUL.
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..room].iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

fn ioctl(control: &OwnedFd, number: libc::Ioctl, request: &libc::ifreq) -> std::io::Result<()> {
    // SAFETY: both requests used here read an `ifreq` and write nothing.
    let code = unsafe { libc::ioctl(control.as_raw_fd(), number, std::ptr::from_ref(request)) };
    if code == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
