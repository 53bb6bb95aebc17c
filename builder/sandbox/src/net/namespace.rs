//! One network namespace for steps, and the pair of virtual interfaces that leads out of it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use super::helper::Helper;
use super::netlink::Socket;
use super::range::{Prefix, Range};
use super::route::{Changes, LOOPBACK, link_named};
use crate::sys;

/// What a step calls its interface.
pub(super) const INSIDE: &str = "eth0";
/// The kernel's name for sockets to itself.
const NETLINK: &str = "NETLINK";

/// A network namespace. It goes, with what is in it, when nobody holds it and no process is in it.
#[derive(Clone, Debug)]
pub(crate) struct Namespace {
    pub descriptor: Arc<OwnedFd>,
    /// Whether no step was in it.
    pub is_new: bool,
    /// How many sockets there are in it.
    sockets: Option<Arc<[File; 2]>>,
    /// The program that carries its packets, if one does, and how many sockets of netlink it has in it. It ends with the
    /// namespace.
    helper: Option<(Arc<Helper>, usize)>,
}

impl Namespace {
    /// Moves this thread into a new namespace, in which only `lo` is, and gives that and a socket to it.
    ///
    /// # Errors
    /// The call that failed.
    pub fn enter_new() -> Result<(Namespace, Socket), Failed> {
        sys::unshare_network().map_err(failed("unshare(CLONE_NEWNET)"))?;
        let socket = Socket::open(None).map_err(failed("socket(AF_NETLINK)"))?;
        let descriptor = sys::network_of(socket.as_fd()).map_err(failed("ioctl(SIOCGSKNS)"))?;
        // Where there is no /proc, nobody can tell that it is clean, and it is used once.
        let open = |name| File::open(format!("/proc/thread-self/net/{name}"));
        let sockets = open("protocols").and_then(|protocols| Ok(Arc::new([protocols, open("sockstat")?])));
        Changes::default().up(LOOPBACK).make(&socket).map_err(failed("bringing lo up"))?;
        Ok((
            Namespace { descriptor: Arc::new(descriptor), is_new: true, sockets: sockets.ok(), helper: None },
            socket,
        ))
    }

    /// The same, of which a program carries the packets.
    pub fn served_by(self, helper: Helper) -> Namespace {
        let counted = self.sockets.as_deref().and_then(|[protocols, _]| read(protocols).ok());
        let own = counted.and_then(|protocols| sockets_of(&protocols, NETLINK)).unwrap_or(0);
        Namespace { helper: Some((Arc::new(helper), own)), ..self }
    }

    /// Whether nobody carries its packets any more.
    pub fn is_abandoned(&self) -> bool {
        self.helper.as_ref().is_some_and(|(helper, _)| helper.has_ended(Duration::ZERO))
    }

    /// Whether a program carries its packets.
    pub fn has_helper(&self) -> bool {
        self.helper.is_some()
    }

    /// The same, after a step.
    pub fn used(&self) -> Namespace {
        Namespace { is_new: false, ..self.clone() }
    }

    /// Whether nothing of an earlier step is in it: a connection that was closed keeps its port for a minute, and a socket
    /// of whatever kind lives on where a process of another step was given it. And whether there is a way out still.
    pub fn is_clean(&self) -> bool {
        let own = self.helper.as_ref().map_or(0, |(_, own)| *own);
        let Some([protocols, sockstat]) = self.sockets.as_deref() else { return false };
        !self.is_abandoned()
            && read(protocols).is_ok_and(|text| has_no_socket(&text, own))
            && read(sockstat).is_ok_and(|text| has_no_waiting(&text))
    }
}

/// Reads a file of `/proc` from its beginning.
fn read(file: &File) -> io::Result<String> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match file.read_at(&mut buffer, bytes.len() as u64)? {
            0 => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
            length => bytes.extend(&buffer[..length]),
        }
    }
}

/// Reads `/proc/net/protocols`, which counts the sockets of every kind. (`sockstat` counts all at once, and some a while after
/// they were closed.)
/// Of netlink, `own` are not of a step.
fn has_no_socket(protocols: &str, own: usize) -> bool {
    let mut kinds = protocols.lines().skip(1).filter_map(|line| line.split_whitespace().next()).peekable();
    kinds.peek().is_some()
        && kinds.all(|kind| sockets_of(protocols, kind) == Some(if kind == NETLINK { own } else { 0 }))
}

/// How many there are of a kind.
fn sockets_of(protocols: &str, kind: &str) -> Option<usize> {
    let mut lines = protocols.lines().map(str::split_whitespace);
    lines.find_map(|mut words| (words.next() == Some(kind)).then(|| words.nth(1)?.parse().ok()).flatten())
}

/// Reads `/proc/net/sockstat`, of which one line counts the connections that wait for their end.
fn has_no_waiting(sockstat: &str) -> bool {
    let words: Vec<&str> = sockstat.split_whitespace().collect();
    words.windows(2).any(|pair| pair == ["tw", "0"])
}

/// The host, as far as namespaces are connected to it.
pub(crate) struct Uplink<'a> {
    pub socket: &'a Socket,
    pub host: BorrowedFd<'a>,
    pub range: Range,
    pub mtu: u32,
    pub ipv6: bool,
}

impl Uplink<'_> {
    /// Connects a namespace with the host by a pair of interfaces.
    ///
    /// # Errors
    /// What failed. The namespace is of no use then; with it goes what was made.
    pub fn connect(&self, inside: &Socket, outside: &str, number: u8) -> Result<(), Failed> {
        let mut pair = Changes::default();
        pair.pair(INSIDE, (outside, self.host), self.mtu);
        pair.make(inside).map_err(failed("making a pair of interfaces (veth)"))?;
        let here = link_named(inside, INSIDE).map_err(failed("finding eth0"))?.index;
        let there = link_named(self.socket, outside).map_err(failed("finding the host's end"))?.index;
        for (socket, index) in [(inside, here), (self.socket, there)] {
            match Changes::default().quiet(index).make(socket) {
                // A kernel without IPv6.
                Err(Errno::AFNOSUPPORT) => {}
                other => other.map_err(failed("taking an interface's own addresses"))?,
            }
        }
        let families = || [false].into_iter().chain(self.ipv6.then_some(true));
        let mut changes = Changes::default();
        changes.forward(there, true).strict(there).up(there);
        for ipv6 in families() {
            // With the length of the range, so that a name server on the host which answers only whoever is near (dnsmasq
            // with `local-service`) takes steps for that.
            let gateway = Prefix { address: self.range.gateway(ipv6), ..self.range.prefix(ipv6) };
            changes.address_without_route(there, gateway);
            changes.peer_route(there, Prefix::host(self.range.step(number, ipv6).address));
        }
        changes.make(self.socket).map_err(failed("configuring the host's end"))?;
        let mut changes = Changes::default();
        changes.up(here);
        for ipv6 in families() {
            changes.address(here, self.range.step(number, ipv6));
            changes.default_route(here, self.range.gateway(ipv6));
        }
        changes.make(inside).map_err(failed("configuring eth0"))
    }
}

/// What could not be done.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what}: {}", io::Error::from(*errno))]
pub(crate) struct Failed {
    pub what: &'static str,
    pub errno: Errno,
}

/// Names what failed.
pub(crate) fn failed(what: &'static str) -> impl Fn(Errno) -> Failed {
    move |errno| Failed { what, errno }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_counted() {
        let head = "protocol  size sockets  memory press maxhdr  slab module\n";
        let table = [
            (
                "PACKET    1408      0      -1   NI       0   no   kernel\nTCP       2432      0   1   no     320   yes  k\n",
                true,
            ),
            (
                "PACKET    1408      1      -1   NI       0   no   kernel\nTCP       2432      0   1   no     320   yes  k\n",
                false,
            ),
            ("TCPv6     2432     12      -1   NI       0   no   kernel\n", false),
            ("", false),
        ];
        for (text, expected) in table {
            assert_eq!(has_no_socket(&format!("{head}{text}"), 0), expected, "{text}");
        }
        let line =
            |count| format!("{head}NETLINK   1096  {count}   -1   NI   0   no   kernel\nTCP  2432  0   1\n");
        for (own, count, expected) in
            [(0, 0, true), (1, 1, true), (1, 2, false), (1, 0, false), (0, 1, false)]
        {
            assert_eq!(has_no_socket(&line(count), own), expected, "{own} {count}");
        }
    }

    #[test]
    fn a_connection_waits_for_its_end() {
        let table = [
            ("sockets: used 1\nTCP: inuse 0 orphan 0 tw 0 alloc 9 mem 1\n", true),
            ("sockets: used 1\nTCP: inuse 0 orphan 0 tw 12 alloc 9 mem 1\n", false),
            ("", false),
        ];
        for (text, expected) in table {
            assert_eq!(has_no_waiting(text), expected, "{text}");
        }
    }
}
