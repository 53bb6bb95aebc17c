//! Names that no other process, now or after a reboot, gives.

use std::{
    hash::{BuildHasher, RandomState},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

/// The process id, and 64 random bits: `4711-0123456789abcdef`.
pub(crate) fn token() -> String {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    // The standard library seeds each process's first `RandomState` from getrandom(2); the call counter makes the
    // calls of one process differ.
    let random = RandomState::new().hash_one((process::id(), CALLS.fetch_add(1, Ordering::Relaxed)));
    format!("{}-{random:016x}", process::id())
}
