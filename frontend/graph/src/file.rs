//! `COPY`, `ADD`, `WORKDIR` and heredocs: changes to a tree that need no process.

use crate::Chmod;

/// Actions on trees, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileOp {
    /// The actions. The result of the last one is the vertex's output 0.
    pub actions: Vec<FileAction>,
}

/// A tree that an action works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActionInput {
    /// An empty tree.
    Scratch,
    /// One of the vertex's inputs.
    Input(usize),
    /// The result of an earlier action of the same operation.
    Action(usize),
}

/// One change to the tree `on`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileAction {
    /// Copies from another tree.
    Copy {
        /// The tree that is changed.
        on: ActionInput,
        /// The tree that is copied from.
        from: ActionInput,
        /// What, where and how.
        copy: Box<Copy>,
    },
    /// Makes a folder.
    MakeDirectory {
        /// The tree that is changed.
        on: ActionInput,
        /// Absolute path.
        path: String,
        /// Mode.
        mode: u32,
        /// Whether folders above are made as well, and an existing folder is left as it is.
        make_parents: bool,
        /// Owner; root where none is given.
        owner: Option<Owner>,
    },
    /// Writes a file.
    MakeFile {
        /// The tree that is changed.
        on: ActionInput,
        /// Absolute path.
        path: String,
        /// Mode.
        mode: u32,
        /// The bytes.
        data: Vec<u8>,
        /// Owner; root where none is given.
        owner: Option<Owner>,
    },
    /// Removes a path.
    Remove {
        /// The tree that is changed.
        on: ActionInput,
        /// Absolute path.
        path: String,
        /// Whether a missing path is no error.
        allow_missing: bool,
        /// Whether `*`, `?` and `[` are wildcards.
        wildcard: bool,
    },
    /// Makes a symbolic link.
    Symlink {
        /// The tree that is changed.
        on: ActionInput,
        /// Where the link points.
        target: String,
        /// Absolute path of the link.
        path: String,
        /// Owner; root where none is given.
        owner: Option<Owner>,
    },
}

/// A copy of one source pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Absolute path or pattern in the tree that is copied from.
    pub source: String,
    /// Absolute path in the tree that is changed; a trailing slash says that it is a folder.
    pub destination: String,
    /// New owner; where none is given, a context's files belong to root and others keep theirs.
    pub owner: Option<Owner>,
    /// New mode.
    pub chmod: Option<Chmod>,
    /// Whether a source that is a symbolic link is followed.
    pub follow_symlink: bool,
    /// Whether a folder's contents are copied, not the folder itself.
    pub contents_only: bool,
    /// Whether an archive is unpacked: `Some(true)` must be one, `None` if it is one, `Some(false)` never.
    pub unpack: Option<bool>,
    /// Whether missing folders on the way to the destination are made.
    pub create_destination: bool,
    /// Whether `*`, `?` and `[` are wildcards.
    pub wildcard: bool,
    /// Whether a wildcard without a match is no error.
    pub allow_empty_wildcard: bool,
    /// `--parents`: the source's folders are kept, from the `/./` pivot on.
    pub parents: bool,
    /// Patterns (as in `.dockerignore`) of what is left out, relative to the source.
    pub exclude: Vec<String>,
}

/// An owner, by id or by a name that a passwd file resolves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub user: OwnerName,
    /// The group; where none is given, the user's id (of a number) or its group in the passwd file (of a name).
    pub group: Option<OwnerName>,
}

/// A user or group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnerName {
    /// A number.
    Id(u32),
    /// A name, looked up in `/etc/passwd` or `/etc/group` of this tree.
    Name {
        /// The name.
        name: String,
        /// The tree.
        of: ActionInput,
    },
}
