//! One connection: a TCP towards the step, a socket of the host towards the world, and what is between them.
//!
//! The step's first segment is answered when the world has answered, so that a port that is closed, or a host that is not
//! there, is to the step what it is. Each side is read from only while the other has room.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown, sockopt};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, IpListenEndpoint, TcpPacket, TcpSeqNumber};

use crate::answer::{self, Reason};
use crate::packet::Key;
use crate::wire::{Outbox, Port};

/// What is kept that the step has sent and the world has not taken, and the other way.
const FROM_STEP: usize = 256 << 10;
const TO_STEP: usize = 512 << 10;

/// How often a step that says nothing is asked whether it has the connection still: its kernel forgets one that no process has,
/// and a reset of its own may have been lost.
const STILL_THERE: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(60);

/// What has become of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It goes on, and wants its turn at that time at the latest.
    GoesOn(Option<Duration>),
    /// It is over.
    Over,
    /// It never came to be, which the step is to be told.
    Failed(Reason),
}

pub(crate) struct Connection {
    host: OwnedFd,
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    is_connected: bool,
    /// Whether the host's socket may have something, or room; it says when that is so again.
    may_read: bool,
    may_write: bool,
    /// Whether the world has said all.
    world_ended: bool,
    /// Whether all that the step says has come, and whether the world has been told all of it.
    is_heard: bool,
    step_ended: bool,
    /// Whether only the world has something to hear still.
    is_pouring: bool,
    /// Up to where the step has heard.
    heard: TcpSeqNumber,
    /// The beginning of the first packet.
    quote: Box<[u8]>,
}

fn instant(now: Duration) -> Instant {
    Instant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}

impl Connection {
    /// Begins one by the step's first segment; none where that is no beginning.
    pub fn begin(
        key: &Key,
        first: &[u8],
        quote: Box<[u8]>,
        host: OwnedFd,
        seed: u64,
        now: Duration,
        out: &mut Outbox,
    ) -> Option<Connection> {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut port = Port { incoming: Some(first), out };
        let mut interface = Interface::new(config, &mut port, instant(now));
        let own = IpAddress::from(key.to.ip());
        interface.update_ip_addrs(|addresses| {
            // There is room for the only one.
            let _added = addresses.push(IpCidr::new(own, if key.to.is_ipv4() { 32 } else { 128 }));
        });
        let routes = interface.routes_mut();
        let _added = match own {
            IpAddress::Ipv4(own) => routes.add_default_ipv4_route(own),
            IpAddress::Ipv6(own) => routes.add_default_ipv6_route(own),
        };
        let buffer = |size| SocketBuffer::new(vec![0; size]);
        let mut socket = Socket::new(buffer(FROM_STEP), buffer(TO_STEP));
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        socket.set_keep_alive(Some(STILL_THERE));
        socket.pause_synack(true);
        let local = IpListenEndpoint { addr: Some(own), port: key.to.port() };
        socket.listen(local).ok()?;
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        interface.poll_ingress_single(instant(now), &mut port, &mut sockets);
        let has_begun = sockets.get::<Socket<'_>>(handle).state() == State::SynReceived;
        has_begun.then_some(Connection {
            host,
            interface,
            sockets,
            handle,
            is_connected: false,
            may_read: false,
            may_write: false,
            world_ended: false,
            is_heard: false,
            step_ended: false,
            is_pouring: false,
            heard: TcpSeqNumber(0),
            quote,
        })
    }

    /// The beginning of its first packet.
    pub fn quote(&self) -> &[u8] {
        &self.quote
    }

    /// The host's socket.
    pub fn host(&self) -> &OwnedFd {
        &self.host
    }

    /// A further packet of the step's.
    pub fn take(&mut self, packet: &[u8], segment: &TcpPacket<&[u8]>, now: Duration, out: &mut Outbox) {
        let repeats = segment.ack() && segment.ack_number() == self.heard;
        let is_plain = segment.payload().is_empty() && !segment.syn() && !segment.fin() && !segment.rst();
        if repeats && is_plain && self.waits_to_be_heard() {
            return;
        }
        if segment.ack() {
            self.heard = segment.ack_number();
        }
        let mut port = Port { incoming: Some(packet), out };
        self.interface.poll_ingress_single(instant(now), &mut port, &mut self.sockets);
        self.is_heard |= matches!(
            self.socket().state(),
            State::CloseWait | State::LastAck | State::Closing | State::TimeWait
        );
    }

    /// Whether the step has heard all but that it was all. Who says then that it has heard no more says nothing; three who do `smoltcp` 0.14
    /// takes for a loss, and sends the end, which is no byte, never again.
    fn waits_to_be_heard(&self) -> bool {
        let socket = self.sockets.get::<Socket<'_>>(self.handle);
        matches!(socket.state(), State::FinWait1 | State::Closing | State::LastAck)
            && socket.send_queue() == 0
    }

    /// Whether the step has forgotten it, when this is its segment: it begins another between the same ports. What the world has
    /// not heard yet is told first.
    pub fn is_replaced_by(&self, segment: &TcpPacket<&[u8]>) -> bool {
        let state = self.sockets.get::<Socket<'_>>(self.handle).state();
        let begins = segment.syn() && !segment.ack() && !segment.rst() && !segment.fin();
        begins && !self.is_pouring && !matches!(state, State::SynReceived | State::Listen)
    }

    /// Whether there is more to come from a step that has ended, or to be told to the world.
    pub fn has_last_words(&self) -> bool {
        let state = self.sockets.get::<Socket<'_>>(self.handle).state();
        let is_made = !matches!(state, State::SynReceived | State::Listen | State::Closed);
        (is_made && !self.step_ended) || self.is_pouring
    }

    /// Gives it up. Where the world has not been told all, it is not told that this was all.
    pub fn give_up(&self) {
        if !self.step_ended {
            self.reset_world();
        }
    }

    /// When the host's socket is closed, the world will be told that this was not all.
    fn reset_world(&self) {
        // A socket that does not know this has nothing to be reset.
        let _set = sockopt::set_socket_linger(&self.host, Some(Duration::ZERO));
    }

    /// The host's socket has something, or room.
    pub fn wake(&mut self, may_read: bool, may_write: bool) {
        self.may_read |= may_read;
        self.may_write |= may_write;
    }

    /// Does what can be done now.
    pub fn turn(&mut self, key: &Key, now: Duration, out: &mut Outbox) -> Turn {
        if !self.is_connected {
            // The step may have given up.
            if self.socket().state() != State::SynReceived {
                return Turn::Over;
            }
            if !self.may_write {
                return Turn::GoesOn(None);
            }
            match sockopt::socket_error(&self.host).and_then(|result| result) {
                Ok(()) => {}
                Err(Errno::CONNREFUSED | Errno::CONNRESET) => {
                    self.socket().abort();
                    self.speak(now, out);
                    return Turn::Over;
                }
                Err(Errno::NETUNREACH) => return Turn::Failed(Reason::Network),
                Err(Errno::ACCESS | Errno::PERM) => return Turn::Failed(Reason::Forbidden),
                Err(_) => return Turn::Failed(Reason::Host),
            }
            self.is_connected = true;
            self.socket().pause_synack(false);
        }
        let has_failed = self.carry().is_err();
        if has_failed {
            // What the world said before arrived before.
            self.speak(now, out);
            self.socket().abort();
        }
        // A socket whose time to wait is over would forget what it has for the world.
        if has_failed || !self.is_pouring {
            self.speak(now, out);
        }
        let state = self.socket().state();
        self.is_pouring = !has_failed
            && self.world_ended
            && self.is_heard
            && !self.step_ended
            && matches!(state, State::Closed | State::TimeWait);
        match state {
            _ if self.is_pouring => Turn::GoesOn(None),
            // To one who refuses what it has asked for, a socket listens on.
            State::Closed | State::Listen => {
                match self.world_ended && self.step_ended {
                    true => answer::farewell(out, key, self.heard),
                    // The world is told as the step has told: by a reset.
                    false => self.reset_world(),
                }
                Turn::Over
            }
            State::TimeWait if self.step_ended => {
                answer::farewell(out, key, self.heard);
                Turn::Over
            }
            _ => {
                let next = self.interface.poll_at(instant(now), &self.sockets);
                Turn::GoesOn(next.map(|next| Duration::from_micros(next.total_micros().max(0) as u64)))
            }
        }
    }

    fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    /// Sends what is to be sent to the step.
    fn speak(&mut self, now: Duration, out: &mut Outbox) {
        let mut port = Port { incoming: None, out };
        self.interface.poll(instant(now), &mut port, &mut self.sockets);
    }

    /// Hands on what each side has, as far as the other takes it. From a world that hears nothing any more is taken what it
    /// has said all the same, as far as there is room.
    fn carry(&mut self) -> Result<(), Errno> {
        let mut told = Ok(());
        let socket = self.sockets.get_mut::<Socket<'_>>(self.handle);
        while self.may_write && socket.can_recv() {
            let said = socket.recv(|bytes| {
                let result = send(&self.host, bytes, SendFlags::NOSIGNAL);
                (*result.as_ref().unwrap_or(&0), result)
            });
            match said.unwrap_or(Err(Errno::PIPE)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.may_write = false,
                Err(error) => {
                    (told, self.may_write, self.may_read) = (Err(error), false, true);
                }
            }
        }
        if told.is_ok() && self.is_heard && !self.step_ended && !socket.can_recv() {
            self.step_ended = true;
            // One that is closed already needs no telling.
            let _told = shutdown(&self.host, Shutdown::Write);
        }
        while self.may_read && !self.world_ended && socket.can_send() {
            let heard = socket.send(|room| {
                let result = recv(&self.host, room, RecvFlags::empty()).map(|(length, _)| length);
                (*result.as_ref().unwrap_or(&0), result)
            });
            match heard.unwrap_or(Err(Errno::PIPE)) {
                Ok(0) => {
                    self.world_ended = true;
                    socket.close();
                }
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.may_read = false,
                Err(error) => return Err(error),
            }
        }
        told
    }
}
