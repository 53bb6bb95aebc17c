//! Opening files, and making them by that.

use std::os::fd::AsFd;

use rustix::fs::{FileType, Mode, OFlags, openat};
use rustix::io::Errno;

use super::super::calls::Trap;
use super::super::credentials::Credentials;
use super::super::permission::WRITE;
use super::super::record::Owner;
use super::super::supervisor::{Answer, Answered, Supervisor, int, long, word};
use super::super::view::{At, File, Named};
use super::names::Place;
use crate::sys::notify::{self, Notification};

const READ: u32 = 4;
const CREATE: u32 = libc::O_CREAT as u32;
const EXCLUSIVE: u32 = libc::O_EXCL as u32;
const NAMELESS: u32 = libc::O_TMPFILE as u32;

/// What is asked for.
struct Asked {
    folder: i32,
    path: Vec<u8>,
    flags: u32,
    mode: u32,
}

impl Supervisor {
    pub(in super::super) fn open(&mut self, trap: Trap, call: &Notification) -> Answered {
        let Some(asked) = self.asked(trap, call) else { return Ok(Answer::GoOn) };
        let flags = asked.flags;
        if flags & libc::O_PATH as u32 != 0 {
            return Ok(Answer::GoOn);
        }
        let who = self.who(call).clone();
        if flags & NAMELESS == NAMELESS {
            return self.make_nameless(call, &who, &asked);
        }
        let creates = flags & CREATE != 0;
        let anew = creates && flags & EXCLUSIVE != 0;
        let follow = flags & libc::O_NOFOLLOW as u32 == 0 && !anew;
        let is_root = who.makes_files_of_root();
        let named = Named::Path(At { folder: asked.folder, follow }, asked.path.clone());
        let found = match self.view.glance(call.thread, &named).filter(|_| is_root && !anew) {
            Some(Ok(found)) if self.ledger.is_surely_roots(&self.view, &found) => return Ok(Answer::GoOn),
            // What is there already does not matter.
            _ if anew && is_root => None,
            _ => self.view.look(call.thread, &named),
        };
        if found.is_none() && self.makes_roots(call, &who, asked.folder, &asked.path) {
            return Ok(Answer::GoOn);
        }
        match found {
            Some(file) => self.open_old(call, &who, &file, flags),
            None if creates => self.make_file(call, &who, &asked),
            None => Ok(Answer::GoOn),
        }
    }

    fn asked(&self, trap: Trap, call: &Notification) -> Option<Asked> {
        let (folder, path) = match trap {
            Trap::Open | Trap::Creat => (libc::AT_FDCWD, long(call, 0)),
            _ => (int(call, 0), long(call, 1)),
        };
        let (flags, mode) = match trap {
            Trap::Creat => ((libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC) as u32, word(call, 1)),
            Trap::Open => (word(call, 1), word(call, 2)),
            Trap::Openat => (word(call, 2), word(call, 3)),
            _ => {
                // `struct open_how`: flags, mode, resolve. How a path is resolved is the kernel's to see to.
                let mut how = [0_u8; 24];
                let read = notify::read_memory(call.thread, long(call, 2), &mut how).ok()?;
                let [flags, mode, resolve] = *how.as_chunks::<8>().0 else { return None };
                if read != how.len() || long(call, 3) < 24 || resolve != [0; 8] {
                    return None;
                }
                (u64::from_ne_bytes(flags) as u32, u64::from_ne_bytes(mode) as u32)
            }
        };
        Some(Asked { folder, path: self.view.text(call.thread, path)?, flags, mode })
    }

    /// A file that is there: whether it may be opened like this, and by whose record it is known from now on.
    fn open_old(&self, call: &Notification, who: &Credentials, file: &File, flags: u32) -> Answered {
        let wanted = match flags as i32 & libc::O_ACCMODE {
            libc::O_RDONLY => READ,
            libc::O_WRONLY => WRITE,
            _ => READ | WRITE,
        };
        let wanted = if flags & libc::O_TRUNC as u32 != 0 { wanted | WRITE } else { wanted };
        let makes_anew = flags & (CREATE | EXCLUSIVE) == CREATE | EXCLUSIVE;
        if makes_anew || file.kind() == FileType::Symlink {
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
        let place = self.place(call, who, asked.folder, &asked.path)?;
        let Some(Place { folder, name, owner }) = place else { return Ok(Answer::GoOn) };
        if owner == Owner::ROOT || asked.path.ends_with(b"/") {
            return Ok(Answer::GoOn);
        }
        let flags = asked.flags & !(libc::O_TRUNC as u32) | EXCLUSIVE | libc::O_NOFOLLOW as u32;
        match self.give(call, &folder, &name, (flags, asked.mode), owner) {
            // A link to nothing, or somebody was faster: both are the kernel's.
            Err(Errno::EXIST) => Ok(Answer::GoOn),
            other => other,
        }
    }

    /// `O_TMPFILE`: a file without a name, in a folder.
    fn make_nameless(&mut self, call: &Notification, who: &Credentials, asked: &Asked) -> Answered {
        let inside = [&asked.path[..], b"/x"].concat();
        let place = self.place(call, who, asked.folder, &inside)?;
        let Some(Place { folder, owner, .. }) = place else { return Ok(Answer::GoOn) };
        if owner == Owner::ROOT {
            return Ok(Answer::GoOn);
        }
        self.give(call, &folder, b".", (asked.flags, asked.mode), owner)
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
        notify::answer_with_file(self.listener.as_fd(), call.id, file.fd.as_fd(), close_on_exec)?;
        Ok(Answer::Told)
    }
}
