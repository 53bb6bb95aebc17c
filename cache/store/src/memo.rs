//! Answers that need no database: what a whole build gave, by a key of all that went into it; and which files outside the
//! state folder hold what was written to them.
//!
//! A memo is a file, believed in the boot that wrote it, and only while its `generation` is the state folder's. That token
//! is replaced inside each transaction that could make an ordinary build come to something else:
//!
//! | What happens | Where |
//! |---|---|
//! | an image's name moves, an image is taken off the list | `image.rs` |
//! | a collection removes records, images or contents | `collect.rs` |
//! | a step that has a record gets a newer one | `record.rs` |
//! | a layer that has a blob gets another one | `layer_blob.rs` |
//! | there is no database, and a new one is made | `database.rs` |
//!
//! So it is void too early and never too late. A file outside is known again by its inode and its times.

use std::{
    fmt::Write as _,
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use oci::{Digest, Platform, Reference};
use serde::{Deserialize, Serialize};

use crate::{
    Answer, BootId, Error, IdMap, Lease, Result, StatKey, Store, answer,
    contents::Contents,
    database::{Durability, Fault},
    image::{has_image, tagged},
    layout::{Kind, Layout},
    lease::Pin,
    remove, unique,
};

/// Start of the names of files that say what a file outside holds.
const OUTPUT: &str = "to-";

/// What is known of a file outside is kept for as long as this, in seconds.
const OUTPUT_SECONDS: u64 = 30 * 24 * 60 * 60;

/// What a memo says of the local store, looked at once more when it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// What names stand for; none for those that no image has. One with a digest stands for that image, if it is listed.
    pub names: Vec<(Reference, Option<Digest>)>,
    /// Images that are listed.
    pub listed: Vec<Digest>,
}

/// The memos of a state folder, which is not opened, locked or changed for them. What cannot be read is not there.
#[derive(Debug)]
pub struct Memos {
    layout: Layout,
    boot: BootId,
    id_map: IdMap,
}

/// The file about a file outside.
#[derive(Serialize, Deserialize)]
struct Written {
    boot: String,
    path: Vec<u8>,
    what: Digest,
    device: u64,
    inode: u64,
    size: u64,
    mtime_ns: i64,
    ctime_ns: i64,
}

impl Memos {
    /// Those of the state folder at `root`; none where there is no such folder, or one that this program could not use.
    pub fn at(root: &Path, boot: BootId) -> Option<Memos> {
        let id_map = IdMap::of_folder(root)?;
        Some(Memos { layout: Layout::new(root), boot, id_map })
    }

    /// How owners stand in the state folder's inodes: of no concern to what was remembered.
    pub fn id_map(&self) -> &IdMap {
        &self.id_map
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What was remembered under a key.
    pub fn get(&self, key: &Digest) -> Option<Vec<u8>> {
        get(&self.layout, &self.boot, key).ok().flatten()
    }

    /// As [`Store::answer`].
    pub fn answer(&self, name: &Reference, platform: &Platform) -> Option<Answer> {
        answer::read(&self.layout, name, platform).ok().flatten()
    }

    /// Whether a file that looks like this holds `what`, as [`Store::remember_output`] was told.
    pub fn holds(&self, path: &Path, what: &Digest, now: &StatKey) -> bool {
        holds(&self.layout, &self.boot, path, what, now)
    }
}

impl Store {
    /// What was remembered under a key. Reads two small files.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn memo_get(&self, key: &Digest) -> Result<Option<Vec<u8>>> {
        get(self.layout(), self.boot(), key)
    }

    /// Remembers an answer that holds as long as the claims do. Comes after [`Store::keep`] and [`Store::tag`], while the
    /// lease still names all that the answer stands on. Returns whether it was remembered: not when a claim is wrong by
    /// now.
    ///
    /// # Errors
    /// The database cannot be read or the file not be written.
    pub fn memo_put(&self, lease: &Lease, key: &Digest, claims: &Claims, answer: &[u8]) -> Result<bool> {
        let path = self.layout().memos().join(key.hex());
        // A write transaction that writes nothing: what the generation stands for does not change meanwhile.
        self.change("look up an image", Durability::Lazy, |contents| {
            if !hold(contents, claims)? {
                return Ok(false);
            }
            let head = head(self.layout(), self.boot())? + &held(self.layout(), lease);
            lease.write_whole(&path, &[head.as_bytes(), b"\n", answer].concat())?;
            Ok(true)
        })
    }

    /// Remembers that a file outside the state folder holds `what`, a name for its bytes. `key` must be of the file before
    /// anybody else could write to it, but for `ctime_ns`.
    ///
    /// # Errors
    /// The file about it cannot be written.
    pub fn remember_output(&self, lease: &Lease, path: &Path, what: &Digest, key: &StatKey) -> Result<()> {
        let StatKey { device, inode, size, mtime_ns, ctime_ns } = *key;
        let (boot, bytes) = (self.boot().as_str().to_owned(), path.as_os_str().as_bytes().to_vec());
        let written = Written { boot, path: bytes, what: *what, device, inode, size, mtime_ns, ctime_ns };
        let text = serde_json::to_vec(&written).expect("text and numbers are JSON");
        lease.write_whole(&output(self.layout(), path), &text)
    }

    /// Whether a file that looks like this holds `what`, as [`Store::remember_output`] was told in this boot.
    pub fn holds_output(&self, path: &Path, what: &Digest, now: &StatKey) -> bool {
        holds(self.layout(), self.boot(), path, what, now)
    }

    /// Removes the memos that nobody will believe any more.
    pub(crate) fn sweep_memos(&self) -> Result<()> {
        let head = head(self.layout(), self.boot())?;
        let folder = self.layout().memos();
        for name in crate::lease::list(&folder)? {
            let path = folder.join(&name);
            let stale = match fs::read(&path) {
                Ok(_) if name.starts_with(OUTPUT) => self.is_older(&path, OUTPUT_SECONDS),
                Ok(bytes) => !bytes.starts_with(head.as_bytes()),
                Err(e) if e.kind() == io::ErrorKind::NotFound => false,
                Err(e) => return Err(Error::io("read", path, e)),
            };
            if stale {
                remove::file(&path).map_err(|e| Error::io("remove", path, e))?;
            }
        }
        Ok(())
    }
}

fn get(layout: &Layout, boot: &BootId, key: &Digest) -> Result<Option<Vec<u8>>> {
    let path = layout.memos().join(key.hex());
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("read", path, e)),
    };
    if !layout.database().exists() {
        return Ok(None);
    }
    // After the memo: one that is void when it is read is void.
    let Some(mut rest) = bytes.strip_prefix(head(layout, boot)?.as_bytes()) else { return Ok(None) };
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let (line, behind) = (&rest[..end], &rest[end + 1..]);
        if line.is_empty() {
            return Ok(Some(behind.to_vec()));
        }
        if !is_there(layout, line) {
            return Ok(None);
        }
        rest = behind;
    }
    Ok(None)
}

/// A line for each file and folder that the answer stands on, because people delete files: what it is, its digest, its
/// length.
fn held(layout: &Layout, lease: &Lease) -> String {
    let mut lines = String::new();
    for pin in lease.pinned() {
        let (kinds, digest) = match pin {
            Pin::Blob(digest) => (&[Kind::Blob][..], digest),
            Pin::Layer(layer) => (&[Kind::Tree, Kind::Folder][..], layer.digest()),
            Pin::Image(_) | Pin::Record(_) => continue,
        };
        for kind in kinds {
            if let Some(length) = length(layout, *kind, &digest) {
                // Writing to a string cannot fail.
                let _infallible = writeln!(lines, "{} {} {length}", kind.as_str(), digest.hex());
            }
        }
    }
    lines
}

fn is_there(layout: &Layout, line: &[u8]) -> bool {
    let parse = || {
        let mut words = std::str::from_utf8(line).ok()?.split(' ');
        let word = words.next()?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == word)?;
        let digest = Digest::from_hex(words.next()?).ok()?;
        Some((kind, digest, words.next()?.parse::<u64>().ok()?))
    };
    parse().is_some_and(|(kind, digest, expected)| length(layout, kind, &digest) == Some(expected))
}

/// The length of what is there; 0 of a folder.
fn length(layout: &Layout, kind: Kind, digest: &Digest) -> Option<u64> {
    let found = fs::symlink_metadata(layout.content(kind, digest)).ok()?;
    match kind {
        Kind::Folder => found.is_dir().then_some(0),
        Kind::Blob | Kind::Tree => found.is_file().then_some(found.len()),
    }
}

fn head(layout: &Layout, boot: &BootId) -> Result<String> {
    let path = layout.generation();
    let generation = match fs::read_to_string(&path) {
        Ok(token) => token,
        Err(e) if e.kind() == io::ErrorKind::NotFound => "first".to_owned(),
        Err(e) => return Err(Error::io("read", path, e)),
    };
    Ok(format!("kiln memo 2 {} {generation}\n", boot.as_str()))
}

fn hold(contents: &Contents<'_>, claims: &Claims) -> std::result::Result<bool, Fault> {
    for (name, claimed) in &claims.names {
        let found = match name.digest {
            Some(digest) => has_image(contents, &digest)?.then_some(digest),
            None => tagged(contents, &name.to_string())?,
        };
        if found != *claimed {
            return Ok(false);
        }
    }
    for image in &claims.listed {
        if !has_image(contents, image)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn output(layout: &Layout, path: &Path) -> PathBuf {
    layout.memos().join(format!("{OUTPUT}{}", Digest::of(path.as_os_str().as_bytes()).hex()))
}

fn holds(layout: &Layout, boot: &BootId, path: &Path, what: &Digest, now: &StatKey) -> bool {
    let Ok(bytes) = fs::read(output(layout, path)) else { return false };
    let Ok(written) = serde_json::from_slice::<Written>(&bytes) else { return false };
    let Written { boot: in_boot, path: of, what: held, device, inode, size, mtime_ns, ctime_ns } = written;
    let then = StatKey { device, inode, size, mtime_ns, ctime_ns };
    in_boot == boot.as_str() && of == path.as_os_str().as_bytes() && held == *what && then == *now
}

/// Makes all memos void. Inside the write transaction that makes them wrong, and before it is committed: a memo may be
/// void too early, never too late.
pub(crate) fn forget(layout: &Layout) -> Result<()> {
    let (path, token) = (layout.generation(), unique::token());
    let aside = path.with_extension(&token);
    let replaced = fs::write(&aside, token).and_then(|()| fs::rename(&aside, &path));
    replaced.map_err(|e| {
        // The error to tell is the first one.
        let _gone = fs::remove_file(&aside);
        Error::io("write", path, e)
    })
}
