//! Answers that need no database: what a whole build gave, by a key of all that went into it.
//!
//! A memo is a file, believed in the boot that wrote it, and as long as no image's name has moved since: the token in
//! `generation` is in every memo, and is replaced inside each transaction that moves a name or removes an image.

use std::{fs, io, path::Path};

use oci::{Digest, Reference};

use crate::{
    Error, Lease, Result, Store, database::Durability, image::tagged, layout::Layout, remove, unique,
};

impl Store {
    /// What was remembered under a key. Reads two small files.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn memo_get(&self, key: &Digest) -> Result<Option<Vec<u8>>> {
        let head = self.memo_head()?;
        let path = self.layout().memos().join(key.hex());
        match fs::read(&path) {
            Ok(bytes) => Ok(bytes.strip_prefix(head.as_bytes()).map(<[u8]>::to_vec)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("read", path, e)),
        }
    }

    /// Remembers an answer that holds as long as each of these names is that image's. Comes after [`Store::keep`] and
    /// [`Store::tag`]. Returns whether it was remembered: not when a name is another image's by now.
    ///
    /// # Errors
    /// The database cannot be read or the file not be written.
    pub fn memo_put(
        &self,
        lease: &Lease,
        key: &Digest,
        names: &[(Reference, Digest)],
        answer: &[u8],
    ) -> Result<bool> {
        let path = self.layout().memos().join(key.hex());
        // A write transaction that writes nothing: no name moves meanwhile.
        self.change("look up an image", Durability::Lazy, |contents| {
            for (name, digest) in names {
                if tagged(contents, &name.to_string())? != Some(*digest) {
                    return Ok(false);
                }
            }
            let bytes = [self.memo_head()?.as_bytes(), answer].concat();
            lease.write_whole(&path, &bytes)?;
            Ok(true)
        })
    }

    /// Removes the memos that nobody will believe any more.
    pub(crate) fn sweep_memos(&self) -> Result<()> {
        let head = self.memo_head()?;
        let folder = self.layout().memos();
        for name in crate::lease::list(&folder)? {
            let path = folder.join(name);
            let stale = match fs::read(&path) {
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

    fn memo_head(&self) -> Result<String> {
        let path = self.layout().generation();
        let generation = match fs::read_to_string(&path) {
            Ok(token) => token,
            Err(e) if e.kind() == io::ErrorKind::NotFound => "first".to_owned(),
            Err(e) => return Err(Error::io("read", path, e)),
        };
        Ok(format!("kiln memo 1 {} {generation}\n", self.boot().as_str()))
    }
}

/// Makes all memos void. Inside the write transaction that makes them wrong, and before it is committed: a memo may be
/// void too early, never too late.
pub(crate) fn forget(layout: &Layout) -> Result<()> {
    let path = layout.generation();
    let aside = path.with_extension("new");
    replace(&aside, &path).map_err(|e| Error::io("write", path, e))
}

fn replace(aside: &Path, path: &Path) -> io::Result<()> {
    fs::write(aside, unique::token())?;
    fs::rename(aside, path)
}
