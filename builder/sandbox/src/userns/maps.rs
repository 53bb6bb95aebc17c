//! Which ids a namespace is to have, by what this user was given.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{StatVfsMountFlags, statvfs};
use rustix::process::{getegid, geteuid};
use rustix::thread::CapabilitySet;

use super::lack::{Lack, NOT_SETUID};
use super::ranges::{ENOUGH, Range, free, identity, name_of, parse_map, sub_ids};
use super::why;
use crate::Ids;

/// How the ids of a new namespace are mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Maps {
    /// 0 alone: written by the process itself.
    Single {
        /// Who that is outside.
        uid: u32,
        /// And its group.
        gid: u32,
    },
    /// Written by somebody with rights over the ids outside.
    Ranges {
        /// Users.
        uids: Vec<Range>,
        /// Groups.
        gids: Vec<Range>,
        /// Who that is.
        by: Writer,
    },
}

/// Who writes maps with more than one id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Writer {
    /// A process of Kiln that stays outside: Kiln is root there.
    Kiln,
    /// `newuidmap` and `newgidmap`.
    Programs {
        /// The first.
        uids: PathBuf,
        /// The second.
        gids: PathBuf,
    },
}

/// Where programs are that ought to be setuid root; not by `PATH`, which is the user's to set.
const FOLDERS: [&str; 6] =
    ["/usr/bin", "/bin", "/usr/sbin", "/usr/local/bin", "/run/wrappers/bin", "/run/current-system/sw/bin"];

impl Maps {
    /// The maps for a mode's ids. `user` is a name where `/etc/passwd` has none.
    pub(super) fn of(ids: Ids, user: Option<&str>) -> Result<Maps, Lack> {
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        match ids {
            Ids::Mapped if uid == 0 => all(),
            Ids::Mapped => given(uid, gid, user),
            Ids::Host | Ids::Single => Ok(Maps::Single { uid, gid }),
        }
    }
}

/// All ids that root has, as they are.
fn all() -> Result<Maps, Lack> {
    let effective = rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    for (needed, name) in [(CapabilitySet::SETUID, "CAP_SETUID"), (CapabilitySet::SETGID, "CAP_SETGID")] {
        if !effective.contains(needed) {
            return Err(Lack::NoCapability { capability: name });
        }
    }
    let own = |file: &'static str| {
        let path = Path::new("/proc/self").join(file);
        let text = fs::read_to_string(path).map_err(|source| why::unmapped(file, source))?;
        Ok(identity(&parse_map(&text)))
    };
    Ok(Maps::Ranges { uids: own("uid_map")?, gids: own("gid_map")?, by: Writer::Kiln })
}

/// The user for 0, and from 1 on what the system's files give it.
fn given(uid: u32, gid: u32, user: Option<&str>) -> Result<Maps, Lack> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = name_of(&passwd, uid).or(user);
    let shown = || name.map_or_else(|| uid.to_string(), str::to_owned);
    let by = Writer::Programs { uids: program("newuidmap")?, gids: program("newgidmap")? };
    let files =
        ["/etc/subuid", "/etc/subgid"].map(|file| (file, fs::read_to_string(file).unwrap_or_default()));
    let free = || free(&[&files[0].1, &files[1].1]);
    let range = |(file, text): &(&'static str, String)| match sub_ids(text, name, uid) {
        None => Err(Lack::NoSubIds { file, user: shown(), free: free() }),
        Some((_, count)) if count < ENOUGH => {
            Err(Lack::FewSubIds { file, user: shown(), count, free: free() })
        }
        Some(range) => Ok(range),
    };
    let ((first_uid, uids), (first_gid, gids)) = (range(&files[0])?, range(&files[1])?);
    let count = uids.min(gids);
    let maps = |own, first| {
        vec![Range { inside: 0, outside: own, count: 1 }, Range { inside: 1, outside: first, count }]
    };
    Ok(Maps::Ranges { uids: maps(uid, first_uid), gids: maps(gid, first_gid), by })
}

/// Finds a program that gains rights when it is executed.
fn program(name: &'static str) -> Result<PathBuf, Lack> {
    let candidates = FOLDERS.iter().map(|folder| Path::new(folder).join(name));
    let Some((path, found)) =
        candidates.filter_map(|path| fs::metadata(&path).ok().map(|found| (path, found))).next()
    else {
        return Err(Lack::NoProgram { program: name });
    };
    let why = if rustix::thread::no_new_privs().unwrap_or(false) {
        Some("gains no rights here (no_new_privs, in a container allowPrivilegeEscalation: false)")
    } else if statvfs(&path).is_ok_and(|system| system.f_flag.contains(StatVfsMountFlags::NOSUID)) {
        Some("is on a file system that is mounted nosuid")
    } else if !(is_setuid_root(&found) || has_capabilities(&path)) {
        Some(NOT_SETUID)
    } else {
        None
    };
    match why {
        Some(why) => Err(Lack::ProgramPowerless { path, why }),
        None => Ok(path),
    }
}

fn is_setuid_root(found: &fs::Metadata) -> bool {
    found.uid() == 0 && found.permissions().mode() & 0o4000 != 0
}

fn has_capabilities(path: &Path) -> bool {
    rustix::fs::getxattr(path, c"security.capability", &mut [0_u8; 64][..]).is_ok_and(|length| length > 0)
}
