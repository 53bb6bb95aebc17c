//! One member of an archive, as it was read.

use std::collections::BTreeMap;

use tree::Mtime;

/// A member: its header, after GNU's and PAX's extensions were applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name as it stands in the archive: not cleaned, perhaps hostile. Parse it with `LayerPath::parse`.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Permission, set-id and sticky bits: 0 to 0o7777. Type bits, which old archivers set as well, are dropped.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last modification.
    pub mtime: Mtime,
    /// `SCHILY.xattr.*` records by attribute name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A folder.
    Directory,
    /// A regular file.
    File {
        /// Length in bytes, holes included.
        size: u64,
    },
    /// One more name of an earlier member.
    HardLink {
        /// The earlier member's name, as it stands in the archive.
        target: Vec<u8>,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points.
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
}
