//! One network namespace for steps, and the pair of virtual interfaces that leads out of it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use network_stack::Stack;

use rustix::io::Errno;

use super::helper::Helper;
use super::netlink::Socket;
use super::range::{Prefix, Range};
use super::route::{Changes, LOOPBACK, link_named};
use super::way::Way;
use crate::sys;

/// What a step calls its interface.
pub(super) const INSIDE: &str = "eth0";
/// The memory of so many connections is worth some milliseconds.
const MANY: usize = 64;
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
    carrier: Carrier,
}

/// Who carries a namespace's packets. It ends with the namespace.
#[derive(Clone, Debug)]
enum Carrier {
    Kernel,
    /// A program, and how many sockets of netlink it has in it.
    Program(Arc<Helper>, usize),
    Stack(Arc<Stack>),
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
            Namespace {
                descriptor: Arc::new(descriptor),
                is_new: true,
                sockets: sockets.ok(),
                carrier: Carrier::Kernel,
            },
            socket,
        ))
    }

    /// The same for a thread that stays where it is: a user may not return to the host's namespace.
    ///
    /// # Errors
    /// The call that failed.
    pub fn make_beside() -> Result<(Namespace, Socket), Failed> {
        beside(Namespace::enter_new)
    }

    /// The same, of which a program carries the packets.
    pub fn served_by(self, helper: Helper) -> Namespace {
        let counted = self.sockets.as_deref().and_then(|[protocols, _]| read(protocols).ok());
        let own = counted.and_then(|protocols| sockets_of(&protocols, NETLINK)).unwrap_or(0);
        Namespace { carrier: Carrier::Program(Arc::new(helper), own), ..self }
    }

    /// The same, of which a stack carries the packets.
    pub fn carried_by(self, stack: Stack) -> Namespace {
        Namespace { carrier: Carrier::Stack(Arc::new(stack)), ..self }
    }

    /// Whether nobody carries its packets any more.
    pub fn is_abandoned(&self) -> bool {
        match &self.carrier {
            Carrier::Kernel => false,
            Carrier::Program(helper, _) => helper.has_ended(Duration::ZERO),
            Carrier::Stack(stack) => stack.has_ended(),
        }
    }

    /// What carries its packets.
    pub fn way(&self) -> Way {
        match self.carrier {
            Carrier::Kernel => Way::Nat,
            Carrier::Program(..) => Way::Pasta,
            Carrier::Stack(_) => Way::Stack,
        }
    }

    /// The step that is in it was for nobody.
    pub fn give_up(&self) {
        if let Carrier::Stack(stack) = &self.carrier {
            stack.give_up();
        }
    }

    /// The same, after a step: what that had under way is given up.
    pub fn used(&self) -> Namespace {
        if let Carrier::Stack(stack) = &self.carrier {
            stack.forget();
            if stack.take_most() > MANY {
                sys::give_memory_back();
            }
        }
        Namespace { is_new: false, ..self.clone() }
    }

    /// Whether nothing of an earlier step is in it: a connection that was closed keeps its port for a minute, and a socket
    /// of whatever kind lives on where a process of another step was given it. And whether there is a way out still.
    pub fn is_clean(&self) -> bool {
        let own = if let Carrier::Program(_, own) = self.carrier { own } else { 0 };
        let Some([protocols, sockstat]) = self.sockets.as_deref() else { return false };
        let has_forgotten =
            if let Carrier::Stack(stack) = &self.carrier { stack.has_forgotten() } else { true };
        !self.is_abandoned()
            && has_forgotten
            && read(protocols).is_ok_and(|text| has_no_socket(&text, own))
            && read(sockstat).is_ok_and(|text| has_no_waiting(&text))
    }
}

/// Does something in a thread of its own, whose namespaces end with it.
///
/// # Errors
/// What it fails with, or that there is no thread.
pub(crate) fn beside<R: Send>(work: impl FnOnce() -> Result<R, Failed> + Send) -> Result<R, Failed> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("kiln-namespace".to_owned()).spawn_scoped(scope, work);
        let thread = thread.map_err(|_| failed("starting a thread")(Errno::AGAIN))?;
        thread.join().unwrap_or_else(|_| Err(failed("a thread")(Errno::CANCELED)))
    })
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
