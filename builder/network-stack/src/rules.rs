//! Where a packet may go: where the host's own packets go, but for the host's loopback.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::host::Kind;
use crate::packet::Key;

/// The port of name servers.
const NAMES: u16 = 53;

/// Where a step is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its addresses.
    pub step: Vec<IpAddr>,
    /// Its ways out, of which the first is that of IPv4. Each answers to echoes, and passes on questions for names.
    pub gateways: Vec<IpAddr>,
    /// The leading bytes of all addresses around it, which lead nowhere else.
    pub around: (Vec<u8>, Vec<u8>),
    /// Who is asked for names. It may listen on the host's loopback.
    pub name_server: Option<IpAddr>,
}

/// What is done with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is carried there.
    To(SocketAddr),
    /// The way out answers itself.
    Gateway,
    /// The step is told that it cannot be.
    Refused,
    /// Nobody is told anything: it is for many, or not from the step.
    Ignored,
}

impl Place {
    pub(crate) fn verdict(&self, key: &Key) -> Verdict {
        let to = key.to.ip();
        if !self.step.contains(&key.step.ip()) || is_for_many(to) {
            return Verdict::Ignored;
        }
        if self.gateways.contains(&to) {
            return match (key.kind, key.to.port(), self.name_server) {
                (Kind::Echo, ..) => Verdict::Gateway,
                (_, NAMES, Some(server)) => Verdict::To((server, NAMES).into()),
                _ => Verdict::Refused,
            };
        }
        match self.is_around(to) || leads_to_the_host_alone(to) {
            true => Verdict::Refused,
            false => Verdict::To(key.to),
        }
    }

    fn is_around(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => address.octets().starts_with(&self.around.0),
            IpAddr::V6(address) => !self.around.1.is_empty() && address.octets().starts_with(&self.around.1),
        }
    }
}

fn is_for_many(address: IpAddr) -> bool {
    address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// Whether the host would give it to itself by its loopback, or to nobody; so too where an address of IPv6 stands for one of IPv4.
fn leads_to_the_host_alone(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, ..] = address.octets();
            first == 0 || first == 127
        }
        IpAddr::V6(address) => {
            let [a, b, c, d, e, f, ..] = address.segments();
            let stands_for_ipv4 = [a, b, c, d, e] == [0; 5] && (f == 0 || f == 0xffff);
            address == Ipv6Addr::LOCALHOST || stands_for_ipv4 || address.is_unicast_link_local()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_go_where_the_hosts_go_but_for_its_loopback() {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let place = Place {
            step: vec![address("10.211.1.2"), address("fd4b::2")],
            gateways: vec![address("10.211.1.1"), address("fd4b::1")],
            around: (vec![10, 211, 1], vec![0xfd, 0x4b, 0, 0, 0, 0, 0, 0]),
            name_server: Some(address("127.0.0.53")),
        };
        let to = |text: &str| Verdict::To(text.parse().expect("an address with a port"));
        let table = [
            (Kind::Stream, "93.184.215.14:443", to("93.184.215.14:443")),
            (Kind::Datagram, "10.212.0.9:53", to("10.212.0.9:53")),
            (Kind::Echo, "1.1.1.1:0", to("1.1.1.1:0")),
            (Kind::Stream, "[2606:4700::1]:443", to("[2606:4700::1]:443")),
            (Kind::Datagram, "10.211.1.1:53", to("127.0.0.53:53")),
            (Kind::Stream, "10.211.1.1:53", to("127.0.0.53:53")),
            (Kind::Stream, "10.211.1.1:80", Verdict::Refused),
            (Kind::Echo, "10.211.1.1:0", Verdict::Gateway),
            (Kind::Echo, "[fd4b::1]:0", Verdict::Gateway),
            (Kind::Stream, "10.211.1.77:80", Verdict::Refused),
            (Kind::Stream, "[fd4b::77]:80", Verdict::Refused),
            (Kind::Stream, "127.0.0.1:22", Verdict::Refused),
            (Kind::Datagram, "127.0.0.53:53", Verdict::Refused),
            (Kind::Echo, "127.0.0.1:0", Verdict::Refused),
            (Kind::Stream, "0.0.0.0:22", Verdict::Refused),
            (Kind::Stream, "0.1.2.3:22", Verdict::Refused),
            (Kind::Stream, "240.0.0.1:22", to("240.0.0.1:22")),
            (Kind::Stream, "[::1]:22", Verdict::Refused),
            (Kind::Stream, "[::]:22", Verdict::Refused),
            (Kind::Stream, "[::ffff:127.0.0.1]:22", Verdict::Refused),
            (Kind::Stream, "[::127.0.0.1]:22", Verdict::Refused),
            (Kind::Stream, "[fe80::1]:22", Verdict::Refused),
            (Kind::Datagram, "255.255.255.255:67", Verdict::Ignored),
            (Kind::Datagram, "224.0.0.251:5353", Verdict::Ignored),
            (Kind::Datagram, "[ff02::1]:5353", Verdict::Ignored),
        ];
        for (kind, to, expected) in table {
            let to: SocketAddr = to.parse().expect("an address with a port");
            let source = if to.is_ipv4() { "10.211.1.2:4000" } else { "[fd4b::2]:4000" };
            let key = Key { kind, step: source.parse().expect("an address with a port"), to };
            assert_eq!(place.verdict(&key), expected, "{kind:?} {to}");
            let lie = Key { step: "10.211.1.9:4000".parse().expect("an address with a port"), ..key };
            assert_eq!(place.verdict(&lie), Verdict::Ignored, "{kind:?} {to}");
        }
    }
}
