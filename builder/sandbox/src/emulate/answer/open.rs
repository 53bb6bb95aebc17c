//! Opening files, and making them by that.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, openat, unlinkat};
use rustix::io::Errno;

use super::super::calls::Trap;
use super::super::credentials::Credentials;
use super::super::permission::WRITE;
use super::super::record::Owner;
use super::super::supervisor::{Answer, Answered, Supervisor, int, long, word};
use super::super::view::{At, File, Named, descriptor};
use super::names::Place;
use crate::sys::notify::{self, Notification};

const READ: u32 = 4;
/// What is given for a name where a file without one is made: the folder itself.
const NO_NAME: &[u8] = b".";

/// What is asked for.
struct Asked {
    folder: i32,
    path: Vec<u8>,
    flags: u32,
    mode: u32,
    /// How the path may be resolved.
    resolve: ResolveFlags,
}

impl Asked {
    /// Whether it has all bits of a flag.
    fn has(&self, flag: i32) -> bool {
        self.flags & flag as u32 == flag as u32
    }

    /// Whether it fails where something is there already.
    fn is_anew(&self) -> bool {
        self.has(libc::O_CREAT | libc::O_EXCL)
    }

    /// Whether a link that the last name is leads on.
    fn follows(&self) -> bool {
        !self.is_anew() && !self.has(libc::O_NOFOLLOW) && !self.resolve.contains(ResolveFlags::NO_SYMLINKS)
    }
}

impl Supervisor {
    pub(in super::super) fn open(&mut self, trap: Trap, call: &Notification) -> Answered {
        let Some(mut asked) = self.asked(trap, call) else { return Ok(Answer::GoOn) };
        if asked.has(libc::O_PATH) {
            return Ok(Answer::GoOn);
        }
        let who = self.who(call).clone();
        if asked.has(libc::O_TMPFILE) {
            return self.make_nameless(call, &who, &asked);
        }
        let is_root = who.makes_files_of_root();
        let named = Named::Path(At { folder: asked.folder, follow: asked.follows() }, asked.path.clone());
        if is_root
            && !asked.is_anew()
            && let Some(Ok(found)) = self.view.glance(call.thread, &named)
            && self.ledger.is_surely_roots(&self.view, &found)
        {
            return Ok(Answer::GoOn);
        }
        let is_new = match asked.is_anew() {
            // What is there already does not matter.
            true => is_root,
            false => asked.has(libc::O_CREAT) && self.is_nothing(call, &asked),
        };
        let found = if is_new { None } else { self.view.look(call.thread, &named) };
        if let Some(file) = found {
            return self.open_old(call, &who, &file, &asked);
        }
        if !asked.has(libc::O_CREAT) {
            return Ok(Answer::GoOn);
        }
        if asked.follows() && !is_new {
            asked.path = self.view.beyond_links(call.thread, asked.folder, asked.path);
            if self.view.is_in_proc(call.thread, asked.folder, &asked.path) {
                return Ok(Answer::GoOn);
            }
        }
        self.make_file(call, &who, &asked)
    }

    /// Whether there is nothing of this name, and no link to nothing either. No is not certain.
    fn is_nothing(&self, call: &Notification, asked: &Asked) -> bool {
        let named = Named::Path(At { folder: asked.folder, follow: false }, asked.path.clone());
        descriptor(&asked.path).is_none()
            && matches!(self.view.glance(call.thread, &named), Some(Err(Errno::NOENT)))
    }

    fn asked(&self, trap: Trap, call: &Notification) -> Option<Asked> {
        let (folder, path) = match trap {
            Trap::Open | Trap::Creat => (libc::AT_FDCWD, long(call, 0)),
            _ => (int(call, 0), long(call, 1)),
        };
        let freely = ResolveFlags::empty();
        let (flags, mode, resolve) = match trap {
            Trap::Creat => ((libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC) as u32, word(call, 1), freely),
            Trap::Open => (word(call, 1), word(call, 2), freely),
            Trap::Openat => (word(call, 2), word(call, 3), freely),
            _ => how(call)?,
        };
        Some(Asked { folder, path: self.view.text(call.thread, path)?, flags, mode, resolve })
    }

    /// The place of what is made at a path; none also where it may not be resolved so, which the kernel says.
    fn place_of(
        &self,
        call: &Notification,
        who: &Credentials,
        asked: &Asked,
        path: &[u8],
    ) -> Result<Option<Place>, Errno> {
        let is_free = asked.resolve.is_empty();
        if !is_free && !self.view.is_reached(call.thread, asked.folder, path, asked.resolve) {
            return Ok(None);
        }
        self.place(call, who, asked.folder, path)
    }

    /// A file that is there: whether it may be opened like this, and by whose record it is known from now on.
    fn open_old(&self, call: &Notification, who: &Credentials, file: &File, asked: &Asked) -> Answered {
        let wanted = match asked.flags as i32 & libc::O_ACCMODE {
            libc::O_RDONLY => READ,
            libc::O_WRONLY => WRITE,
            _ => READ | WRITE,
        };
        let wanted = if asked.has(libc::O_TRUNC) { wanted | WRITE } else { wanted };
        if asked.is_anew() || file.kind() == FileType::Symlink {
            return Ok(Answer::GoOn);
        }
        // Of pipes, terminals and devices the owner is not known as well.
        if who.user.file_system != 0 && file.is_plain() && !self.may(who, file, wanted) {
            return Err(Errno::ACCESS);
        }
        if wanted & WRITE != 0 && file.kind() == FileType::RegularFile && self.still_waits(call) {
            self.ledger.pin(&self.view, file);
        }
        Ok(Answer::GoOn)
    }

    fn make_file(&mut self, call: &Notification, who: &Credentials, asked: &Asked) -> Answered {
        let is_taken = self.is_taken(call, asked.folder, &asked.path);
        if !is_taken && self.makes_roots(call, who, asked.folder, &asked.path) {
            return Ok(Answer::GoOn);
        }
        let place = self.place_of(call, who, asked, &asked.path)?;
        let Some(Place { folder, name, owner }) = place else { return Ok(Answer::GoOn) };
        if owner == Owner::ROOT && !is_taken || asked.path.ends_with(b"/") {
            return Ok(Answer::GoOn);
        }
        let flags = asked.flags & !(libc::O_TRUNC as u32) | (libc::O_EXCL | libc::O_NOFOLLOW) as u32;
        match self.give(call, &folder, &name, (flags, asked.mode), owner) {
            // Somebody was faster: it is the kernel's.
            Err(Errno::EXIST) => Ok(Answer::GoOn),
            other => other,
        }
    }

    /// `O_TMPFILE`: a file without a name, in a folder.
    fn make_nameless(&mut self, call: &Notification, who: &Credentials, asked: &Asked) -> Answered {
        let inside = [&asked.path[..], b"/x"].concat();
        let place = self.place_of(call, who, asked, &inside)?;
        let Some(Place { folder, owner, .. }) = place else { return Ok(Answer::GoOn) };
        if owner == Owner::ROOT {
            return Ok(Answer::GoOn);
        }
        self.give(call, &folder, NO_NAME, (asked.flags, asked.mode), owner)
    }

    /// Makes a file, writes down whose it is, and gives it to the caller.
    fn give(
        &mut self,
        call: &Notification,
        folder: &File,
        name: &[u8],
        (flags, mode): (u32, u32),
        owner: Owner,
    ) -> Answered {
        let mode = Mode::from_raw_mode(mode & 0o7777 & !self.view.mask(call.thread));
        if !self.still_waits(call) {
            return Ok(Answer::Told);
        }
        let open = OFlags::from_bits_retain(flags) | OFlags::CLOEXEC | OFlags::NOCTTY;
        let file = File::of(openat(&folder.fd, name, open, mode)?)?;
        self.ledger.record(&self.view, &file, owner)?;
        let close_on_exec = flags & libc::O_CLOEXEC as u32 != 0;
        let given = notify::answer_with_file(self.listener.as_fd(), call.id, file.fd.as_fd(), close_on_exec);
        // Who has as many files open as it may makes none.
        if given == Err(Errno::MFILE) && name != NO_NAME {
            unlinkat(&folder.fd, name, AtFlags::empty())?;
        }
        given.map(|()| Answer::Told)
    }
}

/// Flags, mode and resolution of a `struct open_how`; none where they are the kernel's to refuse, or a root of its own is asked for.
fn how(call: &Notification) -> Option<(u32, u32, ResolveFlags)> {
    let mut how = [0_u8; 24];
    let read = notify::read_memory(call.thread, long(call, 2), &mut how).ok()?;
    let [flags, mode, resolve] = how.as_chunks::<8>().0 else { return None };
    let [flags, mode, resolve] = [flags, mode, resolve].map(|bytes| u64::from_ne_bytes(*bytes));
    let known = ResolveFlags::NO_XDEV
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::BENEATH;
    if read != how.len() || long(call, 3) < 24 || resolve & !known.bits() != 0 {
        return None;
    }
    let narrow = |number: u64| u32::try_from(number).ok();
    Some((narrow(flags)?, narrow(mode)?, ResolveFlags::from_bits(resolve)?))
}
