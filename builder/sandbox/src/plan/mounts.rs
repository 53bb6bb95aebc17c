//! The step's own mounts: sources before the pivot, targets after it.

use std::ffi::CString;
use std::path::{Component, Path};

use rustix::mount::MountFlags;

use super::{Planner, absolute, c_string};
use crate::{Call, Error, Mount, MountKind, MountPoint, NewFileSystem, Slot, Source};

/// A mount whose source is open.
pub(super) struct Opened {
    at: MountPoint,
    source: Source,
}

impl Planner<'_> {
    /// Opens what comes from the host, parents of other targets first.
    pub(super) fn open_sources(&mut self) -> Result<Vec<Opened>, Error> {
        let mut mounts: Vec<&Mount> = self.spec.mounts.iter().collect();
        // Stable, so that of two mounts at one target the later one is seen.
        mounts.sort_by_key(|mount| depth(&mount.target));
        let store = self.open_file_store();
        mounts.into_iter().map(|mount| self.open_source(mount, store)).collect()
    }

    /// One place in memory for all files, if there are any.
    fn open_file_store(&mut self) -> Option<Slot> {
        let wanted = self.spec.mounts.iter().any(|mount| matches!(mount.kind, MountKind::File { .. }));
        wanted.then(|| {
            let keep = self.slot();
            self.calls.push(Call::FileStore { keep });
            keep
        })
    }

    fn open_source(&mut self, mount: &Mount, store: Option<Slot>) -> Result<Opened, Error> {
        let path = absolute("the target of a mount", &mount.target)?;
        if depth(&mount.target) == 0 {
            return Err(Error::MountOnRoot);
        }
        let source = match &mount.kind {
            MountKind::Bind { root, path, readonly } => self.open_bind(root, path, *readonly)?,
            // overlayfs takes one folder once only, and an empty tree has no other one.
            MountKind::Overlay { lowers, writable: None, path } if lowers.is_empty() => {
                let empty = self.spec.empty.clone();
                self.open_bind(&empty, path, true)?
            }
            MountKind::Overlay { lowers, writable, path } => {
                let slot = self.stack(lowers, writable.as_ref())?;
                if depth(path) > 0 {
                    let path = c_string("the path inside a mount", path)?;
                    self.calls.push(Call::Select { within: slot, path });
                }
                Source::Kept { slot, remount_readonly: false }
            }
            MountKind::Tmpfs { size_bytes, mode, readonly } => tmpfs(*size_bytes, *mode, *readonly)?,
            MountKind::File { content, mode, uid, gid } => {
                let (keep, store) = (self.slot(), store.unwrap_or(Slot(0)));
                self.calls.push(Call::File {
                    store,
                    name: c_string("the name of a file", format!("{}", keep.0))?,
                    content: content.to_vec(),
                    mode: *mode & 0o7777,
                    uid: self.on_disk(*uid),
                    gid: self.on_disk(*gid),
                    readonly: self.kernel.mount_setattr,
                    keep,
                });
                Source::Kept { slot: keep, remount_readonly: !self.kernel.mount_setattr }
            }
        };
        Ok(Opened { at: MountPoint { path, stays: false }, source })
    }

    pub(super) fn open_bind(&mut self, root: &Path, path: &Path, readonly: bool) -> Result<Source, Error> {
        let keep = self.slot();
        self.calls.push(Call::Bind {
            root: absolute("the source of a mount", root)?,
            path: c_string("the path inside a mount", path)?,
            readonly: readonly && self.kernel.mount_setattr,
            keep,
        });
        Ok(Source::Kept { slot: keep, remount_readonly: readonly && !self.kernel.mount_setattr })
    }

    /// Attaches what was opened.
    pub(super) fn attach(&mut self, opened: Vec<Opened>) -> Result<(), Error> {
        for Opened { at, source } in opened {
            self.calls.push(Call::Mount { at, source, optional: false });
        }
        Ok(())
    }
}

fn tmpfs(size_bytes: Option<u64>, mode: u32, readonly: bool) -> Result<Source, Error> {
    let size = size_bytes.map(|size| format!(",size={size}")).unwrap_or_default();
    Ok(Source::New(NewFileSystem {
        kind: c"tmpfs".into(),
        name: c"tmpfs".into(),
        flags: if readonly { MountFlags::NOSUID | MountFlags::RDONLY } else { MountFlags::NOSUID },
        options: c_string("the options of a tmpfs", format!("mode={:04o}{size}", mode & 0o7777))?,
    }))
}

/// How many names a path has, `.` and `/` not counted.
fn depth(path: &Path) -> usize {
    path.components()
        .filter(|component| matches!(component, Component::Normal(_) | Component::ParentDir))
        .count()
}

/// How many folders and links deep mount points may have to be made for this path.
pub(crate) fn names_in(path: &CString) -> usize {
    path.as_bytes().split(|byte| *byte == b'/').filter(|name| !name.is_empty()).count()
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn depth_counts_names() {
        let table = [("/", 0), ("", 0), ("/.", 0), ("/a", 1), ("a/b/", 2), ("//a/./b", 2), ("/a/..", 2)];
        for (path, expected) in table {
            assert_eq!(depth(Path::new(path)), expected, "{path}");
        }
        assert_eq!(depth(Path::new(std::ffi::OsStr::from_bytes(b"/\xff/x"))), 2);
    }
}
