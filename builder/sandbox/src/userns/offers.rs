//! Which modes this machine offers, each with what it lacks.

use std::{
    io::{Read, Write},
    os::{fd::AsFd, unix::net::UnixStream},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, geteuid, waitid};
use rustix::thread::CapabilitySet;

use super::choose::{effective, is_served};
use super::entry;
use super::folder;
use super::inside::look;
use super::lack::Lack;
use super::maps::Maps;
use crate::sys::{self, Cloned};
use crate::{Ids, Isolation, Mode, Snapshots, emulate};

/// A mode, and whether it can be had.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The mode.
    pub mode: Mode,
    /// How it would be; with copies where layers cannot be stacked.
    pub offered: Result<Mode, Refused>,
}

/// What a mode lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// In words.
    pub why: String,
    /// The number of a system call's error.
    pub errno: Option<i32>,
    /// A line that would help.
    pub fix: Option<String>,
}

impl From<&Lack> for Refused {
    fn from(lack: &Lack) -> Refused {
        Refused { why: lack.to_string(), errno: lack.errno(), fix: lack.fix() }
    }
}

/// Tries every mode for a state folder. To be called while there is one thread.
pub fn offers(root: &Path, user: Option<&str>) -> Vec<Offer> {
    let offered = |mode: Mode| match (mode.ids, mode.isolation) {
        (_, Isolation::Chroot) => {
            chroot().and_then(|()| folder::fits(root)).map(|()| mode).map_err(|lack| Refused::from(&lack))
        }
        (Ids::Host, _) => {
            namespaces().and_then(|()| folder::fits(root)).map(|()| mode).map_err(|lack| Refused::from(&lack))
        }
        _ => try_in_child(mode, root, user),
    };
    Mode::NAMED.into_iter().map(|mode| Offer { mode, offered: offered(mode) }).collect()
}

/// Whether this process is root, and may make namespaces and mount in them.
pub(super) fn namespaces() -> Result<(), Lack> {
    root_with(&[(CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN")])?;
    if is_served() { Err(Lack::NamespaceRoot) } else { Ok(()) }
}

/// Whether this process is root as far as a container's root is.
pub(super) fn chroot() -> Result<(), Lack> {
    root_with(&[
        (CapabilitySet::SYS_CHROOT, "CAP_SYS_CHROOT"),
        (CapabilitySet::CHOWN, "CAP_CHOWN"),
        (CapabilitySet::DAC_OVERRIDE, "CAP_DAC_OVERRIDE"),
        (CapabilitySet::FOWNER, "CAP_FOWNER"),
        (CapabilitySet::SETUID, "CAP_SETUID"),
        (CapabilitySet::SETGID, "CAP_SETGID"),
        (CapabilitySet::SETPCAP, "CAP_SETPCAP"),
    ])
}

fn root_with(needed: &[(CapabilitySet, &'static str)]) -> Result<(), Lack> {
    let uid = geteuid().as_raw();
    if uid != 0 {
        return Err(Lack::NotRoot { uid });
    }
    let effective = effective();
    match needed.iter().find(|(capability, _)| !effective.contains(*capability)) {
        Some((_, capability)) => Err(Lack::NoCapability { capability }),
        None => Ok(()),
    }
}

/// Whether owners can be emulated.
pub(super) fn emulation() -> Result<(), Lack> {
    emulate::offered().map_err(|errno| Lack::NoNotification { source: errno.into() })
}

/// Enters a mode's user namespace and looks around in it, in a process of its own.
pub(super) fn try_in_child(mode: Mode, root: &Path, user: Option<&str>) -> Result<Mode, Refused> {
    let failed = |call, errno: Errno| Refused::from(&Lack::Host { call, source: errno.into() });
    let (mut ours, mut theirs) =
        UnixStream::pair().map_err(|source| Refused::from(&Lack::Host { call: "socketpair", source }))?;
    let blocked = sys::block_signals();
    let process = match sys::clone_process(0, None).map_err(|errno| failed("clone3", errno))? {
        Cloned::Child => {
            drop(ours);
            let _ended = catch_unwind(AssertUnwindSafe(|| {
                let answer = encode(attempt(mode, root, user));
                theirs.write_all(answer.as_bytes())
            }));
            sys::exit(0)
        }
        Cloned::Parent(process) => process,
    };
    drop((blocked, theirs));
    let mut answer = String::new();
    let heard = ours.read_to_string(&mut answer);
    let options = WaitIdOptions::EXITED | WaitIdOptions::from_bits_retain(libc::__WALL as u32);
    while matches!(waitid(WaitId::PidFd(process.as_fd()), options), Err(Errno::INTR)) {}
    match heard {
        Ok(_) => decode(&answer, mode).unwrap_or_else(|| Err(failed("recv", Errno::PIPE))),
        Err(_) => Err(failed("recv", Errno::PIPE)),
    }
}

fn attempt(mode: Mode, root: &Path, user: Option<&str>) -> Result<Mode, Lack> {
    if mode.ids == Ids::Single {
        emulation()?;
    }
    if !is_served() {
        entry::make(&Maps::of(mode.ids, user)?)?;
    }
    let inside = look(root, mode.ids != Ids::Single)?;
    Ok(if inside.no_overlay.is_some() { mode.copying() } else { mode })
}

/// What the process answers: a line for each part.
fn encode(attempt: Result<Mode, Lack>) -> String {
    match attempt {
        Ok(mode) if mode.snapshots == Snapshots::Copy => "copy".to_owned(),
        Ok(_) => "overlay".to_owned(),
        Err(lack) => {
            let errno = lack.errno().map_or_else(String::new, |errno| errno.to_string());
            let why = lack.to_string().replace('\n', " ");
            format!("no\n{errno}\n{}\n{why}", lack.fix().unwrap_or_default())
        }
    }
}

fn decode(answer: &str, mode: Mode) -> Option<Result<Mode, Refused>> {
    let mut lines = answer.splitn(4, '\n');
    match lines.next()? {
        "overlay" => Some(Ok(mode)),
        "copy" => Some(Ok(mode.copying())),
        "no" => {
            let (errno, fix) = (lines.next()?.parse().ok(), lines.next()?.to_owned());
            let why = lines.next()?.to_owned();
            Some(Err(Refused { why, errno, fix: Some(fix).filter(|fix| !fix.is_empty()) }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacked_is_told_by_the_process() {
        let lack = Lack::NoSubIds { file: "/etc/subuid", user: "ann".to_owned(), free: 100_000 };
        let told = Refused::from(&lack);
        assert_eq!(decode(&encode(Err(lack)), Mode::SUBIDS), Some(Err(told)));
        let (mode, copying) = (Mode::SINGLE, Mode::SINGLE.copying());
        assert_eq!(decode(&encode(Ok(copying)), mode), Some(Ok(copying)));
        assert_eq!(decode(&encode(Ok(mode)), mode), Some(Ok(mode)));
        assert_eq!(decode("", mode), None);
        assert_eq!(decode("no\n1", mode), None);
    }
}
