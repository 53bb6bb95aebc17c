//! Who a process is, kept where the kernel itself hands it on.
//!
//! A process's credentials must be its children's, and stay theirs when it ends before them, is killed, or its number is used
//! again. A table by process number would have to see every fork and every end. Instead each set of credentials that occurs has
//! a number, and a process carries the number in a soft limit that has no other use in a step, `RLIMIT_RTTIME`: limits are
//! inherited by `fork`, kept by `execve`, shared by threads, and of another process are read by one call. What a step sees of
//! that limit is answered as well: it is unlimited.

use std::collections::BTreeMap;

use rustix::io::Errno;

use super::calls::LIMIT;
use super::credentials::Credentials;
use crate::sys::notify;

/// Numbers begin here: longer than any process runs.
const FIRST: u64 = 1 << 62;

/// All credentials that occurred.
pub(crate) struct Identities {
    known: Vec<Credentials>,
    numbers: BTreeMap<Credentials, usize>,
}

impl Identities {
    /// Those of the step's first process.
    pub fn new(first: Credentials) -> Identities {
        Identities { numbers: BTreeMap::from([(first.clone(), 0)]), known: vec![first] }
    }

    /// Who a thread is.
    pub fn of(&self, thread: u32) -> &Credentials {
        let number = match self.known.len() {
            1 => 0,
            // It may have been killed; then nobody hears the answer.
            _ => notify::limit_of(thread, LIMIT).map_or(0, |(soft, _)| number(soft)),
        };
        self.known.get(number).unwrap_or(&self.known[0])
    }

    /// Makes a thread's process somebody.
    pub fn set(&mut self, thread: u32, who: Credentials) -> Result<(), Errno> {
        let next = self.known.len();
        let number = *self.numbers.entry(who.clone()).or_insert(next);
        if number == next {
            self.known.push(who);
        }
        notify::set_limit_of(thread, LIMIT, FIRST + number as u64, u64::MAX)
    }
}

fn number(soft: u64) -> usize {
    if soft == u64::MAX { 0 } else { soft.saturating_sub(FIRST) as usize }
}
