//! `/proc` for a step that cannot have it mounted.
//!
//! A step in a chroot has no `/proc` but copies of a few files. Of each call that opens a path or looks at one the kernel asks
//! Kiln (seccomp user notification), which answers those for something below `/proc` out of its own: a process opens
//! `/dev/stdout`, and has a descriptor for what it is.
//!
//! ```text
//! step: open("/dev/fd/63") ── filter ──► kernel ── listener ──► here: openat(/proc, "4711/fd/63")
//!        ◄──────────── a descriptor ────────────────────────────────────┘
//! step: open("/etc/passwd") ── filter ──► kernel ── listener ──► here: none of ours; the kernel makes the call
//! ```
//!
//! | File | Holds |
//! |---|---|
//! | `path.rs` | what a path means, by its text |
//! | `find.rs` | what of `/proc` a process may have by that |
//! | `files.rs` | secrets, which are given out in the same way |
//! | `answer.rs` | the thread that answers, call by call |
//!
//! What would surprise a reader:
//!
//! - A filter with a listener needs CAP_SYS_ADMIN or `no_new_privs`, and `no_new_privs` breaks `sudo`. Root needs no `sudo`.
//!   Steps of another user have the copies, and `sudo`, where their root has that, and else this.
//! - The thread has the step's user, because without CAP_SYS_PTRACE nobody else may look into its processes. One that the step has
//!   started as somebody else it cannot see: that has the copies.
//! - **It gives out no folder.** From an open one `..` leads out of the step's root, which is no mount: that is how one leaves a
//!   chroot. So nothing of `/proc` can be listed, but what lies as a copy in the step's root.
//! - For root it is with the rights of Kiln, so it opens little: of the kernel's files those that a container shows, to be read; of
//!   the asking process everything, links like `fd/1` by themselves only and never on the way; of another process what everybody
//!   may read.
//! - Who asks for attributes of such a file is told that there are none.
//! - A path is known by its text. Through a link of the step's own, or from a working directory below `/proc`, it is not.
//! - Mounts are those that a copy in the step's root says, for the process's own would be none.

mod answer;
mod files;
mod find;
mod path;

pub(crate) use answer::Opening;

use std::sync::LazyLock;

use crate::seccomp::{Matter, OtherAbi, native_number, notifier};
use crate::{Filter, Rootfs, Spec};

/// A call that is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trap {
    Open,
    Openat,
    Openat2,
    Creat,
    Stat,
    Lstat,
    Newfstatat,
    Statx,
    Access,
    Faccessat,
    Faccessat2,
    Readlink,
    Readlinkat,
    Getxattr,
    Lgetxattr,
    Listxattr,
    Llistxattr,
}

const LIST: [(Trap, &str); 17] = [
    (Trap::Open, "open"),
    (Trap::Openat, "openat"),
    (Trap::Openat2, "openat2"),
    (Trap::Creat, "creat"),
    (Trap::Stat, "stat"),
    (Trap::Lstat, "lstat"),
    (Trap::Newfstatat, "newfstatat"),
    (Trap::Statx, "statx"),
    (Trap::Access, "access"),
    (Trap::Faccessat, "faccessat"),
    (Trap::Faccessat2, "faccessat2"),
    (Trap::Readlink, "readlink"),
    (Trap::Readlinkat, "readlinkat"),
    (Trap::Getxattr, "getxattr"),
    (Trap::Lgetxattr, "lgetxattr"),
    (Trap::Listxattr, "listxattr"),
    (Trap::Llistxattr, "llistxattr"),
];

/// Whether this step is shown `/proc`, and is given files that lie nowhere.
///
/// Not one of a user who could become root by `sudo`, which the filter would break: of such a one this cannot be known before.
pub fn serves(spec: &Spec) -> bool {
    let Rootfs::Directory { path } = &spec.rootfs else { return false };
    let has = |program: &&str| path.join(program).symlink_metadata().is_ok();
    let is_free = spec.user.uid == 0 || !GAIN_RIGHTS.iter().any(has);
    is_free && crate::sys::notify::has_listener().is_ok() && filter().is_some()
}

/// Programs by which steps of a user do what root may.
const GAIN_RIGHTS: [&str; 6] =
    ["bin/sudo", "bin/doas", "usr/bin/sudo", "usr/bin/doas", "usr/local/bin/sudo", "usr/local/bin/doas"];

/// The filter of a step; none on a machine without numbers.
pub(crate) fn filter() -> Option<Filter> {
    static MADE: LazyLock<Option<Filter>> = LazyLock::new(|| {
        let number = |(trap, name): &(Trap, &str)| {
            let matter = match trap {
                // `fstat` of the C library: an open file, and no path.
                Trap::Newfstatat => Matter::NotBits(3, libc::AT_EMPTY_PATH as u32),
                Trap::Statx => Matter::NotBits(2, libc::AT_EMPTY_PATH as u32),
                _ => Matter::Always,
            };
            Some((native_number(name)?, matter))
        };
        notifier(LIST.iter().filter_map(number).collect(), OtherAbi::Allowed)
    });
    MADE.clone()
}
