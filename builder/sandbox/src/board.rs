//! One page of memory shared by the caller and the step's PID 1: what happened.
//!
//! Only atomics, all of which are valid when zero. The caller reads after the child has closed a pipe
//! or ended, so no two sides use a field at the same time; the atomics are there because the memory is
//! shared, not for order.

use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering};

use crate::fault::{Fault, Syscall};

/// Calls about which an outcome can be kept; a plan of more calls loses only remarks.
const CALLS: usize = 3072;
/// Bytes kept of the kernel's message.
const MESSAGE: usize = 192;

/// A mount point was created for the call.
pub(crate) const CREATED: u8 = 1;
/// What was created could not be removed, because something is in it.
pub(crate) const LEFT: u8 = 2;
/// An optional call failed, or a limit was refused in part.
pub(crate) const WARNED: u8 = 4;

/// The page.
#[repr(C)]
pub(crate) struct Board {
    failed: AtomicU32,
    call: AtomicU32,
    syscall: AtomicU32,
    errno: AtomicI32,
    detail: AtomicU32,
    finished: AtomicU32,
    wait_status: AtomicI32,
    user_microseconds: AtomicU64,
    system_microseconds: AtomicU64,
    peak_kibibytes: AtomicU64,
    floor_kibibytes: AtomicU64,
    message: [AtomicU8; MESSAGE],
    outcomes: [AtomicU8; CALLS],
}

/// How the step's process ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Finished {
    /// As `wait4(2)` gives it.
    pub wait_status: i32,
    /// User time of the process and the children it waited for.
    pub user_microseconds: u64,
    /// System time of those.
    pub system_microseconds: u64,
    /// Largest resident set among them.
    pub peak_kibibytes: u64,
}

impl Finished {
    /// Adds what another process took; how this one ended stays.
    pub fn add(&mut self, other: Finished) {
        self.user_microseconds += other.user_microseconds;
        self.system_microseconds += other.system_microseconds;
        self.peak_kibibytes = self.peak_kibibytes.max(other.peak_kibibytes);
    }
}

impl Board {
    /// Notes that the call of that index failed. The first fault stays.
    pub fn fail(&self, call: usize, fault: Fault) {
        if self.failed.load(Ordering::SeqCst) == 0 {
            self.call.store(call as u32, Ordering::SeqCst);
            self.syscall.store(fault.syscall.number(), Ordering::SeqCst);
            self.errno.store(fault.errno, Ordering::SeqCst);
            self.detail.store(fault.detail, Ordering::SeqCst);
            self.failed.store(1, Ordering::SeqCst);
        }
    }

    /// The failed call's index, and how it failed.
    pub fn failure(&self) -> Option<(usize, Fault)> {
        (self.failed.load(Ordering::SeqCst) != 0).then(|| {
            let fault = Fault {
                syscall: Syscall::from_number(self.syscall.load(Ordering::SeqCst)),
                errno: self.errno.load(Ordering::SeqCst),
                detail: self.detail.load(Ordering::SeqCst),
            };
            (self.call.load(Ordering::SeqCst) as usize, fault)
        })
    }

    /// Keeps what the kernel said about a failed mount.
    pub fn set_message(&self, text: &[u8]) {
        for (slot, byte) in self.message.iter().zip(text) {
            slot.store(*byte, Ordering::SeqCst);
        }
    }

    /// What the kernel said, if anything.
    pub fn message(&self) -> Option<String> {
        let bytes: Vec<u8> = self
            .message
            .iter()
            .map(|slot| slot.load(Ordering::SeqCst))
            .take_while(|byte| *byte != 0)
            .collect();
        let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
        (!text.is_empty()).then_some(text)
    }

    /// Adds a remark about a call.
    pub fn remark(&self, call: usize, flag: u8) {
        if let Some(outcome) = self.outcomes.get(call) {
            outcome.fetch_or(flag, Ordering::SeqCst);
        }
    }

    /// Whether a call has this remark.
    pub fn has_remark(&self, call: usize, flag: u8) -> bool {
        self.outcomes.get(call).is_some_and(|outcome| outcome.load(Ordering::SeqCst) & flag != 0)
    }

    /// Notes the resident set that the process has before `execve`, which the kernel counts as its own.
    pub fn set_floor(&self, kibibytes: u64) {
        self.floor_kibibytes.store(kibibytes, Ordering::SeqCst);
    }

    /// Notes how the process ended.
    pub fn finish(&self, finished: Finished) {
        self.wait_status.store(finished.wait_status, Ordering::SeqCst);
        self.user_microseconds.store(finished.user_microseconds, Ordering::SeqCst);
        self.system_microseconds.store(finished.system_microseconds, Ordering::SeqCst);
        self.peak_kibibytes.store(finished.peak_kibibytes, Ordering::SeqCst);
        self.finished.store(1, Ordering::SeqCst);
    }

    /// How the process ended; `None` if PID 1 ended first.
    pub fn finished(&self) -> Option<Finished> {
        (self.finished.load(Ordering::SeqCst) != 0).then(|| Finished {
            wait_status: self.wait_status.load(Ordering::SeqCst),
            user_microseconds: self.user_microseconds.load(Ordering::SeqCst),
            system_microseconds: self.system_microseconds.load(Ordering::SeqCst),
            peak_kibibytes: self.peak_kibibytes.load(Ordering::SeqCst),
        })
    }

    /// Resident set before `execve`; a peak not above it is not the program's.
    pub fn floor_kibibytes(&self) -> u64 {
        self.floor_kibibytes.load(Ordering::SeqCst)
    }
}
