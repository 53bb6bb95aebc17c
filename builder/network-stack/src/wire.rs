//! Frames: how they are read and made.
//!
//! Each has a head of two parts. The first is the kernel's note about the frame (`struct virtio_net_hdr`, which a socket with
//! `PACKET_VNET_HDR` gives and takes), by which neither side has to compute the checksum of what never leaves memory. The second is Ethernet's.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use smoltcp::phy::{Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6Packet, checksum};

/// The largest packet: what the length of IPv4 can say, so that no datagram has to be cut.
pub const MTU: usize = 65_535;

const NOTE: usize = 10;
const ETHERNET: usize = 14;
/// What is before the packet in each frame.
pub const HEADER: usize = NOTE + ETHERNET;

/// The hardware address of the step's end.
pub const STEP_ADDRESS: [u8; 6] = *b"\x02kiln\x02";
const OWN_ADDRESS: [u8; 6] = *b"\x02kiln\x01";

const INET: [u8; 2] = [0x08, 0x00];
const INET6: [u8; 2] = [0x86, 0xdd];
/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: the checksum is that of the pseudo header alone.
const UNFINISHED_CHECKSUM: u8 = 1;
/// More than what the heads of a packet take, which is made of zeros before it is written.
const HEADS: usize = 256;

/// What came of reading.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// A frame of so many bytes.
    Frame(usize),
    /// Nothing to be looked at: too short or too large, or there was no memory for it.
    Noise,
    /// None is there now.
    Nothing,
    /// There will be none any more.
    End,
}

/// Reads a frame.
pub(crate) fn read(wire: &OwnedFd, buffer: &mut [u8]) -> Read {
    let flags = RecvFlags::TRUNC | RecvFlags::DONTWAIT;
    match recv(wire, &mut *buffer, flags) {
        Ok((_, 0)) | Err(Errno::NETDOWN | Errno::NXIO | Errno::NODEV | Errno::CONNRESET) => Read::End,
        Ok((length, whole)) if whole > length || length < HEADER => Read::Noise,
        Ok((length, _)) => Read::Frame(length),
        Err(Errno::AGAIN) => Read::Nothing,
        Err(Errno::INTR | Errno::NOMEM | Errno::NOBUFS) => Read::Noise,
        Err(_) => Read::End,
    }
}

/// The packet in a frame.
pub(crate) fn packet(frame: &[u8]) -> Option<&[u8]> {
    let kind = frame.get(HEADER - 2..HEADER)?;
    (kind == INET || kind == INET6).then(|| frame.get(HEADER..)).flatten()
}

/// Where frames are made and sent. One that the wire does not take is lost, as on any wire.
#[derive(Debug)]
pub(crate) struct Outbox {
    wire: OwnedFd,
    buffer: Vec<u8>,
}

impl Outbox {
    pub fn new(wire: OwnedFd) -> Outbox {
        Outbox { wire, buffer: vec![0; HEADER + MTU] }
    }

    pub fn wire(&self) -> &OwnedFd {
        &self.wire
    }

    /// Sends a packet of this length, which `fill` writes into zeros; the checksum of TCP or UDP may be left out.
    pub fn send<R>(&mut self, length: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        let length = length.min(MTU);
        let frame = &mut self.buffer[..HEADER + length];
        let heads = frame.len().min(HEADER + HEADS);
        frame[..heads].fill(0);
        let result = fill(&mut frame[HEADER..]);
        complete(frame);
        let _sent = send(self.wire.as_fd(), frame, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        result
    }
}

/// Writes what is before the packet, and as much of the checksum as the kernel wants.
fn complete(frame: &mut [u8]) {
    let (head, packet) = frame.split_at_mut(HEADER);
    let is_ipv6 = packet.first().is_some_and(|byte| byte >> 4 == 6);
    let (ethernet, header) = if is_ipv6 { (INET6, 40) } else { (INET, 20) };
    head[NOTE..NOTE + 6].copy_from_slice(&STEP_ADDRESS);
    head[NOTE + 6..NOTE + 12].copy_from_slice(&OWN_ADDRESS);
    head[NOTE + 12..].copy_from_slice(&ethernet);
    let protocol = packet.get(if is_ipv6 { 6 } else { 9 }).copied().map(IpProtocol::from);
    let (place, own) = match protocol {
        Some(IpProtocol::Tcp) => (16, 20),
        Some(IpProtocol::Udp) => (6, 8),
        _ => return,
    };
    let length = (packet.len() - header.min(packet.len())) as u32;
    let protocol = protocol.unwrap_or(IpProtocol::Tcp);
    let sum = match is_ipv6 {
        false => {
            let read = Ipv4Packet::new_unchecked(&*packet);
            checksum::pseudo_header_v4(&read.src_addr(), &read.dst_addr(), protocol, length)
        }
        true => {
            let read = Ipv6Packet::new_unchecked(&*packet);
            checksum::pseudo_header_v6(&read.src_addr(), &read.dst_addr(), protocol, length)
        }
    };
    let Some(field) = packet.get_mut(header + place..header + place + 2) else { return };
    field.copy_from_slice(&sum.to_be_bytes());
    let words = [(header + ETHERNET + own) as u16, 0, (header + ETHERNET) as u16, place as u16];
    head[0] = UNFINISHED_CHECKSUM;
    for (place, word) in head[2..NOTE].chunks_exact_mut(2).zip(words) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
}

/// What a stack sees of the wire: at most one packet that came, and the way out.
pub(crate) struct Port<'a> {
    pub incoming: Option<&'a [u8]>,
    pub out: &'a mut Outbox,
}

/// Which checksums are computed: those that the kernel does not take unfinished. None is looked at.
pub(crate) fn checksums() -> ChecksumCapabilities {
    let mut checksums = ChecksumCapabilities::ignored();
    checksums.ipv4 = Checksum::Tx;
    checksums.icmpv4 = Checksum::Tx;
    checksums.icmpv6 = Checksum::Tx;
    checksums
}

impl Device for Port<'_> {
    type RxToken<'b>
        = Incoming<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = Outgoing<'b>
    where
        Self: 'b;

    fn receive(&mut self, _now: Instant) -> Option<(Incoming<'_>, Outgoing<'_>)> {
        Some((Incoming(self.incoming.take()?), Outgoing(self.out)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Outgoing<'_>> {
        Some(Outgoing(self.out))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        capabilities.checksum = checksums();
        capabilities
    }
}

pub(crate) struct Incoming<'a>(&'a [u8]);

impl RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(self.0)
    }
}

pub(crate) struct Outgoing<'a>(&'a mut Outbox);

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        self.0.send(length, fill)
    }
}

/// The length of IP's own head in a packet to such an address.
pub(crate) fn header_length(address: IpAddr) -> usize {
    if address.is_ipv4() { 20 } else { 40 }
}
