//! A socket that reads and writes the frames of one interface.

use std::mem;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};

use super::check;

/// What may wait to be read, if the host's limit lets it.
const WAITING: usize = 4 << 20;

/// `socket(AF_PACKET)` on the interface of this index in this thread's network namespace, with `PACKET_VNET_HDR`: before
/// each frame is a note of ten bytes, so that no checksum has to be computed for it. Does not block.
pub(crate) fn packet_socket(index: u32) -> Result<OwnedFd, Errno> {
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // Of no protocol: until it is bound to the interface it gets nothing.
    // SAFETY: the call takes no pointer.
    let socket = check(unsafe { libc::socket(libc::AF_PACKET, kind, 0) }.into())?;
    // SAFETY: the kernel has just made this descriptor for us.
    let socket = unsafe { OwnedFd::from_raw_fd(socket as libc::c_int) };
    if set_socket_recv_buffer_size_force(&socket, WAITING).is_err() {
        set_socket_recv_buffer_size(&socket, WAITING)?;
    }
    let on: libc::c_int = 1;
    // SAFETY: the value is of the size that the call is told.
    check(unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_VNET_HDR,
            ptr::from_ref(&on).cast(),
            mem::size_of_val(&on) as libc::socklen_t,
        )
        .into()
    })?;
    // SAFETY: all zero is a valid `sockaddr_ll`.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index as libc::c_int;
    // SAFETY: the address is of the type and size that the call is told.
    check(unsafe {
        libc::bind(
            socket.as_raw_fd(),
            ptr::from_ref(&address).cast(),
            mem::size_of_val(&address) as libc::socklen_t,
        )
        .into()
    })?;
    Ok(socket)
}
