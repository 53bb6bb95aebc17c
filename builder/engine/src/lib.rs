//! The main flow: from a Dockerfile and a request to images, and the effects that the solver asks for.
//!
//! [`Engine::build`] is the whole of it: parse, lower, solve, export. What decides (`dockerfile`, `solver`) does not
//! act; what acts (the effects here, over `store`, `registry`, `sandbox` and `image`) does not decide.
//!
//! | Folder    | Question |
//! |-----------|----------|
//! | `build/`  | in which order? the flow, the facts that lowering needs, the loop |
//! | `effect/` | how is one vertex fingerprinted, looked up, made? |
//! | `export/` | how does a result leave? |
//! | `push/`   | how does an image reach a registry? |
//! | `daemon.rs` | how does an image reach a Docker Engine? |
//! | `memo/`   | was all of this built before, and has nothing changed? |
//! | `steps/`  | what did the last builds do, step by step? |
//! | `local/`  | what can be done with images that are here, or that go from one registry to another? |

mod build;
mod cancel;
mod client;
mod clock;
mod daemon;
mod effect;
mod engine;
mod error;
mod export;
mod limits;
mod local;
mod memo;
pub mod progress;
mod push;
mod request;
mod result;
mod secrets;
mod steps;

pub use build::{BuildOutcome, call::Checked};
pub use cancel::Cancel;
pub use client::{Client, SshAgent};
pub use clock::{Clock, Time, words_of};
pub use effect::{bounds::StepLimits, foreign::CannotRun};
pub use engine::{Engine, SHARED, Settings};
pub use error::{Cause, Error, PinError};
pub use fetch::git::Surroundings;
pub use limits::Limits;
pub use local::{
    ImageSource, TransferError,
    archive::{ArchiveFormat, LoadedImage},
    artifact::FetchedFile,
    attests,
    copy::CopyRequest,
    enter::{Entered, Failed, FailedStep},
    images::{FoundImage, HistoryEntry},
    index::{IndexRequest, IndexSource, MadeIndex, PartialDescriptor, PartialPlatform},
    remote::{PullRequest, PushRequest},
    rollback::{RollbackError, RollbackRequest, RolledBack, TagRecord},
    run::{Container, RunRequest, Terminal, Volume},
};
pub use memo::{Recalled, Remember, recall};
pub use request::{
    Asking, BuildRequest, ContextFrom, DanglingName, Destination, DockerfileFrom, ImageForm, Output,
    OutputEpoch, PullPolicy, Push,
};
pub use sandbox::{Resources, SecretBytes, Swap};
pub use steps::{BuildSteps, Came, EnterRequest, Step, StepError};
pub use store::{
    BadFilter, Caps, Disk, DiskUsage, Filter, Freed, IdMap, Rule, Space, TagPlace, Took, Usage, UsageType,
    default_policy,
};
