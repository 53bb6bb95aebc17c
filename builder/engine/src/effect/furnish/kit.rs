//! `/dev` and `/proc` as they lie in a step's root: made once, and lent to one step after the other.
//!
//! A step may do with them what it likes. What it wrote to is no other's: all inodes say when they last changed, which nobody can
//! set, and a kit is lent again only if it is as it was made. One that was lent before the clock of inodes had gone on after it was
//! made is lent once.

use std::{
    ffi::OsStr,
    fs::create_dir,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use image::{
    folder::remove_tree,
    working_root::{Stamps, last_change, walk},
};
use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, fchmod, lgetxattr, llistxattr, openat, renameat, statat},
    io::Errno,
};

use super::kernel_files;
use crate::error::Cause;

const PARTS: [&str; 2] = ["dev", "proc"];

/// The kits that no step has.
#[derive(Clone, Default)]
pub(crate) struct Kits(Arc<Mutex<Vec<Kit>>>);

/// Names, each ended by a NUL, and of each the value, or why it cannot be read.
type Attributes = (Vec<u8>, Vec<Result<Vec<u8>, Errno>>);

/// Folders to be moved into a root.
struct Kit {
    folder: PathBuf,
    parts: [Part; PARTS.len()],
    has_devices: bool,
}

struct Part {
    name: &'static str,
    stamps: Stamps,
    /// The attributes of the folder itself, whose times say nothing: it is changed by being moved.
    attributes: Attributes,
}

/// A kit that a step has.
pub(super) struct Lent {
    kit: Kit,
    kits: Kits,
    /// Whether a change since would be seen.
    is_certain: bool,
}

impl Kits {
    /// Makes one ahead, where there is none.
    pub(crate) fn make_ready(&self, folder: impl FnOnce() -> Result<PathBuf, Cause>) -> Result<(), Cause> {
        if self.lock().is_empty() {
            let kit = Kit::make(folder()?)?;
            self.lock().push(kit);
        }
        Ok(())
    }

    /// Lends one.
    pub(super) fn lend(&self, folder: impl FnOnce() -> Result<PathBuf, Cause>) -> Result<Lent, Cause> {
        let kept = self.lock().pop();
        let kit = kept.map_or_else(|| Kit::make(folder()?), Ok)?;
        Ok(Lent { kit, kits: self.clone(), is_certain: true })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Kit>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kit {
    fn make(folder: PathBuf) -> Result<Kit, Cause> {
        let mut has_devices = false;
        let mut part = |name: &str| -> std::io::Result<Attributes> {
            let path = folder.join(name);
            create_dir(&path)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let open = openat(CWD, &path, flags, Mode::empty())?;
            fchmod(&open, Mode::from_raw_mode(0o755))?;
            match name {
                "dev" => has_devices = kernel_files::fill_dev(&open)?,
                _ => kernel_files::fill_proc(&open)?,
            }
            Ok(attributes_of(&path)?)
        };
        let mut made = |name: &'static str| {
            let path = folder.join(name);
            let attributes = part(name).map_err(Cause::io("fill", &path))?;
            Ok::<_, Cause>(Part { name, stamps: walk(&path)?, attributes })
        };
        let [dev, proc] = PARTS.map(&mut made);
        Ok(Kit { parts: [dev?, proc?], folder, has_devices })
    }

    /// What cannot be looked at, such as a path that is too long, no kit had when it was made.
    fn is_as_made(&self) -> bool {
        self.parts.iter().all(|Part { name, stamps, attributes }| {
            let path = self.folder.join(name);
            // A step can have put something else there.
            path.symlink_metadata().is_ok_and(|found| found.is_dir())
                && attributes_of(&path).is_ok_and(|found| found == *attributes)
                && walk(&path).is_ok_and(|now| now.are_of_the_same(stamps))
        })
    }
}

impl Lent {
    /// Whether the devices in it can be used.
    pub fn has_devices(&self) -> bool {
        self.kit.has_devices
    }

    /// Where a part is while no step has it.
    pub fn home(&self, part: &str) -> PathBuf {
        self.kit.folder.join(part)
    }

    /// Moves a part from there.
    pub fn put(&mut self, part: &str, parent: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
        renameat(CWD, self.home(part), parent, name)?;
        let now = last_change(&statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?);
        self.is_certain &= self.kit.parts.iter().all(|part| part.stamps.is_older(now));
        Ok(())
    }

    /// Takes it back when all parts are at home.
    pub fn give_back(self) -> Result<(), Cause> {
        let Lent { kit, kits, is_certain } = self;
        if is_certain && kit.is_as_made() {
            kits.lock().push(kit);
            return Ok(());
        }
        remove_tree(&kit.folder).map_err(Cause::io("remove", kit.folder))
    }
}

fn attributes_of(folder: &Path) -> Result<Attributes, Errno> {
    let mut names = vec![0; 4096];
    match llistxattr(folder, &mut names[..]) {
        Ok(length) => names.truncate(length),
        Err(Errno::OPNOTSUPP) => names.clear(),
        Err(errno) => return Err(errno),
    }
    let value = |name| {
        let mut value = vec![0; 4096];
        let length = lgetxattr(folder, name, &mut value[..])?;
        value.truncate(length);
        Ok(value)
    };
    let values = names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(value).collect();
    Ok((names, values))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, thread::sleep, time::Duration};

    use rustix::fs::mkdirat;

    use super::*;

    /// Lends a kit to somebody who does something with it, and says how many can be lent then without making one.
    fn left_after(what: impl FnOnce(&Path)) -> usize {
        let folder = tempfile::tempdir().expect("a folder");
        let kits = Kits::default();
        let new = || {
            let path = folder.path().join("kit");
            fs::create_dir(&path).map(|()| path.clone()).map_err(Cause::io("create", path))
        };
        kits.make_ready(new).expect("made");
        // Longer than the clock of a file system may stand still.
        sleep(Duration::from_millis(50));
        let root = folder.path().join("root");
        fs::create_dir(&root).expect("made");
        let open = openat(CWD, &root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).expect("it is there");
        let mut lent = kits.lend(|| panic!("there is one")).expect("lent");
        for part in PARTS {
            lent.put(part, &open, OsStr::new(part)).expect("moved");
        }
        what(&root);
        for part in PARTS {
            fs::rename(root.join(part), lent.home(part)).expect("moved back");
        }
        lent.give_back().expect("given back");
        kits.lock().len()
    }

    #[test]
    fn what_a_step_wrote_to_is_no_other_steps() {
        let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        if !map.split_whitespace().eq(["0", "0", "4294967295"]) {
            return println!("SKIP furnish::kit: needs root: what is kept has devices");
        }
        let file = "proc/self/mounts";
        assert_eq!(left_after(|root| drop(fs::read(root.join(file)))), 1);
        type Change<'a> = &'a dyn Fn(&Path);
        let table: [(&str, Change<'_>); 7] = [
            ("too deep", &|root| {
                let mut at =
                    openat(CWD, root.join("dev/shm"), OFlags::PATH, Mode::empty()).expect("it is there");
                for _ in 0..30 {
                    let name = "d".repeat(200);
                    mkdirat(&at, &name, Mode::RWXU).expect("made");
                    at = openat(&at, &name, OFlags::PATH, Mode::empty()).expect("made");
                }
            }),
            ("written", &|root| {
                let time = fs::metadata(root.join(file)).and_then(|found| found.modified()).expect("a time");
                let old = fs::read(root.join(file)).expect("read");
                let new: Vec<u8> = old.iter().map(|byte| byte ^ 1).collect();
                fs::write(root.join(file), new).expect("written");
                let open = fs::File::open(root.join(file)).expect("opened");
                open.set_modified(time).expect("set");
            }),
            ("added", &|root| fs::write(root.join("dev/shm/left"), "").expect("written")),
            ("removed", &|root| fs::remove_file(root.join("dev/fd")).expect("removed")),
            ("linked", &|root| fs::hard_link(root.join(file), root.join("mine")).expect("linked")),
            ("another folder", &|root| {
                fs::rename(root.join("dev"), root.join("old")).expect("moved");
                fs::create_dir(root.join("dev")).expect("made");
            }),
            ("a link", &|root| {
                fs::rename(root.join("dev"), root.join("old")).expect("moved");
                symlink("/", root.join("dev")).expect("linked");
            }),
        ];
        for (name, what) in table {
            assert_eq!(left_after(what), 0, "{name}");
        }
    }
}
