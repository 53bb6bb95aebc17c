//! What has been unpacked so far, and how one more entry changes it.
//!
//! Everything is decided from the manifest in memory; the disk is never asked what it holds.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io::Read,
};

use oci::Hasher;
use tree::{Kind, LayerPath, Node};

use super::{ApplyError, ApplyOptions, WhiteoutNames, disk::Disk};
use crate::{
    overlay::is_overlay_xattr,
    tar::{Chunk, Entry, EntryKind, Reader},
};

/// How many symlinks a path may lead through, as in the kernel.
const MAX_LINKS: u32 = 40;

pub(super) struct Unpack<'a> {
    pub(super) disk: Disk,
    pub(super) options: &'a ApplyOptions,
    /// What is at each path so far, and no name of an inode a link to another. Its folders are all [`Kind::Directory`].
    pub(super) nodes: BTreeMap<LayerPath, Node>,
    /// For names that are or were hard links, or what these name: those of one inode have one number.
    pub(super) inodes: BTreeMap<LayerPath, u64>,
    /// Folders of `nodes` that no entry named.
    pub(super) implied: BTreeSet<LayerPath>,
    /// What `.wh.NAME` names, and whose folder `.wh..wh..opq` lies in. Not resolved yet: the layer may still change.
    pub(super) gone: BTreeSet<LayerPath>,
    pub(super) opaque: BTreeSet<LayerPath>,
    entries: u64,
    bytes: u64,
    buffer: Vec<u8>,
}

impl<'a> Unpack<'a> {
    pub(super) fn new(disk: Disk, options: &'a ApplyOptions) -> Unpack<'a> {
        Unpack {
            disk,
            options,
            nodes: BTreeMap::new(),
            inodes: BTreeMap::new(),
            implied: BTreeSet::new(),
            gone: BTreeSet::new(),
            opaque: BTreeSet::new(),
            entries: 0,
            bytes: 0,
            buffer: vec![0; 128 * 1024],
        }
    }

    /// Unpacks one entry, whose contents `reader` stands before.
    pub(super) fn entry<R: Read>(&mut self, entry: Entry, reader: &mut Reader<R>) -> Result<(), ApplyError> {
        self.count(&entry)?;
        if self.options.names == WhiteoutNames::Interpreted && self.whiteout(&entry.path)? {
            return Ok(());
        }
        let name = LayerPath::parse(&entry.path)?;
        if name.is_root() {
            let EntryKind::Directory = entry.kind else { return Err(ApplyError::Root) };
            self.nodes.insert(LayerPath::root(), node(Kind::Directory { opaque: false }, entry));
            return Ok(());
        }
        let folder = self.folder(&name, &name.parent().unwrap_or_default())?;
        let path = folder.join(name.name());
        match entry.kind {
            EntryKind::HardLink { ref target } => {
                let target = LayerPath::parse(target)?;
                self.hard_link(path, &target)
            }
            EntryKind::Directory => self.directory(path, entry),
            EntryKind::File { size } => {
                self.make_room(&path)?;
                self.file(path, entry, size, reader)
            }
            _ => {
                self.make_room(&path)?;
                self.other(path, entry)
            }
        }
    }

    fn count(&mut self, entry: &Entry) -> Result<(), ApplyError> {
        let limits = self.options.limits;
        self.entries += 1;
        if let EntryKind::File { size } = entry.kind {
            self.bytes = self.bytes.saturating_add(size);
        }
        for (what, count, limit) in
            [("entries", self.entries, limits.entries), ("bytes", self.bytes, limits.bytes)]
        {
            if count > limit {
                return Err(ApplyError::TooLarge { what, limit });
            }
        }
        Ok(())
    }

    /// Notes a whiteout; says whether the name was one, or one of aufs's own. The name is not parsed before, as with its
    /// prefix it may be longer than the kernel takes.
    fn whiteout(&mut self, path: &[u8]) -> Result<bool, ApplyError> {
        let bad = || ApplyError::Whiteout { name: String::from_utf8_lossy(path).into_owned() };
        let mut parts: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|part| !part.is_empty()).collect();
        let Some(name) = parts.pop() else { return Ok(false) };
        let opaque = name == b".wh..wh..opq";
        if parts.iter().any(|part| part.starts_with(b".wh..wh."))
            || (name.starts_with(b".wh..wh.") && !opaque)
        {
            return Ok(true);
        }
        let folder = LayerPath::parse(&parts.join(&b'/'))?;
        if folder.parts().any(|part| part.starts_with(b".wh.")) {
            return Err(bad());
        }
        match name.strip_prefix(b".wh.") {
            None => Ok(false),
            Some(b"" | b"." | b"..") => Err(bad()),
            Some(_) if opaque => {
                self.opaque.insert(folder);
                Ok(true)
            }
            Some(gone) => {
                self.gone.insert(folder.append(&LayerPath::parse(gone)?));
                Ok(true)
            }
        }
    }

    /// Where the folder that an entry names really is, made with all above it where it is missing.
    pub(super) fn folder(&mut self, entry: &LayerPath, folder: &LayerPath) -> Result<LayerPath, ApplyError> {
        if self.nodes.get(folder).is_some_and(Node::is_directory) {
            return Ok(folder.clone());
        }
        self.resolve(entry, folder, true)?.ok_or_else(|| unreachable!("a missing folder is made"))
    }

    /// Follows a path through the symlinks of the layer, which cannot leave the root. A part that is missing is made as
    /// an implied folder, or ends the search.
    pub(super) fn resolve(
        &mut self,
        entry: &LayerPath,
        folder: &LayerPath,
        make: bool,
    ) -> Result<Option<LayerPath>, ApplyError> {
        let mut rest: VecDeque<Vec<u8>> = folder.parts().map(<[u8]>::to_vec).collect();
        let mut at = LayerPath::root();
        let mut links = 0;
        while let Some(part) = rest.pop_front() {
            match &part[..] {
                b"" | b"." => continue,
                b".." => {
                    at = at.parent().unwrap_or_default();
                    continue;
                }
                _ => {}
            }
            let next = at.join(&part);
            match self.nodes.get(&next).map(|node| &node.kind) {
                Some(Kind::Directory { .. }) => at = next,
                Some(Kind::Symlink { target }) => {
                    links += 1;
                    if links > MAX_LINKS || target.len() + rest.len() > 1 << 16 {
                        return Err(ApplyError::Loop { path: entry.clone() });
                    }
                    if target.starts_with(b"/") {
                        at = LayerPath::root();
                    }
                    for part in target.split(|b| *b == b'/').rev() {
                        rest.push_front(part.to_vec());
                    }
                }
                None if make => {
                    self.disk.make_folder(&next)?;
                    self.implied.insert(next.clone());
                    self.nodes.insert(next.clone(), Node::directory(0o755));
                    at = next;
                }
                None => return Ok(None),
                Some(_) => return Err(ApplyError::BelowFile { path: entry.clone(), below: next }),
            }
        }
        Ok(Some(at))
    }

    /// Removes what an earlier entry made at `path`, with all below it.
    fn make_room(&mut self, path: &LayerPath) -> Result<(), ApplyError> {
        let Some(old) = self.nodes.get(path) else { return Ok(()) };
        if !old.is_directory() {
            self.inodes.remove(path);
            self.disk.remove(path, false)?;
        } else {
            // In the order of bytes `a-b` stands between `a` and `a/b`.
            let from = self.nodes.range(path.clone()..).map(|(below, _)| below);
            let near = from.take_while(|below| below.as_bytes().starts_with(path.as_bytes()));
            let gone: Vec<LayerPath> = near.filter(|near| near.below(path).is_some()).cloned().collect();
            for below in gone.iter().rev() {
                let removed = self.nodes.remove(below).expect("it was just listed");
                self.implied.remove(below);
                self.inodes.remove(below);
                self.disk.remove(below, removed.is_directory())?;
            }
        }
        self.nodes.remove(path);
        Ok(())
    }

    fn directory(&mut self, path: LayerPath, entry: Entry) -> Result<(), ApplyError> {
        let stays = self.nodes.get(&path).is_some_and(Node::is_directory);
        if !stays {
            self.make_room(&path)?;
            self.disk.make_folder(&path)?;
        }
        self.implied.remove(&path);
        self.nodes.insert(path, node(Kind::Directory { opaque: false }, entry));
        Ok(())
    }

    fn file<R: Read>(
        &mut self,
        path: LayerPath,
        entry: Entry,
        size: u64,
        reader: &mut Reader<R>,
    ) -> Result<(), ApplyError> {
        let buffer = &mut self.buffer;
        let node = self.disk.make_file(&path, |file| {
            let mut hasher = Hasher::new();
            loop {
                match reader.read_chunk(buffer)? {
                    Chunk::End => break,
                    Chunk::Data(read) => {
                        hasher.update(&buffer[..read]);
                        file.data(&buffer[..read])?;
                    }
                    Chunk::Hole(length) => {
                        hash_zeros(&mut hasher, length);
                        file.hole(length)?;
                    }
                }
            }
            file.end(size)?;
            Ok(node(Kind::File { size, content: hasher.finish() }, entry))
        })?;
        self.nodes.insert(path, node);
        Ok(())
    }

    fn other(&mut self, path: LayerPath, entry: Entry) -> Result<(), ApplyError> {
        let kind = match &entry.kind {
            EntryKind::Symlink { target } => Kind::Symlink { target: target.clone() },
            EntryKind::CharDevice { major: 0, minor: 0 } => return Err(ApplyError::WhiteoutDevice { path }),
            EntryKind::CharDevice { major, minor } => Kind::CharDevice { major: *major, minor: *minor },
            EntryKind::BlockDevice { major, minor } => Kind::BlockDevice { major: *major, minor: *minor },
            EntryKind::Fifo => Kind::Fifo,
            EntryKind::Directory | EntryKind::File { .. } | EntryKind::HardLink { .. } => {
                unreachable!("these have functions of their own")
            }
        };
        let mut node = node(kind, entry);
        if let Kind::Symlink { .. } = node.kind {
            node.mode = 0o777;
        }
        self.disk.make_other(&path, &node)?;
        self.nodes.insert(path, node);
        Ok(())
    }

    fn hard_link(&mut self, path: LayerPath, named: &LayerPath) -> Result<(), ApplyError> {
        let bad = |why| ApplyError::LinkTarget { path: path.clone(), target: named.clone(), why };
        let folder = self.resolve(&path, &named.parent().unwrap_or_default(), false)?;
        let target = folder.filter(|_| !named.is_root()).map(|folder| folder.join(named.name()));
        let target = target.ok_or_else(|| bad("is not in the archive before it"))?;
        let found = self.nodes.get(&target).ok_or_else(|| bad("is not in the archive before it"))?;
        if found.is_directory() {
            return Err(bad("is a folder"));
        }
        if target.below(&path).is_some() {
            return Err(bad("it would replace"));
        }
        let node = found.clone();
        self.make_room(&path)?;
        self.disk.link(&path, &target)?;
        // The link's own number within the archive is one that no other inode has.
        let inode = *self.inodes.entry(target).or_insert(self.entries);
        self.inodes.insert(path.clone(), inode);
        self.nodes.insert(path, node);
        Ok(())
    }
}

/// The manifest's word on an entry. Attributes of overlayfs's own are dropped: in a layer they would be orders.
fn node(kind: Kind, entry: Entry) -> Node {
    let mut xattrs = entry.xattrs;
    xattrs.retain(|name, _| !is_overlay_xattr(name));
    Node {
        kind,
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime: entry.mtime,
        xattrs: xattrs.into(),
        hardlink: None,
    }
}

fn hash_zeros(hasher: &mut Hasher, mut length: u64) {
    const ZEROS: &[u8] = &[0; 64 * 1024];
    while length > 0 {
        let piece = usize::try_from(length).unwrap_or(usize::MAX).min(ZEROS.len());
        hasher.update(&ZEROS[..piece]);
        length -= piece as u64;
    }
}
