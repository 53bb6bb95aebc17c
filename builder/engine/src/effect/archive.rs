//! Archives that `ADD` unpacks, told by their content.

use std::{
    fs::File,
    io::{Read, Seek, Write},
    path::PathBuf,
};

use image::{
    apply::{ApplyOptions, WhiteoutNames, apply},
    detect::{decompress, is_archive},
    folder::FolderError,
};
use oci::{Digest, Hasher};
use tree::{Kind, Layer, LayerPath};

use super::{Effects, layers::open_beneath};
use crate::{error::Cause, result::Mounted};

/// An archive that was unpacked.
pub(crate) struct Unpacked {
    /// The action whose source it is.
    pub(crate) action: usize,
    /// The source, its links followed.
    pub(crate) path: LayerPath,
    /// What it holds.
    pub(crate) layer: Layer,
    /// Where its files are.
    pub(crate) folder: PathBuf,
}

impl Effects {
    /// Unpacks a file if it is an archive.
    pub(crate) fn unpack_archive(
        &self,
        of: &Mounted,
        path: &LayerPath,
        action: usize,
    ) -> Result<Option<Unpacked>, Cause> {
        let Some((layer, node)) = of.stack.lookup(path) else { return Ok(None) };
        let Kind::File { content, .. } = node.kind else { return Ok(None) };
        let folder = &of.folders[layer];
        let name = node.hardlink.as_ref().unwrap_or(path);
        let open = || open_beneath(folder, name);
        let shown = || folder.join(path.to_string().trim_start_matches('/'));
        if !is_archive(open()?).map_err(Cause::io("read", shown()))? {
            return Ok(None);
        }
        let archive = if of.watched { self.copy_checked(open()?, &content, path)? } else { open()? };
        let length = archive.metadata().map_err(Cause::io("read", shown()))?.len();
        let (_, tar) = decompress(archive).map_err(Cause::io("read", shown()))?;
        let folder = self.lease.new_folder()?;
        let limits = self.limits.of_blob(length);
        let options = ApplyOptions { names: WhiteoutNames::Literal, ..self.unpacking(limits) };
        let layer = apply(self.store.watched(tar), &folder, &options)?.layer;
        Ok(Some(Unpacked { action, path: path.clone(), layer, folder }))
    }

    /// A copy of a file that others may write to, if its bytes are still those that the step's key was made of.
    fn copy_checked(&self, mut from: File, content: &Digest, path: &LayerPath) -> Result<File, Cause> {
        let (aside, mut copy) = self.lease.new_file()?;
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 128 * 1024];
        loop {
            let read = from.read(&mut buffer).map_err(Cause::io("read", path.to_string()))?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
            copy.write_all(&buffer[..read]).map_err(Cause::io("write", &aside))?;
        }
        if hasher.finish() != *content {
            return Err(FolderError::Changed { path: path.clone() }.into());
        }
        copy.rewind().map_err(Cause::io("read", &aside))?;
        Ok(copy)
    }
}
