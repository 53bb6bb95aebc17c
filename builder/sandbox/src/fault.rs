//! A failed system call, small enough to be carried through shared memory.

use rustix::io::Errno;

/// Declares the enum and its names from one list, so that they cannot differ.
macro_rules! syscalls {
    ($($variant:ident = $name:literal),* $(,)?) => {
        /// A system call that the child makes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Syscall { $($variant),* }

        impl Syscall {
            const ALL: &[(Syscall, &'static str)] = &[$((Syscall::$variant, $name)),*];
        }
    };
}

syscalls! {
    Capget = "capget", Capset = "capset", Chdir = "chdir", Chroot = "chroot", CloseRange = "close_range",
    Execve = "execve", Fchdir = "fchdir", Fchmod = "fchmod", Fchown = "fchown",
    FsconfigLayer = "fsconfig(layer)", Fsconfig = "fsconfig", FsconfigCreate = "fsconfig(create)",
    Fsmount = "fsmount", Fsopen = "fsopen", Fstat = "fstat", Ioctl = "ioctl", Mkdirat = "mkdirat",
    Mknodat = "mknodat", Mount = "mount", MountSetattr = "mount_setattr", MoveMount = "move_mount",
    Openat = "openat", Openat2 = "openat2", OpenTree = "open_tree", PivotRoot = "pivot_root",
    Prctl = "prctl", Prlimit = "prlimit", Readlinkat = "readlinkat", Sendmsg = "sendmsg",
    Seccomp = "seccomp", Setgroups = "setgroups", Sethostname = "sethostname",
    Setresgid = "setresgid", Setresuid = "setresuid",
    Setns = "setns", Setsid = "setsid", Signalfd = "signalfd", Socket = "socket", Symlinkat = "symlinkat",
    Umount = "umount2", Unshare = "unshare", Vfork = "clone(CLONE_VFORK)", Dup = "dup2", Write = "write",
    Internal = "the plan",
}

impl Syscall {
    /// Its name in messages.
    pub fn name(self) -> &'static str {
        Syscall::ALL.iter().find(|(syscall, _)| *syscall == self).map_or("", |(_, name)| name)
    }

    /// A number for it; see [`Syscall::from_number`].
    pub fn number(self) -> u32 {
        self as u32
    }

    /// The call of that number.
    pub fn from_number(number: u32) -> Syscall {
        Syscall::ALL.get(number as usize).map_or(Syscall::Internal, |(syscall, _)| *syscall)
    }
}

/// A system call that failed in the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Which.
    pub syscall: Syscall,
    /// Why.
    pub errno: i32,
    /// More about its arguments; what it means depends on the [`Call`](crate::Call). 0 is nothing.
    pub detail: u32,
}

impl Fault {
    /// A fault without detail.
    pub fn new(syscall: Syscall, errno: Errno) -> Fault {
        Fault { syscall, errno: errno.raw_os_error(), detail: 0 }
    }

    /// The same fault with a detail.
    pub fn with(self, detail: u32) -> Fault {
        Fault { detail, ..self }
    }
}

/// Names the system call of a result.
pub(crate) trait At<T> {
    /// The same result, whose error says which call failed.
    fn at(self, syscall: Syscall) -> Result<T, Fault>;
}

impl<T> At<T> for Result<T, Errno> {
    fn at(self, syscall: Syscall) -> Result<T, Fault> {
        self.map_err(|errno| Fault::new(syscall, errno))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_come_back() {
        for (syscall, name) in Syscall::ALL {
            assert_eq!(Syscall::from_number(syscall.number()), *syscall);
            assert_eq!(syscall.name(), *name);
        }
        assert_eq!(Syscall::from_number(u32::MAX), Syscall::Internal);
    }
}
