//! Blobs by their digest, wherever they are.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Cursor, Read},
};

use oci::{BadDocument, Descriptor, Digest, Index, Manifest, MediaType};

/// The longest document that is read into memory: what registries take for a manifest, and some more.
pub const MAX_DOCUMENT: u64 = 8 << 20;

/// How deep indexes may be nested.
pub const MAX_DEPTH: u32 = 8;

/// A place where blobs can be had.
///
/// What it gives need not be verified: who uses the bytes checks their digest, or says why not.
pub trait BlobSource: Sync {
    /// A blob's bytes and their number.
    ///
    /// # Errors
    /// `NotFound` when there is no such blob; others as they come.
    fn open(&self, digest: &Digest) -> io::Result<Blob>;
}

/// An open blob.
pub struct Blob {
    /// Its bytes, from the first.
    pub reader: BlobReader,
    /// How many there are.
    pub size_bytes: u64,
}

/// The bytes of a blob.
pub enum BlobReader {
    /// A file that holds nothing else, at its start: the kernel can copy it.
    File(File),
    /// Anything.
    Stream(Box<dyn Read + Send>),
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            BlobReader::File(file) => file.read(buffer),
            BlobReader::Stream(stream) => stream.read(buffer),
        }
    }
}

impl Blob {
    /// A blob in a file of its own.
    ///
    /// # Errors
    /// When its length cannot be had.
    pub fn file(file: File) -> io::Result<Blob> {
        Ok(Blob { size_bytes: file.metadata()?.len(), reader: BlobReader::File(file) })
    }

    /// A blob in memory.
    pub fn bytes(bytes: Vec<u8>) -> Blob {
        let size_bytes = bytes.len() as u64;
        Blob { reader: BlobReader::Stream(Box::new(Cursor::new(bytes))), size_bytes }
    }
}

fn not_found(digest: &Digest) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("there is no blob {digest}"))
}

/// Documents that were just made.
impl BlobSource for BTreeMap<Digest, Vec<u8>> {
    fn open(&self, digest: &Digest) -> io::Result<Blob> {
        self.get(digest).cloned().map(Blob::bytes).ok_or_else(|| not_found(digest))
    }
}

/// Several places, asked in order.
pub struct Chained<'a>(pub Vec<&'a dyn BlobSource>);

impl BlobSource for Chained<'_> {
    fn open(&self, digest: &Digest) -> io::Result<Blob> {
        for source in &self.0 {
            match source.open(digest) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => return other,
            }
        }
        Err(not_found(digest))
    }
}

/// A blob that is not there, or not what its descriptor says.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// It cannot be read.
    #[error("reading blob {digest}: {source}")]
    Read {
        /// The blob.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
    /// It is longer or shorter than its descriptor says.
    #[error("blob {digest} is {found} bytes long, and its descriptor says {expected}")]
    Size {
        /// The blob.
        digest: Digest,
        /// What the descriptor says.
        expected: u64,
        /// What there is.
        found: u64,
    },
    /// Its bytes have another digest.
    #[error("blob {expected} has the digest {found}")]
    Digest {
        /// What it is named.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// A document that is too long to be one.
    #[error("document {digest} is {size} bytes long; {MAX_DOCUMENT} is the limit")]
    TooLong {
        /// The blob.
        digest: Digest,
        /// Its length.
        size: u64,
    },
    /// A document that is none.
    #[error("blob {digest} is {source}")]
    Document {
        /// The blob.
        digest: Digest,
        /// What is wrong.
        source: BadDocument,
    },
    /// A document that says of itself something else than its descriptor (CVE-2021-41190).
    #[error("document {digest} is announced as `{stated}` and says it is `{found}`")]
    MediaType {
        /// The document.
        digest: Digest,
        /// What its descriptor says.
        stated: String,
        /// What it says itself.
        found: String,
    },
    /// Indexes in indexes without end.
    #[error("index {digest} is nested more than {MAX_DEPTH} deep")]
    TooDeep {
        /// The innermost that was seen.
        digest: Digest,
    },
}

/// Compares what a document says that it is with what its descriptor says; saying nothing is fine.
///
/// # Errors
/// [`BlobError::MediaType`].
pub fn check_type(descriptor: &Descriptor, own: Option<&MediaType>) -> Result<(), BlobError> {
    match own.filter(|own| **own != descriptor.media_type) {
        None => Ok(()),
        Some(own) => Err(BlobError::MediaType {
            digest: descriptor.digest,
            stated: descriptor.media_type.to_string(),
            found: own.to_string(),
        }),
    }
}

/// Reads a document and checks it against its descriptor.
///
/// # Errors
/// [`BlobError`].
pub fn read_document(blobs: &dyn BlobSource, descriptor: &Descriptor) -> Result<Vec<u8>, BlobError> {
    let (digest, expected) = (descriptor.digest, descriptor.size);
    if expected > MAX_DOCUMENT {
        return Err(BlobError::TooLong { digest, size: expected });
    }
    let failed = |source| BlobError::Read { digest, source };
    let mut bytes = Vec::new();
    let blob = blobs.open(&digest).map_err(failed)?;
    blob.reader.take(expected + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 != expected {
        let found = blob.size_bytes.max(bytes.len() as u64);
        return Err(BlobError::Size { digest, expected, found });
    }
    let found = Digest::of(&bytes);
    if found == digest { Ok(bytes) } else { Err(BlobError::Digest { expected: digest, found }) }
}

/// All blobs that images consist of: the images themselves, what their indexes and manifests name, in the order of their
/// digests, each once. Documents are verified, other blobs are not opened.
///
/// # Errors
/// [`BlobError`] of a document.
pub fn closure(blobs: &dyn BlobSource, images: &[Descriptor]) -> Result<Vec<Descriptor>, BlobError> {
    let mut found = BTreeMap::new();
    for image in images {
        collect(blobs, image, 0, &mut found)?;
    }
    Ok(found.into_values().collect())
}

fn collect(
    blobs: &dyn BlobSource,
    descriptor: &Descriptor,
    depth: u32,
    found: &mut BTreeMap<Digest, Descriptor>,
) -> Result<(), BlobError> {
    let digest = descriptor.digest;
    if depth > MAX_DEPTH {
        return Err(BlobError::TooDeep { digest });
    }
    if found.insert(digest, descriptor.clone()).is_some() {
        return Ok(());
    }
    let bad = |source| BlobError::Document { digest, source };
    if descriptor.media_type.is_index() {
        let index = Index::parse(&read_document(blobs, descriptor)?).map_err(bad)?;
        for manifest in &index.manifests {
            collect(blobs, manifest, depth + 1, found)?;
        }
    } else if descriptor.media_type.is_manifest() {
        let manifest = Manifest::parse(&read_document(blobs, descriptor)?).map_err(bad)?;
        for leaf in manifest.layers.into_iter().chain([manifest.config]) {
            found.entry(leaf.digest).or_insert(leaf);
        }
    }
    Ok(())
}
