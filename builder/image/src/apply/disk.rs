//! The folder that a layer is unpacked to: every call names a parent folder's descriptor and one name.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    rc::Rc,
};

use rustix::{
    fs::{
        AtFlags, CWD, Dev, Dir, FileType, Mode, OFlags, XattrFlags, chmodat, chownat, fchmod, fchown,
        fsetxattr, ftruncate, futimens, linkat, makedev, mkdirat, mknodat, openat, symlinkat, unlinkat,
        utimensat,
    },
    io::Errno,
};
use tree::{Kind, LayerPath, Node};

use super::{ApplyError, ApplyOptions};
use crate::{
    attributes::Attributes,
    beneath,
    inode::{STANDS_FOR, accept_xattr, own_xattrs, owner, stands_for, times},
    overlay::OverlayXattrs,
    ownership::Ownership,
};

pub(super) struct Disk {
    root: OwnedFd,
    /// The folder that was used last: most entries lie beside their predecessor.
    last: Option<(LayerPath, Rc<OwnedFd>)>,
    ownership: Ownership,
    overlay: OverlayXattrs,
}

/// Turns a call's error into one that says what it was made for.
fn failed<E: Into<io::Error>>(call: &'static str, path: &LayerPath) -> impl Fn(E) -> ApplyError {
    move |error| ApplyError::Disk { call, path: path.clone(), source: error.into() }
}

impl Disk {
    /// An empty folder.
    pub(super) fn open(folder: &Path, options: &ApplyOptions) -> Result<Disk, ApplyError> {
        let disk = Disk::reopen(folder, options)?;
        let root = LayerPath::root();
        let readable =
            openat(&disk.root, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let entries =
            Dir::read_from(readable.map_err(failed("open", &root))?).map_err(failed("opendir", &root))?;
        for entry in entries {
            let entry = entry.map_err(failed("readdir", &root))?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                return Err(ApplyError::NotEmpty);
            }
        }
        Ok(disk)
    }

    /// A folder that holds an unpacked layer.
    pub(super) fn reopen(folder: &Path, options: &ApplyOptions) -> Result<Disk, ApplyError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, folder, flags, Mode::empty()).map_err(failed("open", &LayerPath::root()))?;
        Ok(Disk { root, last: None, ownership: options.ownership, overlay: options.overlay })
    }

    /// The folder at `path`, whose parts are all real folders.
    fn folder(&mut self, path: &LayerPath) -> Result<Rc<OwnedFd>, ApplyError> {
        if let Some((last, folder)) = &self.last
            && last == path
        {
            return Ok(Rc::clone(folder));
        }
        let folder = Rc::new(open_folder(&self.root, path).map_err(failed("open", path))?);
        self.last = Some((path.clone(), Rc::clone(&folder)));
        Ok(folder)
    }

    fn parent(&mut self, path: &LayerPath) -> Result<Rc<OwnedFd>, ApplyError> {
        self.folder(&path.parent().unwrap_or_default())
    }

    /// Makes a folder that only we can use; [`Disk::set_folder`] gives it its attributes when all is in it.
    pub(super) fn make_folder(&mut self, path: &LayerPath) -> Result<(), ApplyError> {
        let parent = self.parent(path)?;
        mkdirat(&*parent, path.name(), Mode::RWXU).map_err(failed("mkdirat", path))
    }

    /// Makes a file and hands it to `fill`, then sets its attributes.
    pub(super) fn make_file(
        &mut self,
        path: &LayerPath,
        fill: impl FnOnce(&mut SparseFile) -> Result<Node, ApplyError>,
    ) -> Result<Node, ApplyError> {
        let parent = self.parent(path)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&*parent, path.name(), flags, Mode::RUSR | Mode::WUSR);
        let file = File::from(file.map_err(failed("openat", path))?);
        let mut sparse = SparseFile { file, path: path.clone(), hole: false };
        let node = fill(&mut sparse)?;
        let file = sparse.file;
        if self.ownership.chowns() {
            let (uid, gid) = owner(&node, self.ownership);
            fchown(&file, uid, gid).map_err(failed("fchown", path))?;
        }
        // After the owner, as chown takes set-id bits and capabilities away.
        fchmod(&file, Mode::from_raw_mode(node.mode)).map_err(failed("fchmod", path))?;
        for (name, value) in own_xattrs(&node) {
            let set = fsetxattr(&file, name, value, XattrFlags::empty());
            accept_xattr(set).map_err(failed("fsetxattr", path))?;
        }
        futimens(&file, &times(node.mtime)).map_err(failed("futimens", path))?;
        Ok(node)
    }

    /// Makes anything that is neither file nor folder.
    pub(super) fn make_other(&mut self, path: &LayerPath, node: &Node) -> Result<(), ApplyError> {
        let parent = self.parent(path)?;
        let (folder, name) = (parent.as_fd(), path.name());
        let mode = Mode::from_raw_mode(node.mode);
        let make = |kind, device| mknodat(folder, name, kind, mode, device).map_err(failed("mknodat", path));
        let placeholder = !self.ownership.makes_devices();
        match &node.kind {
            Kind::Symlink { target } => {
                symlinkat(&target[..], folder, name).map_err(failed("symlinkat", path))?;
            }
            Kind::CharDevice { .. } | Kind::BlockDevice { .. } if placeholder => {
                make(FileType::RegularFile, 0)?
            }
            Kind::CharDevice { major, minor } => make(FileType::CharacterDevice, makedev(*major, *minor))?,
            Kind::BlockDevice { major, minor } => make(FileType::BlockDevice, makedev(*major, *minor))?,
            Kind::Fifo => make(FileType::Fifo, 0)?,
            Kind::Whiteout => return self.make_whiteout(path),
            Kind::Directory { .. } | Kind::File { .. } => {
                unreachable!("folders and files have functions of their own")
            }
        }
        if self.ownership.chowns() {
            let (uid, gid) = owner(node, self.ownership);
            let owned = chownat(folder, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW);
            owned.map_err(failed("fchownat", path))?;
        }
        if !matches!(node.kind, Kind::Symlink { .. }) {
            // Made with the umask; and it is no link that could be followed.
            chmodat(folder, name, mode, AtFlags::empty()).map_err(failed("fchmodat", path))?;
        }
        if let Some(device) = stands_for(node).filter(|_| placeholder) {
            let set = Attributes::of(&*parent, name)
                .and_then(|attributes| attributes.set(STANDS_FOR.as_bytes(), device.as_bytes()));
            accept_xattr(set).map_err(failed("lsetxattr", path))?;
        }
        for (attribute, value) in own_xattrs(node) {
            let set = Attributes::of(&*parent, name).and_then(|attributes| attributes.set(attribute, value));
            accept_xattr(set).map_err(failed("lsetxattr", path))?;
        }
        utimensat(folder, name, &times(node.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed("utimensat", path))
    }

    /// Marks a name as gone, in overlayfs's way. Even a user namespace may make this device.
    pub(super) fn make_whiteout(&mut self, path: &LayerPath) -> Result<(), ApplyError> {
        if !self.overlay.has_whiteouts() {
            return Ok(());
        }
        let parent = self.parent(path)?;
        let device: Dev = makedev(0, 0);
        mknodat(&*parent, path.name(), FileType::CharacterDevice, Mode::empty(), device)
            .map_err(failed("mknodat", path))
    }

    /// One more name of the file at `target`.
    pub(super) fn link(&mut self, path: &LayerPath, target: &LayerPath) -> Result<(), ApplyError> {
        let from = self.parent(target)?;
        let to = self.parent(path)?;
        linkat(&*from, target.name(), &*to, path.name(), AtFlags::empty()).map_err(failed("linkat", path))
    }

    /// Removes a file or an empty folder.
    pub(super) fn remove(&mut self, path: &LayerPath, is_folder: bool) -> Result<(), ApplyError> {
        if is_folder {
            self.last = None;
        }
        let parent = self.parent(path)?;
        let flags = if is_folder { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        unlinkat(&*parent, path.name(), flags).map_err(failed("unlinkat", path))
    }

    /// Gives a folder its owner, mode, attributes and time.
    pub(super) fn set_folder(&mut self, path: &LayerPath, node: &Node) -> Result<(), ApplyError> {
        let folder = open_folder(&self.root, path).map_err(failed("open", path))?;
        let attributes = Attributes::of(&folder, b".").map_err(failed("open", path))?;
        if self.ownership.chowns() {
            let (uid, gid) = owner(node, self.ownership);
            chownat(&folder, ".", uid, gid, AtFlags::empty()).map_err(failed("fchownat", path))?;
        }
        for (name, value) in own_xattrs(node) {
            accept_xattr(attributes.set(name, value)).map_err(failed("lsetxattr", path))?;
        }
        if let (Kind::Directory { opaque: true }, Some(mark)) = (&node.kind, self.overlay.opaque()) {
            attributes.set(mark, b"y").map_err(failed("lsetxattr", path))?;
        }
        utimensat(&folder, ".", &times(node.mtime), AtFlags::empty()).map_err(failed("utimensat", path))?;
        // Last: it may take our own right to search the folder away.
        chmodat(&folder, ".", Mode::from_raw_mode(node.mode), AtFlags::empty())
            .map_err(failed("fchmodat", path))
    }
}

fn open_folder(root: &OwnedFd, path: &LayerPath) -> Result<OwnedFd, Errno> {
    beneath::open(root.as_fd(), path, OFlags::PATH | OFlags::DIRECTORY)
}

/// A file that is being written; its holes stay holes.
pub(super) struct SparseFile {
    file: File,
    path: LayerPath,
    /// Whether the last thing was a hole, so that the file's length is not set yet.
    hole: bool,
}

impl SparseFile {
    pub(super) fn data(&mut self, bytes: &[u8]) -> Result<(), ApplyError> {
        self.hole = false;
        self.file.write_all(bytes).map_err(failed("write", &self.path))
    }

    pub(super) fn hole(&mut self, length: u64) -> Result<(), ApplyError> {
        self.hole = true;
        let length = i64::try_from(length).map_err(io::Error::other);
        let moved = length.and_then(|length| self.file.seek(SeekFrom::Current(length)));
        moved.map(drop).map_err(failed("lseek", &self.path))
    }

    /// Sets the length of a file that ends in a hole.
    pub(super) fn end(&mut self, size: u64) -> Result<(), ApplyError> {
        if !self.hole {
            return Ok(());
        }
        ftruncate(&self.file, size).map_err(failed("ftruncate", &self.path))
    }
}
