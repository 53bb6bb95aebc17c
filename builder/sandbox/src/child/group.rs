//! The step's control groups.

use std::ffi::CStr;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::write;

use crate::fault::{At, Fault, Syscall};
use crate::sys;

/// Moves this process into a group, unless it is there, and makes that the `/` of its cgroup namespace.
pub(super) fn join(folder: &CStr, is_there: bool) -> Result<(), Fault> {
    if !is_there {
        let group = openat(CWD, folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .at(Syscall::Openat)?;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let processes = openat(&group, c"cgroup.procs", flags, Mode::empty()).at(Syscall::Openat)?;
        // 0 is whoever writes.
        write(&processes, b"0").at(Syscall::Write)?;
    }
    sys::new_cgroup_namespace().at(Syscall::Unshare)
}
