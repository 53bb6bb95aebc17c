//! One blob on its way, with its progress and what is remembered of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use oci::{Descriptor, Digest, Reference};
use registry::{Content, PushOptions, Pushed, Sessions};

use super::Moved;
use crate::{
    effect::Effects,
    error::Cause,
    progress::{Event, Status},
};

/// How often progress is told.
const TOLD_EVERY: Duration = Duration::from_millis(100);

pub(crate) struct BlobPush<'a> {
    pub(crate) effects: &'a Arc<Effects>,
    pub(crate) registry: &'a registry::Client,
    pub(crate) vertex: Digest,
    pub(crate) to: &'a Reference,
    pub(crate) blob: &'a Descriptor,
    /// A repository of the same registry that has it for certain.
    pub(crate) mount_first: Option<&'a str>,
}

impl BlobPush<'_> {
    pub(crate) async fn run(&self, content: &dyn Content) -> Result<Moved, Cause> {
        let (effects, to, digest) = (self.effects, self.to, self.blob.digest);
        let mut mount_from = effects.store.repositories_of(&to.registry, &digest)?;
        if let Some(first) = self.mount_first {
            mount_from.retain(|other| other != first);
            mount_from.insert(0, first.to_owned());
        }
        let moved = Arc::new(AtomicU64::new(0));
        let remembered = Remembered(effects);
        let options =
            PushOptions { mount_from: &mount_from, sessions: Some(&remembered), moved: moved.clone() };
        let started = effects.clock.now();
        let tell = |current: u64, done: bool| {
            effects.sink.event(Event::Status(Status {
                vertex: self.vertex,
                id: format!("pushing {digest}"),
                current: current.min(self.blob.size),
                total: self.blob.size,
                started,
                completed: done.then(|| effects.clock.now()),
            }));
        };
        tell(0, false);
        let mut push = std::pin::pin!(self.registry.push_blob(to, self.blob, content, &options));
        let pushed = loop {
            match tokio::time::timeout(TOLD_EVERY, push.as_mut()).await {
                Ok(pushed) => break pushed?,
                Err(_) => tell(moved.load(Ordering::Relaxed), false),
            }
        };
        tell(self.blob.size, true);
        effects.store.add_repository(&effects.lease, &to.registry, &to.repository, &digest)?;
        let sent_bytes = moved.load(Ordering::Relaxed);
        Ok(match pushed {
            Pushed::Present => Moved { present: 1, ..Moved::default() },
            Pushed::Mounted { .. } => Moved { mounted: 1, ..Moved::default() },
            Pushed::Sent { from_byte } => {
                if from_byte > 0 {
                    effects.say(self.vertex, &format!("{digest}: continued at byte {from_byte}\n"));
                }
                Moved { sent: 1, sent_bytes, ..Moved::default() }
            }
        })
    }
}

/// Unfinished uploads, in the state folder. A hint that cannot be read or kept costs an upload from the start, so its
/// errors are no reason to stop.
struct Remembered<'a>(&'a Arc<Effects>);

impl Sessions for Remembered<'_> {
    fn held(&self, registry: &str, repository: &str, blob: Digest) -> Option<String> {
        self.0.store.upload(registry, repository, &blob).ok().flatten()
    }

    fn hold(&self, registry: &str, repository: &str, blob: Digest, address: Option<&str>) {
        let Effects { store, lease, .. } = &**self.0;
        let _hint = store.set_upload(lease, registry, repository, &blob, address);
    }
}
