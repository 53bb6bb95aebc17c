//! Which calls are answered, and whose answer it is.
//!
//! A call that is not answered costs nothing, one that is costs a few microseconds. So of the calls that are made often, only
//! those are asked for that can matter: the filter sees numbers in arguments, and nothing behind a pointer.

use crate::Filter;
use crate::seccomp::{Matter, OtherAbi, native_number, notifier};

/// Declares the calls with their names and what of them counts, from one list.
macro_rules! calls {
    ($($call:ident $name:literal $matter:expr, $when:ident;)*) => {
        /// A call that is answered.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Trap { $($call),* }

        const LIST: &[(Trap, &str, Matter, When)] = &[$((Trap::$call, $name, $matter, When::$when)),*];
    };
}

/// In which steps.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    /// All.
    Any,
    /// Those that do not run as root: of those nearly nothing would be refused, as the kernel takes them for root.
    User,
}

const O_WRITES: u32 = (libc::O_CREAT | libc::O_WRONLY | libc::O_RDWR) as u32;
/// The limit that holds a process's number, see [`super::identity`].
pub(crate) const LIMIT: u32 = libc::RLIMIT_RTTIME;
const KEEP_CAPABILITIES: &[u32] = &[libc::PR_GET_KEEPCAPS as u32, libc::PR_SET_KEEPCAPS as u32];

use Matter::{Always, Are, Bits, Is};

calls! {
    Chown "chown" Always, Any;
    Lchown "lchown" Always, Any;
    Fchown "fchown" Always, Any;
    Fchownat "fchownat" Always, Any;
    Setuid "setuid" Always, Any;
    Setgid "setgid" Always, Any;
    Setreuid "setreuid" Always, Any;
    Setregid "setregid" Always, Any;
    Setresuid "setresuid" Always, Any;
    Setresgid "setresgid" Always, Any;
    Setfsuid "setfsuid" Always, Any;
    Setfsgid "setfsgid" Always, Any;
    Setgroups "setgroups" Always, Any;
    Getuid "getuid" Always, Any;
    Geteuid "geteuid" Always, Any;
    Getgid "getgid" Always, Any;
    Getegid "getegid" Always, Any;
    Getresuid "getresuid" Always, Any;
    Getresgid "getresgid" Always, Any;
    Getgroups "getgroups" Always, Any;
    Capget "capget" Always, Any;
    Capset "capset" Always, Any;
    Prctl "prctl" Is(0, KEEP_CAPABILITIES), Any;
    Stat "stat" Always, Any;
    Lstat "lstat" Always, Any;
    Fstat "fstat" Always, Any;
    Newfstatat "newfstatat" Always, Any;
    Statx "statx" Always, Any;
    Access "access" Always, Any;
    Faccessat "faccessat" Always, Any;
    Faccessat2 "faccessat2" Always, Any;
    Listxattr "listxattr" Always, Any;
    Llistxattr "llistxattr" Always, Any;
    Flistxattr "flistxattr" Always, Any;
    Mknod "mknod" Always, Any;
    Mknodat "mknodat" Always, Any;
    Mkdir "mkdir" Always, Any;
    Mkdirat "mkdirat" Always, Any;
    Symlink "symlink" Always, Any;
    Symlinkat "symlinkat" Always, Any;
    Link "link" Always, Any;
    Linkat "linkat" Always, Any;
    Rename "rename" Always, Any;
    Renameat "renameat" Always, Any;
    Renameat2 "renameat2" Always, Any;
    Utimensat "utimensat" Always, Any;
    Futimesat "futimesat" Always, Any;
    Utimes "utimes" Always, Any;
    Utime "utime" Always, Any;
    Truncate "truncate" Always, Any;
    Creat "creat" Always, Any;
    Open "open" Bits(1, O_WRITES), Any;
    Openat "openat" Bits(2, O_WRITES), Any;
    Openat2 "openat2" Always, Any;
    Execve "execve" Always, Any;
    Execveat "execveat" Always, Any;
    Chroot "chroot" Always, Any;
    Setns "setns" Always, Any;
    Unshare "unshare" Always, Any;
    PivotRoot "pivot_root" Always, Any;
    Clone "clone" Bits(0, libc::CLONE_NEWNS as u32), Any;
    Getrlimit "getrlimit" Is(0, &[LIMIT]), Any;
    Setrlimit "setrlimit" Is(0, &[LIMIT]), Any;
    Prlimit "prlimit64" Is(1, &[LIMIT]), Any;
    Getsockopt "getsockopt" Are([(1, libc::SOL_SOCKET as u32), (2, libc::SO_PEERCRED as u32)]), Any;
    Unlink "unlink" Always, User;
    Unlinkat "unlinkat" Always, User;
    Rmdir "rmdir" Always, User;
    Chmod "chmod" Always, User;
    Fchmod "fchmod" Always, User;
    Fchmodat "fchmodat" Always, User;
    Fchmodat2 "fchmodat2" Always, User;
}

/// Reading, too, may be refused.
const READS: &[(&str, Matter)] = &[("open", Always), ("openat", Always)];

/// The filter of a step; none on a machine without numbers.
pub(crate) fn filter(as_root: bool) -> Option<Filter> {
    let counts = |(_, name, matter, when): &(Trap, &str, Matter, When)| {
        if *when == When::User && as_root {
            return None;
        }
        let more = READS.iter().find(|(read, _)| !as_root && read == name);
        Some((native_number(name)?, more.map_or(*matter, |(_, matter)| *matter)))
    };
    notifier(LIST.iter().filter_map(counts).collect(), OtherAbi::Missing)
}

/// Calls by their number in the machine's own ABI.
pub(crate) struct Numbers(Vec<Option<Trap>>);

impl Numbers {
    /// Those of this machine.
    pub fn new() -> Numbers {
        let mut numbers = Vec::new();
        for (trap, name, ..) in LIST {
            let Some(number) = native_number(name).map(|number| number as usize) else { continue };
            if numbers.len() <= number {
                numbers.resize(number + 1, None);
            }
            if let Some(place) = numbers.get_mut(number) {
                *place = Some(*trap);
            }
        }
        Numbers(numbers)
    }

    /// The call of this number.
    pub fn get(&self, number: i32) -> Option<Trap> {
        self.0.get(usize::try_from(number).ok()?).copied().flatten()
    }
}
