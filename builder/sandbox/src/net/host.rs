//! The network namespace that Kiln runs in, as the ways out of others need it.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};

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
        let links = links(&socket).map_err(failed("listing the interfaces"))?;
        let routes = routes(&socket).map_err(failed("listing the routes"))?;
        let addresses = addresses(&socket).map_err(failed("listing the addresses"))?;
        Ok(Host { socket, links, routes, addresses })
    }

    /// Its namespace.
    ///
    /// # Errors
    /// Only the machine's root may have it.
    pub fn namespace(&self) -> Result<OwnedFd, Failed> {
        sys::network_of(self.socket.as_fd()).map_err(failed("ioctl(SIOCGSKNS)"))
    }

    /// Addresses that nothing on it has a way to, other than to everywhere.
    pub fn free_range(&self) -> Result<Range, Refusal> {
        let routes = self.routes.iter().map(|route| route.to).filter(|prefix| prefix.bits > 0);
        let taken: Vec<Prefix> =
            routes.chain(self.addresses.iter().map(|address| Prefix::host(*address))).collect();
        Range::free(&taken, std::process::id() as u8).ok_or(Refusal::NoAddresses)
    }

    /// Its address on the way out of IPv4. Nothing is sent.
    pub fn own_address(&self) -> Option<Ipv4Addr> {
        if !self.leads_everywhere(false) {
            return None;
        }
        // For documentation (RFC 5737): a route that leads there leads everywhere.
        let (anywhere, any_port) = ((Ipv4Addr::new(192, 0, 2, 1), 9), (Ipv4Addr::UNSPECIFIED, 0));
        let socket = UdpSocket::bind(any_port).ok()?;
        socket.connect(anywhere).ok()?;
        match socket.local_addr().ok()?.ip() {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }
    }

    /// An address of it that others may know: that on the way out, else any.
    pub fn any_address(&self) -> Option<IpAddr> {
        let is_known = |address: &&IpAddr| address.is_ipv4() && !address.is_loopback();
        self.own_address().map(IpAddr::from).or_else(|| self.addresses.iter().find(is_known).copied())
    }

    /// Whether it has a way out.
    pub fn leads_everywhere(&self, ipv6: bool) -> bool {
        self.routes.iter().any(|route| route.leads_everywhere(ipv6))
    }
}
