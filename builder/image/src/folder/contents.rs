//! A plan's files, read where they are copied from: a layer is archived without being written to a folder first.

use std::{
    fs::File,
    io::{self, Cursor, Read},
};

use oci::Digest;
use tree::{Kind, Layer, LayerPath};

use super::SourceFolder;
use crate::{
    contents::{Bytes, Contents},
    copy::{ContentSource, Plan},
};

/// A plan, with the folders that its files come from.
#[derive(Debug)]
pub struct PlannedLayer {
    plan: Plan,
    inputs: Vec<Vec<SourceFolder>>,
}

impl PlannedLayer {
    /// A plan whose files are below these folders, by input number and layer.
    pub fn new(plan: Plan, inputs: Vec<Vec<SourceFolder>>) -> PlannedLayer {
        PlannedLayer { plan, inputs }
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The manifest alone.
    pub fn into_layer(self) -> Layer {
        self.plan.layer
    }

    /// The folders, as [`super::write_plan`] takes them.
    pub fn inputs(&self) -> &[Vec<SourceFolder>] {
        &self.inputs
    }

    /// Whether others may write to one of the folders, so that what is read must be compared with the manifest.
    pub fn is_watched(&self) -> bool {
        self.inputs.iter().flatten().any(|folder| folder.verify)
    }

    /// Whether a tar says what the layer is: a file whose name is that of a whiteout would be one in there.
    pub fn fits_a_tar(&self) -> bool {
        let mut paths = self.plan.layer.entries.keys();
        !paths.any(|path| path.name().starts_with(b".wh."))
    }
}

impl Contents for PlannedLayer {
    fn open(&self, path: &LayerPath) -> io::Result<Box<dyn Bytes + '_>> {
        let kind = self.plan.layer.get(path).map(|node| &node.kind);
        let Some(Kind::File { size, .. }) = kind else { return Err(io::ErrorKind::NotFound.into()) };
        let (input, layer, from) = match self.plan.contents.get(path) {
            // A context's socket is an empty file in the manifest, and cannot be opened.
            _ if *size == 0 => return Ok(Box::new(io::empty())),
            Some(ContentSource::Inline(data)) => return Ok(Box::new(Cursor::new(data))),
            Some(ContentSource::File { input, layer, path }) => (input, layer, path),
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        let folder = self.inputs.get(input).and_then(|layers| layers.get(layer));
        let folder = folder.ok_or(io::ErrorKind::NotFound)?;
        let file = folder.open(&from)?;
        Ok(Box::new(OfFolder { file: file.into(), folder }))
    }
}

/// A file of a folder, of whose files digests may be remembered.
struct OfFolder<'a> {
    file: File,
    folder: &'a SourceFolder,
}

impl Read for OfFolder<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl Bytes for OfFolder<'_> {
    fn is_known(&self, digest: &Digest) -> bool {
        self.folder.key(&self.file, digest).is_some()
    }

    fn append_to(&mut self, out: &mut Vec<u8>, expected: usize) -> io::Result<usize> {
        self.file.append_to(out, expected)
    }
}
