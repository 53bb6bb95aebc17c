//! The folder of a build's groups: made, locked, removed; those of builds that are gone are removed with it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::CgroupError;
use super::settings::{Controller, Setting, Version};

/// Names of folders that are ours begin with this; what follows is a process id and a number.
const PREFIX: &str = "kiln.";
/// How often the kernel is asked to remove a group whose last process it is still taking apart, and how long it is left alone.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(2);

/// A group that holds the groups of a build's steps.
#[derive(Debug)]
pub(crate) struct BuildFolder {
    path: PathBuf,
    version: Version,
    controllers: Vec<Controller>,
    /// Says that the build lives.
    _lock: File,
}

impl BuildFolder {
    /// Makes one in `base`, and removes what builds that are gone have left there.
    pub fn make(
        base: &Path,
        version: Version,
        controllers: Vec<Controller>,
    ) -> Result<BuildFolder, CgroupError> {
        sweep(base);
        let (path, lock) =
            locked(base).map_err(|source| CgroupError::NotOurs { folder: base.to_owned(), source })?;
        let made = BuildFolder { path, version, controllers, _lock: lock };
        if version == Version::One && made.controllers.contains(&Controller::Cpuset) {
            inherit_sets(base, &made.path)?;
        }
        Ok(made)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn version(&self) -> Version {
        self.version
    }

    pub fn controllers(&self) -> &[Controller] {
        &self.controllers
    }
}

impl Drop for BuildFolder {
    fn drop(&mut self) {
        for _ in 0..TRIES {
            remove_with_children(&self.path);
            if !self.path.exists() {
                return;
            }
            thread::sleep(PAUSE);
        }
        // Something is in it that is not ours to end. The next build tries again.
    }
}

/// Makes a folder of a new name, with a lock on it that ends with this process.
pub(crate) fn locked(base: &Path) -> io::Result<(PathBuf, File)> {
    let mut number = 0_u64;
    loop {
        let path = base.join(format!("{PREFIX}{}.{number}", std::process::id()));
        number += 1;
        match fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            other => other?,
        }
        // Between the two lines somebody may have taken it for one that was left, locked and removed it.
        let Ok(lock) = File::open(&path) else { continue };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() && is_at(&lock, &path) {
            return Ok((path, lock));
        }
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    matches!((file.metadata(), fs::metadata(path)), (Ok(one), Ok(other)) if one.ino() == other.ino())
}

/// Removes the folders of builds that are gone.
pub(crate) fn sweep(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    let left = entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(is_ours));
    for entry in left {
        let path = entry.path();
        let Ok(folder) = File::open(&path) else { continue };
        if flock(&folder, FlockOperation::NonBlockingLockExclusive).is_ok() {
            remove_with_children(&path);
        }
    }
}

fn is_ours(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let numbers = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('.'));
    numbers.is_some_and(|(pid, number)| is_number(pid) && is_number(number))
}

fn remove_with_children(path: &Path) {
    if let Ok(entries) = fs::read_dir(path) {
        let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        folders.for_each(|entry| remove(&entry.path()));
    }
    remove(path);
}

/// Removes a group. One that has processes stays, and nobody can do anything about it here.
pub(crate) fn remove(path: &Path) {
    let _busy = fs::remove_dir(path);
}

/// Writes into a control file, which must be there.
pub(crate) fn put(file: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(file)?.write_all(value.as_bytes())
}

/// Sets a limit.
pub(crate) fn write(folder: &Path, setting: &Setting) -> Result<(), CgroupError> {
    let file = folder.join(setting.file);
    match put(&file, &setting.value) {
        Err(error) if setting.optional && error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => {
            Err(CgroupError::Refused { limit: setting.limit, value: setting.value.clone(), file, source })
        }
        Ok(()) => Ok(()),
    }
}

/// A cpuset of version 1 begins with no processor and no memory, and takes no process then: it is given its parent's.
pub(crate) fn inherit_sets(parent: &Path, child: &Path) -> Result<(), CgroupError> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let from = parent.join(name);
        let unreadable = |source| CgroupError::Unreadable { file: from.clone(), source };
        let value = fs::read_to_string(&from).map_err(unreadable)?;
        put(&child.join(name), value.trim())
            .map_err(|source| CgroupError::NotOurs { folder: child.to_owned(), source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_are_removed() {
        for (name, ours) in [
            ("kiln.12.0", true),
            ("kiln.1.23", true),
            ("kiln-bench-11031", false),
            ("kiln.12", false),
            ("kiln.12.", false),
            ("kiln..1", false),
            ("kiln.a.1", false),
            ("docker", false),
        ] {
            assert_eq!(is_ours(name), ours, "{name}");
        }
    }

    #[test]
    fn what_a_build_left_goes_and_what_one_has_stays() {
        let base = tempfile::tempdir().expect("a folder");
        let left = base.path().join("kiln.1.0");
        fs::create_dir_all(left.join("7")).expect("made");
        fs::create_dir(base.path().join("other")).expect("made");
        let first = BuildFolder::make(base.path(), Version::Two, Vec::new()).expect("made");
        assert!(!left.exists());
        fs::create_dir(first.path().join("0")).expect("made");
        let second = BuildFolder::make(base.path(), Version::Two, Vec::new()).expect("made");
        assert!(first.path().join("0").exists() && second.path() != first.path());
        drop((first, second));
        let names: Vec<_> =
            fs::read_dir(base.path()).expect("read").flatten().map(|e| e.file_name()).collect();
        assert_eq!(names, ["other"]);
    }
}
