//! Checks an image that is said to be whole: every blob's digest and length, the diff ids, the order and the counts.
//!
//! Runs after every test build, on what was written and not on what was meant.

use std::{
    fmt,
    io::{self, Read},
};

use oci::{Descriptor, DiffId, Digest, Hasher, ImageConfig, Index, Manifest, media_type::Compression};

use crate::{
    blobs::{BlobError, BlobSource, MAX_DEPTH, read_document},
    detect::{Format, decompress},
    tar::Reader,
};

/// What is wrong with an image.
#[derive(Debug)]
pub enum Finding {
    /// A blob is missing or damaged, or a document is none.
    Blob(BlobError),
    /// A layer's decompressed bytes are not what the config says.
    DiffId {
        /// The layer's blob.
        layer: Digest,
        /// `rootfs.diff_ids`.
        expected: DiffId,
        /// The digest of what came out.
        found: DiffId,
    },
    /// A layer is compressed otherwise than its media type says.
    Compression {
        /// The layer's blob.
        layer: Digest,
        /// What the media type says.
        stated: Compression,
        /// What the bytes say.
        found: Format,
    },
    /// A layer cannot be decompressed, or is no tar.
    Tar {
        /// The layer's blob.
        layer: Digest,
        /// What is wrong.
        source: io::Error,
    },
    /// Two numbers that must be equal are not.
    Count {
        /// The manifest.
        manifest: Digest,
        /// What is counted.
        what: &'static str,
        /// How many layers there are.
        layers: usize,
        /// How many of these.
        found: usize,
    },
    /// A document's media type is not what its descriptor says.
    MediaType {
        /// The document.
        digest: Digest,
        /// What its descriptor says.
        stated: String,
        /// What it says itself.
        found: String,
    },
    /// An index entry's platform is not that of the image.
    Platform {
        /// The manifest.
        manifest: Digest,
        /// What the entry says.
        stated: String,
        /// What the config says.
        found: String,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Blob(error) => error.fmt(f),
            Finding::DiffId { layer, expected, found } => {
                write!(f, "layer {layer} decompresses to {found}, and the config says {expected}")
            }
            Finding::Compression { layer, stated, found } => {
                write!(f, "layer {layer} is said to be {stated:?}, and is {found:?}")
            }
            Finding::Tar { layer, source } => write!(f, "layer {layer} is broken: {source}"),
            Finding::Count { manifest, what, layers, found } => {
                write!(f, "manifest {manifest} has {layers} layers and {found} {what}")
            }
            Finding::MediaType { digest, stated, found } => {
                write!(f, "document {digest} is said to be {stated}, and says {found}")
            }
            Finding::Platform { manifest, stated, found } => {
                write!(f, "manifest {manifest} is listed for {stated}, and its config says {found}")
            }
        }
    }
}

/// Checks an image, or all images of an index, and lists what is wrong; nothing for a sound one.
///
/// Reads every byte of it. A manifest of artifacts, such as attestations, is checked by its blobs alone.
pub fn validate(blobs: &dyn BlobSource, image: &Descriptor) -> Vec<Finding> {
    let mut findings = Vec::new();
    check(blobs, image, 0, &mut findings);
    findings
}

fn check(blobs: &dyn BlobSource, image: &Descriptor, depth: u32, findings: &mut Vec<Finding>) {
    let digest = image.digest;
    if depth > MAX_DEPTH {
        return findings.push(Finding::Blob(BlobError::TooDeep { digest }));
    }
    let bytes = match read_document(blobs, image) {
        Ok(bytes) => bytes,
        Err(error) => return findings.push(Finding::Blob(error)),
    };
    if image.media_type.is_index() {
        match Index::parse(&bytes) {
            Ok(index) => {
                check_type(image, index.media_type.as_ref(), findings);
                for manifest in &index.manifests {
                    check(blobs, manifest, depth + 1, findings);
                }
            }
            Err(source) => findings.push(Finding::Blob(BlobError::Document { digest, source })),
        }
    } else {
        match Manifest::parse(&bytes) {
            Ok(manifest) => {
                check_type(image, manifest.media_type.as_ref(), findings);
                check_manifest(blobs, image, &manifest, findings);
            }
            Err(source) => findings.push(Finding::Blob(BlobError::Document { digest, source })),
        }
    }
}

fn check_type(descriptor: &Descriptor, own: Option<&oci::MediaType>, findings: &mut Vec<Finding>) {
    if let Some(own) = own
        && *own != descriptor.media_type
    {
        findings.push(Finding::MediaType {
            digest: descriptor.digest,
            stated: descriptor.media_type.to_string(),
            found: own.to_string(),
        });
    }
}

fn check_manifest(
    blobs: &dyn BlobSource,
    image: &Descriptor,
    manifest: &Manifest,
    findings: &mut Vec<Finding>,
) {
    let artifact = manifest.layers.iter().any(|layer| layer.media_type.layer_compression().is_none());
    let config = read_document(blobs, &manifest.config).and_then(|bytes| {
        let digest = manifest.config.digest;
        ImageConfig::parse(&bytes).map_err(|source| BlobError::Document { digest, source })
    });
    let diff_ids = match config {
        Ok(config) if !artifact => {
            check_config(image, manifest, &config, findings);
            config.rootfs.diff_ids
        }
        Ok(_) => Vec::new(),
        Err(error) => {
            findings.push(Finding::Blob(error));
            Vec::new()
        }
    };
    for (at, layer) in manifest.layers.iter().enumerate() {
        check_layer(blobs, layer, diff_ids.get(at).copied(), findings);
    }
}

fn check_config(image: &Descriptor, manifest: &Manifest, config: &ImageConfig, findings: &mut Vec<Finding>) {
    let layers = manifest.layers.len();
    let made_layers = config.history.iter().filter(|entry| !entry.empty_layer).count();
    let mut count = |what, found| {
        if found != layers {
            findings.push(Finding::Count { manifest: image.digest, what, layers, found });
        }
    };
    count("diff ids", config.rootfs.diff_ids.len());
    if !config.history.is_empty() {
        count("history entries that made a layer", made_layers);
    }
    if let Some(stated) = &image.platform
        && config.platform().distance(stated) != Some(0)
    {
        let (stated, found) = (stated.to_string(), config.platform().to_string());
        findings.push(Finding::Platform { manifest: image.digest, stated, found });
    }
}

fn check_layer(
    blobs: &dyn BlobSource,
    layer: &Descriptor,
    diff_id: Option<DiffId>,
    findings: &mut Vec<Finding>,
) {
    let digest = layer.digest;
    let failed = |source| Finding::Blob(BlobError::Read { digest, source });
    let mut hashing = match blobs.open(&digest) {
        Ok(blob) => Hashing { reader: blob.reader, hasher: Hasher::new(), size: 0 },
        Err(error) => return findings.push(failed(error)),
    };
    if let Some(stated) = layer.media_type.layer_compression() {
        match read_tar(&mut hashing) {
            Ok((format, found)) => {
                let fits = match stated {
                    Compression::Uncompressed => format == Format::Plain,
                    Compression::Gzip => format == Format::Gzip,
                    Compression::Zstd => format == Format::Zstd,
                };
                if !fits {
                    findings.push(Finding::Compression { layer: digest, stated, found: format });
                }
                if let Some(expected) = diff_id.filter(|expected| *expected != found) {
                    findings.push(Finding::DiffId { layer: digest, expected, found });
                }
            }
            Err(source) => findings.push(Finding::Tar { layer: digest, source }),
        }
    }
    // What no decompressor asked for counts as well.
    if let Err(error) = io::copy(&mut hashing, &mut io::sink()) {
        return findings.push(failed(error));
    }
    let (size, found) = (hashing.size, hashing.hasher.finish());
    if size != layer.size {
        findings.push(Finding::Blob(BlobError::Size { digest, expected: layer.size, found: size }));
    }
    if found != digest {
        findings.push(Finding::Blob(BlobError::Digest { expected: digest, found }));
    }
}

/// Reads a layer to its end: how it was compressed, and the digest of its tar, all entries of which were read.
fn read_tar(blob: &mut (impl Read + Send)) -> io::Result<(Format, DiffId)> {
    let (format, plain) = decompress(blob)?;
    let mut reader = Reader::new(Hashing { reader: plain, hasher: Hasher::new(), size: 0 });
    while reader.next_entry()?.is_some() {}
    let mut rest = reader.into_inner();
    io::copy(&mut rest, &mut io::sink())?;
    Ok((format, DiffId::of_tar(rest.hasher.finish())))
}

struct Hashing<R> {
    reader: R,
    hasher: Hasher,
    size: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.size += read as u64;
        Ok(read)
    }
}
