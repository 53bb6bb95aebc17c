//! Links, addresses and routes (`linux/rtnetlink.h`): what there is, and what is to be made.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::io::Errno;

use super::netlink::{
    ACKNOWLEDGE, CREATE, CREATE_NEW, DUMP, Messages, Socket, attribute, attributes, text, word,
};
use super::range::Prefix;

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;
const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;
const GET_CONFIGURATION: u16 = 82;

const INET: u8 = 2;
const INET6: u8 = 10;
const UP: u32 = 1;
/// `IFF_NOARP`.
const WITHOUT_NEIGHBOURS: u32 = 0x80;
/// `IPV4_DEVCONF_FORWARDING`, which is counted from 1.
const FORWARDING: u16 = 1;
/// `IPV4_DEVCONF_RP_FILTER`.
const STRICT_SOURCE: u16 = 8;
const MAIN_TABLE: u8 = 254;
const LOCAL_TABLE: u32 = 255;
/// `IFA_F_NODAD` and `IFA_F_NOPREFIXROUTE`.
const NO_DUPLICATE_DETECTION: u32 = 2;
const NO_PREFIX_ROUTE: u32 = 0x200;

/// The index of `lo` in every network namespace.
pub(crate) const LOOPBACK: u32 = 1;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub index: u32,
    pub name: String,
    pub mtu: u32,
    /// Whether what comes in by it may go out by another; so too where no packet of IPv4 comes in by it.
    pub forwards: bool,
}

/// A route, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub to: Prefix,
    /// The interface.
    pub by: Option<u32>,
    /// Whether it is one of those that the kernel makes for the host's own addresses.
    pub is_local: bool,
}

impl Route {
    /// Whether it is a way out to everywhere.
    pub fn leads_everywhere(&self, ipv6: bool) -> bool {
        self.to.bits == 0 && self.to.address.is_ipv6() == ipv6 && !self.is_local && self.by.is_some()
    }
}

/// `struct ifinfomsg`.
fn link_head(index: u32, flags: u32, change: u32) -> Vec<u8> {
    [0, index, flags, change].into_iter().flat_map(u32::to_ne_bytes).collect()
}

/// Every interface.
pub(crate) fn links(socket: &Socket) -> Result<Vec<Link>, Errno> {
    let mut message = Messages::default();
    message.begin(GET_LINK, DUMP, &link_head(0, 0, 0));
    Ok(socket.dump(&message)?.iter().filter_map(|answer| link(&answer.body)).collect())
}

/// The interface of that name.
pub(crate) fn link_named(socket: &Socket, name: &str) -> Result<Link, Errno> {
    let mut message = Messages::default();
    message.begin(GET_LINK, ACKNOWLEDGE, &link_head(0, 0, 0)).text(3, name);
    socket.ask(&message)?.iter().find_map(|answer| link(&answer.body)).ok_or(Errno::NODEV)
}

fn link(body: &[u8]) -> Option<Link> {
    let rest = body.get(16..)?;
    let forwards = || {
        let families = attribute(rest, 26)?;
        let configuration = attribute(attribute(families, u16::from(INET))?, 1)?;
        word(configuration, 4 * (usize::from(FORWARDING) - 1))
    };
    Some(Link {
        index: word(body, 4)?,
        name: text(attribute(rest, 3)?),
        mtu: attribute(rest, 4).and_then(|value| word(value, 0)).unwrap_or(1500),
        forwards: forwards().is_none_or(|value| value != 0),
    })
}

/// Every address of the host.
pub(crate) fn addresses(socket: &Socket) -> Result<Vec<IpAddr>, Errno> {
    let mut message = Messages::default();
    message.begin(GET_ADDRESS, DUMP, &[0; 8]);
    let address = |body: &[u8]| {
        let rest = body.get(8..)?;
        ip(attribute(rest, 2).or_else(|| attribute(rest, 1))?)
    };
    Ok(socket.dump(&message)?.iter().filter_map(|answer| address(&answer.body)).collect())
}

/// Every route of the host, of all tables.
pub(crate) fn routes(socket: &Socket) -> Result<Vec<Route>, Errno> {
    let mut message = Messages::default();
    message.begin(GET_ROUTE, DUMP, &[0; 12]);
    Ok(socket.dump(&message)?.iter().filter_map(|answer| route(&answer.body)).collect())
}

fn route(body: &[u8]) -> Option<Route> {
    let [family, bits, _, _, table] = *body.get(..5)? else { return None };
    let found = attributes(body.get(12..)?);
    let value = |kind: u16| found.iter().find(|(found, _)| *found == kind).map(|(_, value)| *value);
    let nowhere = match family {
        INET => IpAddr::from([0; 4]),
        INET6 => IpAddr::from([0; 16]),
        _ => return None,
    };
    let table = value(15).and_then(|value| word(value, 0)).unwrap_or(u32::from(table));
    let to = value(1).map_or(Some(nowhere), ip)?;
    Some(Route {
        to: Prefix { address: to, bits },
        by: value(4).and_then(|value| word(value, 0)),
        is_local: table == LOCAL_TABLE,
    })
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(value).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)).ok()
}

fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { INET } else { INET6 }
}

/// Whether the host forwards packets of this family by whichever interface they come in: `net.ipv4.ip_forward`,
/// `net.ipv6.conf.all.forwarding`.
pub(crate) fn forwards_all(socket: &Socket, ipv6: bool) -> Result<bool, Errno> {
    let mut message = Messages::default();
    let family = if ipv6 { INET6 } else { INET };
    message.begin(GET_CONFIGURATION, ACKNOWLEDGE, &[family, 0, 0, 0]).number(1, u32::MAX);
    let value = |body: &[u8]| word(attribute(body.get(4..)?, 2)?, 0);
    let answers = socket.ask(&message)?;
    Ok(answers.iter().find_map(|answer| value(&answer.body)).is_some_and(|value| value != 0))
}

/// Changes to be made, in this order.
#[derive(Default)]
pub(crate) struct Changes(Messages);

impl Changes {
    /// A pair of virtual interfaces: one here, one in another network namespace. Their hardware addresses are always the
    /// same, for nobody else is on that wire; systemd's udev would replace one that the kernel chose, while it is in use.
    pub fn pair(&mut self, here: &str, there: (&str, BorrowedFd<'_>), mtu: u32) -> &mut Changes {
        self.0.begin(NEW_LINK, ACKNOWLEDGE | CREATE_NEW, &link_head(0, 0, 0));
        self.0.text(3, here).number(4, mtu).put(1, b"\x02kiln\x02").nest(18, |info| {
            info.put(1, b"veth").nest(2, |data| {
                data.nest(1, |peer| {
                    peer.fixed(&link_head(0, 0, 0));
                    let (name, namespace) = there;
                    peer.text(3, name)
                        .number(4, mtu)
                        .put(1, b"\x02kiln\x01")
                        .number(28, namespace.as_fd().as_raw_fd() as u32);
                });
            });
        });
        self
    }

    /// An interface gets no address of its own making, and none that is announced to it before it is up.
    pub fn quiet(&mut self, index: u32) -> &mut Changes {
        self.0.begin(NEW_LINK, ACKNOWLEDGE, &link_head(index, 0, 0)).nest(26, |families| {
            families.nest(u16::from(INET6), |inet6| {
                inet6.put(8, &[1]);
            });
        });
        self
    }

    /// Whether what comes in by an interface may go out by another.
    pub fn forward(&mut self, index: u32, forwards: bool) -> &mut Changes {
        self.configure(index, FORWARDING, u32::from(forwards))
    }

    /// What comes in by an interface must come from where its own routes lead (IPv4; a host may be set to be less strict
    /// with all of its interfaces).
    pub fn strict(&mut self, index: u32) -> &mut Changes {
        self.configure(index, STRICT_SOURCE, 1)
    }

    fn configure(&mut self, index: u32, setting: u16, value: u32) -> &mut Changes {
        self.0.begin(NEW_LINK, ACKNOWLEDGE, &link_head(index, 0, 0)).nest(26, |families| {
            families.nest(u16::from(INET), |inet| {
                inet.nest(1, |configuration| {
                    configuration.number(setting, value);
                });
            });
        });
        self
    }

    /// An interface is brought up.
    pub fn up(&mut self, index: u32) -> &mut Changes {
        self.0.begin(NEW_LINK, ACKNOWLEDGE, &link_head(index, UP, UP));
        self
    }

    /// An interface gets no packet larger than what is sent by it (`IFLA_GSO_MAX_SEGS`), and asks nobody for hardware addresses.
    pub fn plain(&mut self, index: u32) -> &mut Changes {
        let flags = WITHOUT_NEIGHBOURS;
        self.0.begin(NEW_LINK, ACKNOWLEDGE, &link_head(index, flags, flags)).number(40, 1);
        self
    }

    /// An interface goes, and the one that it is paired with.
    pub fn remove(&mut self, index: u32) -> &mut Changes {
        self.0.begin(DELETE_LINK, ACKNOWLEDGE, &link_head(index, 0, 0));
        self
    }

    /// An interface has an address, at once: nobody else can have it.
    pub fn address(&mut self, index: u32, address: Prefix) -> &mut Changes {
        self.address_with(index, address, NO_DUPLICATE_DETECTION)
    }

    /// The same, without a route to the others of its prefix, to whom other interfaces lead.
    pub fn address_without_route(&mut self, index: u32, address: Prefix) -> &mut Changes {
        self.address_with(index, address, NO_DUPLICATE_DETECTION | NO_PREFIX_ROUTE)
    }

    fn address_with(&mut self, index: u32, address: Prefix, flags: u32) -> &mut Changes {
        let head = [&[family(address.address), address.bits, 0, 0], index.to_ne_bytes().as_slice()].concat();
        let value = bytes(address.address);
        self.0.begin(NEW_ADDRESS, ACKNOWLEDGE | CREATE, &head);
        self.0.put(2, &value).put(1, &value).number(8, flags);
        self
    }

    /// A route to what is at the other end of an interface. It must not be there yet.
    pub fn peer_route(&mut self, index: u32, to: Prefix) -> &mut Changes {
        let (link_scope, unicast) = (253, 1);
        self.route_head(family(to.address), to.bits, link_scope, unicast);
        self.0.put(1, &bytes(to.address)).number(4, index);
        self
    }

    /// The route to everywhere.
    pub fn default_route(&mut self, index: u32, gateway: IpAddr) -> &mut Changes {
        self.route_head(family(gateway), 0, 0, 1);
        self.0.put(5, &bytes(gateway)).number(4, index);
        self
    }

    fn route_head(&mut self, family: u8, bits: u8, scope: u8, kind: u8) {
        let by_hand = 4;
        let head = [family, bits, 0, 0, MAIN_TABLE, by_hand, scope, kind, 0, 0, 0, 0];
        self.0.begin(NEW_ROUTE, ACKNOWLEDGE | CREATE_NEW, &head);
    }

    /// Makes them.
    ///
    /// # Errors
    /// The first that failed. Those after it were tried all the same.
    pub fn make(&self, socket: &Socket) -> Result<(), Errno> {
        socket.ask(&self.0).map(drop)
    }
}
