//! Steps served by Kiln itself: their packets are read from a pair of virtual interfaces, and what they ask for is done with
//! sockets of the host.
//!
//! It needs nothing but namespaces: no device for tunnels, no program, no rule. The far ends of all pairs are in a namespace
//! that no step ever sees, each with a socket that takes its frames; but for `lo` there are no addresses in it and no routes, so that the kernel
//! has nowhere to send a packet to. The sockets that reach the world are made by threads that are where Kiln is.

use std::fs;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use network_stack::{MTU, Place, Room, STEP_ADDRESS, Sockets, Stack};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::host::Host;
use super::namespace::{Failed, INSIDE, Namespace, beside, failed};
use super::netlink::Socket;
use super::range::Range;
use super::refusal::Refusal;
use super::route::{Changes, link_named};
use super::way::Surroundings;
use crate::sys;

/// The last byte of the one step's address.
const STEP: u8 = 2;

/// The most sockets of the host for all steps of a build.
const SOCKETS: u64 = 4096;

const _: () = assert!(STEP_ADDRESS[5] == 2, "the address that `Changes::pair` gives to the step's end");

/// What is made once for a build.
#[derive(Debug)]
pub(crate) struct Stacks {
    /// Where the far ends are, and a socket to it.
    far: (Namespace, Socket),
    place: Place,
    range: Range,
    surroundings: Surroundings,
    room: Arc<Room>,
    /// The far end that was made last.
    last: u32,
}

impl Stacks {
    /// Looks at the host, and makes the place for the far ends.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn set_up() -> Result<Stacks, Refusal> {
        let host = Host::look()?;
        let range = host.free_range()?;
        let has_ipv6 = host.leads_everywhere(true);
        let families = || [false].into_iter().chain(has_ipv6.then_some(true));
        let gateway = range.gateway(false);
        let place = Place {
            step: families().map(|ipv6| range.step(STEP, ipv6).address).collect(),
            gateways: families().map(|ipv6| range.gateway(ipv6)).collect(),
            around: (range.leading_bytes(false), range.leading_bytes(true)),
            name_server: name_server(),
        };
        let surroundings = Surroundings {
            host: host.any_address().unwrap_or(gateway),
            has_ipv6,
            name_server: Some(gateway),
        };
        // The other half is for what Kiln opens besides: six for each network, and what a build reads and writes.
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let room = Arc::new(Room::new(SOCKETS.min(files / 2) as usize));
        let far = beside(|| {
            let far = Namespace::enter_new()?;
            // A step could announce itself as a router, and give the far ends addresses and a way to itself. Where this cannot
            // be written (`/proc/sys` is read-only), steps that agree on it could speak to each other.
            let _off = fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
            Ok(far)
        })?;
        Ok(Stacks { far, place, range, surroundings, room, last: 0 })
    }

    /// Makes one more namespace, and starts to serve it; this thread is in the host's.
    ///
    /// # Errors
    /// What failed.
    pub fn namespace(&mut self) -> Result<Namespace, Refusal> {
        self.last += 1;
        let name = format!("far{}", self.last);
        let (namespace, inside) = Namespace::make_beside()?;
        let wire = self.connect(&inside, &name)?;
        let started = Stack::start(wire, self.place.clone(), Box::new(Sockets), self.room.clone());
        let stack = started.map_err(|error| Refusal::Kernel {
            what: "starting a network stack",
            reason: error.to_string(),
        })?;
        Ok(namespace.carried_by(stack))
    }

    /// What all steps are told.
    pub fn surroundings(&self) -> Surroundings {
        self.surroundings
    }

    /// Makes a pair of interfaces, and takes hold of the far one.
    fn connect(&self, inside: &Socket, name: &str) -> Result<OwnedFd, Failed> {
        let (far, outside) = &self.far;
        let mut pair = Changes::default();
        pair.pair(INSIDE, (name, far.descriptor.as_fd()), MTU as u32);
        pair.make(inside).map_err(failed("making a pair of interfaces (veth)"))?;
        let here = link_named(inside, INSIDE).map_err(failed("finding eth0"))?.index;
        let there = link_named(outside, name).map_err(failed("finding the far end"))?.index;
        for (socket, index) in [(inside, here), (outside, there)] {
            match Changes::default().quiet(index).make(socket) {
                // A kernel without IPv6.
                Err(Errno::AFNOSUPPORT) => {}
                other => other.map_err(failed("taking an interface's own addresses"))?,
            }
        }
        let mut changes = Changes::default();
        changes.plain(there).up(there);
        changes.make(outside).map_err(failed("configuring the far end"))?;
        let wire = beside(|| {
            let to = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(far.descriptor.as_fd(), to).map_err(failed("setns(CLONE_NEWNET)"))?;
            sys::packet_socket(there).map_err(failed("socket(AF_PACKET)"))
        })?;
        let mut changes = Changes::default();
        changes.plain(here).up(here);
        for (ipv6, gateway) in [false, true].into_iter().zip(&self.place.gateways) {
            changes.address(here, self.range.step(STEP, ipv6));
            changes.default_route(here, *gateway);
        }
        changes.make(inside).map_err(failed("configuring eth0"))?;
        Ok(wire)
    }
}

/// The first name server that the host asks by IPv4, as those know who let steps ask it.
fn name_server() -> Option<IpAddr> {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        let named = (words.next() == Some("nameserver")).then(|| words.next()).flatten()?;
        named.parse().ok().filter(IpAddr::is_ipv4)
    };
    text.lines().find_map(address)
}
