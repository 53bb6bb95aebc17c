//! The end of a step that has no process namespace: whatever it left running is killed.
//!
//! The step's first process is made the one that takes in orphans (`PR_SET_CHILD_SUBREAPER`), so that a process whose parent has
//! ended becomes its child, however often it forked. It kills its children until there are none. Nothing here allocates.

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{Errno, read};

use super::Child;
use crate::board::Finished;
use crate::{Call, sys};

/// A process whose parents end faster than they can be killed is given up after so many rounds.
const ROUNDS: u32 = 1 << 20;
/// More than a hundred numbers; the rest is read in the next round.
const BYTES: usize = 1024;

impl Child<'_> {
    /// Whether this process takes in the orphans of the step.
    pub(super) fn adopts(&self) -> bool {
        self.calls.contains(&Call::AdoptOrphans)
    }

    /// Kills all children, and those which become that, until there are none; what they took is added up.
    pub(super) fn end_orphans(&self, others: &mut Finished) {
        for _ in 0..ROUNDS {
            let killed = kill_children();
            // Waits only for somebody who is dying.
            match sys::wait_for_child(killed > 0) {
                Ok(Some((_, other))) => others.add(other),
                Err(Errno::CHILD) => return,
                Ok(None) | Err(_) => std::thread::yield_now(),
            }
            while let Ok(Some((_, other))) = sys::wait_for_child(false) {
                others.add(other);
            }
        }
    }
}

/// Kills the children of this process; how many there are. The kernel's list has those that have ended, too.
fn kill_children() -> usize {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let Ok(list) = openat(CWD, c"/proc/thread-self/children", flags, Mode::empty()) else { return 0 };
    let mut bytes = [0_u8; BYTES];
    let Ok(length) = read(&list, bytes.as_mut_slice()) else { return 0 };
    let listed = bytes.get(..length).unwrap_or_default();
    // Each number is followed by a space; one that is cut off is left to the next round.
    let (mut killed, mut number) = (0, 0_i32);
    for byte in listed {
        match byte {
            b'0'..=b'9' => number = number.wrapping_mul(10).wrapping_add(i32::from(byte - b'0')),
            _ if number > 0 => {
                sys::kill(number, libc::SIGKILL);
                killed += 1;
                number = 0;
            }
            _ => {}
        }
    }
    killed
}
