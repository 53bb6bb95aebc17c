//! PID 1 of the step: reaps, forwards signals, and ends with the command or with the caller.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, read, write};

use super::{Child, STARTED};
use crate::board::Finished;
use crate::fault::{Fault, Syscall};
use crate::sys;

/// `sizeof(struct signalfd_siginfo)`; the signal's number is its first four bytes.
const SIGNAL_BYTES: usize = 128;

/// The signal that ends a step without a process namespace, whose first process must not be killed: it kills the others.
pub(crate) const END: i32 = 64;

impl Child<'_> {
    /// Spawns the command and stays until it has ended. The kernel kills what it left running when this
    /// process ends; it is killed before, so that mount points can be removed.
    pub(super) fn spawn_and_wait(&mut self, index: usize) -> ! {
        // Before the command, so that its end cannot be missed; every signal is blocked here.
        let signals = match sys::signal_descriptor() {
            Ok(signals) => signals,
            Err(errno) => self.give_up(index, Fault::new(Syscall::Signalfd, errno)),
        };
        let command = match sys::spawn(self.stack, |child: &Child<'_>| child.become_command(), self) {
            Ok(pid) => pid,
            Err(errno) => self.give_up(index, Fault::new(Syscall::Vfork, errno)),
        };
        // The command has called execve, or failed and said so on the board.
        let mut finished = None;
        let mut others = Finished::default();
        if self.board.failure().is_none() {
            self.tell_started();
            self.let_go();
            finished = self.wait_for(command, signals.as_fd(), &mut others);
        }
        // Whoever is not the first process of a namespace would mean every process of the machine by -1.
        if self.adopts() {
            self.end_orphans(&mut others);
        } else if rustix::process::getpid().is_init() {
            sys::kill(-1, libc::SIGKILL);
        }
        loop {
            match sys::wait_for_child(true) {
                Ok(Some((_, other))) => others.add(other),
                Err(Errno::CHILD) => break,
                Ok(None) | Err(_) => {}
            }
        }
        self.remove_created();
        self.let_go();
        // Last: a step whose PID 1 was killed before has not ended well.
        if let Some(mut finished) = finished {
            finished.add(others);
            self.board.finish(finished);
        }
        // The caller can go on, while the kernel takes this process's memory and namespaces apart.
        self.alive = None;
        sys::exit(0)
    }

    /// Tells the caller that the command runs.
    fn tell_started(&self) {
        // If the caller is gone, so is this process soon.
        let _ = self.alive.as_ref().map(|alive| write(alive, &[STARTED]));
    }

    /// Closes what only the command needs; its output must end when the command closes it.
    fn let_go(&mut self) {
        self.streams.stdin = None;
        self.streams.stdout = None;
        self.streams.stderr = None;
        self.terminal = None;
        self.console = None;
        self.listener = None;
        self.root = None;
        for kept in &mut self.kept {
            *kept = None;
        }
    }

    /// Waits for the end of the command; none where that could not be noticed.
    fn wait_for(&self, command: i32, signals: BorrowedFd<'_>, others: &mut Finished) -> Option<Finished> {
        loop {
            let mut sources = [
                PollFd::from_borrowed_fd(signals, PollFlags::IN),
                PollFd::from_borrowed_fd(self.life.as_fd(), PollFlags::IN),
            ];
            match poll(&mut sources, None) {
                Ok(_) | Err(Errno::INTR) => {}
                // Without poll nothing can be noticed any more.
                Err(_) => return None,
            }
            let [signalled, life] = &sources;
            if !life.revents().is_empty() {
                // The caller is gone, and with it whoever wants the layer.
                if self.adopts() {
                    self.end_orphans(others);
                }
                sys::exit(1);
            }
            if !signalled.revents().is_empty()
                && let Some(finished) = self.take_signal(command, signals, others)
            {
                return Some(finished);
            }
        }
    }

    /// Reads one signal. Returns how the command ended, once it has; what others took that have ended is added up.
    fn take_signal(&self, command: i32, signals: BorrowedFd<'_>, others: &mut Finished) -> Option<Finished> {
        let mut information = [0_u8; SIGNAL_BYTES];
        let Ok(SIGNAL_BYTES) = read(signals, information.as_mut_slice()) else { return None };
        let [a, b, c, d, ..] = information;
        let signal = u32::from_ne_bytes([a, b, c, d]) as i32;
        if signal != libc::SIGCHLD {
            let signal = if signal == END && self.adopts() { libc::SIGKILL } else { signal };
            sys::kill(command, signal);
            return None;
        }
        let mut ended = None;
        while let Ok(Some((pid, finished))) = sys::wait_for_child(false) {
            if pid == command {
                ended = Some(finished);
            } else {
                others.add(finished);
            }
        }
        ended
    }
}
