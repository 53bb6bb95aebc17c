//! Whose a file seems to be, and what is done to make it so.
//!
//! | The file | Its owner |
//! |---|---|
//! | has a record | says the record |
//! | is the layers' below, or a copy that overlayfs made of such a one | says [`Owners`]; in a root that is one folder, the table of [`Records`] |
//! | is of a mount | say the layers that are mounted, or who asked for the mount |
//! | was made by the step | the one of its inode: root |

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, ResolveFlags, Statx, Uid, chownat, openat2, statx};
use rustix::io::Errno;

use super::record::{self, ATTRIBUTE, INODE, Owner, Records};
use super::suspects::Suspects;
use super::view::{File, View};

/// What the layers below a step say of their files. Asked by the thread that answers the step's calls, whose root is the step's:
/// it opens no file by its path.
pub trait Owners: Send + Sync + fmt::Debug {
    /// Whose the file at a path is: below the root, without a slash at either end, links not followed. None where there is none.
    fn of(&self, path: &[u8]) -> Option<Below>;

    /// Those that are not root's, or devices; so many that they are better asked for one by one are none.
    fn foreign(&self) -> Option<Vec<(Vec<u8>, Below)>>;

    /// Whether every file of theirs is root's and none a device, so that no path needs to be asked for.
    fn are_all_root(&self) -> bool {
        false
    }
}

/// Nothing is below.
impl Owners for () {
    fn of(&self, _path: &[u8]) -> Option<Below> {
        None
    }

    fn foreign(&self) -> Option<Vec<(Vec<u8>, Below)>> {
        Some(Vec::new())
    }

    fn are_all_root(&self) -> bool {
        true
    }
}

/// A file of the layers below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Below {
    /// Whose it is.
    pub owner: Owner,
    /// When it was changed, in seconds and nanoseconds: tells a copy of it from another file.
    pub modified: (i64, u32),
}

/// Whose the files of a mount are that have no record.
#[derive(Clone, Debug)]
pub enum Mounted {
    /// What is mounted is this one's; what is in it is root's.
    One(Owner),
    /// Layers say it.
    Layers {
        /// The layers.
        owners: Arc<dyn Owners>,
        /// Which path of theirs is mounted: without a slash at either end, empty for all.
        from: Vec<u8>,
    },
}

/// Where an owner is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    Record,
    Below,
    Inode,
}

/// Who knows the owners of the step's files.
pub(crate) struct Ledger {
    pub owners: Arc<dyn Owners>,
    pub records: Arc<Records>,
    /// What the step writes, where its root is an overlay.
    pub upper: Option<OwnedFd>,
    pub mounts: Vec<Mount>,
    pub suspects: Suspects,
}

/// A mount in the step's root.
pub(crate) struct Mount {
    id: u64,
    /// Its path, without the slash at the beginning.
    at: Vec<u8>,
    mounted: Mounted,
}

impl Ledger {
    /// Learns which files are to be looked at closely, and which mounts these are.
    pub fn begin(&mut self, view: &View, mounts: BTreeMap<PathBuf, Mounted>) {
        self.suspects = Suspects::of(view, &*self.owners, &self.records);
        for (target, mounted) in mounts {
            let Some(file) = view.at(&target) else { continue };
            let Some(at) = view.path(&file) else { continue };
            self.mounts.push(Mount { id: file.found.stx_mnt_id, at, mounted });
        }
    }

    /// Whether somebody says whose the files of a mount are.
    fn is_told(&self, mount: u64) -> bool {
        self.mounts.iter().any(|told| told.id == mount)
    }

    /// Whether a file of which this was found is root's, and no device: without a look at its record. No is not certain.
    pub fn is_surely_roots(&self, view: &View, found: &Statx) -> bool {
        let mount = found.stx_mnt_id;
        if mount == view.mount {
            return !self.suspects.has(found, self.records.has_others());
        }
        !self.is_told(mount) && !self.suspects.has_elsewhere(found)
    }

    /// Whose a file is.
    pub fn owner(&self, view: &View, file: &File) -> (Owner, From) {
        if file.is_plain()
            && let Ok(Some(owner)) = record::value(|value| file.attribute(ATTRIBUTE, value))
        {
            return (owner, From::Record);
        }
        if self.records.has_others()
            && let Some(owner) = self.records.other(&self.inode(view, file))
        {
            return (owner, From::Record);
        }
        match self.below(view, file) {
            Some(owner) => (owner, From::Below),
            None => {
                let (uid, gid) = (file.found.stx_uid, file.found.stx_gid);
                (Owner { uid, gid, device: None }, From::Inode)
            }
        }
    }

    /// Whose a file is by what the layers below say, or its mount; none where that is what its inode says.
    fn below(&self, view: &View, file: &File) -> Option<Owner> {
        if file.found.stx_mnt_id == view.mount {
            if self.owners.are_all_root() {
                return None;
            }
            let path = view.path_in_root(file)?;
            let below = self.owners.of(&path).filter(|below| below.owner != Owner::ROOT)?;
            return (!self.is_new(&path, &below)).then_some(below.owner);
        }
        let Mount { at, mounted, .. } = self.mounts.iter().find(|mount| mount.id == file.found.stx_mnt_id)?;
        let path = view.path(file)?;
        let inside = path.strip_prefix(at.as_slice())?;
        let inside = inside.strip_prefix(b"/").unwrap_or(inside);
        match mounted {
            Mounted::One(owner) => inside.is_empty().then_some(*owner),
            Mounted::Layers { owners, from } => {
                let slash: &[u8] = if from.is_empty() || inside.is_empty() { b"" } else { b"/" };
                let below = owners.of(&[from, slash, inside].concat())?;
                // What was opened for writing has a record, see [`Ledger::pin`].
                record::is_copy(&file.found, &below, |_, _| Err(Errno::NODATA)).then_some(below.owner)
            }
        }
    }

    /// Writes down whose a file is.
    pub fn record(&self, view: &View, file: &File, owner: Owner) -> Result<(), Errno> {
        if file.is_plain() {
            let value = owner.encode();
            match file.set_attribute(ATTRIBUTE, value.as_bytes()) {
                Err(Errno::OPNOTSUPP | Errno::PERM) => {}
                other => {
                    self.suspects.add(&file.found);
                    // A file of the layers below that has several names is another one when it has been copied up.
                    if file.found.stx_nlink > 1
                        && let Ok(found) = statx(&file.fd, c"", AtFlags::EMPTY_PATH, INODE)
                    {
                        self.suspects.add(&found);
                    }
                    return other;
                }
            }
        }
        self.suspects.add(&file.found);
        self.records.set_other(&self.inode(view, file), owner);
        Ok(())
    }

    /// Writes down what the layers below say, before the file gets another name or content.
    pub fn pin(&self, view: &View, file: &File) {
        if self.upper.is_none() && file.found.stx_mnt_id == view.mount {
            self.records.hold(&file.found);
            return;
        }
        // What is asked first is what most often says no.
        if self.below(view, file).is_none() {
            return;
        }
        if let (owner, From::Below) = self.owner(view, file) {
            if !file.is_plain() {
                // So that it is of the upper folder, where its inode stays the same.
                let _copied = own(file);
            }
            // Where it cannot be written, it can neither be renamed nor opened for writing.
            let _written = self.record(view, file, owner);
        }
    }

    /// Writes down whose a file is, root's too, before it gets a name by which it would be taken for a copy of one of the layers
    /// below.
    pub fn pin_firmly(&self, view: &View, file: &File) {
        let (owner, from) = self.owner(view, file);
        if file.found.stx_mnt_id != view.mount || from == From::Record {
            return;
        }
        if !file.is_plain() {
            // As in [`Ledger::pin`].
            let _copied = own(file);
        }
        let _written = self.record(view, file, owner);
    }

    /// Whether the layers below have a file of this name in a folder that is not root's: what comes there would be taken for its
    /// copy.
    pub fn is_taken(&self, view: &View, folder: &File, name: &[u8]) -> bool {
        let Some(above) = view.path_in_root(folder) else { return false };
        let path = if above.is_empty() { name.to_vec() } else { [&above[..], b"/", name].concat() };
        self.owners.of(&path).is_some_and(|below| below.owner != Owner::ROOT)
    }

    /// As [`Ledger::pin`], before the file gets one more name.
    pub fn pin_linked(&self, view: &View, file: &File) {
        let is_copied = self.upper.is_none() || file.found.stx_mnt_id != view.mount;
        if is_copied || !file.is_plain() {
            return self.pin(view, file);
        }
        let (owner, _) = self.owner(view, file);
        // Written also where it is there, so that the file is copied up. Where it cannot be, there is no more name either.
        if owner != Owner::ROOT && self.record(view, file, owner).is_ok() {
            self.suspects.add_linked(&file.found, &self.inode(view, file));
        }
    }

    /// What tells the inode: that of the upper folder, for overlayfs shows another one after it has copied a file up.
    fn inode(&self, view: &View, file: &File) -> Statx {
        let in_upper = || {
            let upper = self.upper.as_ref()?;
            let path = view.path_in_root(file)?;
            Some(File::of(in_upper(upper, &path)?).ok()?.found)
        };
        in_upper().unwrap_or(file.found)
    }

    /// Whether the step made the file where the layers below have one of the same name.
    fn is_new(&self, path: &[u8], below: &Below) -> bool {
        // In a root that is one folder they have been noted.
        let Some(upper) = &self.upper else { return true };
        let Some(copy) = in_upper(upper, path).and_then(|copy| File::of(copy).ok()) else { return false };
        let read = |attribute: &CStr, value: &mut [u8]| copy.attribute(attribute, value);
        is_below_opaque(upper, path) || !record::is_copy(&copy.found, below, read)
    }
}

/// Whether nothing of the layers below is seen in the folder, or in one of those above.
fn is_below_opaque(upper: &OwnedFd, path: &[u8]) -> bool {
    let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| end);
    ends.chain([path.len()]).any(|end| {
        let folder = in_upper(upper, &path[..end]).and_then(|folder| File::of(folder).ok());
        folder.is_some_and(|folder| is_opaque(&folder))
    })
}

fn in_upper(upper: &OwnedFd, path: &[u8]) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let path = if path.is_empty() { b"." } else { path };
    openat2(upper, path, flags, Mode::empty(), resolve).ok()
}

/// Whether overlayfs has marked a folder of an upper folder as one that hides what is below.
fn is_opaque(folder: &File) -> bool {
    [c"trusted.overlay.opaque", c"user.overlay.opaque"].into_iter().any(|attribute| {
        let mut value = [0_u8; 2];
        let length = folder.attribute(attribute, &mut value);
        length.is_ok_and(|length| value.get(..length) == Some(b"y"))
    })
}

/// `chown` to root, which is what an inode has: it takes set-id bits and capabilities away, and copies a file up.
pub(crate) fn own(file: &File) -> Result<(), Errno> {
    chownat(file.fd.as_fd(), c"", Some(Uid::ROOT), Some(Gid::ROOT), AtFlags::EMPTY_PATH)
}
