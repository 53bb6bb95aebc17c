//! What bounds a step: its control group, its time. What it took, and by what it was ended.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
};

use oci::Digest;
use rustix::{
    fs::{FallocateFlags, Mode, OFlags},
    io::read,
    time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    },
};
use sandbox::{Cgroups, Group, GroupUsage, Handle, Report, Resources, Running, Status};
use store::Took;

use super::Effects;
use crate::{
    error::Cause,
    progress::{Event, Usage, Warning},
};

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;
const SIGBUS: i32 = 7;

/// With less than this a disk is full.
const FULL_BYTES: u64 = 1 << 20;

/// How long a step that is over its time has to end by itself.
const GRACE_SECONDS: i64 = 10;

/// Limits of steps. They change no result, so they are in no key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepLimits {
    /// What the kernel keeps them from.
    pub resources: Resources,
    /// The control group below which each gets its own: a path in the hierarchies.
    pub cgroup_parent: Option<PathBuf>,
    /// How long each may run; `None` is without end.
    pub timeout_seconds: Option<u64>,
}

impl StepLimits {
    /// Whether a step needs a control group.
    pub(crate) fn need_group(&self) -> bool {
        self.resources != Resources::default() || self.cgroup_parent.is_some()
    }
}

/// What is left of a step that has ended. Dropped, the kernel has taken its namespaces apart, and its group is gone.
pub(crate) struct Ended {
    // In this order: a group cannot be removed while something is in it.
    pub(crate) _running: Running,
    pub(crate) _group: Option<Group>,
}

impl Effects {
    /// A new control group for a step, where limits need one.
    pub(crate) fn group(&self) -> Result<Option<Group>, Cause> {
        if !self.step_limits.need_group() {
            return Ok(None);
        }
        let cgroups = {
            let mut made = self.cgroups.lock().unwrap_or_else(PoisonError::into_inner);
            match &*made {
                Some(cgroups) => cgroups.clone(),
                None => {
                    let limits = &self.step_limits;
                    let opened = Cgroups::open(limits.resources.clone(), limits.cgroup_parent.as_deref())?;
                    made.insert(Arc::new(opened)).clone()
                }
            }
        };
        Ok(Some(cgroups.group()?))
    }

    /// What rings when the step's time is over.
    pub(crate) fn alarm(&self, handle: Handle) -> Result<Option<Alarm>, Cause> {
        self.step_limits.timeout_seconds.map(|seconds| Alarm::new(handle, seconds)).transpose()
    }

    /// Tells what a step took.
    pub(crate) fn tell_usage(&self, vertex: Digest, report: &Report, group: &GroupUsage) -> Took {
        let microseconds = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let took = Took {
            user_microseconds: microseconds(report.user_time),
            system_microseconds: microseconds(report.system_time),
            largest_process_bytes: report.largest_process_bytes,
            peak_memory_bytes: group.peak_memory_bytes,
        };
        self.sink.event(Event::Usage(Usage { vertex, took, throttled_periods: group.throttled_periods }));
        took
    }

    /// Warns of processes that were killed for their memory in a step that does not mind.
    pub(crate) fn warn_of_killed(&self, vertex: Digest, group: &GroupUsage) {
        if group.killed_for_memory > 0 {
            let count = group.killed_for_memory;
            let processes = if count == 1 { "a process was" } else { "processes were" };
            let limit = self.reached_limit(group).map_or_else(
                || "there was no more memory in a control group above its own, or in the machine".to_owned(),
                |limit| format!("it reached its memory limit of {}", size(limit)),
            );
            let message = format!("{processes} killed in a step that succeeded, because {limit}");
            let code = "out-of-memory".to_owned();
            self.sink.event(Event::Warning(Warning { vertex: Some(vertex), code, message, source: None }));
        }
    }

    /// The step's own limit, if that is what a process was killed for: the kernel counts the same for what a group above
    /// has as its limit, and for the machine.
    fn reached_limit(&self, group: &GroupUsage) -> Option<u64> {
        let limit = self.step_limits.resources.memory_bytes?;
        is_reached(limit, group.peak_memory_bytes).then_some(limit)
    }

    /// Why a step did not succeed.
    pub(crate) fn why_it_failed(&self, failed: FailedStep) -> Cause {
        let FailedStep { command, status, ran_seconds, over_time, group, last_lines } = failed;
        if let (true, Some(limit_seconds)) = (over_time, self.step_limits.timeout_seconds) {
            return Cause::TimedOut { command, limit_seconds, ran_seconds, last_lines };
        }
        if group.killed_for_memory > 0 {
            let limit_bytes = self.reached_limit(&group);
            let peak_bytes = group.peak_memory_bytes;
            return Cause::OutOfMemory { command, limit_bytes, peak_bytes, last_lines };
        }
        match status {
            // Not where it exited with 137: it may have meant that, and of what a shell ran nothing else is known.
            Status::Signaled(SIGKILL) => {
                Cause::Killed { command, available_bytes: sandbox::available_memory(), last_lines }
            }
            Status::Exited(_) | Status::Signaled(SIGBUS)
                if let Some(free_bytes) = self.free_bytes_of_full_disk() =>
            {
                let (code, signal) = match status {
                    Status::Exited(code) => (Some(code), None),
                    Status::Signaled(signal) => (None, Some(signal)),
                };
                Cause::DiskFull {
                    command,
                    code,
                    signal,
                    folder: self.store.root().to_owned(),
                    free_bytes,
                    last_lines,
                }
            }
            Status::Exited(code) => Cause::Exit { command, code: Some(code), signal: None, last_lines },
            Status::Signaled(signal) => Cause::Exit { command, code: None, signal: Some(signal), last_lines },
        }
    }

    /// What is left on the disk that steps write to, where that is so little that a step which fails may well have failed for
    /// it.
    fn free_bytes_of_full_disk(&self) -> Option<u64> {
        let found = rustix::fs::statvfs(self.store.root()).ok()?;
        let free_bytes = found.f_bavail.saturating_mul(found.f_frsize);
        // File systems without a table of files say that there are none.
        let no_more_files = found.f_files > 0 && found.f_favail == 0;
        // Nor do those in memory alone know how large they are.
        let is_short = found.f_blocks > 0 && free_bytes < FULL_BYTES || no_more_files;
        (is_short && !has_room(self.store.root())).then_some(free_bytes)
    }
}

/// Whether something can be written to the disk of a folder, which root may where others find it full: file systems keep a
/// part for it.
fn has_room(folder: &Path) -> bool {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::open(folder, flags, Mode::RUSR)
        .and_then(|file| rustix::fs::fallocate(file, FallocateFlags::empty(), 0, FULL_BYTES))
        .is_ok()
}

/// A step that did not succeed.
pub(crate) struct FailedStep {
    pub(crate) command: String,
    pub(crate) status: Status,
    pub(crate) ran_seconds: u64,
    pub(crate) over_time: bool,
    pub(crate) group: GroupUsage,
    pub(crate) last_lines: Vec<String>,
}

/// Whether a group that had so much at most is one that reached its limit. The last piece that it asked for may be large.
fn is_reached(limit: u64, peak: Option<u64>) -> bool {
    peak.is_none_or(|peak| peak.saturating_add(limit / 8) >= limit)
}

/// Bytes as the flags take them: `64m`.
pub(crate) fn size(bytes: u64) -> String {
    let units = [(30, "g"), (20, "m"), (10, "k")];
    let whole = units.into_iter().find(|(shift, _)| bytes >> shift > 0 && bytes.is_multiple_of(1 << shift));
    whole.map_or_else(|| bytes.to_string(), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}

/// Ends a step that is over its time: first it is asked to, then it is killed with all its processes.
pub(crate) struct Alarm {
    timer: OwnedFd,
    handle: Handle,
    /// How often it rang.
    rings: u32,
}

impl Alarm {
    fn new(handle: Handle, seconds: u64) -> Result<Alarm, Cause> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)
            .map_err(|errno| Cause::io("make", "a timer")(errno.into()))?;
        let alarm = Alarm { timer, handle, rings: 0 };
        // The kernel takes no number above that of its own type, and nobody waits so long.
        alarm.set(i64::try_from(seconds).unwrap_or(i64::MAX).clamp(1, i64::from(u32::MAX)))?;
        Ok(alarm)
    }

    fn set(&self, seconds: i64) -> Result<(), Cause> {
        let once = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec { tv_sec: seconds, tv_nsec: 0 },
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)
            .map_err(|errno| Cause::io("set", "a timer")(errno.into()))?;
        Ok(())
    }

    /// To be polled.
    pub(crate) fn timer(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }

    /// Does what is to be done now that it rang.
    pub(crate) fn ring(&mut self) {
        if read(&self.timer, &mut [0_u8; 8]).is_err() {
            return;
        }
        self.rings += 1;
        // A step that has ended meanwhile hears nothing, and need not.
        let _told = match self.rings {
            1 => self.handle.signal(SIGTERM),
            _ => self.handle.kill(),
        };
        if self.rings == 1 && self.set(GRACE_SECONDS).is_err() {
            let _killed = self.handle.kill();
        }
    }

    /// Whether the step was over its time.
    pub(crate) fn has_rung(&self) -> bool {
        self.rings > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_was_not_reached_killed_nobody() {
        for (limit, peak, reached) in [
            (64 << 20, Some(64 << 20), true),
            (64 << 20, Some(62 << 20), true),
            (1 << 30, Some(195 << 20), false),
            (64 << 20, None, true),
        ] {
            assert_eq!(is_reached(limit, peak), reached, "{limit} {peak:?}");
        }
    }

    #[test]
    fn sizes_are_as_flags_take_them() {
        for (bytes, text) in [
            (0, "0"),
            (1000, "1000"),
            (64 << 20, "64m"),
            (3 << 30, "3g"),
            ((1 << 30) + (1 << 20), "1025m"),
            (6 << 10, "6k"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
