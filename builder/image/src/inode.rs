//! A node's attributes as system calls take them.

use rustix::{
    fs::{Gid, Timespec, Timestamps, UTIME_OMIT, Uid},
    io::Errno,
};
use tree::{Kind, Mtime, Node};

use crate::{overlay::is_overlay_xattr, ownership::Ownership};

/// The largest id that a range of sub-ids is sure to have.
pub const LARGEST_MAPPED: u32 = 65_535;
/// Stands for those above, as the kernel has it where it cannot show an id: `nobody` and `nogroup`.
pub const UNMAPPED: u32 = 65_534;

/// Says of an empty file which device it stands for, where none can be made: `UID:GID:cMAJOR:MINOR`, or `b` for a block device. It
/// goes where the file goes, so that a step can rename it. Steps write it too, by the sandbox, which says what else it may hold.
pub const STANDS_FOR: &str = "user.kiln.owner";

/// The value of [`STANDS_FOR`]; none for what is no device.
pub fn stands_for(node: &Node) -> Option<String> {
    let (kind, major, minor) = match node.kind {
        Kind::CharDevice { major, minor } => ('c', major, minor),
        Kind::BlockDevice { major, minor } => ('b', major, minor),
        _ => return None,
    };
    Some(format!("{}:{}:{kind}{major}:{minor}", node.uid, node.gid))
}

/// Its owner and group, to be set.
pub(crate) fn owner(node: &Node, ownership: Ownership) -> (Option<Uid>, Option<Gid>) {
    let on_disk = |id| if ownership == Ownership::Mapped && id > LARGEST_MAPPED { UNMAPPED } else { id };
    (Some(Uid::from_raw(on_disk(node.uid))), Some(Gid::from_raw(on_disk(node.gid))))
}

/// Its modification time; the time of access stays as it is.
pub(crate) fn times(mtime: Mtime) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds.into() },
    }
}

/// Its extended attributes without overlayfs's own and ours, which no manifest may set.
pub(crate) fn own_xattrs(node: &Node) -> impl Iterator<Item = (&[u8], &[u8])> {
    let own =
        node.xattrs.iter().filter(|(name, _)| !is_overlay_xattr(name) && name[..] != *STANDS_FOR.as_bytes());
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
