//! Writes the entries of a plan.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, OwnedFd},
    sync::Mutex,
};

use rayon::prelude::*;
use rustix::{
    fs::{
        AtFlags, FileType, Mode, OFlags, XattrFlags, chmodat, chownat, fchmod, fchown, fsetxattr, futimens,
        linkat, makedev, mkdirat, mknodat, openat, symlinkat, utimensat,
    },
    io::Errno,
};
use tree::{Kind, LayerPath, Node};

use super::{
    FolderError, Form, SourceFolder,
    bytes::{Fault, Means, write_all},
    remove::remove_in,
};
use crate::{
    attributes::Attributes,
    beneath,
    copy::{ContentSource, Plan},
    inode::{STANDS_FOR, accept_xattr, own_xattrs, owner, stands_for, times},
    ownership::Ownership,
    scan::StatKey,
};

pub(super) struct Writer<'a> {
    root: OwnedFd,
    plan: &'a Plan,
    inputs: &'a [Vec<SourceFolder>],
    form: Form,
    means: Means,
    left_out: Mutex<Vec<LayerPath>>,
    /// What each folder holds; also folders that the plan does not name.
    held: BTreeMap<LayerPath, Vec<LayerPath>>,
}

fn failed(call: &'static str, path: &LayerPath) -> impl FnOnce(Errno) -> FolderError {
    let path = path.clone();
    move |errno| FolderError::Call { call, path, source: errno.into() }
}

impl<'a> Writer<'a> {
    pub(super) fn new(
        root: OwnedFd,
        plan: &'a Plan,
        inputs: &'a [Vec<SourceFolder>],
        form: Form,
    ) -> Writer<'a> {
        let mut held: BTreeMap<LayerPath, Vec<LayerPath>> = BTreeMap::new();
        for path in plan.layer.entries.keys() {
            let mut below = path.clone();
            while let Some(folder) = below.parent() {
                let known = held.contains_key(&folder);
                held.entry(folder.clone()).or_default().push(below);
                // The folder itself is listed where its parent is: by its own entry, or as the first to be
                // found missing.
                if known || plan.layer.get(&folder).is_some() {
                    break;
                }
                below = folder;
            }
        }
        let (means, left_out) = (Means::default(), Mutex::default());
        Writer { root, plan, inputs, form, means, left_out, held }
    }

    pub(super) fn write(self) -> Result<Vec<LayerPath>, FolderError> {
        // Level by level: a tree of any depth takes no more of the stack than a flat one.
        let root = LayerPath::root();
        let mut level = vec![&root];
        while !level.is_empty() {
            let below = level.par_iter().map(|path| self.fill(path)).collect::<Result<Vec<_>, _>>()?;
            level = below.into_iter().flatten().collect();
        }
        for (path, node) in &self.plan.layer.entries {
            if let Some(first) = &node.hardlink {
                self.link(path, first)?;
            }
        }
        // From the end, so that a folder that nobody may search is closed after those in it.
        for (path, node) in self.plan.layer.entries.iter().rev() {
            if node.is_directory() && !(path.is_root() && self.form == Form::Export) {
                self.finish_folder(path, node)?;
            }
        }
        let mut left_out = self.left_out.into_inner().unwrap_or_default();
        left_out.sort();
        Ok(left_out)
    }

    /// Puts into a folder that exists what it holds, hard links apart. Gives the folders in it.
    fn fill(&self, path: &LayerPath) -> Result<Vec<&LayerPath>, FolderError> {
        let Some(held) = self.held.get(path) else { return Ok(Vec::new()) };
        let folder = beneath::open_folder(self.root.as_fd(), path).map_err(failed("open", path))?;
        let is_folder = |path: &LayerPath| self.plan.layer.get(path).is_none_or(Node::is_directory);
        let (folders, others): (Vec<&LayerPath>, Vec<&LayerPath>) =
            held.iter().partition(|path| is_folder(path));
        for path in &folders {
            self.make_folder(&folder, path)?;
        }
        others.par_iter().with_min_len(4).try_for_each(|path| self.make(&folder, path))?;
        Ok(folders)
    }

    /// Makes a folder that only we can use, until [`Writer::finish_folder`] gives it its attributes.
    fn make_folder(&self, folder: &OwnedFd, path: &LayerPath) -> Result<(), FolderError> {
        // One that the plan does not name keeps this mode.
        let mode = if self.plan.layer.get(path).is_some() { 0o700 } else { 0o755 };
        let make = || mkdirat(folder, path.name(), Mode::from_raw_mode(mode));
        match make() {
            Err(Errno::EXIST) if self.form.is_onto() => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let hides = |node: &Node| node.kind == Kind::Directory { opaque: true };
                if !self.plan.layer.get(path).is_some_and(hides)
                    && openat(folder, path.name(), flags, Mode::empty()).is_ok()
                {
                    return Ok(());
                }
                remove_in(folder, path.name()).map_err(failed("unlinkat", path))?;
                make().map_err(failed("mkdirat", path))
            }
            other => other.map_err(failed("mkdirat", path)),
        }
    }

    fn make(&self, folder: &OwnedFd, path: &LayerPath) -> Result<(), FolderError> {
        let Some(node) = self.plan.layer.get(path) else { return Ok(()) };
        if self.form.is_onto() {
            remove_in(folder, path.name()).map_err(failed("unlinkat", path))?;
        }
        match &node.kind {
            _ if node.hardlink.is_some() => Ok(()),
            Kind::File { .. } => self.make_file(folder, path, node),
            _ => self.make_other(folder, path, node),
        }
    }

    fn make_file(&self, folder: &OwnedFd, path: &LayerPath, node: &Node) -> Result<(), FolderError> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file =
            openat(folder, path.name(), flags, Mode::RUSR | Mode::WUSR).map_err(failed("openat", path))?;
        self.pour(&file, path, node)?;
        if self.owns() {
            let (uid, gid) = owner(node, self.ownership());
            fchown(&file, uid, gid).map_err(failed("fchown", path))?;
        }
        // After the owner, as chown takes set-id bits and capabilities away.
        fchmod(&file, Mode::from_raw_mode(node.mode)).map_err(failed("fchmod", path))?;
        for (name, value) in own_xattrs(node) {
            accept_xattr(fsetxattr(&file, name, value, XattrFlags::empty()))
                .map_err(failed("fsetxattr", path))?;
        }
        futimens(&file, &times(node.mtime)).map_err(failed("futimens", path))
    }

    /// Fills a file with its bytes.
    fn pour(&self, file: &OwnedFd, path: &LayerPath, node: &Node) -> Result<(), FolderError> {
        let Kind::File { size, content } = &node.kind else { return Ok(()) };
        let no_content = || FolderError::NoContent { path: path.clone() };
        let (input, layer, from) = match self.plan.contents.get(path) {
            Some(ContentSource::Inline(data)) => {
                return write_all(file, 0, &data).map_err(|fault| fault_of(fault, path, path));
            }
            Some(ContentSource::File { input, layer, path }) => (input, layer, path),
            None if *size == 0 => return Ok(()),
            None => return Err(no_content()),
        };
        let source = self.inputs.get(input).and_then(|layers| layers.get(layer)).ok_or_else(no_content)?;
        // A context's socket is an empty file in the manifest, and cannot be opened.
        if *size == 0 {
            return Ok(());
        }
        let opened = match source.open(&from) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ISDIR) if source.verify => {
                return Err(FolderError::Changed { path: from.clone() });
            }
            other => {
                other.map_err(|errno| FolderError::Source { path: from.clone(), source: errno.into() })?
            }
        };
        let copy = |verify| {
            self.means.copy(&opened, file, *size, verify).map_err(|fault| fault_of(fault, path, &from))
        };
        match source.key(&opened, content) {
            _ if !source.verify => copy(None),
            None => copy(Some(content)),
            Some(key) => {
                copy(None)?;
                let still = StatKey::of_file(&opened) == Ok(key);
                still.then_some(()).ok_or_else(|| FolderError::Changed { path: from.clone() })
            }
        }
    }

    fn make_other(&self, folder: &OwnedFd, path: &LayerPath, node: &Node) -> Result<(), FolderError> {
        let name = path.name();
        let mode = Mode::from_raw_mode(node.mode);
        let make = |kind, device| mknodat(folder, name, kind, Mode::RUSR | Mode::WUSR, device);
        let placeholder = self.form.ownership().is_some_and(|ownership| !ownership.makes_devices());
        let made = match &node.kind {
            Kind::Symlink { target } => symlinkat(&target[..], folder, name),
            // Even a user namespace may make this device.
            Kind::Whiteout if !self.form.has_whiteouts() => return Ok(()),
            Kind::Whiteout => {
                return mknodat(folder, name, FileType::CharacterDevice, Mode::empty(), makedev(0, 0))
                    .map_err(failed("mknodat", path));
            }
            Kind::CharDevice { .. } | Kind::BlockDevice { .. } if placeholder => {
                make(FileType::RegularFile, 0)
            }
            Kind::CharDevice { major, minor } => make(FileType::CharacterDevice, makedev(*major, *minor)),
            Kind::BlockDevice { major, minor } => make(FileType::BlockDevice, makedev(*major, *minor)),
            Kind::Fifo => make(FileType::Fifo, 0),
            Kind::Directory { .. } | Kind::File { .. } => return Ok(()),
        };
        let is_device = matches!(node.kind, Kind::CharDevice { .. } | Kind::BlockDevice { .. });
        match made {
            Err(Errno::PERM) if is_device && self.form == Form::Export => {
                if let Ok(mut left_out) = self.left_out.lock() {
                    left_out.push(path.clone());
                }
                return Ok(());
            }
            other => other.map_err(failed("mknodat", path))?,
        }
        if self.owns() {
            let (uid, gid) = owner(node, self.ownership());
            let owned = chownat(folder, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW);
            owned.map_err(failed("fchownat", path))?;
        }
        if !matches!(node.kind, Kind::Symlink { .. }) {
            // It was made just now and is no link.
            chmodat(folder, name, mode, AtFlags::empty()).map_err(failed("fchmodat", path))?;
        }
        if let Some(device) = stands_for(node).filter(|_| placeholder) {
            let set = Attributes::of(folder, name)
                .and_then(|attributes| attributes.set(STANDS_FOR.as_bytes(), device.as_bytes()));
            accept_xattr(set).map_err(failed("lsetxattr", path))?;
        }
        for (attribute, value) in own_xattrs(node) {
            let set = Attributes::of(folder, name).and_then(|attributes| attributes.set(attribute, value));
            accept_xattr(set).map_err(failed("lsetxattr", path))?;
        }
        utimensat(folder, name, &times(node.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed("utimensat", path))
    }

    /// Gives a file one more name.
    fn link(&self, path: &LayerPath, first: &LayerPath) -> Result<(), FolderError> {
        let parent = |path: &LayerPath| {
            let folder = path.parent().unwrap_or_default();
            beneath::open_folder(self.root.as_fd(), &folder).map_err(failed("open", &folder))
        };
        match linkat(parent(first)?, first.name(), parent(path)?, path.name(), AtFlags::empty()) {
            // A device that could not be made has no other names either.
            Err(Errno::NOENT) if self.left_out.lock().is_ok_and(|left_out| left_out.contains(first)) => {
                if let Ok(mut left_out) = self.left_out.lock() {
                    left_out.push(path.clone());
                }
                Ok(())
            }
            other => other.map_err(failed("linkat", path)),
        }
    }

    /// Gives a folder its owner, mode, attributes and time.
    fn finish_folder(&self, path: &LayerPath, node: &Node) -> Result<(), FolderError> {
        let folder = beneath::open_folder(self.root.as_fd(), path).map_err(failed("open", path))?;
        if self.owns() {
            let (uid, gid) = owner(node, self.ownership());
            fchown(&folder, uid, gid).map_err(failed("fchown", path))?;
        }
        for (name, value) in own_xattrs(node) {
            accept_xattr(fsetxattr(&folder, name, value, XattrFlags::empty()))
                .map_err(failed("fsetxattr", path))?;
        }
        if let (Kind::Directory { opaque: true }, Form::Upper { overlay, .. }) = (&node.kind, self.form)
            && let Some(mark) = overlay.opaque()
        {
            fsetxattr(&folder, mark, b"y", XattrFlags::empty()).map_err(failed("fsetxattr", path))?;
        }
        futimens(&folder, &times(node.mtime)).map_err(failed("futimens", path))?;
        // Last: it may take our own right to search the folder away.
        fchmod(&folder, Mode::from_raw_mode(node.mode)).map_err(failed("fchmod", path))
    }

    fn owns(&self) -> bool {
        self.ownership().chowns()
    }

    /// What is put on disk; of an export, nothing that not everybody may.
    fn ownership(&self) -> Ownership {
        self.form.ownership().unwrap_or(Ownership::Recorded)
    }
}

/// Says of a file that was not copied which of the two it was: `to`, or what it was copied `from`.
fn fault_of(fault: Fault, to: &LayerPath, from: &LayerPath) -> FolderError {
    match fault {
        Fault::Changed => FolderError::Changed { path: from.clone() },
        Fault::Call(call, errno) => failed(call, to)(errno),
    }
}
