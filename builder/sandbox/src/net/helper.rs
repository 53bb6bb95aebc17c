//! A program that serves a namespace: started with few rights, and gone when nobody wants it.
//!
//! It is the first process of a process namespace of its own, so that whatever it starts goes with it; and the kernel kills
//! it when the thread that started it ends, as it does when Kiln is killed.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Signal, WaitId, WaitIdOptions, chdir, pidfd_send_signal, set_parent_process_death_signal, setsid, waitid,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, configure_capability_in_ambient_set, set_capabilities,
    set_keep_capabilities,
};

use super::namespace::{Failed, failed};
use crate::sys::{self, Cloned, Strings};

/// As whom a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// As nobody, with no more than these capabilities.
    Nobody(CapabilitySet),
    /// As Kiln itself, with no more than these.
    Kept(CapabilitySet),
}

/// `nobody` and `nogroup`, wherever there are such names.
const NOBODY: u32 = 65534;

/// The most of what a program says that is read: more than a pipe holds.
const MOST_SAID: usize = 128 << 10;

/// What a child says that did not become the program: what failed, and the kernel's answer.
const FAILURES: [&str; 2] = ["it cannot be started", "it cannot be executed"];

/// A running program. Dropped, it is killed with all that it started.
#[derive(Debug)]
pub(crate) struct Helper {
    process: OwnedFd,
    said: OwnedFd,
    /// Where the child says that it did not become the program.
    unmade: OwnedFd,
    /// By which it knows on its way that Kiln was not killed.
    _alive: OwnedFd,
}

impl Helper {
    /// Starts a program, whose standard input is `stdin`, in the caller's network namespace. What it writes is kept as far as
    /// there is room, and it is never made to wait for somebody to read that.
    ///
    /// # Errors
    /// The call that failed. That the program cannot be executed is seen at its end.
    pub fn start(arguments: &[CString], stdin: BorrowedFd<'_>, identity: Identity) -> Result<Helper, Failed> {
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(failed("pipe2"));
        let ((said, output), (unmade, failure), (life, alive)) = (pipe()?, pipe()?, pipe()?);
        for end in [&said, &output, &unmade] {
            fcntl_setfl(end, OFlags::NONBLOCK).map_err(failed("fcntl(F_SETFL)"))?;
        }
        let no_environment = [];
        let child = Child {
            arguments: (Strings::new(arguments), Strings::new(&no_environment)),
            program: arguments,
            streams: [stdin, output.as_fd(), output.as_fd()],
            failure: failure.as_fd(),
            life: life.as_fd(),
            alive: alive.as_fd(),
            identity,
        };
        // As for a step: until it has reset them, the child has this program's handlers.
        let blocked = sys::block_signals();
        let cloned = sys::clone_process(libc::CLONE_NEWPID, None);
        match cloned.map_err(failed("clone(CLONE_NEWPID)"))? {
            Cloned::Child => child.run(),
            Cloned::Parent(process) => {
                drop(blocked);
                Ok(Helper { process, said, unmade, _alive: alive })
            }
        }
    }

    /// Waits until it has ended, no longer than this; whether it has.
    pub fn has_ended(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            let mut asked = [PollFd::new(&self.process, PollFlags::IN)];
            match poll(&mut asked, Some(&left)) {
                Err(Errno::INTR) => {}
                ready => return ready.is_ok_and(|ready| ready > 0),
            }
        }
    }

    /// What it has written since it was asked last, or why there is no such program.
    pub fn said(&self) -> String {
        let mut failure = [0; 5];
        if rustix::io::read(&self.unmade, &mut failure) == Ok(failure.len()) {
            let [what, errno @ ..] = failure;
            let what = FAILURES.get(usize::from(what)).copied().unwrap_or_default();
            let errno = std::io::Error::from_raw_os_error(i32::from_ne_bytes(errno));
            return format!("{what}: {errno}");
        }
        let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
        while text.len() < MOST_SAID {
            match rustix::io::read(&self.said, &mut buffer) {
                Ok(length) if length > 0 => text.extend(&buffer[..length]),
                Err(Errno::INTR) => {}
                _ => break,
            }
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // One that has ended cannot be killed, and need not be.
        let _killed = pidfd_send_signal(&self.process, Signal::KILL);
        let options = WaitIdOptions::EXITED | WaitIdOptions::from_bits_retain(libc::__WALL as u32);
        while matches!(waitid(WaitId::PidFd(self.process.as_fd()), options), Err(Errno::INTR)) {}
    }
}

/// What the new process needs; all is made before there is one, for it may not allocate.
struct Child<'a> {
    arguments: (Strings<'a>, Strings<'a>),
    program: &'a [CString],
    streams: [BorrowedFd<'a>; 3],
    failure: BorrowedFd<'a>,
    /// Ends with Kiln, as soon as nobody has `alive`.
    life: BorrowedFd<'a>,
    alive: BorrowedFd<'a>,
    identity: Identity,
}

impl Child<'_> {
    fn run(&self) -> ! {
        let (what, errno) = match self.become_program() {
            Err(errno) => (0, errno),
            Ok(errno) => (1, errno),
        };
        // The words are the other's: here none can be made.
        let [a, b, c, d] = errno.raw_os_error().to_ne_bytes();
        let _written = rustix::io::write(self.failure, &[what, a, b, c, d]);
        sys::exit(127)
    }

    /// Returns only when it failed: on the way, or at last.
    fn become_program(&self) -> Result<Errno, Errno> {
        sys::reset_signal_actions();
        let alive = self.alive.as_raw_fd() as u32;
        sys::close_range(alive, alive, false)?;
        setsid()?;
        chdir(c"/")?;
        self.identity.assume()?;
        // After the identity, a change of which takes it back.
        set_parent_process_death_signal(Some(Signal::KILL))?;
        let mut life = [PollFd::from_borrowed_fd(self.life, PollFlags::IN)];
        if poll(&mut life, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? > 0 {
            return Err(Errno::SRCH);
        }
        for (number, stream) in (0..).zip(self.streams) {
            sys::place(stream, number)?;
        }
        sys::close_range(3, u32::MAX, true)?;
        sys::unblock_signals();
        let (arguments, environment) = &self.arguments;
        let program = self.program.first().ok_or(Errno::NOENT)?;
        Ok(sys::execve(program, arguments, environment))
    }
}

impl Identity {
    /// Makes this process that, and lets it never have more. What it keeps outlives `execve`.
    fn assume(self) -> Result<(), Errno> {
        let (Identity::Nobody(keep) | Identity::Kept(keep)) = self;
        for number in 0..u64::BITS {
            if keep.bits() & 1 << number == 0 {
                match sys::drop_from_bounding_set(number) {
                    // The kernel knows no capability of this number or above.
                    Err(Errno::INVAL) => break,
                    other => other?,
                }
            }
        }
        if matches!(self, Identity::Nobody(_)) {
            set_keep_capabilities(true)?;
            sys::set_groups(&[])?;
            sys::set_gid(NOBODY)?;
            sys::set_uid(NOBODY)?;
            set_capabilities(None, CapabilitySets { effective: keep, permitted: keep, inheritable: keep })?;
            keep.iter().try_for_each(|capability| configure_capability_in_ambient_set(capability, true))?;
        }
        Ok(())
    }
}
