//! Layer → blob in one pass: the tar is written, hashed, compressed and hashed again while it flows.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    sync::Arc,
};

use oci::{BlobDigest, Descriptor, DiffId, Digest, MediaType};
use tree::Layer;

use crate::{
    compress::{BadLevel, Codec, CompressWriter},
    contents::Contents,
    layer_tar::{LayerTarError, TarOptions, write_layer},
    pipe::{HashingWriter, Tee, chunks, hash},
    seekable::{SeekableWriter, Unindexed},
};

/// A layer's blob, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedLayer {
    /// Digest of the uncompressed stream: of the tar, and for estargz of its index behind that.
    pub diff_id: DiffId,
    /// Digest of the blob.
    pub blob: BlobDigest,
    /// Length of the blob in bytes.
    pub size_bytes: u64,
    /// Length of the uncompressed stream in bytes.
    pub diff_size_bytes: u64,
    /// OCI's media type for the codec.
    pub media_type: MediaType,
    /// What its descriptor says of its index, if it has one.
    pub annotations: BTreeMap<String, String>,
    /// Why it has none although its codec has.
    pub unindexed: Option<Unindexed>,
}

impl EncodedLayer {
    /// The blob's descriptor.
    pub fn descriptor(&self) -> Descriptor {
        let mut descriptor = Descriptor::new(self.media_type.clone(), self.blob.digest(), self.size_bytes);
        descriptor.annotations = self.annotations.clone();
        descriptor
    }
}

/// A layer that could not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// Its tar cannot be made, or cannot be written.
    #[error(transparent)]
    Tar(#[from] LayerTarError),
    /// There is no such level.
    #[error(transparent)]
    Level(#[from] BadLevel),
    /// A tar that is encoded anew cannot be read.
    #[error("reading a layer's tar: {0}")]
    Read(#[source] io::Error),
    /// The blob cannot be written.
    #[error("writing a layer's blob: {0}")]
    Write(#[source] io::Error),
}

/// Writes a layer's blob to `out` and says what it is.
///
/// The same layer, options and codec give the same bytes on any host, with any number of threads.
///
/// # Errors
/// [`EncodeError`]; `out` then holds a partial blob.
pub fn encode_layer(
    layer: &Layer,
    contents: &dyn Contents,
    options: TarOptions,
    codec: Codec,
    out: &mut dyn Write,
) -> Result<EncodedLayer, EncodeError> {
    encode(codec, out, |tar| Ok(write_layer(layer, contents, options, tar)?))
}

/// Compresses an uncompressed layer tar as it is, for instance one that was pulled under another codec.
///
/// # Errors
/// [`EncodeError`]; `out` then holds a partial blob.
pub fn encode_tar(
    tar: &mut dyn Read,
    codec: Codec,
    out: &mut dyn Write,
) -> Result<EncodedLayer, EncodeError> {
    encode(codec, out, |plain| {
        let mut buffer = vec![0; 128 * 1024];
        loop {
            match tar.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => plain.write_all(&buffer[..read]).map_err(EncodeError::Write)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(EncodeError::Read(error)),
            }
        }
    })
}

fn encode(
    codec: Codec,
    out: &mut dyn Write,
    write_tar: impl FnOnce(&mut dyn Write) -> Result<(), EncodeError>,
) -> Result<EncodedLayer, EncodeError> {
    let media_type = MediaType::layer(codec.compression());
    let (sender, receiver) = chunks();
    std::thread::scope(|scope| {
        let diff = scope.spawn(move || hash(&receiver));
        let written = match codec {
            Codec::Uncompressed => write_plain(Tee::new(sender, out), write_tar),
            Codec::Gzip { .. } | Codec::Zstd { .. } => write_blocks(
                Tee::new(sender, CompressWriter::new(HashingWriter::new(out), codec)?),
                write_tar,
            ),
            Codec::EStargz { .. } | Codec::ZstdChunked { .. } => write_indexed(
                Tee::new(sender, SeekableWriter::new(HashingWriter::new(out), codec)?),
                write_tar,
            ),
        }?;
        let diff =
            diff.join().map_err(|_| EncodeError::Write(io::Error::other("the hashing thread panicked")))?;
        let (blob, size_bytes) = written.blob.unwrap_or((diff, written.diff_size_bytes));
        Ok(EncodedLayer {
            diff_id: DiffId::of_tar(diff),
            blob: BlobDigest::of_blob(blob),
            size_bytes,
            diff_size_bytes: written.diff_size_bytes,
            media_type,
            annotations: written.annotations,
            unindexed: written.unindexed,
        })
    })
}

/// A blob that was written, but for its diff id.
struct Written {
    /// Digest and length; none where the blob is the tar, and one hash serves both.
    blob: Option<(Digest, u64)>,
    diff_size_bytes: u64,
    annotations: BTreeMap<String, String>,
    unindexed: Option<Unindexed>,
}

impl Written {
    fn plain(blob: Option<(Digest, u64)>, diff_size_bytes: u64) -> Written {
        Written { blob, diff_size_bytes, annotations: BTreeMap::new(), unindexed: None }
    }
}

fn write_plain(
    mut tee: Tee<&mut dyn Write>,
    write_tar: impl FnOnce(&mut dyn Write) -> Result<(), EncodeError>,
) -> Result<Written, EncodeError> {
    write_tar(&mut tee)?;
    let (out, size, _) = tee.finish().map_err(EncodeError::Write)?;
    out.flush().map_err(EncodeError::Write)?;
    Ok(Written::plain(None, size))
}

fn write_blocks(
    mut tee: Tee<CompressWriter<HashingWriter<&mut dyn Write>>>,
    write_tar: impl FnOnce(&mut dyn Write) -> Result<(), EncodeError>,
) -> Result<Written, EncodeError> {
    write_tar(&mut tee)?;
    let (compressing, size, _) = tee.finish().map_err(EncodeError::Write)?;
    let hashed = compressing.finish().map_err(EncodeError::Write)?;
    Ok(Written::plain(Some(hashed.finish()), size))
}

fn write_indexed(
    mut tee: Tee<SeekableWriter<HashingWriter<&mut dyn Write>>>,
    write_tar: impl FnOnce(&mut dyn Write) -> Result<(), EncodeError>,
) -> Result<Written, EncodeError> {
    write_tar(&mut tee)?;
    let (compressing, size, diff) = tee.finish().map_err(EncodeError::Write)?;
    let finished = compressing.finish().map_err(EncodeError::Write)?;
    let behind = finished.behind.len() as u64;
    diff.send(Arc::new(finished.behind))
        .map_err(|_| EncodeError::Write(io::Error::other("the hashing thread has ended")))?;
    Ok(Written {
        blob: Some(finished.out.finish()),
        diff_size_bytes: size + behind,
        annotations: finished.annotations,
        unindexed: finished.unindexed,
    })
}
