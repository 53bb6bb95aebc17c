//! Writes layouts: the same images give the same bytes.
//!
//! Blobs are copied as they are and only their length is checked: they come from a store that verified them when they
//! entered it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Write},
    path::Path,
};

use oci::{Descriptor, Index, Reference};
use tree::Mtime;

use super::{IMAGE_NAME, LayoutError, OCI_LAYOUT, REF_NAME, read::blob_path};
use crate::{
    blobs::{BlobError, BlobReader, BlobSource, closure},
    tar::{AppendError, Builder, Entry, EntryKind},
};

/// Raised when the same images come to be written with other bytes.
pub const ARCHIVE_VERSION: &str = "archive 1";

/// An image and the names it gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedImage {
    /// Its manifest, or its index.
    pub descriptor: Descriptor,
    /// Its names; with none it is found by digest, or by being the only one.
    pub names: Vec<Reference>,
}

impl NamedImage {
    /// One index entry for each name, as containerd and BuildKit write them.
    fn entries(&self) -> Vec<Descriptor> {
        if self.names.is_empty() {
            return vec![self.descriptor.clone()];
        }
        let entry = |name: &Reference| {
            let mut entry = self.descriptor.clone();
            let full = Reference { digest: None, ..name.clone() }.to_string();
            entry.annotations.insert(IMAGE_NAME.to_owned(), full);
            if let Some(tag) = &name.tag {
                entry.annotations.insert(REF_NAME.to_owned(), tag.clone());
            }
            entry
        };
        self.names.iter().map(entry).collect()
    }
}

/// Writes an OCI layout as a tar.
///
/// # Errors
/// [`LayoutError`]; `out` then holds a partial archive.
pub fn write_archive(
    images: &[NamedImage],
    blobs: &dyn BlobSource,
    out: &mut dyn Write,
) -> Result<(), LayoutError> {
    write_members(images, blobs, BTreeMap::new(), out)
}

/// Writes an archive of a layout with further files at its root.
pub(super) fn write_members(
    images: &[NamedImage],
    blobs: &dyn BlobSource,
    further: BTreeMap<&str, Vec<u8>>,
    out: &mut dyn Write,
) -> Result<(), LayoutError> {
    let roots: Vec<Descriptor> = images.iter().map(|image| image.descriptor.clone()).collect();
    let index = Index::new(images.iter().flat_map(NamedImage::entries).collect()).bytes();
    let mut documents = further;
    documents.extend([("index.json", index), ("oci-layout", OCI_LAYOUT.to_vec())]);
    write_files(&closure(blobs, &roots)?, blobs, documents, out)
}

/// Writes an archive of blobs, with files at its root behind them.
pub(super) fn write_files(
    sent: &[Descriptor],
    blobs: &dyn BlobSource,
    documents: BTreeMap<&str, Vec<u8>>,
    out: &mut dyn Write,
) -> Result<(), LayoutError> {
    let mut builder = Builder::new(out);
    for folder in ["blobs", "blobs/sha256"] {
        append(&mut builder, folder, EntryKind::Directory, &mut io::empty())?;
    }
    for descriptor in sent {
        let mut blob = open(blobs, descriptor)?;
        let kind = EntryKind::File { size: descriptor.size };
        append(&mut builder, &blob_path(&descriptor.digest), kind, &mut blob)?;
    }
    for (path, bytes) in documents {
        append(&mut builder, path, EntryKind::File { size: bytes.len() as u64 }, &mut &bytes[..])?;
    }
    builder.finish().map_err(append_error)?;
    Ok(())
}

fn append(
    builder: &mut Builder<&mut dyn Write>,
    path: &str,
    kind: EntryKind,
    contents: &mut dyn Read,
) -> Result<(), LayoutError> {
    let mode = if kind == EntryKind::Directory { 0o755 } else { 0o644 };
    let path = path.as_bytes().to_vec();
    let entry = Entry { path, kind, mode, uid: 0, gid: 0, mtime: Mtime::default(), xattrs: BTreeMap::new() };
    builder.append(&entry, contents).map_err(append_error)
}

fn append_error(error: AppendError) -> LayoutError {
    match error {
        AppendError::Read { path, source } => LayoutError::File { path, source },
        AppendError::Write(source) => LayoutError::Write(source),
        other => LayoutError::Write(io::Error::other(other)),
    }
}

/// A blob of the length that its descriptor says.
fn open(blobs: &dyn BlobSource, descriptor: &Descriptor) -> Result<BlobReader, LayoutError> {
    let digest = descriptor.digest;
    let blob = blobs.open(&digest).map_err(|source| BlobError::Read { digest, source })?;
    if blob.size_bytes != descriptor.size {
        return Err(BlobError::Size { digest, expected: descriptor.size, found: blob.size_bytes }.into());
    }
    Ok(blob.reader)
}

/// Writes a layout to a folder, which is made where it is missing. In one that is a layout already the images are added;
/// an image that has one of the names loses it.
///
/// The index is replaced last, in one step: a reader sees the old layout or the new one.
///
/// # Errors
/// [`LayoutError`].
pub fn write_folder(images: &[NamedImage], blobs: &dyn BlobSource, folder: &Path) -> Result<(), LayoutError> {
    let shown = |path: &Path| path.display().to_string();
    let failed = |path: &Path| {
        let path = shown(path);
        move |source| LayoutError::File { path, source }
    };
    let blob_folder = folder.join("blobs/sha256");
    fs::create_dir_all(&blob_folder).map_err(failed(&blob_folder))?;
    let roots: Vec<Descriptor> = images.iter().map(|image| image.descriptor.clone()).collect();
    for descriptor in closure(blobs, &roots)? {
        let path = folder.join(blob_path(&descriptor.digest));
        // A blob that is there is whole, as it was renamed to its name.
        if fs::symlink_metadata(&path).is_ok_and(|found| found.is_file() && found.len() == descriptor.size) {
            continue;
        }
        copy(open(blobs, &descriptor)?, &descriptor, &path).map_err(failed(&path))?;
    }
    let index_path = folder.join("index.json");
    let index = merged(&index_path, images)?.bytes();
    for (name, bytes) in [("oci-layout", OCI_LAYOUT), ("index.json", &index)] {
        let path = folder.join(name);
        replace(&path, |file| file.write_all(bytes)).map_err(failed(&path))?;
    }
    Ok(())
}

/// The index of a folder with the images added.
fn merged(path: &Path, images: &[NamedImage]) -> Result<Index, LayoutError> {
    let shown = path.display().to_string();
    let mut index = match fs::read(path) {
        Ok(bytes) => Index::parse(&bytes).map_err(|source| LayoutError::Document { path: shown, source })?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Index::new(Vec::new()),
        Err(source) => return Err(LayoutError::File { path: shown, source }),
    };
    for entry in images.iter().flat_map(NamedImage::entries) {
        index.manifests.retain(|old| match entry.annotations.get(IMAGE_NAME) {
            Some(name) => old.annotations.get(IMAGE_NAME) != Some(name),
            None => old.digest != entry.digest || old.annotations.contains_key(IMAGE_NAME),
        });
        index.manifests.push(entry);
    }
    Ok(index)
}

fn copy(blob: BlobReader, descriptor: &Descriptor, path: &Path) -> io::Result<()> {
    replace(path, |file| {
        let copied = match blob {
            // Between two files the kernel copies, or shares the blocks.
            BlobReader::File(mut blob) => io::copy(&mut blob, file)?,
            BlobReader::Stream(mut blob) => io::copy(&mut blob, file)?,
        };
        let whole = copied == descriptor.size;
        whole
            .then_some(())
            .ok_or_else(|| io::Error::other(format!("{copied} bytes of {} came", descriptor.size)))
    })
}

/// Writes a file beside its place, and renames it when it is whole.
fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let aside = path.with_file_name(name);
    let written = File::create(&aside).and_then(|mut file| {
        write(&mut file)?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&aside, path)).inspect_err(|_| drop(fs::remove_file(&aside)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_an_entry() {
        let name = |text| Reference::parse(text).expect("a name");
        let descriptor = Descriptor::new(oci::MediaType::manifest(), oci::Digest::of(b""), 0);
        let image = NamedImage { descriptor, names: vec![name("app"), name("ghcr.io/a/b:v1")] };
        let found: Vec<_> = image.entries().iter().map(|entry| entry.annotations.clone()).collect();
        assert_eq!(found[0][IMAGE_NAME], "docker.io/library/app:latest");
        assert_eq!(found[0][REF_NAME], "latest");
        assert_eq!(found[1][IMAGE_NAME], "ghcr.io/a/b:v1");
        assert_eq!(found[1][REF_NAME], "v1");
    }
}
