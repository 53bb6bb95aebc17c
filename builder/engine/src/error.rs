//! Why a build failed: facts with their data. The command line owns the words around them.

mod disk;
mod pin;
mod text;

use std::{any::Any, io, path::PathBuf};

use dockerfile::LowerError;
use dockerfile_parser::ParseError;
use graph::SourceRange;
use image::{annotations::Misplaced, apply::ApplyError};
use oci::{Digest, Platform};

pub use pin::PinError;
use text::{available_text, exit_text, list, memory_text, with_unit};

use crate::{
    effect::{bounds::size, foreign::CannotRun},
    local::{TransferError, rollback::RollbackError},
    steps::StepError,
};

/// Why a build, or a command about images, did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Dockerfile cannot be read.
    #[error("the Dockerfile has {} errors", .0.len())]
    Parse(Vec<ParseError>),
    /// The Dockerfile cannot be lowered.
    #[error(transparent)]
    Lower(Box<LowerError>),
    /// A vertex failed.
    #[error("{vertex}: {cause}")]
    Vertex {
        /// The vertex as progress shows it.
        vertex: String,
        /// Its digest.
        digest: Digest,
        /// Where it was written.
        source_range: Option<SourceRange>,
        /// Why.
        cause: Box<Cause>,
    },
    /// Something outside any vertex failed.
    #[error(transparent)]
    Other(Box<Cause>),
    /// The build was stopped.
    #[error("it was cancelled")]
    Cancelled,
}

/// Why one thing failed.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// A process ended with something other than 0.
    #[error("{}", exit_text(command, *code, *signal))]
    Exit {
        /// The command as the Dockerfile has it.
        command: String,
        /// Its exit code, where it ended by itself.
        code: Option<u8>,
        /// The signal that ended it.
        signal: Option<i32>,
        /// The last lines that it wrote.
        last_lines: Vec<String>,
    },
    /// A process ran for longer than it may.
    #[error("`{command}` was ended after {ran_seconds} s, because it may run for {limit_seconds} s")]
    TimedOut {
        /// As of [`Cause::Exit`].
        command: String,
        /// How long it may run.
        limit_seconds: u64,
        /// How long it ran: what ignores that it is asked to end has some seconds more.
        ran_seconds: u64,
        /// As of [`Cause::Exit`].
        last_lines: Vec<String>,
    },
    /// A process was killed because the step's memory is limited.
    #[error("`{command}` ran out of memory: {}", memory_text(*limit_bytes, *peak_bytes))]
    OutOfMemory {
        /// As of [`Cause::Exit`].
        command: String,
        /// What the step may have; `None` where it is a group above its own, or the machine, that had no more.
        limit_bytes: Option<u64>,
        /// The most that it had.
        peak_bytes: Option<u64>,
        /// As of [`Cause::Exit`].
        last_lines: Vec<String>,
    },
    /// A process was killed from outside, and not by Kiln.
    #[error(
        "`{command}` was killed (SIGKILL), and not by Kiln: it may be that the machine ran out of memory{}",
        available_text(*available_bytes)
    )]
    Killed {
        /// As of [`Cause::Exit`].
        command: String,
        /// How much memory there is for others now.
        available_bytes: Option<u64>,
        /// As of [`Cause::Exit`].
        last_lines: Vec<String>,
    },
    /// A process did not succeed, and the disk that it wrote to is full.
    #[error("{}, and the disk of {} is full: {} are free", exit_text(command, *code, *signal), folder.display(), with_unit(*free_bytes))]
    DiskFull {
        /// As of [`Cause::Exit`].
        command: String,
        /// Its exit code; none where a signal ended it.
        code: Option<u8>,
        /// The signal: what is written to a mapped file cannot fail in another way.
        signal: Option<i32>,
        /// The state folder.
        folder: PathBuf,
        /// What is left.
        free_bytes: u64,
        /// As of [`Cause::Exit`].
        last_lines: Vec<String>,
    },
    /// Limits of a step that cannot be kept.
    #[error(transparent)]
    Cgroup(#[from] sandbox::CgroupError),
    /// The sandbox could not be made.
    #[error(transparent)]
    Sandbox(#[from] sandbox::Error),
    /// Steps of this build had networks of their own, and no more can be made.
    #[error("the step cannot have a network of its own any more: {0}")]
    NetworkLost(sandbox::net::Unavailable),
    /// This machine cannot run a step's program.
    #[error(transparent)]
    CannotRun(#[from] Box<CannotRun>),
    /// Two platforms have one path, and are to be written into one folder.
    #[error("cannot overwrite {path} from {first} with {second} when platforms are not split")]
    PlatformConflict {
        /// The path.
        path: String,
        /// The platform that has it first.
        first: Box<Platform>,
        /// The other one.
        second: Box<Platform>,
    },
    /// An image of the local store or a layout that is not there for a platform.
    #[error("the image `{name}` in {place} is not there for {wanted}: it has {}", list(available))]
    NoPlatform {
        /// The image.
        name: String,
        /// As of [`Cause::NoImage`].
        place: String,
        /// What was wanted.
        wanted: Box<Platform>,
        /// What there is.
        available: Vec<Platform>,
    },
    /// The state folder.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A registry.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// A Docker Engine.
    #[error(transparent)]
    Docker(#[from] Box<docker::Error>),
    /// An image of several platforms for a Docker Engine that keeps one of each.
    #[error(
        "the Docker Engine at {address} keeps images of one platform only, and this is an index of several"
    )]
    DockerPlatforms {
        /// Where it is.
        address: String,
    },
    /// An image that is not what a command takes.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// A file over http, or a git repository.
    #[error(transparent)]
    Fetch(Box<fetch::Error>),
    /// A source of `COPY` or `ADD` is not there.
    #[error("`{path}` is not in {of}{}", if *ignored { ": the ignore file leaves it out" } else { "" })]
    CopyMissing {
        /// The source as written.
        path: String,
        /// `the build context`, `stage build`, ….
        of: String,
        /// Whether it is there and left out by the ignore file.
        ignored: bool,
        /// A path that is there and is spelled much like it.
        near: Option<String>,
    },
    /// A source of `COPY` or `ADD` is a link to something that is not there.
    #[error("`{path}` is a link that leads nowhere in {of}")]
    CopyDangling {
        /// The source as written.
        path: String,
        /// As of [`Cause::CopyMissing`].
        of: String,
    },
    /// A copy cannot be done.
    #[error(transparent)]
    Copy(#[from] image::copy::CopyError),
    /// Files changed or could not be read.
    #[error(transparent)]
    Scan(#[from] image::scan::ScanError),
    /// Files could not be written.
    #[error(transparent)]
    Folder(#[from] image::folder::FolderError),
    /// A layer or archive cannot be unpacked.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A layer of an image from elsewhere.
    #[error("layer {layer}: {cause}")]
    Layer {
        /// Its blob.
        layer: Digest,
        /// What is wrong with it.
        cause: Box<Cause>,
    },
    /// A file that must be an archive is none that can be read.
    #[error("`{}` is packed as an archive is, but cannot be unpacked: no tar is in it, or it ends too early", path.trim_start_matches('/'))]
    NoArchive {
        /// The file.
        path: String,
    },
    /// A layer cannot be written.
    #[error(transparent)]
    Encode(#[from] image::encode::EncodeError),
    /// An OCI layout cannot be read or written.
    #[error(transparent)]
    Layout(#[from] image::layout::LayoutError),
    /// An annotation has no place in what is built.
    #[error(transparent)]
    Annotation(#[from] Misplaced),
    /// A document of an image is wrong.
    #[error(transparent)]
    Document(#[from] oci::BadDocument),
    /// An image's manifest and its config do not agree on how many layers there are.
    #[error("the manifest has {layers} layers, the config {diff_ids} diff ids")]
    Layers {
        /// Layers of the manifest.
        layers: usize,
        /// `rootfs.diff_ids` of the config.
        diff_ids: usize,
    },
    /// A path of an image is none.
    #[error(transparent)]
    Resolve(#[from] tree::ResolveError),
    /// The user of a step.
    #[error(transparent)]
    User(#[from] tree::BadUser),
    /// A secret that a step needs was not given.
    #[error("the step needs the secret `{0}`, and none of that id was given")]
    SecretMissing(String),
    /// An ssh agent that a step needs was not given.
    #[error("the step needs the ssh agent `{0}`, and none of that id was given")]
    SshMissing(String),
    /// An image of the local store or a layout that is not there.
    #[error("there is no image `{name}` in {place}")]
    NoImage {
        /// What was asked for.
        name: String,
        /// `the local store`, or the layout's path.
        place: String,
    },
    /// A base image that is not to be had.
    #[error(transparent)]
    Pin(#[from] Box<PinError>),
    /// A name that cannot be pointed back to an earlier image.
    #[error(transparent)]
    Rollback(#[from] RollbackError),
    /// A main context without a Dockerfile.
    #[error("there is no `{name}` in {place}")]
    NoDockerfile {
        /// What was looked for first.
        name: String,
        /// The context.
        place: String,
        /// Files of it that may be meant.
        near: Vec<String>,
    },
    /// A file of a main context that is too long to be a Dockerfile.
    #[error("{name} is longer than {} MiB: it is no Dockerfile", longest_bytes >> 20)]
    DockerfileTooLong {
        /// The file.
        name: String,
        /// How many bytes it may have.
        longest_bytes: u64,
    },
    /// A step breaks a rule, and the Dockerfile makes that an error.
    #[error("lint violation found for rules: {rule}")]
    Checks {
        /// The rule.
        rule: String,
    },
    /// Something that does not exist yet.
    #[error("{0} is not supported yet")]
    NotYet(String),
    /// A step of an earlier build.
    #[error(transparent)]
    Step(#[from] StepError),
    /// A root without a shell.
    #[error("the step cannot be entered: its root has no shell, tried {}", tried.join(" and "))]
    NoShell {
        /// The command lines that were tried.
        tried: Vec<String>,
    },
    /// A root of stacked layers, where layers were made to be copied.
    #[error(
        "the layers of this state folder were made for copies, without what overlayfs needs to stack them"
    )]
    LayersWithoutMarks,
    /// A secret as a file, where files are on the disk.
    #[error(
        "the secret at {target} would be a file on the disk: the mode `chroot` cannot mount one that is in memory"
    )]
    SecretOnDisk {
        /// Where the step wants it.
        target: String,
    },
    /// A layer of the cache lacks a part, and nothing can make it again.
    #[error("the layer {layer} has neither its files nor a blob in the state folder")]
    LayerLost {
        /// The layer.
        layer: String,
    },
    /// An operation on a file.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// `write`, `open`, ….
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A part of Kiln that runs beside others ended without an answer.
    #[error("an internal task ended without an answer: {0}")]
    Task(String),
    /// The build was stopped.
    #[error("cancelled")]
    Cancelled,
}

impl Cause {
    /// An operation on a file that failed.
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Cause {
        let path = path.into();
        move |source| Cause::Io { doing, path, source }
    }

    /// A thread that panicked.
    pub(crate) fn panicked(panicked: &(dyn Any + Send)) -> Cause {
        let text = panicked.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panicked.downcast_ref::<&str>().copied());
        Cause::Task(format!("it panicked: {}", text.unwrap_or("it did not say why")))
    }

    /// The last lines that a step wrote which failed.
    pub fn last_lines(&self) -> &[String] {
        match self {
            Cause::Exit { last_lines, .. }
            | Cause::TimedOut { last_lines, .. }
            | Cause::OutOfMemory { last_lines, .. }
            | Cause::Killed { last_lines, .. }
            | Cause::DiskFull { last_lines, .. } => last_lines,
            _ => &[],
        }
    }

    /// A stable name, under which `docs/errors/` explains it.
    pub fn code(&self) -> &str {
        match self {
            Cause::Exit { .. } => "run-failed",
            Cause::TimedOut { .. } => "run-timeout",
            Cause::OutOfMemory { .. } => "out-of-memory",
            Cause::Killed { .. } => "run-killed",
            Cause::DiskFull { .. } => "disk-full",
            Cause::Cgroup(_) => "cgroup",
            Cause::Sandbox(sandbox::Error::NotInChroot { .. }) => "not-in-chroot",
            Cause::Sandbox(_) => "sandbox",
            Cause::NetworkLost(_) => "network-lost",
            Cause::CannotRun(cannot) => cannot.code(),
            Cause::PlatformConflict { .. } => "platform-conflict",
            Cause::NoPlatform { .. } => "image-platform",
            Cause::Store(_) => "state-folder",
            Cause::Registry(error) => error.code(),
            Cause::Docker(error) => error.code(),
            Cause::DockerPlatforms { .. } => "docker",
            Cause::Fetch(error) => error.code(),
            Cause::Transfer(error) => error.code(),
            Cause::CopyMissing { ignored: true, .. } => "copy-ignored",
            Cause::CopyMissing { .. } | Cause::CopyDangling { .. } => "copy-missing",
            Cause::Copy(_) => "copy",
            Cause::Scan(_) => "read",
            Cause::Folder(_) => "write",
            Cause::Apply(_) | Cause::NoArchive { .. } => "unpack",
            Cause::Layer { cause, .. } => cause.code(),
            Cause::Encode(_) => "encode",
            Cause::Layout(_) => "oci-layout",
            Cause::Annotation(_) => "annotation",
            Cause::Document(_) | Cause::Layers { .. } => "bad-document",
            Cause::Resolve(_) => "path",
            Cause::User(_) => "user",
            Cause::SecretMissing(_) => "secret-missing",
            Cause::SshMissing(_) => "ssh-missing",
            Cause::NoImage { .. } => "no-image",
            Cause::Pin(error) => error.code(),
            Cause::Rollback(error) => error.code(),
            Cause::NoDockerfile { .. } => "no-dockerfile",
            Cause::DockerfileTooLong { .. } => "dockerfile-too-long",
            Cause::Checks { .. } => "checks-failed",
            Cause::NotYet(_) => "not-yet",
            Cause::Step(error) => error.code(),
            Cause::NoShell { .. } => "no-shell",
            Cause::LayersWithoutMarks => "layers-without-marks",
            Cause::SecretOnDisk { .. } => "secret-on-disk",
            Cause::LayerLost { .. } => "layer-lost",
            Cause::Io { .. } => "io",
            Cause::Task(_) => "internal",
            Cause::Cancelled => "cancelled",
        }
    }

    /// An edit or a command that mends it.
    pub fn help(&self) -> Option<String> {
        match self {
            Cause::CopyMissing { path, ignored: true, .. } => {
                Some(format!("add the line `!{}` to .dockerignore", path.trim_start_matches('/')))
            }
            Cause::CopyMissing { near: Some(near), .. } => Some(format!("write `{near}`, which is there")),
            Cause::NetworkLost(_) => Some(
                "raise what `ulimit -n` and `ulimit -u` show, build with fewer --jobs, or --network=none".to_owned(),
            ),
            Cause::SecretMissing(id) => Some(format!("--secret id={id},src=FILE")),
            Cause::SshMissing(id) => Some(format!("--ssh {id}")),
            Cause::CannotRun(cannot) => Some(cannot.help()),
            Cause::TimedOut { limit_seconds, .. } => {
                Some(format!("--timeout {}s gives it twice the time", limit_seconds.saturating_mul(2)))
            }
            Cause::OutOfMemory { limit_bytes: Some(limit), .. } => {
                Some(format!("--memory {} gives it twice as much", size(limit.saturating_mul(2))))
            }
            Cause::OutOfMemory { .. } => Some(
                "raise the limit of the control group that Kiln is in, or that --cgroup-parent names; --jobs 1 runs one step \
                 at a time"
                    .to_owned(),
            ),
            Cause::Killed { .. } => Some(
                "`dmesg | grep -i 'killed process'` tells; --jobs 1 runs one step at a time, and --memory says how much each \
                 may take"
                    .to_owned(),
            ),
            Cause::Cgroup(error) => error.help(),
            Cause::PlatformConflict { .. } => {
                Some("leave `platform-split=false` away: each platform then has a folder".to_owned())
            }
            Cause::NoPlatform { available, .. } if !available.is_empty() => {
                let all: Vec<String> = available.iter().map(|one| format!("--platform {one}")).collect();
                Some(all.join(" or "))
            }
            Cause::Layout(image::layout::LayoutError::SeveralPlatforms { .. }) => {
                Some("-o type=oci,dest=FILE holds several platforms, and so does the local store".to_owned())
            }
            Cause::Exit { last_lines, .. } if last_lines.iter().any(|line| line.contains("xec format error")) => {
                Some(
                    "one of its programs is for another architecture: apt-get install qemu-user-static runs it here; \
                     FROM --platform=$BUILDPLATFORM takes the image for this machine"
                        .to_owned(),
                )
            }
            Cause::Layer { cause, .. } => cause.help(),
            Cause::Apply(ApplyError::TooLarge { what: "entries", .. }) => {
                Some("where such an image is meant: KILN_LIMITS=layer-entries=NUMBER".to_owned())
            }
            Cause::Apply(ApplyError::TooLarge { .. }) => Some(
                "where such an image is meant: KILN_LIMITS=layer-size=SIZE,layer-expansion=NUMBER".to_owned(),
            ),
            Cause::Annotation(Misplaced::Docker(_)) => {
                Some("leave `oci-mediatypes=false` or the annotation away".to_owned())
            }
            Cause::Annotation(Misplaced::NoIndex(_)) => Some(
                "--platform with several platforms; or --build-arg BUILDKIT_MULTI_PLATFORM=1, which makes an index of one"
                    .to_owned(),
            ),
            Cause::Annotation(Misplaced::NoPlatform { key, built }) => {
                let all = built.iter().chain(&key.platform).map(Platform::to_string).collect::<Vec<_>>();
                Some(format!("--platform {}", all.join(",")))
            }
            Cause::Registry(error) => error.help(),
            Cause::Docker(error) => error.help(),
            Cause::DockerPlatforms { .. } => Some(
                "--platform with one platform; or let containerd keep its images: `{\"features\": \
                 {\"containerd-snapshotter\": true}}` in /etc/docker/daemon.json"
                    .to_owned(),
            ),
            Cause::Fetch(error) => error.help(),
            Cause::Transfer(error) => error.help(),
            Cause::Store(error) => error.help(),
            Cause::Pin(error) => Some(error.help()),
            Cause::Rollback(error) => error.help(),
            Cause::Step(error) => Some(error.help()),
            Cause::NoShell { .. } => Some(
                "lend it one for a while: RUN --mount=type=bind,from=busybox:musl,source=/bin,target=/bin COMMAND".to_owned(),
            ),
            Cause::LayersWithoutMarks => {
                Some("`--sandbox=root,copy`, or another state folder: --root FOLDER".to_owned())
            }
            Cause::SecretOnDisk { .. } => Some(
                "as a variable: RUN --mount=type=secret,id=…,env=NAME; or with --root on a tmpfs that lets programs run: a pod's \
                 emptyDir of `medium: Memory`, `docker run --tmpfs /state:exec,dev`"
                    .to_owned(),
            ),
            Cause::LayerLost { .. } => Some("kiln build --no-cache".to_owned()),
            Cause::NoDockerfile { near, .. } => Some(match near.first() {
                Some(near) => format!("-f {near}"),
                None => "-f PATH/IN/THE/CONTEXT, or `-f -` with the Dockerfile on standard input".to_owned(),
            }),
            Cause::NoImage { place, .. } if place == "the local store" => Some("kiln images".to_owned()),
            _ => self.is_disk_full().then(|| disk::HELP.to_owned()),
        }
    }
}

impl Error {
    /// What `kiln run` exits with when its command could not be started: 127 where there is none, 126 where it cannot be
    /// executed, as shells and Docker have it.
    pub fn command_status(&self) -> Option<u8> {
        match self {
            Error::Other(cause) => match cause.as_ref() {
                Cause::Sandbox(error) => error.exit_code(),
                Cause::CannotRun(cannot) => Some(cannot.exit_code()),
                _ => None,
            },
            _ => None,
        }
    }

    /// Exit status: 2 when the Dockerfile is wrong, 130 when the build was stopped, else 1.
    pub fn exit_status(&self) -> u8 {
        match self {
            Error::Parse(_) | Error::Lower(_) => 2,
            Error::Other(cause) => match **cause {
                Cause::NoDockerfile { .. } | Cause::DockerfileTooLong { .. } | Cause::Annotation(_) => 2,
                _ => 1,
            },
            Error::Vertex { .. } => 1,
            Error::Cancelled => 130,
        }
    }
}

impl From<fetch::Error> for Cause {
    fn from(error: fetch::Error) -> Cause {
        match error {
            fetch::Error::Cancelled => Cause::Cancelled,
            error => Cause::Fetch(Box::new(error)),
        }
    }
}

impl From<CannotRun> for Cause {
    fn from(cannot: CannotRun) -> Cause {
        Cause::CannotRun(Box::new(cannot))
    }
}

impl From<PinError> for Cause {
    fn from(error: PinError) -> Cause {
        Cause::Pin(Box::new(error))
    }
}

impl From<Cause> for Error {
    fn from(cause: Cause) -> Error {
        match cause {
            Cause::Cancelled => Error::Cancelled,
            cause => Error::Other(Box::new(cause)),
        }
    }
}

impl From<StepError> for Error {
    fn from(error: StepError) -> Error {
        Cause::from(error).into()
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Error {
        Cause::from(error).into()
    }
}
