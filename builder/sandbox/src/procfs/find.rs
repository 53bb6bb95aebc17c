//! What of `/proc` a process is given.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fcntl_setfl, fstat, openat, openat2, readlinkat};
use rustix::io::Errno;

use super::path::{Meant, Of, number, split};

/// Of another process, what everybody may read.
const FOR_ALL: [&[u8]; 11] = [
    b"",
    b"cgroup",
    b"cmdline",
    b"comm",
    b"limits",
    b"loginuid",
    b"oom_score",
    b"stat",
    b"statm",
    b"status",
    b"task",
];

/// What is masked in a container, or is for who has rights over the machine.
const HIDDEN: [&[u8]; 13] = [
    b"acpi",
    b"asound",
    b"interrupts",
    b"kcore",
    b"keys",
    b"kmsg",
    b"kpagecount",
    b"kpageflags",
    b"latency_stats",
    b"sched_debug",
    b"scsi",
    b"sysrq-trigger",
    b"timer_list",
];

/// Of a process, which mounts it sees: a copy that lies in the step's root.
const MOUNTS: [&[u8]; 2] = [b"mountinfo", b"mounts"];

/// How a file is opened only to look at it.
pub(super) const LOOK: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
const HERE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

/// Where things are.
pub(super) struct Places {
    /// The `/proc` at hand.
    pub proc: OwnedFd,
    /// The step's root.
    pub root: OwnedFd,
    /// Where that is for this process.
    root_path: Vec<u8>,
    /// Whose rights this thread has.
    uid: u32,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    /// Its first thread.
    pub process: u32,
    /// Whom the kernel takes it for where files are opened.
    pub uid: u32,
    pub gid: u32,
}

impl Places {
    /// A `/proc`, and a step's root, for a thread of this user.
    pub fn new(proc: OwnedFd, root: OwnedFd, uid: u32) -> Places {
        let own = format!("self/fd/{}", root.as_raw_fd());
        let root_path = readlinkat(&proc, own, Vec::new()).map(CString::into_bytes).unwrap_or_default();
        Places { proc, root, root_path, uid }
    }

    /// What a link of `/proc` says to who is in the step's root.
    pub fn link(&self, folder: impl AsFd, name: &str) -> Result<Vec<u8>, Errno> {
        let link = readlinkat(folder, name, Vec::new())?.into_bytes();
        Ok(match link.strip_prefix(&self.root_path[..]) {
            Some(b"") => b"/".to_vec(),
            Some(below) if below.starts_with(b"/") => below.to_vec(),
            _ => link,
        })
    }

    /// Who this thread is of; none where it has ended.
    pub fn asker(&self, thread: u32) -> Option<Asker> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = openat(&self.proc, format!("{thread}/status"), flags, Mode::empty()).ok()?;
        let mut bytes = [0_u8; 1024];
        let length = rustix::io::read(&file, &mut bytes[..]).ok()?;
        let text = String::from_utf8_lossy(bytes.get(..length)?);
        let line = |name| text.lines().find_map(|line: &str| line.strip_prefix(name));
        let process = line("Tgid:")?.trim().parse().ok()?;
        // Real, effective, saved, and for files.
        let last = |name| line(name)?.split_whitespace().nth(3)?.parse().ok();
        Some(Asker { process, uid: last("Uid:")?, gid: last("Gid:")? })
    }

    /// Opens what is meant. None where the kernel shall look in the step's root, in which some copies are. What is opened only to
    /// be looked at (`O_PATH`) is not for the step.
    ///
    /// # Errors
    /// What the call ends with.
    pub fn open(&self, asker: Asker, meant: Meant<'_>, flags: OFlags) -> Option<Result<OwnedFd, Errno>> {
        let only_looks = flags.contains(OFlags::PATH);
        let writes = !only_looks && flags.intersects(OFlags::WRONLY | OFlags::RDWR);
        match meant.of {
            Of::Kernel => {
                let (first, _) = split(meant.rest);
                if HIDDEN.contains(&first) {
                    return None;
                }
                if writes {
                    return Some(Err(Errno::ACCESS));
                }
                let path = if meant.rest.is_empty() { b"." } else { meant.rest };
                Some(self.below(path, flags))
            }
            Of::Process(process) if process != asker.process => {
                if writes || !FOR_ALL.contains(&meant.rest) {
                    return Some(Err(Errno::ACCESS));
                }
                Some(self.below(&name(process, meant.rest), flags))
            }
            Of::Process(_) | Of::Own => self.own(asker, meant.rest, flags),
        }
    }

    fn own(&self, asker: Asker, rest: &[u8], flags: OFlags) -> Option<Result<OwnedFd, Errno>> {
        let (first, below) = split(rest);
        if MOUNTS.contains(&rest) {
            // No link of the step's is followed.
            let path = [b"proc/self/", rest].concat();
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
            return Some(opened(flags, |flags| {
                openat2(&self.root, &path[..], flags, Mode::empty(), resolve)
            }));
        }
        let is_link = match first {
            b"exe" | b"cwd" | b"root" => below.is_empty(),
            b"fd" => number(below).is_some(),
            _ => false,
        };
        if !is_link || flags.contains(OFlags::NOFOLLOW) {
            return match first {
                // What a link leads to is in the step's root, or in nobody's.
                b"cwd" | b"root" if !below.is_empty() => None,
                _ => Some(self.below(&name(asker.process, rest), flags)),
            };
        }
        // With the rights of Kiln: who is not root any more would have more by it than by what it has open.
        let looks = openat(&self.proc, name(asker.process, rest), LOOK, Mode::empty());
        let found = match looks.and_then(|file| fstat(&file)) {
            Ok(found) => FileType::from_raw_mode(found.st_mode),
            Err(errno) => return Some(Err(errno)),
        };
        if asker.uid != self.uid
            && matches!(found, FileType::RegularFile | FileType::Directory | FileType::BlockDevice)
        {
            return None;
        }
        Some(opened(flags, |flags| openat(&self.proc, name(asker.process, rest), flags, Mode::empty())))
    }

    /// Opens a file. Not a folder: from that, `..` leads out of the step's root.
    fn below(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let file = opened(flags, |flags| openat2(&self.proc, path, flags, Mode::empty(), HERE))?;
        let is_folder = FileType::from_raw_mode(fstat(&file)?.st_mode) == FileType::Directory;
        if is_folder && !flags.contains(OFlags::PATH) { Err(Errno::NOENT) } else { Ok(file) }
    }
}

fn name(process: u32, rest: &[u8]) -> Vec<u8> {
    let mut path = process.to_string().into_bytes();
    if !rest.is_empty() {
        path.push(b'/');
        path.extend(rest);
    }
    path
}

/// Opens something so that nothing is waited for, and nothing made.
fn opened(asked: OFlags, open: impl FnOnce(OFlags) -> Result<OwnedFd, Errno>) -> Result<OwnedFd, Errno> {
    let asked = asked.difference(OFlags::CREATE | OFlags::EXCL) | OFlags::CLOEXEC;
    if asked.contains(OFlags::PATH) {
        return open(asked & (LOOK | OFlags::DIRECTORY | OFlags::NOFOLLOW));
    }
    let file = open(asked | OFlags::NOCTTY | OFlags::NONBLOCK)?;
    if !asked.contains(OFlags::NONBLOCK) {
        let now = rustix::fs::fcntl_getfl(file.as_fd())?;
        fcntl_setfl(file.as_fd(), now - OFlags::NONBLOCK)?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use rustix::fs::CWD;

    use super::super::path::meant;
    use super::*;

    /// Who opens what, how, and what comes of it.
    type Row = (Asker, &'static str, OFlags, Option<Result<(), Errno>>);

    #[test]
    fn a_step_is_given_files_of_its_own_and_no_way_out() {
        let open = |path| openat(CWD, path, LOOK, Mode::empty()).expect("there is one");
        let places = Places::new(open("/proc"), open("/usr"), 0);
        let process = rustix::process::getpid().as_raw_nonzero().get() as u32;
        let asker = Asker { process, uid: 0, gid: 0 };
        let init = Asker { process: process + 1, ..asker };
        let read = OFlags::RDONLY;
        let ok = Some(Ok(()));
        let table: [Row; 27] = [
            (asker, "/proc/self/status", read, ok),
            (asker, "/proc/self/environ", read, ok),
            (asker, "/proc/self/exe", read, ok),
            (asker, "/proc/self/comm", OFlags::RDWR, ok),
            (asker, "/proc/self/net/tcp", read, ok),
            (asker, "/proc/self/fd/99999", read, Some(Err(Errno::NOENT))),
            (asker, "/proc/sys/kernel/ostype", read, ok),
            (asker, "/proc/sys/kernel/ostype", OFlags::WRONLY, Some(Err(Errno::ACCESS))),
            (asker, "/proc/version", OFlags::RDWR, Some(Err(Errno::ACCESS))),
            // A folder leads to the one above.
            (asker, "/proc", read, Some(Err(Errno::NOENT))),
            (asker, "/proc/", OFlags::DIRECTORY, Some(Err(Errno::NOENT))),
            (asker, "/proc/self", read, Some(Err(Errno::NOENT))),
            (asker, "/proc/self/fd", OFlags::DIRECTORY, Some(Err(Errno::NOENT))),
            (asker, "/proc/self/task", read, Some(Err(Errno::NOENT))),
            (asker, "/proc/sys", read, Some(Err(Errno::NOENT))),
            (asker, "/proc/net", read, Some(Err(Errno::NOENT))),
            (init, "/proc/1", read, Some(Err(Errno::NOENT))),
            (asker, "/proc/self", LOOK, ok),
            // Links that are followed by themselves only.
            (asker, "/proc/self/cwd/Cargo.toml", read, None),
            (asker, "/proc/self/root/etc/passwd", read, None),
            (asker, "/proc/self/task/1/root", read, Some(Err(Errno::NOENT))),
            (asker, "/proc/self/ns/net", read, Some(Err(Errno::LOOP))),
            (asker, "/proc/kcore", read, None),
            (asker, "/proc/sysrq-trigger", OFlags::WRONLY, None),
            // Of others, what everybody may read.
            (init, "/proc/1/stat", read, ok),
            (init, "/proc/1/environ", read, Some(Err(Errno::ACCESS))),
            (init, "/proc/1/comm", OFlags::WRONLY, Some(Err(Errno::ACCESS))),
        ];
        for (asker, path, flags, expected) in table {
            let found = places.open(asker, meant(path.as_bytes()).expect("it is below /proc"), flags);
            assert_eq!(found.map(|file| file.map(drop)), expected, "{path} {flags:?}");
        }
    }
}
