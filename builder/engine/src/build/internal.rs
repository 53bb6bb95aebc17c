//! Work that is no vertex of the graph, shown as one: reading the Dockerfile, asking for images, exporting.

use std::sync::Arc;

use oci::Digest;

use crate::{
    clock::Time,
    effect::Effects,
    progress::{Event, Status, Vertex},
};

/// Something that runs beside the graph.
pub(crate) struct Internal<'a> {
    effects: &'a Arc<Effects>,
    name: String,
    digest: Digest,
    started: Time,
}

impl<'a> Internal<'a> {
    /// Says that it began. The name is its identity.
    pub(crate) fn start(effects: &'a Arc<Effects>, name: &str) -> Internal<'a> {
        let (name, digest, started) = (name.to_owned(), digest_of(name), effects.clock.now());
        let internal = Internal { effects, name, digest, started };
        internal.tell(None, None);
        internal
    }

    /// What progress knows it by.
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// Says that it ended, and why it failed if it did.
    pub(crate) fn end(self, error: Option<&impl ToString>) {
        self.tell(Some(self.effects.clock.now()), error.map(ToString::to_string));
    }

    /// Says that a named part of it is done, which began at `started`.
    pub(crate) fn did(&self, id: &str, started: Time) {
        let (vertex, id, completed) = (self.digest, id.to_owned(), Some(self.effects.clock.now()));
        let status = Status { vertex, id, current: 0, total: 0, started, completed };
        self.effects.sink.event(Event::Status(status));
    }

    /// Does a named part of it.
    pub(crate) fn part<T>(&self, id: &str, total: u64, work: impl FnOnce() -> T) -> T {
        let started = self.effects.clock.now();
        let tell = |current, completed| {
            let (vertex, id) = (self.digest, id.to_owned());
            self.effects.sink.event(Event::Status(Status { vertex, id, current, total, started, completed }));
        };
        tell(0, None);
        let done = work();
        tell(total, Some(self.effects.clock.now()));
        done
    }

    fn tell(&self, completed: Option<Time>, error: Option<String>) {
        self.effects.sink.event(Event::Vertex(Vertex {
            digest: self.digest,
            name: self.name.clone(),
            inputs: Vec::new(),
            source: None,
            started: Some(self.started),
            completed,
            cached: false,
            error,
        }));
    }
}

/// What progress knows such work by.
pub(crate) fn digest_of(name: &str) -> Digest {
    Digest::of(format!("internal {name}").as_bytes())
}
