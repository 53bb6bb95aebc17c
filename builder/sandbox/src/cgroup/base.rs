//! Where groups are made.
//!
//! Version 1: below the group that this process is in. Any group may have both processes and groups.
//!
//! Version 2: a group that gives controllers to groups below it may have no processes itself, the very first group
//! excepted. So it is the group of this process where it is the only one in it, which then moves into a group below; else the
//! nearest one above in which it can be done. Root on a machine with systemd ends up in its slice, a process that was
//! started with `Delegate=yes` in its own scope, and everybody else nowhere.

use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};

use super::CgroupError;
use super::folder::{BuildFolder, locked, put, remove};
use super::hierarchy::Hierarchy;
use super::settings::{Controller, Version};

const GIVEN: &str = "cgroup.subtree_control";
const AVAILABLE: &str = "cgroup.controllers";
const PROCESSES: &str = "cgroup.procs";

/// Whether groups of the hierarchy can have a controller at all.
pub(crate) fn has(hierarchy: &Hierarchy, controller: Controller) -> bool {
    lists(&hierarchy.mount.join(AVAILABLE), controller)
}

fn lists(file: &Path, controller: Controller) -> bool {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.split_whitespace().any(|name| name == controller.name())
}

/// The group that a user names, below the first one; made if it is not there, and given the controllers.
pub(crate) fn parent(
    mount: &Path,
    parent: &Path,
    controllers: &[Controller],
) -> Result<PathBuf, CgroupError> {
    let mut folder = mount.to_owned();
    give(&folder, controllers)?;
    for part in parent.components() {
        let Component::Normal(part) = part else { continue };
        let above = folder.clone();
        folder.push(part);
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(CgroupError::NotOurs { folder: above, source: error });
            }
            _ => {}
        }
        // Also one that somebody has made and not filled in, which is good for nothing.
        if controllers.is_empty() && has_empty_sets(&folder) {
            super::folder::inherit_sets(&above, &folder)?;
        }
        give(&folder, controllers)?;
    }
    Ok(folder)
}

/// Whether it is a cpuset of version 1 that takes no process.
fn has_empty_sets(folder: &Path) -> bool {
    let is_empty = |name| fs::read_to_string(folder.join(name)).is_ok_and(|text| text.trim().is_empty());
    is_empty("cpuset.cpus") || is_empty("cpuset.mems")
}

/// The build's group in the hierarchy of version 2, whose groups can have these controllers.
pub(crate) fn unified(
    hierarchy: &Hierarchy,
    named: Option<&Path>,
    controllers: Vec<Controller>,
) -> Result<(BuildFolder, Option<MovedAway>), CgroupError> {
    if let Some(named) = named {
        let base = parent(&hierarchy.mount, named, &controllers)?;
        return Ok((below(&base, controllers)?, None));
    }
    let mut first_failure = None;
    let above = hierarchy.own.ancestors().take_while(|folder| folder.starts_with(&hierarchy.mount));
    for folder in above {
        let given = give_down_to(&hierarchy.mount, folder, &controllers, folder == hierarchy.own);
        match given.and_then(|moved| Ok((below(folder, controllers.clone())?, moved))) {
            Ok(made) => return Ok(made),
            Err(failure) => {
                first_failure.get_or_insert(failure);
            }
        }
    }
    Err(first_failure.unwrap_or(CgroupError::Occupied { folder: hierarchy.own.clone() }))
}

fn below(base: &Path, controllers: Vec<Controller>) -> Result<BuildFolder, CgroupError> {
    let made = BuildFolder::make(base, Version::Two, controllers)?;
    give(made.path(), made.controllers())?;
    Ok(made)
}

/// Lets groups in `folder` have the controllers, from the first group down.
fn give_down_to(
    mount: &Path,
    folder: &Path,
    controllers: &[Controller],
    is_own: bool,
) -> Result<Option<MovedAway>, CgroupError> {
    let mut above: Vec<&Path> = folder.ancestors().take_while(|one| one.starts_with(mount)).collect();
    above.reverse();
    let last = above.pop().unwrap_or(folder);
    above.into_iter().try_for_each(|one| give(one, controllers))?;
    match give(last, controllers) {
        Err(CgroupError::Occupied { .. }) if is_own => {
            let moved = MovedAway::from(last, controllers)?;
            give(last, controllers)?;
            Ok(Some(moved))
        }
        other => other.map(|()| None),
    }
}

/// Lets groups right below have the controllers.
fn give(folder: &Path, controllers: &[Controller]) -> Result<(), CgroupError> {
    let file = folder.join(GIVEN);
    let missing: Vec<&Controller> = controllers.iter().filter(|one| !lists(&file, **one)).collect();
    for controller in missing {
        match put(&file, &format!("+{}", controller.name())) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                return Err(CgroupError::Occupied { folder: folder.to_owned() });
            }
            Err(source) => return Err(CgroupError::NotOurs { folder: folder.to_owned(), source }),
        }
    }
    Ok(())
}

/// This process in a group below the one that it was in, with those that it has started. Dropped, all is as it was.
#[derive(Debug)]
pub(crate) struct MovedAway {
    own: PathBuf,
    leaf: PathBuf,
    controllers: Vec<Controller>,
    /// Says that somebody is in there.
    _lock: File,
}

impl MovedAway {
    /// Moves. Whoever else is in the group stays, and nothing is moved then.
    fn from(own: &Path, controllers: &[Controller]) -> Result<MovedAway, CgroupError> {
        let file = own.join(PROCESSES);
        let text = fs::read_to_string(&file).map_err(|source| CgroupError::Unreadable { file, source })?;
        let processes: Vec<&str> = text.lines().collect();
        if !processes.iter().all(|process| is_ours(process)) {
            return Err(CgroupError::Occupied { folder: own.to_owned() });
        }
        let not_ours = |source| CgroupError::NotOurs { folder: own.to_owned(), source };
        let (leaf, lock) = locked(own).map_err(not_ours)?;
        let moved = MovedAway { own: own.to_owned(), leaf, controllers: controllers.to_vec(), _lock: lock };
        for process in processes {
            put(&moved.leaf.join(PROCESSES), process).map_err(not_ours)?;
        }
        Ok(moved)
    }
}

impl Drop for MovedAway {
    fn drop(&mut self) {
        // As long as groups below may have controllers, nobody gets back. What cannot be undone is left to the next build.
        for controller in &self.controllers {
            let _given = put(&self.own.join(GIVEN), &format!("-{}", controller.name()));
        }
        let text = fs::read_to_string(self.leaf.join(PROCESSES)).unwrap_or_default();
        for process in text.lines() {
            let _moved = put(&self.own.join(PROCESSES), process);
        }
        remove(&self.leaf);
    }
}

/// Whether a process is this one or a child of it.
fn is_ours(process: &str) -> bool {
    let own = std::process::id().to_string();
    let status = || fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let parent = |status: String| {
        status.lines().find_map(|line| line.strip_prefix("PPid:").map(|pid| pid.trim() == own))
    };
    process == own || parent(status()).unwrap_or(false)
}
