//! What a cache key is made of.
//!
//! Two vertices with the same key have the same result; that is all a key promises. A key made of too much costs time. A
//! key made of too little ships the wrong image. When in doubt, too much.
//!
//! | Ingredient                     | `RUN` | `COPY`, `ADD` | `FROM` |
//! |--------------------------------|-------|---------------|--------|
//! | keys of the inputs             | yes   | yes           |        |
//! | argv, env, folder, user        | yes   |               |        |
//! | bytes, mode, owner of files    | yes   | yes, no mtime |        |
//! | manifest digest and platform   |       |               | yes    |
//! | secret *names*, never values   | yes   |               |        |
//! | marks of secrets, where asked for | yes |              |        |
//! | line numbers, stage names      | no    | no            | no     |
//! | timeout, memory limit          | no    | no            | no     |
//!
//! The last two rows are the point: moving a line or raising a limit rebuilds nothing. The modification time is left
//! out as Docker leaves it out: a fresh `git clone` hits the cache.
//!
//! There are two keys. The *definition key* follows from what was asked alone and is looked up first, for a target
//! before anything below it. The *content key* follows from what the inputs hold, and is looked up only after a
//! miss, and only where the cache has a result of the same operation: where something below ran again and its
//! tree came out as before, what follows hits.

use std::{collections::BTreeMap, fmt};

use graph::{ActionInput, FileAction, Ingredient, MountKind, Op, Owner, OwnerName, Vertex, ingredients};
use oci::Digest;

/// Names a result by what was asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DefinitionKey(Digest);

/// Names a result by its operation and the contents that it works on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentKey(Digest);

impl DefinitionKey {
    /// The bare digest.
    pub fn digest(&self) -> Digest {
        self.0
    }
}

impl ContentKey {
    /// The bare digest.
    pub fn digest(&self) -> Digest {
        self.0
    }
}

impl fmt::Debug for DefinitionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DefinitionKey({})", self.0.short())
    }
}

impl fmt::Debug for ContentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentKey({})", self.0.short())
    }
}

/// How one input enters a definition key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputKey {
    /// By what was asked of it.
    Definition {
        /// Its definition key.
        key: DefinitionKey,
        /// Which output.
        output: u32,
    },
    /// By what is in it: inputs whose definition says nothing, as a folder on disk.
    Content(Digest),
}

/// The ingredients of a definition key, for the key and for explaining a miss.
///
/// `inputs` has one entry for each input of the vertex. `own` is what the vertex's definition leaves open and can change.
pub fn definition(
    vertex: &Vertex,
    inputs: &[InputKey],
    own: &[Ingredient],
) -> (DefinitionKey, Vec<Ingredient>) {
    let mut list = ingredients(&vertex.op);
    for (position, input) in inputs.iter().enumerate() {
        list.push(match input {
            InputKey::Definition { key, output } => {
                Ingredient::new(format!("input {position}"), format!("{} output {output}", key.0))
            }
            InputKey::Content(digest) => {
                Ingredient::new(format!("files of input {position}"), digest.to_string())
            }
        });
    }
    list.extend_from_slice(own);
    (DefinitionKey(Ingredient::digest(&list)), list)
}

/// The content key: the operation, for each input the digest of what [`selection`] picks of it, and `own` as of
/// [`definition`].
pub fn content(vertex: &Vertex, inputs: &[Digest], own: &[Ingredient]) -> ContentKey {
    let mut list = ingredients(&vertex.op);
    list.push(Ingredient::new("by", "content"));
    let numbered = inputs.iter().enumerate();
    list.extend(
        numbered.map(|(i, digest)| Ingredient::new(format!("files of input {i}"), digest.to_string())),
    );
    list.extend_from_slice(own);
    ContentKey(Ingredient::digest(&list))
}

/// What of an input a vertex can see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All of it.
    Everything,
    /// These parts, in this order.
    Picks(Vec<Pick>),
}

/// A part of a tree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pick {
    /// Path or pattern.
    pub path: String,
    /// Whether `*`, `?` and `[` are wildcards.
    pub wildcard: bool,
    /// Whether `**` crosses folders and the path's folders count too (`COPY --parents`).
    pub parents: bool,
    /// Whether a link at the path is followed.
    pub follow_symlink: bool,
    /// Patterns of what is not seen, relative to the path.
    pub exclude: Vec<String>,
}

impl Pick {
    fn path(path: &str) -> Pick {
        let path = path.to_owned();
        Pick { path, wildcard: false, parents: false, follow_symlink: true, exclude: Vec::new() }
    }
}

/// What of input `input` a vertex can see.
pub fn selection(vertex: &Vertex, input: usize) -> Selection {
    let mut picks = Vec::new();
    let everything = match &vertex.op {
        Op::Source(_) | Op::Merge | Op::Diff => true,
        Op::Exec(exec) => {
            let mounts = exec.mounts.iter().filter(|mount| mount.input == Some(input));
            let mut everything = false;
            for mount in mounts {
                let whole = mount.selector.trim_matches('/').is_empty();
                match mount.kind {
                    // What a cache was seeded with changes what it holds, and never the key.
                    MountKind::Cache { .. } => {}
                    _ if whole => everything = true,
                    _ => picks.push(Pick::path(&mount.selector)),
                }
            }
            everything
        }
        Op::File(file) => file.actions.iter().any(|action| sees_everything(action, input, &mut picks)),
    };
    if everything { Selection::Everything } else { Selection::Picks(picks) }
}

/// Whether an action builds on all of the input; adds to `picks` what it merely reads of it.
fn sees_everything(action: &FileAction, input: usize, picks: &mut Vec<Pick>) -> bool {
    let wanted = ActionInput::Input(input);
    let (on, owner) = match action {
        FileAction::Copy { on, from, copy } => {
            if *from == wanted {
                picks.push(Pick {
                    path: copy.source.clone(),
                    wildcard: copy.wildcard,
                    parents: copy.parents,
                    follow_symlink: copy.follow_symlink,
                    exclude: copy.exclude.clone(),
                });
            }
            (on, copy.owner.as_ref())
        }
        FileAction::MakeDirectory { on, owner, .. }
        | FileAction::MakeFile { on, owner, .. }
        | FileAction::Symlink { on, owner, .. } => (on, owner.as_ref()),
        FileAction::Remove { on, .. } => (on, None),
    };
    if owner.is_some_and(|owner| reads_names(owner, wanted)) {
        picks.push(Pick::path("/etc/passwd"));
        picks.push(Pick::path("/etc/group"));
    }
    *on == wanted
}

fn reads_names(owner: &Owner, tree: ActionInput) -> bool {
    let reads = |name: &OwnerName| matches!(name, OwnerName::Name { of, .. } if *of == tree);
    reads(&owner.user) || owner.group.as_ref().is_some_and(reads)
}

/// What differs between two lists of ingredients, by name: changed, new and gone ones, in the order of `after`.
pub fn changed(before: &[Ingredient], after: &[Ingredient]) -> Vec<String> {
    let values = |list: &[Ingredient]| -> BTreeMap<String, Vec<String>> {
        let mut values = BTreeMap::<String, Vec<String>>::new();
        for ingredient in list {
            values.entry(ingredient.name.clone()).or_default().push(ingredient.value.clone());
        }
        values
    };
    let (old, new) = (values(before), values(after));
    let mut names: Vec<String> = Vec::new();
    for ingredient in after.iter().chain(before) {
        let differs = old.get(&ingredient.name) != new.get(&ingredient.name);
        if differs && !names.contains(&ingredient.name) {
            names.push(ingredient.name.clone());
        }
    }
    names
}
