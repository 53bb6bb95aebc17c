//! Layer → blob in one pass: the tar is written, hashed, compressed and hashed again while it flows.

use std::io::{self, Read, Write};

use oci::{BlobDigest, Descriptor, DiffId, MediaType};
use tree::Layer;

use crate::{
    compress::{BadLevel, Codec, CompressWriter},
    contents::Contents,
    layer_tar::{LayerTarError, TarOptions, write_layer},
    pipe::{HashingWriter, Tee, chunks, hash},
};

/// A layer's blob, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedLayer {
    /// Digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// Digest of the blob.
    pub blob: BlobDigest,
    /// Length of the blob in bytes.
    pub size_bytes: u64,
    /// Length of the uncompressed tar in bytes.
    pub diff_size_bytes: u64,
    /// OCI's media type for the codec.
    pub media_type: MediaType,
}

impl EncodedLayer {
    /// The blob's descriptor.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(self.media_type.clone(), self.blob.digest(), self.size_bytes)
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
        let (blob, diff_size_bytes) = if codec == Codec::Uncompressed {
            // The blob is the tar: one hash serves both.
            let mut tee = Tee::new(sender, out);
            write_tar(&mut tee)?;
            let (out, size) = tee.finish().map_err(EncodeError::Write)?;
            out.flush().map_err(EncodeError::Write)?;
            (None, size)
        } else {
            let mut tee = Tee::new(sender, CompressWriter::new(HashingWriter::new(out), codec)?);
            write_tar(&mut tee)?;
            let (compressing, size) = tee.finish().map_err(EncodeError::Write)?;
            let hashed = compressing.finish().map_err(EncodeError::Write)?;
            (Some(hashed.finish()), size)
        };
        let diff =
            diff.join().map_err(|_| EncodeError::Write(io::Error::other("the hashing thread panicked")))?;
        let (blob, size_bytes) = blob.unwrap_or((diff, diff_size_bytes));
        Ok(EncodedLayer {
            diff_id: DiffId::of_tar(diff),
            blob: BlobDigest::of_blob(blob),
            size_bytes,
            diff_size_bytes,
            media_type,
        })
    })
}
