//! A node's attributes as system calls take them.

use rustix::{
    fs::{Gid, Timespec, Timestamps, UTIME_OMIT, Uid},
    io::Errno,
};
use tree::{Mtime, Node};

use crate::overlay::is_overlay_xattr;

/// Its owner, to be set.
pub(crate) fn uid(node: &Node) -> Option<Uid> {
    Some(Uid::from_raw(node.uid))
}

/// Its group, to be set.
pub(crate) fn gid(node: &Node) -> Option<Gid> {
    Some(Gid::from_raw(node.gid))
}

/// Its modification time; the time of access stays as it is.
pub(crate) fn times(mtime: Mtime) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds.into() },
    }
}

/// Its extended attributes without overlayfs's own, which no manifest may set.
pub(crate) fn own_xattrs(node: &Node) -> impl Iterator<Item = (&[u8], &[u8])> {
    let own = node.xattrs.iter().filter(|(name, _)| !is_overlay_xattr(name));
    own.map(|(name, value)| (name.as_slice(), value.as_slice()))
}

/// Lets pass what the file system cannot hold or what may not be set, in a user namespace or on a special file: the
/// manifest has it.
pub(crate) fn accept_xattr(set: Result<(), Errno>) -> Result<(), Errno> {
    match set {
        Err(Errno::OPNOTSUPP | Errno::PERM) => Ok(()),
        other => other,
    }
}
