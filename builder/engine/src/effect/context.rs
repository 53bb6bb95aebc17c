//! Build contexts: read once a build, and only what the graph can reach.

use std::{
    collections::BTreeMap,
    os::fd::AsFd,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use dockerfile::{ignore::Ignore, text};
use graph::{Local, Op, Source, Vertex};
use image::{
    folder::{SourceFolder, replant, write_plan},
    scan::{Purpose, ScanOptions, StatKey, scan_at},
};
use oci::Digest;
use rustix::fs::{Dir, Mode, OFlags, ResolveFlags, open, openat2};
use solver::key::Pick;
use store::{HashCache, KnownFiles};
use tokio::runtime::Handle;
use tree::{Layer, LayerPath};

use super::{Effects, visible::Visible};
use crate::{error::Cause, memo::stamp_of_read, result::VertexResult};

/// A build context that was read.
pub struct Context {
    /// `context`, or the named context's name.
    pub(crate) name: String,
    /// What of it the graph can reach and no pattern leaves out.
    pub(crate) layer: Arc<Layer>,
    /// The folder itself.
    pub(crate) folder: PathBuf,
    /// Whether others may write to the folder while it is read.
    pub(crate) watched: bool,
    /// Those of its files that did not change since.
    pub(crate) known: Arc<Known>,
    /// Whether there is no such folder, and an empty one stands for it.
    absent: bool,
    ignore: Ignore,
    /// The digests of its parts that were asked for: a step's key asks for the same as its record.
    picked: Mutex<BTreeMap<Vec<Pick>, Digest>>,
    /// What it is known again by, once that was asked for; none where it may have changed since.
    stamp: OnceLock<Option<Digest>>,
    /// A copy that a step can be shown, made when one wants it.
    copy: OnceLock<PathBuf>,
    making: Mutex<()>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("name", &self.name)
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

impl Context {
    /// Says that a source is not in the context, or why it cannot be seen there.
    pub(crate) fn missing(&self, path: &str) -> Cause {
        let (of, shown) = (self.shown(), path.trim_start_matches('/').to_owned());
        let ignored =
            LayerPath::clamp(&text::encode(path)).is_ok_and(|path| self.ignore.excludes(path.as_bytes()));
        match (self.is_there(path), ignored) {
            (true, false) => Cause::CopyDangling { path: shown, of },
            (there, _) => Cause::CopyMissing { path: shown, of, ignored: there, near: self.near(path) },
        }
    }

    /// Whether a path, as `COPY` writes it, names something, be it a link that leads nowhere.
    fn is_there(&self, path: &str) -> bool {
        let path = std::path::Path::new(path.trim_start_matches('/'));
        let name = path.file_name().and_then(|name| name.to_str());
        let names = path.parent().and_then(|parent| self.names(parent)).unwrap_or_default();
        name.is_some_and(|name| names.iter().any(|known| known == name))
    }

    /// A name in the path's folder that is spelled much like its last part.
    pub(crate) fn near(&self, path: &str) -> Option<String> {
        let path = std::path::Path::new(path.trim_start_matches('/'));
        let wanted = path.file_name()?.to_str()?;
        let parent = path.parent()?;
        let mut names = self.names(parent)?;
        names.sort();
        let near = dockerfile_parser::suggest::near(wanted, names.iter().map(String::as_str))?;
        Some(parent.join(near).display().to_string())
    }

    /// The names in a folder of the context; no link is followed there, so nothing outside is told of.
    fn names(&self, folder: &std::path::Path) -> Option<Vec<String>> {
        let root =
            open(&self.folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let folder = if folder.as_os_str().is_empty() { std::path::Path::new(".") } else { folder };
        let folder = openat2(&root, folder, flags, Mode::empty(), resolve).ok()?;
        let names = Dir::read_from(&folder)
            .ok()?
            .filter_map(|entry| entry.ok()?.file_name().to_str().ok().map(str::to_owned));
        Some(names.filter(|name| name != "." && name != "..").collect())
    }

    /// The digest of some of its parts, made once.
    pub(crate) fn picked(
        &self,
        picks: Vec<Pick>,
        make: impl FnOnce(&[Pick]) -> Result<Digest, Cause>,
    ) -> Result<Digest, Cause> {
        let known = || self.picked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(digest) = known().get(&picks) {
            return Ok(*digest);
        }
        // Steps that see different parts do not wait for each other.
        let digest = make(&picks)?;
        known().insert(picks, digest);
        Ok(digest)
    }

    /// What the context is known again by ([`stamp_of_read`]), looked at once.
    pub(crate) fn stamp(&self, local: &Local) -> Option<Digest> {
        *self.stamp.get_or_init(|| stamp_of_read(self, local))
    }

    /// What messages call it.
    pub(crate) fn shown(&self) -> String {
        match self.absent {
            true => format!("{}, which is empty: the Dockerfile came without one", shown(&self.name)),
            false => shown(&self.name),
        }
    }
}

/// The contexts of a build by their vertex's description.
#[derive(Default)]
pub(crate) struct Contexts {
    slots: Mutex<BTreeMap<String, Arc<Slot>>>,
    /// The folder of the build's own that holds the archive that the client sent as the main context.
    archive: OnceLock<PathBuf>,
}

#[derive(Default)]
struct Slot {
    read: OnceLock<Arc<Context>>,
    reading: Mutex<()>,
}

impl Contexts {
    /// Makes a folder with an archive in it the main context; the first one counts.
    pub(crate) fn take_archive(&self, folder: PathBuf) {
        self.archive.get_or_init(|| folder);
    }

    /// The folder of [`Contexts::take_archive`].
    pub(crate) fn archive(&self) -> Option<&PathBuf> {
        self.archive.get()
    }

    /// What was read of a context; none where it was not read, or is no folder of the user's.
    pub(crate) fn read(&self, local: &Local) -> Option<Arc<Context>> {
        let slot = self.slot(local);
        slot.read.get().cloned().filter(|context| context.watched)
    }

    fn slot(&self, local: &Local) -> Arc<Slot> {
        let name = format!("{local:?}");
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default().clone()
    }
}

impl Effects {
    /// Digest of what a vertex can see of a local input.
    pub(crate) fn fingerprint(
        &self,
        vertex: &Vertex,
        input: usize,
        source: &Vertex,
    ) -> Result<Digest, Cause> {
        let context = self.context_of(source)?;
        self.seen(vertex, input, &context)
    }

    /// The context of a local source.
    pub(crate) fn context_of(&self, vertex: &Vertex) -> Result<VertexResult, Cause> {
        let Op::Source(Source::Local(local)) = &vertex.op else {
            return Err(Cause::Task("not a local source".to_owned()));
        };
        let slot = self.contexts.slot(local);
        // Whoever comes second waits for the first to have read it.
        let _turn = slot.reading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(context) = slot.read.get() {
            return Ok(VertexResult::Context(context.clone()));
        }
        let context = Arc::new(self.read_context(local)?);
        let context = slot.read.get_or_init(|| context).clone();
        if let (true, Some(_), Ok(handle)) = (context.watched, &self.recorder, Handle::try_current()) {
            // It will be wanted when all is done, and now there is a core for it.
            let (context, local) = (context.clone(), local.clone());
            handle.spawn_blocking(move || context.stamp(&local));
        }
        Ok(VertexResult::Context(context))
    }

    fn read_context(&self, local: &Local) -> Result<Context, Cause> {
        let shown = || PathBuf::from(shown(&local.name));
        let archive = self.contexts.archive().filter(|_| local.name == "context");
        let (folder, absent) = match archive {
            Some(folder) => (folder.clone(), false),
            None => {
                let folder = self.client.context(&local.name).map_err(Cause::io("read", shown()))?;
                let absent = folder.is_none();
                (folder.unwrap_or_else(|| self.empty.clone()), absent)
            }
        };
        let root = open(&folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| Cause::io("open", &folder)(errno.into()))?;
        let visible = Visible::of(local, root.as_fd())?;
        use std::os::unix::ffi::OsStrExt;
        let hashes = Hashes(self.store.hash_cache(folder.as_os_str().as_bytes())?);
        let filter = |path: &LayerPath, is_folder: bool| visible.visit(path, is_folder);
        let options = ScanOptions { purpose: Purpose::Context, filter: &filter, hashes: &hashes };
        let layer = scan_at(root.as_fd(), &options)?;
        let watched = archive.is_none() && !absent;
        // A folder of the build's own is gone when the build is.
        let known = hashes.0.into_known(watched.then_some(&self.lease))?;
        Ok(Context {
            name: local.name.clone(),
            layer: Arc::new(layer),
            known: Arc::new(Known(known)),
            folder,
            watched,
            absent,
            ignore: visible.into_ignore(),
            picked: Mutex::default(),
            stamp: OnceLock::new(),
            copy: OnceLock::new(),
            making: Mutex::new(()),
        })
    }

    /// A folder with what was read of a context and nothing else, for a step to see.
    pub(crate) fn context_folder(&self, context: &Context) -> Result<PathBuf, Cause> {
        let _turn = context.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = context.copy.get() {
            return Ok(folder.clone());
        }
        let to = self.lease.new_folder()?;
        let from = SourceFolder::watched(&context.folder).map_err(Cause::io("open", &context.folder))?;
        let from = from.knowing(context.known.clone());
        write_plan(&replant(&context.layer), &[vec![from]], &to, self.upper_form())?;
        Ok(context.copy.get_or_init(|| to).clone())
    }

    /// A result that can be an image: a context becomes one layer.
    pub(crate) fn with_layers(&self, result: VertexResult) -> Result<VertexResult, Cause> {
        let VertexResult::Context(context) = &result else { return Ok(result) };
        let folder = self.context_folder(context)?;
        let id = self.store.commit_layer(&self.lease, &context.layer, Some(&folder), None)?;
        Ok(VertexResult::layers(vec![store::ResultLayer { layer: id, created: None }]))
    }
}

/// What messages call a context.
fn shown(name: &str) -> String {
    match name {
        "context" => "the build context".to_owned(),
        name => format!("the context `{name}`"),
    }
}

/// The store's memory of digests, as a scan asks for it.
#[derive(Debug)]
struct Hashes(HashCache);

impl image::scan::HashCache for Hashes {
    fn get(&self, key: &StatKey) -> Option<Digest> {
        self.0.get(&stored(key))
    }

    fn put(&self, key: StatKey, digest: Digest) {
        self.0.put(stored(&key), digest);
    }
}

/// What the store has told of a context's files, for whoever reads them again.
#[derive(Debug)]
pub(crate) struct Known(KnownFiles);

impl image::scan::KnownFiles for Known {
    fn is(&self, key: &StatKey, digest: &Digest) -> bool {
        self.0.is(&stored(key), digest)
    }
}

/// A key as the store has it.
fn stored(key: &StatKey) -> store::StatKey {
    let StatKey { device, inode, size, mtime_ns, ctime_ns } = *key;
    store::StatKey { device, inode, size, mtime_ns, ctime_ns }
}
