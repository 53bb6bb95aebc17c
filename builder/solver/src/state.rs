//! What goes into the solver, what comes out, and the states in between.

use std::num::NonZeroUsize;

use graph::Ingredient;
use oci::Digest;

use crate::{ContentKey, DefinitionKey};

/// Names a vertex of one solver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub(crate) usize);

/// A key to look up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// By what was asked.
    Definition(DefinitionKey),
    /// By what the inputs hold.
    Content(ContentKey),
}

/// All that a driver can be asked to do. `R` is a vertex's result, which the solver hands around and never looks into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<R> {
    /// Read what the definition leaves open: the files that the vertex can see of each local input, the
    /// version of a remote source, the marks of a process's secrets. Answer with [`Event::Fingerprinted`].
    Fingerprint {
        /// The vertex.
        vertex: Id,
        /// Which of its inputs are local.
        inputs: Vec<usize>,
    },
    /// Ask the cache for this key. Answer with [`Event::Found`] or [`Event::Missing`].
    LookUp {
        /// The vertex.
        vertex: Id,
        /// The key.
        key: Key,
    },
    /// Compute the content digest of what the vertex can see of each input. Answer with [`Event::Identified`].
    Identify {
        /// The vertex.
        vertex: Id,
        /// The inputs' results and which output of each.
        inputs: Vec<(R, u32)>,
    },
    /// Make the result. Answer with [`Event::Finished`], [`Event::Failed`] or, after [`Action::Cancel`],
    /// [`Event::Cancelled`].
    Run {
        /// The vertex.
        vertex: Id,
        /// The inputs' results and which output of each.
        inputs: Vec<(R, u32)>,
    },
    /// Find out how much memory a process takes, from earlier runs of it. Answer with [`Event::Weighed`].
    Weigh {
        /// The vertex.
        vertex: Id,
    },
    /// Find out how much memory there is for processes now. Answer with [`Event::Measured`].
    Measure,
    /// Stop running the vertex: nobody wants it any more. Its answer is whatever the run comes to.
    Cancel {
        /// The vertex.
        vertex: Id,
    },
    /// Nobody will ask for this result again.
    Release {
        /// The vertex.
        vertex: Id,
        /// Its result.
        result: R,
    },
}

/// All that can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<R> {
    /// Answer to [`Action::Fingerprint`].
    Fingerprinted {
        /// The vertex.
        vertex: Id,
        /// One digest for each input that was asked for, in that order.
        inputs: Vec<Digest>,
        /// What else goes into both keys: of a remote source the version that it has now, of a process the marks of
        /// those secrets that count.
        own: Vec<Ingredient>,
    },
    /// The cache has the key.
    Found {
        /// The vertex.
        vertex: Id,
        /// What it has.
        result: R,
    },
    /// The cache does not have the key.
    Missing {
        /// The vertex.
        vertex: Id,
        /// Whether it has any result of the same operation, so that the content key may hit.
        operation_known: bool,
    },
    /// Answer to [`Action::Identify`].
    Identified {
        /// The vertex.
        vertex: Id,
        /// One digest for each input.
        inputs: Vec<Digest>,
    },
    /// Answer to [`Action::Weigh`].
    Weighed {
        /// The vertex.
        vertex: Id,
        /// How much it takes; 0 is so little that it need not be counted, or that nobody knows.
        bytes: u64,
    },
    /// Answer to [`Action::Measure`].
    Measured {
        /// How much there is.
        bytes: u64,
    },
    /// The vertex has a result.
    Finished {
        /// The vertex.
        vertex: Id,
        /// The result.
        result: R,
    },
    /// The vertex has none, and why is the driver's to tell.
    Failed {
        /// The vertex.
        vertex: Id,
    },
    /// The vertex was stopped.
    Cancelled {
        /// The vertex.
        vertex: Id,
    },
}

/// How a result was come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// It is a source: it was there.
    Source,
    /// The definition key hit.
    Definition,
    /// The content key hit, after something below ran again.
    Content,
    /// It was made.
    Run,
}

/// How a wanted vertex stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<'a, R> {
    /// Not finished.
    Pending,
    /// It has a result.
    Done(&'a R, Via),
    /// It failed.
    Failed,
    /// Something below it failed.
    Skipped,
    /// Nobody wanted it any more.
    Cancelled,
}

/// Where a vertex stands. Each state holds what it needs and nothing else.
#[derive(Clone, Debug)]
pub(crate) enum State<R> {
    /// Nobody needs its result.
    Idle,
    /// Needed; its definition key is not known yet.
    Keying,
    /// The cache was asked for the definition key.
    LookingUp,
    /// Some inputs are not done. When none are left the state is no longer `Waiting`.
    Waiting { missing: NonZeroUsize, operation_known: bool },
    /// The digests of its inputs' contents were asked for.
    Identifying,
    /// The cache was asked for the content key.
    LookingUpContent,
    /// Everything is there; it waits for a free place.
    Ready,
    /// It runs.
    Running,
    /// It runs and was told to stop.
    Stopping,
    /// It has a result.
    Done { result: R, via: Via },
    /// It failed.
    Failed,
    /// An input failed, so it will never start.
    Skipped,
    /// Nobody wanted it any more before it was done.
    Cancelled,
}

/// What is known of a definition key.
#[derive(Clone, Debug)]
pub(crate) enum KeyState {
    /// Nobody asked.
    Unknown,
    /// Waits for keys of inputs or for a fingerprint.
    Asked,
    /// Known, with what it is made of.
    Known { key: DefinitionKey, ingredients: Vec<Ingredient> },
}
