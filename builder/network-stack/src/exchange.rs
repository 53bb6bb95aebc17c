//! Datagrams between a step's port and one other, and echoes: a socket of the host for each, until it has been quiet for a while.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use smoltcp::wire::{IpProtocol, UdpPacket};

use crate::answer::{self, Reason};
use crate::host::Kind;
use crate::packet::{ECHO_HEADER, Key};
use crate::wire::Outbox;

/// How long one is kept in which nothing is said.
pub(crate) const QUIET: Duration = Duration::from_secs(60);

/// The most answers that are read in one turn.
const TURN: usize = 32;

const HEADER: usize = 8;

pub(crate) struct Exchange {
    host: OwnedFd,
    /// When it is over.
    pub deadline: Duration,
    /// The beginning of the first packet.
    quote: Box<[u8]>,
}

impl Exchange {
    pub fn begin(host: OwnedFd, quote: Box<[u8]>, now: Duration) -> Exchange {
        Exchange { host, deadline: now + QUIET, quote }
    }

    /// The host's socket.
    pub fn host(&self) -> &OwnedFd {
        &self.host
    }

    /// Sends what the step has sent; what cannot be sent is lost.
    ///
    /// # Errors
    /// Why it did not arrive, or one before it.
    pub fn say(&mut self, message: &[u8], now: Duration) -> Result<(), Reason> {
        self.deadline = now + QUIET;
        // An error is about one that was sent before; the second time it is about this one.
        let say = || send(&self.host, message, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        match say().or_else(|_| say()) {
            Ok(_) => Ok(()),
            Err(error) => reason(error).map_or(Ok(()), Err),
        }
    }

    /// Hands on what has come. Whether there may be more.
    pub fn hear(
        &mut self,
        key: &Key,
        now: Duration,
        buffer: &mut [u8],
        out: &mut Outbox,
    ) -> Result<bool, Reason> {
        for _ in 0..TURN {
            match recv(&self.host, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((length, _)) => {
                    self.deadline = now + QUIET;
                    self.hand_on(key, &buffer[..length], out);
                }
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(error) => return reason(error).map_or(Ok(false), Err),
            }
        }
        Ok(true)
    }

    /// The beginning of its first packet.
    pub fn quote(&self) -> &[u8] {
        &self.quote
    }

    fn hand_on(&self, key: &Key, message: &[u8], out: &mut Outbox) {
        if key.kind == Kind::Echo {
            if message.len() >= ECHO_HEADER {
                answer::echo(out, key, message);
            }
            return;
        }
        let ends = (key.to.ip(), key.step.ip());
        answer::packet(out, ends, IpProtocol::Udp, HEADER + message.len(), |bytes| {
            bytes[HEADER..].copy_from_slice(message);
            let mut datagram = UdpPacket::new_unchecked(bytes);
            datagram.set_src_port(key.to.port());
            datagram.set_dst_port(key.step.port());
            datagram.set_len((HEADER + message.len()) as u16);
        });
    }
}

/// What the step is told about an error of the host's socket.
fn reason(error: Errno) -> Option<Reason> {
    match error {
        Errno::CONNREFUSED => Some(Reason::Port),
        Errno::HOSTUNREACH => Some(Reason::Host),
        Errno::NETUNREACH => Some(Reason::Network),
        Errno::ACCESS | Errno::PERM => Some(Reason::Forbidden),
        _ => None,
    }
}
