//! The mounts of a step, from what the graph says to what the sandbox takes.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use dockerfile::text;
use graph::{CacheSharing, Exec, Mount, MountKind};
use image::copy::{ContentSource, Plan};
use sandbox::{FileContent, Mount as Made, MountKind as Kind, Writable};
use store::{CacheMount, CacheMountSpec, Sharing};
use tree::{LayerPath, Stack};

use super::{Effects, Job, layers::UPPER, ssh};
use crate::{
    error::Cause,
    result::{Mounted, VertexResult},
};

/// A step's mounts, with what must live as long as the step.
#[derive(Default)]
pub(crate) struct Mounts {
    pub(crate) list: Vec<Made>,
    /// Variables that secrets and agents bring.
    pub(crate) env: Vec<(String, Vec<u8>)>,
    caches: BTreeMap<String, CacheMount>,
    sockets: Vec<PathBuf>,
}

impl Drop for Mounts {
    fn drop(&mut self) {
        self.sockets.iter().for_each(|socket| ssh::close(socket));
    }
}

impl Effects {
    /// Makes ready all mounts of a step but its root.
    pub(crate) fn mounts(&self, exec: &Exec, job: &Job) -> Result<Mounts, Cause> {
        let mut mounts = Mounts::default();
        mounts.caches = self.caches(exec, job)?;
        for mount in exec.mounts.iter().filter(|mount| mount.target != "/") {
            if mount.output.is_some() {
                return Err(Cause::NotYet(format!("an output of the mount at {}", mount.target)));
            }
            self.mount(mount, job, &mut mounts)?;
        }
        for secret in &exec.secret_env {
            if let Some(value) = self.secret(&secret.id, secret.required)? {
                mounts.env.push((secret.name.clone(), value));
            }
        }
        Ok(mounts)
    }

    fn mount(&self, mount: &Mount, job: &Job, mounts: &mut Mounts) -> Result<(), Cause> {
        let target = PathBuf::from(&mount.target);
        let kind = match &mount.kind {
            MountKind::Bind => self.bind(mount, job)?,
            MountKind::Cache { id, .. } => {
                let cache = mounts.caches.get(id).ok_or_else(|| Cause::Task(format!("the cache {id}")))?;
                Kind::Bind {
                    root: cache.path().to_owned(),
                    path: PathBuf::from(if mount.input.is_some() { "" } else { mount.selector.as_str() }),
                    readonly: mount.readonly,
                }
            }
            MountKind::Tmpfs { size_bytes } => Kind::Tmpfs { size_bytes: *size_bytes, mode: 0o1777 },
            MountKind::Secret { id, mode, uid, gid, required } => match self.secret(id, *required)? {
                Some(bytes) => Kind::File { content: FileContent(bytes), mode: *mode, uid: *uid, gid: *gid },
                None => return Ok(()),
            },
            MountKind::Ssh { id, mode, uid, gid, required } => match (self.client.ssh_agent(id), required) {
                (Some(agent), _) => {
                    let folder = self.lease.new_folder()?;
                    let socket = folder.join("agent");
                    ssh::forward(agent, &socket, *mode, *uid, *gid).map_err(Cause::io("open", &socket))?;
                    mounts.sockets.push(socket);
                    Kind::Bind { root: folder, path: PathBuf::from("agent"), readonly: false }
                }
                (None, true) => return Err(Cause::SshMissing(id.clone())),
                (None, false) => return Ok(()),
            },
        };
        mounts.list.push(Made { target, kind });
        Ok(())
    }

    fn secret(&self, id: &str, required: bool) -> Result<Option<Vec<u8>>, Cause> {
        let secret = self.client.secret(id).map_err(Cause::io("read", format!("the secret {id}")))?;
        match secret {
            None if required => Err(Cause::SecretMissing(id.to_owned())),
            found => Ok(found),
        }
    }

    /// A tree of the graph, read-only or with what is written thrown away.
    fn bind(&self, mount: &Mount, job: &Job) -> Result<Kind, Cause> {
        let lowers = match mount.input.map(|input| &job.inputs[input].0) {
            Some(VertexResult::Context(context)) => {
                let stack = Stack::new(vec![context.layer.clone()]);
                if !has(&stack, &mount.selector) {
                    return Err(context.missing(&mount.selector));
                }
                vec![self.context_folder(context)?]
            }
            Some(layers) => {
                let mounted = self.mounted(layers)?;
                if !has(&mounted.stack, &mount.selector) {
                    let of = "the tree that is mounted".to_owned();
                    return Err(Cause::CopyMissing {
                        path: mount.selector.clone(),
                        of,
                        ignored: false,
                        near: None,
                    });
                }
                mounted.lowers()
            }
            None => Vec::new(),
        };
        let writable = match mount.readonly {
            true => None,
            false => Some(Writable { upper: self.lease.new_folder()?, work: self.lease.new_folder()? }),
        };
        Ok(Kind::Overlay { lowers, writable, path: PathBuf::from(&mount.selector) })
    }

    /// Takes a step's caches into use: each once, however often it is mounted, and in the order of their ids, so that two steps
    /// never wait for each other.
    fn caches(&self, exec: &Exec, job: &Job) -> Result<BTreeMap<String, CacheMount>, Cause> {
        let mut wanted: BTreeMap<&str, (CacheMountSpec, &Mount)> = BTreeMap::new();
        for mount in &exec.mounts {
            let MountKind::Cache { id, sharing, mode, uid, gid } = &mount.kind else { continue };
            let (sharing, owner) = (shared(*sharing), Some((*uid, *gid)));
            let spec = CacheMountSpec { id: id.clone(), sharing, mode: *mode, owner };
            let (known, _) = wanted.entry(id).or_insert((spec, mount));
            known.sharing = stricter(known.sharing, sharing);
        }
        let taken =
            wanted.into_iter().map(|(id, (spec, mount))| Ok((id.to_owned(), self.cache(&spec, mount, job)?)));
        taken.collect()
    }

    fn cache(&self, spec: &CacheMountSpec, mount: &Mount, job: &Job) -> Result<CacheMount, Cause> {
        let seed = match mount.input {
            Some(input) => Some(self.mounted(&job.inputs[input].0)?),
            None => None,
        };
        let mut waited = false;
        let fill = |folder: &Path| match &seed {
            Some(seed) => export_seed(seed, &mount.selector, folder),
            None => Ok(()),
        };
        let cache =
            self.store.cache_mount(&self.lease, spec, seed.is_some().then_some(&fill), &mut |_| {
                if !waited {
                    waited = true;
                    self.say(job.digest, &format!("waiting for the cache mount {}\n", spec.id));
                }
                match job.cancel.is_set() {
                    true => std::ops::ControlFlow::Break(()),
                    false => std::ops::ControlFlow::Continue(()),
                }
            })?;
        cache.ok_or(Cause::Cancelled)
    }
}

/// What holds where one step mounts a cache in two ways.
fn stricter(one: Sharing, other: Sharing) -> Sharing {
    match (one, other) {
        (Sharing::Locked, _) | (_, Sharing::Locked) => Sharing::Locked,
        (Sharing::Private, _) | (_, Sharing::Private) => Sharing::Private,
        (Sharing::Shared, Sharing::Shared) => Sharing::Shared,
    }
}

fn shared(sharing: CacheSharing) -> Sharing {
    match sharing {
        CacheSharing::Shared => Sharing::Shared,
        CacheSharing::Private => Sharing::Private,
        CacheSharing::Locked => Sharing::Locked,
    }
}

/// Whether a tree has a path, links followed.
fn has(stack: &Stack, path: &str) -> bool {
    let resolved =
        LayerPath::clamp(&text::encode(path)).ok().and_then(|path| stack.resolve(&path, true).ok());
    resolved.is_some_and(|path| path.is_root() || stack.lookup(&path).is_some())
}

/// Copies a folder of a tree into a new cache.
fn export_seed(seed: &Mounted, selector: &str, folder: &Path) -> io::Result<()> {
    let path = LayerPath::clamp(&text::encode(selector)).map_err(io::Error::other)?;
    let path = seed.stack.resolve(&path, true).map_err(io::Error::other)?;
    let entries = seed.stack.walk(&path).into_iter().filter_map(|entry| {
        let below = entry.path.below(&path)?;
        let node = tree::Node { hardlink: None, ..entry.node.clone() };
        Some((below, node, entry.layer, entry.node.hardlink.clone().unwrap_or(entry.path)))
    });
    let mut plan = Plan::default();
    for (below, node, layer, from) in entries {
        if below.is_root() {
            continue;
        }
        if matches!(node.kind, tree::Kind::File { .. }) {
            plan.contents.insert(below.clone(), ContentSource::File { input: 0, layer, path: from });
        }
        plan.layer.entries.insert(below, node);
    }
    let sources = seed.sources().map_err(io::Error::other)?;
    image::folder::write_plan(&plan, &[sources], folder, UPPER).map_err(io::Error::other)?;
    Ok(())
}
