//! Starting a program, and who is at the other end of a socket.

use rustix::fs::{FileType, Mode, OFlags, openat};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::super::calls::Trap;
use super::super::credentials::Program;
use super::super::permission::EXECUTE;
use super::super::supervisor::{Answer, Answered, Supervisor, int, long};
use super::super::view::{At, File};
use crate::sys::notify::{self, Notification};
use rustix::io::Errno;

impl Supervisor {
    /// Notes whom the program makes of who starts it; the kernel, to whom both are root, starts it.
    pub(in super::super) fn execute(&mut self, trap: Trap, call: &Notification) -> Answered {
        let file = match trap {
            Trap::Execve => {
                let path = self.view.text(call.thread, long(call, 0)).or_else(|| self.programs.next());
                let at = At { folder: libc::AT_FDCWD, follow: true };
                path.and_then(|path| self.view.find(call.thread, at, &path))
            }
            _ => {
                let flags = long(call, 4);
                let follow = flags & libc::AT_SYMLINK_NOFOLLOW as u64 == 0;
                self.find_or_open(call, At { folder: int(call, 0), follow }, long(call, 1), flags)
            }
        };
        let Some(file) = file else {
            // `/proc/self/exe`, or nothing.
            let who = self.identities.of(call.thread);
            self.statuses.show(&self.view, call.thread, who);
            return Ok(Answer::GoOn);
        };
        let mode = file.mode();
        if file.kind() != FileType::RegularFile || mode & 0o111 == 0 {
            return Ok(Answer::GoOn);
        }
        let who = self.who(call);
        if who.user.file_system != 0 && !self.may(who, &file, EXECUTE) {
            return Err(Errno::ACCESS);
        }
        let first = self.first_bytes(&file);
        if is_of_another_abi(&first) {
            return Err(Errno::NOEXEC);
        }
        let new = who.execute(self.program(call, &file, &first));
        if new != *who {
            if !self.still_waits(call) {
                return Ok(Answer::Told);
            }
            self.identities.set(call.thread, new.clone())?;
        }
        // A child has what its parent had but for this, and starts most often a program.
        self.statuses.show(&self.view, call.thread, &new);
        Ok(Answer::GoOn)
    }

    fn program(&self, call: &Notification, file: &File, first: &[u8]) -> Program {
        let mode = file.mode();
        let user = mode & libc::S_ISUID != 0;
        // Without the group's execute bit it is a file with mandatory locks.
        let group = mode & libc::S_ISGID != 0 && mode & 0o010 != 0;
        // Of a script it is the interpreter that has set-id bits, and what is no program is not started.
        if !user && !group || !first.starts_with(b"\x7fELF") {
            return Program::default();
        }
        if self.view.status(call.thread, "NoNewPrivs").is_some_and(|set| set != "0") {
            return Program::default();
        }
        let (owner, _) = self.owner(file);
        Program { user: user.then_some(owner.uid), group: group.then_some(owner.gid) }
    }

    /// The beginning of a file that may not be read by everybody; nothing where it cannot be read.
    fn first_bytes(&self, file: &File) -> [u8; 20] {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        // By its number in the folder that this thread is in: it is looked at already, and no pipe.
        let open = openat(rustix::fs::CWD, file.name(), flags, Mode::empty());
        let mut first = [0; 20];
        // As much as there is.
        let _length = open.and_then(|open| rustix::io::read(&open, &mut first[..]));
        first
    }

    /// `SO_PEERCRED`: who the other end seems to be.
    pub(in super::super) fn peer(&mut self, call: &Notification) -> Answered {
        let (buffer, length) = (long(call, 3), long(call, 4));
        let mut room = [0_u8; 4];
        let read = notify::read_memory(call.thread, length, &mut room);
        if read != Ok(4) || u32::from_ne_bytes(room) < 12 {
            return Ok(Answer::GoOn);
        }
        let Some((process, number)) = self.other_end(call) else { return Ok(Answer::GoOn) };
        let who = self.identities.of(process);
        let credentials = [number, who.user.effective, who.group.effective];
        let bytes: Vec<u8> = credentials.into_iter().flat_map(u32::to_ne_bytes).collect();
        self.write(call, buffer, &bytes)?;
        self.write(call, length, &12_u32.to_ne_bytes())?;
        Ok(Answer::Value(0))
    }

    /// The process at the other end of a socket, by its number here and in the step.
    fn other_end(&self, call: &Notification) -> Option<(u32, u32)> {
        let leader = self.view.status(call.thread, "Tgid")?.parse().ok().and_then(Pid::from_raw)?;
        let process = pidfd_open(leader, PidfdFlags::empty()).ok()?;
        let socket = pidfd_getfd(&process, int(call, 0), PidfdGetfdFlags::empty()).ok()?;
        if !self.still_waits(call) {
            return None;
        }
        let peer = rustix::net::sockopt::socket_peercred(&socket).ok()?.pid.as_raw_nonzero().get() as u32;
        let number = self.view.status(peer, "NSpid")?.split_whitespace().last()?.parse().ok()?;
        Some((peer, number))
    }
}

/// Whether it is a program that the kernel runs with other numbers for its calls: they would not be answered.
fn is_of_another_abi(first: &[u8; 20]) -> bool {
    /// Of an ELF file: 32 bits, and the machines i386, x86-64 and arm.
    const NARROW: u8 = 1;
    const I386: u16 = 3;
    const X86_64: u16 = 62;
    const ARM: u16 = 40;
    let [0x7f, b'E', b'L', b'F', NARROW, .., low, high] = *first else { return false };
    let machine = u16::from_le_bytes([low, high]);
    match cfg!(target_arch = "aarch64") {
        true => machine == ARM,
        false => [I386, X86_64].contains(&machine),
    }
}

#[cfg(test)]
mod tests {
    use super::is_of_another_abi;

    #[test]
    fn programs_with_other_numbers_are_told_by_their_header() {
        let head = |class, machine: u8| {
            let mut head = [0; 20];
            head[..5].copy_from_slice(&[0x7f, b'E', b'L', b'F', class]);
            head[18] = machine;
            head
        };
        let arm = cfg!(target_arch = "aarch64");
        let table = [(head(2, 62), false), (head(2, 183), false), (head(1, 3), !arm), (head(1, 62), !arm)];
        for (head, expected) in table.into_iter().chain([(head(1, 40), arm), ([b'#'; 20], false)]) {
            assert_eq!(is_of_another_abi(&head), expected, "{head:?}");
        }
    }
}
