//! Entering a user namespace: by this very process, while it has one thread.
//!
//! Maps of more than one id are written by a process that stays outside, a fork from before: whoever is inside has no rights
//! over other ids outside, and would be given none by executing a set-user-id program.

use std::{
    fs,
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::Command,
};

use rustix::process::{
    DumpableBehavior, WaitId, WaitIdOptions, dumpable_behavior, getpid, set_dumpable_behavior, waitid,
};
use std::os::fd::AsFd;

use super::lack::Lack;
use super::maps::{Maps, Writer};
use super::ranges::Range;
use super::why;
use crate::sys::{self, Cloned};

/// Moves this process into a new user namespace with these ids.
pub(super) fn make(maps: &Maps) -> Result<(), Lack> {
    let before = dumpable_behavior();
    // The files below /proc/self are root's otherwise, and cannot be written.
    let _set = set_dumpable_behavior(DumpableBehavior::Dumpable);
    let entered = enter_visibly(maps);
    if let Ok(before) = before {
        let _restored = set_dumpable_behavior(before);
    }
    entered
}

fn enter_visibly(maps: &Maps) -> Result<(), Lack> {
    match maps {
        Maps::Single { uid, gid } => {
            sys::unshare_user().map_err(|errno| why::no_namespace(errno.into()))?;
            write_own(*uid, *gid)
        }
        Maps::Ranges { uids, gids, by } => {
            let outside = Outside::fork(uids, gids, by)?;
            sys::unshare_user().map_err(|errno| why::no_namespace(errno.into()))?;
            outside.map()
        }
    }
}

/// The one id that a process may map by itself; without other groups, which it may not take or drop then.
fn write_own(uid: u32, gid: u32) -> Result<(), Lack> {
    write("/proc/self", "setgroups", "deny")?;
    write("/proc/self", "uid_map", &format!("0 {uid} 1"))?;
    write("/proc/self", "gid_map", &format!("0 {gid} 1"))
}

fn write(folder: &str, file: &'static str, text: &str) -> Result<(), Lack> {
    fs::write(Path::new(folder).join(file), text).map_err(|source| why::unmapped(file, source))
}

/// A process that stays outside, and maps the ids of this one when it is told to. It ends when this is dropped.
struct Outside {
    socket: UnixStream,
    process: OwnedFd,
}

/// What it answers: a byte, and a text or an error's number.
const MAPPED: u8 = 0;
const UIDS_FAILED: u8 = 1;
const GIDS_FAILED: u8 = 2;
const UIDS_NOT_WRITTEN: u8 = 3;
const GIDS_NOT_WRITTEN: u8 = 4;
/// More than a program has to say of its failure, in bytes.
const LONGEST: u64 = 4096;

impl Outside {
    fn fork(uids: &[Range], gids: &[Range], by: &Writer) -> Result<Outside, Lack> {
        let host = |call| move |source: io::Error| Lack::Host { call, source };
        let (ours, mut theirs) = UnixStream::pair().map_err(host("socketpair"))?;
        let inside = getpid().as_raw_nonzero().to_string();
        let blocked = sys::block_signals();
        match sys::clone_process(0, None).map_err(|errno| host("clone3")(errno.into()))? {
            Cloned::Child => {
                drop(ours);
                let _ended = catch_unwind(AssertUnwindSafe(|| {
                    // Without a word there is nobody to map.
                    if theirs.read_exact(&mut [0]).is_ok() {
                        let answer = write_ranges(&inside, uids, gids, by);
                        let _told = theirs.write_all(&answer);
                    }
                }));
                sys::exit(0)
            }
            Cloned::Parent(process) => {
                drop(blocked);
                Ok(Outside { socket: ours, process })
            }
        }
    }

    /// Has the ids mapped.
    fn map(mut self) -> Result<(), Lack> {
        let mut answer = Vec::new();
        let told = self.socket.write_all(&[0]);
        told.and_then(|()| (&mut self.socket).take(LONGEST).read_to_end(&mut answer))
            .map_err(|source| Lack::Host { call: "recv", source })?;
        let failed = |program, said: &[u8]| {
            let said = String::from_utf8_lossy(said).trim().to_owned();
            Err(why::program_failed(program, said))
        };
        let unmapped = |file, errno: &[u8]| {
            let number = <[u8; 4]>::try_from(errno).map_or(libc::EIO, i32::from_ne_bytes);
            Err(why::unmapped(file, io::Error::from_raw_os_error(number)))
        };
        match answer.split_first() {
            Some((&MAPPED, _)) => Ok(()),
            Some((&UIDS_FAILED, said)) => failed("newuidmap", said),
            Some((&GIDS_FAILED, said)) => failed("newgidmap", said),
            Some((&UIDS_NOT_WRITTEN, errno)) => unmapped("uid_map", errno),
            Some((&GIDS_NOT_WRITTEN, errno)) => unmapped("gid_map", errno),
            _ => Err(Lack::Host { call: "recv", source: io::ErrorKind::UnexpectedEof.into() }),
        }
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _told = self.socket.shutdown(std::net::Shutdown::Both);
        let options = WaitIdOptions::EXITED | WaitIdOptions::from_bits_retain(libc::__WALL as u32);
        while matches!(waitid(WaitId::PidFd(self.process.as_fd()), options), Err(rustix::io::Errno::INTR)) {}
    }
}

/// Maps the ids of process `inside`, and says what came of it.
fn write_ranges(inside: &str, uids: &[Range], gids: &[Range], by: &Writer) -> Vec<u8> {
    let lines = |ranges: &[Range]| ranges.iter().map(|range| format!("{range}\n")).collect::<String>();
    match by {
        Writer::Kiln => {
            let folder = format!("/proc/{inside}");
            for (file, ranges, failed) in
                [("uid_map", uids, UIDS_NOT_WRITTEN), ("gid_map", gids, GIDS_NOT_WRITTEN)]
            {
                if let Err(error) = fs::write(Path::new(&folder).join(file), lines(ranges)) {
                    let errno = error.raw_os_error().unwrap_or(libc::EIO);
                    return [&[failed][..], &errno.to_ne_bytes()].concat();
                }
            }
        }
        Writer::Programs { uids: newuidmap, gids: newgidmap } => {
            for (program, ranges, failed) in [(newuidmap, uids, UIDS_FAILED), (newgidmap, gids, GIDS_FAILED)]
            {
                let mut command = Command::new(program);
                command.arg(inside).env_clear();
                command.args(lines(ranges).split_whitespace());
                match command.output() {
                    Ok(done) if done.status.success() => {}
                    Ok(done) => return [&[failed][..], &done.stderr].concat(),
                    Err(error) => return [&[failed][..], error.to_string().as_bytes()].concat(),
                }
            }
        }
    }
    vec![MAPPED]
}
