//! A small process that clones the steps of a large one.
//!
//! A clone without shared memory copies the caller's page tables, and from then on every page that either of the two writes to
//! costs a fault and a copy. A build holds tens of megabytes and has many threads, which makes that the largest part of
//! what a short step takes. The zygote is forked while there is one thread and next to no memory, has nothing to do but to
//! clone, and stays that small.
//!
//! ```text
//! caller ── plan, descriptors ──► zygote ── clone3(CLONE_PARENT) ──► PID 1 of the step: a child of the caller's
//!        ◄── pidfd ─────────────
//! ```
//!
//! What would surprise a reader:
//!
//! - It may allocate, unlike a step's child: it was the only thread when it was forked, so nobody held a lock.
//! - A step is the caller's child and not the zygote's, by `CLONE_PARENT`, and has no exit signal because the zygote has
//!   none. So who waits for it, kills it or ends with it need not know who made it.
//! - It ends when the caller's end of the socket is closed, however the caller ends. It blocks every signal: Ctrl-C at a
//!   terminal is for the caller.
//! - Where it cannot be told what to clone, a step is cloned by the caller itself; where it was told and does not answer, by
//!   nobody, because there may be one.

mod spare;

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType, recv, recvmsg, send, sendmsg,
    shutdown, socketpair,
};
use rustix::process::{DumpableBehavior, WaitId, WaitIdOptions, waitid};

use zeroize::Zeroizing;

use crate::child::{NAME, ranges_between};
use crate::devices::DeviceFilter;
use crate::forget::Confided;
use crate::start::{Gear, child, clone, command_line, host, no_namespaces, start_by};
use crate::stdio::Streams;
use crate::sys::{self, Cloned, SharedBoard, Stack};
use crate::{Call, Error, Kernel, Running, Spec, Stdio, wire};

use spare::{Spares, suits};

/// The most descriptors of an order: the board, two pipes' ends, three streams, two sockets and a network namespace.
const DESCRIPTORS: usize = 9;
/// How an order begins: the plan's length in bytes, and which of the optional descriptors there are.
const HEADER_BYTES: usize = 9;
/// How long its end is waited for until it is killed.
const PATIENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// Beside the optional descriptors: the step is one that a spare can become.
const USUAL: u8 = 1 << 7;
/// Instead of a plan's length: keep what is cloned from devices.
const FILTER_DEVICES: u64 = u64::MAX;
/// The answer of a zygote that could not even try; any other is the error of the clone, or 0.
const FAILED: i32 = -1;

/// A small process that clones steps, until this is dropped.
#[derive(Debug)]
pub struct Zygote {
    /// One order at a time.
    socket: Mutex<OwnedFd>,
    process: OwnedFd,
    filters_devices: OnceLock<bool>,
}

impl Zygote {
    /// Forks it: as early as possible, before there are threads and memory grows. `None` where there are threads already, for
    /// a fork of those may neither allocate nor lock.
    ///
    /// # Errors
    /// There can be no further process or descriptor.
    pub fn fork() -> Result<Option<Zygote>, Error> {
        if !has_one_thread() {
            return Ok(None);
        }
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(host("socketpair"))?;
        let blocked = sys::block_signals();
        match sys::clone_process(0, None).map_err(host("clone3"))? {
            Cloned::Child => {
                // Whatever happens, what is the caller's stack must not be returned to.
                let _ended = catch_unwind(AssertUnwindSafe(|| serve(&theirs)));
                sys::exit(1)
            }
            Cloned::Parent(process) => {
                drop(blocked);
                Ok(Some(Zygote { socket: Mutex::new(ours), process, filters_devices: OnceLock::new() }))
            }
        }
    }

    /// As [`start`](crate::start), by way of the zygote.
    ///
    /// # Errors
    /// As [`start`](crate::start).
    pub fn start(&self, spec: &Spec, stdio: Stdio) -> Result<Running, Error> {
        start_by(spec, stdio, Kernel::get(), Some(self))
    }

    /// Whether what it clones cannot open a device that a container may not have. Asked of it once, before its first order:
    /// it makes a control group for that, and clones into it.
    pub(crate) fn filters_devices(&self) -> bool {
        *self.filters_devices.get_or_init(|| {
            let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
            let header = order_header(FILTER_DEVICES, 0);
            let told = tell(socket.as_fd(), &[IoSlice::new(&header)], &[]);
            let answer = told.and_then(|()| hear::<{ size_of::<i32>() }>(socket.as_fd()));
            matches!(answer, Ok((answer, _)) if i32::from_ne_bytes(answer) == 0)
        })
    }

    /// Has the process of a plan cloned. `None` where the zygote does not do it, so that somebody else may.
    pub(crate) fn clone_step(
        &self,
        calls: &[Call],
        gear: &Gear,
    ) -> Option<Result<(OwnedFd, SharedBoard), Error>> {
        let (board, file) = SharedBoard::with_file().ok()?;
        let plan = Zeroizing::new(wire::encode(calls));
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let is_usual = suits(calls);
        if ask(socket.as_fd(), &plan, is_usual, file.as_fd(), gear).is_err() {
            // What was sent of this order must not be taken for a part of it with the next one.
            let _told = shutdown(&*socket, Shutdown::Both);
            return None;
        }
        let unheard = |errno| Some(Err(host("recvmsg")(errno)));
        let (answer, mut descriptors) = match hear::<{ size_of::<i32>() }>(socket.as_fd()) {
            Ok(answer) => answer,
            // It ended before it had read all of the order. After that it may have cloned: another one would write to
            // the same folders.
            Err(Errno::CONNRESET) => return None,
            Err(Errno::PIPE) => return Some(Err(Error::Died)),
            Err(errno) => return unheard(errno),
        };
        match (i32::from_ne_bytes(answer), descriptors.pop()) {
            (0, Some(process)) => Some(Ok((process, board))),
            (FAILED, _) => None,
            // The kernel leaves out descriptors for which there is no number.
            (0, None) => unheard(Errno::MFILE),
            (errno, _) => Some(Err(no_namespaces(calls, Errno::from_raw_os_error(errno)))),
        }
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        // It ends when it has read this, also where no signal can be sent to it.
        let socket = self.socket.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _told = shutdown(&*socket, Shutdown::Write);
        // It is given time to tidy up behind itself; a stopped one hears nothing but this. Where it fails it has ended already.
        let end = PollFd::from_borrowed_fd(self.process.as_fd(), PollFlags::IN);
        let _ended = poll(&mut [end], Some(&PATIENCE));
        let _killed = sys::send_signal(self.process.as_fd(), libc::SIGKILL);
        bury(self.process.as_fd());
        // Its last word: a spare that nobody needed, which is a child of this process.
        let _told = shutdown(&*socket, Shutdown::Read);
        if let Ok((_, spares)) = hear::<{ size_of::<i32>() }>(socket.as_fd()) {
            spares.iter().for_each(|spare| bury(spare.as_fd()));
        }
    }
}

/// Waits for the end of a child that has none of the usual ways to tell of it.
fn bury(process: BorrowedFd<'_>) {
    let options = WaitIdOptions::EXITED | WaitIdOptions::from_bits_retain(libc::__WALL as u32);
    while matches!(waitid(WaitId::PidFd(process), options), Err(Errno::INTR)) {}
}

/// Whether this is the only thread of the process.
fn has_one_thread() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1)
}

/// Sends an order.
fn ask(
    socket: BorrowedFd<'_>,
    plan: &[u8],
    is_usual: bool,
    board: BorrowedFd<'_>,
    gear: &Gear,
) -> Result<(), Errno> {
    let Streams { stdin, stdout, stderr } = &gear.streams;
    let optional = [stdin, stdout, stderr, &gear.console, &gear.network, &gear.listener];
    let there = (0..).zip(optional).fold(0_u8, |mask, (bit, fd)| mask | u8::from(fd.is_some()) << bit);
    let header = order_header(plan.len() as u64, if is_usual { there | USUAL } else { there });
    let needed = [board, gear.alive.as_fd(), gear.life.as_fd()];
    let descriptors: Vec<_> =
        needed.into_iter().chain(optional.into_iter().flatten().map(AsFd::as_fd)).collect();
    tell(socket, &[IoSlice::new(&header), IoSlice::new(plan)], &descriptors)
}

/// How an order begins.
fn order_header(length: u64, there: u8) -> [u8; HEADER_BYTES] {
    let [a, b, c, d, e, f, g, h] = length.to_ne_bytes();
    [a, b, c, d, e, f, g, h, there]
}

/// Sends bytes, and descriptors with the first of them.
fn tell(socket: BorrowedFd<'_>, bytes: &[IoSlice<'_>], descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    // A signal interrupts before anything is sent, or not at all.
    let mut sent = loop {
        match sendmsg(socket, bytes, &mut control, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    for part in bytes {
        let already = sent.min(part.len());
        sent -= already;
        let mut left = part.get(already..).unwrap_or_default();
        while !left.is_empty() {
            match send(socket, left, SendFlags::NOSIGNAL) {
                Ok(length) => left = left.get(length..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(())
}

/// Receives a message of this many bytes, and the descriptors that come with it.
fn hear<const LENGTH: usize>(socket: BorrowedFd<'_>) -> Result<([u8; LENGTH], Vec<OwnedFd>), Errno> {
    let mut bytes = [0_u8; LENGTH];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    loop {
        let mut data = [IoSliceMut::new(&mut bytes)];
        match recvmsg(socket, &mut data, &mut control, RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL) {
            Err(Errno::INTR) => {}
            Ok(message) if message.bytes < LENGTH => return Err(Errno::PIPE),
            Ok(_) => break,
            Err(errno) => return Err(errno),
        }
    }
    let mut descriptors = Vec::with_capacity(DESCRIPTORS);
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    Ok((bytes, descriptors))
}

/// What the zygote does: clones what it is told to, until there is nobody to tell it.
fn serve(socket: &OwnedFd) {
    for (first, last) in ranges_between(&mut [socket.as_raw_fd() as u32]) {
        if sys::close_range(first, last, false).is_err() {
            return;
        }
    }
    // As of a step's PID 1, which is a copy of this process: see there.
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = rustix::thread::set_name(c"kiln-zygote");
    sys::hide_arguments(&command_line(), NAME.to_bytes());
    sys::hide_environment();
    let Ok(stack) = Stack::new() else { return };
    let mut filtered = None;
    let mut spares = Spares::new();
    while let Ok(asked) = Asked::receive(socket.as_fd()) {
        let Asked::ForStep(order) = asked else {
            filtered = filtered.or_else(DeviceFilter::make);
            let answer = if filtered.is_some() { 0 } else { FAILED };
            if tell(socket.as_fd(), &[IoSlice::new(&answer.to_ne_bytes())], &[]).is_err() {
                break;
            }
            continue;
        };
        // What came is overwritten when this is done: the next spare is a copy of all that there is then.
        let cloned = match spares.take(&order) {
            Some(process) => {
                drop(order);
                Some(Ok(process))
            }
            None => order.read().and_then(|order| order.carry_out(&stack, filtered.as_ref())),
        };
        let answer = match &cloned {
            Some(Ok(_)) => 0,
            Some(Err(errno)) => errno.raw_os_error(),
            None => FAILED,
        };
        let process = cloned.and_then(Result::ok);
        let descriptors: Vec<_> = process.iter().map(AsFd::as_fd).collect();
        if tell(socket.as_fd(), &[IoSlice::new(&answer.to_ne_bytes())], &descriptors).is_err() {
            break;
        }
        spares.make(&stack, filtered.as_ref());
    }
    let left = spares.end();
    if let Some(filter) = filtered {
        filter.remove();
    }
    if let Some(process) = left {
        let _told = tell(socket.as_fd(), &[IoSlice::new(&0_i32.to_ne_bytes())], &[process.as_fd()]);
    }
}

/// What a zygote is asked for.
enum Asked {
    /// To keep what it clones from devices.
    FilterDevices,
    /// To clone.
    ForStep(RawOrder),
}

impl Asked {
    /// Waits for the next one.
    fn receive(socket: BorrowedFd<'_>) -> Result<Asked, Errno> {
        let ([a, b, c, d, e, f, g, h, there], descriptors) = hear::<HEADER_BYTES>(socket)?;
        let length = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
        if length == FILTER_DEVICES {
            return Ok(Asked::FilterDevices);
        }
        let mut plan = Zeroizing::new(vec![0_u8; usize::try_from(length).map_err(|_| Errno::TOOBIG)?]);
        let mut read = 0;
        while let Some(rest) = plan.get_mut(read..).filter(|rest| !rest.is_empty()) {
            match recv(socket, rest, RecvFlags::WAITALL) {
                Ok((0, _)) => return Err(Errno::PIPE),
                Ok((length, _)) => read += length,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(Asked::ForStep(RawOrder { there, plan, descriptors }))
    }
}

/// An order as it came. It is overwritten when it is dropped.
struct RawOrder {
    /// Which of the optional descriptors there are, and [`USUAL`].
    there: u8,
    plan: Zeroizing<Vec<u8>>,
    descriptors: Vec<OwnedFd>,
}

impl RawOrder {
    /// What is to be cloned; none where the order cannot be carried out.
    fn read(self) -> Option<Order> {
        Order::of(&self.plan, self.there, self.descriptors)
    }

    /// Whether a spare can become what is ordered.
    fn is_usual(&self) -> bool {
        self.there & USUAL != 0
    }

    /// Sends it on.
    fn pass_on(&self, socket: BorrowedFd<'_>) -> Result<(), Errno> {
        let header = order_header(self.plan.len() as u64, self.there);
        let descriptors: Vec<_> = self.descriptors.iter().map(AsFd::as_fd).collect();
        tell(socket, &[IoSlice::new(&header), IoSlice::new(&self.plan)], &descriptors)
    }
}

/// What is to be cloned.
struct Order {
    calls: Confided,
    board: SharedBoard,
    gear: Gear,
}

impl Order {
    fn of(plan: &[u8], there: u8, descriptors: Vec<OwnedFd>) -> Option<Order> {
        let mut descriptors = descriptors.into_iter();
        let (board, alive, life) = (descriptors.next()?, descriptors.next()?, descriptors.next()?);
        let mut optional = |bit: u8| match there & 1 << bit {
            0 => Some(None),
            _ => descriptors.next().map(Some),
        };
        let streams = Streams { stdin: optional(0)?, stdout: optional(1)?, stderr: optional(2)? };
        let (console, network, listener) = (optional(3)?, optional(4)?, optional(5)?);
        let gear = Gear { streams, alive, life, console, network, listener };
        Some(Order {
            calls: Confided::new(wire::decode(plan)?),
            board: SharedBoard::open(board.as_fd()).ok()?,
            gear,
        })
    }

    /// Clones the step's process, which becomes a child of the caller's.
    fn carry_out(self, stack: &Stack, filter: Option<&DeviceFilter>) -> Option<Result<OwnedFd, Errno>> {
        // The zygote has no command line any more that would have to be hidden.
        let child = child(&self.calls, &self.board, self.gear, stack, Vec::new()).ok();
        child.map(|child| clone(child, libc::CLONE_PARENT, filter))
    }

    /// Makes this process the step's first one. Returns where that cannot be; the caller hears that it ended.
    fn become_step(self, stack: &Stack) {
        if let Ok(child) = child(&self.calls, &self.board, self.gear, stack, Vec::new()) {
            child.run();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};
    use std::thread;

    use rustix::pipe::{PipeFlags, pipe_with};
    use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

    use super::*;

    type Answer = fn(OwnedFd);

    /// What comes of an order that somebody answers like this, and whether it was heard that nobody has it any more.
    fn answered(answer: Answer) -> Option<Result<(), Error>> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("sockets");
        let mut other = Command::new("/proc/self/exe");
        other.args(["--list", "--format", "terse"]).stdout(Stdio::null()).process_group(0);
        let other = Pid::from_child(&other.spawn().expect("this program can be executed"));
        // As Ctrl-Z would, if it were heard: it is ended all the same.
        kill_process(other, Signal::STOP).expect("it was not waited for");
        let process = pidfd_open(other, PidfdFlags::empty()).expect("it was not waited for");
        let zygote = Zygote { socket: Mutex::new(ours), process, filters_devices: OnceLock::new() };
        let (ended, alive) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
        let (life, _caller) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
        let streams = Streams { stdin: None, stdout: None, stderr: None };
        let gear = Gear { streams, alive, life, console: None, network: None, listener: None };
        let answerer = thread::spawn(move || answer(theirs));
        let heard = zygote.clone_step(&[Call::Spawn], &gear).map(|cloned| cloned.map(drop));
        answerer.join().expect("it does not panic");
        drop(gear);
        assert_eq!(rustix::io::read(&ended, &mut [0_u8]), Ok(0));
        heard
    }

    fn take_order(socket: &OwnedFd) {
        let Ok(Asked::ForStep(order)) = Asked::receive(socket.as_fd()) else { panic!("no order came") };
        assert_eq!(*order.read().expect("it can be read").calls, [Call::Spawn]);
    }

    fn say(socket: &OwnedFd, answer: i32) {
        tell(socket.as_fd(), &[IoSlice::new(&answer.to_ne_bytes())], &[]).expect("somebody listens");
    }

    #[test]
    fn nobody_else_clones_what_may_have_been_cloned() {
        let silent = answered(|socket| take_order(&socket));
        assert!(matches!(silent, Some(Err(Error::Died))), "{silent:?}");
        let without_process = answered(|socket| {
            take_order(&socket);
            say(&socket, 0);
        });
        let is_full = |source: &std::io::Error| source.raw_os_error() == Some(libc::EMFILE);
        assert!(
            matches!(&without_process, Some(Err(Error::Host { source, .. })) if is_full(source)),
            "{without_process:?}"
        );
    }

    #[test]
    fn somebody_else_clones_what_was_not() {
        let gone = answered(drop);
        assert!(gone.is_none(), "{gone:?}");
        let in_the_middle = answered(|socket| {
            let (header, descriptors) = hear::<HEADER_BYTES>(socket.as_fd()).expect("an order comes");
            assert_eq!((header[HEADER_BYTES - 1], descriptors.len()), (0, 3));
        });
        assert!(in_the_middle.is_none(), "{in_the_middle:?}");
        let unable = answered(|socket| {
            take_order(&socket);
            say(&socket, FAILED);
        });
        assert!(unable.is_none(), "{unable:?}");
    }

    #[test]
    fn why_it_could_not_be_cloned_is_told() {
        let table: [(Answer, &str); 2] = [
            (|socket| (take_order(&socket), say(&socket, libc::EAGAIN)).1, "clone(vfork) failed"),
            (
                |socket| (take_order(&socket), say(&socket, libc::EPERM)).1,
                "clone(vfork) failed; running a step needs root (CAP_SYS_ADMIN)",
            ),
        ];
        for (answer, told) in table {
            let Some(Err(error @ Error::Namespaces { .. })) = answered(answer) else { panic!("{told}") };
            assert_eq!(error.to_string(), told);
        }
    }
}
