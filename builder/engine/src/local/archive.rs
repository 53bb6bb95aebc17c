//! `kiln save`, `kiln load`: images of the local store in archives, and back.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use image::{
    apply::ApplyError,
    blobs::{BlobError, BlobSource, MAX_DEPTH, check_type, read_document},
    detect::{Format, decompress},
    layout::{
        DockerArchive, DockerImage, Layout, LayoutError, NamedImage, write_archive, write_docker_archive,
    },
};
use oci::{
    Descriptor, Digest, Hasher, ImageConfig, Index, Manifest, MediaType, Reference,
    media_type::{Compression, DOCKER_CONFIG},
};
use store::{Lease, Store, TaggedBy};

use crate::{
    engine::Engine,
    error::{Cause, Error},
    export::{self, StoreBlobs},
    limits::Limits,
    request::Destination,
};

/// An index entry's annotations with a name: containerd's full one, and OCI's, which may be a tag alone.
const NAMES: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// Whose archive is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// One that `docker load` takes, and every reader of OCI archives.
    Docker,
    /// An OCI layout, which may hold several platforms.
    Oci,
}

/// An image that an archive brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedImage {
    /// Its manifest or index.
    pub descriptor: Descriptor,
    /// Its names.
    pub names: Vec<Reference>,
}

impl Engine {
    /// Writes images into one archive; each keeps the name that it was asked for by, and by digest all that it has.
    ///
    /// # Errors
    /// There is no such image, an index is to go into Docker's archive, or the file cannot be written. No file is half
    /// written.
    pub fn save(&self, images: &[String], format: ArchiveFormat, to: &Destination) -> Result<(), Error> {
        let lease = self.store.lease()?;
        let mut named: Vec<NamedImage> = Vec::new();
        for image in images {
            let found = self.find(&lease, image)?;
            let asked = Reference::parse(image).ok().filter(|name| found.names.contains(name));
            let names = asked.map_or(found.names, |name| vec![name]);
            match named.iter_mut().find(|other| other.descriptor.digest == found.descriptor.digest) {
                Some(other) => other.names.extend(names),
                None => named.push(NamedImage { descriptor: found.descriptor, names }),
            }
        }
        let blobs = StoreBlobs { store: &self.store, lease: &lease };
        let write = |out: &mut dyn Write| match format {
            ArchiveFormat::Docker => Ok(write_docker_archive(&named, &blobs, out)?),
            ArchiveFormat::Oci => Ok(write_archive(&named, &blobs, out)?),
        };
        Ok(export::send(to, write)?)
    }

    /// Takes the images of an archive into the local store: Docker's, old or new, or an OCI layout, plain or compressed. All
    /// digests are checked; nothing is named before all of it is here.
    ///
    /// # Errors
    /// It is no such archive, or its bytes are not what it says.
    pub fn load(&self, from: &Destination) -> Result<Vec<LoadedImage>, Error> {
        let lease = self.store.lease()?;
        let loader = Loader { store: &self.store, lease: &lease, limits: self.limits };
        let path = loader.plain(from)?;
        let loaded = match Layout::open(&path) {
            Ok(layout) => loader.layout(&layout)?,
            Err(LayoutError::NotALayout { .. }) => {
                loader.docker(&DockerArchive::open(&path).map_err(Cause::from)?)?
            }
            Err(error) => return Err(Cause::from(error).into()),
        };
        self.store.keep()?;
        let now = self.clock.now().epoch();
        for image in &loaded {
            if image.names.is_empty() {
                self.store.add_image(&lease, &image.descriptor, now)?;
            }
            for name in &image.names {
                self.store.tag(&lease, name, &image.descriptor, now, TaggedBy::Load)?;
            }
        }
        Ok(loaded)
    }
}

/// Whether a config is that of a container image; other artifacts have their own.
fn is_image_config(media_type: &MediaType) -> bool {
    *media_type == MediaType::config() || media_type.0 == DOCKER_CONFIG
}

/// Compares the number of a manifest's layers with what the config says.
fn check_layers(layers: usize, config: &ImageConfig) -> Result<(), Cause> {
    let diff_ids = config.rootfs.diff_ids.len();
    match layers == diff_ids {
        true => Ok(()),
        false => Err(Cause::Layers { layers, diff_ids }),
    }
}

/// Refuses what was made of a small archive and is too large.
fn not_more(bytes: u64, limit: u64) -> Result<(), Cause> {
    match bytes > limit {
        true => Err(ApplyError::TooLarge { what: "bytes", limit }.into()),
        false => Ok(()),
    }
}

struct Loader<'a> {
    store: &'a Store,
    lease: &'a Lease,
    limits: Limits,
}

impl Loader<'_> {
    /// The archive as a file or folder that is not compressed.
    fn plain(&self, from: &Destination) -> Result<PathBuf, Cause> {
        match from {
            Destination::Path(path) => {
                let mut file = File::open(path).map_err(Cause::io("open", path))?;
                if file.metadata().map_err(Cause::io("read", path))?.is_dir() {
                    return Ok(path.clone());
                }
                let mut start = Vec::new();
                (&mut file).take(8).read_to_end(&mut start).map_err(Cause::io("read", path))?;
                if Format::of(&start) == Format::Plain && file.seek(SeekFrom::Start(0)).is_ok() {
                    return Ok(path.clone());
                }
                let most = self.limits.of_blob(file.metadata().map_err(Cause::io("read", path))?.len()).bytes;
                self.copied(io::Cursor::new(start).chain(file), path, most)
            }
            Destination::Stdout => {
                self.copied(io::stdin(), Path::new("standard input"), self.limits.layer_bytes)
            }
        }
    }

    fn copied(&self, from: impl Read + Send, name: &Path, most: u64) -> Result<PathBuf, Cause> {
        let (_, plain) = decompress(from).map_err(Cause::io("read", name))?;
        let (path, mut file) = self.lease.new_file()?;
        let mut plain = self.store.watched(plain.take(most.saturating_add(1)));
        let copied = io::copy(&mut plain, &mut file).map_err(Cause::io("read", name))?;
        not_more(copied, most)?;
        Ok(path)
    }

    fn layout(&self, layout: &Layout) -> Result<Vec<LoadedImage>, Cause> {
        let mut loaded: Vec<LoadedImage> = Vec::new();
        let mut seen = BTreeSet::new();
        for entry in &layout.index().manifests {
            self.image(layout, entry, MAX_DEPTH, &mut seen)?;
            let name = NAMES.iter().find_map(|key| {
                let name = entry.annotations.get(*key)?;
                // A tag alone names nothing here.
                Reference::parse(name).ok().filter(|_| name.contains([':', '/', '.']))
            });
            let found = loaded.iter().position(|image| image.descriptor.digest == entry.digest);
            let at = found.unwrap_or_else(|| {
                let plain = Descriptor::new(entry.media_type.clone(), entry.digest, entry.size);
                loaded.push(LoadedImage { descriptor: plain, names: Vec::new() });
                loaded.len() - 1
            });
            loaded[at].names.extend(name);
        }
        Ok(loaded)
    }

    /// Takes a manifest or index and all that it names, each once: indexes that name one another many times would else be
    /// read a number of times that no clock outlives.
    fn image(
        &self,
        blobs: &dyn BlobSource,
        top: &Descriptor,
        nesting: u32,
        seen: &mut BTreeSet<Digest>,
    ) -> Result<(), Cause> {
        if !seen.insert(top.digest) {
            return Ok(());
        }
        let bytes = read_document(blobs, top).map_err(LayoutError::from)?;
        self.store.add_blob(self.lease, &bytes)?;
        if top.media_type.is_index() {
            let index = Index::parse(&bytes)?;
            check_type(top, index.media_type.as_ref()).map_err(LayoutError::from)?;
            for child in &index.manifests {
                if nesting == 0 {
                    return Err(LayoutError::from(BlobError::TooDeep { digest: top.digest }).into());
                }
                self.image(blobs, child, nesting - 1, seen)?;
            }
            return Ok(());
        }
        let manifest = Manifest::parse(&bytes)?;
        check_type(top, manifest.media_type.as_ref()).map_err(LayoutError::from)?;
        if is_image_config(&manifest.config.media_type) {
            let bytes = read_document(blobs, &manifest.config).map_err(LayoutError::from)?;
            check_layers(manifest.layers.len(), &ImageConfig::parse(&bytes)?)?;
        }
        for blob in manifest.layers.iter().chain([&manifest.config]) {
            if seen.insert(blob.digest) {
                self.blob(blobs, blob)?;
            }
        }
        Ok(())
    }

    fn blob(&self, blobs: &dyn BlobSource, blob: &Descriptor) -> Result<(), Cause> {
        if self.store.blob(self.lease, &blob.digest)?.is_some() {
            return Ok(());
        }
        let name = blob.digest.to_string();
        let from = blobs.open(&blob.digest).map_err(Cause::io("read", &name))?;
        let mut writer = self.store.blob_writer(self.lease)?;
        // One byte more than there are said to be, so that more of them are seen.
        let part = from.reader.take(blob.size.saturating_add(1));
        io::copy(&mut self.store.watched(part), &mut writer).map_err(Cause::io("copy", &name))?;
        if writer.size_bytes() != blob.size {
            let (digest, expected, found) = (blob.digest, blob.size, writer.size_bytes());
            return Err(LayoutError::from(BlobError::Size { digest, expected, found }).into());
        }
        writer.commit(Some(&blob.digest))?;
        Ok(())
    }

    fn docker(&self, archive: &DockerArchive) -> Result<Vec<LoadedImage>, Cause> {
        archive.images().iter().map(|image| self.docker_image(archive, image)).collect()
    }

    /// An image without a manifest: one is made. That its layers are those of the config, their diff ids tell.
    fn docker_image(&self, archive: &DockerArchive, image: &DockerImage) -> Result<LoadedImage, Cause> {
        let config = ImageConfig::parse(&image.config)?;
        let diff_ids = &config.rootfs.diff_ids;
        check_layers(image.layers.len(), &config)?;
        let mut layers = Vec::new();
        for (name, diff_id) in image.layers.iter().zip(diff_ids) {
            layers.push(self.docker_layer(archive, name, diff_id.digest())?);
        }
        self.store.add_blob(self.lease, &image.config)?;
        let manifest = Manifest::new(Descriptor::of(MediaType::config(), &image.config), layers).bytes();
        self.store.add_blob(self.lease, &manifest)?;
        let descriptor = Descriptor::of(MediaType::manifest(), &manifest);
        Ok(LoadedImage { descriptor, names: image.names.clone() })
    }

    fn docker_layer(
        &self,
        archive: &DockerArchive,
        name: &str,
        diff_id: Digest,
    ) -> Result<Descriptor, Cause> {
        let mut writer = self.store.blob_writer(self.lease)?;
        io::copy(&mut self.store.watched(archive.layer(name)?), &mut writer)
            .map_err(Cause::io("copy", name))?;
        let blob = writer.commit(None)?;
        let file = File::open(&blob.path).map_err(Cause::io("open", &blob.path))?;
        let (format, tar) = decompress(file).map_err(Cause::io("read", name))?;
        let mut hasher = Hasher::new();
        let most = self.limits.of_blob(blob.size_bytes).bytes;
        let size_bytes = io::copy(&mut tar.take(most.saturating_add(1)), &mut hasher);
        let size_bytes = size_bytes.map_err(Cause::io("read", name))?;
        not_more(size_bytes, most)?;
        let actual = hasher.finish();
        if actual != diff_id {
            return Err(store::Error::DigestMismatch { expected: diff_id, actual, size_bytes }.into());
        }
        let compression = match format {
            Format::Plain => Compression::Uncompressed,
            Format::Gzip => Compression::Gzip,
            Format::Zstd => Compression::Zstd,
            other => {
                return Err(Cause::Task(format!(
                    "`{name}` is compressed with {other:?}, which no layer may be"
                )));
            }
        };
        Ok(Descriptor::new(MediaType::layer(compression), blob.digest, blob.size_bytes))
    }
}
