//! The thread that answers a step's calls.
//!
//! It waits for nothing but the next call, and before a descriptor or a text goes to a process it makes sure that the call still
//! waits, for otherwise what was found may be of another process that has the number now.

use std::os::fd::{AsFd, OwnedFd};
use std::thread::JoinHandle;

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;

use super::files::Served;
use super::find::{Asker, LOOK, Places};
use super::path::{Meant, Of, meant};
use super::{LIST, Trap};
use crate::emulate::{Stat, next};
use crate::seccomp::{native_architecture, native_number};
use crate::sys::notify::{self, Notification};
use crate::{Error, Spec, sys};

/// The longest path (`PATH_MAX`).
const PATH: usize = 4096;
/// What `stat` asks `statx` for (`STATX_BASIC_STATS`).
const BASIC: u32 = 0x7ff;
/// Most paths are shorter, and a whole one would be cleared first.
const SHORT: usize = 256;

/// What is known before the step's first call.
pub(crate) struct Opening {
    proc: OwnedFd,
    files: Vec<Served>,
    user: (u32, u32),
}

/// How a call ends that is not left to the kernel.
enum Answer {
    Value(i64),
    File(OwnedFd, bool),
}

/// What a path is the name of.
#[derive(Clone, Copy)]
enum Target<'a> {
    Proc(Meant<'a>),
    File(&'a Served),
}

struct Answerer {
    listener: OwnedFd,
    places: Places,
    files: Vec<Served>,
    numbers: Vec<(i32, Trap)>,
}

impl Opening {
    /// None where Kiln has no `/proc` itself.
    pub fn of(spec: &Spec) -> Result<Option<Opening>, Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(proc) = openat(CWD, "/proc", flags, Mode::empty()) else { return Ok(None) };
        let failed = |errno: Errno| Error::Host { call: "memfd_create", source: errno.into() };
        Ok(Some(Opening {
            proc,
            files: Served::of(&spec.mounts).map_err(failed)?,
            user: (spec.user.uid, spec.user.gid),
        }))
    }

    /// Whether the step cannot do without.
    pub fn is_needed(&self) -> bool {
        !self.files.is_empty()
    }

    /// Answers on a thread of its own, until nobody of the step is left. The step has this root.
    pub fn answer(self, listener: OwnedFd, root: OwnedFd) -> Result<JoinHandle<()>, Error> {
        let work = move || {
            notify::wake_on_this_processor(listener.as_fd());
            notify::take_short_turns();
            let number = |(trap, name): &(Trap, &str)| Some((native_number(name)? as i32, *trap));
            let numbers = LIST.iter().filter_map(number).collect();
            let (uid, gid) = self.user;
            let places = Places::new(self.proc, root, uid);
            // Of this thread alone.
            let became = if uid == 0 { Ok(()) } else { sys::set_gid(gid).and_then(|()| sys::set_uid(uid)) };
            // Nobody else answers: who ended here would fail every call that is asked about.
            let numbers = if became.is_ok() { numbers } else { Vec::new() };
            let answerer = Answerer { listener, places, files: self.files, numbers };
            while let Some(call) = next(&answerer.listener) {
                answerer.tell(&call);
            }
        };
        let thread = std::thread::Builder::new().name("kiln-proc".into()).spawn(work);
        thread.map_err(|source| Error::Host { call: "clone3", source })
    }
}

impl Answerer {
    fn tell(&self, call: &Notification) {
        let listener = self.listener.as_fd();
        match self.decide(call) {
            None => notify::answer(listener, call.id, Ok(0), true),
            Some(Ok(Answer::Value(value))) => notify::answer(listener, call.id, Ok(value), false),
            Some(Err(errno)) => notify::answer(listener, call.id, Err(errno), false),
            Some(Ok(Answer::File(file, close_on_exec))) => {
                // Refused where it has as many open as it may, or waits no more.
                let given = notify::answer_with_file(listener, call.id, file.as_fd(), close_on_exec);
                if let Err(errno) = given {
                    notify::answer(listener, call.id, Err(errno), false);
                }
            }
        }
    }

    /// None is the kernel's.
    fn decide(&self, call: &Notification) -> Option<Result<Answer, Errno>> {
        let (_, trap) = *self.numbers.iter().find(|(number, _)| *number == call.number)?;
        if native_architecture() != Some(call.architecture) {
            return None;
        }
        let (path, folder) = match trap {
            Trap::Openat
            | Trap::Openat2
            | Trap::Newfstatat
            | Trap::Statx
            | Trap::Faccessat
            | Trap::Faccessat2 => (1, call.arguments[0] as i32),
            Trap::Readlinkat => (1, call.arguments[0] as i32),
            _ => (0, libc::AT_FDCWD),
        };
        let text = text(call.thread, call.arguments[path], self.files.is_empty())?;
        let served = || Served::find(&self.files, &self.places, (call.thread, folder), &text);
        let target = meant(&text).map(Target::Proc).or_else(|| served().map(Target::File))?;
        let asker = self.places.asker(call.thread)?;
        let found = match trap {
            Trap::Open | Trap::Openat | Trap::Openat2 | Trap::Creat => self.open(trap, call, asker, target),
            Trap::Stat | Trap::Lstat | Trap::Newfstatat | Trap::Statx => self.stat(trap, call, asker, target),
            Trap::Access | Trap::Faccessat | Trap::Faccessat2 => self.access(trap, call, asker, target),
            Trap::Readlink | Trap::Readlinkat => {
                let at = path + 1;
                self.readlink(call, asker, target, (call.arguments[at], call.arguments[at + 1]))
            }
            Trap::Getxattr | Trap::Lgetxattr | Trap::Listxattr | Trap::Llistxattr => {
                let follows = matches!(trap, Trap::Getxattr | Trap::Listxattr);
                Some(self.look(asker, target, follows)?.and(Err(Errno::OPNOTSUPP)))
            }
        }?;
        // Something that is not there may have a copy.
        if matches!(found, Err(Errno::NOENT | Errno::LOOP | Errno::XDEV)) || !self.still_waits(call) {
            return None;
        }
        Some(found)
    }

    fn still_waits(&self, call: &Notification) -> bool {
        notify::still_waits(self.listener.as_fd(), call.id)
    }

    fn open(
        &self,
        trap: Trap,
        call: &Notification,
        asker: Asker,
        target: Target<'_>,
    ) -> Option<Result<Answer, Errno>> {
        let flags = match trap {
            Trap::Open => call.arguments[1] as u32,
            Trap::Openat => call.arguments[2] as u32,
            Trap::Creat => (OFlags::CREATE | OFlags::WRONLY | OFlags::TRUNC).bits(),
            _ => {
                // `struct open_how`: flags, mode, resolve. How a path is resolved is the kernel's to see to.
                let mut how = [0_u8; 24];
                let read = notify::read_memory(call.thread, call.arguments[2], &mut how).ok()?;
                let [flags, _, resolve] = *how.as_chunks::<8>().0 else { return None };
                if read != how.len() || resolve != [0; 8] {
                    return None;
                }
                u64::from_ne_bytes(flags) as u32
            }
        };
        let flags = OFlags::from_bits_retain(flags);
        // The kernel hands no such descriptor over.
        if flags.contains(OFlags::PATH) {
            return None;
        }
        let file = match target {
            // The link itself, which is in the step's root or nowhere.
            Target::Proc(meant) if meant.is_link && flags.contains(OFlags::NOFOLLOW) => return None,
            Target::Proc(meant) => self.places.open(asker, meant, flags)?,
            Target::File(file) => file.open(&self.places.proc, asker, flags),
        };
        Some(file.map(|file| Answer::File(file, flags.contains(OFlags::CLOEXEC))))
    }

    /// What is meant, to be looked at.
    fn look(&self, asker: Asker, target: Target<'_>, follows: bool) -> Option<Result<OwnedFd, Errno>> {
        let meant = match target {
            Target::Proc(meant) => meant,
            Target::File(file) => return Some(file.open(&self.places.proc, asker, LOOK)),
        };
        let mut flags = LOOK;
        flags.set(OFlags::NOFOLLOW, !follows);
        if meant.is_link && !follows {
            // `/proc/self` is a link in the /proc at hand too; those of `/dev` are in the step's root.
            return match (meant.of, meant.rest) {
                (Of::Own, b"") => Some(openat(&self.places.proc, "self", flags, Mode::empty())),
                _ => None,
            };
        }
        self.places.open(asker, meant, flags)
    }

    fn stat(
        &self,
        trap: Trap,
        call: &Notification,
        asker: Asker,
        target: Target<'_>,
    ) -> Option<Result<Answer, Errno>> {
        let (buffer, flags) = match trap {
            Trap::Stat => (call.arguments[1], 0),
            Trap::Lstat => (call.arguments[1], libc::AT_SYMLINK_NOFOLLOW as u32),
            Trap::Newfstatat => (call.arguments[2], call.arguments[3] as u32),
            _ => (call.arguments[4], call.arguments[2] as u32),
        };
        let file = match self.look(asker, target, flags & libc::AT_SYMLINK_NOFOLLOW as u32 == 0)? {
            Ok(file) => file,
            Err(errno) => return Some(Err(errno)),
        };
        let is_new = trap == Trap::Statx;
        let (more, mask) = match is_new {
            true => (flags & libc::AT_STATX_SYNC_TYPE as u32, call.arguments[3] as u32),
            false => (0, BASIC),
        };
        let write = || {
            let stat = Stat(notify::statx_bytes(file.as_fd(), more, mask)?);
            let bytes = if is_new { stat.0.to_vec() } else { stat.old() };
            if self.still_waits(call) {
                notify::write_memory(call.thread, buffer, &bytes)?;
            }
            Ok(Answer::Value(0))
        };
        Some(write())
    }

    fn access(
        &self,
        trap: Trap,
        call: &Notification,
        asker: Asker,
        target: Target<'_>,
    ) -> Option<Result<Answer, Errno>> {
        let (wanted, flags) = match trap {
            Trap::Access => (call.arguments[1] as u32, 0),
            Trap::Faccessat => (call.arguments[2] as u32, 0),
            _ => (call.arguments[2] as u32, call.arguments[3] as u32),
        };
        let file = match self.look(asker, target, flags & libc::AT_SYMLINK_NOFOLLOW as u32 == 0)? {
            Ok(file) => file,
            Err(errno) => return Some(Err(errno)),
        };
        let decide = || {
            let found = fstat(&file)?;
            let is_folder = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
            let writes = wanted & libc::W_OK as u32 != 0;
            let is_read_only = match target {
                Target::Proc(meant) => meant.of == Of::Kernel,
                Target::File(_) => true,
            };
            let class = match asker {
                Asker { uid, .. } if uid == found.st_uid => 6,
                Asker { gid, .. } if gid == found.st_gid => 3,
                Asker { .. } => 0,
            };
            let lacks = |right: i32| wanted & right as u32 != 0 && found.st_mode >> class & right as u32 == 0;
            let refused = wanted & libc::X_OK as u32 != 0 && !is_folder && found.st_mode & 0o111 == 0
                || writes && is_read_only
                || asker.uid != 0 && [libc::R_OK, libc::W_OK, libc::X_OK].into_iter().any(lacks);
            if refused { Err(Errno::ACCESS) } else { Ok(Answer::Value(0)) }
        };
        Some(decide())
    }

    fn readlink(
        &self,
        call: &Notification,
        asker: Asker,
        target: Target<'_>,
        (buffer, size): (u64, u64),
    ) -> Option<Result<Answer, Errno>> {
        let own = |asker: Asker| asker.process.to_string().into_bytes();
        let link = match target {
            Target::Proc(Meant { of: Of::Own, is_link: true, rest: b"" }) => Ok(own(asker)),
            // In the step's root.
            Target::Proc(Meant { is_link: true, .. }) => return None,
            Target::File(_) => Err(Errno::INVAL),
            Target::Proc(_) => match self.look(asker, target, false)? {
                Ok(file) => self.places.link(&file, ""),
                Err(errno) => Err(errno),
            },
        };
        let tell = |link: Vec<u8>| {
            let size = i32::try_from(size).ok().filter(|size| *size > 0).ok_or(Errno::INVAL)?;
            let part = &link[..link.len().min(size as usize)];
            if self.still_waits(call) {
                notify::write_memory(call.thread, buffer, part)?;
            }
            Ok(Answer::Value(part.len() as i64))
        };
        Some(link.and_then(tell))
    }
}

/// A text of the process's, without the NUL at its end; none where it cannot be a path below `/proc` or `/dev`, and only those
/// are wanted.
fn text(thread: u32, address: u64, only_those: bool) -> Option<Vec<u8>> {
    let mut start = [0_u8; SHORT];
    let length = notify::read_memory(thread, address, &mut start).ok()?;
    let start = start.get(..length)?;
    if only_those && !start.starts_with(b"/proc") && !start.starts_with(b"/dev/") {
        return None;
    }
    if let Some(end) = start.iter().position(|byte| *byte == 0) {
        return Some(start[..end].to_vec());
    }
    let mut text = vec![0; PATH];
    let length = notify::read_memory(thread, address, &mut text).ok()?;
    let end = text.get(..length)?.iter().position(|byte| *byte == 0)?;
    text.truncate(end);
    Some(text)
}
