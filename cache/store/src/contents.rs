//! Contents: what lies in the state folder under its digest, and whether it may be believed.
//!
//! A content is believed when it was flushed (*kept*) or was made in this boot, and is on disk. Adding one is a rename
//! inside a write transaction: killed before the commit, a file without a row remains, which the next to add it replaces
//! and the collector removes; nobody ever believes a file without a row.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use oci::Digest;
use rusqlite::{Connection, OptionalExtension, params};
use rustix::{
    fs::{CWD, RenameFlags},
    io::Errno,
};
use tree::LayerId;

use crate::{
    BootId, Error, Result,
    database::{Fault, column, digest, signed, unsigned},
    layout::{Kind, Layout},
    lease::Lease,
};

/// What queries about contents need to know.
pub(crate) struct Contents<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) layout: &'a Layout,
    pub(crate) boot: &'a BootId,
    /// Set when something is added.
    pub(crate) added: &'a AtomicBool,
}

impl Contents<'_> {
    /// The size of a content that may be believed and is on disk.
    pub(crate) fn size(&self, kind: Kind, named: &Digest) -> std::result::Result<Option<u64>, Fault> {
        let mut query = self.connection.prepare_cached(
            "SELECT size_bytes FROM contents WHERE kind = ?1 AND digest = ?2 AND (kept = 1 OR boot = ?3)",
        )?;
        let values = params![kind.as_str(), column(named), self.boot.as_str()];
        let size = query.query_row(values, |row| unsigned(row, 0)).optional()?;
        Ok(size.filter(|size| on_disk(&self.layout.content(kind, named), kind, *size)))
    }

    /// Whether a layer is here: its tree manifest, and its folder or one of its blobs.
    pub(crate) fn has_layer(&self, layer: &LayerId) -> std::result::Result<bool, Fault> {
        if self.size(Kind::Tree, &layer.digest())?.is_none() {
            return Ok(false);
        }
        if self.size(Kind::Folder, &layer.digest())?.is_some() {
            return Ok(true);
        }
        let mut query = self.connection.prepare_cached("SELECT blob FROM layer_blobs WHERE layer = ?1")?;
        let blobs = query.query_map([column(&layer.digest())], |row| digest(row, 0))?;
        for blob in blobs {
            if self.size(Kind::Blob, &blob?)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Gives what lies at `from`, in the lease's folder, its name, and writes its row; or leaves it where it is, when the
    /// content is here already. Inside a write transaction. Whether it was taken.
    pub(crate) fn add(
        &self,
        lease: &Lease,
        kind: Kind,
        named: &Digest,
        size_bytes: u64,
        from: &Path,
    ) -> std::result::Result<bool, Fault> {
        if self.size(kind, named)?.is_some() {
            return Ok(false);
        }
        let to = self.layout.content(kind, named);
        give_name(lease, kind, from, &to)?;
        let mut insert = self.connection.prepare_cached(
            "INSERT OR REPLACE INTO contents (kind, digest, size_bytes, boot, kept) VALUES (?1, ?2, ?3, ?4, 0)",
        )?;
        insert.execute(params![kind.as_str(), column(named), signed(size_bytes), self.boot.as_str()])?;
        self.added.store(true, Ordering::Relaxed);
        Ok(true)
    }
}

/// A folder can replace nothing but an empty one, so one that nobody believes is first moved to the lease's folder.
fn give_name(lease: &Lease, kind: Kind, from: &Path, to: &Path) -> Result<()> {
    let moved = match kind {
        Kind::Blob | Kind::Tree => fs::rename(from, to),
        Kind::Folder => match move_to(from, to) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                let aside = lease.new_path()?;
                move_to(to, &aside).map_err(|e| Error::io("create", aside, e))?;
                move_to(from, to)
            }
            moved => moved,
        },
    };
    moved.map_err(|e| Error::io("create", to, e))
}

/// Gives a file or a folder a name that nothing has. That writes a folder's `..`, which a layer's own mode may forbid its
/// owner.
pub(crate) fn move_to(from: &Path, to: &Path) -> io::Result<()> {
    let rename = || rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE);
    match rename() {
        Err(Errno::ACCESS) => {
            let permissions = fs::symlink_metadata(from)?.permissions();
            fs::set_permissions(from, Permissions::from_mode(permissions.mode() | 0o700))?;
            rename()?;
            fs::set_permissions(to, permissions)
        }
        moved => Ok(moved?),
    }
}

/// A look at the disk, because people delete files. Whether a file's bytes are right is seen when they are read.
fn on_disk(path: &Path, kind: Kind, size_bytes: u64) -> bool {
    let Ok(metadata) = fs::symlink_metadata(path) else { return false };
    match kind {
        Kind::Folder => metadata.is_dir(),
        Kind::Blob | Kind::Tree => metadata.is_file() && metadata.len() == size_bytes,
    }
}

/// Removes what was not taken over: a duplicate of what is here already.
pub(crate) fn drop_rest(path: &Path) -> Result<()> {
    crate::remove::tree(path).map_err(|e| Error::io("remove", path, e))
}
