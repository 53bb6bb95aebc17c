//! A step that runs, and what came of it.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::io::{Errno, read};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::board::{Board, CREATED, Finished, LEFT, WARNED};
use crate::child::END;
use crate::sys::{self, SharedBoard};
use crate::{Call, Error, Resource, ResourceLimit, WindowSize};

/// A running step. Dropped, it is killed with all its processes.
pub struct Running {
    handle: Handle,
    /// The only writing end of the pipe whose end tells PID 1 that this process is gone.
    _alive: OwnedFd,
    /// The reading end of the pipe that PID 1 closes.
    ended: OwnedFd,
    board: SharedBoard,
    calls: Vec<Call>,
    /// Answers the step's calls, where owners are emulated. It ends with the step.
    supervisor: Option<JoinHandle<()>>,
    is_reaped: bool,
}

/// Reaches a running step from another thread. It may outlive the step: a signal then fails with `ESRCH`.
#[derive(Clone, Debug)]
pub struct Handle {
    process: Arc<OwnedFd>,
    /// Ends the step.
    last: i32,
    terminal: Option<Arc<OwnedFd>>,
}

/// How the process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It exited with this status.
    Exited(u8),
    /// A signal ended it.
    Signaled(i32),
}

impl Status {
    /// As a shell has it: the exit status, or 128 and the signal's number.
    pub fn code(self) -> i32 {
        match self {
            Status::Exited(status) => i32::from(status),
            Status::Signaled(signal) => 128 + signal,
        }
    }

    /// Whether it exited with 0.
    pub fn is_success(self) -> bool {
        self == Status::Exited(0)
    }
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// How its process ended.
    pub status: Status,
    /// The largest resident set that one of the step's processes had: not what all of them had together. `None` if it stayed
    /// below what the caller's own process held when it was cloned, which the kernel counts in.
    pub largest_process_bytes: Option<u64>,
    /// User time of all its processes; zero, as the system time is, where its PID 1 was killed, which counts it.
    pub user_time: Duration,
    /// System time of all its processes.
    pub system_time: Duration,
    /// Targets of mounts for which something had to be created, and was removed again.
    pub mount_points_removed: Vec<PathBuf>,
    /// Targets of mounts for which something was created that stays, because it is not empty any more or the step
    /// was killed.
    pub mount_points_left: Vec<PathBuf>,
    /// What the machine refused and the step did without, one sentence each.
    pub warnings: Vec<String>,
}

impl Running {
    pub(crate) fn new(process: OwnedFd, alive: OwnedFd, ended: OwnedFd, board: SharedBoard) -> Running {
        let handle = Handle { process: Arc::new(process), last: libc::SIGKILL, terminal: None };
        Running { handle, _alive: alive, ended, board, calls: Vec::new(), supervisor: None, is_reaped: false }
    }

    /// The same, of a step whose first process has to kill the others.
    pub(crate) fn without_namespace(mut self) -> Running {
        self.handle.last = END;
        self
    }

    pub(crate) fn board(&self) -> &Board {
        &self.board
    }

    pub(crate) fn set_terminal(&mut self, terminal: OwnedFd) {
        self.handle.terminal = Some(Arc::new(terminal));
    }

    pub(crate) fn set_calls(&mut self, calls: Vec<Call>) {
        self.calls = calls;
    }

    pub(crate) fn set_supervisor(&mut self, supervisor: JoinHandle<()>) {
        self.supervisor = Some(supervisor);
    }

    /// Waits until nothing more of the step is recorded.
    fn join_supervisor(&mut self) {
        if let Some(supervisor) = self.supervisor.take() {
            // What it has recorded until it failed is what there is.
            let _ended = supervisor.join();
        }
    }

    /// Hangs up when the process has ended, everything else in the step was killed, and mount points are removed: for
    /// `AsyncFd` and `poll`. Nothing of the step writes any more then.
    pub fn ended(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }

    /// A descriptor of PID 1 of the step, readable when the step has ended: for `AsyncFd` and `poll`.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.handle.process.as_fd()
    }

    /// The master of the terminal, if the step has one. It reads `EIO` when nobody in the step holds it.
    pub fn terminal(&self) -> Option<BorrowedFd<'_>> {
        self.handle.terminal.as_deref().map(AsFd::as_fd)
    }

    /// Reaches the step from another thread, while this one waits.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Kills every process of the step at once. [`Running::wait`] then returns.
    ///
    /// # Errors
    /// `ESRCH` if it has ended and was waited for.
    pub fn kill(&self) -> Result<(), Error> {
        self.handle.kill()
    }

    /// Sends a signal to the step's process; see [`Handle::signal`].
    ///
    /// # Errors
    /// As [`Handle::signal`].
    pub fn signal(&self, signal: i32) -> Result<(), Error> {
        self.handle.signal(signal)
    }

    /// Blocks until the process has ended, everything else in the step was killed, mount points are removed, and the
    /// step's namespaces are gone with all that was mounted in them.
    ///
    /// # Errors
    /// A failed `waitid`.
    pub fn wait(mut self) -> Result<Report, Error> {
        let report = self.report()?;
        self.reap_status()?;
        Ok(report)
    }

    /// Blocks until [`Running::ended`] hangs up, and no longer: while the kernel takes the namespaces apart, which is waited
    /// for when this is dropped, one can look at what the step left.
    ///
    /// # Errors
    /// A failed `read` or `waitid`.
    pub fn report(&mut self) -> Result<Report, Error> {
        self.wait_for_end()?;
        self.join_supervisor();
        let killed_by = match self.board.finished() {
            Some(_) => 0,
            None => self.reap_status()?,
        };
        let (status, usage) = match self.board.finished() {
            Some(finished) => (status(finished.wait_status), Some(finished)),
            // PID 1 was killed, by `kill` or from outside, and took the process with it.
            None => (Status::Signaled(killed_by), None),
        };
        let time = |of: fn(&Finished) -> u64| {
            usage.as_ref().map_or(Duration::ZERO, |usage| Duration::from_micros(of(usage)))
        };
        let floor = self.board.floor_kibibytes();
        let peak = usage.map(|usage| usage.peak_kibibytes).filter(|peak| *peak > floor);
        Ok(Report {
            status,
            largest_process_bytes: peak.map(|kibibytes| kibibytes * 1024),
            user_time: time(|usage| usage.user_microseconds),
            system_time: time(|usage| usage.system_microseconds),
            mount_points_removed: self.mount_points(|left| !left),
            mount_points_left: self.mount_points(|left| left),
            warnings: self.warnings(),
        })
    }

    fn wait_for_end(&self) -> Result<(), Error> {
        loop {
            match read(&self.ended, &mut [0_u8; 1]) {
                Ok(0) => return Ok(()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::Host { call: "read", source: errno.into() }),
            }
        }
    }

    fn mount_points(&self, wanted: impl Fn(bool) -> bool) -> Vec<PathBuf> {
        let target = |(index, call): (usize, &Call)| match call {
            Call::Mount { at, .. } if self.board.has_remark(index, CREATED) => {
                let left = self.board.has_remark(index, LEFT) || self.board.finished().is_none();
                wanted(left).then(|| PathBuf::from(OsStr::from_bytes(at.path.as_bytes())))
            }
            _ => None,
        };
        self.calls.iter().enumerate().filter_map(target).collect()
    }

    fn warnings(&self) -> Vec<String> {
        let warning = |(index, call): (usize, &Call)| {
            match call {
            _ if !self.board.has_remark(index, WARNED) => None,
            Call::Limit(limit) => Some(refused(limit, highest_of_files())),
            Call::SetHostName { .. } => Some(
                "the host name in steps is this container's: its filter of system calls refuses to set one (sethostname)"
                    .to_owned(),
            ),
            call => Some(format!("the step does without this: {call}")),
        }
        };
        self.calls.iter().enumerate().filter_map(warning).collect()
    }

    /// Waits for PID 1 when only its end matters.
    pub(crate) fn reap(&mut self) {
        // An error means that there is nothing to wait for.
        let _ = self.reap_status();
    }

    /// Waits for PID 1; the signal that ended it, or 0.
    fn reap_status(&mut self) -> Result<i32, Error> {
        if self.is_reaped {
            return Ok(0);
        }
        // The child has no exit signal, and such a child is waited for only with this flag.
        let options = WaitIdOptions::EXITED | WaitIdOptions::from_bits_retain(libc::__WALL as u32);
        loop {
            match waitid(WaitId::PidFd(self.handle.process.as_fd()), options) {
                Ok(status) => {
                    self.is_reaped = true;
                    return Ok(status.and_then(|status| status.terminating_signal()).unwrap_or(0));
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::Host { call: "waitid", source: errno.into() }),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_reaped {
            if self.board.finished().is_none() {
                // It fails only if the step is gone.
                let _ = self.handle.kill();
            }
            self.reap();
        }
        self.join_supervisor();
    }
}

impl Handle {
    /// Kills every process of the step at once.
    ///
    /// # Errors
    /// `ESRCH` if it has ended and was waited for.
    pub fn kill(&self) -> Result<(), Error> {
        self.send(self.last)
    }

    /// Sends a signal. PID 1 passes it to the step's process, except those that no process can take:
    /// `SIGKILL` ends PID 1 and with it the step, `SIGSTOP` stops PID 1 alone.
    ///
    /// # Errors
    /// `ESRCH` if the step has ended and was waited for, `EINVAL` for a number that is no signal.
    pub fn signal(&self, signal: i32) -> Result<(), Error> {
        self.send(if signal == libc::SIGKILL { self.last } else { signal })
    }

    fn send(&self, signal: i32) -> Result<(), Error> {
        sys::send_signal(self.process.as_fd(), signal)
            .map_err(|errno| Error::Host { call: "pidfd_send_signal", source: errno.into() })
    }

    /// Tells the terminal its size; the step's foreground processes get `SIGWINCH`. Without a terminal nothing
    /// happens.
    ///
    /// # Errors
    /// A failed `ioctl`.
    pub fn resize(&self, size: WindowSize) -> Result<(), Error> {
        let Some(terminal) = &self.terminal else { return Ok(()) };
        let window = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&**terminal, window)
            .map_err(|errno| Error::Host { call: "ioctl(TIOCSWINSZ)", source: errno.into() })
    }
}

/// How many files any process here may be allowed to have open.
fn highest_of_files() -> Option<u64> {
    std::fs::read_to_string("/proc/sys/fs/nr_open").ok()?.trim().parse().ok()
}

/// Why a step has not the limit that it was to have. Above a number of the kernel's nobody may allow files, whatever capabilities it has.
fn refused(limit: &ResourceLimit, highest_of_files: Option<u64>) -> String {
    let name = limit.resource.name();
    let above =
        highest_of_files.filter(|highest| limit.resource == Resource::Nofile && limit.hard > *highest);
    let Some(highest) = above else {
        return format!(
            "the limit {name} could not be raised as asked (no CAP_SYS_RESOURCE); the step has the highest one allowed"
        );
    };
    let asked = if limit.hard == u64::MAX { "unlimited".to_owned() } else { limit.hard.to_string() };
    // The kernel takes no more than fits into an int, in whole blocks of a table.
    let help = if limit.hard < 1 << 30 {
        format!("`sudo sysctl -w fs.nr_open={}` allows it", limit.hard.next_multiple_of(64))
    } else {
        format!("--ulimit {name}={highest} can be had")
    };
    format!(
        "the limit {name} could not be raised to {asked}, which is above fs.nr_open ({highest}); the step has as high a one as Kiln; {help}"
    )
}

/// Reads what `wait4(2)` gave.
fn status(wait_status: i32) -> Status {
    if libc::WIFSIGNALED(wait_status) {
        return Status::Signaled(libc::WTERMSIG(wait_status));
    }
    // The kernel keeps eight bits.
    Status::Exited(libc::WEXITSTATUS(wait_status) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_why_a_limit_could_not_be_raised() {
        let said = |resource, hard, highest| refused(&ResourceLimit { resource, soft: 1, hard }, highest);
        let powerless = |text: String| text.contains("no CAP_SYS_RESOURCE");
        assert!(powerless(said(Resource::Nproc, 5000, Some(1000))));
        assert!(powerless(said(Resource::Nofile, 1000, Some(1000))));
        assert!(powerless(said(Resource::Nofile, 1001, None)));
        let above = said(Resource::Nofile, 1001, Some(1000));
        assert!(above.contains("to 1001, which is above fs.nr_open (1000)"), "{above}");
        assert!(above.contains("`sudo sysctl -w fs.nr_open=1024`"), "{above}");
        let endless = said(Resource::Nofile, u64::MAX, Some(1000));
        assert!(
            endless.contains("to unlimited") && endless.ends_with("--ulimit nofile=1000 can be had"),
            "{endless}"
        );
    }

    #[test]
    fn statuses_are_read() {
        let table = [(0, Status::Exited(0), 0), (0x300, Status::Exited(3), 3), (9, Status::Signaled(9), 137)];
        for (raw, expected, code) in table {
            assert_eq!((status(raw), status(raw).code()), (expected, code));
        }
        assert!(Status::Exited(0).is_success() && !Status::Exited(1).is_success());
    }
}
