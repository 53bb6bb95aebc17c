//! A tree manifest and the bytes of its files → a folder.
//!
//! The form is overlayfs's upper folder, with whiteouts and opaque marks, or a plain folder for `-o
//! type=local`. Every call names an open folder's descriptor and one name in it and follows no link, so that
//! nothing is written outside. Owners, modes, attributes and times are set in the order in which the kernel
//! leaves them alone: a folder's time after all that is put into it.

mod bytes;
mod contents;
pub(crate) mod prune;
mod remove;
mod times;
mod write;

use std::{
    collections::VecDeque,
    fmt, io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use oci::Digest;
use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
};
use tree::{Kind, Layer, LayerPath, Stack};

pub use contents::PlannedLayer;
pub use remove::remove_tree;
pub use times::set_times;

use crate::{
    beneath,
    copy::{ContentSource, CopiedFolder, Plan, PlannedContents},
    overlay::OverlayXattrs,
    ownership::Ownership,
    scan::{KnownFiles, StatKey},
};

/// A folder from which files are copied: a layer's, or a context's.
pub struct SourceFolder {
    root: OwnedFd,
    verify: bool,
    known: Option<Arc<dyn KnownFiles + Send>>,
    /// The folders that files were opened in lately, with their paths: siblings are read one after the other.
    recent: Mutex<VecDeque<(LayerPath, Arc<OwnedFd>)>>,
}

/// So many folders are kept open, as several threads read.
const RECENT: usize = 8;

impl fmt::Debug for SourceFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceFolder").field("verify", &self.verify).finish_non_exhaustive()
    }
}

impl SourceFolder {
    /// The folder of a layer in the store, whose files are what the manifest says.
    ///
    /// # Errors
    /// When there is no such folder.
    pub fn stored(folder: &Path) -> io::Result<SourceFolder> {
        SourceFolder::of(folder, false)
    }

    /// A folder that others may write to, such as a context: what is read from it is compared with the
    /// manifest's digests.
    ///
    /// # Errors
    /// When there is no such folder.
    pub fn watched(folder: &Path) -> io::Result<SourceFolder> {
        SourceFolder::of(folder, true)
    }

    /// The same folder, of whose files some digests are known: what is read of a file is not hashed where it has the key
    /// that the right digest was remembered by, after it was read.
    pub fn knowing(self, known: Arc<dyn KnownFiles + Send>) -> SourceFolder {
        SourceFolder { known: Some(known), ..self }
    }

    fn of(folder: &Path, verify: bool) -> io::Result<SourceFolder> {
        Ok(SourceFolder { root: open_root(folder)?, verify, known: None, recent: Mutex::default() })
    }

    /// Opens a file to read it, no link on the way to it followed. NONBLOCK: a pipe that took its place must not make us
    /// wait; its size will be wrong.
    fn open(&self, path: &LayerPath) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let Some(end) = path.as_bytes().iter().rposition(|byte| *byte == b'/') else {
            return beneath::open(self.root.as_fd(), path, flags);
        };
        let above = &path.as_bytes()[..end];
        let recent = || self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |(path, folder): &(LayerPath, Arc<OwnedFd>)| {
            (path.as_bytes() == above).then(|| Arc::clone(folder))
        };
        let found = recent().iter().find_map(known);
        let folder = match found {
            Some(folder) => folder,
            None => {
                let above = path.parent().unwrap_or_default();
                let through = OFlags::PATH | OFlags::DIRECTORY;
                let opened = Arc::new(beneath::open(self.root.as_fd(), &above, through)?);
                let mut recent = recent();
                recent.truncate(RECENT - 1);
                recent.push_front((above, Arc::clone(&opened)));
                opened
            }
        };
        openat(&*folder, path.name(), flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
    }

    /// What an open file is known by, if that says that it has this digest.
    fn key(&self, file: &impl AsFd, digest: &Digest) -> Option<StatKey> {
        let known = self.known.as_ref()?;
        let key = StatKey::of_file(file).ok()?;
        known.is(&key, digest).then_some(key)
    }
}

pub(crate) fn open_root(folder: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(CWD, folder, flags, Mode::empty())?)
}

/// What kind of folder is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// An overlay's upper folder, which must be empty.
    Upper {
        /// Where opaque folders are marked.
        overlay: OverlayXattrs,
        /// Whether owners and devices are put on disk.
        ownership: Ownership,
    },
    /// Plain files, owned by whoever runs this. What is in the way is replaced, folders are merged; the root
    /// folder itself stays as it is.
    Export,
    /// On top of a root file system that is there: what is in the way is replaced, folders are merged; a whiteout removes, an
    /// opaque folder begins empty.
    Root {
        /// Whether owners and devices are put on disk.
        ownership: Ownership,
    },
}

impl Form {
    /// Whether something may be there already.
    fn is_onto(self) -> bool {
        matches!(self, Form::Export | Form::Root { .. })
    }

    fn has_whiteouts(self) -> bool {
        matches!(self, Form::Upper { overlay, .. } if overlay.has_whiteouts())
    }

    /// Whose files are; none where they are left to whoever runs this.
    fn ownership(self) -> Option<Ownership> {
        match self {
            Form::Upper { ownership, .. } | Form::Root { ownership } => Some(ownership),
            Form::Export => None,
        }
    }
}

/// A folder that could not be written.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A system call failed.
    #[error("{call} of `{path}`: {source}")]
    Call {
        /// The call.
        call: &'static str,
        /// What it was made for, below the folder that is written.
        path: LayerPath,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file of a source folder cannot be opened.
    #[error("reading `{path}`: {source}")]
    Source {
        /// The file, below its source folder.
        path: LayerPath,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file is not what it was when the step's key was made of it.
    #[error("`{path}` changed while the build was running")]
    Changed {
        /// The file, below its source folder.
        path: LayerPath,
    },
    /// The plan has no bytes for a file, or names an input that was not given.
    #[error("there is nothing to fill `{path}` from")]
    NoContent {
        /// The file, below the folder that is written.
        path: LayerPath,
    },
    /// The folder to write is no folder that can be opened.
    #[error("{folder}: {source}", folder = folder.display())]
    Root {
        /// The folder.
        folder: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Writes a plan into `folder`, which exists. `inputs` are the source folders by input number and layer.
///
/// Returns the paths that were left out: devices, where an export may not make them.
///
/// # Errors
/// [`FolderError`]; a part is then written, which the caller removes.
pub fn write_plan(
    plan: &Plan,
    inputs: &[Vec<SourceFolder>],
    folder: &Path,
    form: Form,
) -> Result<Vec<LayerPath>, FolderError> {
    let at_root = |source| FolderError::Root { folder: folder.to_path_buf(), source };
    let root = open_root(folder).map_err(at_root)?;
    write::Writer::new(root, plan, inputs, form).write()
}

/// Writes what a stack of layers looks like into `folder`, for `-o type=local`. `folders` are the layers',
/// bottom first.
///
/// Returns the paths that were left out: devices, where they may not be made.
///
/// # Errors
/// [`FolderError`]; a part is then written.
pub fn export_local(
    stack: &Stack,
    folders: Vec<SourceFolder>,
    folder: &Path,
) -> Result<Vec<LayerPath>, FolderError> {
    let mut plan = Plan { layer: stack.flatten(), ..Plan::default() };
    for entry in stack.walk(&LayerPath::root()) {
        let is_first = plan.layer.get(&entry.path).is_some_and(|node| node.hardlink.is_none());
        if let Kind::File { .. } = entry.node.kind
            && is_first
        {
            let content = ContentSource::File { input: 0, layer: entry.layer, path: entry.path.clone() };
            plan.contents.insert(entry.path, content);
        }
    }
    write_plan(&plan, &[folders], folder, Form::Export)
}

/// A plan that puts a layer anew from its own folder: for a layer whose folder is to be written elsewhere.
///
/// Its contents are those of input 0, layer 0.
pub fn replant(layer: &Layer) -> Plan {
    let mut contents = PlannedContents::default();
    let folder = CopiedFolder { input: 0, layer: 0, path: LayerPath::root() };
    contents.insert_folder(LayerPath::root(), folder);
    Plan { layer: layer.clone(), contents }
}
