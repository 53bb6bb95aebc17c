//! The network namespace that Kiln runs in, as the ways out of others need it.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::namespace::{Failed, failed};
use super::netlink::Socket;
use super::range::{Prefix, Range};
use super::refusal::Refusal;
use super::route::{Link, Route, addresses, links, routes};
use crate::sys;

/// What there is on the host.
#[derive(Debug)]
pub(crate) struct Host {
    pub socket: Socket,
    namespace: OwnedFd,
    pub links: Vec<Link>,
    pub routes: Vec<Route>,
    addresses: Vec<IpAddr>,
}

impl Host {
    /// Looks at the host. To be called by a thread that is in its namespace.
    ///
    /// # Errors
    /// The kernel refuses to tell.
    pub fn look() -> Result<Host, Failed> {
        let socket = Socket::open(None).map_err(failed("socket(AF_NETLINK)"))?;
        let namespace = sys::network_of(socket.as_fd()).map_err(failed("ioctl(SIOCGSKNS)"))?;
        let links = links(&socket).map_err(failed("listing the interfaces"))?;
        let routes = routes(&socket).map_err(failed("listing the routes"))?;
        let addresses = addresses(&socket).map_err(failed("listing the addresses"))?;
        Ok(Host { socket, namespace, links, routes, addresses })
    }

    /// Its namespace.
    pub fn namespace(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    /// Moves this thread into it.
    pub fn enter(&self) -> Result<(), Failed> {
        let to = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(self.namespace(), to).map_err(failed("setns(CLONE_NEWNET)"))
    }

    /// Addresses that nothing on it has a way to, other than to everywhere.
    pub fn free_range(&self) -> Result<Range, Refusal> {
        let routes = self.routes.iter().map(|route| route.to).filter(|prefix| prefix.bits > 0);
        let taken: Vec<Prefix> =
            routes.chain(self.addresses.iter().map(|address| Prefix::host(*address))).collect();
        Range::free(&taken, std::process::id() as u8).ok_or(Refusal::NoAddresses)
    }

    /// Whether it has a way out.
    pub fn leads_everywhere(&self, ipv6: bool) -> bool {
        self.routes.iter().any(|route| route.leads_everywhere(ipv6))
    }
}
