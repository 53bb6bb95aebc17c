//! Calls about who a process is.

use rustix::io::Errno;

use super::super::calls::Trap;
use super::super::credentials::{Credentials, GROUPS};
use super::super::supervisor::{Answer, Answered, Supervisor, int, long, word};
use crate::sys::notify::{self, Notification};

/// `_LINUX_CAPABILITY_VERSION_1`, which has one word of each set; the others have two.
const VERSION_1: u32 = 0x1998_0330;
const VERSIONS: [u32; 3] = [VERSION_1, 0x2007_1026, 0x2008_0522];

impl Supervisor {
    /// Makes the caller somebody else.
    pub(super) fn become_this(&mut self, call: &Notification, who: Credentials) -> Answered {
        if who != *self.who(call) {
            if !self.still_waits(call) {
                return Ok(Answer::Told);
            }
            self.statuses.show(&self.view, call.thread, &who);
            self.identities.set(call.thread, who)?;
        }
        Ok(Answer::Value(0))
    }

    pub(in super::super) fn set_identity(&mut self, trap: Trap, call: &Notification) -> Answered {
        let who = self.who(call);
        let three = [word(call, 0), word(call, 1), word(call, 2)];
        let [first, second, _] = three;
        let new = match trap {
            Trap::Setuid => who.set_user(first)?,
            Trap::Setgid => who.set_group(first)?,
            Trap::Setreuid => who.set_users(first, second)?,
            Trap::Setregid => who.set_two_groups(first, second)?,
            Trap::Setresuid => who.set_all_users(three)?,
            Trap::Setresgid => who.set_all_groups(three)?,
            Trap::Setfsuid => {
                let (before, new) = (who.user.file_system, who.set_file_user(first));
                return self.become_this(call, new).map(|answer| instead(answer, before));
            }
            Trap::Setfsgid => {
                let (before, new) = (who.group.file_system, who.set_file_group(first));
                return self.become_this(call, new).map(|answer| instead(answer, before));
            }
            Trap::Setgroups => who.set_groups(read_groups(call)?)?,
            _ => return self.set_capabilities(call),
        };
        self.become_this(call, new)
    }

    pub(in super::super) fn identity(&mut self, trap: Trap, call: &Notification) -> Answered {
        let who = self.who(call);
        let all = match trap {
            Trap::Getuid => return Ok(Answer::Value(who.user.real.into())),
            Trap::Geteuid => return Ok(Answer::Value(who.user.effective.into())),
            Trap::Getgid => return Ok(Answer::Value(who.group.real.into())),
            Trap::Getegid => return Ok(Answer::Value(who.group.effective.into())),
            Trap::Getgroups => return self.groups(call, &who.groups),
            Trap::Getresuid => who.user,
            Trap::Getresgid => who.group,
            _ => return self.capabilities(call),
        };
        for (argument, id) in [all.real, all.effective, all.saved].into_iter().enumerate() {
            self.write(call, long(call, argument), &id.to_ne_bytes())?;
        }
        Ok(Answer::Value(0))
    }

    fn groups(&self, call: &Notification, groups: &[u32]) -> Answered {
        let room = usize::try_from(int(call, 0)).map_err(|_| Errno::INVAL)?;
        if room != 0 {
            if room < groups.len() {
                return Err(Errno::INVAL);
            }
            let bytes: Vec<u8> = groups.iter().flat_map(|gid| gid.to_ne_bytes()).collect();
            self.write(call, long(call, 1), &bytes)?;
        }
        Ok(Answer::Value(groups.len() as i64))
    }

    fn capabilities(&self, call: &Notification) -> Answered {
        let Some(words) = self.words_of_own(call) else { return Ok(Answer::GoOn) };
        if long(call, 1) == 0 {
            return Ok(Answer::GoOn);
        }
        let who = self.who(call);
        let mut bytes = Vec::with_capacity(24);
        for word in 0..words {
            for set in [who.effective, who.permitted, who.inheritable] {
                bytes.extend(((set >> (32 * word)) as u32).to_ne_bytes());
            }
        }
        self.write(call, long(call, 1), &bytes)?;
        Ok(Answer::Value(0))
    }

    fn set_capabilities(&mut self, call: &Notification) -> Answered {
        let Some(words) = self.words_of_own(call) else { return Ok(Answer::GoOn) };
        let mut bytes = [0_u8; 24];
        let length = 12 * words as usize;
        if notify::read_memory(call.thread, long(call, 1), &mut bytes[..length])? != length {
            return Err(Errno::FAULT);
        }
        let mut sets = [0_u64; 3];
        for (place, value) in bytes[..length].as_chunks::<4>().0.iter().enumerate() {
            sets[place % 3] |= u64::from(u32::from_ne_bytes(*value)) << (32 * (place / 3));
        }
        let who = self.who(call);
        // Those that the kernel does not know are left out, as the kernel does.
        let known = |set: u64| set & (who.bounding | who.permitted | u64::from(u32::MAX) << 9 | 0x1ff);
        let [effective, permitted, inheritable] = sets.map(known);
        let new = who.set_capabilities(effective, permitted, inheritable)?;
        self.become_this(call, new)
    }

    /// How many words each set has in a call about the caller's own capabilities; none for another call, or a wrong one.
    fn words_of_own(&self, call: &Notification) -> Option<u32> {
        let mut header = [0_u8; 8];
        let read = notify::read_memory(call.thread, long(call, 0), &mut header).ok()?;
        let [a, b, c, d, process @ ..] = header;
        let (version, process) = (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes(process));
        // By its number in the step's namespace. Another's is the kernel's to say.
        let own = || self.view.status(call.thread, "NSpid")?.split_whitespace().last()?.parse().ok();
        let is_own = process == 0 || own() == Some(process);
        let is_right = read == header.len() && is_own && VERSIONS.contains(&version);
        is_right.then_some(if version == VERSION_1 { 1 } else { 2 })
    }

    pub(in super::super) fn prctl(&mut self, call: &Notification) -> Answered {
        let who = self.who(call);
        if int(call, 0) == libc::PR_GET_KEEPCAPS {
            return Ok(Answer::Value(who.keeps_capabilities.into()));
        }
        let new = who.keep_capabilities(long(call, 1))?;
        self.become_this(call, new)
    }

    /// The limit that holds who a process is, as if it were none.
    pub(in super::super) fn hide_limit(&mut self, trap: Trap, call: &Notification) -> Answered {
        let to = match trap {
            Trap::Getrlimit => long(call, 1),
            Trap::Prlimit => long(call, 3),
            _ => 0,
        };
        if to != 0 || trap == Trap::Getrlimit {
            self.write(call, to, &[0xff; 16])?;
        }
        Ok(Answer::Value(0))
    }
}

fn instead(answer: Answer, value: u32) -> Answer {
    match answer {
        Answer::Value(_) => Answer::Value(value.into()),
        other => other,
    }
}

fn read_groups(call: &Notification) -> Result<Vec<u32>, Errno> {
    let count = int(call, 0);
    let count = usize::try_from(count).ok().filter(|count| *count <= GROUPS).ok_or(Errno::INVAL)?;
    let mut bytes = vec![0_u8; 4 * count];
    let mut read = 0;
    while read < bytes.len() {
        match notify::read_memory(call.thread, long(call, 1) + read as u64, &mut bytes[read..])? {
            0 => return Err(Errno::FAULT),
            length => read += length,
        }
    }
    Ok(bytes.as_chunks::<4>().0.iter().map(|id| u32::from_ne_bytes(*id)).collect())
}
