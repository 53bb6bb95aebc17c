//! Files that lie in no folder: what a step is confided, where nothing can be mounted and the disk must not have it.
//!
//! Each is in memory, and opened by who names it: by its whole path, or by its name in the folder that it would be in.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path};

use std::os::unix::ffi::OsStrExt;

use rustix::fs::{
    Gid, MemfdFlags, Mode, OFlags, SealFlags, Uid, fchmod, fchown, fcntl_add_seals, memfd_create, openat,
};
use rustix::io::Errno;

use super::find::{Asker, LOOK, Places};
use crate::{Mount, MountKind};

/// One file.
pub(super) struct Served {
    path: Vec<u8>,
    content: OwnedFd,
    mode: u32,
    uid: u32,
    gid: u32,
}

impl Served {
    /// Those of a step's mounts that are files.
    pub fn of(mounts: &[Mount]) -> Result<Vec<Served>, Errno> {
        let mut files = Vec::new();
        for mount in mounts {
            let MountKind::File { content, mode, uid, gid } = &mount.kind else { continue };
            let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
            let file = memfd_create("file", flags)?;
            let mut left: &[u8] = content;
            while !left.is_empty() {
                left = &left[rustix::io::write(&file, left)?..];
            }
            fchown(&file, Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid)))?;
            fchmod(&file, Mode::from_raw_mode(*mode & 0o7777))?;
            fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
            let path = whole(&mount.target);
            files.push(Served { path, content: file, mode: *mode, uid: *uid, gid: *gid });
        }
        Ok(files)
    }

    /// The one that a path of a thread's is the name of. A path that is not whole begins in the folder that is open under a number.
    pub fn find<'a>(
        files: &'a [Served],
        places: &Places,
        (thread, folder): (u32, i32),
        path: &[u8],
    ) -> Option<&'a Served> {
        let last = name_of(path);
        files.iter().find(|file| name_of(&file.path) == last)?;
        let path = match path.first() {
            Some(b'/') => path.to_vec(),
            _ => {
                let link = match folder {
                    libc::AT_FDCWD => format!("{thread}/cwd"),
                    number => format!("{thread}/fd/{number}"),
                };
                let folder = places.link(&places.proc, &link).ok()?;
                [&folder[..], b"/", path].concat()
            }
        };
        let path = whole(Path::new(std::ffi::OsStr::from_bytes(&path)));
        files.iter().rfind(|file| file.path == path)
    }

    /// Opens it as a process may.
    pub fn open(&self, proc: &OwnedFd, asker: Asker, flags: OFlags) -> Result<OwnedFd, Errno> {
        let number = self.content.as_fd().as_raw_fd();
        let own = format!("self/fd/{number}");
        if flags.contains(OFlags::PATH) {
            return openat(proc, own, LOOK, Mode::empty());
        }
        if flags.contains(OFlags::DIRECTORY) {
            return Err(Errno::NOTDIR);
        }
        if flags.contains(OFlags::CREATE | OFlags::EXCL) {
            return Err(Errno::EXIST);
        }
        if flags.intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC) {
            return Err(Errno::ROFS);
        }
        if !self.may_read(asker) {
            return Err(Errno::ACCESS);
        }
        openat(proc, own, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
    }

    fn may_read(&self, asker: Asker) -> bool {
        let class = match asker {
            Asker { uid: 0, .. } => return true,
            Asker { uid, .. } if uid == self.uid => 6,
            Asker { gid, .. } if gid == self.gid => 3,
            Asker { .. } => 0,
        };
        self.mode >> class & 4 != 0
    }
}

/// A path as one writes it, without what means nothing. One that goes up again is not that of a file here.
fn whole(path: &Path) -> Vec<u8> {
    let mut text = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => text.extend([b"/", name.as_bytes()].concat()),
            Component::ParentDir => text.extend(b"/.."),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    text
}

fn name_of(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use rustix::fs::CWD;

    use super::*;
    use crate::SecretBytes;

    #[test]
    fn a_file_is_found_by_its_path_and_read_by_who_may() {
        let kind = |content: &[u8], mode| MountKind::File {
            content: SecretBytes::from(content.to_vec()),
            mode,
            uid: 5,
            gid: 6,
        };
        let mounts = [
            Mount { target: "/run/secrets/one".into(), kind: kind(b"first", 0o440) },
            Mount { target: "/run//./secrets/two/".into(), kind: kind(b"second", 0o400) },
        ];
        let files = match Served::of(&mounts) {
            Err(rustix::io::Errno::INVAL) => {
                return println!("SKIP procfs::files: needs root: files get other owners");
            }
            files => files.expect("memory is there"),
        };
        let open = |path| openat(CWD, path, LOOK, Mode::empty()).expect("there is one");
        let (proc, places) = (open("/proc"), Places::new(open("/proc"), open("/usr"), 0));
        let thread = rustix::process::getpid().as_raw_nonzero().get() as u32;
        let asker = |uid, gid| Asker { process: thread, uid, gid };
        let find = |path: &str| Served::find(&files, &places, (thread, libc::AT_FDCWD), path.as_bytes());
        for (path, content) in [
            ("/run/secrets/one", Some("first")),
            ("//run/./secrets//two", Some("second")),
            ("/run/secrets/../secrets/one", None),
            ("/run/secrets/three", None),
            ("/one", None),
            ("one", None),
            ("/", None),
            ("", None),
        ] {
            let read = find(path).map(|file| {
                let file = file.open(&proc, asker(0, 0), OFlags::RDONLY).expect("root may");
                let mut text = String::new();
                std::fs::File::from(file).read_to_string(&mut text).expect("it is text");
                text
            });
            assert_eq!(read.as_deref(), content, "{path}");
        }
        let one = find("/run/secrets/one").expect("it is there");
        let inside = open("/usr/bin");
        let link = |folder: &OwnedFd| places.link(&places.proc, &format!("self/fd/{}", folder.as_raw_fd()));
        assert_eq!(link(&inside), Ok(b"/bin".to_vec()));
        assert_eq!(link(&places.root), Ok(b"/".to_vec()));
        assert_eq!(link(&open("/etc")), Ok(b"/etc".to_vec()));
        for (uid, gid, flags, expected) in [
            (5, 1, OFlags::RDONLY, Ok(())),
            (1, 6, OFlags::RDONLY, Ok(())),
            (1, 1, OFlags::RDONLY, Err(Errno::ACCESS)),
            (1, 1, OFlags::PATH, Ok(())),
            (0, 0, OFlags::RDWR, Err(Errno::ROFS)),
            (0, 0, OFlags::TRUNC, Err(Errno::ROFS)),
            (0, 0, OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY, Err(Errno::EXIST)),
            (0, 0, OFlags::DIRECTORY, Err(Errno::NOTDIR)),
        ] {
            assert_eq!(one.open(&proc, asker(uid, gid), flags).map(drop), expected, "{uid}:{gid} {flags:?}");
        }
    }
}
