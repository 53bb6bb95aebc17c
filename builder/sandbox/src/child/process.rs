//! The last calls of PID 1 before it spawns, and those of the command's own process.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Uid, accessat, fchown, fstat, openat};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketType, sendmsg, socket,
};
use rustix::process::{
    Signal, chdir, chroot, ioctl_tiocsctty, set_parent_process_death_signal, setsid, umask,
};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_no_new_privs};

use super::Child;
use crate::board::WARNED;
use crate::fault::{At, Fault, Syscall};
use crate::{Call, Filter, ResourceLimit, WindowSize, sys};

/// Detail of a failed [`Call::Exec`]: a file of that name is there.
pub(crate) const EXISTS: u32 = 1;

/// Every capability number that fits into the kernel's mask.
const CAPABILITIES: u32 = 64;

impl Child<'_> {
    /// Makes one call of those between the mounts and [`Call::Spawn`].
    pub(super) fn prepare(&mut self, index: usize, call: &Call) -> Result<(), Fault> {
        match call {
            Call::LoopbackUp => {
                let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).at(Syscall::Socket)?;
                sys::loopback_up(socket.as_fd()).at(Syscall::Ioctl)
            }
            Call::SetHostName { name } => match rustix::system::sethostname(name.as_bytes()) {
                // A container's filter, as Podman has it, permits namespaces and not this.
                Err(Errno::PERM) => {
                    self.board.remark(index, WARNED);
                    Ok(())
                }
                other => other.at(Syscall::Sethostname),
            },
            Call::JoinSessionKeyring => {
                sys::join_session_keyring();
                Ok(())
            }
            Call::OpenTerminal { size, uid } => {
                let terminal = self.open_terminal(*size, *uid)?;
                self.terminal = Some(terminal);
                Ok(())
            }
            Call::OwnStreams { uid } => self.own_streams(*uid),
            _ => Err(Fault::new(Syscall::Internal, Errno::INVAL)),
        }
    }

    /// Sets a limit, or as much of it as this process may.
    fn limit(&self, index: usize, limit: &ResourceLimit) -> Result<(), Fault> {
        let number = limit.resource.number();
        match sys::set_limit(number, limit.soft, limit.hard) {
            Err(Errno::PERM) => {
                self.board.remark(index, WARNED);
                let hard = sys::hard_limit(number).at(Syscall::Prlimit)?.min(limit.hard);
                sys::set_limit(number, limit.soft.min(hard), hard).at(Syscall::Prlimit)
            }
            other => other.at(Syscall::Prlimit),
        }
    }

    /// Opens a terminal, sends its master to the caller and returns the slave.
    fn open_terminal(&self, size: WindowSize, uid: u32) -> Result<OwnedFd, Fault> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let master = openat(CWD, c"/dev/pts/ptmx", flags, Mode::empty()).at(Syscall::Openat)?;
        unlockpt(&master).at(Syscall::Ioctl)?;
        let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY).at(Syscall::Ioctl)?;
        let window = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, window).at(Syscall::Ioctl)?;
        fchown(&slave, Some(Uid::from_raw(uid)), None).at(Syscall::Fchown)?;
        send(self.console.as_ref(), &[master.as_fd()])?;
        Ok(slave)
    }

    /// Gives pipes to the user, who could not open `/dev/stdout` otherwise.
    fn own_streams(&self, uid: u32) -> Result<(), Fault> {
        for stream in [&self.streams.stdout, &self.streams.stderr].into_iter().flatten() {
            let mode = fstat(stream).at(Syscall::Fstat)?.st_mode;
            if FileType::from_raw_mode(mode) == FileType::Fifo {
                fchown(stream, Some(Uid::from_raw(uid)), None).at(Syscall::Fchown)?;
            }
        }
        Ok(())
    }

    /// The command's process: makes the calls after [`Call::Spawn`].
    pub(super) fn become_command(&self) -> ! {
        let spawn = self.calls.iter().position(|call| *call == Call::Spawn).unwrap_or(0);
        for (index, call) in self.calls.iter().enumerate().skip(spawn + 1) {
            if let Err(fault) = self.perform_in_command(index, call) {
                self.board.fail(index, fault);
                break;
            }
        }
        sys::exit(127)
    }

    fn perform_in_command(&self, index: usize, call: &Call) -> Result<(), Fault> {
        match call {
            Call::NewSession { terminal } => {
                setsid().at(Syscall::Setsid)?;
                match &self.terminal {
                    Some(slave) if *terminal => ioctl_tiocsctty(slave).at(Syscall::Ioctl),
                    _ => Ok(()),
                }
            }
            Call::PlaceStreams => self.place_streams(),
            Call::ChangeRoot { path } => {
                chroot(path.as_c_str()).at(Syscall::Chroot)?;
                chdir(c"/").at(Syscall::Chdir)
            }
            Call::DieWithParent => set_parent_process_death_signal(Some(Signal::KILL)).at(Syscall::Prctl),
            Call::EnterWorkingDirectory { path } => chdir(path.as_c_str()).at(Syscall::Chdir),
            Call::Limit(limit) => self.limit(index, limit),
            Call::BoundCapabilities { keep } => bound_capabilities(keep.bits()),
            Call::SetGroups { gids } => sys::set_groups(gids).at(Syscall::Setgroups),
            Call::InstallFilter { filter } => match sys::install_filter(filter.instructions()) {
                // See the plan for a chroot.
                Err(Errno::ACCESS) if self.adopts() => Ok(()),
                other => other.at(Syscall::Seccomp),
            },
            Call::InstallListener { filter, optional } => {
                // First, for opening is a call that may be answered.
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let root = openat(CWD, c"/", flags, Mode::empty()).at(Syscall::Openat)?;
                let listener = match sys::notify::install_listener(filter.instructions()) {
                    Err(errno) if self.adopts() => match self.install_without_new_rights(errno, filter) {
                        // The step does without.
                        None => return Ok(()),
                        Some(listener) => listener,
                    },
                    Err(Errno::BUSY) if *optional => return Ok(()),
                    other => other.at(Syscall::Seccomp)?,
                };
                send(self.listener.as_ref(), &[listener.as_fd(), root.as_fd()])
            }
            Call::SetIds { uid, gid } => {
                sys::set_gid(*gid).at(Syscall::Setresgid)?;
                sys::set_uid(*uid).at(Syscall::Setresuid)
            }
            Call::SetCapabilities { keep } => {
                let now = capabilities(None).at(Syscall::Capget)?.permitted;
                let stay = now & CapabilitySet::from_bits_retain(keep.bits());
                let inheritable = CapabilitySet::empty();
                set_capabilities(None, CapabilitySets { effective: stay, permitted: stay, inheritable })
                    .at(Syscall::Capset)
            }
            Call::SetMask { mask } => {
                umask(Mode::from_raw_mode(*mask));
                Ok(())
            }
            Call::CloseOthers => {
                self.board.set_floor(sys::peak_kibibytes());
                sys::close_range(3, u32::MAX, true).at(Syscall::CloseRange)?;
                sys::unblock_signals();
                Ok(())
            }
            Call::Exec { candidates, .. } => Err(self.exec(candidates)),
            _ => Err(Fault::new(Syscall::Internal, Errno::INVAL)),
        }
    }

    /// Installs a filter that was refused for want of CAP_SYS_ADMIN: who promises to gain no rights may. For root that is
    /// no loss, see the plan for a chroot.
    fn install_without_new_rights(&self, refused: Errno, filter: &Filter) -> Option<OwnedFd> {
        if refused != Errno::ACCESS {
            return None;
        }
        set_no_new_privs(true).ok()?;
        sys::notify::install_listener(filter.instructions()).ok()
    }

    /// 0, 1 and 2. Sources are all above 9, so none is overwritten before it is used; a terminal or
    /// `/dev/null` opened here may have any number, and is used for all three or put in place first.
    fn place_streams(&self) -> Result<(), Fault> {
        if let Some(slave) = &self.terminal {
            return (0..3).try_for_each(|number| sys::place(slave.as_fd(), number).at(Syscall::Dup));
        }
        let streams = [&self.streams.stdin, &self.streams.stdout, &self.streams.stderr];
        if streams.iter().any(|stream| stream.is_none()) {
            let null = openat(CWD, c"/dev/null", OFlags::RDWR, Mode::empty()).at(Syscall::Openat)?;
            for number in 0..3 {
                sys::place(null.as_fd(), number).at(Syscall::Dup)?;
            }
            // It may be one of the three itself; any other number is closed on exec with the rest.
            std::mem::forget(null);
        }
        for (number, stream) in (0..).zip(streams) {
            if let Some(stream) = stream {
                sys::place(stream.as_fd(), number).at(Syscall::Dup)?;
            }
        }
        Ok(())
    }

    /// `execve` of the candidates in order. Like `execvp(3)`, a file that may not be executed is passed over, and
    /// told if nothing else is found.
    fn exec(&self, candidates: &[CString]) -> Fault {
        let (argv, env) = &self.arguments;
        let mut fault = Fault::new(Syscall::Execve, Errno::NOENT);
        for candidate in candidates {
            match sys::execve(candidate, argv, env) {
                errno @ (Errno::NOENT | Errno::NOTDIR) => {
                    if exists(candidate) {
                        return Fault::new(Syscall::Execve, errno).with(EXISTS);
                    }
                }
                Errno::ACCESS => fault = Fault::new(Syscall::Execve, Errno::ACCESS).with(EXISTS),
                errno => return Fault::new(Syscall::Execve, errno).with(EXISTS),
            }
        }
        fault
    }
}

/// Sends one or two descriptors to the caller.
fn send(to: Option<&OwnedFd>, descriptors: &[BorrowedFd<'_>]) -> Result<(), Fault> {
    let to = to.ok_or(Fault::new(Syscall::Internal, Errno::BADF))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(descriptors));
    let data = [std::io::IoSlice::new(b"t")];
    sendmsg(to, &data, &mut control, SendFlags::NOSIGNAL).at(Syscall::Sendmsg).map(drop)
}

fn exists(path: &CStr) -> bool {
    accessat(CWD, path, rustix::fs::Access::EXISTS, AtFlags::empty()).is_ok()
}

/// Takes every other capability out of the bounding set, and all out of the ambient set.
fn bound_capabilities(keep: u64) -> Result<(), Fault> {
    for capability in 0..CAPABILITIES {
        if keep & (1 << capability) == 0 {
            match sys::drop_from_bounding_set(capability) {
                // The kernel knows no capability of this number or above.
                Err(Errno::INVAL) => break,
                other => other.at(Syscall::Prctl)?,
            }
        }
    }
    match rustix::thread::clear_ambient_capability_set() {
        Err(Errno::INVAL) | Ok(()) => Ok(()),
        Err(errno) => Err(Fault::new(Syscall::Prctl, errno)),
    }
}
