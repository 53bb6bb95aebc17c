//! `COPY`, `ADD` and the other file actions, planned from tree manifests alone.
//!
//! A [`Plan`] is so complete that writing it, as a folder or as an archive, leaves nothing to decide. It is
//! what BuildKit's file backend would have done to a mounted file system, worked out without one; where its
//! rules surprise, the function that follows them says so. One [`Planner`] takes all actions of one file op,
//! each seeing what those before it did.
//!
//! | File | Question |
//! |---|---|
//! | `target.rs` | what does the destination hold by now, and how is it changed? |
//! | `tree.rs` | what does copying one source make? |
//! | `unpack.rs` | what does unpacking an archive make? |
//! | `action.rs` | mkdir, mkfile, symlink, rm |
//! | `contents.rs` | where are the bytes of its files? |

mod action;
mod contents;
mod target;
#[cfg(test)]
mod tests;
mod tree;
mod unpack;

use std::collections::BTreeMap;

use ::tree::{
    BadPath, Layer, LayerPath, Mtime, ResolveError, Stack,
    glob::{BadPattern, Glob, Pattern, contains_wildcard},
};
pub use action::{Mkdir, Mkfile, Rm, Symlink};
pub use contents::{ContentSource, CopiedFolder, PlannedContents};
use target::Target;
pub use unpack::UnpackSpec;

/// What a file op makes: the layer's manifest, and where the bytes of its files are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The new layer, with all folders on the way to what changed.
    pub layer: Layer,
    /// For each file that is no hard link to another, where its bytes are.
    pub contents: PlannedContents,
}

/// What an action reads from.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// The file system.
    pub stack: &'a Stack,
    /// Its number, which [`ContentSource::File`] repeats.
    pub index: usize,
    /// If the stack's top layer was itself only planned, its plan: its contents are then taken from where it
    /// has them.
    pub planned: Option<&'a Plan>,
}

/// What to copy, and how.
pub struct CopySpec<'a> {
    /// From where, in order.
    pub sources: Vec<Source>,
    /// To where.
    pub destination: Destination,
    /// Owner of all that is made; else copies keep theirs and new folders are 0:0.
    pub chown: Option<(u32, u32)>,
    /// Mode of all that is made; else copies keep theirs and new folders have 0755.
    pub chmod: Option<Chmod<'a>>,
    /// Leaves out paths below a source folder, given relative to it. Must be true for all below an excluded
    /// folder that no exception brings back. Of the files that a wildcard matches it leaves out too, as Docker's
    /// documentation has it and BuildKit does not ([buildkit#5489](https://github.com/moby/buildkit/issues/5489)); a
    /// file that is named is never left out.
    pub exclude: Option<Exclude<'a>>,
    /// Modification time of the folders that have to be made.
    pub created: Mtime,
    /// If given, the modification time of all that is copied as well.
    pub timestamp: Option<Mtime>,
    /// Of a source that is a folder, copies what it holds and not itself. A Dockerfile always does.
    pub contents_only: bool,
    /// Makes the folders above the destination; without, they must be there. A Dockerfile always does.
    pub create_destination: bool,
    /// Lets a copy replace what has another type, where it is an error otherwise. A Dockerfile never does.
    pub replace: bool,
    /// Archives to unpack in place of a copy, by the resolved path of the source: see [`sources`].
    pub archives: BTreeMap<LayerPath, Archive<'a>>,
}

/// An archive that `ADD` unpacks, already read.
#[derive(Clone, Copy)]
pub struct Archive<'a> {
    /// What it holds.
    pub layer: &'a Layer,
    /// The input number under which its contents are found, in layer 0.
    pub index: usize,
}

/// One source of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The path as written, in the input.
    pub path: Vec<u8>,
    /// Whether `*`, `?` and `[…]` are wildcards.
    pub wildcard: bool,
    /// Whether a wildcard without a match is no error.
    pub allow_no_match: bool,
    /// Whether a link at the path's own end is followed.
    pub follow_links: bool,
    /// If any, copies of a folder only what one of these matches, and the folders above that.
    pub include: Vec<Pattern>,
    /// A path that must exist.
    pub required: Option<LayerPath>,
}

impl Source {
    /// A source of `COPY` or `ADD`.
    pub fn new(path: &[u8]) -> Source {
        Source {
            path: path.to_vec(),
            wildcard: true,
            allow_no_match: true,
            follow_links: true,
            include: Vec::new(),
            required: None,
        }
    }

    /// A source of `COPY --parents`: what is before `/./` is where to look, what is after it is both what to
    /// copy and where to put it. It must exist if it has no wildcard.
    ///
    /// # Errors
    /// [`BadPattern`] where the part after the pivot is none.
    pub fn with_parents(text: &[u8]) -> Result<Source, BadPattern> {
        let pivot = text.windows(3).position(|part| part == b"/./");
        let (folder, pattern) = match pivot {
            Some(at) => (&text[..at], &text[at + 3..]),
            None => (&b"/"[..], text),
        };
        let mut source = Source::new(folder);
        source.include.push(Pattern::parse(pattern)?);
        if !contains_wildcard(folder) && !contains_wildcard(pattern) {
            source.required = LayerPath::clamp(&[folder, b"/", pattern].concat()).ok();
        }
        Ok(source)
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.path).into_owned()
    }
}

/// Where a copy goes: an absolute path, and whether its text says that it is a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The path.
    pub path: LayerPath,
    /// Whether the text ended in `/` or `/.`.
    pub folder: bool,
}

impl Destination {
    /// Reads a destination that was already joined with the working directory.
    ///
    /// # Errors
    /// [`BadPath`] where the kernel would not take it.
    pub fn parse(text: &[u8]) -> Result<Destination, BadPath> {
        let name = text.rsplit(|b| *b == b'/').next().unwrap_or_default();
        Ok(Destination { path: LayerPath::clamp(text)?, folder: matches!(name, b"" | b"." | b"..") })
    }
}

/// A `--chmod`.
#[derive(Clone, Copy)]
pub enum Chmod<'a> {
    /// By number, which new folders get too, without their set-id and sticky bits.
    Octal(u32),
    /// By words: from the old mode, and whether it is a folder's, the new. New folders have 0755.
    Symbolic(&'a dyn Fn(u32, bool) -> u32),
}

/// A file op that cannot be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    /// There is nothing at the source. Whether an ignore file took it away, the caller knows.
    #[error("`{source_text}` does not exist: nothing is at `{path}`")]
    SourceNotFound {
        /// The source as written.
        source_text: String,
        /// Where it was looked for.
        path: LayerPath,
    },
    /// A wildcard without a match, where that matters.
    #[error("nothing matches `{source_text}`")]
    NoMatch {
        /// The source as written.
        source_text: String,
    },
    /// A wildcard that Go's `filepath.Match` does not take.
    #[error(transparent)]
    Pattern(#[from] BadPattern),
    /// A folder would be needed where something else is.
    #[error("`{path}` is no folder")]
    NotAFolder {
        /// What is in the way.
        path: LayerPath,
    },
    /// A folder cannot be copied onto something else.
    #[error("a folder cannot be copied onto `{path}`, which is no folder")]
    FolderOverFile {
        /// The destination.
        path: LayerPath,
    },
    /// A file cannot be copied onto a folder.
    #[error("a file cannot replace the folder `{path}`")]
    FileOverFolder {
        /// The destination.
        path: LayerPath,
    },
    /// The folder that is to hold something is not there.
    #[error("there is no folder `{path}`")]
    NoFolder {
        /// The missing folder.
        path: LayerPath,
    },
    /// What is to be removed is not there.
    #[error("`{path}` cannot be removed: it does not exist")]
    NothingToRemove {
        /// The path.
        path: LayerPath,
    },
    /// Something is where a link is to be made.
    #[error("`{path}` exists already")]
    Exists {
        /// The path.
        path: LayerPath,
    },
    /// Links of source or destination go in a circle.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// A path is none, or grew too long.
    #[error(transparent)]
    Path(#[from] BadPath),
}

/// Plans the actions of one file op, one after the other.
pub struct Planner<'a> {
    target: Target<'a>,
}

impl<'a> Planner<'a> {
    /// Begins on this file system. For `COPY --link` it is empty, so that no link of the real one is
    /// followed.
    pub fn new(destination: &'a Stack) -> Planner<'a> {
        Planner { target: Target::new(destination) }
    }

    /// Copies.
    ///
    /// As in BuildKit, each match is a copy of its own: two files without a slash on the destination go to
    /// the same file, and hard links are kept within one match only.
    ///
    /// # Errors
    /// [`CopyError`]; what was planned before stays.
    pub fn copy(&mut self, input: &Input<'_>, spec: &CopySpec<'_>) -> Result<(), CopyError> {
        for source in &spec.sources {
            let found = matches(input.stack, source, spec.exclude)?;
            for path in found {
                let resolved = input.stack.resolve(&path, true)?;
                if let Some(archive) = spec.archives.get(&resolved) {
                    self.unpack(archive, &UnpackSpec::of(spec))?;
                } else {
                    tree::copy(&mut self.target, input, spec, source, &path)?;
                }
            }
        }
        Ok(())
    }

    /// Unpacks an archive into a folder, which is made if need be.
    ///
    /// # Errors
    /// [`CopyError`] where the destination is no folder.
    pub fn unpack(&mut self, archive: &Archive<'_>, spec: &UnpackSpec) -> Result<(), CopyError> {
        unpack::unpack(&mut self.target, archive, spec)
    }

    /// Makes a folder, as `WORKDIR` does.
    ///
    /// # Errors
    /// [`CopyError`] where something else is in the way, or a parent is missing and not asked for.
    pub fn mkdir(&mut self, action: &Mkdir) -> Result<(), CopyError> {
        action::mkdir(&mut self.target, action)
    }

    /// Writes a file, replacing what is there.
    ///
    /// # Errors
    /// [`CopyError`] where its folder is missing or a folder is in the way.
    pub fn mkfile(&mut self, action: &Mkfile) -> Result<(), CopyError> {
        action::mkfile(&mut self.target, action)
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// [`CopyError`] where something is there already, or its folder is not.
    pub fn symlink(&mut self, action: &Symlink) -> Result<(), CopyError> {
        action::symlink(&mut self.target, action)
    }

    /// Removes a file or a folder with all it holds.
    ///
    /// # Errors
    /// [`CopyError`] where nothing is there and that matters.
    pub fn rm(&mut self, action: &Rm) -> Result<(), CopyError> {
        action::rm(&mut self.target, action)
    }

    /// The layer that all actions together make.
    pub fn finish(self) -> Plan {
        self.target.finish()
    }
}

/// Plans a copy alone: [`Planner::copy`] from input 0.
///
/// # Errors
/// As [`Planner::copy`].
pub fn plan(destination: &Stack, source: &Stack, spec: &CopySpec<'_>) -> Result<Plan, CopyError> {
    let mut planner = Planner::new(destination);
    planner.copy(&Input { stack: source, index: 0, planned: None }, spec)?;
    Ok(planner.finish())
}

/// Says whether a path is left out.
pub type Exclude<'a> = &'a dyn Fn(&LayerPath) -> bool;

/// The resolved paths that a source names, for the caller to find out which of them are archives. A path that
/// does not exist is among them. `exclude` is that of the [`CopySpec`].
///
/// # Errors
/// As [`Planner::copy`] for the source.
pub fn sources(
    stack: &Stack,
    source: &Source,
    exclude: Option<Exclude<'_>>,
) -> Result<Vec<LayerPath>, CopyError> {
    let found = matches(stack, source, exclude)?;
    found.iter().map(|path| Ok(stack.resolve(path, true)?)).collect()
}

fn matches(
    stack: &Stack,
    source: &Source,
    exclude: Option<Exclude<'_>>,
) -> Result<Vec<LayerPath>, CopyError> {
    if let Some(required) = &source.required {
        let path = stack.resolve(required, true)?;
        if stack.lookup(&path).is_none() {
            return Err(CopyError::SourceNotFound { source_text: source.shown(), path });
        }
    }
    // With a pattern of its own a source is the folder to look in.
    let exclude = exclude.filter(|_| source.include.is_empty());
    let found = stack.matches_without(&source.path, source.wildcard, exclude)?;
    if found.is_empty() {
        let clean = LayerPath::clamp(&source.path)?;
        Glob::parse(clean.as_bytes())?;
        // A wildcard looks into a folder, which is not optional.
        let plain = clean.parts().take_while(|part| !contains_wildcard(part));
        let folder = plain.fold(LayerPath::root(), |path, part| path.join(part));
        let path = stack.resolve(&folder, true)?;
        if stack.lookup(&path).is_none() {
            return Err(CopyError::SourceNotFound { source_text: source.shown(), path });
        }
        if !source.allow_no_match {
            return Err(CopyError::NoMatch { source_text: source.shown() });
        }
    }
    Ok(found)
}
