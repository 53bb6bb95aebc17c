//! The command line: `kiln COMMAND …`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use sandbox::Wish;

mod copy;
mod house;
mod index;
mod info;
mod resources;
mod rollback;
mod shell;

pub use copy::{Artifact, ArtifactCommand, ArtifactFetch, Copy, Referrers};
pub use house::{Du, Prune};
pub use index::{Index, IndexCommand, IndexCreate, IndexInspect};
pub use info::Info;
pub use resources::{ProcessLimits, Resources};
pub use rollback::Rollback;
pub use shell::Shell;

/// Builds container images: Dockerfile in, layered OCI image out. No daemon.
#[derive(Debug, Parser)]
#[command(name = "kiln", version, max_term_width = 100, disable_help_subcommand = true)]
pub struct Arguments<C: Subcommand = Command> {
    /// State folder [default: /var/lib/kiln as root, else $XDG_DATA_HOME/kiln]
    #[arg(long, global = true, value_name = "DIR", env = "KILN_ROOT")]
    pub root: Option<PathBuf>,
    /// How steps are kept apart: auto, root, subids, single or chroot; with ,copy copies instead of overlayfs
    #[arg(
        long,
        global = true,
        value_name = "MODE[,copy]",
        env = "KILN_SANDBOX",
        default_value = "auto",
        hide_default_value = true
    )]
    pub sandbox: Wish,
    /// What to do.
    #[command(subcommand)]
    pub command: C,
}

impl Arguments {
    /// Reads the command line. Where that is wrong, or asks for help, it is said, and this process ends: with 2, or 0 after help.
    pub fn read() -> Arguments {
        if !std::env::args_os().any(|word| word == "build" || word == "b") {
            return Arguments::parse();
        }
        // To describe all commands to the parser takes a fifth of a build in which nothing has changed.
        match Arguments::<Often>::try_parse() {
            Ok(Arguments { root, sandbox, command: Often::Build(build) }) => {
                Arguments { root, sandbox, command: Command::Build(build) }
            }
            // Such a parser knows too little to say what is wrong, or what there is.
            Err(_) => Arguments::parse(),
        }
    }
}

/// What to do, most of the time.
#[derive(Debug, Subcommand)]
pub enum Often {
    /// As [`Command::Build`].
    #[command(visible_alias = "b")]
    Build(Box<Build>),
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build an image from a Dockerfile
    #[command(visible_alias = "b")]
    Build(Box<Build>),
    /// Anything else.
    #[command(flatten)]
    Other(Other),
    /// What needs no state folder.
    #[command(flatten)]
    Alone(Alone),
}

/// What needs no state folder.
#[derive(Debug, Subcommand)]
pub enum Alone {
    /// Log in to a registry
    Login(Login),
    /// Forget a login
    Logout(Logout),
    /// Show what this machine offers Kiln, and how it would build here
    Info(Info),
}

/// What to do with what was built, or with what others have built.
#[derive(Debug, Subcommand)]
pub enum Other {
    /// Run a command in an image of the local store
    Run(Box<Run>),
    /// Open a shell in an image, or before or after a step of the last build; alone, list its steps
    Shell(Box<Shell>),
    /// List the images of the local store
    #[command(visible_alias = "ls")]
    Images(Images),
    /// Show an image's config as JSON
    Inspect(Inspect),
    /// Show an image's layers and what made them, or with --tag what a name stood for
    History(History),
    /// Give an image another name
    Tag(Tag),
    /// Write images into an archive
    Save(Save),
    /// Take the images of an archive into the local store
    Load(Load),
    /// Fetch images from their registries
    Pull(Pull),
    /// Send an image to registries, or to the Docker Engine
    Push(Push),
    /// List the tags of a repository in its registry
    Tags(Tags),
    /// Copy images and other artifacts from registry to registry
    Copy(Copy),
    /// Make and show indexes: the images of several platforms under one name
    Index(Index),
    /// List what refers to an image in its registry: signatures, SBOMs, attestations
    Referrers(Referrers),
    /// Fetch artifacts that are no images
    Artifact(Artifact),
    /// Remove names of images, and what nothing else needs
    Rmi(Rmi),
    /// Show what the state folder holds, and how much of it can be removed
    Du(Du),
    /// Remove build cache
    Prune(Prune),
    /// Point a name back to an image that it had
    Rollback(Rollback),
}

impl Other {
    /// Whether it reads or writes layers, and not only documents: those may have other owners than this user.
    pub fn needs_layers(&self) -> bool {
        match self {
            Other::Run(_)
            | Other::Shell(_)
            | Other::Save(_)
            | Other::Load(_)
            | Other::Pull(_)
            | Other::Push(_)
            | Other::Rmi(_)
            | Other::Du(_)
            | Other::Prune(_) => true,
            Other::Images(_)
            | Other::Inspect(_)
            | Other::History(_)
            | Other::Tag(_)
            | Other::Tags(_)
            | Other::Copy(_)
            | Other::Index(_)
            | Other::Referrers(_)
            | Other::Artifact(_)
            | Other::Rollback(_) => false,
        }
    }
}

/// `kiln build`.
#[derive(Debug, Args)]
pub struct Build {
    /// The build context: a folder, or - for a Dockerfile on standard input
    #[arg(value_name = "CONTEXT")]
    pub context: String,
    /// The Dockerfile [default: CONTEXT/Dockerfile, else CONTEXT/Containerfile]; - is standard input
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Name the image; may be given more than once
    #[arg(short = 't', long = "tag", value_name = "NAME[:TAG]")]
    pub tags: Vec<String>,
    /// Build this stage instead of the last
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,
    /// Set an ARG; without a value it is taken from the environment
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    pub build_args: Vec<String>,
    /// Another context: a folder, docker-image://NAME or oci-layout://PATH[:TAG|@DIGEST]
    #[arg(long = "build-context", value_name = "NAME=SOURCE")]
    pub build_contexts: Vec<String>,
    /// Build for these platforms, for instance linux/amd64,linux/arm64; local is this machine's
    #[arg(long, value_name = "OS/ARCH[,…]", env = "DOCKER_DEFAULT_PLATFORM", value_delimiter = ',')]
    pub platform: Vec<String>,
    /// Add a label to the image
    #[arg(long = "label", value_name = "NAME=VALUE")]
    pub labels: Vec<String>,
    /// Add an annotation to the image: of its manifests, or where LEVEL says: index, index-descriptor, manifest or
    /// manifest-descriptor, with [OS/ARCH] behind it for one platform
    #[arg(long = "annotation", value_name = "[LEVEL,…:]NAME=VALUE")]
    pub annotations: Vec<String>,
    /// Give steps a secret: id=ID[,src=FILE|,env=VARIABLE]; with cache-key=content, steps that use it run again when
    /// it has changed
    #[arg(long = "secret", value_name = "id=ID,…")]
    pub secrets: Vec<String>,
    /// Push the image to the registries of its names; the same as -o type=registry
    #[arg(long)]
    pub push: bool,
    /// Load the image into the Docker Engine; the same as -o type=docker
    #[arg(long)]
    pub load: bool,
    /// Give steps an ssh agent: default, ID=SOCKET, or ID=KEY,… with files of private keys
    #[arg(long = "ssh", value_name = "default|ID=SOCKET|ID=KEY,…")]
    pub ssh: Vec<String>,
    /// Where the result goes, as often as wanted: type=image|registry|oci|docker|local|tar|cacheonly and keys, as
    /// dest=PATH, name=NAME, compression=zstd [default: the local store]
    #[arg(short = 'o', long = "output", value_name = "type=TYPE,…")]
    pub outputs: Vec<String>,
    /// Run every step, whatever the cache has
    #[arg(long)]
    pub no_cache: bool,
    /// Run every step of these stages
    #[arg(long = "no-cache-filter", value_name = "STAGE[,…]", value_delimiter = ',')]
    pub no_cache_filter: Vec<String>,
    /// Ask registries for base images: always, missing, newer or never; --pull alone is always
    #[arg(
        long, num_args = 0..=1, require_equals = true, default_value = "missing", default_missing_value = "always",
        hide_default_value = true, value_name = "WHEN"
    )]
    pub pull: String,
    /// How long a registry's answer about a base image saves the next question; 0 is not at all
    #[arg(long, value_name = "DURATION", env = "KILN_RESOLVE_TTL", default_value = "10m")]
    pub resolve_ttl: String,
    /// How progress is shown: auto, tty, plain, quiet, rawjson or none
    #[arg(long, value_name = "MODE", env = "BUILDKIT_PROGRESS", default_value = "auto")]
    pub progress: String,
    /// Show nothing but the image's digest
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// Write the image's digest to this file
    #[arg(long, value_name = "FILE")]
    pub iidfile: Option<PathBuf>,
    /// Write what was built as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,
    /// Network of RUN steps: default, none or host
    #[arg(long, value_name = "MODE", default_value = "default")]
    pub network: String,
    /// Add a line to /etc/hosts of RUN steps
    #[arg(long = "add-host", value_name = "HOST:IP")]
    pub add_hosts: Vec<String>,
    #[command(flatten)]
    pub limits: ProcessLimits,
    /// Allow what RUN steps ask for: network.host, security.insecure
    #[arg(long = "allow", value_name = "ENTITLEMENT", value_delimiter = ',')]
    pub allow: Vec<String>,
    /// Say of every step that runs why it was not cached
    #[arg(long)]
    pub explain: bool,
    #[command(flatten)]
    pub resources: Resources,
    /// End a step that runs for longer, for instance 10m
    #[arg(long, value_name = "DURATION")]
    pub timeout: Option<String>,
    /// Run at most this many steps at once
    #[arg(long, value_name = "N")]
    pub jobs: Option<usize>,
    /// What is done when a RUN step fails: fail, or shell, which opens one in the step as it was left
    #[arg(long, value_name = "fail|shell", default_value = "fail", hide_default_value = true)]
    pub on_error: String,
    /// Check the Dockerfile instead of building it: --call=check
    #[arg(
        long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true",
        action = clap::ArgAction::Set, hide_default_value = true, hide_possible_values = true, value_name = "BOOL"
    )]
    pub check: bool,
    /// Ask instead of building: check, outline, targets or subrequests.describe; with ,format=json as JSON
    #[arg(long, value_name = "METHOD[,format=json]")]
    pub call: Option<String>,
    /// Flags that `docker build` has and that change nothing here, or that do not exist yet.
    #[command(flatten)]
    pub others: Others,
}

/// Flags of `docker build` that warn, or that are refused by name because they are not built yet.
#[derive(Debug, Args)]
pub struct Others {
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true")]
    pub rm: Option<String>,
    #[arg(long, hide = true)]
    pub force_rm: bool,
    #[arg(long, hide = true)]
    pub compress: bool,
    #[arg(long, hide = true)]
    pub squash: bool,
    #[arg(long, hide = true)]
    pub cache_from: Vec<String>,
    #[arg(long, hide = true)]
    pub cache_to: Vec<String>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true")]
    pub provenance: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true")]
    pub sbom: Option<String>,
    #[arg(long, hide = true)]
    pub attest: Vec<String>,
    #[arg(long, hide = true)]
    pub security_opt: Vec<String>,
    #[arg(long, hide = true)]
    pub isolation: Option<String>,
    #[arg(long, hide = true)]
    pub builder: Option<String>,
}

/// `kiln run`.
#[derive(Debug, Args)]
pub struct Run {
    /// The image
    pub image: String,
    /// The command and its arguments [default: the image's]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
    /// Accepted for docker's sake: what a run writes is always thrown away
    #[arg(long)]
    pub rm: bool,
    /// Pass standard input on
    #[arg(short = 'i', long)]
    pub interactive: bool,
    /// Give the command a terminal
    #[arg(short = 't', long)]
    pub tty: bool,
    /// Mount a folder or file of the host: SOURCE:TARGET[:ro]
    #[arg(short = 'v', long = "volume", value_name = "SOURCE:TARGET[:ro]")]
    pub volumes: Vec<String>,
    /// Start in this folder
    #[arg(short = 'w', long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// Set a variable; without a value it is taken from the environment
    #[arg(short = 'e', long = "env", value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// Run as this user
    #[arg(short = 'u', long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Network: default, none or host
    #[arg(long, value_name = "MODE", default_value = "default")]
    pub network: String,
    /// Run this instead of the image's entry point
    #[arg(long, value_name = "COMMAND")]
    pub entrypoint: Option<String>,
    #[command(flatten)]
    pub resources: Resources,
    #[command(flatten)]
    pub limits: ProcessLimits,
    /// Host name seen inside
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
}

/// `kiln images`.
#[derive(Debug, Args)]
pub struct Images {
    /// Show digests only
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// Write JSON, one image a line
    #[arg(long)]
    pub json: bool,
}

/// `kiln inspect`.
#[derive(Debug, Args)]
pub struct Inspect {
    /// The images
    #[arg(required = true)]
    pub images: Vec<String>,
}

/// `kiln history`.
#[derive(Debug, Args)]
pub struct History {
    /// The image
    pub image: String,
    /// Do not shorten
    #[arg(long)]
    pub no_trunc: bool,
    /// Write JSON, one entry a line
    #[arg(long)]
    pub json: bool,
    /// Show which images the name had instead
    #[arg(long)]
    pub tag: bool,
    /// With --tag: in its registry, as far as is known here
    #[arg(long, requires = "tag")]
    pub registry: bool,
}

/// `kiln tag`.
#[derive(Debug, Args)]
pub struct Tag {
    /// An image of the local store
    pub image: String,
    /// Its new name
    pub name: String,
}

/// How progress is shown.
#[derive(Debug, Args)]
pub struct Shown {
    /// How progress is shown: auto, tty, plain, quiet, rawjson or none
    #[arg(long, value_name = "MODE", env = "BUILDKIT_PROGRESS", default_value = "auto")]
    pub progress: String,
    /// Show nothing but the digest
    #[arg(short = 'q', long)]
    pub quiet: bool,
}

/// `kiln save`.
#[derive(Debug, Args)]
pub struct Save {
    /// The images
    #[arg(required = true)]
    pub images: Vec<String>,
    /// Write to this file [default: standard output]
    #[arg(short = 'o', long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// docker, which `docker load` and readers of OCI archives take, or oci
    #[arg(long, value_name = "FORMAT", default_value = "docker")]
    pub format: String,
}

/// `kiln load`.
#[derive(Debug, Args)]
pub struct Load {
    /// Read this archive: Docker's or an OCI layout, plain or compressed [default: standard input]
    #[arg(short = 'i', long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// Say nothing
    #[arg(short = 'q', long)]
    pub quiet: bool,
}

/// `kiln login`.
#[derive(Debug, Args)]
pub struct Login {
    /// The registry [default: docker.io]
    pub registry: Option<String>,
    /// The user's name
    #[arg(short = 'u', long)]
    pub username: Option<String>,
    /// The password; others can see it on the command line
    #[arg(short = 'p', long, conflicts_with = "password_stdin")]
    pub password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    pub password_stdin: bool,
}

/// `kiln logout`.
#[derive(Debug, Args)]
pub struct Logout {
    /// The registry [default: docker.io]
    pub registry: Option<String>,
}

/// `kiln pull`.
#[derive(Debug, Args)]
pub struct Pull {
    /// The images
    #[arg(required = true, value_name = "NAME[:TAG|@DIGEST]")]
    pub images: Vec<String>,
    /// Fetch what there is for this platform, for instance linux/arm64
    #[arg(long, value_name = "OS/ARCH", env = "DOCKER_DEFAULT_PLATFORM")]
    pub platform: Option<String>,
    /// Do not unpack the layers: for images that are only pushed or saved again
    #[arg(long)]
    pub no_unpack: bool,
    #[command(flatten)]
    pub shown: Shown,
}

/// `kiln push`.
#[derive(Debug, Args)]
pub struct Push {
    /// An image of the local store
    pub image: String,
    /// Names to give it in their registries, or docker-daemon:NAME for the Docker Engine [default: the image's own]
    #[arg(value_name = "REGISTRY/NAME[:TAG]")]
    pub names: Vec<String>,
    #[command(flatten)]
    pub shown: Shown,
}

/// `kiln tags`.
#[derive(Debug, Args)]
pub struct Tags {
    /// The repository
    #[arg(value_name = "REGISTRY/NAME")]
    pub repository: String,
}

/// `kiln rmi`.
#[derive(Debug, Args)]
pub struct Rmi {
    /// The images
    #[arg(required = true)]
    pub images: Vec<String>,
    /// Accepted for docker's sake
    #[arg(short = 'f', long)]
    pub force: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn both_parsers_read_a_build_the_same() {
        for line in [
            "kiln build .",
            "kiln b -t a --target=b -",
            "kiln --root /r build --root /s -f x --build-arg A=1 build",
        ] {
            let words = || line.split(' ');
            let Often::Build(often) = Arguments::<Often>::try_parse_from(words()).expect(line).command;
            match Arguments::<Command>::try_parse_from(words()).expect(line).command {
                Command::Build(build) => assert_eq!(format!("{often:?}"), format!("{build:?}"), "{line}"),
                other => panic!("{line}: {other:?}"),
            }
        }
        for line in [
            "kiln images",
            "kiln --root build images",
            "kiln run build",
            "kiln build --no-such-flag .",
            "kiln build --help",
        ] {
            assert!(Arguments::<Often>::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
        let names = |command: clap::Command| -> Vec<String> {
            let build = command.find_subcommand("build").expect("there is one");
            build.get_all_aliases().map(str::to_owned).collect()
        };
        assert_eq!(names(Arguments::<Often>::command()), names(Arguments::<Command>::command()));
        assert_eq!(names(Arguments::<Command>::command()), ["b"], "what `read` looks for beside `build`");
    }
}
