//! The steps of the last builds: what is written down of a build, so that its steps can be listed and entered afterwards.
//!
//! | File | Question |
//! |---|---|
//! | `witness.rs` | what happened, and what was it about? |
//! | `find.rs` | which step is meant by a number, a stage or a line? |
//! | `open.rs` | how is it opened again? |
//! | `error.rs` | why can a step not be entered? |
//!
//! A step is written down with its operation and with the keys and layers of its
//! result, never with a value of a secret: those are in no operation. A build that was answered from memory writes
//! nothing, so that the newest of these is the last build that was gone through.

mod error;
mod find;
mod open;
mod witness;

use std::{collections::BTreeMap, path::PathBuf};

use graph::{Exec, Local};
use oci::Digest;
use serde::{Deserialize, Serialize};
use store::{ResultLayer, Took};

pub use error::StepError;
pub use open::EnterRequest;
pub(crate) use witness::Witness;

use crate::{effect::Effects, engine::Engine, error::Error};

/// Raise it when a file of another Kiln would be understood wrongly.
const VERSION: u32 = 1;

/// A build, step by step.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BuildSteps {
    version: u32,
    /// When it ended, in nanoseconds since 1970.
    pub at: u64,
    /// The Dockerfile's name, as messages show it.
    pub dockerfile: String,
    /// Digest of the Dockerfile's bytes.
    pub text: Digest,
    /// `--target`.
    pub target: Option<String>,
    /// Folders of the contexts that its steps can be shown, by name.
    pub contexts: BTreeMap<String, PathBuf>,
    /// All vertices, inputs before users.
    pub steps: Vec<Step>,
}

/// One vertex of a build.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    /// Its number in the build's output; none where that did not show it.
    pub number: Option<usize>,
    /// As the output showed it: `[build 2/5] RUN make`.
    pub name: String,
    /// Its stage.
    pub stage: String,
    /// Its first and its last line in the Dockerfile.
    pub lines: Option<(usize, usize)>,
    /// What came of it.
    pub came: Came,
    /// What it took of the machine, if a process of it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took: Option<Took>,
    /// As of [`graph::About::shell`].
    pub(crate) shell: Vec<String>,
    pub(crate) what: What,
    pub(crate) inputs: Vec<usize>,
    /// What it builds on, of all steps.
    pub(crate) base: Option<usize>,
    /// The definition key: its record has the result.
    pub(crate) definition: Option<Digest>,
    /// The layers of an image, where this build or one before had them in hand: of those there is no record.
    pub(crate) layers: Option<Vec<ResultLayer>>,
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Came {
    /// Nobody needed it, or something failed before.
    Nothing,
    /// The cache had it.
    Cached,
    /// It was made.
    Ran {
        /// How long that took.
        milliseconds: u64,
    },
    /// It failed.
    Failed {
        /// How long that took.
        milliseconds: u64,
    },
    /// It was stopped.
    Canceled,
}

/// What a step does, as far as entering it needs to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum What {
    Run(Box<Exec>),
    Context(Local),
    Merge,
    /// It puts one layer on what it builds on.
    Change,
    /// It brings an image, of which its definition says which.
    Image,
    /// It brings a tree from elsewhere, or is none of these.
    Source,
}

impl Step {
    /// Whether it is one that a person would enter: shown, and written in the Dockerfile.
    pub fn is_listed(&self) -> bool {
        self.number.is_some() && self.lines.is_some() && !matches!(self.what, What::Context(_))
    }

    /// Whether there is something before it.
    pub(crate) fn has_before(&self) -> bool {
        !matches!(self.what, What::Image | What::Source | What::Context(_))
    }
}

impl Engine {
    /// The last builds, the newest first.
    ///
    /// # Errors
    /// The state folder cannot be read.
    pub fn last_builds(&self) -> Result<Vec<BuildSteps>, Error> {
        let all = self.store.built().map_err(crate::error::Cause::from)?;
        let mut builds: Vec<BuildSteps> = all.iter().filter_map(|bytes| BuildSteps::read(bytes)).collect();
        builds.sort_by_key(|build| std::cmp::Reverse(build.at));
        Ok(builds)
    }
}

impl BuildSteps {
    /// What a file tells; none where another version wrote it, or a power cut went through it.
    fn read(bytes: &[u8]) -> Option<BuildSteps> {
        serde_json::from_slice(bytes).ok().filter(BuildSteps::is_whole)
    }

    /// Whether it is of this version, and each step builds on steps before it.
    fn is_whole(&self) -> bool {
        let before = |(at, step): (usize, &Step)| {
            step.inputs.iter().chain(&step.base).all(|input| *input < at)
                && match &step.what {
                    What::Run(exec) => exec
                        .mounts
                        .iter()
                        .filter_map(|mount| mount.input)
                        .all(|input| input < step.inputs.len()),
                    _ => true,
                }
        };
        self.version == VERSION && self.steps.iter().enumerate().all(before)
    }

    /// Names the builds that take each other's place.
    fn key(&self) -> Digest {
        let mut hasher = oci::Hasher::new();
        hasher.field(self.dockerfile.as_bytes());
        hasher.field(self.text.raw());
        hasher.field(self.target.as_deref().unwrap_or_default().as_bytes());
        let context = self.contexts.get("context").map(|folder| folder.as_os_str().as_encoded_bytes());
        hasher.field(context.unwrap_or_default());
        hasher.finish()
    }

    /// Whether it tells what another tells: all but the moment, and what steps took.
    fn tells_as(&self, other: &BuildSteps) -> bool {
        let timeless = |build: &BuildSteps| {
            let mut build = build.clone();
            build.at = 0;
            for step in &mut build.steps {
                step.took = None;
                if let Came::Ran { milliseconds } | Came::Failed { milliseconds } = &mut step.came {
                    *milliseconds = 0;
                }
            }
            serde_json::to_vec(&build).ok()
        };
        timeless(self) == timeless(other)
    }

    /// Takes over the layers of images that this build did not have in hand, because what uses them was cached.
    fn remember_images(&mut self, other: &BuildSteps) {
        let known = |step: &Step| {
            let same = |had: &&Step| had.definition == step.definition && had.layers.is_some();
            other.steps.iter().find(same).and_then(|had| had.layers.clone())
        };
        let unknown = |step: &&mut Step| {
            step.layers.is_none() && step.definition.is_some() && matches!(step.what, What::Image)
        };
        for step in self.steps.iter_mut().filter(unknown) {
            step.layers = known(step);
        }
    }
}

impl Effects {
    /// Writes down what the build did, if it came to steps. That it cannot be written is no failure of a build. Nothing is
    /// written where it is what the newest of these tells already.
    pub(crate) fn keep_steps(&self) {
        let Some(mut build) = self.witness.as_ref().and_then(|witness| witness.told(&self.clock)) else {
            return;
        };
        let key = build.key();
        if let Ok(Some((bytes, is_newest))) = self.store.built_as(&key)
            && let Some(earlier) = BuildSteps::read(&bytes)
        {
            build.remember_images(&earlier);
            if is_newest && build.tells_as(&earlier) {
                return;
            }
        }
        let bytes = serde_json::to_vec(&build).expect("text, numbers and maps with text for keys are JSON");
        let _kept_or_not = self.store.keep_built(&self.lease, &key, &bytes);
    }
}
