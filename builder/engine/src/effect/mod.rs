//! The effects that the solver asks for: what acts and does not decide.
//!
//! | Action      | File |
//! |-------------|------|
//! | fingerprint | `context.rs`: reads a build context once, and only what the graph can reach |
//! | look up     | `cache.rs`: records, content keys, interning |
//! | run: image  | `pull/`: blobs from a registry, a layout or the local store, unpacked |
//! | run: files over http, git repositories | `http.rs`, `git.rs` |
//! | run: `RUN`  | `exec.rs`, `mounts.rs`, `network.rs`, `etc.rs`, `resolution.rs`, `identity.rs`, `logs.rs`, `ssh.rs`; its limits, `bounds.rs`; refused, `foreign.rs` says why |
//! | run: `RUN` without overlayfs | `roots.rs`; without mounts, `furnish.rs` |
//! | run: `COPY` | `file.rs`, `archive.rs` |
//! | run: merge, diff | `stack.rs` |
//!
//! `early.rs` archives the layers of the image to be while the build goes on; `rest.rs` does what of a step need not be waited for.
//! What of a layer is in inodes, `inodes.rs`.
//! `layers.rs` gives the forms of a layer that the others need, manifests and folders; `blob.rs` that of an image.

pub(crate) mod archive;
pub(crate) mod blob;
pub(crate) mod bounds;
pub(crate) mod cache;
pub(crate) mod context;
pub(crate) mod early;
mod elf;
pub(crate) mod etc;
pub(crate) mod exec;
pub(crate) mod file;
pub(crate) mod foreign;
pub(crate) mod furnish;
pub(crate) mod git;
pub(crate) mod http;
pub(crate) mod identity;
mod inodes;
pub(crate) mod layers;
pub(crate) mod logs;
pub(crate) mod mounts;
pub(crate) mod network;
mod owners;
pub(crate) mod pull;
mod resolution;
pub(crate) mod rest;
pub(crate) mod rewritten;
pub(crate) mod roots;
pub(crate) mod scene;
pub(crate) mod ssh;
pub(crate) mod stack;
pub(crate) mod visible;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use graph::{Ingredient, Op, Source, Vertex};
use oci::{Digest, Epoch};
use sandbox::{Cgroups, Mode, Zygote, net::Networks};
use solver::DefinitionKey;
use store::{Lease, LockName, Store, Waiting};
use tree::LayerId;

use rest::{Made, Rest};

use crate::{
    build::sources::Sources,
    cancel::Cancel,
    client::Client,
    clock::Clock,
    error::Cause,
    limits::Limits,
    memo::Recorder,
    progress::{Event, Log, SharedSink, Stream, Warning},
    result::VertexResult,
    steps::Witness,
};

/// What all effects of one build share.
pub(crate) struct Effects {
    pub(crate) store: Store,
    pub(crate) lease: Lease,
    pub(crate) client: Arc<dyn Client>,
    pub(crate) registry: registry::Client,
    pub(crate) sink: SharedSink,
    /// Writes down a build that may be remembered as a whole.
    pub(crate) recorder: Option<Arc<Recorder>>,
    pub(crate) clock: Clock,
    /// An empty folder, for overlays without layers.
    pub(crate) empty: PathBuf,
    /// Whether steps say why they run.
    pub(crate) explain: bool,
    /// Secrets that count in the keys of the steps that see them.
    pub(crate) keyed_secrets: BTreeSet<String>,
    pub(crate) contexts: context::Contexts,
    pub(crate) images: pull::Images,
    /// What the names of base images were answered with.
    pub(crate) sources: Sources,
    pub(crate) turns: pull::Turns,
    pub(crate) files: http::Files,
    pub(crate) references: git::References,
    /// What git needs of the machine.
    pub(crate) surroundings: fetch::git::Surroundings,
    pub(crate) etc: etc::Etc,
    /// The networks of its steps.
    pub(crate) networks: Networks,
    /// What layers from elsewhere may take.
    pub(crate) limits: Limits,
    /// What clones steps; without it this process does.
    pub(crate) zygote: Option<Arc<Zygote>>,
    /// How steps are kept apart, and whose files are.
    pub(crate) mode: Mode,
    /// What limits each step.
    pub(crate) step_limits: bounds::StepLimits,
    /// Makes the control groups of steps, once one is needed.
    pub(crate) cgroups: Mutex<Option<Arc<Cgroups>>>,
    /// Roots of steps that are kept for the next ones, where they are copies.
    pub(crate) roots: roots::Roots,
    /// Where roots are copies, whether a layer's folder can hold overlayfs's marks; where they are stacked, whether one lacks
    /// them.
    pub(crate) marks: OnceLock<bool>,
    /// Folders of steps between two of them.
    pub(crate) spare: Mutex<exec::Spare>,
    /// What is left of steps that are over.
    pub(crate) ending: Mutex<Vec<exec::Ending>>,
    /// Set when the build ends or is stopped: for work that belongs to no vertex.
    pub(crate) over: Cancel,
    /// Content digests of layers that were asked for: a base's is the same at every step.
    pub(crate) contents: Mutex<BTreeMap<LayerId, Digest>>,
    /// What is exported; none while that is not known, or where it is no image.
    pub(crate) exported: OnceLock<early::Exported>,
    pub(crate) planned: early::Planned,
    pub(crate) encoding: early::Encoding,
    /// What is being written of steps whose results are known.
    pub(crate) writing: Arc<early::UnderWay>,
    /// Why the first record that could not be written could not.
    pub(crate) unwritten: Mutex<Option<Cause>>,
    pub(crate) said: Mutex<BTreeSet<String>>,
    /// What writes down the steps of a build.
    pub(crate) witness: Option<Arc<Witness>>,
    /// What steps leave that fail; none where nobody is to look at it.
    pub(crate) scenes: Option<scene::Scenes>,
    /// The checks of steps; none before the Dockerfile is lowered.
    pub(crate) checks: OnceLock<rewritten::Checks>,
}

/// A vertex to run.
pub(crate) struct Job {
    pub(crate) vertex: Vertex,
    /// The vertex's digest, for progress.
    pub(crate) digest: Digest,
    pub(crate) definition: Option<(DefinitionKey, Vec<Ingredient>)>,
    /// What of the keys is not in the vertex.
    pub(crate) own: Vec<Ingredient>,
    pub(crate) inputs: Vec<(VertexResult, u32)>,
    /// Whether a result that is known by its definition key may be taken.
    pub(crate) may_be_known: bool,
    pub(crate) cancel: Cancel,
}

impl Job {
    /// Whether it is to be run by [`Effects::pull_source`], and not by [`Effects::run`].
    pub(crate) fn waits_for_network(&self) -> bool {
        matches!(self.vertex.op, Op::Source(Source::Image { .. } | Source::OciLayout(_)))
    }
}

impl Effects {
    /// Runs a vertex that is an image.
    pub(crate) async fn pull_source(self: Arc<Self>, job: Job) -> Result<VertexResult, Cause> {
        self.record(|recorder| recorder.runs(&job.vertex.op));
        match &job.vertex.op {
            Op::Source(Source::Image { image, .. }) => self.pull(image.manifest(), &job).await,
            Op::Source(Source::OciLayout(layout)) => self.pull(layout.manifest, &job).await,
            _ => Err(Cause::Task("not an image".to_owned())),
        }
    }

    /// Runs every other vertex. Blocks. What is left to do then is for whoever has told the result.
    pub(crate) fn run(self: &Arc<Self>, job: Job) -> Result<(VertexResult, Option<Rest>), Cause> {
        self.record(|recorder| recorder.runs(&job.vertex.op));
        match &job.vertex.op {
            Op::Source(Source::Local(_)) => Ok((self.context_of(&job.vertex)?, None)),
            Op::Source(_) => self.step(&job),
            Op::Merge | Op::Diff => Ok((self.restack(&self.on_layers(job)?)?, None)),
            _ => self.step(&self.on_layers(job)?),
        }
    }

    /// Runs a step under the lock of its key: of two processes that want it, one makes it and the other finds it.
    fn step(self: &Arc<Self>, job: &Job) -> Result<(VertexResult, Option<Rest>), Cause> {
        let turn = match &job.definition {
            Some((key, _)) => {
                let turn = self.wait_turn(&LockName::Step(key.digest()), job)?;
                // Another process may have made it between our look and our turn.
                if job.may_be_known
                    && let Some(record) = self.store.by_definition_key(&self.lease, &key.digest())?
                {
                    return Ok((VertexResult::found(record.result), None));
                }
                Some(turn)
            }
            None => None,
        };
        if self.explain {
            self.explain(job)?;
        }
        let Made { result, record } = match &job.vertex.op {
            Op::Exec(exec) => self.exec(exec, job)?,
            Op::File(file) => self.file(file, job)?,
            Op::Source(Source::Http(http)) => self.http(http, job)?.into(),
            Op::Source(Source::Git(git)) => self.git(git, job)?,
            Op::Source(_) | Op::Merge | Op::Diff => return Err(Cause::Task("not a step".to_owned())),
        };
        let early = self.early(&job.digest, &result);
        let rest = Rest { turn, record, early, begun: self.writing.begin() };
        Ok((result, Some(rest)))
    }

    /// Tells who writes the build down, if somebody does.
    pub(crate) fn record(&self, tell: impl FnOnce(&Recorder)) {
        if let Some(recorder) = &self.recorder {
            tell(recorder);
        }
    }

    /// Whether the build is gone through once more: all that it writes is written.
    pub(crate) fn is_rehearsal(&self) -> bool {
        self.recorder.as_ref().is_some_and(|recorder| recorder.is_silent())
    }

    /// Takes a lock, with a line of progress when another process holds it.
    pub(crate) fn wait_turn(&self, name: &LockName, job: &Job) -> Result<store::Lock, Cause> {
        let mut waited = false;
        let lock = self.store.lock(name, &mut |waiting: &Waiting| {
            if !waited {
                waited = true;
                let holder = waiting.holder.map_or(String::new(), |pid| format!(" (process {pid})"));
                self.say(job.digest, &format!("waiting for another build{holder}\n"));
            }
            if job.cancel.is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        lock.ok_or(Cause::Cancelled)
    }

    /// Runs blocking work where it may block.
    pub(crate) async fn blocking<T: Send + 'static>(
        self: Arc<Self>,
        work: impl FnOnce(&Arc<Effects>) -> Result<T, Cause> + Send + 'static,
    ) -> Result<T, Cause> {
        let done = tokio::task::spawn_blocking(move || work(&self)).await;
        done.map_err(|error| Cause::Task(error.to_string()))?
    }

    /// The time that a remote source itself has: of a git repository the commit's, of a file over http its
    /// `Last-Modified`, where the server told one. None for every other source. May wait for the network: to be called
    /// where blocking is allowed ([`Effects::blocking`]).
    ///
    /// # Errors
    /// As running the source. What was asked or downloaded is not asked or downloaded again by this build.
    pub(crate) fn source_time(&self, source: &Source) -> Result<Option<Epoch>, Cause> {
        match source {
            Source::Http(http) => self.http_time(http),
            Source::Git(git) => self.git_time(git),
            Source::Image { .. } | Source::Local(_) | Source::OciLayout(_) => Ok(None),
        }
    }

    /// Adds a line to a vertex's log.
    pub(crate) fn say(&self, vertex: Digest, text: &str) {
        let bytes = text.as_bytes().to_vec();
        self.sink.event(Event::Log(Log { vertex, stream: Stream::Stderr, bytes, time: self.clock.now() }));
    }

    /// Warns, once a build for each text.
    pub(crate) fn warn_once(&self, code: &str, message: &str) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.insert(message.to_owned()) {
            let (code, message) = (code.to_owned(), message.to_owned());
            self.sink.event(Event::Warning(Warning { vertex: None, code, message, source: None }));
        }
    }
}
