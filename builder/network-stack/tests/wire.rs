//! A stack on a wire that the test holds the other end of: a connection over a wire that loses frames, and whatever bytes.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant as Clock};

use network_stack::{Dial, HEADER, Kind, Place, Room, Stack};
use proptest::prelude::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_send_buffer_size;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpCidr, IpEndpoint, Ipv4Address};

const STEP: Ipv4Address = Ipv4Address::new(10, 211, 1, 2);
const GATEWAY: Ipv4Address = Ipv4Address::new(10, 211, 1, 1);
const OTHER: Ipv4Address = Ipv4Address::new(192, 0, 2, 9);

/// Whoever is dialed says all that it is told; at port 9 there is nobody.
#[derive(Debug)]
struct Echoes;

impl Dial for Echoes {
    fn dial(&self, kind: Kind, to: SocketAddr) -> Result<OwnedFd, Errno> {
        if to.port() == 9 {
            return Err(Errno::CONNREFUSED);
        }
        let kind = if kind == Kind::Stream { SocketType::STREAM } else { SocketType::SEQPACKET };
        let flags = SocketFlags::CLOEXEC;
        let (own, other) = socketpair(AddressFamily::UNIX, kind, flags, None)?;
        rustix::io::ioctl_fionbio(&own, true)?;
        if kind == SocketType::STREAM {
            thread::spawn(move || echo(other));
        }
        Ok(own)
    }
}

/// The test is whoever is dialed; little is kept for it that it does not read.
#[derive(Debug)]
struct Handed(Sender<UnixStream>);

impl Dial for Handed {
    fn dial(&self, _: Kind, _: SocketAddr) -> Result<OwnedFd, Errno> {
        let (own, other) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        rustix::io::ioctl_fionbio(&own, true)?;
        set_socket_send_buffer_size(&own, 1 << 15)?;
        let other = UnixStream::from(other);
        other.set_read_timeout(Some(Duration::from_secs(10))).expect("it may");
        self.0.send(other).map_err(|_| Errno::CONNREFUSED)?;
        Ok(own)
    }
}

/// A stack, and those whom it dials.
fn handed() -> (Stack, OwnedFd, Receiver<UnixStream>) {
    let (sender, dialed) = channel();
    let (stack, wire) = stack_of(Box::new(Handed(sender)));
    (stack, wire, dialed)
}

/// The test is whoever is dialed, by TCP.
#[derive(Debug)]
struct Local(SocketAddr);

impl Dial for Local {
    fn dial(&self, kind: Kind, _: SocketAddr) -> Result<OwnedFd, Errno> {
        network_stack::Sockets.dial(kind, self.0)
    }
}

fn over_tcp() -> (Stack, OwnedFd, TcpListener) {
    let world = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (stack, wire) = stack_of(Box::new(Local(world.local_addr().expect("it has one"))));
    (stack, wire, world)
}

fn echo(other: OwnedFd) {
    let mut other = UnixStream::from(other);
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length) = other.read(&mut buffer) {
        if length == 0 || other.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

fn stack() -> (Stack, OwnedFd) {
    stack_of(Box::new(Echoes))
}

fn stack_of(dial: Box<dyn Dial>) -> (Stack, OwnedFd) {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (near, far) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).expect("a pair");
    let place = Place {
        step: vec![IpAddr::V4(STEP)],
        gateways: vec![IpAddr::V4(GATEWAY)],
        around: (vec![10, 211, 1], Vec::new()),
        name_server: None,
    };
    let stack = Stack::start(far, place, dial, Arc::new(Room::new(64)));
    (stack.expect("the kernel has what it needs"), near)
}

/// The step's end of a wire that loses every frame whose number is one of these, modulo the first.
struct Lossy<'a> {
    wire: &'a OwnedFd,
    buffer: Vec<u8>,
    losses: (usize, usize),
    count: usize,
    /// Up to where the other had heard.
    heard: Vec<u8>,
}

impl Lossy<'_> {
    /// Whether a segment says nothing but what was heard before, which `smoltcp` takes for a loss when it comes three times; then it
    /// does not send its end again, of which alone that is true.
    fn repeats(&mut self, length: usize) -> bool {
        let heard = self.buffer[HEADER + 28..HEADER + 32].to_vec();
        let is_plain = length == HEADER + 40 && self.buffer[HEADER + 33] & 0x17 == 0x10;
        let repeats = is_plain && self.heard == heard;
        self.heard = heard;
        repeats
    }

    fn is_lost(&mut self) -> bool {
        self.count += 1;
        self.count % self.losses.0 == self.losses.1
    }
}

struct Came(Vec<u8>);

impl RxToken for Came {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

struct Goes<'a, 'b>(&'a mut Lossy<'b>);

impl TxToken for Goes<'_, '_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let mut bytes = vec![0; HEADER + length];
        let result = fill(&mut bytes[HEADER..]);
        bytes[HEADER - 2..HEADER].copy_from_slice(&[8, 0]);
        if !self.0.is_lost() {
            // A wire that is full loses it.
            let _sent = send(self.0.wire, &bytes, SendFlags::empty());
        }
        result
    }
}

impl<'b> Device for Lossy<'b> {
    type RxToken<'a>
        = Came
    where
        Self: 'a;
    type TxToken<'a>
        = Goes<'a, 'b>
    where
        Self: 'a;

    fn receive(&mut self, _now: Instant) -> Option<(Came, Goes<'_, 'b>)> {
        loop {
            let (length, _) = recv(self.wire, &mut self.buffer[..], RecvFlags::DONTWAIT).ok()?;
            if !self.is_lost() && !self.repeats(length) {
                let came = Came(self.buffer[HEADER..length].to_vec());
                return Some((came, Goes(self)));
            }
        }
    }

    fn transmit(&mut self, _now: Instant) -> Option<Goes<'_, 'b>> {
        Some(Goes(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 1500;
        capabilities.checksum = ChecksumCapabilities::ignored();
        capabilities
    }
}

/// Says something to a port, says that this is all, and gives what it hears until the other has said all; none where nobody is there.
fn talk(wire: &OwnedFd, port: u16, text: &[u8], losses: (usize, usize)) -> Option<Vec<u8>> {
    let mut device = Lossy { wire, buffer: vec![0; 1 << 17], losses, count: 0, heard: Vec::new() };
    let started = Clock::now();
    let now = || Instant::from_micros(started.elapsed().as_micros() as i64);
    let mut interface = Interface::new(Config::new(HardwareAddress::Ip), &mut device, now());
    interface.update_ip_addrs(|all| all.push(IpCidr::new(STEP.into(), 24)).expect("there is room"));
    interface.routes_mut().add_default_ipv4_route(GATEWAY).expect("there is room");
    let buffer = || SocketBuffer::new(vec![0; 1 << 16]);
    let mut sockets = SocketSet::new(Vec::new());
    let handle = sockets.add(Socket::new(buffer(), buffer()));
    let to = IpEndpoint::new(OTHER.into(), port);
    let own = 40_000 + port;
    sockets.get_mut::<Socket<'_>>(handle).connect(interface.context(), to, own).expect("it may");
    let (mut said, mut heard) = (0, Vec::new());
    loop {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "{said} of {} said, {} heard",
            text.len(),
            heard.len()
        );
        interface.poll(now(), &mut device, &mut sockets);
        let socket = sockets.get_mut::<Socket<'_>>(handle);
        if socket.can_send() && said < text.len() {
            said += socket.send_slice(&text[said..]).expect("it may");
        }
        if said == text.len() && matches!(socket.state(), State::Established | State::CloseWait) {
            socket.close();
        }
        while socket.can_recv() {
            socket.recv(|bytes| (bytes.len(), heard.extend_from_slice(bytes))).expect("there is something");
        }
        match socket.state() {
            State::Closed if said == 0 => return None,
            State::Closed | State::TimeWait => return Some(heard),
            _ => {}
        }
        interface.poll(now(), &mut device, &mut sockets);
        let delay = interface.poll_delay(now(), &sockets).map_or(50_000, |delay| delay.total_micros());
        let delay = Timespec { tv_sec: 0, tv_nsec: delay.min(50_000) as i64 * 1000 };
        let mut asked = [PollFd::new(wire, PollFlags::IN)];
        // Whatever it is that wakes it, all is looked at.
        let _woken = poll(&mut asked, Some(&delay));
    }
}

fn text(length: usize) -> Vec<u8> {
    (0..length).map(|place| (place % 251) as u8).collect()
}

#[test]
fn a_wire_that_loses_frames_loses_no_byte() {
    for losses in [(usize::MAX, 0), (41, 3), (19, 0)] {
        let (_stack, wire) = stack();
        let text = text(100_000);
        assert!(talk(&wire, 80, &text, losses).as_ref() == Some(&text), "{losses:?}");
    }
}

#[test]
fn an_end_that_is_lost_comes_again() {
    let (_stack, wire, dialed) = handed();
    let theirs = begin(&wire, 1);
    let heard_all_but_that = segment(2, theirs + 1, 0x10);
    send(&wire, &heard_all_but_that, SendFlags::empty()).expect("it is there");
    let world = dialed.recv().expect("it was dialed");
    world.shutdown(Shutdown::Write).expect("it may");
    let is_end = |flags: Option<u8>| flags.is_some_and(|flags| flags & 1 == 1);
    assert!(is_end(answer(&wire)), "it is told");
    for _ in 0..4 {
        send(&wire, &heard_all_but_that, SendFlags::empty()).expect("it is there");
    }
    assert!((0..3).any(|_| is_end(answer(&wire))), "it is told again");
}

#[test]
fn who_is_not_there_refuses_at_once() {
    let (_stack, wire) = stack();
    let started = Clock::now();
    assert_eq!(talk(&wire, 9, b"hello", (usize::MAX, 0)), None);
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn what_was_under_way_is_forgotten() {
    let (stack, wire) = stack();
    // A connection that is in the middle.
    let frame = segment(1, 0, 2);
    send(&wire, &frame, SendFlags::empty()).expect("it is there");
    assert_eq!(answer(&wire).map(|flags| flags & 0x12), Some(0x12), "it is answered");
    stack.forget();
    send(&wire, &segment(2, 1, 0x10), SendFlags::empty()).expect("it is there");
    assert_eq!(answer(&wire).map(|flags| flags & 4), Some(4), "it is not known any more");
}

#[test]
fn one_who_gives_up_before_the_world_answers_leaves_nothing() {
    let (_stack, wire, dialed) = handed();
    send(&wire, &segment(1, 0, 2), SendFlags::empty()).expect("it is there");
    assert_eq!(answer(&wire).map(|flags| flags & 0x12), Some(0x12), "it is answered");
    send(&wire, &segment(2, 0, 4), SendFlags::empty()).expect("it is there");
    let mut world = dialed.recv().expect("it was dialed");
    assert_eq!(world.read(&mut [0; 9]).ok(), Some(0), "the world is told");
}

#[test]
fn the_last_words_of_a_step_arrive() {
    let (stack, wire, dialed) = handed();
    let theirs = begin(&wire, 1);
    let last = with_text(segment(2, theirs + 1, 0x19), b"that was all");
    send(&wire, &last, SendFlags::empty()).expect("it is there");
    stack.forget();
    assert!(stack.has_forgotten());
    let mut heard = Vec::new();
    dialed.recv().expect("it was dialed").read_to_end(&mut heard).expect("all of it");
    assert_eq!(heard, b"that was all");
}

/// A segment that says something.
fn with_text(mut segment: Vec<u8>, text: &[u8]) -> Vec<u8> {
    segment.extend(text);
    let length = ((segment.len() - HEADER) as u16).to_be_bytes();
    segment[HEADER + 2..HEADER + 4].copy_from_slice(&length);
    segment
}

#[test]
fn what_is_in_vain_is_not_waited_for() {
    let (stack, wire, dialed) = handed();
    let theirs = begin(&wire, 1);
    // More than the world takes, which does not read.
    for sequence in (2..200_000).step_by(60_000) {
        let said = with_text(segment(sequence, theirs + 1, 0x10), &[7; 60_000]);
        send(&wire, &said, SendFlags::empty()).expect("it is there");
    }
    let _world = dialed.recv().expect("it was dialed");
    stack.give_up();
    let started = Clock::now();
    stack.forget();
    assert!(stack.has_forgotten());
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[test]
fn a_slow_world_hears_all_of_one_that_has_ended() {
    // The world says that it has said all after the step has, or long before: the connection is over for the step then.
    let orders =
        [(Duration::from_millis(500), Duration::from_millis(500)), (Duration::ZERO, Duration::from_secs(11))];
    let tests = orders.map(|(before, after)| {
        thread::spawn(move || {
            let (_stack, wire, dialed) = handed();
            let world = thread::spawn(move || {
                let mut world = dialed.recv().expect("it was dialed");
                thread::sleep(before);
                world.shutdown(Shutdown::Write).expect("it may");
                thread::sleep(after);
                let mut heard = Vec::new();
                world.read_to_end(&mut heard).expect("all of it");
                heard
            });
            let text = text(250_000);
            assert_eq!(talk(&wire, 80, &text, (usize::MAX, 0)), Some(Vec::new()));
            assert!(world.join().expect("it ends") == text, "{before:?}");
        })
    });
    for test in tests {
        test.join().expect("it passes");
    }
}

#[test]
fn what_the_world_said_before_it_broke_off_arrives() {
    let (_stack, wire, world) = over_tcp();
    let theirs = begin(&wire, 1);
    let mut buffer = vec![0; 1 << 17];
    let said = |sequence: u32, text: &[u8]| {
        let mut frame = segment(sequence, theirs + 1, 0x18);
        frame.extend(text);
        let length = ((frame.len() - HEADER) as u16).to_be_bytes();
        frame[HEADER + 2..HEADER + 4].copy_from_slice(&length);
        send(&wire, &frame, SendFlags::empty()).expect("it is there");
    };
    // One who has not read all, and goes: that is a reset.
    let (mut other, _) = world.accept().expect("it was dialed");
    said(2, &[7; 3000]);
    thread::sleep(Duration::from_millis(200));
    other.write_all(b"too much").expect("it may");
    drop(other);
    said(3002, &[7; 3000]);
    let mut heard = Vec::<u8>::new();
    loop {
        let length = answer_into(&wire, &mut buffer).expect("it goes on");
        heard.extend(&buffer[HEADER + 40..length]);
        if buffer[HEADER + 33] & 4 != 0 {
            break;
        }
    }
    assert_eq!(heard, b"too much");
}

#[test]
fn a_step_that_has_forgotten_a_connection_makes_another() {
    let (_stack, wire, dialed) = handed();
    for sequence in [1, 70_000] {
        let theirs = begin(&wire, sequence);
        // All is said; the world goes on.
        send(&wire, &segment(sequence + 1, theirs + 1, 0x11), SendFlags::empty()).expect("it is there");
        assert_eq!(answer(&wire).map(|flags| flags & 0x17), Some(0x10), "{sequence}");
    }
    assert_eq!(dialed.iter().take(2).count(), 2);
}

/// A frame with a segment to port 81 and these flags.
fn segment(sequence: u32, acknowledged: u32, flags: u8) -> Vec<u8> {
    let mut frame = vec![0; HEADER - 2];
    frame.extend([8, 0, 0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0]);
    frame.extend(STEP.octets());
    frame.extend(OTHER.octets());
    frame.extend([0x9c, 0x40, 0, 81]);
    frame.extend(sequence.to_be_bytes());
    frame.extend(acknowledged.to_be_bytes());
    frame.extend([0x50, flags, 255, 255, 0, 0, 0, 0]);
    frame
}

/// Begins a connection, and gives the number that the stack begins with.
fn begin(wire: &OwnedFd, sequence: u32) -> u32 {
    send(wire, &segment(sequence, 0, 2), SendFlags::empty()).expect("it is there");
    let mut buffer = vec![0; 1 << 17];
    assert!(answer_into(wire, &mut buffer).is_some(), "it is answered");
    assert_eq!(buffer[HEADER + 33] & 0x12, 0x12, "it is told that it began: {sequence}");
    u32::from_be_bytes(buffer[HEADER + 24..HEADER + 28].try_into().expect("four"))
}

/// The flags of the next segment that comes.
fn answer(wire: &OwnedFd) -> Option<u8> {
    let mut buffer = vec![0; 1 << 17];
    let length = answer_into(wire, &mut buffer)?;
    buffer[..length].get(HEADER + 33).copied()
}

fn answer_into(wire: &OwnedFd, buffer: &mut [u8]) -> Option<usize> {
    let mut asked = [PollFd::new(wire, PollFlags::IN)];
    poll(&mut asked, Some(&Timespec { tv_sec: 10, tv_nsec: 0 })).ok().filter(|ready| *ready > 0)?;
    recv(wire, buffer, RecvFlags::empty()).ok().map(|(length, _)| length)
}

/// Frames of noise, and segments and datagrams of which some bytes are others.
fn frames() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let noise = prop::collection::vec(any::<u8>(), 0..120).prop_map(|bytes| {
        let mut frame = vec![0; HEADER - 2];
        frame.extend([8, 0]);
        frame.extend(bytes);
        frame
    });
    let bare = prop::collection::vec(any::<u8>(), 1..80);
    let changes = prop::collection::vec((HEADER - 2..HEADER + 40, any::<u8>()), 0..4);
    let changed =
        (any::<u32>(), any::<u32>(), any::<u8>(), changes, prop::collection::vec(any::<u8>(), 0..40));
    let changed = changed.prop_map(|(sequence, acknowledged, flags, changes, more)| {
        let mut frame = segment(sequence % 4, acknowledged % 4, flags);
        frame.extend(more);
        let (place, length) = (HEADER + 2, (frame.len() - HEADER) as u16);
        frame[place..place + 2].copy_from_slice(&length.to_be_bytes());
        for (place, byte) in changes {
            frame[place] = byte;
        }
        frame
    });
    prop::collection::vec(prop_oneof![1 => noise, 1 => bare, 6 => changed], 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn no_frame_ends_a_stack(frames in frames()) {
        let (stack, wire) = stack();
        let mut buffer = vec![0; 1 << 17];
        for frame in &frames {
            let mut asked = [PollFd::new(&wire, PollFlags::OUT)];
            poll(&mut asked, Some(&Timespec { tv_sec: 10, tv_nsec: 0 })).expect("it may");
            let _sent = send(&wire, frame, SendFlags::NOSIGNAL);
            while recv(&wire, &mut buffer[..], RecvFlags::DONTWAIT).is_ok() {}
        }
        // Everybody's connections may have taken all room.
        stack.forget();
        let heard = talk(&wire, 80, b"still there", (usize::MAX, 0));
        prop_assert_eq!(heard.as_deref(), Some(&b"still there"[..]));
        prop_assert!(!stack.has_ended());
    }
}
