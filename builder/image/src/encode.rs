//! Layer → blob in one pass: the tar is written, hashed, compressed and hashed again while it flows.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    sync::Arc,
};

use oci::{BlobDigest, Descriptor, DiffId, Digest, MediaType};
use tree::Layer;

use crate::{
    compress::{BadLevel, Blocks, Codec, CompressWriter, Encoder},
    contents::Contents,
    layer_tar::{LayerTarError, Out, TarOptions, write_chunks},
    pipe::{CHUNK, Hashing, HashingWriter},
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
    /// Where its blocks are, for an encoder that meets them again.
    pub blocks: Blocks,
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
/// The same layer, options and codec give the same bytes on any host, with any number of threads, and whatever was
/// encoded before.
///
/// # Errors
/// [`EncodeError`]; `out` then holds a partial blob.
pub fn encode_layer(
    layer: &Layer,
    contents: &dyn Contents,
    options: TarOptions,
    encoder: impl Into<Encoder>,
    out: &mut dyn Write,
) -> Result<EncodedLayer, EncodeError> {
    encode(encoder.into(), out, &mut |tar| Ok(write_chunks(layer, contents, options, tar)?))
}

/// Compresses an uncompressed layer tar as it is, for instance one that was pulled under another codec.
///
/// # Errors
/// [`EncodeError`]; `out` then holds a partial blob.
pub fn encode_tar(
    tar: &mut dyn Read,
    encoder: impl Into<Encoder>,
    out: &mut dyn Write,
) -> Result<EncodedLayer, EncodeError> {
    encode(encoder.into(), out, &mut |plain| {
        loop {
            let mut chunk = Vec::with_capacity(CHUNK);
            match tar.take(CHUNK as u64).read_to_end(&mut chunk).map_err(EncodeError::Read)? {
                0 => return Ok(()),
                _ => plain(Arc::new(chunk)).map_err(EncodeError::Write)?,
            }
        }
    })
}

/// Writes the chunks of a tar.
type WriteTar<'a> = &'a mut dyn FnMut(&mut Out<'_>) -> Result<(), EncodeError>;

fn encode(
    encoder: Encoder,
    out: &mut dyn Write,
    write_tar: WriteTar<'_>,
) -> Result<EncodedLayer, EncodeError> {
    let media_type = MediaType::layer(encoder.codec.compression());
    std::thread::scope(|scope| {
        let mut diff = Hashing::new(scope);
        let written = match encoder.codec {
            Codec::Uncompressed => write_plain(&mut diff, out, write_tar),
            Codec::Gzip { .. } | Codec::Zstd { .. } => write_blocks(&mut diff, encoder, out, write_tar),
            Codec::EStargz { .. } | Codec::ZstdChunked { .. } => {
                write_indexed(&mut diff, encoder.codec, out, write_tar)
            }
        }?;
        let (diff, diff_size_bytes) = diff.finish().map_err(EncodeError::Write)?;
        let (blob, size_bytes) = written.blob.unwrap_or((diff, diff_size_bytes));
        Ok(EncodedLayer {
            diff_id: DiffId::of_tar(diff),
            blob: BlobDigest::of_blob(blob),
            size_bytes,
            diff_size_bytes,
            media_type,
            annotations: written.annotations,
            unindexed: written.unindexed,
            blocks: written.blocks,
        })
    })
}

/// A blob that was written, but for its diff id.
#[derive(Default)]
struct Written {
    /// Digest and length; none where the blob is the tar, and one hash serves both.
    blob: Option<(Digest, u64)>,
    annotations: BTreeMap<String, String>,
    unindexed: Option<Unindexed>,
    blocks: Blocks,
}

/// Hands every chunk to the thread that hashes, and to `next`.
fn both(
    diff: &mut Hashing<'_, '_>,
    next: &mut dyn Write,
    write_tar: WriteTar<'_>,
) -> Result<(), EncodeError> {
    write_tar(&mut |chunk| {
        diff.add(Arc::clone(&chunk))?;
        next.write_all(&chunk)
    })
}

fn write_plain(
    diff: &mut Hashing<'_, '_>,
    out: &mut dyn Write,
    write_tar: WriteTar<'_>,
) -> Result<Written, EncodeError> {
    both(diff, out, write_tar)?;
    out.flush().map_err(EncodeError::Write)?;
    Ok(Written::default())
}

fn write_blocks(
    diff: &mut Hashing<'_, '_>,
    encoder: Encoder,
    out: &mut dyn Write,
    write_tar: WriteTar<'_>,
) -> Result<Written, EncodeError> {
    let mut compressing = CompressWriter::new(HashingWriter::new(out), encoder)?;
    both(diff, &mut compressing, write_tar)?;
    let (hashed, blocks) = compressing.finish().map_err(EncodeError::Write)?;
    Ok(Written { blob: Some(hashed.finish()), blocks, ..Written::default() })
}

fn write_indexed(
    diff: &mut Hashing<'_, '_>,
    codec: Codec,
    out: &mut dyn Write,
    write_tar: WriteTar<'_>,
) -> Result<Written, EncodeError> {
    let mut compressing = SeekableWriter::new(HashingWriter::new(out), codec)?;
    both(diff, &mut compressing, write_tar)?;
    let finished = compressing.finish().map_err(EncodeError::Write)?;
    diff.add(Arc::new(finished.behind)).map_err(EncodeError::Write)?;
    Ok(Written {
        blob: Some(finished.out.finish()),
        annotations: finished.annotations,
        unindexed: finished.unindexed,
        blocks: Blocks::default(),
    })
}
