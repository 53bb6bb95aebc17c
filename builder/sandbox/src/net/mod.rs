//! Networks of steps: namespaces of their own, from which they reach what the host reaches and not each other.
//!
//! [`Networks`] are those of one build. A step announces that it will want one, a thread makes it while the rest of the step
//! is prepared, and the step takes it ([`Announced::take`]); when all of it has ended, the next may have it. What it costs to ask the kernel for a
//! namespace, some interfaces and a table is so paid once, and beside the steps.
//!
//! | file | |
//! |---|---|
//! | `way.rs` | which ways to a network there are, and which one this machine has |
//! | `refusal.rs` | why it has none |
//! | `namespace.rs` | one namespace, and its way out |
//! | `host.rs` | what there is on the host |
//! | `pasta.rs` | the way by a program |
//! | `helper.rs` | a program that serves a namespace: how it starts and ends |
//! | `stack.rs` | the way by Kiln's own threads |
//! | `nat.rs` | the way through the host's kernel: what is made once for a build |
//! | `nft.rs` | the rules by which the host translates the steps' addresses |
//! | `firewall.rs` | whether the host's own rules would drop their packets |
//! | `forwarding.rs` | the switches by which a host forwards |
//! | `range.rs` | which addresses they get |
//! | `route.rs`, `netlink.rs` | the kernel's language |
//!
//! Nothing is left on the host, however a build ends: a namespace goes with its last descriptor, with it both of its
//! interfaces and their routes, the table goes with its socket, a program is killed by the kernel, and threads are Kiln's own. The switches are put back
//! by the next build.

mod firewall;
mod forwarding;
mod helper;
mod host;
mod namespace;
mod nat;
mod netlink;
mod nft;
mod pasta;
mod range;
mod refusal;
mod route;
mod stack;
mod way;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use namespace::Namespace;
pub use network_stack::THREAD as PACKETS;
pub use refusal::{Refusal, Unavailable};
use way::Open;
pub use way::{Surroundings, Way};

/// With what the names of all interfaces and tables begin.
const PREFIX: &str = "kiln";

/// The most namespaces of a build at once: as many as a range has addresses for, less those that are being taken down.
const MOST: usize = 128;

/// The networks of a build's steps.
#[derive(Debug)]
pub struct Networks {
    shared: Arc<Shared>,
    maker: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    /// Where programs are looked for.
    programs: OsString,
    state: Mutex<State>,
    changed: Condvar,
}

/// What the steps and the thread that makes namespaces tell each other.
#[derive(Debug, Default)]
struct State {
    idle: VecDeque<Namespace>,
    /// How many there are, those in use included.
    made: usize,
    /// How many steps wait for one, or soon will.
    wanted: usize,
    /// Known when there is the first.
    surroundings: Option<Surroundings>,
    failed: Option<Unavailable>,
    is_over: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Networks {
    /// No network yet. Builds that switch on forwarding agree on it by files in `folder`, which is the same for all builds
    /// of the host and is emptied when it restarts. The program `pasta` is looked for in `programs`, which is a `PATH`.
    pub fn new(folder: PathBuf, programs: OsString) -> Networks {
        let shared = Shared { folder, programs, state: Mutex::default(), changed: Condvar::new() };
        Networks { shared: Arc::new(shared), maker: Mutex::default() }
    }

    /// A step will want a network: one is made while the step's other things are prepared.
    pub fn announce(&self) -> Announced {
        self.shared.lock().wanted += 1;
        self.start();
        Announced { shared: self.shared.clone() }
    }

    /// No step will want one any more. The host's side is taken down from here on, beside whatever the build still does:
    /// the kernel waits some milliseconds until nobody uses the rules.
    pub fn finish(&self) {
        self.shared.lock().is_over = true;
        self.shared.changed.notify_all();
    }

    /// Starts the thread that makes them, once.
    fn start(&self) {
        let mut maker = self.maker.lock().unwrap_or_else(PoisonError::into_inner);
        if maker.is_some() {
            self.shared.changed.notify_all();
            return;
        }
        let shared = self.shared.clone();
        match thread::Builder::new().name("kiln-network".to_owned()).spawn(move || make_networks(&shared)) {
            Ok(thread) => *maker = Some(thread),
            Err(error) => {
                let reason = error.to_string();
                let refusal = Refusal::Kernel { what: "starting a thread", reason };
                self.shared.lock().failed = Some(Unavailable::at_first(vec![(Way::Nat, refusal)]));
            }
        }
    }
}

impl Drop for Networks {
    fn drop(&mut self) {
        self.finish();
        let maker = self.maker.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(maker) = maker {
            // It does not panic; if it did, there is nothing to be told here.
            let _ended = maker.join();
        }
    }
}

/// A step that will want a network.
#[derive(Debug)]
pub struct Announced {
    shared: Arc<Shared>,
}

impl Announced {
    /// Its network. With `fresh`, one that no step had and no other will have. Waits until there is one.
    ///
    /// # Errors
    /// Steps of this build cannot have any: the same at every call.
    pub fn take(self, fresh: bool) -> Result<Network, Unavailable> {
        let mut state = self.shared.lock();
        loop {
            let taken = state.idle.pop_front();
            if let (Some(namespace), Some(surroundings)) = (taken, state.surroundings) {
                if (fresh && !namespace.is_new) || namespace.is_abandoned() {
                    state.made -= 1;
                    self.shared.changed.notify_all();
                    continue;
                }
                let shared = self.shared.clone();
                return Ok(Network { namespace, surroundings, is_thrown_away: fresh, shared });
            }
            if let Some(failed) = &state.failed {
                return Err(failed.clone());
            }
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        self.shared.lock().wanted -= 1;
    }
}

/// What the thread does: makes namespaces, until the build is over.
fn make_networks(shared: &Shared) {
    let fail = |unavailable| {
        shared.lock().failed = Some(unavailable);
        shared.changed.notify_all();
    };
    let (mut way, first) = match Open::find(&shared.folder, &shared.programs) {
        Ok(found) => found,
        Err(unavailable) => return fail(unavailable),
    };
    let mut most = MOST;
    let mut state = shared.lock();
    state.surroundings = Some(way.surroundings());
    state.made += 1;
    state.idle.push_back(first);
    shared.changed.notify_all();
    drop(state);
    loop {
        let mut state = shared.lock();
        while !state.is_over && (state.idle.len() >= state.wanted || state.made >= most) {
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.is_over {
            return;
        }
        state.made += 1;
        drop(state);
        match way.namespace() {
            Ok(namespace) => {
                let mut state = shared.lock();
                state.idle.push_back(namespace);
                shared.changed.notify_all();
            }
            Err(unavailable) => {
                let mut state = shared.lock();
                state.made -= 1;
                if state.made > 0 {
                    // The steps take turns with those that there are.
                    most = state.made;
                    continue;
                }
                drop(state);
                return fail(unavailable);
            }
        }
    }
}

/// The network of a step. To be dropped when no process of the step is left: the next step may have it then.
#[derive(Debug)]
pub struct Network {
    /// The descriptors are shared with the one that is given back.
    namespace: Namespace,
    surroundings: Surroundings,
    is_thrown_away: bool,
    shared: Arc<Shared>,
}

impl Network {
    /// Its namespace.
    pub fn descriptor(&self) -> Arc<OwnedFd> {
        self.namespace.descriptor.clone()
    }

    /// What carries its packets.
    pub fn way(&self) -> Way {
        self.namespace.way()
    }

    /// The step was cancelled: what it still has to say is carried to nobody.
    pub fn give_up(&self) {
        self.namespace.give_up();
    }

    /// What the step is to be told of it.
    pub fn surroundings(&self) -> Surroundings {
        self.surroundings
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let namespace = self.namespace.used();
        let may_be_used = !self.is_thrown_away && namespace.is_clean();
        let mut state = self.shared.lock();
        if may_be_used {
            // The one that was used last is the one that the processor's caches know.
            state.idle.push_front(namespace);
        } else {
            state.made -= 1;
        }
        self.shared.changed.notify_all();
    }
}
