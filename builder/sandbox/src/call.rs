//! The list before the deed: every call that builds a root and starts a process in it.
//!
//! A [`Call`] holds all its arguments in the form the kernel takes, so that the child can make it
//! without allocating, and prints as the system call it stands for. Most are one system call; where one
//! result feeds the next (`fsopen`, `fsconfig`, `fsmount`) they are one `Call`, because they fail as one.

mod display;

use std::ffi::CString;

use rustix::mount::MountFlags;

use crate::{CapabilitySet, Filter, ResourceLimit, WindowSize};

/// One step on the way from a cloned process to a running command.
///
/// `Debug` and `Display` are the same text. It holds no environment values and no file contents.
#[derive(Clone, PartialEq, Eq)]
pub enum Call {
    /// `clone3` into new namespaces; made by the caller's process.
    Clone {
        /// Those that are new.
        namespaces: Namespaces,
    },
    /// Closes every descriptor that was the caller's and is none of the step's.
    CloseForeign,
    /// `prctl(PR_SET_DUMPABLE, 0)`, and another name: PID 1 is a copy of the caller's memory, which the step must not read
    /// through `/proc/1/mem`, `environ` or `cmdline`.
    HideMemory,
    /// `setns`: enters the network namespace that the caller gives.
    EnterNetwork,
    /// `prctl(PR_SET_CHILD_SUBREAPER)`: processes of the step whose parents have ended become this one's children, which kills
    /// them at the end. For a step without a process namespace.
    AdoptOrphans,
    /// `chroot`, and `chdir` to its `/`.
    ChangeRoot {
        /// The new root, absolute.
        path: CString,
    },
    /// `prctl(PR_SET_PDEATHSIG, SIGKILL)`: the command does not outlive the step's first process.
    DieWithParent,
    /// Enters a control group, and makes it the `/` of the control groups that are seen.
    JoinGroup {
        /// The group's folder.
        folder: CString,
        /// Whether it is one of version 2: the clone has made the process in it already, where the kernel could.
        unified: bool,
    },
    /// `mount(NULL, "/", MS_REC|MS_PRIVATE)`: nothing that follows reaches the host's mounts.
    MakePrivate,
    /// The same where `/` is a folder after `chroot` and propagation can only be set on the mount that
    /// holds it: step out through another folder, set it there, and come back.
    MakePrivateFromChroot {
        /// Any folder but `/`.
        through: CString,
    },
    /// Puts a bind mount of `/` on top of `/` and makes it the root, for `pivot_root` wants a mount with
    /// a parent.
    CloneRoot,
    /// Stacks layers; the mount is kept and not yet attached.
    Overlay(OverlayCall),
    /// Keeps a folder or file inside a kept mount instead of all of it.
    Select {
        /// The kept mount, which is replaced.
        within: Slot,
        /// Resolved as if the kept mount were `/`.
        path: CString,
    },
    /// Opens a folder or file of the file system that is `/` now, with what is mounted below it, and keeps it
    /// as a mount of its own.
    Bind {
        /// Folder that `path` cannot leave.
        root: CString,
        /// Path inside.
        path: CString,
        /// Whether it becomes read-only here (`mount_setattr`).
        readonly: bool,
        /// Kept as.
        keep: Slot,
    },
    /// Makes a file system of the kernel's, `nodev`, `noexec` and `nosuid`, while the host's is still in sight: in a user namespace
    /// who sees none that is whole may make none.
    KernelFiles {
        /// Its type.
        kind: CString,
        /// Whether it becomes read-only.
        readonly: bool,
        /// Kept as.
        keep: Slot,
    },
    /// Mounts a `ramfs`, which is never swapped, to make files in.
    FileStore {
        /// Kept as.
        keep: Slot,
    },
    /// Makes a read-only file in the store.
    File {
        /// The store.
        store: Slot,
        /// Its name there.
        name: CString,
        /// What is in it.
        content: Vec<u8>,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Whether it becomes read-only here (`mount_setattr`).
        readonly: bool,
        /// Kept as.
        keep: Slot,
    },
    /// Attaches the root over `/`, pivots to it and lets go of the host's tree.
    EnterRoot {
        /// The kept root.
        root: Slot,
    },
    /// Finds or makes a mount point and mounts something there.
    Mount {
        /// Where.
        at: MountPoint,
        /// What.
        source: Source,
        /// Whether a failure is only a remark.
        optional: bool,
    },
    /// `mkdir`.
    MakeDirectory {
        /// Absolute path.
        path: CString,
        /// Permission bits.
        mode: u32,
    },
    /// `mknod` of a character device that anybody may use.
    MakeDevice {
        /// Absolute path.
        path: CString,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// `symlink`.
    MakeLink {
        /// Where it points.
        target: CString,
        /// Absolute path of the link.
        path: CString,
    },
    /// Hides a kernel path: a folder under an empty read-only one, a file under `/dev/null`. A path that does
    /// not exist is passed over.
    Mask {
        /// Absolute path.
        path: CString,
    },
    /// Makes a kernel path read-only with all below. A path that does not exist is passed over.
    MakeReadOnly {
        /// Absolute path.
        path: CString,
        /// By remounting, where there is no `mount_setattr`.
        remount: bool,
    },
    /// Makes every mount `nodev`, but for what a step may use: the guard where none asks at each opening of a device.
    ForbidDevices {
        /// Devices in folders that are not theirs alone: each becomes a mount of its own first.
        made: Vec<CString>,
        /// Mounts which stay usable. A path that does not exist is passed over.
        usable: Vec<CString>,
    },
    /// Makes the root mount read-only, and nothing mounted on it.
    MakeRootReadOnly {
        /// By remounting, where there is no `mount_setattr`.
        remount: bool,
    },
    /// Brings `lo` up.
    LoopbackUp,
    /// `sethostname`.
    SetHostName {
        /// The name.
        name: String,
    },
    /// A new session keyring, so that the step does not share the caller's.
    JoinSessionKeyring,
    /// `prlimit`. Refused (no CAP_SYS_RESOURCE), it sets what it may and leaves a remark.
    Limit(ResourceLimit),
    /// Opens a terminal of the new `/dev/pts` and sends its master to the caller.
    OpenTerminal {
        /// Its size.
        size: WindowSize,
        /// Its owner.
        uid: u32,
    },
    /// `chown` of standard output and error where they are pipes, so that the user can open `/dev/stdout`.
    OwnStreams {
        /// The new owner.
        uid: u32,
    },
    /// `clone(CLONE_VM|CLONE_VFORK)`: the calls after this are made by the new process.
    Spawn,
    /// `setsid`, and the terminal, if there is one, becomes the controlling one.
    NewSession {
        /// Whether there is one.
        terminal: bool,
    },
    /// Puts standard input, output and error into place.
    PlaceStreams,
    /// `chdir` to the working directory.
    EnterWorkingDirectory {
        /// Absolute path.
        path: CString,
    },
    /// Drops every other capability from the bounding set, and all from the ambient set.
    BoundCapabilities {
        /// What stays.
        keep: CapabilitySet,
    },
    /// `setgroups`.
    SetGroups {
        /// All supplementary groups.
        gids: Vec<u32>,
    },
    /// `seccomp(SECCOMP_SET_MODE_FILTER)`: from here on the kernel asks the filter about every call. Without
    /// `no_new_privs`, which would break `sudo`, this needs CAP_SYS_ADMIN.
    InstallFilter {
        /// What it is asked.
        filter: Filter,
    },
    /// The same of a filter whose calls the caller answers; sends what it listens with, and the root, to the caller.
    InstallListener {
        /// What it is asked.
        filter: Filter,
        /// Whether the step does without where another program listens already, for of a process one alone can.
        optional: bool,
    },
    /// `setresgid`, then `setresuid`.
    SetIds {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// `capset`: of the permitted capabilities these stay and are effective; none is inheritable.
    SetCapabilities {
        /// What stays.
        keep: CapabilitySet,
    },
    /// `umask`.
    SetMask {
        /// Permission bits that new files do not get.
        mask: u32,
    },
    /// Closes every descriptor above 2 at `execve`, and lets every signal through.
    CloseOthers,
    /// `execve` of the first candidate that exists.
    Exec {
        /// Absolute paths, or one as given, to try in order.
        candidates: Vec<CString>,
        /// Arguments.
        argv: Vec<CString>,
        /// `NAME=value`.
        env: Vec<CString>,
    },
}

/// A set of namespaces to make.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Namespaces(u32);

impl Namespaces {
    /// None is new.
    pub const NONE: Namespaces = Namespaces(0);
    /// What is mounted where. Always new: nothing of a step may be mounted on the host.
    pub const MOUNT: Namespaces = Namespaces(libc::CLONE_NEWNS as u32);
    /// Processes.
    pub const PID: Namespaces = Namespaces(libc::CLONE_NEWPID as u32);
    /// System V objects and message queues.
    pub const IPC: Namespaces = Namespaces(libc::CLONE_NEWIPC as u32);
    /// The host name.
    pub const UTS: Namespaces = Namespaces(libc::CLONE_NEWUTS as u32);
    /// Where control groups begin.
    pub const CGROUP: Namespaces = Namespaces(libc::CLONE_NEWCGROUP as u32);
    /// Network devices, and sockets with abstract names.
    pub const NETWORK: Namespaces = Namespaces(libc::CLONE_NEWNET as u32);
    /// Names, in the order in which they are shown.
    pub(crate) const NAMES: [(Namespaces, &str); 6] = [
        (Namespaces::MOUNT, "mount"),
        (Namespaces::PID, "pid"),
        (Namespaces::IPC, "ipc"),
        (Namespaces::UTS, "uts"),
        (Namespaces::CGROUP, "cgroup"),
        (Namespaces::NETWORK, "network"),
    ];

    /// What every step has of its own, and a network where that is asked for.
    pub fn of_a_step(network: bool) -> Namespaces {
        let common =
            [Namespaces::MOUNT, Namespaces::PID, Namespaces::IPC, Namespaces::UTS, Namespaces::CGROUP];
        let all = common.into_iter().chain(network.then_some(Namespaces::NETWORK));
        Namespaces(all.fold(0, |bits, one| bits | one.0))
    }

    /// The set without these.
    pub fn without(self, others: Namespaces) -> Namespaces {
        Namespaces(self.0 & !others.0)
    }

    /// Whether all of these are in the set.
    pub fn contains(self, others: Namespaces) -> bool {
        self.0 & others.0 == others.0
    }

    /// The flags of `clone3`.
    pub(crate) fn bits(self) -> u32 {
        self.0
    }

    /// The set of these flags.
    pub(crate) fn from_bits(bits: u32) -> Namespaces {
        Namespaces(bits)
    }
}

/// A place in the child's table of kept descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot(pub usize);

/// Stacks layers with overlayfs.
#[derive(Clone, PartialEq, Eq)]
pub struct OverlayCall {
    /// Layer folders, top first, as the kernel wants them.
    pub lowers: Vec<CString>,
    /// The upper and the work folder; `None` is read-only.
    pub writable: Option<(CString, CString)>,
    /// Whether overlayfs keeps its marks where a user namespace may read and write them (`userxattr`).
    pub user_marks: bool,
    /// How the kernel is told.
    pub method: OverlayMethod,
    /// Kept as.
    pub keep: Slot,
}

/// How overlayfs is told its layers.
#[derive(Clone, PartialEq, Eq)]
pub enum OverlayMethod {
    /// `fsconfig(lowerdir+)`, one layer a call (Linux 6.7).
    Append,
    /// `mount(2)` with all options in one page and paths relative to a folder.
    Options {
        /// The folder that the paths in `options` start from.
        directory: CString,
        /// The options.
        options: CString,
        /// A folder to mount it on for a moment.
        at: CString,
    },
}

/// Where something is mounted.
#[derive(Clone, PartialEq, Eq)]
pub struct MountPoint {
    /// Absolute path inside the root.
    pub path: CString,
    /// Whether a mount point that had to be created stays after the step.
    pub stays: bool,
}

/// What is mounted at a mount point.
#[derive(Clone, PartialEq, Eq)]
pub enum Source {
    /// Something kept before.
    Kept {
        /// Kept as. A folder needs a folder, anything else a file.
        slot: Slot,
        /// Whether it is made read-only by remounting, where there is no `mount_setattr`.
        remount_readonly: bool,
    },
    /// A file system.
    New(NewFileSystem),
}

/// A file system to make, with `mount(2)`'s arguments.
#[derive(Clone, PartialEq, Eq)]
pub struct NewFileSystem {
    /// Its type.
    pub kind: CString,
    /// Its name in `/proc/mounts`.
    pub name: CString,
    /// Flags.
    pub flags: MountFlags,
    /// Its own options.
    pub options: CString,
}
