//! What of a layer stands in the inodes of its folder. Whose files Kiln may make depends on the mode; what is not in an inode
//! is in the tree manifest all the same, and the layer is the same.

use std::{
    io,
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::fs::chown,
    },
    path::Path,
};

use image::{
    apply::{ApplyOptions, LARGEST_MAPPED, Limits, Ownership, UNMAPPED},
    diff::Owners,
    folder::Form,
    overlay::OverlayXattrs,
};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, lgetxattr, lsetxattr, makedev, mknodat};
use rustix::io::Errno;
use sandbox::{
    Ids, Snapshots,
    emulate::{ATTRIBUTE, Emulation, Records},
};
use tree::{Kind, LayerPath, Node, Stack};

use super::{Effects, owners};
use crate::error::Cause;

impl Effects {
    /// What may be put on disk.
    pub(crate) fn ownership(&self) -> Ownership {
        match self.mode.ids {
            Ids::Host => Ownership::Real,
            Ids::Mapped => Ownership::Mapped,
            Ids::Single => Ownership::Recorded,
        }
    }

    /// Where overlayfs, mounted by steps, has its marks; nowhere, where steps stand on copies and they cannot be made.
    pub(crate) fn overlay_xattrs(&self) -> OverlayXattrs {
        if self.mode.snapshots == Snapshots::Copy && !*self.marks.get_or_init(|| self.makes_marks()) {
            return OverlayXattrs::Nowhere;
        }
        self.usual_xattrs()
    }

    fn usual_xattrs(&self) -> OverlayXattrs {
        if self.mode.has_user_namespace() { OverlayXattrs::User } else { OverlayXattrs::Trusted }
    }

    /// Whether marks can be made here; where not, that is noted, so that nobody stacks these layers.
    fn makes_marks(&self) -> bool {
        if self.store.lacks_marks() {
            return false;
        }
        let tried = || -> Result<(), Cause> {
            let folder = self.lease.new_folder()?;
            let failed = |call| Cause::io(call, &folder);
            let whiteout = folder.join("gone");
            mknodat(CWD, &whiteout, FileType::CharacterDevice, Mode::empty(), makedev(0, 0))
                .map_err(|errno| failed("mknod")(errno.into()))?;
            let mark = self.usual_xattrs().opaque().unwrap_or_default();
            lsetxattr(&folder, mark, b"y", XattrFlags::empty())
                .map_err(|errno| failed("lsetxattr")(errno.into()))
        };
        // Where it cannot be noted either, nothing can be written here, and who writes next says why.
        tried().is_ok() || self.store.do_without_marks(&self.lease).is_err()
    }

    /// The form of a layer's folder in the state folder.
    pub(crate) fn upper_form(&self) -> Form {
        Form::Upper { overlay: self.overlay_xattrs(), ownership: self.ownership() }
    }

    /// How the archives of layers are unpacked.
    pub(crate) fn unpacking(&self, limits: Limits) -> ApplyOptions {
        let (ownership, overlay) = (self.ownership(), self.overlay_xattrs());
        ApplyOptions { limits, ownership, overlay, ..ApplyOptions::default() }
    }

    /// What stands in an inode for an owner.
    pub(crate) fn on_disk(&self, uid: u32, gid: u32) -> (u32, u32) {
        match self.mode.ids {
            Ids::Single => (0, 0),
            Ids::Host | Ids::Mapped => (uid, gid),
        }
    }

    /// Gives a file its owner, where that is put on disk.
    pub(crate) fn chown(&self, path: &Path, uid: u32, gid: u32) -> io::Result<()> {
        if self.mode.ids == Ids::Single {
            return Ok(());
        }
        chown(path, Some(uid), Some(gid))
    }
}

/// What layers hold that no inode can carry in a user namespace with sub-ids: owners beyond its range, and devices. Something
/// else stands for them in the layers' folders, and so in what overlayfs copies up from there, and for what a step made.
pub(crate) struct BeyondTheMap<'a> {
    below: &'a Stack,
    records: Option<&'a Records>,
}

impl Effects {
    /// What of these layers that is, and of a step on them which had this; none where there is nothing of the kind.
    pub(crate) fn beyond_the_map<'a>(
        &self,
        below: &'a Stack,
        emulation: Option<&'a Emulation>,
    ) -> Option<BeyondTheMap<'a>> {
        let records = emulation.map(|emulation| &*emulation.records);
        let is_beyond = |node: &Node| node.uid.max(node.gid) > LARGEST_MAPPED || is_device(node);
        let mut nodes = below.layers().iter().flat_map(|layer| layer.entries.values());
        let mut is_any = || records.is_some_and(Records::has_devices) || nodes.any(is_beyond);
        (self.mode.ids == Ids::Mapped && is_any()).then_some(BeyondTheMap { below, records })
    }
}

fn is_device(node: &Node) -> bool {
    matches!(node.kind, Kind::CharDevice { .. } | Kind::BlockDevice { .. })
}

/// Whether nothing in a folder can have a record, so that only its time tells what stands for a device.
fn has_no_records(folder: BorrowedFd<'_>) -> bool {
    let path = format!("/proc/self/fd/{}/.", folder.as_raw_fd());
    lgetxattr(path, ATTRIBUTE, &mut [0_u8; 0][..]) == Err(Errno::OPNOTSUPP)
}

impl Owners for BeyondTheMap<'_> {
    fn correct(
        &self,
        folder: BorrowedFd<'_>,
        path: &LayerPath,
        hidden: bool,
        node: &mut Node,
    ) -> io::Result<()> {
        if let (Kind::File { .. }, Some(records)) = (&node.kind, self.records)
            && let Some(device) = records.of(folder, path.name())?.and_then(|owner| owner.device)
        {
            node.kind = owners::kind(device);
        }
        let Some((_, before)) = self.below.lookup(path).filter(|_| !hidden) else { return Ok(()) };
        for (id, before) in [(&mut node.uid, before.uid), (&mut node.gid, before.gid)] {
            if *id == UNMAPPED && before > LARGEST_MAPPED {
                *id = before;
            }
        }
        // A copy has the time of what it was made of, as a new file may have that got it.
        let stands_for_it = matches!(node.kind, Kind::File { size: 0, .. })
            && node.mtime == before.mtime
            && is_device(before)
            && has_no_records(folder);
        if stands_for_it {
            node.kind = before.kind.clone();
        }
        Ok(())
    }
}
