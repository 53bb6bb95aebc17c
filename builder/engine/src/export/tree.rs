//! The root file system itself, as a folder or a tar.

use std::{io::Write, path::Path};

use image::{
    contents::{Contents, Folder},
    layer_tar::{TarOptions, write_rootfs},
};
use oci::Epoch;
use tree::{Layer, LayerPath, Stack};

use crate::{
    effect::Effects,
    error::Cause,
    result::{Mounted, VertexResult},
};

/// Writes all files of a result into a folder, over what is there.
pub(crate) fn write_folder(effects: &Effects, result: &VertexResult, to: &Path) -> Result<(), Cause> {
    let mounted = effects.mounted(result)?;
    std::fs::create_dir_all(to).map_err(Cause::io("make the folder", to))?;
    for left_out in image::folder::export_local(&mounted.stack, mounted.sources()?, to)? {
        effects.warn_once("left-out", &format!("the device {left_out} cannot be made here and is left out"));
    }
    Ok(())
}

/// Writes all files of a result as a tar.
pub(crate) fn write_tar(
    effects: &Effects,
    result: &VertexResult,
    epoch: Option<Epoch>,
    out: &mut dyn Write,
) -> Result<(), Cause> {
    let mounted = effects.mounted(result)?;
    let layer: Layer = mounted.stack.flatten();
    let contents = Stacked::open(&mounted)?;
    let options = TarOptions { epoch, verify: false };
    write_rootfs(&layer, &contents, options, out).map_err(|error| Cause::Encode(error.into()))
}

/// The files of stacked layers.
struct Stacked<'a> {
    stack: &'a Stack,
    folders: Vec<Folder>,
}

impl<'a> Stacked<'a> {
    fn open(mounted: &'a Mounted) -> Result<Stacked<'a>, Cause> {
        let open = |path: &std::path::PathBuf| Folder::open(path).map_err(Cause::io("open", path));
        let folders = mounted.folders.iter().map(open).collect::<Result<_, _>>()?;
        Ok(Stacked { stack: &mounted.stack, folders })
    }
}

impl Contents for Stacked<'_> {
    fn open(&self, path: &LayerPath) -> std::io::Result<Box<dyn std::io::Read + '_>> {
        let (layer, node) = self.stack.lookup(path).ok_or(std::io::ErrorKind::NotFound)?;
        self.folders[layer].open(node.hardlink.as_ref().unwrap_or(path))
    }
}
