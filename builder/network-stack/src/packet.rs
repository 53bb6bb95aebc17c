//! What a packet asks for.

use std::net::{IpAddr, SocketAddr};

use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket, UdpPacket};

use crate::host::Kind;

/// Between whom a packet goes. An echo has its number for the step's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub kind: Kind,
    pub step: SocketAddr,
    pub to: SocketAddr,
}

/// A packet that can be carried.
pub(crate) struct Packet<'a> {
    pub key: Key,
    /// From its first byte to its last.
    pub whole: &'a [u8],
    /// The length of IP's own head.
    pub header: usize,
    pub content: Content<'a>,
}

pub(crate) enum Content<'a> {
    Segment(TcpPacket<&'a [u8]>),
    Datagram(&'a [u8]),
    /// A request for an echo, its type and number included.
    Echo(&'a [u8]),
}

/// The first byte of a request for an echo, and of its answer.
pub(crate) const ECHO: [(u8, u8); 2] = [(8, 0), (128, 129)];

/// The head of an echo.
pub(crate) const ECHO_HEADER: usize = 8;

impl<'a> Packet<'a> {
    /// Reads it. What is no packet, is a part of one, or asks for something else is nothing.
    pub fn read(bytes: &'a [u8]) -> Option<Packet<'a>> {
        let (source, to, header, length, protocol) = match bytes.first()? >> 4 {
            4 => {
                let packet = Ipv4Packet::new_checked(bytes).ok()?;
                if packet.header_len() < 20 || packet.more_frags() || packet.frag_offset() != 0 {
                    return None;
                }
                let (header, length) = (usize::from(packet.header_len()), usize::from(packet.total_len()));
                let (source, to) = (IpAddr::V4(packet.src_addr()), IpAddr::V4(packet.dst_addr()));
                (source, to, header, length, packet.next_header())
            }
            6 => {
                let packet = Ipv6Packet::new_checked(bytes).ok()?;
                let (source, to) = (IpAddr::V6(packet.src_addr()), IpAddr::V6(packet.dst_addr()));
                (source, to, packet.header_len(), packet.total_len(), packet.next_header())
            }
            _ => return None,
        };
        let whole = bytes.get(..length)?;
        let payload = whole.get(header..)?;
        let (kind, [from_port, to_port], content) = match protocol {
            IpProtocol::Tcp => {
                let segment = TcpPacket::new_checked(payload).ok()?;
                (Kind::Stream, [segment.src_port(), segment.dst_port()], Content::Segment(segment))
            }
            IpProtocol::Udp => {
                let datagram = UdpPacket::new_checked(payload).ok()?;
                let ports = [datagram.src_port(), datagram.dst_port()];
                let (head, length) = (8, usize::from(datagram.len()));
                (Kind::Datagram, ports, Content::Datagram(payload.get(head..length)?))
            }
            IpProtocol::Icmp | IpProtocol::Icmpv6 => {
                let [kind, 0, _, _, high, low, _, _, ..] = *payload else { return None };
                if kind != ECHO[usize::from(to.is_ipv6())].0 {
                    return None;
                }
                (Kind::Echo, [u16::from_be_bytes([high, low]), 0], Content::Echo(payload))
            }
            _ => return None,
        };
        // No socket can have port 0, and no answer can go there.
        if kind != Kind::Echo && (from_port == 0 || to_port == 0) {
            return None;
        }
        let key = Key { kind, step: (source, from_port).into(), to: (to, to_port).into() };
        Some(Packet { key, whole, header, content })
    }

    /// What an error about it has to show: its head, and eight bytes more.
    pub fn quote(&self) -> Box<[u8]> {
        self.whole[..self.whole.len().min(self.header + 8)].into()
    }
}
