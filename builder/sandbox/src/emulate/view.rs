//! The step's files as the step's process sees them: how a path of its is resolved by this one.
//!
//! The thread that answers has a root and a working directory of its own (`unshare(CLONE_FS)`). Its root is the step's, so that
//! no path, no `..` and no link leads out of it; its working directory is the host's `/proc/self/fd`, where an open file is
//! reached by its number, which is the only way to attributes of a file that is only looked at (`O_PATH`). Otherwise files are
//! opened only when just made, and a program to read how it begins, which is known to be a regular file and no pipe that could
//! make it wait.
//!
//! `/proc/self` would be this process and not the step's, and what `/proc` has of other processes this process may see and the
//! step may not. So what is opened is not found by links into `/proc`; of those that lead to the process's own descriptors the
//! number is read. [`View::glance`] opens nothing and follows them; what it finds there is of another mount, and looked at again.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, Statx, StatxFlags, XattrFlags, fstatfs,
    getxattr, openat, openat2, readlinkat, readlinkat_raw, setxattr, statx,
};
use rustix::io::Errno;
use rustix::path::DecInt;
use rustix::process::{chroot, fchdir, umask};

use super::record::INODE;
use crate::sys::notify;

/// The longest path (`PATH_MAX`).
const LONGEST: usize = 4096;
/// As many links one after the other as the kernel follows (`MAXSYMLINKS`).
const LINKS: usize = 40;
/// Longer than `/proc/PID/status`, but for one with thousands of groups.
const STATUS: usize = 8192;
/// Longer than most of them.
const SHORT: usize = 128;
const LOOK: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// An open file, only to be looked at.
pub(crate) struct File {
    pub fd: OwnedFd,
    pub found: Statx,
}

impl File {
    /// What is known of an open file.
    pub fn of(fd: OwnedFd) -> Result<File, Errno> {
        let found = statx(&fd, c"", AtFlags::EMPTY_PATH, INODE | StatxFlags::MNT_ID)?;
        Ok(File { fd, found })
    }

    /// Type and permissions.
    pub fn mode(&self) -> u32 {
        self.found.stx_mode.into()
    }

    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.mode())
    }

    /// Whether it can carry an attribute.
    pub fn is_plain(&self) -> bool {
        matches!(self.kind(), FileType::RegularFile | FileType::Directory)
    }

    /// Its path for this thread.
    pub fn name(&self) -> DecInt {
        DecInt::from_fd(&self.fd)
    }

    /// The value of an attribute, and how long it is.
    pub fn attribute(&self, name: &CStr, value: &mut [u8]) -> Result<usize, Errno> {
        getxattr(self.name(), name, value)
    }

    /// Gives an attribute this value.
    pub fn set_attribute(&self, name: &CStr, value: &[u8]) -> Result<(), Errno> {
        setxattr(self.name(), name, value, XattrFlags::empty())
    }
}

/// Where a path of the step's begins, and whether its last link is followed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    pub folder: i32,
    pub follow: bool,
}

/// What a call is about.
#[derive(Debug)]
pub(crate) enum Named {
    /// What a path leads to, which is not empty.
    Path(At, Vec<u8>),
    /// A file that the process has open, or its working directory.
    Open(i32),
}

/// The step's files.
pub(crate) struct View {
    proc: OwnedFd,
    /// `/proc/self/fd` of the host.
    files: OwnedFd,
    root: OwnedFd,
    /// The mount that the root is.
    pub mount: u64,
    /// Whether some process may have another root.
    pub roots_differ: bool,
}

impl View {
    /// Makes a root of a step's this thread's.
    pub fn enter(proc: OwnedFd, root: OwnedFd) -> Result<View, Errno> {
        notify::unshare_folders()?;
        umask(Mode::empty());
        let files = openat(&proc, "self/fd", LOOK | OFlags::DIRECTORY, Mode::empty())?;
        let mount = statx(&root, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?.stx_mnt_id;
        let view = View { proc, files, root, mount, roots_differ: false };
        view.go_to(view.root.as_fd())?;
        Ok(view)
    }

    /// Makes this the thread's root.
    fn go_to(&self, root: BorrowedFd<'_>) -> Result<(), Errno> {
        fchdir(root)?;
        chroot(".")?;
        fchdir(&self.files)
    }

    /// A text of the process's, without the NUL at its end; none where there is none.
    pub fn text(&self, thread: u32, address: u64) -> Option<Vec<u8>> {
        if address == 0 {
            return None;
        }
        let end_of = |bytes: &[u8]| bytes.iter().position(|byte| *byte == 0);
        // Nearly always this is all, and on one page.
        let mut start = [0; SHORT];
        let length = notify::read_memory(thread, address, &mut start).ok()?;
        let start = start.get(..length)?;
        if let Some(end) = end_of(start) {
            return Some(start[..end].to_vec());
        }
        let mut text = vec![0; LONGEST];
        let length = notify::read_memory(thread, address, &mut text).ok()?;
        let end = end_of(text.get(..length)?)?;
        text.truncate(end);
        Some(text)
    }

    /// A file that the process has open, or its working directory.
    pub fn open_file(&self, thread: u32, number: i32) -> Option<File> {
        let path = match number {
            libc::AT_FDCWD => format!("{thread}/cwd"),
            0.. => format!("{thread}/fd/{number}"),
            _ => return None,
        };
        File::of(openat(&self.proc, path, LOOK, Mode::empty()).ok()?).ok()
    }

    /// What a path of the process's leads to; none where the kernel has to say what it thinks of it.
    pub fn find(&self, thread: u32, at: At, path: &[u8]) -> Option<File> {
        if path.is_empty() {
            return None;
        }
        match self.reach(thread, at, path, ResolveFlags::empty())? {
            Ok(fd) => File::of(fd).ok(),
            Err(Errno::LOOP | Errno::NOENT | Errno::ACCESS) if at.follow => {
                let end = self.beyond_links(thread, at.folder, path.to_vec());
                self.open_file(thread, descriptor(&end)?)
            }
            Err(_) => None,
        }
    }

    /// Opens what a path of the process's leads to, to be looked at; none where the process has no such folder.
    fn reach(
        &self,
        thread: u32,
        at: At,
        path: &[u8],
        resolve: ResolveFlags,
    ) -> Option<Result<OwnedFd, Errno>> {
        let mut flags = LOOK;
        flags.set(OFlags::NOFOLLOW, !at.follow);
        let folder = match path.starts_with(b"/") {
            true => None,
            false => Some(self.open_file(thread, at.folder)?.fd),
        };
        self.rooted(thread, || {
            // Nothing is relative to the host's folder that this thread is in.
            let from = folder.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
            openat2(from, path, flags, Mode::empty(), resolve | ResolveFlags::NO_MAGICLINKS)
        })
    }

    /// Whether the folder that a path's last name is in is found in this way, too.
    pub fn is_reached(&self, thread: u32, folder: i32, path: &[u8], resolve: ResolveFlags) -> bool {
        let at = At { folder, follow: true };
        let reached = split(path).and_then(|(above, _)| self.reach(thread, at, above, resolve));
        reached.is_some_and(|reached| reached.is_ok())
    }

    /// Where a path leads to whose last name may be a link, also one to nothing: what is no link, or is a descriptor's name.
    pub fn beyond_links(&self, thread: u32, folder: i32, mut path: Vec<u8>) -> Vec<u8> {
        for _ in 0..LINKS {
            let link = if descriptor(&path).is_none() { self.link(thread, folder, &path) } else { None };
            match link {
                Some(next) => path = next,
                None => break,
            }
        }
        path
    }

    /// The path that a link is; none for what is no link.
    fn link(&self, thread: u32, folder: i32, path: &[u8]) -> Option<Vec<u8>> {
        let (above, name) = split(path).filter(|_| !path.ends_with(b"/"))?;
        let opened = self.reach(thread, At { folder, follow: true }, above, ResolveFlags::empty())?.ok()?;
        // What a link of `/proc` says is no path where what it leads to has none any more.
        if is_of_proc(&opened) {
            return None;
        }
        let target = readlinkat(&opened, name, Vec::new()).ok()?.into_bytes();
        Some(if target.starts_with(b"/") { target } else { [above, b"/", &target].concat() })
    }

    /// Whether a path's last name is in a `/proc`, where nothing can be made.
    pub fn is_in_proc(&self, thread: u32, folder: i32, path: &[u8]) -> bool {
        self.parent(thread, folder, path).is_some_and(|(above, _)| is_of_proc(&above.fd))
    }

    /// What a name leads to; none where the kernel has to say what it thinks of it.
    pub fn look(&self, thread: u32, named: &Named) -> Option<File> {
        match named {
            Named::Path(at, path) => self.find(thread, *at, path),
            Named::Open(number) => self.open_file(thread, *number),
        }
    }

    /// What is found by a name, without opening it: by one call where it takes several to be certain. What is of another mount
    /// than the step's root may be another file, for a link into `/proc` is followed as this process sees it. None where it
    /// cannot be had so.
    pub fn glance(&self, thread: u32, named: &Named) -> Option<Result<Statx, Errno>> {
        let of_open = |number: i32| match number {
            libc::AT_FDCWD => Some(format!("{thread}/cwd")),
            0.. => Some(format!("{thread}/fd/{number}")),
            _ => None,
        };
        let mut flags = AtFlags::NO_AUTOMOUNT;
        let wanted = INODE | StatxFlags::MNT_ID;
        let found = match named {
            Named::Open(number) => statx(&self.proc, of_open(*number)?, flags, wanted),
            Named::Path(..) if self.roots_differ => return None,
            Named::Path(at, path) => {
                flags.set(AtFlags::SYMLINK_NOFOLLOW, !at.follow);
                if path.starts_with(b"/") {
                    statx(&self.root, path, flags, wanted)
                } else {
                    let path = [of_open(at.folder)?.as_bytes(), b"/", path].concat();
                    statx(&self.proc, path, flags, wanted)
                }
            }
        };
        Some(found)
    }

    /// What is at a path of the step's root.
    pub fn at(&self, path: &Path) -> Option<File> {
        let found = openat2(&self.root, path, LOOK, Mode::empty(), ResolveFlags::IN_ROOT);
        File::of(found.ok()?).ok()
    }

    /// Does something below the process's own root.
    fn rooted<T>(&self, thread: u32, act: impl FnOnce() -> T) -> Option<T> {
        if !self.roots_differ {
            return Some(act());
        }
        let root =
            openat(&self.proc, format!("{thread}/root"), LOOK | OFlags::DIRECTORY, Mode::empty()).ok()?;
        self.go_to(root.as_fd()).ok()?;
        let done = act();
        // The step's own root, which was entered before.
        self.go_to(self.root.as_fd()).ok()?;
        Some(done)
    }

    /// The folder that a path's last name is in, and the name; none for a path that ends with none.
    pub fn parent(&self, thread: u32, folder: i32, path: &[u8]) -> Option<(File, Vec<u8>)> {
        let (above, name) = split(path)?;
        Some((self.find(thread, At { folder, follow: true }, above)?, name.to_vec()))
    }

    /// Where a file is in the step's root, without the slash at the beginning; none for one of another mount, or one that has
    /// no name any more.
    pub fn path_in_root(&self, file: &File) -> Option<Vec<u8>> {
        if file.found.stx_mnt_id == self.mount { self.path(file) } else { None }
    }

    /// The same, of any mount.
    pub fn path(&self, file: &File) -> Option<Vec<u8>> {
        if file.found.stx_nlink == 0 {
            return None;
        }
        let mut room = [MaybeUninit::uninit(); LONGEST];
        let (path, _) = readlinkat_raw(&self.files, file.name(), &mut room).ok()?;
        path.strip_prefix(b"/").map(<[u8]>::to_vec)
    }

    /// The step's root.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Makes the step's root this thread's again.
    pub fn go_back(&self) -> Result<(), Errno> {
        self.go_to(self.root.as_fd())
    }

    /// A file of the host's `/proc/PID`.
    pub fn of_process(&self, process: u32, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        openat(&self.proc, format!("{process}/{name}"), flags | OFlags::CLOEXEC, Mode::empty())
    }

    /// The host's `/proc/PID/status`, which does not show what the step is shown.
    pub fn whole_status(&self, process: u32) -> Option<String> {
        let file = self.of_process(process, "status", OFlags::RDONLY).ok()?;
        let mut bytes = vec![0; STATUS];
        let length = rustix::io::read(&file, bytes.as_mut_slice()).ok()?;
        bytes.truncate(length);
        // A name may be anything.
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A line of it.
    pub fn status(&self, process: u32, name: &str) -> Option<String> {
        let text = self.whole_status(process)?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.trim().to_owned())
    }

    /// What new files of the process do not get.
    pub fn mask(&self, thread: u32) -> u32 {
        self.status(thread, "Umask").and_then(|mask| u32::from_str_radix(&mask, 8).ok()).unwrap_or(0o022)
    }
}

/// Whether a file is one of a `/proc`.
fn is_of_proc(file: &OwnedFd) -> bool {
    fstatfs(file).is_ok_and(|found| found.f_type == PROC_SUPER_MAGIC)
}

/// The path of the folder that a path's last name is in, and the name; none for a path that ends with none.
pub(crate) fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = path.iter().rposition(|byte| *byte != b'/')? + 1;
    let path = &path[..end];
    let start = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let (above, name) = path.split_at(start);
    if [b".".as_slice(), b".."].contains(&name) {
        return None;
    }
    Some((if above.is_empty() { b"." } else { above }, name))
}

/// The last name of a path, as it stands there.
pub(crate) fn last_name(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
    path[..end].rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

/// The descriptor that a path is the name of.
pub(crate) fn descriptor(path: &[u8]) -> Option<i32> {
    let names: [(&[u8], i32); 3] = [(b"/dev/stdin", 0), (b"/dev/stdout", 1), (b"/dev/stderr", 2)];
    if let Some((_, number)) = names.iter().find(|(name, _)| *name == path) {
        return Some(*number);
    }
    let folders: [&[u8]; 3] = [b"/proc/self/fd/", b"/dev/fd/", b"/proc/thread-self/fd/"];
    let number = folders.iter().find_map(|folder| path.strip_prefix(*folder))?;
    let digits = number.iter().all(u8::is_ascii_digit);
    str::from_utf8(number).ok()?.parse().ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use super::descriptor;

    #[test]
    fn descriptors_have_names() {
        let table: [(&str, Option<i32>); 7] = [
            ("/dev/stdout", Some(1)),
            ("/dev/fd/7", Some(7)),
            ("/proc/self/fd/12", Some(12)),
            ("/proc/self/fd/", None),
            ("/proc/self/fd/+1", None),
            ("/proc/1/fd/3", None),
            ("/dev/fd/99999999999", None),
        ];
        for (path, expected) in table {
            assert_eq!(descriptor(path.as_bytes()), expected, "{path}");
        }
    }
}
