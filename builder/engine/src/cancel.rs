//! Ctrl-C, as a value that every effect can see.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Read, Write},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::sync::Notify;

use crate::error::Cause;

/// Says that the build is to stop. Clones say the same.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<Shared>);

#[derive(Default)]
struct Shared {
    set: AtomicBool,
    wake: Notify,
    /// What is to be done when it is set.
    acts: Mutex<BTreeMap<u64, Act>>,
    numbers: AtomicU64,
}

type Act = Box<dyn FnOnce() + Send>;

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancel").field("set", &self.set).finish_non_exhaustive()
    }
}

impl Cancel {
    /// One that is not set.
    pub fn new() -> Cancel {
        Cancel::default()
    }

    /// Sets it, for good.
    pub fn set(&self) {
        self.0.set.store(true, Ordering::SeqCst);
        self.0.wake.notify_waiters();
        // Under the lock, so that nothing is called after its watch was dropped.
        let mut acts = self.0.acts.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((_, act)) = acts.pop_first() {
            act();
        }
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        self.0.set.load(Ordering::SeqCst)
    }

    /// Does something, until it is set.
    ///
    /// # Errors
    /// [`Cause::Cancelled`] when it was set first; and those of the work.
    pub(crate) async fn unless<T>(&self, work: impl Future<Output = Result<T, Cause>>) -> Result<T, Cause> {
        tokio::select! {
            done = work => done,
            () = self.wait() => Err(Cause::Cancelled),
        }
    }

    /// Returns once it is set.
    pub async fn wait(&self) {
        loop {
            let woken = self.0.wake.notified();
            tokio::pin!(woken);
            // Registered before the look, so that a set in between is not missed.
            woken.as_mut().enable();
            if self.is_set() {
                return;
            }
            woken.await;
        }
    }
}

/// Calls back until it is dropped; see [`Cancel::on_set`].
pub(crate) struct Watch(u64, Cancel);

impl Drop for Watch {
    fn drop(&mut self) {
        self.1.0.acts.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

impl Cancel {
    /// Calls `act` once this is set, at once if it is, and never after what is returned was dropped. It must not wait, and
    /// not set or watch this very one.
    pub(crate) fn on_set(&self, act: impl FnOnce() + Send + 'static) -> Watch {
        let number = self.0.numbers.fetch_add(1, Ordering::Relaxed);
        let mut acts = self.0.acts.lock().unwrap_or_else(PoisonError::into_inner);
        // Looked at under the lock: who sets it looks for acts later than that.
        if self.is_set() {
            act();
        } else {
            acts.insert(number, Box::new(act));
        }
        drop(acts);
        Watch(number, self.clone())
    }
}

/// A stream that ends with an error once the build is to stop: what is made of it is then thrown away.
pub(crate) struct Stoppable<'a, T> {
    pub(crate) stream: T,
    pub(crate) cancel: &'a Cancel,
}

impl<T> Stoppable<'_, T> {
    fn go_on(&self) -> io::Result<()> {
        if self.cancel.is_set() { Err(io::Error::other("it is not wanted any more")) } else { Ok(()) }
    }
}

impl<T: Read> Read for Stoppable<'_, T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.go_on()?;
        self.stream.read(buffer)
    }
}

impl<T: Write> Write for Stoppable<'_, T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.go_on()?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_watched_for_is_done_once_and_not_after_the_watch_ended() {
        let (cancel, done) = (Cancel::new(), Arc::new(Mutex::new(Vec::new())));
        let act = |name: &'static str| {
            let done = done.clone();
            move || done.lock().expect("held shortly").push(name)
        };
        let watched = cancel.on_set(act("watched"));
        drop(cancel.on_set(act("dropped")));
        assert!(done.lock().expect("held shortly").is_empty());
        cancel.set();
        cancel.set();
        drop(watched);
        let _late = cancel.on_set(act("late"));
        assert_eq!(*done.lock().expect("held shortly"), ["watched", "late"]);
    }
}
