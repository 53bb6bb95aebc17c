//! What happens, as a stream of events with BuildKit's meaning.
//!
//! The terminal view, the plain view, `rawjson` and, later, the API are readers of this stream and of nothing else.

use std::sync::Arc;

use graph::SourceRange;
use oci::Digest;
pub use store::Took;

use crate::clock::Time;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A vertex was met for the first time, or changed: started, completed, found cached, failed.
    Vertex(Vertex),
    /// Something countable inside a vertex moved on.
    Status(Status),
    /// A step wrote something.
    Log(Log),
    /// Something that does not stop the build.
    Warning(Warning),
    /// A step's process has ended, well or not: what it took.
    Usage(Usage),
    /// The Dockerfile is known. Places of other events are places of it.
    Definition(Definition),
}

/// The Dockerfile that is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its name, as messages show it.
    pub name: String,
    /// Its bytes.
    pub text: Vec<u8>,
}

/// A vertex as people see it. Later events of one digest replace earlier ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vertex {
    /// Names the vertex.
    pub digest: Digest,
    /// `[build 2/5] RUN make`.
    pub name: String,
    /// The vertices that it works on.
    pub inputs: Vec<Digest>,
    /// Where it was written.
    pub source: Option<SourceRange>,
    /// When it began.
    pub started: Option<Time>,
    /// When it ended.
    pub completed: Option<Time>,
    /// Whether the cache answered.
    pub cached: bool,
    /// Why it failed, in one line; `canceled` for one that was stopped.
    pub error: Option<String>,
}

/// How far something is: a download, an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The vertex.
    pub vertex: Digest,
    /// Names the thing inside its vertex: `sha256:…`, `exporting layers`.
    pub id: String,
    /// How much is done.
    pub current: u64,
    /// How much there is; 0 where nobody knows.
    pub total: u64,
    /// When it began.
    pub started: Time,
    /// When it ended.
    pub completed: Option<Time>,
}

/// Which of its outputs a step wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// File descriptor 1.
    Stdout,
    /// File descriptor 2.
    Stderr,
}

/// What a step wrote, as it came: not cut at lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The vertex.
    pub vertex: Digest,
    /// Which output.
    pub stream: Stream,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// When.
    pub time: Time,
}

/// Something that does not stop the build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The vertex that it is about; `None` for the build as a whole.
    pub vertex: Option<Digest>,
    /// A stable name: `UndefinedVar`, `no-nofile-limit`.
    pub code: String,
    /// One line.
    pub message: String,
    /// Where in the Dockerfile.
    pub source: Option<SourceRange>,
}

/// What a step took of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The vertex.
    pub vertex: Digest,
    /// Time and memory.
    pub took: Took,
    /// In how many periods it had used up the processor time that a limit gave it.
    pub throttled_periods: u64,
}

/// Takes events. Called from many threads; does not wait.
pub trait Sink: Send + Sync {
    /// Takes one event.
    fn event(&self, event: Event);
}

/// A sink that may be handed around.
pub type SharedSink = Arc<dyn Sink>;

/// A sink that forgets.
pub struct Silent;

impl Sink for Silent {
    fn event(&self, _: Event) {}
}
