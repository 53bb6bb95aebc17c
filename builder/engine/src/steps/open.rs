//! Opens a step of an earlier build: the root that it began with, or that it left, with its mounts and all else that it saw.

use std::{ffi::OsString, sync::Arc};

use graph::{Exec, MountKind, Op, Source, Ulimit, Vertex};
use oci::{Digest, Platform};
use store::ResultLayer;
use tree::LayerPath;

use super::{BuildSteps, Step, StepError, What};
use crate::{
    client::Client,
    effect::{Effects, Job, exec::Outfit, scene::command_variable},
    engine::Engine,
    error::{Cause, Error},
    local::{
        enter::{Entered, add_terminal, open_shell},
        run::{Container, Terminal, job_of, started, stdio},
    },
    progress::SharedSink,
    result::VertexResult,
};

/// How a step is entered.
#[derive(Clone, Debug)]
pub struct EnterRequest {
    /// The step, as [`BuildSteps::find`] gives it.
    pub step: usize,
    /// Whether as it was after the step, and not before it.
    pub after: bool,
    /// The user, in place of the step's.
    pub user: Option<String>,
    /// The command; empty is a shell.
    pub command: Vec<String>,
    /// Whether what is written to cache mounts stays there.
    pub write_caches: bool,
    /// Limits of its processes, in place of those of the step that have the same name.
    pub ulimits: Vec<Ulimit>,
    /// Size of `/dev/shm`, in place of the step's.
    pub shm_size_bytes: Option<u64>,
    /// What the command's input and output are.
    pub terminal: Terminal,
}

impl Engine {
    /// Starts a shell, or another command, in a step of an earlier build. What is written is thrown away. Gives besides what
    /// the step had and this lacks, a sentence each.
    ///
    /// # Errors
    /// [`StepError`] when what the step stood on is not here; and those of a step that cannot be started.
    pub async fn enter(
        &self,
        mut build: BuildSteps,
        request: EnterRequest,
        client: Arc<dyn Client>,
        sink: SharedSink,
    ) -> Result<(Entered, Vec<String>), Error> {
        for other in self.last_builds()? {
            build.remember_images(&other);
        }
        let effects = Arc::new(self.effects(client, sink, false)?);
        Ok(effects.blocking(move |effects| open(effects, &build, &request)).await?)
    }
}

fn open(
    effects: &Arc<Effects>,
    build: &BuildSteps,
    request: &EnterRequest,
) -> Result<(Entered, Vec<String>), Cause> {
    let earlier = Earlier { effects, build };
    let step = &build.steps[request.step];
    let root = match request.after {
        true => earlier.after(request.step)?,
        false => earlier.before(request.step)?,
    };
    let mut absent = Vec::new();
    let (mut exec, inputs) = earlier.command(request.step, root, request.user.as_deref(), &mut absent);
    exec.ulimits.retain(|own| request.ulimits.iter().all(|given| given.name != own.name));
    exec.ulimits.extend_from_slice(&request.ulimits);
    exec.shm_size_bytes = request.shm_size_bytes.or(exec.shm_size_bytes);
    let digest = Digest::of(step.name.as_bytes());
    let vertex =
        Vertex { op: Op::Exec(Box::new(exec.clone())), inputs: Vec::new(), about: Default::default() };
    let job = Job { vertex, inputs, ..job_of(digest) };
    let Outfit { mut spec, mounts, below, .. } = effects.outfit(&exec, &job)?;
    if !request.write_caches {
        effects.shield_caches(&mut spec, &mounts)?;
    }
    let shell = earlier.shell(request.step);
    if matches!(step.what, What::Run(_)) {
        spec.env.extend(command_variable(&exec, &shell));
    }
    if request.command.is_empty() {
        let entered = open_shell(effects, spec, mounts, &shell, request.terminal)?;
        return Ok((entered, absent));
    }
    add_terminal(&mut spec, request.terminal);
    spec.argv = request.command.iter().map(OsString::from).collect();
    let group = effects.group()?;
    spec.groups = group.as_ref().map_or_else(Vec::new, |group| group.memberships().to_vec());
    let furnished = effects.furnish(&spec, &mounts)?;
    let running = sandbox::start(started(&furnished, &spec), stdio(request.terminal)?)
        .map_err(|error| effects.not_started(error, &below, &spec, &exec.platform))?;
    let container = Container::new(running, effects.clone(), Some(mounts)).in_group(group);
    let container = container.furnished(furnished);
    Ok((Entered { container, shell: request.command.join(" ") }, absent))
}

/// Where a step has sockets of ssh agents.
fn agents(mounts: &[graph::Mount]) -> Vec<String> {
    let of_agent = |mount: &&graph::Mount| matches!(mount.kind, MountKind::Ssh { .. });
    mounts.iter().filter(of_agent).map(|mount| mount.target.clone()).collect()
}

/// An earlier build, with what is still here of it.
struct Earlier<'a> {
    effects: &'a Effects,
    build: &'a BuildSteps,
}

impl Earlier<'_> {
    /// The root that a step began with.
    fn before(&self, at: usize) -> Result<VertexResult, Cause> {
        let step = &self.build.steps[at];
        if !step.has_before() {
            return Err(StepError::NothingBefore { step: step.name.clone(), number: step.number }.into());
        }
        let below = match step.base {
            None => Some(VertexResult::layers(Vec::new())),
            Some(base) => self.tree(base),
        };
        below.ok_or_else(|| StepError::Gone { step: step.name.clone() }.into())
    }

    /// The root that a step left.
    fn after(&self, at: usize) -> Result<VertexResult, Cause> {
        let step = &self.build.steps[at];
        let failed = matches!(step.came, super::Came::Failed { .. });
        let found = if failed { None } else { self.tree(at) };
        found.ok_or_else(|| StepError::NoResult { step: step.name.clone(), failed }.into())
    }

    /// The tree of a vertex, if all of it is here.
    fn tree(&self, at: usize) -> Option<VertexResult> {
        let found = self.own(at).or_else(|| self.below_a_user(at))?;
        // Folders that are gone are made of blobs.
        self.effects.mounted(&found).is_ok().then_some(found)
    }

    fn own(&self, at: usize) -> Option<VertexResult> {
        let step = &self.build.steps[at];
        if let Some(layers) = &step.layers {
            return Some(VertexResult::layers(layers.clone()));
        }
        match &step.what {
            What::Context(local) => self.context(local),
            What::Merge => {
                let parts: Option<Vec<_>> = step.inputs.iter().map(|input| self.tree(*input)).collect();
                let layers = parts?.iter().flat_map(|part| part.as_layers().to_vec()).collect();
                Some(VertexResult::layers(layers))
            }
            What::Run(_) | What::Change | What::Image | What::Source => {
                let (store, lease) = (&self.effects.store, &self.effects.lease);
                let record = store.by_definition_key(lease, step.definition.as_ref()?).ok()??;
                Some(VertexResult::layers(record.result))
            }
        }
    }

    /// A build in which a step was cached never had in hand what is below it; but a step puts one layer on what it builds on.
    fn below_a_user(&self, at: usize) -> Option<VertexResult> {
        let builds_on_it = |step: &&(usize, &Step)| {
            step.1.base == Some(at) && matches!(step.1.what, What::Run(_) | What::Change)
        };
        let users: Vec<(usize, &Step)> = self.build.steps.iter().enumerate().collect();
        users.iter().filter(builds_on_it).find_map(|(user, _)| {
            let above = self.own(*user).or_else(|| self.below_a_user(*user))?;
            let layers: &[ResultLayer] = above.as_layers();
            let (_, below) = layers.split_last()?;
            Some(VertexResult::layers(below.to_vec()))
        })
    }

    /// A context, as it is now.
    fn context(&self, local: &graph::Local) -> Option<VertexResult> {
        let op = Op::Source(Source::Local(local.clone()));
        let vertex = Vertex { op, inputs: Vec::new(), about: Default::default() };
        self.effects.context_of(&vertex).ok()
    }

    /// What a step runs, on another root, with the inputs of its mounts. What is not here is left out and told.
    fn command(
        &self,
        at: usize,
        root: VertexResult,
        user: Option<&str>,
        absent: &mut Vec<String>,
    ) -> (Exec, Vec<(VertexResult, u32)>) {
        let step = &self.build.steps[at];
        let mut inputs = vec![(root, 0)];
        let mut exec = match &step.what {
            What::Run(exec) => (**exec).clone(),
            _ => self.neighbour(at),
        };
        let is_run = matches!(step.what, What::Run(_));
        if !is_run && !self.has_folder(&inputs[0].0, &exec.cwd) {
            // Of a step that makes it later.
            "/".clone_into(&mut exec.cwd);
        }
        let mounts = std::mem::take(&mut exec.mounts);
        exec.mounts.push(Exec::root(Some(0)));
        let mut sockets = agents(&mounts);
        for mut mount in mounts.into_iter().filter(|mount| is_run && mount.target != "/") {
            if let Some(why) = self.lacks(&mount.kind) {
                absent.push(format!("{} is not mounted: {why}", mount.target));
                continue;
            }
            let input = mount.input.map(|input| step.inputs[input]);
            match input.map(|input| self.tree(input)) {
                None => {}
                Some(Some(tree)) => {
                    mount.input = Some(inputs.len());
                    inputs.push((tree, 0));
                }
                Some(None) => {
                    absent
                        .push(format!("{} is not mounted: what it shows is not here any more", mount.target));
                    continue;
                }
            }
            exec.mounts.push(mount);
        }
        // Whoever finds the variable believes in the socket.
        sockets.retain(|socket| !agents(&exec.mounts).contains(socket));
        exec.env.retain(|assignment| {
            let socket = assignment.strip_prefix("SSH_AUTH_SOCK=");
            socket.is_none_or(|socket| !sockets.iter().any(|absent| absent == socket))
        });
        let secrets = std::mem::take(&mut exec.secret_env);
        for secret in secrets.into_iter().filter(|_| is_run) {
            match self.lacks_secret(&secret.id) {
                Some(why) => absent.push(format!("${} is not set: {why}", secret.name)),
                None => exec.secret_env.push(secret),
            }
        }
        if let Some(user) = user {
            user.clone_into(&mut exec.user);
        }
        (exec, inputs)
    }

    fn has_folder(&self, root: &VertexResult, path: &str) -> bool {
        let found = self.effects.stack(root.as_layers()).ok().zip(LayerPath::clamp(path.as_bytes()).ok());
        found.is_some_and(|(stack, path)| match stack.resolve(&path, true) {
            Ok(path) => path.is_root() || stack.lookup(&path).is_some_and(|(_, node)| node.is_directory()),
            Err(_) => false,
        })
    }

    /// Why a mount of a kind cannot be had.
    fn lacks(&self, kind: &MountKind) -> Option<String> {
        match kind {
            MountKind::Secret { id, .. } => self.lacks_secret(id),
            MountKind::Ssh { id, .. } if self.effects.client.ssh_agent(id).is_none() => {
                Some(format!("give it with --ssh {id}"))
            }
            _ => None,
        }
    }

    fn lacks_secret(&self, id: &str) -> Option<String> {
        let given = matches!(self.effects.client.secret(id), Ok(Some(_)));
        (!given).then(|| format!("give it with --secret id={id},src=FILE"))
    }

    /// What a `RUN` next to a step that is none runs in: the nearest before it in its stage, else the first after it.
    fn neighbour(&self, at: usize) -> Exec {
        let steps = &self.build.steps;
        let mut below = steps[at].base;
        while let Some(base) = below {
            match &steps[base].what {
                What::Run(exec) if steps[base].stage == steps[at].stage => return (**exec).clone(),
                _ => below = steps[base].base,
            }
        }
        let mut above = at;
        while let Some(next) = steps.iter().position(|step| step.base == Some(above)) {
            match &steps[next].what {
                What::Run(exec) => return (**exec).clone(),
                _ => above = next,
            }
        }
        Exec::new(Vec::new(), Platform::host())
    }

    /// The shell of a step's stage.
    fn shell(&self, at: usize) -> Vec<String> {
        let steps = &self.build.steps;
        let same = |step: &&Step| step.stage == steps[at].stage && !step.shell.is_empty();
        let own = Some(&steps[at]).filter(|step| !step.shell.is_empty());
        let nearest =
            own.or_else(|| steps[..at].iter().rev().find(same)).or_else(|| steps[at..].iter().find(same));
        nearest.map_or_else(Vec::new, |step| step.shell.clone())
    }
}
