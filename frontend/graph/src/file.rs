//! `COPY`, `ADD`, `WORKDIR` and heredocs: changes to a tree that need no process.

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

/// A mode as `chmod(1)` takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chmod {
    /// 0 to 0o7777.
    Octal(u32),
    /// `u=rwX,go=rX`; the umask counts as 0.
    Symbolic(Vec<ChmodClause>),
}

/// One clause of a symbolic mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChmodClause {
    /// The letters before the operator, of `u`, `g`, `o`, `a`; empty is `a`.
    pub who: String,
    /// The operator.
    pub operator: ChmodOperator,
    /// The letters after it, of `r`, `w`, `x`, `X`, `s`, `t`, `u`, `g`, `o`.
    pub permissions: String,
}

/// What a clause does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChmodOperator {
    /// `+`
    Add,
    /// `-`
    Remove,
    /// `=`
    Set,
}

impl Chmod {
    /// The mode (0 to 0o7777) of a file or folder that had `mode`.
    pub fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        match self {
            Chmod::Octal(mode) => *mode,
            Chmod::Symbolic(clauses) => {
                clauses.iter().fold(mode, |mode, clause| clause.apply(mode, is_directory))
            }
        }
    }
}

impl ChmodClause {
    fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        let all = self.who.is_empty() || self.who.contains('a');
        let (user, group, other) =
            (all || self.who.contains('u'), all || self.who.contains('g'), all || self.who.contains('o'));
        let mut triple = 0;
        let mut special = 0;
        for letter in self.permissions.chars() {
            match letter {
                'r' => triple |= 4,
                'w' => triple |= 2,
                'x' => triple |= 1,
                'X' if is_directory || mode & 0o111 != 0 => triple |= 1,
                's' => special |= if user { 0o4000 } else { 0 } | if group { 0o2000 } else { 0 },
                't' if all || other => special |= 0o1000,
                'u' => triple |= mode >> 6 & 7,
                'g' => triple |= mode >> 3 & 7,
                'o' => triple |= mode & 7,
                _ => {}
            }
        }
        let spread = |on: bool, shift: u32, bits: u32| if on { bits << shift } else { 0 };
        let bits = spread(user, 6, triple) | spread(group, 3, triple) | spread(other, 0, triple) | special;
        match self.operator {
            ChmodOperator::Add => mode | bits,
            ChmodOperator::Remove => mode & !bits,
            ChmodOperator::Set => {
                let cleared = spread(user, 6, 7) | spread(group, 3, 7) | spread(other, 0, 7);
                let cleared_special = if user { 0o4000 } else { 0 }
                    | if group { 0o2000 } else { 0 }
                    | if all { 0o1000 } else { 0 };
                mode & !cleared & !cleared_special | bits
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbolic_modes_are_applied_clause_by_clause() {
        let clause = |who: &str, operator, permissions: &str| ChmodClause {
            who: who.to_owned(),
            operator,
            permissions: permissions.to_owned(),
        };
        use ChmodOperator::{Add, Remove, Set};
        for (clauses, before, directory, after) in [
            (vec![clause("u", Set, "rwX"), clause("go", Set, "rX")], 0o600, false, 0o644),
            (vec![clause("u", Set, "rwX"), clause("go", Set, "rX")], 0o700, true, 0o755),
            (vec![clause("", Add, "x")], 0o644, false, 0o755),
            (vec![clause("a", Remove, "w")], 0o666, false, 0o444),
            (vec![clause("u", Add, "s")], 0o755, false, 0o4755),
            (vec![clause("g", Set, "u")], 0o740, false, 0o770),
            (vec![clause("", Add, "t")], 0o755, true, 0o1755),
        ] {
            assert_eq!(Chmod::Symbolic(clauses.clone()).apply(before, directory), after, "{clauses:?}");
        }
    }
}
