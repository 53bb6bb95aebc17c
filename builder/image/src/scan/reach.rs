//! Which paths of a context the sources of a build can reach.
//!
//! Nothing else is read: a context of a hundred thousand files costs nothing where a build copies three.

use std::{
    collections::{BTreeSet, VecDeque},
    os::fd::BorrowedFd,
};

use rustix::{
    fs::{FileType, readlinkat},
    io::Errno,
};
use tree::{
    LayerPath, MAX_LINKS,
    glob::{Glob, contains_wildcard},
};

use super::{ScanError, Visit, child, failed, names, stat};
use crate::beneath;

/// The paths that some sources can reach in a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Reached with all below them.
    whole: BTreeSet<LayerPath>,
    /// Links on the way there.
    links: BTreeSet<LayerPath>,
}

impl Reach {
    /// Finds what `sources`, as they are written in `COPY`, `ADD` and bind mounts, can reach below an open
    /// folder. Their wildcards and the links on their ways are followed, inside the root; links at and below
    /// what they name are not.
    ///
    /// A source with `**` reaches all below the folder in which that stands, and one whose links go in a
    /// circle nothing.
    ///
    /// # Errors
    /// [`ScanError`] where a folder cannot be read. What does not exist is no error.
    pub fn of(root: BorrowedFd<'_>, sources: &[&[u8]]) -> Result<Reach, ScanError> {
        let mut reach = Reach::default();
        for source in sources {
            let parts = source.split(|b| *b == b'/').map(<[u8]>::to_vec);
            reach.follow(root, LayerPath::root(), parts.collect(), 0)?;
        }
        Ok(reach)
    }

    /// All of it.
    pub fn everything() -> Reach {
        Reach { whole: BTreeSet::from([LayerPath::root()]), links: BTreeSet::new() }
    }

    /// What a scan does with a path.
    pub fn visit(&self, path: &LayerPath, is_folder: bool) -> Visit {
        if self.whole.contains(&LayerPath::root()) || self.links.contains(path) || self.whole.contains(path) {
            return Visit::Take;
        }
        let bytes = path.as_bytes();
        let mut above = (0..bytes.len()).filter(|at| bytes[*at] == b'/').map(|at| &bytes[..at]);
        if above.any(|folder| self.whole.contains(folder)) {
            return Visit::Take;
        }
        let inside = |set: &BTreeSet<LayerPath>| {
            let mut after = set.range(path.clone()..).take_while(|one| one.as_bytes().starts_with(bytes));
            after.any(|one| one.below(path).is_some())
        };
        if is_folder && (inside(&self.whole) || inside(&self.links)) { Visit::Descend } else { Visit::Skip }
    }

    fn follow(
        &mut self,
        root: BorrowedFd<'_>,
        mut at: LayerPath,
        mut ahead: VecDeque<Vec<u8>>,
        mut links: usize,
    ) -> Result<(), ScanError> {
        while let Some(part) = ahead.pop_front() {
            match part.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    at = at.parent().unwrap_or_default();
                    continue;
                }
                _ => {}
            }
            let folder = match beneath::open_folder(root, &at) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
                other => other.map_err(failed("open", &at))?,
            };
            if part.windows(2).any(|two| two == b"**") {
                break;
            }
            // A link's target has no wildcards, but a name that reads as one is then found as itself.
            if contains_wildcard(&part) {
                let Ok(glob) = Glob::parse(&part) else { return Ok(()) };
                for (name, _) in names(&folder, &at)? {
                    if glob.matches(&name) {
                        self.literal(root, &at, &name, &ahead, links)?;
                    }
                }
                return Ok(());
            }
            let Ok(next) = child(&at, part) else { return Ok(()) };
            let Some(target) = self.link(&folder, &next)? else {
                at = next;
                continue;
            };
            links += 1;
            if links > MAX_LINKS {
                return Ok(());
            }
            if target.starts_with(b"/") {
                at = LayerPath::root();
            }
            for part in target.split(|b| *b == b'/').rev() {
                ahead.push_front(part.to_vec());
            }
        }
        self.whole.insert(at);
        Ok(())
    }

    /// Goes on through a name that a wildcard matched.
    fn literal(
        &mut self,
        root: BorrowedFd<'_>,
        at: &LayerPath,
        name: &[u8],
        ahead: &VecDeque<Vec<u8>>,
        links: usize,
    ) -> Result<(), ScanError> {
        let next = child(at, name.to_vec())?;
        let folder = beneath::open_folder(root, at).map_err(failed("open", at))?;
        match self.link(&folder, &next)? {
            None => self.follow(root, next, ahead.clone(), links),
            Some(_) if links >= MAX_LINKS => Ok(()),
            Some(target) => {
                let from = if target.starts_with(b"/") { LayerPath::root() } else { at.clone() };
                let mut parts: VecDeque<Vec<u8>> = target.split(|b| *b == b'/').map(<[u8]>::to_vec).collect();
                parts.extend(ahead.iter().cloned());
                self.follow(root, from, parts, links + 1)
            }
        }
    }

    /// The target of a link, which is noted; none for all else, also for what does not exist.
    fn link(
        &mut self,
        folder: &impl std::os::fd::AsFd,
        path: &LayerPath,
    ) -> Result<Option<Vec<u8>>, ScanError> {
        let found = match stat(folder, path.name(), path) {
            Err(ScanError::Call { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Ok(None);
            }
            other => other?,
        };
        if FileType::from_raw_mode(found.stx_mode.into()) != FileType::Symlink {
            return Ok(None);
        }
        self.links.insert(path.clone());
        let target = readlinkat(folder, path.name(), Vec::new()).map_err(failed("readlink", path))?;
        Ok(Some(target.into_bytes()))
    }
}
