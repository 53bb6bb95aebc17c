//! The mounts of a step, from what the graph says to what the sandbox takes.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs, io,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use dockerfile::text;
use graph::{CacheSharing, Exec, Mount, MountKind};
use image::copy::{ContentSource, CopyError, Plan};
use oci::Digest;
use sandbox::{Ids, Isolation, Mount as Made, MountKind as Kind, SecretBytes, Snapshots, Writable, emulate};
use store::{CacheMount, CacheMountSpec, Sharing};
use tree::{LayerPath, Selector, Stack};

use super::{
    Effects, Job, owners,
    ssh::{Forwarded, Owned},
};
use crate::{
    client::SshAgent,
    error::Cause,
    result::{Mounted, VertexResult},
};

/// A step's mounts, with what must live as long as the step.
#[derive(Default)]
pub(crate) struct Mounts {
    pub(crate) list: Vec<Made>,
    /// Variables that are secrets.
    pub(crate) env: Vec<(String, SecretBytes)>,
    /// By [`cache_name`].
    caches: BTreeMap<String, Arc<CacheMount>>,
    sockets: Vec<Forwarded>,
    /// The step's own network.
    pub(crate) network: Option<sandbox::net::Network>,
    /// Whose they are, where owners are emulated.
    pub(crate) owners: BTreeMap<PathBuf, emulate::Mounted>,
}

impl Mounts {
    /// No mounts, and a network.
    pub(crate) fn with_network(network: Option<sandbox::net::Network>) -> Mounts {
        Mounts { network, ..Mounts::default() }
    }

    /// The folders of the caches among them.
    pub(crate) fn caches(&self) -> impl Iterator<Item = &Path> {
        self.caches.values().map(|cache| cache.path())
    }

    /// The cache with that folder.
    pub(crate) fn cache_at(&self, folder: &Path) -> Option<Arc<CacheMount>> {
        self.caches.values().find(|cache| cache.path() == folder).cloned()
    }
}

impl Effects {
    /// Makes ready all mounts of a step but its root.
    pub(crate) fn mounts(&self, exec: &Exec, job: &Job) -> Result<Mounts, Cause> {
        let mut mounts = Mounts { caches: self.caches(exec, job)?, ..Mounts::default() };
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
        if let Some(owners) = self.mounted_owners(mount, job)? {
            mounts.owners.insert(target.clone(), owners);
        }
        let kind = match &mount.kind {
            MountKind::Bind => self.bind(mount, job)?,
            MountKind::Cache { id, .. } => {
                let seed = self.seed(mount, job)?;
                let name = cache_name(mount, seed.as_ref());
                let cache = mounts.caches.get(&name).ok_or_else(|| Cause::Task(format!("the cache {id}")))?;
                let path = match &seed {
                    Some(seed) if seed.is_file() => SEED_FILE,
                    Some(_) => "",
                    None => &mount.selector,
                };
                let root = cache.path().to_owned();
                Kind::Bind { root, path: PathBuf::from(path), readonly: mount.readonly }
            }
            MountKind::Tmpfs { size_bytes } => {
                Kind::Tmpfs { size_bytes: *size_bytes, mode: 0o1777, readonly: mount.readonly }
            }
            MountKind::Secret { id, mode, uid, gid, required } => match self.secret(id, *required)? {
                Some(content) => Kind::File { content, mode: *mode, uid: *uid, gid: *gid },
                None => return Ok(()),
            },
            MountKind::Ssh { id, mode, uid, gid, required } => match (self.client.ssh_agent(id), required) {
                (Some(agent), _) => {
                    let folder = self.lease.new_folder()?;
                    let (uid, gid) = self.on_disk(*uid, *gid);
                    let owned = Owned { mode: *mode, uid, gid };
                    mounts.sockets.push(forward(agent, &folder, owned)?);
                    Kind::Bind { root: folder, path: PathBuf::from(AGENT), readonly: false }
                }
                (None, true) => return Err(Cause::SshMissing(id.clone())),
                (None, false) => return Ok(()),
            },
        };
        mounts.list.push(Made { target, kind });
        Ok(())
    }

    fn secret(&self, id: &str, required: bool) -> Result<Option<SecretBytes>, Cause> {
        let secret = self.client.secret(id).map_err(Cause::io("read", format!("the secret {id}")))?;
        match secret {
            None if required => Err(Cause::SecretMissing(id.to_owned())),
            found => Ok(found),
        }
    }

    /// A tree of the graph, read-only or with what is written thrown away.
    fn bind(&self, mount: &Mount, job: &Job) -> Result<Kind, Cause> {
        let tree = mount.input.map(|input| &job.inputs[input].0);
        let copies = self.mode.snapshots == Snapshots::Copy;
        let lowers = match tree {
            Some(VertexResult::Context(context)) => {
                let stack = Stack::new(vec![context.layer.clone()]);
                if !has(&stack, &mount.selector) {
                    return Err(context.missing(&mount.selector));
                }
                if copies { Vec::new() } else { vec![self.context_folder(context)?] }
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
        if copies {
            return self.copy_of(mount, tree);
        }
        let writable = match mount.readonly {
            true => None,
            false => Some(Writable { upper: self.lease.new_folder()?, work: self.lease.new_work_folder()? }),
        };
        Ok(Kind::Overlay { lowers, writable, path: PathBuf::from(&mount.selector) })
    }

    /// The same without overlayfs: a copy, which goes with the build.
    fn copy_of(&self, mount: &Mount, tree: Option<&VertexResult>) -> Result<Kind, Cause> {
        let root = self.lease.new_folder()?;
        let mut path = "";
        if let Some(tree) = tree {
            let part = self.part(self.mounted(tree)?, &mount.selector)?;
            part.export(&root).map_err(Cause::io("copy", &root))?;
            if part.is_file() {
                path = SEED_FILE;
            } else if let Some((_, node)) = part.tree.stack.lookup(&part.at) {
                let (uid, gid) = self.on_disk(node.uid, node.gid);
                self.chown(&root, uid, gid).map_err(Cause::io("chown", &root))?;
                let mode = fs::Permissions::from_mode(node.mode);
                fs::set_permissions(&root, mode).map_err(Cause::io("chmod", &root))?;
                if self.mode.ids == Ids::Single {
                    owners::record(&root, node).map_err(Cause::io("setxattr", &root))?;
                }
            }
        }
        Ok(Kind::Bind { root, path: PathBuf::from(path), readonly: mount.readonly })
    }

    /// Takes a step's caches into use: each once, however often it is mounted, and in the order of their names, so that two
    /// steps never wait for each other.
    fn caches(&self, exec: &Exec, job: &Job) -> Result<BTreeMap<String, Arc<CacheMount>>, Cause> {
        let mut wanted: BTreeMap<String, (CacheMountSpec, Option<Seed>)> = BTreeMap::new();
        for mount in &exec.mounts {
            let MountKind::Cache { sharing, mode, uid, gid, .. } = &mount.kind else { continue };
            let seed = self.seed(mount, job)?;
            let name = cache_name(mount, seed.as_ref());
            let (sharing, owner) = (shared(*sharing), Some(self.on_disk(*uid, *gid)));
            // Who moves it into a root has it alone.
            let sharing = if self.mode.isolation == Isolation::Chroot { Sharing::Locked } else { sharing };
            let spec = CacheMountSpec { id: name.clone(), sharing, mode: *mode, owner };
            let (known, _) = wanted.entry(name).or_insert((spec, seed));
            known.sharing = stricter(known.sharing, sharing);
        }
        let taken = wanted.into_iter();
        taken
            .map(|(name, (spec, seed))| Ok((name, Arc::new(self.cache(&spec, seed.as_ref(), job)?))))
            .collect()
    }

    /// What a new cache begins with, if its mount says so.
    fn seed(&self, mount: &Mount, job: &Job) -> Result<Option<Seed>, Cause> {
        let Some(input) = mount.input else { return Ok(None) };
        let tree = self.mounted(&job.inputs[input].0)?;
        if !has(&tree.stack, &mount.selector) {
            let of = "the tree that the cache begins with".to_owned();
            return Err(Cause::CopyMissing { path: mount.selector.clone(), of, ignored: false, near: None });
        }
        self.part(tree, &mount.selector).map(Some)
    }

    /// What a tree has at a path, links followed.
    fn part(&self, tree: Mounted, path: &str) -> Result<Seed, Cause> {
        let path = text::encode(path);
        let at = tree.stack.resolve(&LayerPath::clamp(&path).map_err(CopyError::from)?, true)?;
        let digest = tree.stack.selection_digest(&Selector::path(&path))?.digest();
        Ok(Seed { tree, at, digest, form: self.upper_form(), records: self.mode.ids == Ids::Single })
    }

    fn cache(&self, spec: &CacheMountSpec, seed: Option<&Seed>, job: &Job) -> Result<CacheMount, Cause> {
        let mut waited = false;
        let fill = |folder: &Path| seed.map_or(Ok(()), |seed| seed.export(folder));
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

/// What a cache begins with: a part of a tree.
struct Seed {
    tree: Mounted,
    /// The part, links followed.
    at: LayerPath,
    /// Of what is there.
    digest: Digest,
    /// How it is written.
    form: image::folder::Form,
    /// Whether owners stand in records.
    records: bool,
}

impl Seed {
    /// Whether it is no folder.
    fn is_file(&self) -> bool {
        self.tree.stack.lookup(&self.at).is_some_and(|(_, node)| !node.is_directory())
    }

    /// Copies it into a new cache; a file under the name [`SEED_FILE`].
    fn export(&self, folder: &Path) -> io::Result<()> {
        let mut plan = Plan::default();
        let walked = self.tree.stack.walk(&self.at);
        let mut names: BTreeMap<_, Vec<LayerPath>> = BTreeMap::new();
        for entry in &walked {
            let Some(below) = entry.path.below(&self.at) else { continue };
            let below = match below.is_root() {
                true if self.is_file() => LayerPath::root().join(SEED_FILE.as_bytes()),
                true => continue,
                false => below,
            };
            let names = names.entry(entry.inode()).or_default();
            if names.is_empty() && matches!(entry.node.kind, tree::Kind::File { .. }) {
                let path = entry.node.hardlink.as_ref().unwrap_or(&entry.path).clone();
                let content = ContentSource::File { input: 0, layer: entry.layer, path };
                plan.contents.insert(below.clone(), content);
            }
            names.push(below.clone());
            plan.layer.entries.insert(below, tree::Node { hardlink: None, ..entry.node.clone() });
        }
        plan.layer.link(names.into_values().filter(|names| names.len() > 1));
        let sources = self.tree.sources().map_err(io::Error::other)?;
        image::folder::write_plan(&plan, &[sources], folder, self.form).map_err(io::Error::other)?;
        let written = plan.layer.entries.iter().filter(|_| self.records);
        let mut written = written.map(|(path, node)| (folder.join(OsStr::from_bytes(path.as_bytes())), node));
        written.try_for_each(|(path, node)| owners::record(&path, node))
    }
}

/// Where a cache that began with a file has it.
const SEED_FILE: &str = "file";

/// The name by which a cache is kept: its id, and what it was made with where that is not usual. Of one id there are
/// several caches, as with BuildKit: one for each owner and mode, so that a step finds the folder it asked for, and one
/// for each seed, so that a new one is not hidden by what an old one left.
fn cache_name(mount: &Mount, seed: Option<&Seed>) -> String {
    let MountKind::Cache { id, mode, uid, gid, .. } = &mount.kind else { return String::new() };
    let mut name = id.clone();
    if (*mode, *uid, *gid) != (0o755, 0, 0) {
        name.push_str(&format!(" {mode:04o} {uid}:{gid}"));
    }
    if let Some(seed) = seed {
        name.push_str(&format!(" from {}", seed.digest));
    }
    name
}

/// The name of an agent's socket in its folder.
const AGENT: &str = "agent";

/// A socket in a folder that leads to an agent.
pub(crate) fn forward(agent: SshAgent, folder: &Path, owned: Owned) -> Result<Forwarded, Cause> {
    let socket = folder.join(AGENT);
    Forwarded::open(agent, socket.clone(), owned).map_err(Cause::io("open", socket))
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
