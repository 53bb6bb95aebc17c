//! `RUN`.

use dockerfile_parser::{
    Word,
    instruction::{Command, Mount as ReadMount, MountKind as ReadKind, Run, Script, Sharing},
    instruction::{Network as ReadNetwork, Security as ReadSecurity},
    text,
};
use graph::{
    About, ActionInput, CacheSharing, Exec, FileAction, FileOp, Mount, MountKind, Network, Op, SecretEnv,
    Security,
};

use crate::{
    Entitlement, ErrorKind, LowerError,
    draft::Tree,
    error::at,
    files::heredoc_name,
    gopath,
    plan::Step,
    stage::{Building, Lowerer},
    state::State,
    words::{no_nul, plain},
};

/// Where scripts that begin with `#!` are mounted.
const PIPES: &str = "/dev/pipes";

/// What counts of the mode of a secret or a socket: neither is a program that changes who runs it.
const PERMISSIONS: u32 = 0o777;

/// Inputs and mounts of the vertex so far.
struct Draft {
    inputs: Vec<Tree>,
    mounts: Vec<Mount>,
    secret_env: Vec<SecretEnv>,
    /// Targets of the ssh sockets.
    ssh: Vec<String>,
}

impl Draft {
    fn input(&mut self, tree: Option<Tree>) -> Option<usize> {
        let tree = tree?;
        Some(self.inputs.iter().position(|input| *input == tree).unwrap_or_else(|| {
            self.inputs.push(tree);
            self.inputs.len() - 1
        }))
    }
}

impl Lowerer<'_> {
    /// `RUN`: a process on the stage's tree.
    pub(crate) fn run_command(
        &mut self,
        building: &mut Building,
        step: &Step<'_>,
        run: &Run,
    ) -> Result<(), LowerError> {
        if let Some(device) = run.devices.first() {
            let what = "`RUN --device`".to_owned();
            return Err(at(device.text.span, ErrorKind::NotYet { what }));
        }
        let (network, security) = self.modes(step, run)?;
        let root = Mount {
            target: "/".to_owned(),
            input: building.state.tree.map(|_| 0),
            selector: String::new(),
            readonly: false,
            kind: MountKind::Bind,
            output: Some(0),
        };
        let mut draft = Draft {
            inputs: building.state.tree.into_iter().collect(),
            mounts: vec![root],
            secret_env: Vec::new(),
            ssh: Vec::new(),
        };
        if let Some(tree) = building.state.tree {
            self.drafts.reach(tree, "/");
        }
        let args = self.command_line(&building.state, step, run, &mut draft)?;
        let mut bound = Vec::new();
        for (index, raw) in run.mounts.iter().enumerate() {
            let mount = raw.resolve(&mut |word: &Word| self.words.word(&building.state, word))?;
            building.uses.mount(&mount, step.span);
            if let ReadKind::Bind(bind) = &mount.kind {
                bound.push(bind.source.clone());
            }
            let origin = step.from.get(index).and_then(Option::as_ref);
            let from = match origin {
                Some(origin) => Some(self.tree(origin)?),
                None => None,
            };
            self.mount(&building.state, &mount, from, &mut draft)?;
        }
        if !step.trigger {
            let bound: Vec<&str> = bound.iter().map(String::as_str).collect();
            let (folder, trail) = (building.state.folder(), &mut building.state.trail);
            trail.runs(&run.script(), &bound, &folder, step.span, &mut self.words.warnings);
        }
        let history = history(&building.state, &args);
        let about = self.about(building, step, &draft.secret_env, &history);
        let exec = Exec { network, security, ..self.exec(&building.state, args, &mut draft) };
        building.state.tree = Some(self.drafts.add(Op::Exec(Box::new(exec)), draft.inputs, about));
        building.state.record_layer(&history);
        Ok(())
    }

    fn modes(&self, step: &Step<'_>, run: &Run) -> Result<(Network, Security), LowerError> {
        let network = match run.network {
            ReadNetwork::Default => self.request.network,
            ReadNetwork::None => Network::None,
            ReadNetwork::Host => Network::Host,
        };
        let security = match run.security {
            ReadSecurity::Sandbox => Security::Sandbox,
            ReadSecurity::Insecure => Security::Insecure,
        };
        for (asked, entitlement) in [
            (network == Network::Host, Entitlement::NetworkHost),
            (security == Security::Insecure, Entitlement::SecurityInsecure),
        ] {
            if asked && !self.request.allows(entitlement) {
                return Err(at(step.span, ErrorKind::NotAllowed { entitlement }));
            }
        }
        Ok((network, security))
    }

    /// The program and its arguments; a script that begins with `#!` is mounted.
    fn command_line(
        &mut self,
        state: &State,
        step: &Step<'_>,
        run: &Run,
        draft: &mut Draft,
    ) -> Result<Vec<String>, LowerError> {
        let args = match run.script() {
            Script::Exec(args) => args,
            Script::Shell(text) => state.with_shell(&text),
            Script::File { name: file, content } => {
                run.heredocs.iter().try_for_each(|heredoc| heredoc_name(heredoc).map(drop))?;
                let action = FileAction::MakeFile {
                    on: ActionInput::Scratch,
                    path: format!("/{file}"),
                    mode: 0o755,
                    data: text::encode(&content).into_owned(),
                    owner: None,
                };
                let about = About {
                    name: "[internal] preparing inline document".to_owned(),
                    hidden: true,
                    ..About::default()
                };
                let op = Op::File(FileOp { actions: vec![action] });
                let tree = self.drafts.add(op, Vec::new(), about);
                let input = draft.input(Some(tree));
                draft.mounts.push(Mount {
                    target: PIPES.to_owned(),
                    input,
                    selector: String::new(),
                    readonly: true,
                    kind: MountKind::Bind,
                    output: None,
                });
                // The shell starts it, and `SHELL` decides which: so does BuildKit, whatever its documentation says.
                state.with_shell(&format!("{PIPES}/{file}"))
            }
        };
        if args.is_empty() {
            return Err(at(step.span, ErrorKind::EmptyCommand));
        }
        let words = match &run.command {
            Command::Shell(word) => std::slice::from_ref(word),
            Command::Exec(words) => words,
        };
        if let Some(word) = words.first() {
            args.iter().try_for_each(|arg| no_nul(arg, word))?;
        }
        Ok(args)
    }

    /// Adds one mount. `from` is the tree it names, if it names one.
    fn mount(
        &mut self,
        state: &State,
        mount: &ReadMount,
        from: Option<Option<Tree>>,
        draft: &mut Draft,
    ) -> Result<(), LowerError> {
        let target = mount.target_in(&state.folder())?;
        let place = target.clone().unwrap_or_default();
        let whole = |target, kind| Mount {
            target,
            input: None,
            selector: String::new(),
            readonly: false,
            kind,
            output: None,
        };
        let mount = match &mount.kind {
            ReadKind::Bind(bind) => {
                let tree = match from {
                    Some(tree) => tree,
                    None => Some(self.context()),
                };
                let (input, selector) = self.selected(tree, &bind.source, draft);
                Mount { input, selector, readonly: bind.readonly, ..whole(place, MountKind::Bind) }
            }
            ReadKind::Cache(cache) => {
                let (input, selector) = self.selected(from.flatten(), &cache.source, draft);
                let id = cache.id.clone().unwrap_or_else(|| gopath::clean(&cache.target));
                let kind = MountKind::Cache {
                    id: match self.request.build_args.get("BUILDKIT_CACHE_MOUNT_NS") {
                        Some(space) if !space.is_empty() => format!("{space}/{id}"),
                        _ => id,
                    },
                    sharing: match cache.sharing {
                        Sharing::Shared => CacheSharing::Shared,
                        Sharing::Private => CacheSharing::Private,
                        Sharing::Locked => CacheSharing::Locked,
                    },
                    mode: cache.mode.unwrap_or(0o755),
                    uid: cache.uid.unwrap_or(0),
                    gid: cache.gid.unwrap_or(0),
                };
                Mount { input, selector, readonly: cache.readonly, ..whole(place, kind) }
            }
            ReadKind::Tmpfs(tmpfs) => {
                let kind = MountKind::Tmpfs { size_bytes: tmpfs.size_bytes };
                Mount { readonly: tmpfs.readonly, ..whole(place, kind) }
            }
            ReadKind::Secret(secret) => {
                if let Some(name) = &secret.env {
                    let (id, required) = (secret.id.clone(), secret.required);
                    draft.secret_env.push(SecretEnv { name: name.clone(), id, required });
                }
                let Some(target) = target else { return Ok(()) };
                let kind = MountKind::Secret {
                    id: secret.id.clone(),
                    mode: secret.mode & PERMISSIONS,
                    uid: secret.uid,
                    gid: secret.gid,
                    required: secret.required,
                };
                Mount { readonly: true, ..whole(target, kind) }
            }
            ReadKind::Ssh(ssh) => {
                let socket = || format!("/run/buildkit/ssh_agent.{}", draft.ssh.len());
                let target = target.unwrap_or_else(socket);
                draft.ssh.push(target.clone());
                let kind = MountKind::Ssh {
                    id: ssh.id.clone(),
                    mode: ssh.mode & PERMISSIONS,
                    uid: ssh.uid,
                    gid: ssh.gid,
                    required: ssh.required,
                };
                Mount { readonly: true, ..whole(target, kind) }
            }
        };
        draft.mounts.push(mount);
        Ok(())
    }

    /// The input and the path of it that a mount takes.
    fn selected(&mut self, tree: Option<Tree>, source: &str, draft: &mut Draft) -> (Option<usize>, String) {
        let path = gopath::absolute("/", source);
        if let Some(tree) = tree {
            self.drafts.reach(tree, &path);
        }
        let selector = if path == "/" { String::new() } else { path };
        (draft.input(tree), selector)
    }

    fn exec(&self, state: &State, args: Vec<String>, draft: &mut Draft) -> Exec {
        let mut env = state.variables.pairs();
        if let (Some(socket), None) = (draft.ssh.first(), state.variables.get("SSH_AUTH_SOCK")) {
            env.push(format!("SSH_AUTH_SOCK={socket}"));
        }
        let request = self.request;
        let hostname = request.hostname.as_ref().or(request.build_args.get("BUILDKIT_SANDBOX_HOSTNAME"));
        Exec {
            args,
            platform: state.platform.clone(),
            env,
            cwd: state.folder(),
            user: state.config.config.user.clone(),
            hostname: hostname.cloned().unwrap_or_default(),
            network: Network::Default,
            security: Security::Sandbox,
            mounts: std::mem::take(&mut draft.mounts),
            secret_env: std::mem::take(&mut draft.secret_env),
            extra_hosts: request.extra_hosts.clone(),
            proxy_env: self.proxies.clone(),
            resources: request.resources.clone(),
            ulimits: request.ulimits.clone(),
            shm_size_bytes: request.shm_size_bytes,
        }
    }

    /// What people are told: variables replaced, those that hold secrets masked, a lone heredoc in brackets.
    fn about(&self, building: &mut Building, step: &Step<'_>, secrets: &[SecretEnv], history: &str) -> About {
        let variables = &building.state.variables;
        let lookup = |name: &str| match secrets.iter().any(|secret| secret.name == name) {
            true => Some("****".to_owned()),
            false => variables.get(name).map(str::to_owned),
        };
        let mut shown = crate::words::shown(&step.text, self.words.escape, &lookup);
        if let dockerfile_parser::Instruction::Run(run) = &*step.instruction
            && let [only] = &run.heredocs[..]
        {
            let content = only.text();
            let alone = match run.script() {
                Script::File { .. } => true,
                Script::Shell(text) => text == content,
                Script::Exec(_) => false,
            };
            let mut lines = content.trim().lines();
            if let (true, Some(first)) = (alone, lines.next()) {
                let more = if lines.next().is_some() { "..." } else { "" };
                shown.push_str(&format!(" ({}{more})", plain(first)));
            }
        }
        let mut shell = building.state.with_shell("");
        shell.pop();
        About { shell, ..building.progress.next(step, &shown, history) }
    }
}

/// `RUN |1 NAME=value /bin/sh -c make # buildkit`: arguments that were declared, then the command line.
fn history(state: &State, args: &[String]) -> String {
    let mut declared = crate::variables::Variables::default();
    for (name, value) in &state.args {
        let value = state.variables.get(name).or(value.as_deref()).unwrap_or_default();
        declared.set(name, value);
    }
    let mut parts = declared.pairs();
    if !parts.is_empty() {
        parts.insert(0, format!("|{}", parts.len()));
    }
    parts.extend(args.iter().cloned());
    format!("RUN {} # buildkit", parts.join(" "))
}
