//! Calls that make a name, or take one away.

use std::os::fd::AsFd;

use rustix::fs::{FileType, Mode, OFlags, makedev, mkdirat, mknodat, openat, symlinkat};
use rustix::io::Errno;

use super::super::calls::Trap;
use super::super::credentials::{Credentials, MKNOD};
use super::super::devices::is_whiteout;
use super::super::permission::{EXECUTE, WRITE, may_remove};
use super::super::record::{Device, Owner};
use super::super::supervisor::{Answer, Answered, Supervisor, int, long, word};
use super::super::view::{At, File};
use super::files::may_search;
use crate::sys::notify::Notification;

/// A folder in which a name is to be made, and whose what is made there will be.
pub(super) struct Place {
    pub folder: File,
    pub name: Vec<u8>,
    pub owner: Owner,
}

impl Supervisor {
    /// The place of a path's last name; none where the kernel has to say what it thinks of it.
    ///
    /// # Errors
    /// The caller may not write to the folder.
    pub(super) fn place(
        &self,
        call: &Notification,
        who: &Credentials,
        folder: i32,
        path: &[u8],
    ) -> Result<Option<Place>, Errno> {
        let Some((folder, name)) = self.view.parent(call.thread, folder, path) else { return Ok(None) };
        if who.makes_files_of_root() && folder.mode() & libc::S_ISGID == 0 {
            return Ok(Some(Place { folder, name, owner: Owner::ROOT }));
        }
        let (above, _) = self.owner(&folder);
        if who.user.file_system != 0 && !may_search(who, &above, &folder, WRITE | EXECUTE) {
            return Err(Errno::ACCESS);
        }
        let gid = if folder.mode() & libc::S_ISGID == 0 { who.group.file_system } else { above.gid };
        Ok(Some(Place { owner: Owner { uid: who.user.file_system, gid, device: None }, folder, name }))
    }

    pub(in super::super) fn make(&mut self, trap: Trap, call: &Notification) -> Answered {
        // Folder and path, and where the rest begins.
        let (folder, path, rest) = match trap {
            Trap::Mknodat | Trap::Mkdirat => (int(call, 0), long(call, 1), 2),
            Trap::Symlinkat => (int(call, 1), long(call, 2), 0),
            Trap::Symlink => (libc::AT_FDCWD, long(call, 1), 0),
            _ => (libc::AT_FDCWD, long(call, 0), 1),
        };
        let is_node = matches!(trap, Trap::Mknod | Trap::Mknodat);
        let device = if is_node { device(word(call, rest), word(call, rest + 1)) } else { None };
        let who = self.who(call).clone();
        let Some(text) = self.view.text(call.thread, path) else { return Ok(Answer::GoOn) };
        let needs_record = device.is_some() || self.is_taken(call, folder, &text);
        if !needs_record && self.makes_roots(call, &who, folder, &text) {
            return Ok(Answer::GoOn);
        }
        let Some(place) = self.place(call, &who, folder, &text)? else { return Ok(Answer::GoOn) };
        if !needs_record && place.owner == Owner::ROOT {
            return Ok(Answer::GoOn);
        }
        if device.is_some_and(|device| is_whiteout(&device) || !who.can(MKNOD)) {
            return Err(Errno::PERM);
        }
        let target = match trap {
            Trap::Symlink | Trap::Symlinkat => match self.view.text(call.thread, long(call, 0)) {
                Some(target) if !target.is_empty() => Some(target),
                _ => return Ok(Answer::GoOn),
            },
            _ => None,
        };
        let mode = word(call, rest) & !self.view.mask(call.thread);
        if !self.still_waits(call) {
            return Ok(Answer::Told);
        }
        let Place { folder, name, owner } = place;
        let permissions = Mode::from_raw_mode(mode & 0o7777);
        match (&target, device) {
            (Some(target), _) => symlinkat(&target[..], &folder.fd, &name[..])?,
            (None, Some(_)) => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                drop(openat(&folder.fd, &name[..], flags, permissions)?);
            }
            (None, None) if is_node => {
                let kind = match mode & libc::S_IFMT {
                    0 => FileType::RegularFile,
                    kind => FileType::from_raw_mode(kind),
                };
                mknodat(&folder.fd, &name[..], kind, permissions, makedev(0, 0))?;
            }
            (None, None) => mkdirat(&folder.fd, &name[..], Mode::from_raw_mode(mode & 0o1777))?,
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = File::of(openat(folder.fd.as_fd(), &name[..], flags, Mode::empty())?)?;
        self.ledger.record(&self.view, &made, Owner { device, ..owner })?;
        Ok(Answer::Value(0))
    }

    pub(in super::super) fn remove(&mut self, trap: Trap, call: &Notification) -> Answered {
        let (folder, path) = match trap {
            Trap::Unlinkat => (int(call, 0), long(call, 1)),
            _ => (libc::AT_FDCWD, long(call, 0)),
        };
        let who = self.who(call);
        if who.user.file_system == 0 {
            return Ok(Answer::GoOn);
        }
        let Some(file) = self.find(call, At { folder, follow: false }, path) else { return Ok(Answer::GoOn) };
        self.may_remove_at(call, who, folder, path, &file)?;
        Ok(Answer::GoOn)
    }

    /// Whether the caller may take the name of a file away.
    pub(super) fn may_remove_at(
        &self,
        call: &Notification,
        who: &Credentials,
        folder: i32,
        path: u64,
        file: &File,
    ) -> Result<(), Errno> {
        let above = self.view.text(call.thread, path);
        let Some((above, _)) = above.and_then(|text| self.view.parent(call.thread, folder, &text)) else {
            return Ok(());
        };
        may_remove(who, (&self.owner(&above).0, above.mode()), &self.owner(file).0)
    }
}

/// The device that is asked for; none for a file, a pipe or a socket.
pub(in super::super) fn device(mode: u32, number: u32) -> Option<Device> {
    let block = match mode & libc::S_IFMT {
        libc::S_IFBLK => true,
        libc::S_IFCHR => false,
        _ => return None,
    };
    // `new_decode_dev`.
    Some(Device { block, major: number >> 8 & 0xfff, minor: number & 0xff | number >> 12 & 0xf_ff00 })
}
