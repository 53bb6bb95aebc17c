//! Calls that look at a file, or change whose it is.

use rustix::fs::FileType;
use rustix::io::Errno;

use super::super::calls::Trap;
use super::super::credentials::{Credentials, Ids};
use super::super::layout::Stat;
use super::super::owners::own;
use super::super::permission::{WRITE, is_owner, may_access, may_chown, may_touch};
use super::super::record::{ATTRIBUTE, Owner};
use super::super::supervisor::{Answer, Answered, Supervisor, int, long, word};
use super::super::view::{At, File, Named};
use crate::sys::notify::{self, Notification};

const NO_FOLLOW: u64 = libc::AT_SYMLINK_NOFOLLOW as u64;
/// The flags that most calls know.
const USUAL: u32 = (libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH) as u32;
/// Those that calls know which look.
const LOOKING: u32 = USUAL | (libc::AT_NO_AUTOMOUNT | libc::AT_STATX_SYNC_TYPE) as u32;
/// "Leave it": -1.
const SAME: u32 = u32::MAX;
/// What `stat` asks `statx` for (`STATX_BASIC_STATS`).
const BASIC: u32 = 0x7ff;
/// The longest list of attributes' names (`XATTR_LIST_MAX`).
const NAMES: usize = 65536;

fn here(follow: bool) -> At {
    At { folder: libc::AT_FDCWD, follow }
}

impl Supervisor {
    /// What a call is about whose flags are this argument, and whose folder and path are the first two; none where it has flags
    /// that are not known, and the kernel refuses it.
    fn named_at(&self, call: &Notification, flags: usize, known: u32) -> Option<Named> {
        let flags = word(call, flags);
        if flags & !known != 0 {
            return None;
        }
        let flags = u64::from(flags);
        let at = At { folder: int(call, 0), follow: flags & NO_FOLLOW == 0 };
        self.named_or_open(call, at, long(call, 1), flags)
    }

    fn file_at(&self, call: &Notification, flags: usize) -> Option<File> {
        self.view.look(call.thread, &self.named_at(call, flags, USUAL)?)
    }

    pub(in super::super) fn stat(&mut self, trap: Trap, call: &Notification) -> Answered {
        let (named, buffer) = match trap {
            Trap::Stat | Trap::Lstat => {
                (self.named(call, here(trap == Trap::Stat), long(call, 0)), long(call, 1))
            }
            Trap::Fstat => (Some(Named::Open(int(call, 0))), long(call, 1)),
            Trap::Newfstatat => (self.named_at(call, 3, LOOKING), long(call, 2)),
            _ => (self.named_at(call, 2, LOOKING), long(call, 4)),
        };
        let Some(file) = named.and_then(|named| self.suspect(call, &named)) else { return Ok(Answer::GoOn) };
        let (owner, _) = self.owner(&file);
        let same = owner.uid == file.found.stx_uid && owner.gid == file.found.stx_gid;
        if same && owner.device.is_none() {
            return Ok(Answer::GoOn);
        }
        use std::os::fd::AsFd;
        let is_new = trap == Trap::Statx;
        let (flags, mask) = match is_new {
            // Of the flags only those about other machines' file systems are left.
            true => (word(call, 2) & libc::AT_STATX_SYNC_TYPE as u32, word(call, 3)),
            false => (0, BASIC),
        };
        let mut stat = Stat(notify::statx_bytes(file.fd.as_fd(), flags, mask)?);
        stat.correct(&owner);
        let bytes = if is_new { stat.0.to_vec() } else { stat.old() };
        self.write(call, buffer, &bytes)?;
        Ok(Answer::Value(0))
    }

    pub(in super::super) fn access(&mut self, trap: Trap, call: &Notification) -> Answered {
        let flags = if trap == Trap::Faccessat2 { long(call, 3) } else { 0 };
        let mut who = self.who(call).clone();
        if flags & libc::AT_EACCESS as u64 == 0 {
            who = as_real(who);
        }
        if who.user.file_system == 0 {
            return Ok(Answer::GoOn);
        }
        let (file, wanted) = match trap {
            Trap::Access => (self.find(call, here(true), long(call, 0)), word(call, 1)),
            _ => {
                let at = At { folder: int(call, 0), follow: flags & NO_FOLLOW == 0 };
                (self.find_or_open(call, at, long(call, 1), flags), word(call, 2))
            }
        };
        // The kernel refuses what cannot be, and what is wrong.
        match file {
            Some(file) if wanted & !7 == 0 && !self.may(&who, &file, wanted) => Err(Errno::ACCESS),
            _ => Ok(Answer::GoOn),
        }
    }

    pub(in super::super) fn chown(&mut self, trap: Trap, call: &Notification) -> Answered {
        let (file, ids) = match trap {
            Trap::Chown | Trap::Lchown => (self.find(call, here(trap == Trap::Chown), long(call, 0)), 1),
            Trap::Fchown => (self.view.open_file(call.thread, int(call, 0)), 1),
            _ => (self.file_at(call, 4), 2),
        };
        let Some(file) = file else { return Ok(Answer::GoOn) };
        let id = |argument| Some(word(call, argument)).filter(|id| *id != SAME);
        let (uid, gid) = (id(ids), id(ids + 1));
        let (owner, _) = self.owner(&file);
        if !may_chown(self.who(call), &owner, uid, gid) {
            return Err(Errno::PERM);
        }
        if !self.still_waits(call) {
            return Ok(Answer::Told);
        }
        own(&file)?;
        let new = Owner { uid: uid.unwrap_or(owner.uid), gid: gid.unwrap_or(owner.gid), ..owner };
        // Also where nothing changes: what the layers below say may have been known by what `chown` changes.
        let plain = (file.found.stx_uid, file.found.stx_gid);
        if new != owner || (new.uid, new.gid) != plain {
            self.ledger.record(&self.view, &file, new)?;
        }
        Ok(Answer::Value(0))
    }

    pub(in super::super) fn chmod(&mut self, trap: Trap, call: &Notification) -> Answered {
        let file = match trap {
            Trap::Chmod => self.find(call, here(true), long(call, 0)),
            Trap::Fchmod => self.view.open_file(call.thread, int(call, 0)),
            Trap::Fchmodat => self.find(call, At { folder: int(call, 0), follow: true }, long(call, 1)),
            _ => self.file_at(call, 3),
        };
        match file {
            Some(file) if !is_owner(self.who(call), &self.owner(&file).0) => Err(Errno::PERM),
            _ => Ok(Answer::GoOn),
        }
    }

    /// A time is given: a link of the layers below is known by its own, and so is a file that has several names.
    pub(in super::super) fn touch(&mut self, trap: Trap, call: &Notification) -> Answered {
        let (named, times) = match trap {
            Trap::Utimes | Trap::Utime => (self.named(call, here(true), long(call, 0)), long(call, 1)),
            // Without a path it is what the descriptor is of.
            _ if long(call, 1) == 0 => (Some(Named::Open(int(call, 0))), long(call, 2)),
            Trap::Futimesat => {
                let at = At { folder: int(call, 0), follow: true };
                (self.named(call, at, long(call, 1)), long(call, 2))
            }
            _ => (self.named_at(call, 3, USUAL), long(call, 2)),
        };
        let Some(named) = named else { return Ok(Answer::GoOn) };
        let who = self.who(call);
        let is_root = who.user.file_system == 0;
        let file = if is_root { self.suspect(call, &named) } else { self.view.look(call.thread, &named) };
        let Some(file) = file else { return Ok(Answer::GoOn) };
        if !is_root {
            let special = || (trap == Trap::Utimensat).then(|| nanoseconds(call, times)).flatten();
            let is_now = match special() {
                _ if times == 0 => true,
                // The kernel does nothing.
                Some([libc::UTIME_OMIT, libc::UTIME_OMIT]) => return Ok(Answer::GoOn),
                nanoseconds => nanoseconds == Some([libc::UTIME_NOW; 2]),
            };
            may_touch(who, &self.owner(&file).0, file.mode(), is_now)?;
        }
        if self.still_waits(call) {
            self.ledger.pin(&self.view, &file);
        }
        Ok(Answer::GoOn)
    }

    /// A file is written to by its name, without being opened.
    pub(in super::super) fn truncate(&mut self, call: &Notification) -> Answered {
        let Some(file) = self.find(call, here(true), long(call, 0)) else { return Ok(Answer::GoOn) };
        if file.kind() != FileType::RegularFile {
            return Ok(Answer::GoOn);
        }
        let who = self.who(call);
        if who.user.file_system != 0 && !self.may(who, &file, WRITE) {
            return Err(Errno::ACCESS);
        }
        if self.still_waits(call) {
            self.ledger.pin(&self.view, &file);
        }
        Ok(Answer::GoOn)
    }

    /// The names of a file's attributes without the one that is its record, so that nobody copies it.
    pub(in super::super) fn list_attributes(&mut self, trap: Trap, call: &Notification) -> Answered {
        let file = match trap {
            Trap::Flistxattr => self.view.open_file(call.thread, int(call, 0)),
            _ => self.find(call, here(trap == Trap::Listxattr), long(call, 0)),
        };
        let Some(file) =
            file.filter(|file| matches!(file.kind(), FileType::RegularFile | FileType::Directory))
        else {
            return Ok(Answer::GoOn);
        };
        let mut names = vec![0_u8; NAMES];
        let length = rustix::fs::listxattr(file.name(), names.as_mut_slice())?;
        names.truncate(length);
        let own = ATTRIBUTE.to_bytes_with_nul();
        let kept: Vec<u8> =
            names.split_inclusive(|byte| *byte == 0).filter(|name| *name != own).flatten().copied().collect();
        if kept.len() == names.len() {
            return Ok(Answer::GoOn);
        }
        let room = long(call, 2);
        if room != 0 {
            if kept.len() as u64 > room {
                return Err(Errno::RANGE);
            }
            self.write(call, long(call, 1), &kept)?;
        }
        Ok(Answer::Value(kept.len() as i64))
    }
}

/// Who is asked about by `access`: the real user, with its capabilities.
fn as_real(who: Credentials) -> Credentials {
    let effective = if who.user.real == 0 { who.permitted } else { 0 };
    let of_files = |ids: Ids| Ids { file_system: ids.real, ..ids };
    Credentials { user: of_files(who.user), group: of_files(who.group), effective, ..who }
}

/// The nanoseconds of the two times at an address.
fn nanoseconds(call: &Notification, address: u64) -> Option<[i64; 2]> {
    let mut times = [0_u8; 32];
    let read = notify::read_memory(call.thread, address, &mut times).ok()?;
    let [_, accessed, _, modified] = *times.as_chunks::<8>().0 else { return None };
    (read == times.len()).then(|| [accessed, modified].map(i64::from_ne_bytes))
}

/// As [`may_access`], for a folder.
pub(super) fn may_search(who: &Credentials, owner: &Owner, folder: &File, wanted: u32) -> bool {
    may_access(who, owner, folder.mode(), wanted)
}
