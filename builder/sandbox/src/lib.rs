//! Runs one process in namespaces of its own, on a root file system made of stacked layers.
//!
//! A `RUN` step and `kiln run` are a [`Spec`]: plain data, every name already resolved. [`plan`] turns
//! it into the ordered list of [`Call`]s which build the root and start the process, and makes none of
//! them. [`start`] clones a process into fresh namespaces, and that process makes the calls one by one.
//! So the order of mounts, where container escapes are born, is reviewed as text and tested without
//! root.
//!
//! ```text
//! start ── clone3 ──► PID 1 of the step: the calls up to `spawn`, then it reaps and forwards signals
//!                       └── vfork ──► the step: the calls after `spawn`, the last one is execve
//! ```
//!
//! What would surprise a reader:
//!
//! - Where there is a [`Zygote`], it makes the clone: what is cheap for a small process is dear for a large one.
//! - The process that makes the calls is a fork of a program with many threads. It may not allocate,
//!   lock or panic: whatever it needs (`CString`s, tables, stacks) exists before the clone. Neither
//!   `/proc` nor a second executable is needed on the host.
//! - After `pivot_root` the host is gone, so sources of mounts are opened before it and targets are
//!   resolved after it, where no symlink and no `..` can lead out.
//! - PID 1 holds the reading end of a pipe whose only writing end is in this process. However this
//!   process ends, PID 1 sees it, ends, and the kernel kills what is left of the step. Mounts live in the
//!   step's mount namespace only.
//! - Mount points which had to be created are removed again, and the times of their folders put back,
//!   so they leave no trace in the layer. `/proc`, `/sys` and `/dev` stay, as BuildKit's RUN leaves them.
//!
//! What differs for a user who is not root is a [`Mode`] in the [`Spec`]: Kiln itself has entered a user namespace then
//! ([`userns`]), and a plan binds the devices, mounts overlays with `userxattr`, and makes `/proc` before the host's is gone.

mod board;
mod call;
mod capability;
mod cgroup;
mod child;
mod devices;
pub mod emulate;
mod error;
mod fault;
mod forget;
mod kernel;
mod mode;
pub mod net;
mod plan;
pub mod procfs;
mod running;
mod seccomp;
mod secret;
mod spec;
mod start;
mod stdio;
#[allow(unsafe_code)]
mod sys;
pub mod userns;
mod wire;
mod zygote;

pub use call::{Call, MountPoint, Namespaces, NewFileSystem, OverlayCall, OverlayMethod, Slot, Source};
pub use capability::{Capability, CapabilitySet};
pub use cgroup::{CgroupError, Cgroups, Group, GroupUsage, Membership, Resources, Swap, available_memory};
pub use error::Error;
pub use kernel::{Kernel, RootKind};
pub use mode::{BadWish, Ids, Isolation, Mode, Snapshots, Wish};
pub use plan::plan;
pub use running::{Handle, Report, Running, Status};
pub use seccomp::{Filter, Instruction};
pub use secret::SecretBytes;
pub use spec::{Mount, MountKind, Network, Resource, ResourceLimit, Rootfs, Spec, User, Writable};
pub use start::{start, start_on, start_plan};
pub use stdio::{Stdio, WindowSize};
pub use sys::share_memory_of_threads;
pub use zygote::Zygote;
