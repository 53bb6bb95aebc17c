//! Archives that `ADD` unpacks, told by their content.

use std::path::PathBuf;

use image::{
    apply::{ApplyOptions, WhiteoutNames, apply},
    detect::{decompress, is_archive},
};
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
        if !matches!(node.kind, Kind::File { .. }) {
            return Ok(None);
        }
        let folder = &of.folders[layer];
        let name = node.hardlink.as_ref().unwrap_or(path);
        let open = || open_beneath(folder, name);
        let shown = || folder.join(path.to_string().trim_start_matches('/'));
        if !is_archive(open()?).map_err(Cause::io("read", shown()))? {
            return Ok(None);
        }
        let (_, tar) = decompress(open()?).map_err(Cause::io("read", shown()))?;
        let folder = self.lease.new_folder()?;
        let options = ApplyOptions { names: WhiteoutNames::Literal, ..ApplyOptions::default() };
        let layer = apply(tar, &folder, &options)?.layer;
        Ok(Some(Unpacked { action, path: path.clone(), layer, folder }))
    }
}
