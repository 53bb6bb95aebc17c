//! `RUN`: a process on a snapshot; what it wrote is the new layer.

use std::{
    ffi::OsString,
    fs,
    os::unix::{ffi::OsStringExt, fs::PermissionsExt},
    path::{Path, PathBuf},
    sync::{MutexGuard, PoisonError},
};

use graph::{Exec, Security};
use image::diff::{Owners, diff_with_owners};
use image::folder::Form;
use sandbox::{
    CapabilitySet, Group, Ids, ResourceLimit, SecretBytes, Snapshots, Spec, Stdio, User, Writable,
};
use store::Took;
use tree::{Identity, LayerId};

use super::{
    Effects, Job,
    bounds::{Ended, FailedStep},
    cache::Ran,
    foreign::check_processor,
    logs::Logs,
    mounts::Mounts,
    owners::Recorded,
    rest::Made,
    roots::Ground,
};
use crate::{
    error::Cause,
    result::{Mounted, VertexResult, mtime},
};

/// A step that was confided something leaves no dump of its memory, which may land in its layer. One byte, because the kernel
/// gives the dump to a program (`core_pattern` with a `|`) even where the limit is 0, and only there; not where it is 1.
const NO_CORE_DUMP: ResourceLimit = ResourceLimit { resource: sandbox::Resource::Core, soft: 1, hard: 1 };

/// So many steps are left to the kernel at most: each holds descriptors.
const MOST_ENDING: usize = 16;

/// What `hostname` says in a step that names none.
pub(crate) const HOST_NAME: &str = "buildkitsandbox";

/// All that a step stands on, ready to be started.
pub(crate) struct Outfit {
    /// The layers of its root.
    base: VertexResult,
    pub(crate) below: Mounted,
    ground: Ground,
    pub(crate) spec: Spec,
    /// What must live as long as the step.
    pub(crate) mounts: Mounts,
}

/// Folders of steps between two of them.
#[derive(Default)]
pub(crate) struct Spare {
    /// What the next step will write to.
    ready: Option<Writable>,
    /// Work folders of steps that are over.
    worn: Vec<PathBuf>,
}

/// What is left of a step while the build goes on.
pub(crate) struct Ending {
    /// The layer that it has made.
    layer: Option<LayerId>,
    ended: Option<Ended>,
    /// The work folder of its overlay.
    work: Option<PathBuf>,
}

impl Effects {
    /// Runs a process on the layers of its root input, and keeps what it wrote as one more.
    pub(crate) fn exec(&self, exec: &Exec, job: &Job) -> Result<Made, Cause> {
        let started = self.clock.now();
        let Outfit { base, below, mut ground, mut spec, mounts } = self.outfit(exec, job)?;
        let (ended, took) = match self.run_spec(exec, &mut spec, (&below, &mounts), job) {
            Ok(ran) => ran,
            Err(cause) => {
                if let (Cause::Cancelled, Some(network)) = (&cause, &mounts.network) {
                    network.give_up();
                }
                self.keep_scene(exec, job, spec, mounts, &cause);
                return Err(cause);
            }
        };
        drop(mounts);
        // Who may mount can have mounted a file of the layer, which is written to until that is taken apart.
        let ended = (exec.security == Security::Sandbox).then_some(ended);
        let is_copied = matches!(ground, Ground::Copied(_));
        let emulation = spec.emulation.as_ref();
        let single = emulation.filter(|_| self.mode.ids == Ids::Single);
        let recorded = Recorded::of(single, &below.stack, is_copied);
        let mapped = self.beyond_the_map(&below.stack, emulation);
        let owners = recorded.as_ref().map(|owners| owners as &dyn Owners);
        let owners = owners.or(mapped.as_ref().map(|owners| owners as &dyn Owners));
        let (layer, folder) = match &mut ground {
            Ground::Stacked(Writable { upper, .. }) => {
                let hashes = &image::scan::NoHashCache;
                let layer = diff_with_owners(upper, &below.stack, self.overlay_xattrs(), hashes, owners)?;
                (layer, upper.clone())
            }
            Ground::Copied(root) => self.taken(root, &below, owners)?,
        };
        self.check_rewritten(job, &layer, &below.stack)?;
        let ran = Ran { started, took };
        let made = is_copied.then(|| layer.id());
        let finished = self.keep_layer(job, base.as_layers(), layer, &folder, &ran)?;
        let kept = finished.result.as_layers().last();
        let work = match (ground, made, kept) {
            (Ground::Stacked(Writable { work, .. }), ..) => Some(work),
            (Ground::Copied(root), Some(made), Some(kept)) => {
                self.keep_root(root, made, kept).map(|()| None)?
            }
            (Ground::Copied(_), ..) => None,
        };
        self.ending().push(Ending { layer: kept.map(|kept| kept.layer), ended, work });
        if self.ending().len() > MOST_ENDING {
            self.wait_for_ends(|_| true);
        }
        Ok(finished)
    }

    /// Makes ready all that a step stands on.
    pub(crate) fn outfit(&self, exec: &Exec, job: &Job) -> Result<Outfit, Cause> {
        check_processor(&exec.platform)?;
        let announced = self.announce_network(exec.network);
        let root = exec.mounts.iter().find(|mount| mount.target == "/").and_then(|mount| mount.input);
        let base = root.map_or_else(|| VertexResult::layers(Vec::new()), |input| job.inputs[input].0.clone());
        let below = self.mounted(&base)?;
        let identity = self.identity(&below, &exec.user)?;
        let mut mounts = self.mounts(exec, job)?;
        let ground = self.ground(&base, &below)?;
        self.make_cwd_on(&below, &ground, &exec.cwd)?;
        let hostname = if exec.hostname.is_empty() { HOST_NAME } else { &exec.hostname };
        let reached = self.network(exec.network, announced, exec.security == Security::Insecure)?;
        if reached.own.is_some() {
            self.check_proxies(exec);
        }
        let mut list = self.network_files(hostname, &exec.extra_hosts, reached.own.as_ref())?;
        mounts.network = reached.own;
        // A mount over /etc hides them, as it would had they been there before it.
        list.retain(|made| !mounts.list.iter().any(|over| made.target.starts_with(&over.target)));
        list.append(&mut mounts.list);
        let emulation = self.emulation(&below.stack, &ground, &mounts.owners)?;
        if self.mode.ids == Ids::Single
            && exec.ulimits.iter().any(|limit| limit.name == sandbox::Resource::Rttime.name())
        {
            let message =
                "--ulimit rttime has no effect in mode `single`, which keeps in it who a process is";
            self.warn_once("ulimit-rttime", message);
        }
        let spec = Spec {
            mode: self.mode,
            rootfs: self.rootfs(&below, &ground)?,
            empty: self.empty.clone(),
            readonly_root: false,
            mounts: list,
            argv: exec.args.iter().map(OsString::from).collect(),
            env: environment(exec, &identity, &mounts.env),
            secret_env: secret_environment(&mounts.env),
            cwd: PathBuf::from(&exec.cwd),
            user: user(&identity),
            hostname: hostname.to_owned(),
            network: reached.network,
            capabilities: match exec.security {
                Security::Sandbox => CapabilitySet::docker_default(),
                Security::Insecure => CapabilitySet::ALL,
            },
            protect_kernel_paths: exec.security == Security::Sandbox,
            filter_calls: exec.security == Security::Sandbox,
            shm_size_bytes: exec.shm_size_bytes.unwrap_or(Spec::DEFAULT_SHM_SIZE_BYTES),
            limits: limits(exec),
            groups: Vec::new(),
            emulation,
        };
        Ok(Outfit { base, below, ground, spec, mounts })
    }

    /// Runs the process to its end, and gives what is left of it to be dropped, and what it took.
    fn run_spec(
        &self,
        exec: &Exec,
        spec: &mut Spec,
        (below, mounts): (&Mounted, &Mounts),
        job: &Job,
    ) -> Result<(Ended, Took), Cause> {
        let group = self.group()?;
        spec.groups = group.as_ref().map_or_else(Vec::new, |group| group.memberships().to_vec());
        let (logs, stdout, stderr) = Logs::open(&self.sink, &self.clock, job.digest)?;
        let stdio = Stdio::Streams { stdin: None, stdout, stderr };
        let furnished = self.furnish(spec, mounts)?;
        self.wait_for_ends(|ending| {
            let mut inputs = job.inputs.iter().flat_map(|(input, _)| input.as_layers());
            inputs.any(|kept| ending.layer == Some(kept.layer))
        });
        let started = match (&self.zygote, furnished.as_ref().map_or(&*spec, |(_, without)| without)) {
            (Some(zygote), spec) => zygote.start(spec, stdio),
            (None, spec) => sandbox::start(spec, stdio),
        };
        let mut running = started.map_err(|error| self.not_started(error, below, spec, &exec.platform))?;
        if self.mode.snapshots == Snapshots::Overlay {
            self.make_spare();
        }
        let handle = running.handle();
        let cancelled = job.cancel.on_set(move || {
            // A step that has ended meanwhile cannot be killed, and need not be.
            let _killed = handle.kill();
        });
        let mut alarm = self.alarm(running.handle())?;
        let began = self.clock.now();
        let last_lines = logs.follow(running.ended(), &mut alarm);
        let report = running.report();
        drop(cancelled);
        let report = report?;
        if let Some((furnished, _)) = furnished {
            furnished.clear()?;
        }
        for warning in &report.warnings {
            self.warn_once("sandbox", warning);
        }
        let group_usage = group.as_ref().map(Group::usage).unwrap_or_default();
        let took = self.tell_usage(job.digest, &report, &group_usage);
        let ended = Ended { _running: running, _group: group };
        if job.cancel.is_set() {
            return Err(Cause::Cancelled);
        }
        let over_time = alarm.is_some_and(|alarm| alarm.has_rung());
        if report.status.is_success() && !over_time {
            self.warn_of_killed(job.digest, &group_usage);
            return Ok((ended, took));
        }
        // Who looks at what is left of it gets a group of its own.
        spec.groups.clear();
        Err(self.why_it_failed(FailedStep {
            command: command_text(exec),
            status: report.status,
            ran_seconds: self.clock.now().milliseconds_since(began) / 1000,
            over_time,
            group: group_usage,
            last_lines,
        }))
    }

    /// Folders for what a process writes. The upper one is the root that the process sees: it looks as the one below.
    pub(crate) fn writable(&self, below: &Mounted) -> Result<Writable, Cause> {
        let ready = self.spare().ready.take();
        let writable = ready.map_or_else(|| self.new_writable(), Ok)?;
        if let Some((_, root)) = below.stack.lookup(&tree::LayerPath::root()) {
            let upper = &writable.upper;
            self.chown(upper, root.uid, root.gid).map_err(Cause::io("chown", upper))?;
            let mode = fs::Permissions::from_mode(root.mode);
            fs::set_permissions(upper, mode).map_err(Cause::io("chmod", upper))?;
        }
        Ok(writable)
    }

    fn new_writable(&self) -> Result<Writable, Cause> {
        Ok(Writable { upper: self.lease.new_folder()?, work: self.lease.new_work_folder()? })
    }

    /// Makes the folders that the next step will write to, and removes what earlier ones have left, while this one runs and
    /// nobody waits.
    fn make_spare(&self) {
        let mut spare = self.spare();
        if spare.ready.is_none() {
            // Where they cannot be made, the next step will say why.
            spare.ready = self.new_writable().ok();
        }
        let worn = std::mem::take(&mut spare.worn);
        drop(spare);
        worn.iter().for_each(|work| self.lease.remove_work_folder(work));
    }

    /// Waits until the kernel has taken apart what it still has of these steps, which are over: nobody else has a layer mounted
    /// when the next step is put upon it.
    pub(crate) fn wait_for_ends(&self, of: impl Fn(&Ending) -> bool) {
        let ending: Vec<Ending> = self.ending().extract_if(.., |ending| of(ending)).collect();
        for Ending { ended, work, .. } in ending {
            drop(ended);
            self.spare().worn.extend(work);
        }
    }

    fn ending(&self) -> MutexGuard<'_, Vec<Ending>> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spare(&self) -> MutexGuard<'_, Spare> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the step's folder, where the layers below lack it.
    pub(crate) fn make_cwd(&self, below: &Mounted, at: &Path, cwd: &str, form: Form) -> Result<(), Cause> {
        let bad = |error: tree::BadPath| Cause::Task(format!("the working directory {cwd}: {error}"));
        let cwd = tree::LayerPath::clamp(cwd.as_bytes()).map_err(bad)?;
        let resolved = below.stack.resolve(&cwd, true)?;
        if resolved.is_root() || below.stack.lookup(&resolved).is_some() {
            return Ok(());
        }
        let mut planner = image::copy::Planner::new(&below.stack);
        let created = mtime(self.clock.now().epoch());
        let (mode, owner, make_parents) = (0o755, None, true);
        planner.mkdir(&image::copy::Mkdir { path: cwd, mode, owner, make_parents, created })?;
        let plan = planner.finish();
        image::folder::write_plan(&plan, &[], at, form)?;
        Ok(())
    }
}

pub(crate) fn user(identity: &Identity) -> User {
    let mut additional_gids = vec![identity.gid];
    additional_gids.extend(identity.groups.iter().filter(|gid| **gid != identity.gid));
    User { uid: identity.uid, gid: identity.gid, additional_gids }
}

/// The command as messages show it: the text that was given to a shell, else all arguments.
fn command_text(exec: &Exec) -> String {
    match exec.args.as_slice() {
        [shell, flag, text] if flag.starts_with('-') && flag.ends_with('c') && !shell.is_empty() => {
            text.clone()
        }
        args => args.join(" "),
    }
}

/// Variables that are no secrets, each name once: programs differ in which of two they believe.
fn environment(
    exec: &Exec,
    identity: &Identity,
    secret: &[(String, SecretBytes)],
) -> Vec<(OsString, OsString)> {
    let mut env: Vec<(OsString, OsString)> = Vec::new();
    let mut set = |name: &str, value: &str| match env.iter_mut().find(|(known, _)| known == name) {
        Some(known) => known.1 = value.into(),
        None => env.push((name.into(), value.into())),
    };
    for assignment in &exec.env {
        let (name, value) = assignment.split_once('=').unwrap_or((assignment, ""));
        set(name, value);
    }
    for (name, value) in &exec.proxy_env {
        set(name, value);
    }
    env.retain(|(known, _)| secret.iter().all(|(name, _)| known != name.as_str()));
    let has = |env: &[(OsString, OsString)], wanted: &str| {
        env.iter().any(|(name, _)| name == wanted) || secret.iter().any(|(name, _)| name == wanted)
    };
    if !has(&env, "HOME") {
        env.push(("HOME".into(), OsString::from_vec(identity.home.clone())));
    }
    if !has(&env, "PATH") {
        env.push(("PATH".into(), Spec::DEFAULT_PATH.into()));
    }
    env
}

/// Variables that are secrets, of those with one name the last.
fn secret_environment(secret: &[(String, SecretBytes)]) -> Vec<(OsString, SecretBytes)> {
    let mut env: Vec<(OsString, SecretBytes)> = Vec::new();
    for (name, value) in secret {
        env.retain(|(known, _)| known != name.as_str());
        env.push((name.into(), value.clone()));
    }
    env
}

/// Limits as the sandbox takes them.
pub(crate) fn resource_limits(ulimits: &[graph::Ulimit]) -> Vec<ResourceLimit> {
    let of = |limit: &graph::Ulimit| {
        let resource = sandbox::Resource::ALL.into_iter().find(|resource| resource.name() == limit.name)?;
        Some(ResourceLimit { resource, soft: limit.soft, hard: limit.hard })
    };
    ulimits.iter().filter_map(of).collect()
}

fn limits(exec: &Exec) -> Vec<ResourceLimit> {
    let mut limits = resource_limits(&exec.ulimits);
    if exec.is_confided_in() {
        limits.retain(|limit| limit.resource != sandbox::Resource::Core);
        limits.push(NO_CORE_DUMP);
    }
    limits
}
