//! One entry of a layer.

use oci::Digest;

use crate::{LayerPath, Xattrs};

/// A file's modification time: seconds and nanoseconds since 1970, the seconds negative before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mtime {
    /// Seconds since 1970-01-01 UTC.
    pub seconds: i64,
    /// 0 to 999,999,999, counted forward from `seconds`.
    pub nanoseconds: u32,
}

/// What a path is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A folder. An opaque one hides what lower layers hold below it.
    Directory {
        /// Whether lower layers' entries below it are hidden.
        opaque: bool,
    },
    /// A regular file.
    File {
        /// Length in bytes.
        size: u64,
        /// SHA-256 of the bytes.
        content: Digest,
    },
    /// A symbolic link.
    Symlink {
        /// The target, as it stands in the link.
        target: Vec<u8>,
    },
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// Says that the path, and all below it, is gone from lower layers (image-spec, layer.md § Whiteouts).
    /// Mode, owner, mtime and xattrs of such a node are zero and empty.
    Whiteout,
}

/// What a layer says of one path.
///
/// There is no field for inode, access time, user name or host path, so none can leak into a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Permission, set-id and sticky bits: 0 to 0o7777. Symlinks have 0o777.
    pub mode: u32,
    /// Owner inside the image.
    pub uid: u32,
    /// Group inside the image.
    pub gid: u32,
    /// Last modification.
    pub mtime: Mtime,
    /// Extended attributes by full name; never overlayfs's own.
    pub xattrs: Xattrs,
    /// For all names of one inode but the first in path order: that first name, in the same layer. The
    /// other fields are those of the first name.
    pub hardlink: Option<LayerPath>,
}

impl Node {
    /// A folder owned by root, with mtime 0.
    pub fn directory(mode: u32) -> Node {
        Node::new(Kind::Directory { opaque: false }, mode)
    }

    /// A node owned by root, with mtime 0 and nothing else.
    pub fn new(kind: Kind, mode: u32) -> Node {
        Node {
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: Mtime::default(),
            xattrs: Xattrs::default(),
            hardlink: None,
        }
    }

    /// A whiteout.
    pub fn whiteout() -> Node {
        Node::new(Kind::Whiteout, 0)
    }

    /// Whether it is a folder.
    pub fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory { .. })
    }
}
