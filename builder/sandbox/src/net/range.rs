//! Which addresses the steps of a build get: those that nothing on the host has a route to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Some leading bits of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prefix {
    pub address: IpAddr,
    pub bits: u8,
}

impl Prefix {
    /// An address alone.
    pub fn host(address: IpAddr) -> Prefix {
        Prefix { address, bits: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// Whether an address is in both.
    pub fn overlaps(&self, other: &Prefix) -> bool {
        let bits = self.bits.min(other.bits);
        match (self.address, other.address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same(a.octets(), b.octets(), bits),
            (IpAddr::V6(a), IpAddr::V6(b)) => same(a.octets(), b.octets(), bits),
            _ => false,
        }
    }
}

fn same<const LENGTH: usize>(a: [u8; LENGTH], b: [u8; LENGTH], bits: u8) -> bool {
    let (whole, rest) = (usize::from(bits / 8), bits % 8);
    let mask = !(0xff_u8 >> rest);
    a[..whole] == b[..whole] && (rest == 0 || a[whole] & mask == b[whole] & mask)
}

/// The addresses of a build: 256 of IPv4, and as many of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    first: [u8; 3],
}

/// The last byte of the host's end.
const GATEWAY: u8 = 1;
/// The bits of a range.
pub(crate) const BITS: u8 = 24;
pub(crate) const BITS_IPV6: u8 = 64;

impl Range {
    /// The last bytes of the steps' addresses.
    pub const STEPS: std::ops::RangeInclusive<u8> = 2..=254;

    /// The first of the ranges that meets none of these prefixes. Where the search begins is up to the caller: two builds
    /// that begin at the same moment should not take the same.
    pub fn free(taken: &[Prefix], start: u8) -> Option<Range> {
        // Private addresses (RFC 1918), then those for tests of network devices (RFC 2544), which no host should have.
        let nets = [(10, 211), (172, 30), (192, 168), (198, 19)];
        let ranges = nets.into_iter().flat_map(|(a, b)| {
            (0..=u8::MAX).map(move |offset| Range { first: [a, b, start.wrapping_add(offset)] })
        });
        ranges.into_iter().find(|range| {
            let own = [range.prefix(false), range.prefix(true)];
            !taken.iter().any(|taken| own.iter().any(|own| own.overlaps(taken)))
        })
    }

    /// All of its addresses.
    pub fn prefix(self, ipv6: bool) -> Prefix {
        Prefix { bits: if ipv6 { BITS_IPV6 } else { BITS }, ..self.within(0, ipv6) }
    }

    /// The bytes that all of its addresses begin with.
    pub fn leading_bytes(self, ipv6: bool) -> Vec<u8> {
        match self.prefix(ipv6).address {
            IpAddr::V4(address) => address.octets()[..usize::from(BITS / 8)].to_vec(),
            IpAddr::V6(address) => address.octets()[..usize::from(BITS_IPV6 / 8)].to_vec(),
        }
    }

    /// What a step has, with the bits of the range.
    pub fn step(self, number: u8, ipv6: bool) -> Prefix {
        self.within(number, ipv6)
    }

    /// The host's end.
    pub fn gateway(self, ipv6: bool) -> IpAddr {
        self.within(GATEWAY, ipv6).address
    }

    fn within(self, last: u8, ipv6: bool) -> Prefix {
        let [a, b, c] = self.first;
        match ipv6 {
            false => Prefix { address: Ipv4Addr::new(a, b, c, last).into(), bits: BITS },
            true => {
                // Unique local addresses (RFC 4193); the first forty bits are Kiln's.
                let net = u16::from_be_bytes([b, c]) ^ u16::from(a) << 8;
                let address = Ipv6Addr::new(0xfd4b, 0x696c, 0x6e42, net, 0, 0, 0, u16::from(last));
                Prefix { address: address.into(), bits: BITS_IPV6 }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        let (address, bits) = text.split_once('/').expect("a prefix");
        Prefix { address: address.parse().expect("an address"), bits: bits.parse().expect("a number") }
    }

    #[test]
    fn prefixes_overlap_where_an_address_is_in_both() {
        let table = [
            ("10.0.0.0/8", "10.211.0.0/24", true),
            ("10.211.3.0/24", "10.211.3.9/32", true),
            ("10.211.3.0/24", "10.211.2.0/23", true),
            ("10.211.3.0/24", "10.211.4.0/23", false),
            ("0.0.0.0/0", "1.2.3.4/32", true),
            ("::/0", "1.2.3.4/32", false),
            ("fd4b::/16", "fd4b:696c::/64", true),
            ("fd4b:1::/33", "fd4b:1:8000::/64", false),
        ];
        for (a, b, expected) in table {
            assert_eq!(prefix(a).overlaps(&prefix(b)), expected, "{a} {b}");
            assert_eq!(prefix(b).overlaps(&prefix(a)), expected, "{b} {a}");
        }
    }

    #[test]
    fn what_the_host_can_reach_is_not_taken() {
        let free = |taken: &[&str]| {
            let taken: Vec<Prefix> = taken.iter().map(|text| prefix(text)).collect();
            Range::free(&taken, 255).map(|range| range.gateway(false).to_string())
        };
        assert_eq!(free(&[]).as_deref(), Some("10.211.255.1"));
        assert_eq!(free(&["10.211.255.7/32", "10.211.0.0/23"]).as_deref(), Some("10.211.2.1"));
        assert_eq!(free(&["10.0.0.0/8"]).as_deref(), Some("172.30.255.1"));
        assert_eq!(free(&["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]).as_deref(), Some("198.19.255.1"));
        assert_eq!(free(&["10.0.0.0/8", "128.0.0.0/1"]), None);
    }

    #[test]
    fn the_ends_of_a_range_are_in_it() {
        let range = Range::free(&[], 7).expect("nothing is taken");
        for ipv6 in [false, true] {
            assert!(range.prefix(ipv6).overlaps(&Prefix::host(range.gateway(ipv6))));
            assert!(range.prefix(ipv6).overlaps(&range.step(254, ipv6)));
        }
        assert_eq!(range.gateway(true).to_string(), "fd4b:696c:6e42:d907::1");
    }
}
