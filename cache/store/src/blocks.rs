//! Which blocks the blobs of layers are made of, so that a layer that is much like an earlier one is not compressed anew.
//!
//! One small file for each blob, named as the blob is. What is in it is for whoever compresses to say and to check: a file
//! that is damaged or gone costs time and nothing else. It goes when its blob goes.

use std::{fs, io};

use oci::{Digest, Epoch};
use rusqlite::params;
use tree::LayerId;

use crate::{
    BlobFile, Codec, Error, Lease, Result, Store,
    database::{column, digest, unsigned},
    lease::list,
    remove,
};

/// A file is not read beyond this length, in bytes: a terabyte of layer.
const BLOCKS_BYTES: u64 = 1 << 30;

/// An earlier blob, and which blocks it is made of.
#[derive(Clone, Debug)]
pub struct EarlierBlob {
    /// The blob, named in the lease.
    pub blob: BlobFile,
    /// What [`Store::add_blocks`] was given.
    pub blocks: Vec<u8>,
}

impl Store {
    /// Remembers which blocks a blob is made of, that is here and named in the lease.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn add_blocks(&self, lease: &Lease, blob: &Digest, blocks: &[u8]) -> Result<()> {
        let folder = self.layout().blocks();
        // A state folder of an earlier version has none.
        fs::create_dir_all(&folder).map_err(|e| Error::io("create", &folder, e))?;
        lease.write_whole(&folder.join(blob.hex()), blocks)
    }

    /// The last blobs of the layers that the operations of this layer have made before, the latest first; only those of a
    /// codec that begins so, and of which the blocks are known.
    ///
    /// # Errors
    /// The database or a file cannot be read.
    pub fn earlier_blobs(
        &self,
        lease: &Lease,
        layer: &LayerId,
        codec: &Codec,
        most: usize,
    ) -> Result<Vec<EarlierBlob>> {
        let found = self.ask("look up earlier blobs", |contents| {
            let mut query = contents.connection.prepare_cached(
                "SELECT b.blob, max(then_.created) AS made FROM origins AS now_
                 JOIN origins AS then_ ON then_.op = now_.op AND then_.layer <> now_.layer
                 JOIN layer_blobs AS b ON b.layer = then_.layer
                 WHERE now_.layer = ?1 AND substr(b.codec, 1, length(?2)) = ?2
                 GROUP BY b.blob ORDER BY made DESC, b.blob LIMIT ?3",
            )?;
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            let rows = query.query_map(params![column(&layer.digest()), codec.0, most], |row| {
                Ok((digest(row, 0)?, Epoch(unsigned(row, 1)?)))
            })?;
            Ok(rows.collect::<rusqlite::Result<Vec<(Digest, Epoch)>>>()?)
        })?;
        let mut earlier = Vec::new();
        for (named, _) in found {
            let Some(blocks) = self.blocks(&named)? else { continue };
            if let Some(blob) = self.blob(lease, &named)? {
                earlier.push(EarlierBlob { blob, blocks });
            }
        }
        Ok(earlier)
    }

    fn blocks(&self, blob: &Digest) -> Result<Option<Vec<u8>>> {
        let path = self.layout().blocks().join(blob.hex());
        let read = fs::metadata(&path).and_then(|file| match file.len() > BLOCKS_BYTES {
            true => Ok(None),
            false => fs::read(&path).map(Some),
        });
        match read {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map_err(|e| Error::io("read", path, e)),
        }
    }

    /// Removes what is known of blobs that are gone.
    pub(crate) fn sweep_blocks(&self) -> Result<()> {
        let folder = self.layout().blocks();
        for name in list(&folder)? {
            let is_here = Digest::from_hex(&name).is_ok_and(|blob| self.layout().blob(&blob).exists());
            if !is_here {
                let path = folder.join(name);
                remove::file(&path).map_err(|e| Error::io("remove", path, e))?;
            }
        }
        Ok(())
    }
}
