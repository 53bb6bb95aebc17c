//! The first process of the step to come, cloned while the present one runs.
//!
//! Making namespaces takes the kernel as long as some tens of system calls, and the next step would wait for that. A spare is in
//! those that nearly every step has, and waits there for what the zygote would otherwise carry out itself: an order, as it
//! came. It is a child of the caller's, as every step is.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::{Asked, PATIENCE, RawOrder};
use crate::child::ranges_between;
use crate::devices::DeviceFilter;
use crate::sys::{self, Cloned, Stack};
use crate::{Call, Namespaces};

/// Whether a step of this plan can be what a spare becomes: in the same namespaces, and in no control group from its birth.
pub(super) fn suits(calls: &[Call]) -> bool {
    let usual = Call::Clone { namespaces: Namespaces::of_a_step(false) };
    calls.first() == Some(&usual)
        && !calls.iter().any(|call| matches!(call, Call::JoinGroup { unified: true, .. }))
}

/// A process that waits for its order.
struct Spare {
    socket: OwnedFd,
    process: OwnedFd,
}

/// The spare, if there is one. It sees the mounts that there were when it was cloned, so it is of use until they change.
pub(super) struct Spares {
    waiting: Option<Spare>,
    /// Tells that the mounts of this process have changed. Without it there are no spares.
    mounts: Option<File>,
}

impl Spares {
    pub fn new() -> Spares {
        Spares { waiting: None, mounts: File::open("/proc/self/mounts").ok() }
    }

    /// Clones the next one. Where that fails nobody is told: the next order is carried out without it.
    pub fn make(&mut self, stack: &Stack, filter: Option<&DeviceFilter>) {
        // From here on a change makes it void.
        if self.mounts_changed().is_some() {
            self.waiting = Spare::clone(stack, filter);
        }
    }

    /// Gives an order to the spare, which is then the step's first process. `None` where there is none that suits; the order
    /// is as it was then.
    pub fn take(&mut self, order: &RawOrder) -> Option<OwnedFd> {
        if self.mounts_changed() != Some(false) || !order.is_usual() {
            return None;
        }
        let Spare { socket, process } = self.waiting.take()?;
        order.pass_on(socket.as_fd()).ok()?;
        Some(process)
    }

    /// Whether the mounts have changed since the last time that this was asked; `None` where nobody knows.
    fn mounts_changed(&self) -> Option<bool> {
        let mut watched = [PollFd::new(self.mounts.as_ref()?, PollFlags::PRI)];
        let changed = poll(&mut watched, Some(&Timespec::default())).ok()?;
        Some(changed > 0)
    }

    /// Ends the one that waits, and gives its process, for its parent to see it ended.
    pub fn end(&mut self) -> Option<OwnedFd> {
        let Spare { socket, process } = self.waiting.take()?;
        drop(socket);
        let mut end = [PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)];
        let _ended = poll(&mut end, Some(&PATIENCE));
        Some(process)
    }
}

impl Spare {
    fn clone(stack: &Stack, filter: Option<&DeviceFilter>) -> Option<Spare> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).ok()?;
        let flags = Namespaces::of_a_step(false).bits() as i32 | libc::CLONE_PARENT;
        match sys::clone_process(flags, filter.and_then(DeviceFilter::group)).ok()? {
            Cloned::Child => {
                drop(ours);
                // What is the zygote's stack must not be returned to.
                let _ended = catch_unwind(AssertUnwindSafe(|| wait(&theirs, stack)));
                sys::exit(1)
            }
            Cloned::Parent(process) => Some(Spare { socket: ours, process }),
        }
    }
}

/// What a spare does: waits for its order and carries it out, or ends with the zygote.
fn wait(socket: &OwnedFd, stack: &Stack) {
    let _ = rustix::thread::set_name(c"kiln-spare");
    // The zygote's own socket among them: whoever has it keeps the caller from seeing the zygote's end.
    for (first, last) in ranges_between(&mut [socket.as_raw_fd() as u32]) {
        if sys::close_range(first, last, false).is_err() {
            return;
        }
    }
    if let Ok(Asked::ForStep(order)) = Asked::receive(socket.as_fd())
        && let Some(order) = order.read()
    {
        order.become_step(stack);
    }
}
