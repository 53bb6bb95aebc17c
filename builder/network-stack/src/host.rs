//! Sockets of the host.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, ipproto, socket_with, sockopt};

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// TCP.
    Stream,
    /// UDP.
    Datagram,
    /// Requests for an echo, and the answers.
    Echo,
}

/// Who makes sockets.
pub trait Dial: Send + Debug {
    /// A socket that does not block and is, or soon will be, connected with that address.
    ///
    /// # Errors
    /// It cannot be.
    fn dial(&self, kind: Kind, to: SocketAddr) -> Result<OwnedFd, Errno>;
}

/// Those of the kernel, in the network namespace of the calling thread.
#[derive(Debug)]
pub struct Sockets;

impl Dial for Sockets {
    fn dial(&self, kind: Kind, to: SocketAddr) -> Result<OwnedFd, Errno> {
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let (kind, protocol) = match kind {
            Kind::Stream => (SocketType::STREAM, None),
            Kind::Datagram => (SocketType::DGRAM, None),
            Kind::Echo if to.is_ipv4() => (SocketType::DGRAM, Some(ipproto::ICMP)),
            Kind::Echo => (SocketType::DGRAM, Some(ipproto::ICMPV6)),
        };
        let socket = socket_with(family, kind, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, protocol)?;
        if kind == SocketType::STREAM {
            // The step's kernel has waited already, where it is asked to.
            sockopt::set_tcp_nodelay(&socket, true)?;
        }
        match connect(&socket, &to) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
            Err(error) => Err(error),
        }
    }
}
