//! What can be done in a user namespace: tried by a process in namespaces like those of a step, which mounts nothing anywhere.

use std::{
    ffi::CStr,
    io,
    io::{Read, Write},
    os::{fd::AsFd, unix::net::UnixStream},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, fsconfig_create, fsmount, fsopen,
    mount_change,
};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::folder::{self, Folders};
use super::lack::Lack;
use super::why;
use crate::sys::{self, Cloned};
use crate::{Kernel, Namespaces, RootKind};

/// What was found.
#[derive(Clone, Debug)]
pub(super) struct Inside {
    /// Facts about the kernel, as a step will find them.
    pub kernel: Kernel,
    /// Why layers cannot be stacked in this state folder.
    pub no_overlay: Option<NoOverlay>,
}

/// Why layers cannot be stacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoOverlay {
    /// What was tried.
    pub call: &'static str,
    /// The error.
    pub errno: i32,
}

/// The answer: nine facts, and the numbers of two errors.
const FACTS: usize = 9;
const ANSWER: usize = FACTS + 2 * size_of::<i32>();

/// Tries it, for a state folder that may not be there yet, in which files are to have the owners of images if `has_owners`.
pub(super) fn look(root: &Path, has_owners: bool) -> Result<Inside, Lack> {
    let host = |call| move |source: io::Error| Lack::Host { call, source };
    let folders = Folders::make(root);
    folder::check(root, folders.as_ref(), has_owners)?;
    let (mut ours, mut theirs) = UnixStream::pair().map_err(host("socketpair"))?;
    let blocked = sys::block_signals();
    let flags = Namespaces::of_a_step(true).bits() as i32;
    let process = match sys::clone_process(flags, None) {
        Err(errno) => return Err(why::powerless("clone3 into new namespaces", errno.into())),
        Ok(Cloned::Child) => {
            drop(ours);
            let _ended = catch_unwind(AssertUnwindSafe(|| theirs.write_all(&answer(folders.as_ref()))));
            sys::exit(0)
        }
        Ok(Cloned::Parent(process)) => process,
    };
    drop((blocked, theirs));
    let mut answer = [0; ANSWER];
    let heard = ours.read_exact(&mut answer);
    let options = WaitIdOptions::EXITED | WaitIdOptions::from_bits_retain(libc::__WALL as u32);
    while matches!(waitid(WaitId::PidFd(process.as_fd()), options), Err(Errno::INTR)) {}
    heard.map_err(host("recv"))?;
    let no_marks = folders.as_ref().and_then(Folders::no_marks);
    let (mut inside, no_mounts) = decode(&answer);
    if no_mounts != 0 {
        return Err(why::powerless("mount(MS_PRIVATE)", io::Error::from_raw_os_error(no_mounts)));
    }
    inside.no_overlay = inside.no_overlay.or(no_marks);
    Ok(inside)
}

/// What the process finds.
fn answer(folders: Option<&Folders>) -> [u8; ANSWER] {
    let kernel = Kernel::probe();
    let facts = [
        kernel.new_mount_api,
        kernel.lowerdir_append,
        kernel.mount_setattr,
        kernel.seccomp,
        kernel.unified_cgroup,
        kernel.root == RootKind::Chroot,
        kernel.root == RootKind::Initramfs,
        mounts(c"proc").is_ok(),
        mounts(c"sysfs").is_ok(),
    ];
    let number = |tried: Result<(), Errno>| tried.err().map_or(0, Errno::raw_os_error).to_ne_bytes();
    let overlay = number(folders.map_or(Ok(()), Folders::stack));
    // The first that a step does. AppArmor asks at calls of old, and not at those above.
    let mounts = number(mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC));
    let mut answer = [0; ANSWER];
    for (place, byte) in answer.iter_mut().zip(facts.map(u8::from).into_iter().chain(overlay).chain(mounts)) {
        *place = byte;
    }
    answer
}

/// What the process found, and the number of the error with which it may mount nothing.
fn decode(answer: &[u8; ANSWER]) -> (Inside, i32) {
    let [new_mount_api, lowerdir_append, mount_setattr, seccomp, unified_cgroup, rest @ ..] = answer;
    let [chroot, initramfs, proc, sysfs, a, b, c, d, mounts @ ..] = rest;
    let root = match (*chroot, *initramfs) {
        (1, _) => RootKind::Chroot,
        (_, 1) => RootKind::Initramfs,
        _ => RootKind::Mount,
    };
    let errno = i32::from_ne_bytes([*a, *b, *c, *d]);
    let inside = Inside {
        kernel: Kernel {
            new_mount_api: *new_mount_api == 1,
            lowerdir_append: *lowerdir_append == 1,
            mount_setattr: *mount_setattr == 1,
            make_devices: false,
            // No device can be opened on a file system that was mounted in a user namespace.
            filters_devices: true,
            seccomp: *seccomp == 1,
            unified_cgroup: *unified_cgroup == 1,
            mounts_proc: *proc == 1,
            mounts_sysfs: *sysfs == 1,
            root,
        },
        no_overlay: (errno != 0).then_some(NoOverlay { call: "mount(overlay)", errno }),
    };
    (inside, i32::from_ne_bytes(*mounts))
}

/// Whether a file system of this type can be mounted; it is attached nowhere.
fn mounts(kind: &CStr) -> Result<(), Errno> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags).map(drop)
}
