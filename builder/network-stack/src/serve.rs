//! The loop: frames of the step, sockets of the host, and what has to be done later.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::BuildHasher;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use crate::answer::{self, Reason};
use crate::connection::{Connection, Turn};
use crate::exchange::Exchange;
use crate::host::{Dial, Kind};
use crate::packet::{Content, Key, Packet};
use crate::rules::{Place, Verdict};
use crate::wire::{self, MTU, Outbox, Read};
use crate::{Room, Taken, Told};

/// The most connections of a step, and the most exchanges.
const CONNECTIONS: usize = 1024;
const EXCHANGES: usize = 512;

/// The most frames that are read before anything else has its turn.
const FRAMES: usize = 64;

/// How long is carried on what a step said before it ended.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Events that are not a flow's.
const BELL: u64 = 0;
const WIRE: u64 = 1;

enum Body {
    Connection(Box<Connection>),
    Exchange(Exchange),
}

/// A connection or an exchange.
struct Flow {
    key: Key,
    body: Body,
    deadline: Option<Duration>,
    _taken: Taken,
}

pub(crate) struct Serve {
    place: Place,
    dial: Box<dyn Dial>,
    room: Arc<Room>,
    told: Arc<Told>,
    out: Outbox,
    events: OwnedFd,
    started: Instant,
    /// By numbers that are never given twice.
    flows: BTreeMap<u64, Flow>,
    numbers: HashMap<Key, u64>,
    next: u64,
    connections: usize,
    /// Who wants a turn at a time, and who wants one now.
    timers: BTreeSet<(Duration, u64)>,
    awake: BTreeSet<u64>,
    generation: u64,
    /// Until when a step that has ended is listened to.
    last_words: Option<Duration>,
    /// Where the numbers of segments begin.
    seed: RandomState,
    /// For what comes in.
    buffer: Vec<u8>,
}

impl Serve {
    pub fn new(
        wire: OwnedFd,
        place: Place,
        dial: Box<dyn Dial>,
        room: Arc<Room>,
        told: Arc<Told>,
    ) -> io::Result<Serve> {
        let events = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&events, &told.bell, epoll::EventData::new_u64(BELL), epoll::EventFlags::IN)?;
        epoll::add(&events, &wire, epoll::EventData::new_u64(WIRE), epoll::EventFlags::IN)?;
        Ok(Serve {
            place,
            dial,
            room,
            told,
            out: Outbox::new(wire),
            events,
            started: Instant::now(),
            flows: BTreeMap::new(),
            numbers: HashMap::new(),
            next: WIRE + 1,
            connections: 0,
            timers: BTreeSet::new(),
            awake: BTreeSet::new(),
            generation: 0,
            last_words: None,
            seed: RandomState::new(),
            buffer: vec![0; wire::HEADER + MTU],
        })
    }

    /// Serves until it is told to end, or there is no wire any more.
    pub fn run(&mut self) {
        let mut ready = Vec::with_capacity(FRAMES);
        loop {
            ready.clear();
            let timeout = self.timeout();
            match epoll::wait(&self.events, spare_capacity(&mut ready), timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return,
            }
            if self.told.is_over.load(Ordering::Acquire) {
                self.give_up();
                return;
            }
            let mut has_frames = false;
            for event in &ready {
                let (number, flags) = (event.data.u64(), event.flags);
                match number {
                    BELL => self.hush(),
                    WIRE => has_frames = true,
                    flow => self.wake(flow, flags),
                }
            }
            if has_frames && self.read_frames() == Read::End {
                self.give_up();
                return;
            }
            self.take_turns();
            if !self.forget_if_told() {
                return;
            }
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn timeout(&self) -> Option<Timespec> {
        if !self.awake.is_empty() {
            return Some(Timespec { tv_sec: 0, tv_nsec: 0 });
        }
        let first = self.timers.first().map(|(first, _)| *first).into_iter().chain(self.last_words).min()?;
        let left = first.saturating_sub(self.now());
        Some(Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) })
    }

    fn hush(&self) {
        let mut count = [0; 8];
        // Somebody else cannot have read it.
        let _read = rustix::io::read(&self.told.bell, &mut count);
    }

    fn wake(&mut self, number: u64, flags: epoll::EventFlags) {
        use epoll::EventFlags as Flags;
        let Some(flow) = self.flows.get_mut(&number) else { return };
        if let Body::Connection(connection) = &mut flow.body {
            let may_read = flags.intersects(Flags::IN | Flags::RDHUP | Flags::HUP | Flags::ERR);
            connection.wake(may_read, flags.intersects(Flags::OUT | Flags::HUP | Flags::ERR));
        }
        self.awake.insert(number);
    }

    /// Reads what has come; the last that came of it.
    fn read_frames(&mut self) -> Read {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut last = Read::Noise;
        for _ in 0..FRAMES {
            last = wire::read(self.out.wire(), &mut buffer);
            match last {
                Read::Frame(length) => {
                    if let Some(packet) = wire::packet(&buffer[..length]) {
                        self.packet(packet);
                    }
                }
                Read::Noise => {}
                Read::Nothing | Read::End => break,
            }
        }
        self.buffer = buffer;
        last
    }

    /// Gives everything up, if that was asked for, when the last words of the step have been carried on; whether there is a
    /// wire still.
    fn forget_if_told(&mut self) -> bool {
        let generation = self.told.generation.load(Ordering::Acquire);
        if generation == self.generation {
            return true;
        }
        // What it said last may not have been read; the next one does not begin before it is forgotten.
        let last = self.read_frames();
        self.take_turns();
        let deadline = *self.last_words.get_or_insert(self.started.elapsed() + LAST_WORDS);
        let has_last_words = |flow: &Flow| match &flow.body {
            Body::Connection(connection) => connection.has_last_words(),
            Body::Exchange(_) => false,
        };
        let is_silent = last == Read::Nothing && !self.flows.values().any(has_last_words);
        let is_wanted = !is_silent && !self.told.is_in_vain.load(Ordering::Acquire);
        if last != Read::End && is_wanted && self.now() < deadline {
            return true;
        }
        self.give_up();
        (self.generation, self.last_words) = (generation, None);
        self.told.tell_forgotten(generation);
        last != Read::End
    }

    /// Ends everything that is under way.
    fn give_up(&mut self) {
        for number in self.flows.keys().copied().collect::<Vec<_>>() {
            if let Some(Flow { body: Body::Connection(connection), .. }) = self.flows.get(&number) {
                connection.give_up();
            }
            self.end(number);
        }
    }

    /// A packet of the step's.
    pub fn packet(&mut self, bytes: &[u8]) {
        let Some(packet) = Packet::read(bytes) else { return };
        match self.place.verdict(&packet.key) {
            Verdict::Ignored => {}
            Verdict::Gateway => {
                if let Content::Echo(message) = packet.content {
                    answer::echo(&mut self.out, &packet.key, message);
                }
            }
            Verdict::Refused => self.refuse(&packet, Reason::Forbidden),
            Verdict::To(to) => match self.flow_of(&packet, to) {
                Ok(Some(number)) => self.carry(number, &packet),
                Ok(None) => {}
                Err(reason) => self.refuse(&packet, reason),
            },
        }
    }

    /// Tells the step that a packet goes nowhere.
    fn refuse(&mut self, packet: &Packet<'_>, reason: Reason) {
        match &packet.content {
            Content::Segment(segment) if matches!(reason, Reason::Port | Reason::Forbidden) => {
                answer::reset(&mut self.out, &packet.key, segment);
            }
            _ => self.tell(&packet.key, reason, &packet.quote()),
        }
    }

    fn tell(&mut self, key: &Key, reason: Reason, quote: &[u8]) {
        let step = key.step.ip();
        let gateway = self.place.gateways.iter().find(|gateway| gateway.is_ipv4() == step.is_ipv4());
        if let Some(gateway) = gateway {
            answer::unreachable(&mut self.out, *gateway, step, reason, quote);
        }
    }

    /// The flow that a packet belongs to, or a new one; none where the packet has done all that it can.
    fn flow_of(&mut self, packet: &Packet<'_>, to: SocketAddr) -> Result<Option<u64>, Reason> {
        let key = packet.key;
        if let Some(number) = self.numbers.get(&key).copied() {
            let is_over = match (self.flows.get(&number).map(|flow| &flow.body), &packet.content) {
                (Some(Body::Connection(connection)), Content::Segment(segment)) => {
                    let is_over = connection.is_replaced_by(segment);
                    if is_over {
                        connection.give_up();
                    }
                    is_over
                }
                _ => false,
            };
            if !is_over {
                return Ok(Some(number));
            }
            self.end(number);
        }
        let is_first = match &packet.content {
            Content::Segment(segment) => segment.syn() && !segment.ack() && !segment.rst() && !segment.fin(),
            Content::Datagram(_) | Content::Echo(_) => true,
        };
        if !is_first {
            return Err(Reason::Port);
        }
        let taken = self.make_room(key.kind).ok_or(Reason::Forbidden)?;
        let host = self.dial.dial(key.kind, to).map_err(|error| match error {
            Errno::CONNREFUSED => Reason::Port,
            Errno::NETUNREACH => Reason::Network,
            Errno::HOSTUNREACH => Reason::Host,
            _ => Reason::Forbidden,
        })?;
        let (now, number) = (self.now(), self.next);
        let body = match key.kind {
            Kind::Stream => {
                let (seed, quote) = (self.seed.hash_one((key, number)), packet.quote());
                let (first, out) = (packet.whole, &mut self.out);
                let begin = || Connection::begin(&key, first, quote, host, seed, now, out).map(Box::new);
                let begun = catch_unwind(AssertUnwindSafe(begin)).unwrap_or(None);
                Body::Connection(begun.ok_or(Reason::Port)?)
            }
            Kind::Datagram | Kind::Echo => Body::Exchange(Exchange::begin(host, packet.quote(), now)),
        };
        use epoll::EventFlags as Flags;
        let (socket, flags) = match &body {
            Body::Connection(connection) => {
                (connection.host(), Flags::IN | Flags::OUT | Flags::RDHUP | Flags::ET)
            }
            Body::Exchange(exchange) => (exchange.host(), Flags::IN),
        };
        let added = epoll::add(&self.events, socket, epoll::EventData::new_u64(number), flags);
        added.map_err(|_| Reason::Forbidden)?;
        self.next += 1;
        self.connections += usize::from(key.kind == Kind::Stream);
        self.told.most.fetch_max(self.connections, Ordering::Relaxed);
        self.numbers.insert(key, number);
        let is_connection = matches!(body, Body::Connection(_));
        self.flows.insert(number, Flow { key, body, deadline: None, _taken: taken });
        if is_connection {
            return Ok(None);
        }
        Ok(Some(number))
    }

    /// Room for one more of a kind. The exchange that has been quiet the longest makes room for a new one.
    fn make_room(&mut self, kind: Kind) -> Option<Taken> {
        if kind == Kind::Stream {
            return if self.connections < CONNECTIONS.min(self.room.share) { self.room.take() } else { None };
        }
        let taken = if self.flows.len() - self.connections < EXCHANGES { self.room.take() } else { None };
        taken.or_else(|| {
            let deadlines = self.flows.iter().filter_map(|(number, flow)| match &flow.body {
                Body::Exchange(exchange) => Some((exchange.deadline, *number)),
                Body::Connection(_) => None,
            });
            let (_, quietest) = deadlines.min()?;
            self.end(quietest);
            self.room.take()
        })
    }

    /// Gives a packet to its flow.
    fn carry(&mut self, number: u64, packet: &Packet<'_>) {
        let now = self.now();
        let Some(flow) = self.flows.get_mut(&number) else { return };
        let said = match (&mut flow.body, &packet.content) {
            (Body::Connection(connection), Content::Segment(segment)) => {
                let out = &mut self.out;
                let took =
                    catch_unwind(AssertUnwindSafe(|| connection.take(packet.whole, segment, now, out)));
                if took.is_err() {
                    connection.give_up();
                    return self.end(number);
                }
                Ok(())
            }
            (Body::Exchange(exchange), Content::Datagram(message) | Content::Echo(message)) => {
                exchange.say(message, now)
            }
            _ => Ok(()),
        };
        self.awake.insert(number);
        if let Err(reason) = said {
            self.tell(&packet.key, reason, &packet.quote());
        }
    }

    /// Gives a turn to everybody who wants one.
    pub fn take_turns(&mut self) {
        let now = self.now();
        while let Some((deadline, number)) = self.timers.first().copied() {
            if deadline > now {
                break;
            }
            self.timers.pop_first();
            self.awake.insert(number);
        }
        for number in std::mem::take(&mut self.awake) {
            self.take_turn(number);
        }
    }

    fn take_turn(&mut self, number: u64) {
        let now = self.now();
        let Some(flow) = self.flows.get_mut(&number) else { return };
        let (key, out) = (flow.key, &mut self.out);
        let turn = match &mut flow.body {
            Body::Connection(connection) => {
                // A fault of the library's ends the connection and nothing else.
                let turn = catch_unwind(AssertUnwindSafe(|| connection.turn(&key, now, out)));
                turn.unwrap_or_else(|_| {
                    connection.give_up();
                    Turn::Over
                })
            }
            Body::Exchange(exchange) if exchange.deadline <= now => Turn::Over,
            Body::Exchange(exchange) => {
                match exchange.hear(&key, now, &mut self.buffer, out) {
                    Ok(false) => {}
                    Ok(true) => drop(self.awake.insert(number)),
                    Err(reason) => {
                        let quote: Box<[u8]> = exchange.quote().into();
                        let deadline = exchange.deadline;
                        self.tell(&key, reason, &quote);
                        return self.set_timer(number, Some(deadline));
                    }
                }
                Turn::GoesOn(Some(exchange.deadline))
            }
        };
        match turn {
            Turn::GoesOn(deadline) => self.set_timer(number, deadline),
            Turn::Over => self.end(number),
            Turn::Failed(reason) => {
                let quote: Box<[u8]> = match &flow.body {
                    Body::Connection(connection) => connection.quote().into(),
                    Body::Exchange(exchange) => exchange.quote().into(),
                };
                self.tell(&key, reason, &quote);
                self.end(number);
            }
        }
    }

    fn set_timer(&mut self, number: u64, deadline: Option<Duration>) {
        let Some(flow) = self.flows.get_mut(&number) else { return };
        if let Some(before) = std::mem::replace(&mut flow.deadline, deadline) {
            self.timers.remove(&(before, number));
        }
        if let Some(deadline) = deadline {
            self.timers.insert((deadline, number));
        }
    }

    fn end(&mut self, number: u64) {
        let Some(flow) = self.flows.remove(&number) else { return };
        self.connections -= usize::from(flow.key.kind == Kind::Stream);
        self.numbers.remove(&flow.key);
        self.awake.remove(&number);
        if let Some(deadline) = flow.deadline {
            self.timers.remove(&(deadline, number));
        }
    }
}
