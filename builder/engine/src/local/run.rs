//! `kiln run`: a command in an image, in the sandbox that steps run in.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use graph::{Network, Ulimit};
use oci::{Config, Digest};
use sandbox::{CapabilitySet, Group, Handle, Mount, MountKind, Report, Running, Spec, Stdio, WindowSize};

use crate::{
    cancel::Cancel,
    client::Client,
    effect::{
        Effects, Job,
        exec::{resource_limits, user},
        furnish::Furnished,
        mounts::Mounts,
        network::Reached,
        pull::{KnownImage, Place},
    },
    engine::Engine,
    error::{Cause, Error},
    local::container_image,
    progress::Silent,
    result::VertexResult,
};

/// What to run.
#[derive(Clone, Debug)]
pub struct RunRequest {
    /// An image of the local store.
    pub image: String,
    /// The command; empty is the image's own.
    pub command: Vec<String>,
    /// In place of the image's entry point.
    pub entrypoint: Option<String>,
    /// Variables besides the image's.
    pub env: Vec<(String, String)>,
    /// Folder to start in, in place of the image's.
    pub workdir: Option<String>,
    /// User, in place of the image's.
    pub user: Option<String>,
    /// Network.
    pub network: Network,
    /// Host name; the image's short digest where none is given.
    pub hostname: Option<String>,
    /// Limits of its processes.
    pub ulimits: Vec<Ulimit>,
    /// Size of `/dev/shm`.
    pub shm_size_bytes: Option<u64>,
    /// Folders and files of the host.
    pub volumes: Vec<Volume>,
    /// What the command's input and output are.
    pub terminal: Terminal,
}

/// A folder or file of the host inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Absolute path on the host.
    pub source: PathBuf,
    /// Absolute path inside.
    pub target: PathBuf,
    /// Whether writing is refused.
    pub readonly: bool,
}

/// What a command's input and output are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terminal {
    /// Those of this process, without the input.
    Output,
    /// Those of this process.
    Inherit,
    /// A new terminal of this size: [`Container::terminal`].
    New {
        /// Lines.
        rows: u16,
        /// Characters in a line.
        columns: u16,
    },
}

/// A command that runs. Dropped, it is killed; what it wrote is thrown away.
pub struct Container {
    running: Running,
    /// Removed when nothing runs in it any more.
    group: Option<Group>,
    /// What it has to do without.
    without: Option<String>,
    /// What lies in its root in place of mounts.
    _furnished: Option<Furnished>,
    /// Keeps what it stands on.
    _stands_on: (Arc<Effects>, Option<Mounts>),
}

impl Container {
    pub(crate) fn new(running: Running, effects: Arc<Effects>, mounts: Option<Mounts>) -> Container {
        Container { running, group: None, without: None, _furnished: None, _stands_on: (effects, mounts) }
    }

    /// The same, in whose root this lies.
    pub(crate) fn furnished(self, furnished: Option<(Furnished, Spec)>) -> Container {
        Container { _furnished: furnished.map(|(furnished, _)| furnished), ..self }
    }

    /// The same, which runs in a control group.
    pub(crate) fn in_group(self, group: Option<Group>) -> Container {
        Container { group, ..self }
    }

    /// Reaches it from another thread.
    pub fn handle(&self) -> Handle {
        self.running.handle()
    }

    /// Its terminal, where it has one.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn terminal(&self) -> std::io::Result<Option<OwnedFd>> {
        self.running.terminal().map(|fd| fd.try_clone_to_owned()).transpose()
    }

    /// Waits until it ends.
    ///
    /// # Errors
    /// When the kernel will not say.
    pub fn wait(self) -> Result<Report, Error> {
        let mut report = self.running.wait().map_err(Cause::from)?;
        let killed = self.group.as_ref().map_or(0, |group| group.usage().killed_for_memory);
        if killed > 0 {
            let why = "its memory limit was reached, or that of a control group above";
            report.warnings.push(format!("a process was killed because {why}"));
        }
        report.warnings.extend(self.without);
        Ok(report)
    }
}

impl Engine {
    /// Starts a command in an image of the local store.
    ///
    /// # Errors
    /// There is no such image, user or command.
    pub async fn start(&self, request: RunRequest, client: Arc<dyn Client>) -> Result<Container, Error> {
        let effects = Arc::new(self.effects(client, Arc::new(Silent), false)?);
        let image = self.find(&effects.lease, &request.image)?;
        container_image(&request.image, "the local store", &image.manifest).map_err(Cause::from)?;
        let config = Arc::new(image.config);
        let known = KnownImage { manifest: image.manifest, config: config.clone(), place: Place::Store };
        effects.images.add(image.manifest_digest, known);
        let layers = effects.pull(image.manifest_digest, &job_of(image.manifest_digest)).await?;
        let container = effects.clone().blocking(move |effects| {
            let hostname = image.manifest_digest.short();
            let announced = effects.announce_network(request.network);
            let Reached { network, own, shared } = effects.network(request.network, announced, false)?;
            let mut spec = spec(effects, &layers, &config.config, &request, (&hostname, own.as_ref()))?;
            spec.network = network;
            let group = effects.group()?;
            spec.groups = group.as_ref().map_or_else(Vec::new, |group| group.memberships().to_vec());
            let mounts = Mounts::with_network(own);
            let furnished = effects.furnish(&spec, &mounts)?;
            let running = sandbox::start(started(&furnished, &spec), stdio(request.terminal)?)
                .map_err(|error| effects.refused(error, &layers, &spec, &config.platform()))?;
            let container = Container::new(running, effects.clone(), Some(mounts)).in_group(group);
            let container = container.furnished(furnished);
            Ok(Container { without: shared, ..container })
        });
        Ok(container.await?)
    }
}

/// The spec to start: without the mounts that lie in its root.
pub(crate) fn started<'a>(furnished: &'a Option<(Furnished, Spec)>, spec: &'a Spec) -> &'a Spec {
    furnished.as_ref().map_or(spec, |(_, without)| without)
}

pub(crate) fn job_of(image: Digest) -> Job {
    let vertex = graph::Vertex { op: graph::Op::Merge, inputs: Vec::new(), about: graph::About::default() };
    Job {
        vertex,
        digest: image,
        definition: None,
        own: Vec::new(),
        inputs: Vec::new(),
        may_be_known: false,
        cancel: Cancel::new(),
    }
}

pub(crate) fn stdio(terminal: Terminal) -> Result<Stdio, Cause> {
    use std::os::fd::AsFd;
    let own = |fd: std::os::fd::BorrowedFd<'_>| {
        fd.try_clone_to_owned().map_err(Cause::io("open", "standard output"))
    };
    Ok(match terminal {
        Terminal::Inherit => Stdio::Inherit,
        Terminal::New { rows, columns } => Stdio::Terminal(WindowSize { rows, columns }),
        Terminal::Output => Stdio::Streams {
            stdin: None,
            stdout: own(std::io::stdout().as_fd())?,
            stderr: own(std::io::stderr().as_fd())?,
        },
    })
}

fn spec(
    effects: &Effects,
    layers: &VertexResult,
    config: &Config,
    request: &RunRequest,
    (hostname, network): (&str, Option<&sandbox::net::Network>),
) -> Result<Spec, Cause> {
    let below = effects.mounted(layers)?;
    let named = request.user.as_deref().unwrap_or(&config.user);
    let identity = effects.identity(&below, named)?;
    let cwd = request.workdir.clone().unwrap_or_else(|| config.working_dir.clone());
    let cwd = if cwd.is_empty() { "/".to_owned() } else { cwd };
    let ground = effects.ground(layers, &below)?;
    effects.make_cwd_on(&below, &ground, &cwd)?;
    let hostname = request.hostname.clone().unwrap_or_else(|| hostname.to_owned());
    let mut mounts = effects.network_files(&hostname, &[], network)?;
    mounts.extend(request.volumes.iter().map(volume));
    Ok(Spec {
        mode: effects.mode,
        rootfs: effects.rootfs(&below, &ground)?,
        empty: effects.empty.clone(),
        readonly_root: false,
        mounts,
        argv: argv(config, request),
        env: env(config, request, &identity.home, &hostname),
        secret_env: Vec::new(),
        cwd: PathBuf::from(cwd),
        user: user(&identity),
        hostname,
        network: sandbox::Network::None,
        capabilities: CapabilitySet::docker_default(),
        protect_kernel_paths: true,
        filter_calls: true,
        shm_size_bytes: request.shm_size_bytes.unwrap_or(Spec::DEFAULT_SHM_SIZE_BYTES),
        limits: resource_limits(&request.ulimits),
        groups: Vec::new(),
        emulation: effects.emulation(&below.stack, &ground, &BTreeMap::new())?,
    })
}

fn volume(volume: &Volume) -> Mount {
    // The source's folder is the root that the path cannot leave: a link may be mounted, not what it escapes to.
    let (root, path) = match fs::canonicalize(&volume.source) {
        Ok(real) => (PathBuf::from("/"), real.strip_prefix("/").map(Path::to_owned).unwrap_or_default()),
        Err(_) => (PathBuf::from("/"), volume.source.clone()),
    };
    Mount { target: volume.target.clone(), kind: MountKind::Bind { root, path, readonly: volume.readonly } }
}

fn argv(config: &Config, request: &RunRequest) -> Vec<OsString> {
    let own_entrypoint = config.entrypoint.clone().unwrap_or_default();
    let entrypoint = match &request.entrypoint {
        Some(entrypoint) => vec![entrypoint.clone()],
        None => own_entrypoint,
    };
    let command = match (request.command.is_empty(), &request.entrypoint) {
        (true, None) => config.cmd.clone().unwrap_or_default(),
        // Another entry point is not given the image's arguments.
        (true, Some(_)) => Vec::new(),
        (false, _) => request.command.clone(),
    };
    entrypoint.into_iter().chain(command).map(OsString::from).collect()
}

fn env(config: &Config, request: &RunRequest, home: &[u8], hostname: &str) -> Vec<(OsString, OsString)> {
    use std::os::unix::ffi::OsStringExt;
    let mut env: Vec<(OsString, OsString)> = Vec::new();
    let mut set = |name: &str, value: OsString| match env.iter_mut().find(|(known, _)| known == name) {
        Some(known) => known.1 = value,
        None => env.push((name.into(), value)),
    };
    set("PATH", Spec::DEFAULT_PATH.into());
    set("HOSTNAME", hostname.into());
    set("HOME", OsString::from_vec(home.to_vec()));
    if matches!(request.terminal, Terminal::New { .. }) {
        set("TERM", "xterm".into());
    }
    for assignment in &config.env {
        let (name, value) = assignment.split_once('=').unwrap_or((assignment, ""));
        set(name, value.into());
    }
    for (name, value) in &request.env {
        set(name, value.into());
    }
    env
}
