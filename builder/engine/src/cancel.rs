//! Ctrl-C, as a value that every effect can see.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::Notify;

use crate::error::Cause;

/// Says that the build is to stop. Clones say the same.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    set: AtomicBool,
    wake: Notify,
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
pub(crate) struct Watch(Arc<AtomicBool>, Cancel);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
        self.1.0.wake.notify_waiters();
    }
}

impl Cancel {
    /// Calls `act` once this is set, at once if it is, and never after what is returned was dropped. Needs a tokio runtime.
    pub(crate) fn on_set(&self, act: impl FnOnce() + Send + 'static) -> Watch {
        let over = Arc::new(AtomicBool::new(false));
        let (watched, ended) = (self.clone(), over.clone());
        tokio::spawn(async move {
            loop {
                let woken = watched.0.wake.notified();
                tokio::pin!(woken);
                woken.as_mut().enable();
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                if watched.is_set() {
                    return act();
                }
                woken.await;
            }
        });
        Watch(over, self.clone())
    }
}
