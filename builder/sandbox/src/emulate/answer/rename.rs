//! Calls that give a file another name, or one more: it keeps its owner.

use super::super::calls::Trap;
use super::super::credentials::Credentials;
use super::super::supervisor::{Answer, Answered, Supervisor, int, long, word};
use super::super::view::{At, File};
use crate::sys::notify::Notification;
use rustix::io::Errno;

/// What is asked for: folders and paths, and how.
struct Asked {
    from: (i32, u64),
    to: (i32, u64),
    /// The name is one more.
    links: bool,
    /// Those of `linkat`.
    flags: u64,
    /// Each gets the name of the other.
    exchanges: bool,
    /// What has the name already may lose it.
    replaces: bool,
}

impl Asked {
    fn of(trap: Trap, call: &Notification) -> Asked {
        let here = libc::AT_FDCWD;
        let (from, to) = match trap {
            Trap::Link | Trap::Rename => ((here, long(call, 0)), (here, long(call, 1))),
            _ => ((int(call, 0), long(call, 1)), (int(call, 2), long(call, 3))),
        };
        let links = matches!(trap, Trap::Link | Trap::Linkat);
        let how = if trap == Trap::Renameat2 { word(call, 4) } else { 0 };
        Asked {
            from,
            to,
            links,
            flags: if trap == Trap::Linkat { long(call, 4) } else { 0 },
            exchanges: how & libc::RENAME_EXCHANGE != 0,
            replaces: !links && how & libc::RENAME_NOREPLACE == 0,
        }
    }
}

impl Supervisor {
    pub(in super::super) fn rename(&mut self, trap: Trap, call: &Notification) -> Answered {
        let asked = Asked::of(trap, call);
        let at = At { folder: asked.from.0, follow: asked.flags & libc::AT_SYMLINK_FOLLOW as u64 != 0 };
        let Some(named) = self.named_or_open(call, at, asked.from.1, asked.flags) else {
            return Ok(Answer::GoOn);
        };
        let is_taken = self.is_taken_at(call, asked.to);
        let who = self.who(call);
        let is_root = who.user.file_system == 0;
        let file = match is_root && !is_taken {
            true => self.suspect(call, &named),
            false => self.view.look(call.thread, &named),
        };
        let replaced = match asked.exchanges || asked.replaces && !is_root {
            true => self.find(call, At { folder: asked.to.0, follow: false }, asked.to.1),
            false => None,
        };
        if !is_root && let Some(file) = &file {
            self.may_rename(call, who, &asked, (file, replaced.as_ref()))?;
        }
        if let Some(file) = file {
            self.keep_owner(call, &file, asked.links, is_taken);
        }
        if let Some(other) = replaced.filter(|_| asked.exchanges) {
            self.keep_owner(call, &other, false, self.is_taken_at(call, asked.from));
        }
        Ok(Answer::GoOn)
    }

    fn is_taken_at(&self, call: &Notification, (folder, path): (i32, u64)) -> bool {
        let path = self.view.text(call.thread, path);
        path.is_some_and(|path| self.is_taken(call, folder, &path))
    }

    fn may_rename(
        &self,
        call: &Notification,
        who: &Credentials,
        asked: &Asked,
        (file, replaced): (&File, Option<&File>),
    ) -> Result<(), Errno> {
        if !asked.links {
            self.may_remove_at(call, who, asked.from.0, asked.from.1, file)?;
        }
        if let Some(text) = self.view.text(call.thread, asked.to.1) {
            self.place(call, who, asked.to.0, &text)?;
        }
        match replaced {
            Some(replaced) => self.may_remove_at(call, who, asked.to.0, asked.to.1, replaced),
            None => Ok(()),
        }
    }

    /// Writes down whose a file is, where its new name would make it another's, or no one's who is known.
    fn keep_owner(&self, call: &Notification, file: &File, links: bool, is_taken: bool) {
        if !self.still_waits(call) {
            return;
        }
        if is_taken {
            self.ledger.pin_firmly(&self.view, file);
        }
        match links {
            true => self.ledger.pin_linked(&self.view, file),
            false => self.ledger.pin(&self.view, file),
        }
    }
}
