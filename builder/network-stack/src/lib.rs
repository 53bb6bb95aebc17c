//! A network in user space: what a step's packets ask for is done with sockets of the host.
//!
//! [`Stack`] reads frames from a wire and answers on it as the world would. Each connection has a TCP of its own
//! (`smoltcp`), so that what one does costs the others nothing and no packet of one reaches the state of another. The wire
//! is a descriptor: a packet socket on a pair of virtual interfaces for a step, a pair of sockets for a test.
//!
//! | file | |
//! |---|---|
//! | `serve.rs` | the loop: frames, sockets of the host, timers |
//! | `connection.rs` | one connection of TCP |
//! | `exchange.rs` | datagrams and echoes between a step and one other |
//! | `rules.rs` | where a packet may go |
//! | `packet.rs` | what a packet asks for |
//! | `answer.rs` | what is said to one that cannot be done |
//! | `wire.rs` | frames |
//! | `host.rs` | sockets of the host |
//!
//! A step may send whatever it likes. Nothing that it sends is trusted, and all that is kept for it is bounded: by [`Room`] for a
//! build, and for each stack by the numbers in `serve.rs`.

mod answer;
mod connection;
mod exchange;
mod host;
mod packet;
mod rules;
mod serve;
mod wire;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

pub use host::{Dial, Kind, Sockets};
pub use rules::Place;
use serve::Serve;
pub use wire::{HEADER, MTU, STEP_ADDRESS};

/// How many sockets of the host all stacks of a build may have together.
#[derive(Debug)]
pub struct Room {
    left: AtomicUsize,
    /// The most connections of one stack.
    share: usize,
}

impl Room {
    /// Room for so many. No stack may have more than a quarter of it for connections: what one step holds, others do not lack.
    pub fn new(sockets: usize) -> Room {
        Room { left: AtomicUsize::new(sockets), share: sockets / 4 }
    }

    /// Room for one more, if there is.
    fn take(self: &Arc<Room>) -> Option<Taken> {
        let less = |left: usize| left.checked_sub(1);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).ok()?;
        Some(Taken(self.clone()))
    }
}

/// Room that is given back when this is dropped.
#[derive(Debug)]
struct Taken(Arc<Room>);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.left.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the threads are called that carry packets. One that panics goes on: a connection ends, or all of them do.
pub const THREAD: &str = "kiln-packets";

/// How long is waited for the thread: longer than it takes, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the thread is told, and what it tells.
#[derive(Debug)]
struct Told {
    is_over: AtomicBool,
    /// Nobody wants what the step still has to say.
    is_in_vain: AtomicBool,
    /// How often everything was to be forgotten.
    generation: AtomicU64,
    /// How often everything is forgotten.
    forgotten: Mutex<u64>,
    changed: Condvar,
    has_ended: AtomicBool,
    /// The most connections at once since somebody asked.
    most: AtomicUsize,
    /// Wakes the thread.
    bell: OwnedFd,
}

/// A thread that carries the packets of one wire. It ends when this is dropped, or the wire is no more.
#[derive(Debug)]
pub struct Stack {
    told: Arc<Told>,
    thread: Option<JoinHandle<()>>,
}

impl Stack {
    /// Starts it. Its sockets are in the network namespace of the caller.
    ///
    /// # Errors
    /// The kernel lacks something that it needs.
    pub fn start(wire: OwnedFd, place: Place, dial: Box<dyn Dial>, room: Arc<Room>) -> io::Result<Stack> {
        let told = Arc::new(Told {
            is_over: AtomicBool::new(false),
            is_in_vain: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            forgotten: Mutex::new(0),
            changed: Condvar::new(),
            has_ended: AtomicBool::new(false),
            most: AtomicUsize::new(0),
            bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        });
        let mut serve = Serve::new(wire, place, dial, room, told.clone())?;
        let end = End(told.clone());
        let work = move || {
            let _end = end;
            serve.run();
        };
        let thread = thread::Builder::new().name(THREAD.to_owned()).spawn(work)?;
        Ok(Stack { told, thread: Some(thread) })
    }

    /// Everything that was under way is given up: nothing of a step reaches the next. To be called when no process of the
    /// step is left. What they said before they ended is carried to its end, for some seconds at most, unless that is in vain.
    pub fn forget(&self) {
        let wanted = self.told.generation.fetch_add(1, Ordering::AcqRel) + 1;
        self.told.ring();
        let forgotten = self.told.forgotten.lock().unwrap_or_else(PoisonError::into_inner);
        let is_missing = |forgotten: &mut u64| *forgotten < wanted && !self.has_ended();
        // Whoever asks whether it serves the next step sees what came of it.
        drop(self.told.changed.wait_timeout_while(forgotten, PATIENCE, is_missing));
    }

    /// The most connections that there were at once since this was asked the last time. The memory of each is some hundred KiB.
    pub fn take_most(&self) -> usize {
        self.told.most.swap(0, Ordering::Relaxed)
    }

    /// Nothing more is carried on when the step has ended: it was for nobody.
    pub fn give_up(&self) {
        self.told.is_in_vain.store(true, Ordering::Release);
    }

    /// Whether nothing is under way that was to be forgotten.
    pub fn has_forgotten(&self) -> bool {
        let forgotten = *self.told.forgotten.lock().unwrap_or_else(PoisonError::into_inner);
        forgotten == self.told.generation.load(Ordering::Acquire)
    }

    /// Whether nobody carries packets any more.
    pub fn has_ended(&self) -> bool {
        self.told.has_ended.load(Ordering::Acquire)
    }
}

/// That nobody carries packets any more; said when this is dropped, so by a thread that panics too.
struct End(Arc<Told>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.has_ended.store(true, Ordering::Release);
        // So that nobody who is about to wait misses it.
        drop(self.0.forgotten.lock());
        self.0.changed.notify_all();
    }
}

impl Told {
    fn tell_forgotten(&self, generation: u64) {
        *self.forgotten.lock().unwrap_or_else(PoisonError::into_inner) = generation;
        self.changed.notify_all();
    }

    fn ring(&self) {
        // It fails only where the bell has rung and nobody has heard it yet.
        let _rung = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.told.is_over.store(true, Ordering::Release);
        self.told.ring();
        if let Some(thread) = self.thread.take() {
            // What panics in it is caught there; here is nobody to be told.
            let _ended = thread.join();
        }
    }
}
