//! The thread that answers a step's calls.
//!
//! It acts for processes that may want to deceive it, with the rights of Kiln: what it does is bound to the step's root
//! ([`super::view`]), it waits for nothing but the next call, and before it changes a file or the caller's memory it makes sure
//! that the call still waits, for otherwise what it has read may be of another process that has the number now. A deceived answer
//! deceives who asked, and nobody else: real rights are those of the step's real user, and the kernel sees to them.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use super::calls::{Numbers, Trap};
use super::credentials::{Credentials, SYS_CHROOT};
use super::identity::Identities;
use super::owners::{From, Ledger, Mounted};
use super::permission::may_access;
use super::record::Owner;
use super::status::Statuses;
use super::suspects::Suspects;
use super::view::{At, File, Named, View, descriptor, split};
use crate::seccomp::native_architecture;
use crate::sys::notify::{self, Notification};
use crate::{Error, Rootfs, Spec};

/// How a call ends.
pub(crate) enum Answer {
    /// The kernel makes it.
    GoOn,
    /// With this value, and nothing is made.
    Value(i64),
    /// It was told already, or nobody waits any more.
    Told,
}

/// What a handler comes to; an error is the call's.
pub(crate) type Answered = Result<Answer, Errno>;

/// All that is needed to answer.
pub(crate) struct Supervisor {
    pub listener: OwnedFd,
    pub ledger: Ledger,
    pub identities: Identities,
    pub view: View,
    pub statuses: Statuses,
    /// What the step's first process will try to start: that one is a copy of Kiln, whose memory a user may not read.
    pub programs: std::vec::IntoIter<Vec<u8>>,
}

/// What is known before the step's first call.
pub(crate) struct Opening {
    proc: OwnedFd,
    ledger: Ledger,
    mounts: BTreeMap<PathBuf, Mounted>,
    first: Credentials,
}

impl Opening {
    /// Of a step whose owners are emulated; none of another.
    pub fn of(spec: &Spec) -> Result<Option<Opening>, Error> {
        let Some(emulation) = &spec.emulation else { return Ok(None) };
        let open = |path: &Path| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            openat(CWD, path, flags, Mode::empty())
                .map_err(|errno| Error::Host { call: "openat", source: errno.into() })
        };
        let upper = match &spec.rootfs {
            Rootfs::Overlay { writable, .. } => Some(open(&writable.upper)?),
            Rootfs::Directory { .. } => None,
        };
        let (owners, records) = (emulation.owners.clone(), emulation.records.clone());
        let user = &spec.user;
        Ok(Some(Opening {
            proc: open(Path::new("/proc"))?,
            ledger: Ledger { owners, records, upper, mounts: Vec::new(), suspects: Suspects::default() },
            mounts: emulation.mounts.clone(),
            first: Credentials::of_step(
                user.uid,
                user.gid,
                &user.additional_gids,
                spec.capabilities.bits() & known_capabilities(),
            ),
        }))
    }

    /// Answers on a thread of its own, until nobody of the step is left. The step has this root, and will start the first of
    /// these programs that is there.
    pub fn answer(
        self,
        listener: OwnedFd,
        root: OwnedFd,
        programs: Vec<Vec<u8>>,
    ) -> Result<JoinHandle<()>, Error> {
        let work = move || {
            notify::wake_on_this_processor(listener.as_fd());
            notify::take_short_turns();
            let numbers = Numbers::new();
            // Without it the listener is closed, and every call that would be answered fails: the step says so.
            let Ok(view) = View::enter(self.proc, root) else { return };
            let identities = Identities::new(self.first);
            let programs = programs.into_iter();
            let mut ledger = self.ledger;
            ledger.begin(&view, self.mounts);
            let mut supervisor =
                Supervisor { listener, ledger, identities, view, statuses: Statuses::default(), programs };
            while let Some(call) = next(&supervisor.listener) {
                supervisor.tell(&numbers, &call);
            }
        };
        let thread = std::thread::Builder::new().name("kiln-owners".into()).spawn(work);
        thread.map_err(|source| Error::Host { call: "clone3", source })
    }
}

/// The capabilities that this kernel has.
fn known_capabilities() -> u64 {
    let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap");
    let last = last.ok().and_then(|text| text.trim().parse::<u32>().ok()).unwrap_or(40);
    u64::MAX >> (63 - last.min(63))
}

/// The next call; none when the last process has ended.
pub(crate) fn next(listener: &OwnedFd) -> Option<Notification> {
    let mut is_there = receiving_ends();
    loop {
        if is_there {
            match notify::receive(listener.as_fd()) {
                Ok(call) => return Some(call),
                // Killed meanwhile, or nobody is left.
                Err(Errno::NOENT | Errno::INTR) => {}
                Err(_) => return None,
            }
        }
        let mut source = [PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN)];
        match poll(&mut source, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return None,
        }
        let found = source[0].revents();
        is_there = found.contains(PollFlags::IN);
        if !is_there && found.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
            return None;
        }
    }
}

/// Whether the kernel lets go of who waits for the next call when nobody is left that could make one (Linux 6.12 for certain).
/// With an older one there is a second call for each, to wait.
fn receiving_ends() -> bool {
    static ENDS: LazyLock<bool> = LazyLock::new(|| {
        let name = rustix::system::uname();
        let release = name.release().to_string_lossy().into_owned();
        let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(str::parse::<u32>);
        let mut number = || numbers.next().and_then(Result::ok).unwrap_or(0);
        (number(), number()) >= (6, 12)
    });
    *ENDS
}

impl Supervisor {
    fn tell(&mut self, numbers: &Numbers, call: &Notification) {
        let trap = numbers.get(call.number).filter(|_| native_architecture() == Some(call.architecture));
        let answer = trap.map_or(Ok(Answer::GoOn), |trap| self.decide(trap, call));
        let listener = self.listener.as_fd();
        match answer {
            Ok(Answer::GoOn) => notify::answer(listener, call.id, Ok(0), true),
            Ok(Answer::Value(value)) => notify::answer(listener, call.id, Ok(value), false),
            Ok(Answer::Told) => {}
            Err(errno) => notify::answer(listener, call.id, Err(errno), false),
        }
    }

    fn decide(&mut self, trap: Trap, call: &Notification) -> Answered {
        use Trap::*;
        match trap {
            Chown | Lchown | Fchown | Fchownat => self.chown(trap, call),
            Setuid | Setgid | Setreuid | Setregid | Setresuid | Setresgid | Setfsuid | Setfsgid
            | Setgroups | Capset => self.set_identity(trap, call),
            Getuid | Geteuid | Getgid | Getegid | Getresuid | Getresgid | Getgroups | Capget => {
                self.identity(trap, call)
            }
            Prctl => self.prctl(call),
            Getrlimit | Setrlimit | Prlimit => self.hide_limit(trap, call),
            Getsockopt => self.peer(call),
            Stat | Lstat | Fstat | Newfstatat | Statx => self.stat(trap, call),
            Access | Faccessat | Faccessat2 => self.access(trap, call),
            Listxattr | Llistxattr | Flistxattr => self.list_attributes(trap, call),
            Mknod | Mknodat | Mkdir | Mkdirat | Symlink | Symlinkat => self.make(trap, call),
            Link | Linkat | Rename | Renameat | Renameat2 => self.rename(trap, call),
            Utimensat | Futimesat | Utimes | Utime => self.touch(trap, call),
            Truncate => self.truncate(call),
            Unlink | Unlinkat | Rmdir => self.remove(trap, call),
            Chmod | Fchmod | Fchmodat | Fchmodat2 => self.chmod(trap, call),
            Creat | Open | Openat | Openat2 => self.open(trap, call),
            Execve | Execveat => self.execute(trap, call),
            Chroot if !self.who(call).can(SYS_CHROOT) => Err(Errno::PERM),
            Chroot | Setns | Unshare | PivotRoot | Clone => {
                self.view.roots_differ = true;
                Ok(Answer::GoOn)
            }
        }
    }

    /// Who made the call.
    pub(super) fn who(&self, call: &Notification) -> &Credentials {
        self.identities.of(call.thread)
    }

    /// Whether the call still waits, and what was read is of its process.
    pub(super) fn still_waits(&self, call: &Notification) -> bool {
        notify::still_waits(self.listener.as_fd(), call.id)
    }

    /// Gives the caller's memory these bytes. Where it waits no more the error reaches nobody.
    pub(super) fn write(&self, call: &Notification, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        if !self.still_waits(call) {
            return Err(Errno::SRCH);
        }
        notify::write_memory(call.thread, address, bytes)
    }

    /// Whose a file is, and from where that is known.
    pub(super) fn owner(&self, file: &File) -> (Owner, From) {
        self.ledger.owner(&self.view, file)
    }

    /// What a path argument names.
    pub(super) fn named(&self, call: &Notification, at: At, path: u64) -> Option<Named> {
        let text = self.view.text(call.thread, path)?;
        (!text.is_empty()).then_some(Named::Path(at, text))
    }

    /// What a path argument names that may be empty, or no path at all, to mean the descriptor.
    pub(super) fn named_or_open(&self, call: &Notification, at: At, path: u64, flags: u64) -> Option<Named> {
        let may_be_empty = flags & libc::AT_EMPTY_PATH as u64 != 0;
        if may_be_empty && path == 0 {
            return Some(Named::Open(at.folder));
        }
        let text = self.view.text(call.thread, path)?;
        match text.is_empty() {
            true if may_be_empty => Some(Named::Open(at.folder)),
            true => None,
            false => Some(Named::Path(at, text)),
        }
    }

    /// The file of a path argument; none where the kernel has to say what it thinks of it.
    pub(super) fn find(&self, call: &Notification, at: At, path: u64) -> Option<File> {
        self.view.look(call.thread, &self.named(call, at, path)?)
    }

    /// The file of a path argument that may be empty, or no path at all, to mean the descriptor.
    pub(super) fn find_or_open(&self, call: &Notification, at: At, path: u64, flags: u64) -> Option<File> {
        self.view.look(call.thread, &self.named_or_open(call, at, path, flags)?)
    }

    /// The same, but none also where it is root's, or not there: nothing of it needs to be answered.
    pub(super) fn suspect(&self, call: &Notification, named: &Named) -> Option<File> {
        // The kernel would look among the descriptors of this process.
        if matches!(named, Named::Path(_, path) if descriptor(path).is_some()) {
            return self.view.look(call.thread, named);
        }
        match self.view.glance(call.thread, named) {
            Some(Ok(found)) if self.ledger.is_surely_roots(&self.view, &found) => None,
            Some(Err(_)) => None,
            _ => self.view.look(call.thread, named),
        }
    }

    /// Whether what is made at a path by root will be root's without more: the folder hands no group on.
    pub(super) fn makes_roots(
        &self,
        call: &Notification,
        who: &Credentials,
        folder: i32,
        path: &[u8],
    ) -> bool {
        let Some((above, _)) = split(path).filter(|_| who.makes_files_of_root()) else { return false };
        let named = Named::Path(At { folder, follow: true }, above.to_vec());
        let found = self.view.glance(call.thread, &named);
        found.is_some_and(|found| found.is_ok_and(|found| u32::from(found.stx_mode) & libc::S_ISGID == 0))
    }

    /// Whether what gets this name would be taken for a copy of a file of the layers below that is not root's.
    pub(super) fn is_taken(&self, call: &Notification, folder: i32, path: &[u8]) -> bool {
        if self.ledger.upper.is_none() || !self.ledger.suspects.may_be_at(path) {
            return false;
        }
        let place = self.view.parent(call.thread, folder, path);
        place.is_some_and(|(folder, name)| self.ledger.is_taken(&self.view, &folder, &name))
    }

    /// Whether the caller may do this to a file; root may, as far as the kernel has no objection.
    pub(super) fn may(&self, who: &Credentials, file: &File, wanted: u32) -> bool {
        may_access(who, &self.owner(file).0, file.mode(), wanted)
    }
}

/// An argument that is an `int`.
pub(super) fn int(call: &Notification, argument: usize) -> i32 {
    call.arguments.get(argument).map_or(0, |value| *value as i32)
}

/// An argument that is an id or a mode.
pub(super) fn word(call: &Notification, argument: usize) -> u32 {
    call.arguments.get(argument).map_or(0, |value| *value as u32)
}

/// An argument that is a pointer, a length or flags.
pub(super) fn long(call: &Notification, argument: usize) -> u64 {
    call.arguments.get(argument).copied().unwrap_or(0)
}
