//! Which files may be somebody else's than root's, so that of all others nothing needs to be read to know that they are root's.
//!
//! A compiler looks at hundreds of files for each that it compiles, and hardly any is not root's. An inode's number is had by one
//! call, a record by several more. Overlayfs keeps the number of a file that it copies up, where that has one name. A file that
//! gets more of them is shown by the number that it has in the upper folder; of one that has several in the layers below
//! it cannot be said which number it will have, and then nothing is spared. Links, pipes and sockets have the number of the
//! layers below, or their time ([`super::record::is_copy`]), until one of them is in the table of records.

use std::cell::RefCell;
use std::collections::BTreeSet;

use rustix::fs::{AtFlags, FileType, Statx, statx};

use super::owners::{Below, Owners};
use super::record::{INODE, Number, Records, kind, number, time};
use super::view::{View, last_name};

/// The files that are to be looked at closely.
#[derive(Debug, Default)]
pub(crate) struct Suspects {
    /// None: all of them.
    known: Option<Known>,
    /// The last names of those in the layers below; none: any.
    names: Option<BTreeSet<Vec<u8>>>,
}

#[derive(Debug, Default)]
struct Known {
    /// In the layers below, or recorded since. A number that is used again is one too many, which does no harm.
    numbers: RefCell<BTreeSet<Number>>,
    /// Those of the layers that are neither files nor folders: their copies have other numbers.
    times: BTreeSet<(i64, u32)>,
}

impl Suspects {
    /// Those in a root that nobody has changed yet.
    pub fn of(view: &View, owners: &dyn Owners, records: &Records) -> Suspects {
        let Some(foreign) = owners.foreign() else { return Suspects::default() };
        let names = foreign.iter().map(|(path, _)| last_name(path).to_vec()).collect();
        Suspects { known: Known::of(view, foreign, records), names: Some(names) }
    }

    /// Whether one of the layers below may be at this path.
    pub fn may_be_at(&self, path: &[u8]) -> bool {
        self.names.as_ref().is_none_or(|names| names.contains(last_name(path)))
    }

    /// One more.
    pub fn add(&self, found: &Statx) {
        if let Some(known) = &self.known {
            known.numbers.borrow_mut().insert(number(found));
        }
    }

    /// One more, as it will be shown when it has one more name.
    pub fn add_linked(&self, shown: &Statx, in_upper: &Statx) {
        self.add(in_upper);
        if let Some(known) = &self.known {
            known.numbers.borrow_mut().insert((shown.stx_dev_major, shown.stx_dev_minor, in_upper.stx_ino));
        }
    }

    /// Whether this is one, in the step's root. `others` says that some have no record and are known by numbers that only the
    /// file system below has.
    pub fn has(&self, found: &Statx, others: bool) -> bool {
        let Some(known) = &self.known else { return true };
        others && !is_plain(found)
            || known.numbers.borrow().contains(&number(found))
            || !is_plain(found) && known.times.contains(&time(found))
    }

    /// Whether this is one, in a mount or nowhere. A file of a mount may have a record from before; what can have none has been
    /// noted since the step began.
    pub fn has_elsewhere(&self, found: &Statx) -> bool {
        let known = self.known.as_ref().map(|known| known.numbers.borrow());
        is_plain(found) || known.is_none_or(|known| known.contains(&number(found)))
    }
}

impl Known {
    /// None where it cannot be said of one which number it will have.
    fn of(view: &View, foreign: Vec<(Vec<u8>, Below)>, records: &Records) -> Option<Known> {
        let mut known = Known {
            numbers: records.numbers().into_iter().collect::<BTreeSet<_>>().into(),
            ..Known::default()
        };
        for (path, below) in foreign {
            let path = if path.is_empty() { b"." } else { &path[..] };
            // What cannot be looked at here cannot be by the step.
            let Ok(found) = statx(view.root(), path, AtFlags::SYMLINK_NOFOLLOW, INODE) else { continue };
            if is_linked(&found) {
                return None;
            }
            known.numbers.get_mut().insert(number(&found));
            if !is_plain(&found) {
                known.times.insert(below.modified);
            }
        }
        Some(known)
    }
}

fn is_plain(found: &Statx) -> bool {
    matches!(kind(found), FileType::RegularFile | FileType::Directory)
}

fn is_linked(found: &Statx) -> bool {
    kind(found) == FileType::RegularFile && found.stx_nlink > 1
}
