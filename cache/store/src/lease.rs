//! A build's lease: what it uses, and where it keeps what is half made.
//!
//! The lease is a locked file; its lines name what the build uses, and the collector takes nothing so named. While the
//! build lives the lock is held. When it is killed the kernel releases the lock, and whoever comes next removes
//! the file and the build's folder below `tmp/`.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use oci::Digest;
use rustix::fs::IFlags;
use tree::LayerId;

use crate::{
    Error, Result, Store,
    flock::{self, Hold},
    layout::Layout,
    remove, unique,
};

/// A build's lease. Clones are one lease; it ends with the last.
#[derive(Clone, Debug)]
pub struct Lease(Arc<Held>);

#[derive(Debug)]
struct Held {
    id: String,
    path: PathBuf,
    folder: PathBuf,
    /// Whether the folder was made: a build that only looks makes none.
    has_folder: Mutex<bool>,
    /// The open, locked file.
    file: File,
    pinned: Mutex<BTreeSet<Pin>>,
    /// Of the layers that are named, those that were seen to be here, or that this build will make: a layer is named from its
    /// manifest on.
    here: Mutex<BTreeSet<LayerId>>,
    /// Of the layers that are named, those that were seen to have a folder.
    folders: Mutex<BTreeSet<LayerId>>,
    names: AtomicU64,
    /// The folder of [`Lease::new_work_folder`], and how many are in it.
    works: Mutex<Option<(PathBuf, u64)>>,
    /// The removal of what dead builds left, which this build waits for at its end.
    sweep: Mutex<Option<JoinHandle<Result<u64>>>>,
}

/// Something that a build uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pin {
    Blob(Digest),
    /// Its blobs too.
    Layer(LayerId),
    /// A manifest or an index, with all that it names.
    Image(Digest),
    /// By its definition key.
    Record(Digest),
}

impl Pin {
    /// One line of a lease.
    fn line(&self) -> String {
        match self {
            Pin::Blob(digest) => format!("blob {digest}\n"),
            Pin::Layer(layer) => format!("layer {layer}\n"),
            Pin::Image(manifest) => format!("image {manifest}\n"),
            Pin::Record(key) => format!("record {key}\n"),
        }
    }

    fn parse(line: &str) -> Option<Pin> {
        let (kind, digest) = line.split_once(' ')?;
        let digest: Digest = digest.parse().ok()?;
        match kind {
            "blob" => Some(Pin::Blob(digest)),
            "layer" => Some(Pin::Layer(LayerId::of_manifest(digest))),
            "image" => Some(Pin::Image(digest)),
            "record" => Some(Pin::Record(digest)),
            _ => None,
        }
    }
}

impl Store {
    /// Begins a build. What earlier builds that were killed left behind is removed meanwhile; it has gone when the lease ends.
    ///
    /// # Errors
    /// The state folder cannot be written.
    pub fn lease(&self) -> Result<Lease> {
        let lease = Lease::begin(self.layout())?;
        // Only this build's own lease: nobody was killed.
        if fs::read_dir(self.layout().leases()).map(Iterator::count).unwrap_or(0) > 1 {
            let store = self.clone();
            let swept = thread::Builder::new().name("sweep".to_owned()).spawn(move || store.sweep());
            // Without a thread, or on an error, the rest stays until the next sweep.
            *lease.0.sweep.lock().unwrap_or_else(PoisonError::into_inner) = swept.ok();
        }
        Ok(lease)
    }

    /// Removes what killed builds left: their leases and folders, and then their locks.
    ///
    /// Returns how many dead builds were cleared away.
    ///
    /// # Errors
    /// The first thing that cannot be removed; its lease then stays, for the next sweep.
    pub fn sweep(&self) -> Result<u64> {
        let mut swept = 0;
        crate::cache_mount::bring_back(self.layout())?;
        for name in list(&self.layout().leases())? {
            swept += u64::from(sweep_lease(self.layout(), &name)?);
        }
        // A build makes its folder after its lease and removes it before, so a folder alone is nobody's.
        for name in list(&self.layout().tmp())? {
            if !Layout::is_trial(&name) && !self.layout().leases().join(&name).exists() {
                let path = self.layout().tmp().join(&name);
                remove::tree(&path).map_err(|e| Error::io("remove", path, e))?;
            }
        }
        crate::lock::sweep(&self.layout().locks())?;
        Ok(swept)
    }
}

impl Lease {
    fn begin(layout: &Layout) -> Result<Lease> {
        loop {
            let id = unique::token();
            let path = layout.leases().join(&id);
            let opened = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path);
            let file = opened.map_err(|e| Error::io("create", &path, e))?;
            // Before the lock is held, a sweeper may take the new file for a dead build's, and remove it.
            let ours = flock::try_lock(&file, Hold::Exclusive)
                .and_then(|locked| Ok(locked && flock::is_at(&file, &path)?));
            if !ours.map_err(|e| Error::io("lock", &path, e))? {
                continue;
            }
            let folder = layout.tmp().join(&id);
            let (has_folder, names) = (Mutex::new(false), AtomicU64::new(0));
            let (pinned, here, folders) = (Mutex::default(), Mutex::default(), Mutex::default());
            let (works, sweep) = (Mutex::default(), Mutex::default());
            let held =
                Held { id, path, folder, has_folder, file, pinned, here, folders, names, works, sweep };
            return Ok(Lease(Arc::new(held)));
        }
    }

    /// The lease's name, unique for all time.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// Whether a path is below the lease's own folder.
    pub fn holds(&self, path: &Path) -> bool {
        path.starts_with(&self.0.folder)
    }

    /// Makes an empty folder, mode 0755, on the file system of the layers. It is removed with the lease, unless
    /// [`Store::commit_layer`] takes it.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn new_folder(&self) -> Result<PathBuf> {
        let path = self.new_path()?;
        fs::create_dir(&path).map_err(|e| Error::io("create", &path, e))?;
        // Said apart: the umask of whoever builds is not to be seen in a step, whose root or mount it may become.
        fs::set_permissions(&path, Permissions::from_mode(0o755))
            .map_err(|e| Error::io("chmod", &path, e))?;
        Ok(path)
    }

    /// Makes an empty folder for what the kernel keeps of a mount: it lies beside others of its kind, and goes with the
    /// lease.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn new_work_folder(&self) -> Result<PathBuf> {
        let mut works = self.0.works.lock().unwrap_or_else(PoisonError::into_inner);
        let (folder, made) = match &mut *works {
            Some(works) => works,
            none => none.insert((self.new_folder()?, 0)),
        };
        let path = folder.join(made.to_string());
        *made += 1;
        fs::create_dir(&path).map_err(|e| Error::io("create", &path, e))?;
        Ok(path)
    }

    /// Removes such a folder before the lease ends; what cannot be removed goes with the lease.
    pub fn remove_work_folder(&self, path: &Path) {
        let _rest = remove::tree(path);
    }

    /// Makes an empty file that only its owner reads. It is removed with the lease.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn new_file(&self) -> Result<(PathBuf, File)> {
        let path = self.new_path()?;
        let opened = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        Ok((path.clone(), opened.map_err(|e| Error::io("create", path, e))?))
    }

    /// A path below the lease's folder that names nothing yet.
    pub(crate) fn new_path(&self) -> Result<PathBuf> {
        let folder = &self.0.folder;
        let mut made = self.0.has_folder.lock().unwrap_or_else(PoisonError::into_inner);
        if !*made {
            let created = fs::DirBuilder::new().mode(0o700).create(folder);
            created.map_err(|e| Error::io("create", folder, e))?;
            spread_folders(folder);
            *made = true;
        }
        let number = self.0.names.fetch_add(1, Ordering::Relaxed);
        // Names that no earlier build had: ext4 finds a place for a folder by its name.
        let (_, token) = self.0.id.split_at(self.0.id.len().saturating_sub(8));
        Ok(folder.join(format!("{number}-{token}")))
    }

    /// Writes a file aside and gives it its name: it is there whole, or not at all.
    pub(crate) fn write_whole(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let (aside, mut file) = self.new_file()?;
        file.write_all(bytes).map_err(|e| Error::io("write", &aside, e))?;
        fs::rename(&aside, path).map_err(|e| Error::io("create", path, e))
    }

    /// Names something that this build uses. The caller holds the collector's lock shared, and has seen that it is there.
    pub(crate) fn pin(&self, pin: Pin) -> Result<()> {
        let mut pinned = self.0.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        if !pinned.contains(&pin) {
            // One write: a line is there whole or the call that wrote it did not return.
            (&self.0.file)
                .write_all(pin.line().as_bytes())
                .map_err(|e| Error::io("write", &self.0.path, e))?;
            pinned.insert(pin);
        }
        Ok(())
    }

    /// All that this build uses so far.
    pub(crate) fn pinned(&self) -> Vec<Pin> {
        self.0.pinned.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// Names a layer that is here: its manifest, and its folder or a blob.
    pub(crate) fn pin_layer(&self, layer: LayerId) -> Result<()> {
        self.pin(Pin::Layer(layer))?;
        self.0.here.lock().unwrap_or_else(PoisonError::into_inner).insert(layer);
        Ok(())
    }

    /// Names a layer that has a folder.
    pub(crate) fn pin_folder(&self, layer: LayerId) -> Result<()> {
        self.pin_layer(layer)?;
        self.0.folders.lock().unwrap_or_else(PoisonError::into_inner).insert(layer);
        Ok(())
    }

    /// Whether this build has seen that the layer has a folder, so that it still has it.
    pub(crate) fn has_seen_folder(&self, layer: &LayerId) -> bool {
        self.0.folders.lock().unwrap_or_else(PoisonError::into_inner).contains(layer)
    }

    /// Whether this build has seen that the layer is here, so that it still is.
    pub(crate) fn has_seen(&self, layer: &LayerId) -> bool {
        self.0.here.lock().unwrap_or_else(PoisonError::into_inner).contains(layer)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let sweep = self.sweep.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sweep) = sweep {
            // What it could not remove stays for the next.
            let _swept = sweep.join();
        }
        // The folder first: a folder without a lease is nobody's, a lease without a lock is a dead build's. What
        // cannot be removed now is left to the next sweep.
        let works = self.works.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((works, _)) = works {
            // What it leaves, the next call removes or fails at.
            remove::together(&works);
        }
        if remove::tree(&self.folder).is_ok() {
            let _stays = fs::remove_file(&self.path);
        }
    }
}

/// Says that the folders that will be made in this one have nothing to do with each other, for file systems that can be told.
///
/// ext4 then gives each of them a part of the disk of its own, where few folders are, instead of all of them the one that
/// their parent is in. That matters where many files were removed in the last minutes, as by a collector or a job that
/// cleaned up: in their part of the disk ext4 takes up to a hundred times longer to make a file, because it does not give
/// out again what was just given back, and looks at every one of them.
pub(crate) fn spread_folders(folder: &Path) {
    let told = || {
        let open = File::open(folder)?;
        let flags = rustix::fs::ioctl_getflags(&open)?;
        match flags.contains(IFlags::TOPDIR) {
            true => Ok(()),
            false => Ok::<_, io::Error>(rustix::fs::ioctl_setflags(&open, flags | IFlags::TOPDIR)?),
        }
    };
    // Most file systems know nothing of it, and lack nothing.
    let _known = told();
}

/// Removes a lease and its folder when its build is dead; whether it was.
fn sweep_lease(layout: &Layout, name: &str) -> Result<bool> {
    let path = layout.leases().join(name);
    let file = match File::open(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened.map_err(|e| Error::io("open", &path, e))?,
    };
    let dead =
        flock::try_lock(&file, Hold::Exclusive).and_then(|free| Ok(free && flock::is_at(&file, &path)?));
    if !dead.map_err(|e| Error::io("lock", &path, e))? {
        return Ok(false);
    }
    let folder = layout.tmp().join(name);
    remove::tree(&folder).map_err(|e| Error::io("remove", folder, e))?;
    remove::file(&path).map_err(|e| Error::io("remove", path, e))?;
    Ok(true)
}

/// All that the builds with a lease use. The caller holds the collector's lock alone.
pub(crate) fn pins(layout: &Layout) -> Result<BTreeSet<Pin>> {
    let mut pins = BTreeSet::new();
    for name in list(&layout.leases())? {
        let path = layout.leases().join(name);
        match fs::read_to_string(&path) {
            // A last line without an end is a call that was killed before it returned.
            Ok(text) => pins.extend(text.lines().filter_map(Pin::parse)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io("read", path, e)),
        }
    }
    Ok(pins)
}

/// The names in a folder of ours, sorted.
pub(crate) fn list(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        // A state folder of an earlier version does not have every folder.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries,
    };
    let names = entries.and_then(|entries| {
        let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
        entries.map(name).collect::<io::Result<Vec<String>>>()
    });
    let mut names = names.map_err(|e| Error::io("list", folder, e))?;
    names.sort();
    Ok(names)
}
