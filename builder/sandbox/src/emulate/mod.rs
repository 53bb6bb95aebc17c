//! Owners emulated: a step that has one real user, and believes to have all.
//!
//! Where Kiln may use one id only, a step's processes are root in a user namespace with nobody else in it. `chown`, `useradd`,
//! `su` and `apt-get install` want more. So of each call that is about owners the kernel asks Kiln (seccomp user
//! notification), which answers as if there were all ids, and writes down what was asked for. The layer then has the owners
//! that root would have given it.
//!
//! ```text
//! step: chown("/f", 33, 33) ── filter ──► kernel ── listener ──► supervisor: finds /f in the step's root, is it allowed?
//!        ◄──────────────── 0 ───────────────────────────────────  writes "33:33" into the attribute user.kiln.owner of /f
//! ```
//!
//! | File | Holds |
//! |---|---|
//! | `calls.rs` | which calls are answered |
//! | `credentials.rs`, `permission.rs` | the kernel's rules, on values |
//! | `identity.rs`, `status.rs` | who a process is, and what `/proc` shows of that |
//! | `record.rs`, `owners.rs` | whose a file is |
//! | `suspects.rs` | which files are root's without a closer look |
//! | `view.rs` | how a path of the step's is resolved |
//! | `supervisor.rs`, `answer/` | the thread that answers, call by call |
//! | `devices.rs` | the same for steps with sub-ids, where nothing is emulated but devices |
//!
//! What would surprise a reader:
//!
//! - It is no fence. Rights are those of the real user, who may do all that the step could do without asking. What is refused is
//!   refused so that a build that fails elsewhere fails here. Of a process that was root and is not any more (`su`), reading,
//!   deleting and `chmod` are not refused; of a step that begins as another user they are.
//! - A device is an empty file. Opened, it is that.
//! - `/proc/PID/status` of who seems not to be root is a made file, from Linux 6.15 on, of the time when the process began its
//!   program or became somebody. Who only forks, and older kernels, show root there.
//! - Not emulated: the owner of `/proc/PID`, credentials sent over a socket, a socket's file that `bind` makes, and what `openat2`
//!   makes with `RESOLVE_IN_ROOT`. They show root.
//! - Who starts a set-user-id program whose start fails for another reason than that it is none (`E2BIG`, `ETXTBSY`) has become its
//!   owner all the same.
//! - What is made here and not by the kernel gets its mode from the umask, also in a folder with a default access control list.
//! - A signal with a handler that asks for no restart ends any answered call with `EINTR` as long as this thread has not received it.
//! - Programs of another ABI than the machine's own (i386 on x86-64) cannot be started: their calls have other numbers, and they
//!   would see, and be, root.
//! - A step that installs a filter with a listener of its own gets `EBUSY` from the kernel, which has one listener at a time.

mod answer;
mod calls;
mod credentials;
pub(crate) mod devices;
mod identity;
mod layout;
mod owners;
mod permission;
mod record;
mod status;
mod supervisor;
mod suspects;
mod view;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::io::Errno;

pub use owners::{Below, Mounted, Owners};
pub use record::{ATTRIBUTE, Device, Owner, Records};

pub(crate) use calls::filter;
pub(crate) use layout::Stat;
pub(crate) use supervisor::{Opening, next};

/// What a step whose owners are emulated has to do with.
#[derive(Clone, Debug)]
pub struct Emulation {
    /// The owners in the layers below.
    pub owners: Arc<dyn Owners>,
    /// Takes what the step records, to be read when it has ended.
    pub records: Arc<Records>,
    /// The owners in what is mounted on the root, by where that is.
    pub mounts: BTreeMap<PathBuf, Mounted>,
}

/// What is emulated in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Emulated {
    /// Owners, and all that follows from them.
    Owners,
    /// Devices: nobody may make one in a user namespace.
    Devices,
}

/// Whether this kernel can: seccomp user notification whose calls, once received, wait killably (Linux 5.19), on a machine that
/// Kiln has the numbers of.
pub fn is_offered() -> bool {
    offered().is_ok()
}

/// The same, with the kernel's error.
pub(crate) fn offered() -> Result<(), Errno> {
    crate::sys::notify::has_listener()?;
    filter(true).map(drop).ok_or(Errno::NOSYS)
}
