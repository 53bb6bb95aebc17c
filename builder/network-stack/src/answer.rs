//! What is said to a packet that cannot be carried.

use std::net::IpAddr;

use smoltcp::wire::{
    Icmpv4Message, Icmpv4Packet, Icmpv6Message, Icmpv6Packet, IpAddress, IpProtocol, IpRepr, TcpControl,
    TcpPacket, TcpRepr, TcpSeqNumber,
};

use crate::packet::{ECHO, Key};
use crate::wire::{MTU, Outbox, checksums, header_length};

/// Why something cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Network,
    Host,
    Port,
    Forbidden,
}

/// How long a packet may live.
const HOPS: u8 = 64;

/// Sends a packet of IP with a payload of this length; one that no packet can hold is not sent.
pub(crate) fn packet(
    out: &mut Outbox,
    (source, to): (IpAddr, IpAddr),
    protocol: IpProtocol,
    length: usize,
    fill: impl FnOnce(&mut [u8]),
) {
    let head = header_length(source);
    if head + length > MTU {
        return;
    }
    let repr = IpRepr::new(source.into(), to.into(), protocol, length, HOPS);
    out.send(head + length, |packet| {
        repr.emit(&mut *packet, &checksums());
        fill(&mut packet[head..]);
    });
}

/// Says to a segment that there is no such connection, unless it says so itself.
pub(crate) fn reset(out: &mut Outbox, key: &Key, segment: &TcpPacket<&[u8]>) {
    if segment.rst() {
        return;
    }
    let (seq_number, ack_number) = match segment.ack() {
        true => (segment.ack_number(), None),
        false => (TcpSeqNumber(0), Some(segment.seq_number() + segment.segment_len())),
    };
    send_reset(out, key, seq_number, ack_number);
}

/// Says to the step about a connection of which both ends have said all that nothing of it is on the way any more: it need
/// not keep the port for a minute.
pub(crate) fn farewell(out: &mut Outbox, key: &Key, seq_number: TcpSeqNumber) {
    send_reset(out, key, seq_number, None);
}

fn send_reset(out: &mut Outbox, key: &Key, seq_number: TcpSeqNumber, ack_number: Option<TcpSeqNumber>) {
    let repr = TcpRepr {
        src_port: key.to.port(),
        dst_port: key.step.port(),
        control: TcpControl::Rst,
        seq_number,
        ack_number,
        window_len: 0,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let ends = (key.to.ip(), key.step.ip());
    let (source, to) = (IpAddress::from(ends.0), IpAddress::from(ends.1));
    packet(out, ends, IpProtocol::Tcp, repr.buffer_len(), |bytes| {
        repr.emit(&mut TcpPacket::new_unchecked(bytes), &source, &to, &checksums());
    });
}

/// Says about a packet, of which `quote` is the beginning, that it did not arrive.
pub(crate) fn unreachable(out: &mut Outbox, gateway: IpAddr, step: IpAddr, reason: Reason, quote: &[u8]) {
    let head = 8;
    match (gateway, step) {
        (IpAddr::V4(_), IpAddr::V4(_)) => {
            packet(out, (gateway, step), IpProtocol::Icmp, head + quote.len(), |bytes| {
                bytes[head..].copy_from_slice(quote);
                let mut message = Icmpv4Packet::new_unchecked(bytes);
                message.set_msg_type(Icmpv4Message::DstUnreachable);
                message.set_msg_code(match reason {
                    Reason::Network => 0,
                    Reason::Host => 1,
                    Reason::Port => 3,
                    Reason::Forbidden => 13,
                });
                message.fill_checksum();
            });
        }
        (IpAddr::V6(source), IpAddr::V6(to)) => {
            packet(out, (gateway, step), IpProtocol::Icmpv6, head + quote.len(), |bytes| {
                bytes[head..].copy_from_slice(quote);
                let mut message = Icmpv6Packet::new_unchecked(bytes);
                message.set_msg_type(Icmpv6Message::DstUnreachable);
                message.set_msg_code(match reason {
                    Reason::Network => 0,
                    Reason::Forbidden => 1,
                    Reason::Host => 3,
                    Reason::Port => 4,
                });
                message.fill_checksum(&source, &to);
            });
        }
        _ => {}
    }
}

/// Answers a request for an echo: the same, with the number that the step gave it.
pub(crate) fn echo(out: &mut Outbox, key: &Key, message: &[u8]) {
    let ends = (key.to.ip(), key.step.ip());
    let (protocol, kind) = match ends.0 {
        IpAddr::V4(_) => (IpProtocol::Icmp, ECHO[0].1),
        IpAddr::V6(_) => (IpProtocol::Icmpv6, ECHO[1].1),
    };
    packet(out, ends, protocol, message.len(), |bytes| {
        bytes.copy_from_slice(message);
        bytes[0] = kind;
        bytes[4..6].copy_from_slice(&key.step.port().to_be_bytes());
        match ends {
            (IpAddr::V6(source), IpAddr::V6(to)) => {
                Icmpv6Packet::new_unchecked(bytes).fill_checksum(&source, &to)
            }
            _ => Icmpv4Packet::new_unchecked(bytes).fill_checksum(),
        }
    });
}
