//! What files take on the disk.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use tree::{Kind, Layer};

/// The unit that file systems give out, as nearly all have it.
const BLOCK: u64 = 4096;
/// A link's target is in its inode up to this length (ext4).
const SHORT_LINK: usize = 60;
/// Files from this length on are looked at: they may have holes.
const LARGE: u64 = 64 * 1024;

/// The bytes of whole blocks that hold so many.
pub(crate) fn blocks(size_bytes: u64) -> u64 {
    size_bytes.div_ceil(BLOCK).saturating_mul(BLOCK)
}

/// What a layer's folder takes, from its manifest; large files are looked at, as they may have holes.
pub(crate) fn layer_bytes(layer: &Layer, folder: &Path) -> u64 {
    let entries = layer.entries.iter().map(|(path, node)| match &node.kind {
        _ if node.hardlink.is_some() => 0,
        Kind::Directory { .. } if !path.is_root() => BLOCK,
        Kind::File { size, .. } if *size < LARGE => blocks(*size),
        Kind::File { size, .. } => {
            let file = folder.join(std::ffi::OsStr::from_bytes(path.as_bytes()));
            fs::symlink_metadata(file).map_or_else(|_| blocks(*size), |file| file.blocks() * 512)
        }
        Kind::Symlink { target } if target.len() >= SHORT_LINK => BLOCK,
        _ => 0,
    });
    entries.fold(BLOCK, u64::saturating_add)
}

/// What a file takes, or a folder with all below it, each file with several names once. What cannot be looked at, or goes
/// meanwhile, is not counted; links are not followed.
pub(crate) fn on_disk(path: &Path) -> u64 {
    let (mut bytes, mut seen, mut left) = (0_u64, BTreeSet::new(), vec![path.to_owned()]);
    while let Some(path) = left.pop() {
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        if !found.is_dir() && found.nlink() > 1 && !seen.insert((found.dev(), found.ino())) {
            continue;
        }
        bytes = bytes.saturating_add(found.blocks() * 512);
        if found.is_dir() && found.permissions().mode() & 0o400 != 0 {
            left.extend(names(&path));
        }
    }
    bytes
}

fn names(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn names_of_one_file_and_holes_count_once_or_not_at_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let empty = on_disk(folder.path());
        fs::write(at("file"), vec![1; 100_000]).expect("written");
        let one = on_disk(folder.path()) - empty;
        assert!((100_000..140_000).contains(&one), "{one}");
        fs::hard_link(at("file"), at("again")).expect("linked");
        symlink("/", at("link")).expect("linked");
        assert_eq!(on_disk(folder.path()) - empty, one);
        fs::File::create(at("hole")).and_then(|file| file.set_len(1 << 30)).expect("made");
        assert!(on_disk(folder.path()) - empty < 200_000);
        assert_eq!(on_disk(&at("gone")), 0);
    }
}
