//! What the cloned process does: makes the calls, one by one.
//!
//! This runs in a fork of a program with many threads, so another thread may have held any lock at
//! the moment of the clone, the allocator's included. Nothing here allocates, frees, locks or panics; all
//! memory is in [`Child`], filled by the caller before the clone. Errors are three numbers.

mod files;
mod group;
mod init;
mod mount_point;
mod orphans;
mod overlay;
mod process;
mod root;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::DumpableBehavior;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::board::{Board, LEFT, WARNED};
use crate::fault::{At, Fault, Syscall};
use crate::stdio::Streams;
use crate::sys::{self, Stack, Strings};
use crate::{Call, Slot};

pub(crate) use files::SOURCE;
pub(crate) use init::END;
pub(crate) use mount_point::{Created, LINKS};
pub(crate) use overlay::{UPPER, WORK};
pub(crate) use process::EXISTS;

/// Everything that the new process needs, made before it.
pub(crate) struct Child<'a> {
    /// The plan.
    pub calls: &'a [Call],
    /// What is told to the caller.
    pub board: &'a Board,
    /// Kept descriptors, one place for each slot of the plan.
    pub kept: Vec<Option<OwnedFd>>,
    /// Mount points that were made. Never grows beyond its capacity.
    pub created: Vec<Created>,
    /// The root directory, once entered.
    pub root: Option<OwnedFd>,
    /// The slave of the terminal.
    pub terminal: Option<OwnedFd>,
    /// Standard input, output, error.
    pub streams: Streams,
    /// Written to when the command runs; closed when nothing of the step runs any more.
    pub alive: Option<OwnedFd>,
    /// Ends when the caller's process does.
    pub life: OwnedFd,
    /// The network namespace of [`Call::EnterNetwork`].
    pub network: Option<OwnedFd>,
    /// Takes the master of the terminal to the caller.
    pub console: Option<OwnedFd>,
    /// Takes the listener of [`Call::InstallListener`] to the caller.
    pub listener: Option<OwnedFd>,
    /// Ranges of descriptors to close: all but those above.
    pub foreign: Vec<(u32, u32)>,
    /// `argv` and `env` of [`Call::Exec`].
    pub arguments: (Strings<'a>, Strings<'a>),
    /// For the process that [`Call::Spawn`] makes.
    pub stack: &'a Stack,
    /// Whether it was cloned into its control group of version 2.
    pub is_in_group: bool,
    /// The caller's command line, each argument with its NUL, to be hidden from the step.
    pub command_line: Vec<u8>,
}

/// The byte that says that the command runs.
pub(crate) const STARTED: u8 = b's';

/// What the step's `ps` shows as PID 1.
pub(crate) const NAME: &std::ffi::CStr = c"kiln-init";

/// The ranges between the descriptors that are kept.
pub(crate) fn ranges_between(kept: &mut [u32]) -> Vec<(u32, u32)> {
    kept.sort_unstable();
    let mut ranges = Vec::with_capacity(kept.len() + 1);
    let mut first = 0;
    for fd in kept {
        if *fd > first {
            ranges.push((first, *fd - 1));
        }
        first = *fd + 1;
    }
    ranges.push((first, u32::MAX));
    ranges
}

impl Child<'_> {
    /// The descriptors that the child keeps, by number.
    pub fn descriptors(&self) -> Vec<u32> {
        let Streams { stdin, stdout, stderr } = &self.streams;
        [stdin, stdout, stderr, &self.alive, &self.console, &self.network, &self.listener]
            .into_iter()
            .flatten()
            .chain([&self.life])
            .map(|fd| fd.as_raw_fd() as u32)
            .collect()
    }

    /// Makes the calls up to [`Call::Spawn`], spawns the command, and is its PID 1 until it ends.
    pub fn run(mut self) -> ! {
        sys::reset_signal_actions();
        // Without the session of the command, which a test takes out of the plan, this one is the caller's too.
        if self.calls.iter().any(|call| matches!(call, Call::NewSession { .. })) {
            let _ = rustix::process::setsid();
        }
        rustix::process::umask(rustix::fs::Mode::empty());
        for index in 0..self.calls.len() {
            let Some(call) = self.calls.get(index) else { break };
            if *call == Call::Spawn {
                self.spawn_and_wait(index);
            }
            if let Err(fault) = self.perform(index, call) {
                self.give_up(index, fault);
            }
        }
        self.give_up(self.calls.len(), Fault::new(Syscall::Internal, Errno::INVAL));
    }

    /// Lets go of what was the caller's.
    fn close_foreign(&self) -> Result<(), Fault> {
        for (first, last) in &self.foreign {
            sys::close_range(*first, *last, false).at(Syscall::CloseRange)?;
        }
        Ok(())
    }

    /// Keeps the step from reading this process's memory and arguments.
    fn hide_memory(&self) -> Result<(), Fault> {
        // Neither of the two results can be an error with these arguments.
        let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
        let _ = rustix::thread::set_name(NAME);
        sys::hide_arguments(&self.command_line, NAME.to_bytes());
        sys::hide_environment();
        Ok(())
    }

    /// Enters the network namespace, and lets go of its descriptor.
    fn enter_network(&mut self) -> Result<(), Fault> {
        let network = self.network.take().ok_or(Fault::new(Syscall::Internal, Errno::BADF))?;
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).at(Syscall::Setns)
    }

    /// Tells the caller what failed, and ends.
    fn give_up(&mut self, index: usize, fault: Fault) -> ! {
        self.board.fail(index, fault);
        self.remove_created();
        sys::exit(1)
    }

    /// Makes one call of those before [`Call::Spawn`].
    fn perform(&mut self, index: usize, call: &Call) -> Result<(), Fault> {
        match call {
            Call::Clone { .. } => Ok(()),
            Call::CloseForeign => self.close_foreign(),
            Call::HideMemory => self.hide_memory(),
            Call::JoinGroup { folder, unified } => group::join(folder, *unified && self.is_in_group),
            Call::EnterNetwork => self.enter_network(),
            Call::AdoptOrphans => {
                rustix::process::set_child_subreaper(Some(rustix::process::getpid())).at(Syscall::Prctl)
            }
            Call::MakePrivate => root::make_private(),
            Call::MakePrivateFromChroot { through } => root::make_private_from_chroot(through),
            Call::CloneRoot => root::clone_root(),
            Call::Overlay(overlay) => {
                let mount = overlay::mount(overlay, self.board)?;
                self.keep(overlay.keep, mount)
            }
            Call::Select { within, path } => {
                let selected = files::select(self.kept(*within)?, path)?;
                self.keep(*within, selected)
            }
            Call::Bind { root, path, readonly, keep } => {
                let mount = files::bind(root, path, *readonly)?;
                self.keep(*keep, mount)
            }
            Call::KernelFiles { kind, readonly, keep } => {
                let mount = files::kernel_files(kind, *readonly)?;
                self.keep(*keep, mount)
            }
            Call::FileStore { keep } => {
                let mount = files::store()?;
                self.keep(*keep, mount)
            }
            Call::File { store, name, content, mode, uid, gid, readonly, keep } => {
                let file = files::NewFile { name, content, mode: *mode, uid: *uid, gid: *gid };
                let mount = files::create(self.kept(*store)?, &file, *readonly)?;
                self.keep(*keep, mount)
            }
            Call::EnterRoot { root } => {
                let entered = root::enter(self.kept(*root)?)?;
                self.root = Some(entered);
                Ok(())
            }
            Call::Mount { at, source, optional } => match self.mount(index, at, source) {
                Err(_) if *optional => {
                    self.board.remark(index, WARNED);
                    Ok(())
                }
                other => other,
            },
            Call::MakeDirectory { path, mode } => files::make_directory(path, *mode),
            Call::MakeDevice { path, major, minor } => files::make_device(path, *major, *minor),
            Call::MakeLink { target, path } => {
                rustix::fs::symlink(target.as_c_str(), path.as_c_str()).at(Syscall::Symlinkat)
            }
            Call::Mask { path } => root::mask(self.root()?, path),
            Call::MakeReadOnly { path, remount } => root::make_read_only(self.root()?, path, *remount),
            Call::ForbidDevices { made, usable } => root::forbid_devices(self.root()?, made, usable),
            Call::MakeRootReadOnly { remount } => root::set_root_read_only(true, *remount),
            other => self.prepare(index, other),
        }
    }

    /// Keeps a descriptor in its place.
    fn keep(&mut self, slot: Slot, fd: OwnedFd) -> Result<(), Fault> {
        let place = self.kept.get_mut(slot.0).ok_or(Fault::new(Syscall::Internal, Errno::BADF))?;
        *place = Some(fd);
        Ok(())
    }

    /// What was kept there.
    fn kept(&self, slot: Slot) -> Result<BorrowedFd<'_>, Fault> {
        let kept = self.kept.get(slot.0).and_then(Option::as_ref);
        kept.map(AsFd::as_fd).ok_or(Fault::new(Syscall::Internal, Errno::BADF))
    }

    /// The root directory; it is entered before anything asks for it.
    fn root(&self) -> Result<BorrowedFd<'_>, Fault> {
        self.root.as_ref().map(AsFd::as_fd).ok_or(Fault::new(Syscall::Internal, Errno::BADF))
    }

    /// Whether the plan made the root read-only, and how.
    fn read_only_root(&self) -> Option<bool> {
        self.calls.iter().find_map(|call| match call {
            Call::MakeRootReadOnly { remount } => Some(*remount),
            _ => None,
        })
    }

    /// Removes the mount points that were made, as far as they are still empty.
    fn remove_created(&mut self) {
        if self.created.is_empty() {
            return;
        }
        if let Some(remount) = self.read_only_root() {
            // If this fails, so does each removal below, and that is told.
            let _ = root::set_root_read_only(false, remount);
        }
        for created in self.created.iter().rev() {
            if created.remove().is_err() {
                self.board.remark(created.call, LEFT);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ranges_between;

    #[test]
    fn ranges_leave_out_what_is_kept() {
        assert_eq!(ranges_between(&mut []), [(0, u32::MAX)]);
        assert_eq!(ranges_between(&mut [0]), [(1, u32::MAX)]);
        assert_eq!(ranges_between(&mut [12, 10, 11]), [(0, 9), (13, u32::MAX)]);
        assert_eq!(ranges_between(&mut [3, 10]), [(0, 2), (4, 9), (11, u32::MAX)]);
    }
}
