//! What can be done in a user namespace: tried by a process in namespaces like those of a step, which mounts nothing anywhere.

use std::{
    ffi::{CStr, CString},
    fs, io,
    io::{Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, net::UnixStream},
    },
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, Mode, OFlags, XattrFlags, flock, open, setxattr};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};
use rustix::process::{WaitId, WaitIdOptions, getpid, waitid};

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

/// The answer: nine facts, and an error's number.
const FACTS: usize = 9;
const ANSWER: usize = FACTS + size_of::<i32>();

/// Tries it, for a state folder that may not be there yet.
pub(super) fn look(root: &Path) -> Result<Inside, Lack> {
    let host = |call| move |source: io::Error| Lack::Host { call, source };
    let folders = Folders::make(root);
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
    let mut inside = decode(&answer);
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
    let overlay = folders.map_or(Ok(()), Folders::stack).err().map_or(0, Errno::raw_os_error);
    let mut answer = [0; ANSWER];
    let (first, last) = answer.split_at_mut(FACTS);
    for (place, fact) in first.iter_mut().zip(facts) {
        *place = u8::from(fact);
    }
    last.copy_from_slice(&overlay.to_ne_bytes());
    answer
}

fn decode(answer: &[u8; ANSWER]) -> Inside {
    let [new_mount_api, lowerdir_append, mount_setattr, seccomp, unified_cgroup, rest @ ..] = answer;
    let [chroot, initramfs, proc, sysfs, a, b, c, d] = rest;
    let root = match (*chroot, *initramfs) {
        (1, _) => RootKind::Chroot,
        (_, 1) => RootKind::Initramfs,
        _ => RootKind::Mount,
    };
    let errno = i32::from_ne_bytes([*a, *b, *c, *d]);
    Inside {
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
    }
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

/// Three empty folders in the state folder, locked, and gone when this is dropped.
struct Folders {
    top: PathBuf,
    paths: [CString; 3],
    _lock: Option<OwnedFd>,
}

impl Folders {
    /// None where they cannot be made: opening the state folder will say why.
    fn make(root: &Path) -> Option<Folders> {
        let tmp = root.join("tmp");
        // What is not there yet will most likely be on the same file system as what will hold it.
        let nearest = tmp.ancestors().find(|folder| folder.is_dir())?;
        sweep(nearest);
        let top = nearest.join(format!("{PREFIX}{}", getpid().as_raw_nonzero()));
        fs::create_dir(&top).ok()?;
        let made = ["lower", "upper", "work"].map(|name| {
            let path = top.join(name);
            fs::create_dir(&path).ok()?;
            CString::new(path.as_os_str().as_bytes()).ok()
        });
        let [Some(lower), Some(upper), Some(work)] = made else {
            let _gone = fs::remove_dir_all(&top);
            return None;
        };
        Some(Folders { _lock: lock(&top), top, paths: [lower, upper, work] })
    }

    /// Stacks them, as a step's layers are.
    fn stack(&self) -> Result<(), Errno> {
        let context = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (name, path) in [c"lowerdir", c"upperdir", c"workdir"].into_iter().zip(&self.paths) {
            fsconfig_set_string(&context, name, path)?;
        }
        fsconfig_set_string(&context, c"index", c"off")?;
        fsconfig_set_string(&context, c"xino", c"off")?;
        fsconfig_set_flag(&context, c"volatile")?;
        fsconfig_set_flag(&context, c"userxattr")?;
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).map(drop)
    }

    /// Whether an opaque folder cannot be marked.
    fn no_marks(&self) -> Option<NoOverlay> {
        let [_, upper, _] = &self.paths;
        let marked = setxattr(upper.as_c_str(), c"user.overlay.opaque", b"y", XattrFlags::empty());
        marked
            .err()
            .map(|errno| NoOverlay { call: "setxattr(user.overlay.opaque)", errno: errno.raw_os_error() })
    }
}

/// How the names begin of the folders in which it is tried; the rest is the number of the process.
const PREFIX: &str = ".kiln-look.";

/// Removes the folders of processes that were killed meanwhile: nobody holds their lock.
fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        if is_ours && lock(&entry.path()).is_some() {
            let _gone = fs::remove_dir_all(entry.path());
        }
    }
}

/// Locks a folder, unless somebody else has.
fn lock(folder: &Path) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = open(folder, flags, Mode::empty()).ok()?;
    flock(&opened, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(opened)
}

impl Drop for Folders {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.top);
    }
}
