//! Copies one source, a file or a folder with what it holds.

use std::collections::BTreeMap;

use ::tree::{Entry, Kind, LayerPath, Node, Xattrs};

use super::{
    Chmod, ContentSource, CopiedFolder, CopyError, CopySpec, Destination, Input, Source, target::Target,
};

/// Plans the copy of one match.
///
/// Four of BuildKit's rules, none of them in the documentation: the folder that a folder is copied into keeps
/// its mode and owner but takes the source's time, nested folders take all of the source's; a new folder has
/// `--chmod`'s mode only where that is a number, and of that only 0777; what a link at the destination points
/// to is made; a folder that is only there to hold an included path, and exists, takes the source's mode
/// alone.
pub(super) fn copy(
    target: &mut Target<'_>,
    input: &Input<'_>,
    spec: &CopySpec<'_>,
    source: &Source,
    path: &LayerPath,
) -> Result<(), CopyError> {
    let found = input.stack.resolve(path, source.follow_links)?;
    let Some((layer, node)) = input.stack.lookup(&found) else {
        return Err(CopyError::SourceNotFound { source_text: source.shown(), path: found });
    };
    let top = Entry { path: found, layer, node };
    let destination = prepare(target, spec, &top, path)?;
    let (groups, waiting) = (BTreeMap::new(), BTreeMap::new());
    let mut copier = Copier { target, input, spec, top: destination, groups, waiting };
    if !node.is_directory() {
        return copier.place(&top, &LayerPath::root());
    }
    copier.place(&top, &LayerPath::root())?;
    let all = source.include.is_empty() && spec.exclude.is_none() && copier.target.is_bare(&copier.top);
    if all
        && input.planned.is_none()
        && let Some(nodes) = input.stack.walk_one(&top.path)
    {
        return copier.place_folder(nodes, &top.path);
    }
    let entries = input.stack.walk(&top.path);
    for entry in entries.iter().filter(|entry| entry.node.hardlink.is_some()) {
        copier.groups.entry(entry.inode()).or_insert_with(|| copier.target.new_group());
    }
    if all {
        return copier.place_all(&entries, &top.path);
    }
    for entry in &entries {
        let below = entry.path.below(&top.path).unwrap_or_default();
        if below.is_root() {
            continue;
        }
        let include = &source.include;
        let included = include.is_empty() || include.iter().any(|one| one.matches(below.as_bytes()));
        let excluded = spec.exclude.is_some_and(|exclude| exclude(&below));
        if included && !excluded {
            copier.place_waiting(&below)?;
            copier.place(entry, &below)?;
        } else if entry.node.is_directory() {
            copier.waiting.insert(below, entry);
        }
    }
    Ok(())
}

/// Makes the folders of the destination, and says where the source itself goes.
fn prepare(
    target: &mut Target<'_>,
    spec: &CopySpec<'_>,
    top: &Entry<'_>,
    path: &LayerPath,
) -> Result<LayerPath, CopyError> {
    let Destination { path: wanted, folder } = &spec.destination;
    let mode = match spec.chmod {
        Some(Chmod::Octal(mode)) => mode & 0o777,
        Some(Chmod::Symbolic(_)) | None => 0o755,
    };
    if !spec.create_destination {
        let parent = target.resolve(wanted, true)?.parent().unwrap_or_default();
        if target.lookup(&parent).is_none() {
            return Err(CopyError::NoFolder { path: parent });
        }
    }
    let ensured = if *folder { wanted.clone() } else { wanted.parent().unwrap_or_default() };
    let ensured = target.resolve(&ensured, true)?;
    target.mkdir_all(&ensured, mode, spec.chown, spec.created)?;
    let mut destination = target.resolve(wanted, true)?;
    let there = target.lookup(&destination);
    let exists = there.is_some();
    let is_folder = there.is_some_and(Node::is_directory);
    let from_folder = top.node.is_directory();
    if (!from_folder && is_folder || from_folder && exists && !spec.contents_only) && !path.is_root() {
        destination = destination.join(path.name());
    }
    let holder = if from_folder && spec.contents_only && !exists {
        destination.clone()
    } else {
        destination.parent().unwrap_or_default()
    };
    target.mkdir_all(&holder, mode, spec.chown, spec.created)?;
    Ok(destination)
}

struct Copier<'c, 't, 'e, 'i> {
    target: &'c mut Target<'t>,
    input: &'c Input<'i>,
    spec: &'c CopySpec<'c>,
    /// Where the source itself goes.
    top: LayerPath,
    /// Inodes of the source that have several names, to groups of hard links.
    groups: BTreeMap<(usize, &'e LayerPath), u64>,
    /// Folders that are only made if something below them is copied.
    waiting: BTreeMap<LayerPath, &'e Entry<'i>>,
}

impl<'e> Copier<'_, '_, 'e, '_> {
    fn at(&self, below: &LayerPath) -> Result<LayerPath, CopyError> {
        let (top, below) = (self.top.as_bytes(), below.as_bytes());
        let between: &[u8] = if top.is_empty() || below.is_empty() { b"" } else { b"/" };
        Ok(LayerPath::exact([top, between, below].concat())?)
    }

    fn place(&mut self, entry: &Entry<'_>, below: &LayerPath) -> Result<(), CopyError> {
        let at = self.at(below)?;
        let there = self.target.lookup(&at).map(Node::is_directory);
        let node = self.copied(entry.node);
        if self.spec.replace && there.is_some_and(|is_folder| is_folder != node.is_directory()) {
            self.target.remove(&at);
            return self.put(entry, &at, node);
        }
        match (node.is_directory(), there) {
            (true, Some(false)) => Err(CopyError::FolderOverFile { path: at }),
            (false, Some(true)) => Err(CopyError::FileOverFolder { path: at }),
            (true, Some(true)) => {
                let whole = !below.is_root();
                self.target.change(&at, |folder| {
                    folder.mtime = node.mtime;
                    if whole {
                        (folder.mode, folder.uid, folder.gid) = (node.mode, node.uid, node.gid);
                        folder.xattrs.extend(BTreeMap::from(node.xattrs));
                    }
                });
                Ok(())
            }
            _ => self.put(entry, &at, node),
        }
    }

    /// Places all that is below `from` where there is nothing yet: no entry meets another.
    fn place_all(&mut self, entries: &[Entry<'_>], from: &LayerPath) -> Result<(), CopyError> {
        for entry in entries.iter().filter(|entry| entry.path != *from) {
            let (at, node) = (self.at_new(&entry.path, from)?, self.copied(entry.node));
            let (content, group) = self.content(entry, &node);
            self.target.place(at, node, content, group);
        }
        Ok(())
    }

    /// The same, of a folder that is of one layer: one word says where all its bytes are.
    fn place_folder<'n: 'e>(
        &mut self,
        nodes: impl Iterator<Item = (&'n LayerPath, &'n Node)> + Clone,
        from: &LayerPath,
    ) -> Result<(), CopyError> {
        let folder = CopiedFolder { input: self.input.index, layer: 0, path: from.clone() };
        self.target.copies(self.top.clone(), folder);
        for first in nodes.clone().filter_map(|(_, node)| node.hardlink.as_ref()) {
            self.groups.entry((0, first)).or_insert_with(|| self.target.new_group());
        }
        for (path, node) in nodes.filter(|(path, _)| *path != from) {
            let is_file = matches!(node.kind, Kind::File { .. }) && !self.groups.is_empty();
            let inode = (0, node.hardlink.as_ref().unwrap_or(path));
            let group = if is_file { self.groups.get(&inode).copied() } else { None };
            self.target.place(self.at_new(path, from)?, self.copied(node), None, group);
        }
        Ok(())
    }

    /// Where a path below `from` goes. Most copies are of one name, and then both are the same.
    fn at_new(&self, path: &LayerPath, from: &LayerPath) -> Result<LayerPath, CopyError> {
        match self.top == *from {
            true => Ok(path.clone()),
            false => self.at(&path.below(from).unwrap_or_default()),
        }
    }

    fn put(&mut self, entry: &Entry<'_>, at: &LayerPath, node: Node) -> Result<(), CopyError> {
        let (content, group) = self.content(entry, &node);
        self.target.put(at, node, content, group);
        Ok(())
    }

    /// Of a file where its bytes are, and with which others it is one.
    fn content(&self, entry: &Entry<'_>, node: &Node) -> (Option<ContentSource>, Option<u64>) {
        let Kind::File { .. } = node.kind else { return (None, None) };
        (Some(self.input.content(entry)), self.groups.get(&entry.inode()).copied())
    }

    /// Makes the folders above `below` that waited for something to hold.
    fn place_waiting(&mut self, below: &LayerPath) -> Result<(), CopyError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        for folder in below.ancestors() {
            let Some(entry) = self.waiting.remove(&folder) else { continue };
            let at = self.at(&folder)?;
            if self.target.lookup(&at).is_some_and(Node::is_directory) {
                self.target.change(&at, |there| there.mode = entry.node.mode);
            } else {
                self.place(entry, &folder)?;
            }
        }
        Ok(())
    }

    /// What a source's node is as a copy.
    fn copied(&self, node: &Node) -> Node {
        let (uid, gid) = self.spec.chown.unwrap_or((node.uid, node.gid));
        let mode = match (&node.kind, self.spec.chmod) {
            (Kind::Symlink { .. }, _) | (_, None) => node.mode,
            (_, Some(Chmod::Octal(mode))) => mode & 0o7777,
            (_, Some(Chmod::Symbolic(change))) => change(node.mode, node.is_directory()) & 0o7777,
        };
        let mtime = self.spec.timestamp.unwrap_or(node.mtime);
        let kind = match &node.kind {
            Kind::Directory { .. } => Kind::Directory { opaque: false },
            kind => kind.clone(),
        };
        Node { kind, mode, uid, gid, mtime, xattrs: kept_xattrs(node), hardlink: None }
    }
}

impl Input<'_> {
    /// Where the bytes of a file of this input are.
    fn content(&self, entry: &Entry<'_>) -> ContentSource {
        let top = self.stack.layers().len().checked_sub(1);
        let planned = self.planned.filter(|_| top == Some(entry.layer));
        let content = planned.and_then(|plan| plan.contents.get(entry.inode().1));
        content.unwrap_or_else(|| ContentSource::File {
            input: self.index,
            layer: entry.layer,
            path: entry.path.clone(),
        })
    }
}

/// Attributes that a copy keeps: not those of users, which no layer carries.
pub(super) fn kept_xattrs(node: &Node) -> Xattrs {
    let kept = node.xattrs.iter().filter(|(name, _)| !name.starts_with(b"user."));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}
