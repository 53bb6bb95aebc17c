//! `/proc/PID/status` of processes that seem to be somebody else: a made file is mounted over the kernel's.
//!
//! The mount is one of the step's mount namespace, and goes with the process: the kernel takes away what is mounted below
//! `/proc/PID` when that is gone. The file says what the kernel's said when it was made, but for ids and capabilities.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, openat, statx, unlinkat};
use rustix::io::{Errno, write};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create,
    fsmount, fsopen, move_mount, open_tree, unmount,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::credentials::{Credentials, Ids};
use super::view::View;

/// The made files.
#[derive(Default)]
pub(crate) struct Statuses {
    /// Where they are made, once one is.
    store: Option<OwnedFd>,
    /// Processes that had one, by their numbers in the step.
    shown: BTreeSet<u32>,
    /// Set where it cannot be done: the step's `/proc` is another one, or this is Linux before 6.15.
    never: bool,
}

impl Statuses {
    /// Has a thread's process look like this. Where that cannot be, it looks like root, which is nothing to fail for.
    pub fn show(&mut self, view: &View, thread: u32, who: &Credentials) {
        let root = Ids::all(0);
        let is_plain = (who.user, who.group) == (root, root);
        if self.never || is_plain && self.shown.is_empty() {
            return;
        }
        if let Err(Errno::PERM | Errno::INVAL | Errno::NOSYS) = self.replace(view, thread, who, is_plain) {
            self.never = true;
        }
    }

    fn replace(&mut self, view: &View, thread: u32, who: &Credentials, is_plain: bool) -> Result<(), Errno> {
        let Some(text) = view.whole_status(thread) else { return Ok(()) };
        let inner = line(&text, "NStgid").and_then(|numbers| numbers.split_whitespace().last()?.parse().ok());
        let Some(inner) = inner else { return Ok(()) };
        if is_plain && !self.shown.contains(&inner) {
            return Ok(());
        }
        self.enter(view, thread)?;
        let path = format!("/proc/{inner}/status");
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mount_of = |path: &str| -> Result<u64, Errno> {
            let file = openat(view.root(), path, flags, Mode::empty())?;
            Ok(statx(&file, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?.stx_mnt_id)
        };
        if mount_of(&path)? != mount_of("/proc")? {
            unmount(&path, UnmountFlags::DETACH)?;
            self.shown.remove(&inner);
        }
        if is_plain {
            return Ok(());
        }
        let target = openat(view.root(), &path, flags, Mode::empty())?;
        let store = self.store.as_ref().ok_or(Errno::INVAL)?;
        mount(store, changed(&text, who).as_bytes(), &target)?;
        self.shown.insert(inner);
        Ok(())
    }

    /// Goes into the step's mount namespace, where mounts can be made, and makes a file system for the files: both once.
    fn enter(&mut self, view: &View, thread: u32) -> Result<(), Errno> {
        if self.store.is_some() {
            return Ok(());
        }
        let namespace = view.of_process(thread, "ns/mnt", OFlags::RDONLY)?;
        let moved = move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount));
        // Which has taken this thread to the root of that.
        view.go_back()?;
        moved?;
        let context = fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(context.as_fd())?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let store = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
        self.store = Some(store);
        Ok(())
    }
}

/// Makes a file with this text, and mounts it.
fn mount(store: &OwnedFd, text: &[u8], at: &OwnedFd) -> Result<(), Errno> {
    const NAME: &CStr = c"status";
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = openat(store, NAME, flags, Mode::from_raw_mode(0o444))?;
    let mounted = || {
        write(&file, text)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let clone = open_tree(store, NAME, flags)?;
        let both = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&clone, c"", at, c"", both)
    };
    let mounted = mounted();
    // The mount needs no name.
    unlinkat(store, NAME, AtFlags::empty())?;
    mounted
}

fn line<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

/// The text with other ids and capabilities.
fn changed(text: &str, who: &Credentials) -> String {
    let ids = |ids: &Ids| format!("{}\t{}\t{}\t{}", ids.real, ids.effective, ids.saved, ids.file_system);
    let set = |set: u64| format!("{set:016x}");
    let mut made = String::with_capacity(text.len() + 64);
    for line in text.lines() {
        let (name, value) = line.split_once(":\t").unwrap_or((line, ""));
        let new = match name {
            "Uid" => ids(&who.user),
            "Gid" => ids(&who.group),
            // Each number is followed by a blank.
            "Groups" => who.groups.iter().map(|gid| format!("{gid} ")).collect(),
            "CapInh" => set(who.inheritable),
            "CapPrm" => set(who.permitted),
            "CapEff" => set(who.effective),
            "CapBnd" => set(who.bounding),
            _ => value.to_owned(),
        };
        made.push_str(&format!("{name}:\t{new}\n"));
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_capabilities_are_changed_and_nothing_else() {
        let text = "Name:\tsh\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nGroups:\t65534 \nNStgid:\t77\t5\n\
                    CapInh:\t0000000000000000\nCapPrm:\t000001ffffffffff\nSeccomp:\t2\n";
        let who = Credentials::of_step(1000, 1001, &[50, 7], 0xff);
        let expected = "Name:\tsh\nUid:\t1000\t1000\t1000\t1000\nGid:\t1001\t1001\t1001\t1001\nGroups:\t7 50 \n\
                        NStgid:\t77\t5\nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nSeccomp:\t2\n";
        assert_eq!(changed(text, &who), expected);
    }
}
