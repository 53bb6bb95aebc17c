//! Mount points: found, or made and later removed without a trace.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxFlags, Timespec, Timestamps, UTIME_OMIT,
    chmodat, fstat, futimens, mkdirat, mknodat, openat, openat2, readlinkat_raw, statat, statx, unlinkat,
};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::fchdir;

use super::{Child, files, root};
use crate::board::CREATED;
use crate::fault::{At, Fault, Syscall};
use crate::{MountPoint, Source};

/// Symlinks followed on the way to one mount point, as many as the kernel follows (path_resolution(7)).
pub(crate) const LINKS: usize = 40;
/// `PATH_MAX`.
const PATH_BYTES: usize = 4096;
/// `NAME_MAX`, and the NUL.
const NAME_BYTES: usize = 256;

/// Opens a path which is resolved as if `root` were `/`: no symlink and no `..` leads out of it. The magic
/// links of `/proc` would, and are refused.
pub(super) fn open_in(root: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    loop {
        match openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // Somebody renamed a folder meanwhile, and the kernel cannot tell that `..` stayed inside.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// A file or folder that was made to mount something on, or to hold it.
pub(crate) struct Created {
    /// The call that it was made for.
    pub call: usize,
    parent: OwnedFd,
    name: Name,
    is_directory: bool,
    is_mounted_on: bool,
    /// Modification time of the parent before and after.
    before: Timespec,
    after: Timespec,
}

impl Created {
    /// Takes off what is mounted there, and removes it if it is empty. The parent then has the time that it
    /// had before, unless somebody else changed it.
    pub(super) fn remove(&self) -> Result<(), Errno> {
        let name = self.name.as_c_str();
        if self.is_mounted_on {
            // By name in an open folder: a mount point cannot be renamed, but the folders above it can.
            fchdir(&self.parent)?;
            // Two mounts of a step may have one target and lie upon each other.
            loop {
                match unmount(name, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
                    Ok(()) => {}
                    Err(Errno::INVAL) => break,
                    Err(errno) => return Err(errno),
                }
            }
        }
        let now = modified(self.parent.as_fd())?;
        let found = match statat(&self.parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            other => other?,
        };
        let is_directory = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
        if is_directory != self.is_directory || (!is_directory && found.st_size != 0) {
            return Err(Errno::NOTEMPTY);
        }
        unlinkat(&self.parent, name, if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() })?;
        let last_modification = if now == self.after { self.before } else { now };
        let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        futimens(&self.parent, &Timestamps { last_access, last_modification })
    }
}

/// Whether what is mounted is a folder, so that its mount point must be one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directory,
    File,
}

impl Child<'_> {
    /// Finds or makes the mount point, and mounts the source there.
    pub(super) fn mount(&mut self, call: usize, at: &MountPoint, source: &Source) -> Result<(), Fault> {
        match source {
            Source::Kept { slot, remount_readonly } => {
                let mode = fstat(self.kept(*slot)?).at(Syscall::Fstat)?.st_mode;
                let is_directory = FileType::from_raw_mode(mode) == FileType::Directory;
                let kind = if is_directory { Kind::Directory } else { Kind::File };
                let point = self.mount_point(call, at, kind)?;
                agree(kind, point.as_fd())?;
                root::attach(self.kept(*slot)?, point.as_fd())?;
                self.mounted(call);
                if *remount_readonly { root::remount_read_only(&at.path) } else { Ok(()) }
            }
            Source::New(made) => {
                let lent = if at.stays { None } else { self.mode_there(&at.path)? };
                let point = self.mount_point(call, at, Kind::Directory)?;
                fchdir(&point).at(Syscall::Fchdir)?;
                let (kind, options) = (made.kind.as_c_str(), made.options.as_c_str());
                match mount(made.name.as_c_str(), c".", kind, made.flags, options) {
                    // It is there already, with the host's that is shown: mount(2) does not stack a file system on itself.
                    Err(Errno::BUSY) if options.is_empty() => {
                        let again = files::kernel_files(kind, made.flags.contains(MountFlags::RDONLY))?;
                        root::attach(again.as_fd(), point.as_fd())?;
                    }
                    mounted => mounted.at(Syscall::Mount)?,
                }
                self.mounted(call);
                match lent {
                    Some(mode) if !made.flags.contains(MountFlags::RDONLY) => self.set_mode(&at.path, mode),
                    _ => Ok(()),
                }
            }
        }
    }

    /// The mode of a folder that is there already: what a step mounts new over it takes that, as it does with runc, so
    /// that a `/tmp` stays one for everybody and a folder for its owner stays that.
    fn mode_there(&self, path: &CStr) -> Result<Option<Mode>, Fault> {
        match open_in(self.root()?, path) {
            Ok(folder) => Ok(Some(Mode::from_raw_mode(fstat(folder).at(Syscall::Fstat)?.st_mode & 0o7777))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(Fault::new(Syscall::Openat2, errno)),
        }
    }

    fn set_mode(&self, path: &CStr, mode: Mode) -> Result<(), Fault> {
        // What is open of the mount point is the folder below what is mounted by now.
        let mounted = open_in(self.root()?, path).at(Syscall::Openat2)?;
        fchdir(&mounted).at(Syscall::Fchdir)?;
        chmodat(CWD, c".", mode, AtFlags::empty()).at(Syscall::Fchmod)
    }

    /// Notes that the last thing made for this call is mounted on.
    fn mounted(&mut self, call: usize) {
        if let Some(last) = self.created.last_mut().filter(|created| created.call == call) {
            last.is_mounted_on = true;
        }
    }

    /// Opens the mount point; makes it, and folders to hold it, where there is none. A dangling symlink is
    /// followed, and what it points to is made: images have `/etc/resolv.conf` point into an empty `/run`.
    fn mount_point(&mut self, call: usize, at: &MountPoint, kind: Kind) -> Result<OwnedFd, Fault> {
        let mut path = Path::new(&at.path)?;
        for _ in 0..LINKS {
            match open_in(self.root()?, path.to(path.length)?) {
                Err(Errno::NOENT) => self.make_missing(call, &mut path, kind, at.stays)?,
                other => return other.at(Syscall::Openat2),
            }
        }
        Err(Fault::new(Syscall::Openat2, Errno::LOOP))
    }

    /// Makes the missing names of a path, up to the first one that is a dangling symlink: that is replaced in
    /// the path by what it points to.
    fn make_missing(&mut self, call: usize, path: &mut Path, kind: Kind, stays: bool) -> Result<(), Fault> {
        let mut parent = open_in(self.root()?, c"/").at(Syscall::Openat2)?;
        let mut start = 0;
        while let Some((begin, end)) = path.next_name(start) {
            start = end;
            match open_in(self.root()?, path.to(end)?) {
                Ok(found) => {
                    parent = found;
                    continue;
                }
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(Fault::new(Syscall::Openat2, errno)),
            }
            let is_last = path.next_name(end).is_none();
            let name = Name::new(path.name(begin, end))?;
            let kind = if is_last { kind } else { Kind::Directory };
            match self.make(call, parent.as_fd(), &name, kind, stays) {
                Ok(()) => parent = open_in(self.root()?, path.to(end)?).at(Syscall::Openat2)?,
                Err(Fault { errno: libc::EEXIST, .. }) => {
                    return path.follow(parent.as_fd(), &name, begin, end);
                }
                Err(fault) => return Err(fault),
            }
        }
        Ok(())
    }

    /// Makes a folder or an empty file, and notes it if it has to go again.
    fn make(
        &mut self,
        call: usize,
        parent: BorrowedFd<'_>,
        name: &Name,
        kind: Kind,
        stays: bool,
    ) -> Result<(), Fault> {
        // Only what is in the root itself is removed: a mount may be shared with other steps.
        let goes = !stays && mount_id(parent)? == mount_id(self.root()?)?;
        let before = modified(parent).at(Syscall::Fstat)?;
        match kind {
            Kind::Directory => {
                mkdirat(parent, name.as_c_str(), Mode::from_raw_mode(0o755)).at(Syscall::Mkdirat)?;
            }
            Kind::File => {
                let mode = Mode::from_raw_mode(0o644);
                mknodat(parent, name.as_c_str(), FileType::RegularFile, mode, 0).at(Syscall::Mknodat)?;
            }
        }
        if goes && self.created.len() < self.created.capacity() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let parent = openat(parent, c".", flags, Mode::empty()).at(Syscall::Openat)?;
            let after = modified(parent.as_fd()).at(Syscall::Fstat)?;
            self.board.remark(call, CREATED);
            self.created.push(Created {
                call,
                parent,
                name: *name,
                is_directory: kind == Kind::Directory,
                is_mounted_on: false,
                before,
                after,
            });
        }
        Ok(())
    }
}

/// Fails with a word of its own where `move_mount` would say no more than `EINVAL`.
fn agree(kind: Kind, point: BorrowedFd<'_>) -> Result<(), Fault> {
    let mode = fstat(point).at(Syscall::Fstat)?.st_mode;
    match (kind, FileType::from_raw_mode(mode) == FileType::Directory) {
        (Kind::Directory, false) => Err(Fault::new(Syscall::MoveMount, Errno::NOTDIR)),
        (Kind::File, true) => Err(Fault::new(Syscall::MoveMount, Errno::ISDIR)),
        _ => Ok(()),
    }
}

fn mount_id(fd: BorrowedFd<'_>) -> Result<u64, Fault> {
    statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).at(Syscall::Fstat).map(|found| found.stx_mnt_id)
}

fn modified(fd: BorrowedFd<'_>) -> Result<Timespec, Errno> {
    let found = fstat(fd)?;
    Ok(Timespec { tv_sec: found.st_mtime as _, tv_nsec: found.st_mtime_nsec as _ })
}

/// A path in a buffer of its own, of which any beginning can be had as a C string.
struct Path {
    bytes: [u8; PATH_BYTES],
    length: usize,
    scratch: [u8; PATH_BYTES],
}

impl Path {
    fn new(path: &CStr) -> Result<Path, Fault> {
        let mut made = Path { bytes: [0; PATH_BYTES], length: 0, scratch: [0; PATH_BYTES] };
        made.splice(0, 0, path.to_bytes())?;
        Ok(made)
    }

    /// The path up to a byte.
    fn to(&mut self, end: usize) -> Result<&CStr, Fault> {
        let too_long = Fault::new(Syscall::Openat2, Errno::NAMETOOLONG);
        let from = self.bytes.get(..end).ok_or(too_long)?;
        let to = self.scratch.get_mut(..end).ok_or(too_long)?;
        to.copy_from_slice(from);
        *self.scratch.get_mut(end).ok_or(too_long)? = 0;
        CStr::from_bytes_until_nul(&self.scratch).map_err(|_| too_long)
    }

    /// Where the first name at or after a byte begins and ends.
    fn next_name(&self, start: usize) -> Option<(usize, usize)> {
        let rest = self.bytes.get(start..self.length)?;
        let begin = start + rest.iter().position(|byte| *byte != b'/')?;
        let rest = self.bytes.get(begin..self.length)?;
        Some((begin, begin + rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len())))
    }

    fn name(&self, begin: usize, end: usize) -> &[u8] {
        self.bytes.get(begin..end).unwrap_or_default()
    }

    /// Replaces a name by what the symlink of that name points to.
    fn follow(&mut self, parent: BorrowedFd<'_>, name: &Name, begin: usize, end: usize) -> Result<(), Fault> {
        let mut link = [0_u8; PATH_BYTES];
        let length = readlinkat_raw(parent, name.as_c_str(), link.as_mut_slice()).at(Syscall::Readlinkat)?;
        let target = link.get(..length).unwrap_or_default();
        let from = if target.first() == Some(&b'/') { 0 } else { begin };
        self.splice(from, end, target)
    }

    /// Replaces a part of the path.
    fn splice(&mut self, from: usize, to: usize, with: &[u8]) -> Result<(), Fault> {
        let too_long = Fault::new(Syscall::Openat2, Errno::NAMETOOLONG);
        let tail = self.length.checked_sub(to).ok_or(too_long)?;
        let length = from + with.len() + tail;
        if length >= PATH_BYTES {
            return Err(too_long);
        }
        self.bytes.copy_within(to..self.length, from + with.len());
        self.bytes.get_mut(from..from + with.len()).ok_or(too_long)?.copy_from_slice(with);
        self.length = length;
        Ok(())
    }
}

/// A name in a folder.
#[derive(Clone, Copy)]
struct Name([u8; NAME_BYTES]);

impl Name {
    fn new(name: &[u8]) -> Result<Name, Fault> {
        let mut bytes = [0; NAME_BYTES];
        // One byte is left for the NUL.
        match bytes.get_mut(..name.len()) {
            Some(place) if name.len() < NAME_BYTES => place.copy_from_slice(name),
            _ => return Err(Fault::new(Syscall::Openat2, Errno::NAMETOOLONG)),
        }
        Ok(Name(bytes))
    }

    fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or(c"")
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_found() {
        let path = Path::new(c"//ab/./c/").expect("it is short");
        let mut names = Vec::new();
        let mut start = 0;
        while let Some((begin, end)) = path.next_name(start) {
            names.push(path.name(begin, end).to_vec());
            start = end;
        }
        assert_eq!(names, [b"ab".to_vec(), b".".to_vec(), b"c".to_vec()]);
    }

    #[test]
    fn a_link_takes_its_place() {
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let table = [("run/x", "/etc/run/x/conf"), ("/run/x", "/run/x/conf"), ("..", "/etc/../conf")];
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let parent = openat(CWD, folder.path(), flags, Mode::empty()).expect("the folder exists");
        for (index, (target, expected)) in table.into_iter().enumerate() {
            let name = format!("l{index}");
            symlink(target, folder.path().join(&name)).expect("the link is new");
            let mut path =
                Path::new(&CString::new(format!("/etc/{name}/conf")).expect("no NUL")).expect("short");
            let name = Name::new(name.as_bytes()).expect("it is short");
            path.follow(parent.as_fd(), &name, 5, 7).expect("the link is there");
            assert_eq!(path.to(path.length).expect("it fits").to_str(), Ok(expected));
        }
    }

    proptest! {
        #[test]
        fn splice_is_what_vec_splice_does(text in "[a/]{1,40}", from in 0_usize..40, cut in 0_usize..40, with in "[b/]{0,40}") {
            let from = from.min(text.len());
            let to = (from + cut).min(text.len());
            let mut path = Path::new(&CString::new(text.clone()).expect("no NUL")).expect("it is short");
            path.splice(from, to, with.as_bytes()).expect("it fits");
            let mut expected = text.into_bytes();
            expected.splice(from..to, with.into_bytes());
            let length = path.length;
            prop_assert_eq!(path.to(length).expect("it fits").to_bytes(), expected.as_slice());
        }

        #[test]
        fn too_long_is_an_error(length in 4090_usize..5000) {
            let text = CString::new(vec![b'a'; length]).expect("no NUL");
            prop_assert_eq!(Path::new(&text).is_err(), length >= PATH_BYTES);
        }
    }
}
