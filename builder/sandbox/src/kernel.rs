//! What this kernel and this machine can do. Asked once, then plain data that [`plan`](crate::plan) reads.

use std::sync::OnceLock;

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statfs, statx};
use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, OpenTreeFlags, fsconfig_set_string, fsopen, open_tree};

use crate::sys;

/// Facts about the kernel that change how a step is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// `fsopen`, `open_tree`, `move_mount` (Linux 5.2). Without them nothing can be started.
    pub new_mount_api: bool,
    /// overlayfs takes its layers one by one (`lowerdir+`, Linux 6.7). Otherwise they share one page of
    /// options.
    pub lowerdir_append: bool,
    /// `mount_setattr` (Linux 5.12). Otherwise read-only mounts are remounted, by path and not recursively.
    pub mount_setattr: bool,
    /// Whether device nodes can be made; otherwise the host's are bound.
    pub make_devices: bool,
    /// Whether what clones steps is in a control group with a filter that is asked about each opening of a device.
    /// Otherwise mounts are `nodev`.
    pub filters_devices: bool,
    /// Whether processes can be given a filter for their system calls (`CONFIG_SECCOMP_FILTER`).
    pub seccomp: bool,
    /// Whether `/sys/fs/cgroup` is the unified hierarchy, which is then shown read-only.
    pub unified_cgroup: bool,
    /// Whether `/proc` can be mounted; otherwise what is there is shown.
    pub mounts_proc: bool,
    /// Whether `/sys` can be mounted by who has a network namespace of its own; otherwise what is there is shown.
    pub mounts_sysfs: bool,
    /// What this process's `/` is, which decides how it can be left.
    pub root: RootKind,
}

/// What the process's root directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootKind {
    /// The root of a mount, as usual: `pivot_root` works.
    Mount,
    /// The very first file system of the machine, which has no parent to pivot on.
    Initramfs,
    /// A folder somewhere in a mount, after `chroot`.
    Chroot,
}

const RAMFS_MAGIC: i64 = 0x8584_58f6;
const TMPFS_MAGIC: i64 = 0x0102_1994;
const CGROUP2_MAGIC: i64 = 0x6367_7270;
const CAP_MKNOD: u64 = 1 << 27;

static KERNEL: OnceLock<Kernel> = OnceLock::new();

impl Kernel {
    /// The facts of this machine, asked at the first call.
    pub fn get() -> &'static Kernel {
        KERNEL.get_or_init(Kernel::probe)
    }

    /// Facts that somebody else has asked for, in the namespaces that count. Nobody may have called [`Kernel::get`] before.
    pub(crate) fn assume(facts: Kernel) {
        let _first = KERNEL.set(facts);
    }

    /// Asks the kernel. Changes nothing: file system contexts and detached trees are closed unused.
    pub fn probe() -> Kernel {
        Kernel {
            new_mount_api: !matches!(
                open_tree(CWD, c"/", OpenTreeFlags::OPEN_TREE_CLOEXEC),
                Err(Errno::NOSYS)
            ),
            lowerdir_append: overlay_takes_single_layers(),
            mount_setattr: sys::has_mount_setattr(),
            seccomp: sys::has_seccomp(),
            filters_devices: false,
            make_devices: rustix::thread::capabilities(None)
                .is_ok_and(|sets| sets.effective.bits() & CAP_MKNOD != 0),
            unified_cgroup: file_system_type(c"/sys/fs/cgroup") == Some(CGROUP2_MAGIC),
            mounts_proc: true,
            mounts_sysfs: true,
            root: root_kind(),
        }
    }
}

/// Before Linux 6.5 overlayfs read no option before it was mounted, so that any name was taken: one that does not exist tells.
fn overlay_takes_single_layers() -> bool {
    let Ok(context) = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC) else { return false };
    fsconfig_set_string(&context, c"no-such-option", c"/").is_err()
        && fsconfig_set_string(&context, c"lowerdir+", c"/").is_ok()
}

fn root_kind() -> RootKind {
    let is_mount_root = statx(CWD, c"/", AtFlags::empty(), StatxFlags::empty())
        .is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
    if !is_mount_root {
        return RootKind::Chroot;
    }
    match file_system_type(c"/") {
        Some(RAMFS_MAGIC | TMPFS_MAGIC) => RootKind::Initramfs,
        _ => RootKind::Mount,
    }
}

/// The magic number of the file system at `path` (statfs(2)), if the path exists.
fn file_system_type(path: &std::ffi::CStr) -> Option<i64> {
    #[allow(clippy::unnecessary_cast, reason = "f_type has another width on other architectures")]
    statfs(path).ok().map(|found| found.f_type as i64)
}
