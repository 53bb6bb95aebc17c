//! What each path of a folder is by its inode: taken without reading any file.

use std::{collections::BTreeMap, os::fd::AsFd, path::Path, time::Duration};

use rayon::prelude::*;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, Statx, StatxFlags, openat, statx};
use tree::{Layer, LayerPath, Node};

use crate::{
    beneath,
    scan::{ScanError, child, device, failed, names},
};

/// The clock that stamps are of moves in steps: of 10 ms at most, and this is more. Of what changed no longer before the last
/// change of all, a further change may not be seen in the stamp.
pub(super) const STEP: Duration = Duration::from_millis(12);

/// Fewer are looked at by one thread: a folder takes some tens of microseconds, a name takes one.
const FEW_FOLDERS: usize = 16;
const FEW_NAMES: usize = 512;

/// One path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) kind: FileType,
    /// Which inode it is: a number is given out again, so when it was made belongs to it.
    pub(super) inode: (u64, u64, i128),
    pub(super) links: u32,
    /// Mode, user, group.
    attributes: (u32, u32, u32),
    device: (u32, u32),
    size: u64,
    modified: i128,
    changed: i128,
}

impl Stamp {
    fn of(stat: &Statx) -> Stamp {
        let nanoseconds = |seconds: i64, rest: u32| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        let kind = FileType::from_raw_mode(stat.stx_mode.into());
        Stamp {
            kind,
            inode: (
                device(stat),
                stat.stx_ino,
                // A file system that does not know it says 0.
                nanoseconds(stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec),
            ),
            // A folder's says how many folders are in it.
            links: if kind == FileType::Directory { 1 } else { stat.stx_nlink },
            attributes: (stat.stx_mode.into(), stat.stx_uid, stat.stx_gid),
            device: (stat.stx_rdev_major, stat.stx_rdev_minor),
            // As large as its list of names ever was, on some file systems.
            size: if kind == FileType::Directory { 0 } else { stat.stx_size },
            modified: nanoseconds(stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
            changed: nanoseconds(stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
        }
    }

    pub(super) fn is_folder(&self) -> bool {
        self.kind == FileType::Directory
    }
}

/// The stamps of all paths below a folder, and its own under the root's path.
#[derive(Clone, Debug, Default)]
pub struct Stamps {
    pub(super) by_path: BTreeMap<LayerPath, Stamp>,
    /// The last change of all.
    newest: i128,
}

impl Stamps {
    /// Whether there is something that no layer can hold: who begins with the layers alone must not see it.
    pub fn has_more_than_a_layer(&self) -> bool {
        self.by_path.values().any(|stamp| match stamp.kind {
            FileType::Socket => true,
            FileType::CharacterDevice => stamp.device == (0, 0),
            _ => false,
        })
    }

    /// Whether a change from now on moves any of these stamps. `now` is when an inode of the same file system was changed last.
    pub fn is_older(&self, now: i128) -> bool {
        self.newest + STEP.as_nanos() as i128 <= now
    }

    /// Whether these are of what those are of, with nothing changed but that the whole folder was moved.
    pub fn are_of_the_same(&self, before: &Stamps) -> bool {
        let is_same = |path: &LayerPath, was: &Stamp, now: &Stamp| match path.is_root() {
            true => Stamp { changed: was.changed, ..*now } == *was,
            false => now == was,
        };
        let mut both = self.by_path.iter().zip(&before.by_path);
        self.by_path.len() == before.by_path.len()
            && both.all(|((path, now), (other, was))| path == other && is_same(path, was, now))
    }

    /// Folders that have another time than they had.
    pub(super) fn folders_touched_since<'a>(
        &'a self,
        before: &'a Stamps,
    ) -> impl Iterator<Item = &'a LayerPath> {
        let folders = self.by_path.iter().filter(|(_, stamp)| stamp.is_folder());
        let touched = folders
            .filter(|(path, now)| before.by_path.get(*path).is_some_and(|was| was.modified != now.modified));
        touched.map(|(path, _)| path)
    }

    /// The files of a layer, found by these stamps, that have names which the layer does not link to them.
    pub(super) fn linked_beyond(&self, layer: &Layer) -> Layer {
        let mut names: BTreeMap<(u64, u64, i128), usize> = BTreeMap::new();
        for stamp in self.by_path.values().filter(|stamp| stamp.links > 1) {
            *names.entry(stamp.inode).or_default() += 1;
        }
        let first = |path: &LayerPath, node: &Node| node.hardlink.clone().unwrap_or_else(|| path.clone());
        let mut linked: BTreeMap<LayerPath, usize> = BTreeMap::new();
        for (path, node) in &layer.entries {
            *linked.entry(first(path, node)).or_default() += 1;
        }
        let is_beyond = |path: &LayerPath, node: &Node| {
            let on_disk = self.by_path.get(path).and_then(|stamp| names.get(&stamp.inode));
            on_disk.is_some_and(|on_disk| linked.get(&first(path, node)) < Some(on_disk))
        };
        let beyond = layer.entries.iter().filter(|(path, node)| is_beyond(path, node));
        Layer { entries: beyond.map(|(path, node)| (path.clone(), node.clone())).collect() }
    }

    /// Whether a path with this stamp, which it had before too, is as it was before.
    pub(super) fn is_certain(&self, stamp: &Stamp) -> bool {
        stamp.changed + STEP.as_nanos() as i128 <= self.newest
    }
}

/// Takes the stamps of everything in a folder. No link is followed but on the way to it.
///
/// # Errors
/// The first thing that cannot be looked at.
pub fn walk(root: &Path) -> Result<Stamps, ScanError> {
    let path = LayerPath::root();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = openat(CWD, root, flags, Mode::empty()).map_err(failed("open", &path))?;
    let own = statx(&open, "", AtFlags::EMPTY_PATH, MASK).map_err(failed("statx", &path))?;
    let mut all = vec![(path.clone(), Stamp::of(&own))];
    let mut level = vec![path];
    // Level by level: a tree of any depth takes no more of the stack than a flat one.
    while !level.is_empty() {
        let look = |path| folder(open.as_fd(), path);
        let found: Result<Vec<Vec<(LayerPath, Stamp)>>, ScanError> = match level.len() {
            // Others are not woken for what is done before they run.
            ..FEW_FOLDERS => level.iter().map(look).collect(),
            _ => level.par_iter().map(look).collect(),
        };
        level.clear();
        for (path, stamp) in found?.into_iter().flatten() {
            if stamp.is_folder() {
                level.push(path.clone());
            }
            all.push((path, stamp));
        }
    }
    let newest = all.iter().map(|(_, stamp)| stamp.changed).max().unwrap_or_default();
    Ok(Stamps { by_path: all.into_iter().collect(), newest })
}

/// When an inode was changed last, as stamps count.
pub fn last_change(found: &Stat) -> i128 {
    i128::from(found.st_ctime) * 1_000_000_000 + i128::from(found.st_ctime_nsec)
}

const MASK: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

fn folder(root: impl AsFd, path: &LayerPath) -> Result<Vec<(LayerPath, Stamp)>, ScanError> {
    let open = beneath::open_folder(root.as_fd(), path).map_err(failed("open", path))?;
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let stamp = |(name, _)| {
        let below = child(path, name)?;
        let stat = statx(&open, below.name(), flags, MASK).map_err(failed("statx", &below))?;
        Ok((below, Stamp::of(&stat)))
    };
    let names = names(&open, path)?;
    match names.len() {
        ..FEW_NAMES => names.into_iter().map(stamp).collect(),
        _ => names.into_par_iter().with_min_len(64).map(stamp).collect(),
    }
}
