//! What to run: plain data, with no name left to look up.
//!
//! User names, image configs, cache mounts and secrets are the caller's business. A `Spec` holds
//! numbers, bytes and absolute host paths, so that [`plan`](crate::plan) can be pure.

use std::ffi::OsString;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use crate::emulate::{Emulated, Emulation};
use crate::{CapabilitySet, Ids, Membership, Mode, SecretBytes};

/// One process and the root file system it sees.
///
/// `Debug` prints the names of environment variables and never their values, nor the content of files.
#[derive(Clone)]
pub struct Spec {
    /// How it is kept apart from what is around it.
    pub mode: Mode,
    /// Where the root file system comes from.
    pub rootfs: Rootfs,
    /// An empty folder on the host, absolute. It stands in where overlayfs wants a layer and there is
    /// none, and it is never written to.
    pub empty: PathBuf,
    /// Whether the root is read-only for the step. Mounts keep their own setting.
    pub readonly_root: bool,
    /// Mounts beside `/proc`, `/sys` and `/dev`, which are always there. Made parents first, otherwise in
    /// this order, after the three.
    pub mounts: Vec<Mount>,
    /// The program and its arguments. A program without a slash is searched in `PATH` of `env`, inside
    /// the root.
    pub argv: Vec<OsString>,
    /// The environment, in order, to which the next is added and nothing else.
    pub env: Vec<(OsString, OsString)>,
    /// Variables whose values are secrets.
    pub secret_env: Vec<(OsString, SecretBytes)>,
    /// The working directory, absolute inside the root. It must exist.
    pub cwd: PathBuf,
    /// The ids the process runs with.
    pub user: User,
    /// The host name inside.
    pub hostname: String,
    /// Which network it sees.
    pub network: Network,
    /// The bounding set; for uid 0 also the permitted and effective set. Inheritable and ambient are
    /// empty, as runc does for a user other than root. With CAP_SYS_PTRACE the step can read PID 1, whose memory
    /// is a copy of the caller's: give it only to who may know the caller's secrets.
    pub capabilities: CapabilitySet,
    /// Whether kernel paths are masked or read-only as Docker does (`/proc/kcore`, `/proc/sys`, …). False for
    /// `RUN --security=insecure`: then `/sys` is writable as well.
    pub protect_kernel_paths: bool,
    /// Whether the process may make only the system calls that Docker allows a container with these capabilities. False
    /// for `RUN --security=insecure`. A kernel without seccomp filters nothing, as with Docker.
    pub filter_calls: bool,
    /// Size of `/dev/shm` in bytes; Docker's default is [`Spec::DEFAULT_SHM_SIZE_BYTES`].
    pub shm_size_bytes: u64,
    /// Resource limits to set. One that the machine refuses is a warning in the report.
    pub limits: Vec<ResourceLimit>,
    /// Control groups that it runs in, as [`Group::memberships`](crate::Group::memberships) has them. They outlive it.
    pub groups: Vec<Membership>,
    /// How owners are emulated, in a step that has one id; where it has sub-ids, how devices are.
    pub emulation: Option<Emulation>,
}

impl Spec {
    /// 64 MiB, as Docker and BuildKit have it.
    pub const DEFAULT_SHM_SIZE_BYTES: u64 = 64 << 20;

    /// What is emulated.
    pub(crate) fn emulates(&self) -> Option<Emulated> {
        self.emulation.as_ref()?;
        match self.mode.ids {
            // Who asks for no filter has none.
            Ids::Mapped => self.filter_calls.then_some(Emulated::Devices),
            Ids::Host | Ids::Single => Some(Emulated::Owners),
        }
    }

    /// The program's search path if the environment has none (Docker's default for Linux).
    pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
}

impl fmt::Debug for Spec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = self.secret_env.iter().map(|(name, _)| name);
        let names: Vec<&OsString> = self.env.iter().map(|(name, _)| name).chain(secret).collect();
        formatter
            .debug_struct("Spec")
            .field("rootfs", &self.rootfs)
            .field("mounts", &self.mounts)
            .field("argv", &self.argv)
            .field("env", &names)
            .field("cwd", &self.cwd)
            .field("user", &self.user)
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}

/// Where a root file system comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rootfs {
    /// Layers stacked by overlayfs. All paths absolute.
    Overlay {
        /// Layer folders, *top first*. May be empty (`FROM scratch`); at most 500.
        lowers: Vec<PathBuf>,
        /// What is written, and overlayfs's scratch folder.
        writable: Writable,
    },
    /// A folder, used as it is and written to unless [`Spec::readonly_root`].
    Directory {
        /// The folder, absolute.
        path: PathBuf,
    },
}

/// The two folders which make an overlay writable. Both are on one file system.
///
/// The overlay is mounted `volatile`: `fsync` does nothing, and the kernel leaves `work/work/incompat`
/// behind, which makes it refuse to use `work` again. Give every step a new `work`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writable {
    /// Receives what the process writes: the new layer.
    pub upper: PathBuf,
    /// An empty folder for overlayfs itself.
    pub work: PathBuf,
}

/// Something mounted into the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where, absolute inside the root, and not `/`. Symlinks are followed inside the root. What is missing is
    /// created (parents 0755) and removed after the step if still empty.
    pub target: PathBuf,
    /// What.
    pub kind: MountKind,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// A folder, file or socket of the host, with what is mounted below it.
    Bind {
        /// Absolute folder on the host which `path` cannot leave.
        root: PathBuf,
        /// Path below `root`, resolved as if `root` were `/`, symlinks and `..` included. Empty or `/` is
        /// `root` itself.
        path: PathBuf,
        /// Whether the process may not write to it.
        readonly: bool,
    },
    /// A folder or file in stacked layers: `RUN --mount=type=bind,from=stage`.
    Overlay {
        /// Layer folders, top first, absolute.
        lowers: Vec<PathBuf>,
        /// Where writes go; `None` makes the view read-only.
        writable: Option<Writable>,
        /// Path inside the stack, resolved as if the stack were `/`. Empty or `/` is all of it.
        path: PathBuf,
    },
    /// Memory, gone after the step.
    Tmpfs {
        /// Limit in bytes; `None` is the kernel's default, half of the memory.
        size_bytes: Option<u64>,
        /// Mode of its root folder where the target is made for it; Docker uses 0o1777. Over a folder that is
        /// there it takes that folder's.
        mode: u32,
        /// Whether the process may not write to it.
        readonly: bool,
    },
    /// A read-only file in memory that is never swapped: a secret, a here-document.
    File {
        /// What is in it.
        content: SecretBytes,
        /// Permission bits. Without any execute bit the mount is `noexec`.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

/// Numeric ids of the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups, replaced and not added to.
    pub additional_gids: Vec<u32>,
}

/// Which network the process sees.
#[derive(Clone, Debug)]
pub enum Network {
    /// The host's.
    Host,
    /// None: a namespace of its own with nothing but `lo`, which is up.
    None,
    /// The one that this namespace holds: [`crate::net::Networks`] makes them.
    Namespace(Arc<OwnedFd>),
}

/// One limit of `setrlimit(2)`, in the resource's own unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResourceLimit {
    /// Of what.
    pub resource: Resource,
    /// The limit in force; `u64::MAX` is none.
    pub soft: u64,
    /// How far the process may raise it; `u64::MAX` is without end.
    pub hard: u64,
}

/// A resource that `setrlimit(2)` limits, by the name of Docker's `--ulimit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names are those of setrlimit(2), without RLIMIT_")]
pub enum Resource {
    Core,
    Cpu,
    Data,
    Fsize,
    Locks,
    Memlock,
    Msgqueue,
    Nice,
    Nofile,
    Nproc,
    Rss,
    Rtprio,
    Rttime,
    Sigpending,
    Stack,
}

impl Resource {
    /// Every resource, by name.
    pub const ALL: [Resource; 15] = [
        Resource::Core,
        Resource::Cpu,
        Resource::Data,
        Resource::Fsize,
        Resource::Locks,
        Resource::Memlock,
        Resource::Msgqueue,
        Resource::Nice,
        Resource::Nofile,
        Resource::Nproc,
        Resource::Rss,
        Resource::Rtprio,
        Resource::Rttime,
        Resource::Sigpending,
        Resource::Stack,
    ];

    /// The name in `--ulimit NAME=…`.
    pub fn name(self) -> &'static str {
        match self {
            Resource::Core => "core",
            Resource::Cpu => "cpu",
            Resource::Data => "data",
            Resource::Fsize => "fsize",
            Resource::Locks => "locks",
            Resource::Memlock => "memlock",
            Resource::Msgqueue => "msgqueue",
            Resource::Nice => "nice",
            Resource::Nofile => "nofile",
            Resource::Nproc => "nproc",
            Resource::Rss => "rss",
            Resource::Rtprio => "rtprio",
            Resource::Rttime => "rttime",
            Resource::Sigpending => "sigpending",
            Resource::Stack => "stack",
        }
    }

    /// The resource of that name, if there is one.
    pub fn from_name(name: &str) -> Option<Resource> {
        Resource::ALL.into_iter().find(|resource| resource.name() == name)
    }

    /// The number that the kernel knows it by.
    pub(crate) fn number(self) -> u32 {
        match self {
            Resource::Core => libc::RLIMIT_CORE,
            Resource::Cpu => libc::RLIMIT_CPU,
            Resource::Data => libc::RLIMIT_DATA,
            Resource::Fsize => libc::RLIMIT_FSIZE,
            Resource::Locks => libc::RLIMIT_LOCKS,
            Resource::Memlock => libc::RLIMIT_MEMLOCK,
            Resource::Msgqueue => libc::RLIMIT_MSGQUEUE,
            Resource::Nice => libc::RLIMIT_NICE,
            Resource::Nofile => libc::RLIMIT_NOFILE,
            Resource::Nproc => libc::RLIMIT_NPROC,
            Resource::Rss => libc::RLIMIT_RSS,
            Resource::Rtprio => libc::RLIMIT_RTPRIO,
            Resource::Rttime => libc::RLIMIT_RTTIME,
            Resource::Sigpending => libc::RLIMIT_SIGPENDING,
            Resource::Stack => libc::RLIMIT_STACK,
        }
    }
}
