//! Unpacks an archive that `ADD` found, into a folder of the destination.

use std::collections::BTreeMap;

use tree::{Kind, LayerPath, Mtime, Node};

use super::{Archive, ContentSource, CopyError, CopySpec, Destination, target::Target, tree::kept_xattrs};

/// Where an archive goes. There is no mode: BuildKit ignores `--chmod` for what it unpacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnpackSpec {
    /// The folder; whether its text has a slash does not matter.
    pub destination: Destination,
    /// Owner of all that is unpacked and of the folders above it; else the archive's, and 0:0 for new
    /// folders.
    pub chown: Option<(u32, u32)>,
    /// Modification time of the folders that have to be made.
    pub created: Mtime,
}

impl UnpackSpec {
    pub(super) fn of(spec: &CopySpec<'_>) -> UnpackSpec {
        UnpackSpec { destination: spec.destination.clone(), chown: spec.chown, created: spec.created }
    }
}

/// Plans an unpacking, as in a chroot of the destination folder.
///
/// An entry replaces what is in its place, a link to a folder and a whole folder too, unless both are
/// folders. Links on the way to an entry are followed. A name that begins with `.wh.` is a whiteout, because
/// that is what the layer's archive would make of it.
pub(super) fn unpack(
    target: &mut Target<'_>,
    archive: &Archive<'_>,
    spec: &UnpackSpec,
) -> Result<(), CopyError> {
    let root = target.resolve(&spec.destination.path, true)?;
    target.mkdir_all(&root, 0o755, spec.chown, spec.created)?;
    let mut groups: BTreeMap<&LayerPath, u64> = BTreeMap::new();
    for (path, node) in &archive.layer.entries {
        if path.is_root() {
            continue;
        }
        let parent = path.parent().unwrap_or_default();
        let parent = inside(&root, &resolve_inside(target, &root, &parent)?)?;
        target.mkdir_all(&parent, 0o755, None, spec.created)?;
        let name = path.name();
        let hidden = name.strip_prefix(b".wh.").filter(|hidden| !hidden.is_empty());
        match hidden {
            Some(b".wh..opq") => {
                target.empty_of_base(&parent);
                continue;
            }
            Some(hidden) => {
                target.remove(&inside(&parent, &LayerPath::exact(hidden.to_vec())?)?);
                continue;
            }
            None => {}
        }
        let at = inside(&parent, &LayerPath::exact(name.to_vec())?)?;
        let both_folders = node.is_directory() && target.lookup(&at).is_some_and(Node::is_directory);
        if !both_folders {
            target.remove(&at);
        }
        let opaque = match node.kind {
            Kind::Whiteout => continue,
            Kind::Directory { opaque } => opaque,
            _ => false,
        };
        let (uid, gid) = spec.chown.unwrap_or((node.uid, node.gid));
        let made = Node { uid, gid, xattrs: kept_xattrs(node), hardlink: None, ..node.clone() };
        let mut group = None;
        let mut content = None;
        if !node.is_directory() {
            let first = node.hardlink.as_ref().unwrap_or(path);
            group = Some(*groups.entry(first).or_insert_with(|| target.new_group()));
        }
        if let Kind::File { .. } = node.kind {
            content = Some(ContentSource::File { input: archive.index, layer: 0, path: path.clone() });
        }
        target.put(&at, made, content, group);
        if opaque {
            target.empty_of_base(&at);
        }
    }
    Ok(())
}

/// Follows the links of `path` with `root` as the root.
fn resolve_inside(target: &Target<'_>, root: &LayerPath, path: &LayerPath) -> Result<LayerPath, CopyError> {
    let link = |path: &LayerPath| match target.lookup(&root.append(path)).map(|node| &node.kind) {
        Some(Kind::Symlink { target }) => Some(target.clone()),
        _ => None,
    };
    Ok(tree::resolve(path, true, link)?)
}

fn inside(root: &LayerPath, path: &LayerPath) -> Result<LayerPath, CopyError> {
    Ok(LayerPath::exact(root.append(path).as_bytes().to_vec())?)
}
