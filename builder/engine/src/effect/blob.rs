//! A layer's blob for an image: one that is there, or another form of it, or a new one.

use std::{fs::File, io, sync::Arc};

use image::{
    compress::{Blocks, Codec as Compression, ENCODER_VERSION, Earlier, Encoder},
    contents::Folder,
    copy::ContentSource,
    detect::decompress,
    encode::{EncodeError, EncodedLayer, encode_layer, encode_tar},
    folder::{FolderError, PlannedLayer},
    layer_tar::{LayerTarError, TarOptions},
    seekable::{is_estargz, is_zstd_chunked},
    tar::AppendError,
};
use oci::{Epoch, media_type};
use rustix::io::Errno;
use store::{BlobFile, Codec, LayerBlob, ResultLayer};
use tree::{Kind, Layer, LayerId, LayerPath};

use super::{Effects, pull::PULLED};
use crate::{
    cancel::{Cancel, Stoppable},
    error::Cause,
    request::ImageForm,
};

/// In so many earlier archives of the same instruction a layer's blocks are looked up.
const EARLIER: usize = 4;
/// A layer with less in its files, in bytes, is compressed sooner than looked up.
const SMALL_BYTES: u64 = 512 << 10;

/// How the layers of an image are wanted.
pub(crate) struct LayerForms<'a> {
    pub(crate) effects: &'a Effects,
    pub(crate) form: &'a ImageForm,
    /// The time that files get where they are later.
    pub(crate) latest: Option<Epoch>,
    pub(crate) cancel: &'a Cancel,
}

impl LayerForms<'_> {
    /// The blob of layer `at`: the one that it was pulled as, or one that is there, or a new one.
    pub(crate) fn blob(&self, layers: &[ResultLayer], at: usize) -> Result<LayerBlob, Cause> {
        let (store, lease) = (&self.effects.store, &self.effects.lease);
        let (form, latest) = (self.form, self.latest);
        let id = &layers[at].layer;
        let known = store.layer_blobs(lease, id)?;
        // One tree may have come in several blobs: that of this build's base is the one to hand on.
        let pulled = || known.iter().filter(|(codec, _)| codec.0.starts_with(PULLED)).map(|(_, blob)| blob);
        let own = pulled().find(|blob| self.effects.images.layer(blob.blob.digest()).is_some());
        if let Some(blob) = own.or_else(|| pulled().next()) {
            return match !form.force_compression || self.is_of(blob, form.codec)? {
                true => Ok(blob.clone()),
                false => self.converted(id, blob, &known, form.codec),
            };
        }
        let epoch = latest.map_or(String::new(), |epoch| format!(" epoch {}", epoch.0));
        let codec = Codec(format!("{} v{ENCODER_VERSION}{epoch}", form.codec));
        if let Some((_, blob)) = known.iter().find(|(known, _)| *known == codec) {
            return Ok(blob.clone());
        }
        if let Some(planned) = self.effects.planned.get(id) {
            let options = TarOptions { epoch: latest, verify: planned.is_watched() };
            let (layer, contents) = (&planned.plan().layer, &*planned);
            let encoder = self.encoder(id, layer)?;
            return self.encoded(id, codec, form.codec, |out| {
                let encoded = encode_layer(layer, contents, options, encoder, out);
                encoded.map_err(|error| changed(error, &planned))
            });
        }
        let tree = store.tree(id)?;
        let folder = self.effects.folder(layers, at)?;
        let contents = Folder::open(&folder).map_err(Cause::io("open", &folder))?;
        let options = TarOptions { epoch: latest, verify: false };
        let encoder = self.encoder(id, &tree)?;
        self.encoded(id, codec, form.codec, |out| Ok(encode_layer(&tree, &contents, options, encoder, out)?))
    }

    /// What compresses a layer: where the same instruction has made one before, whose archive is here, equal blocks of it
    /// are taken from there.
    fn encoder(&self, id: &LayerId, layer: &Layer) -> Result<Encoder, Cause> {
        let compression = self.form.codec;
        let size = |kind: &Kind| if let Kind::File { size, .. } = kind { *size } else { 0 };
        if layer.entries.values().map(|node| size(&node.kind)).fold(0, u64::saturating_add) < SMALL_BYTES {
            return Ok(compression.into());
        }
        let (store, lease) = (&self.effects.store, &self.effects.lease);
        let codec = Codec(format!("{compression} v{ENCODER_VERSION}"));
        let mut earlier = Earlier::new();
        for found in store.earlier_blobs(lease, id, &codec, EARLIER)? {
            // Whatever is wrong with it only costs time.
            if let (Some(blocks), Ok(blob)) =
                (Blocks::decode(&found.blocks, compression), File::open(&found.blob.path))
            {
                earlier.add(blob, blocks);
            }
        }
        Ok(Encoder { codec: compression, earlier: Arc::new(earlier) })
    }

    /// Whether a blob has a codec, whatever its level.
    fn is_of(&self, blob: &LayerBlob, codec: Compression) -> Result<bool, Cause> {
        if blob.media_type.layer_compression() != Some(codec.compression()) {
            return Ok(false);
        }
        Ok(match (codec.compression(), codec) {
            (media_type::Compression::Gzip, codec) => {
                let file = self.stored(blob)?;
                let mut open = File::open(&file.path).map_err(Cause::io("open", &file.path))?;
                let indexed = is_estargz(&mut open).map_err(Cause::io("read", &file.path))?;
                indexed == matches!(codec, Compression::EStargz { .. })
            }
            (_, Compression::ZstdChunked { .. }) => is_zstd_chunked(&blob.annotations),
            _ => true,
        })
    }

    fn stored(&self, blob: &LayerBlob) -> Result<BlobFile, Cause> {
        let digest = blob.blob.digest();
        let found = self.effects.store.blob(&self.effects.lease, &digest)?;
        found.ok_or_else(|| Cause::LayerLost { layer: digest.to_string() })
    }

    /// A blob that was pulled, with another codec: its own tar, so that the diff id stays, and with it what it is called
    /// by whoever has it.
    fn converted(
        &self,
        id: &LayerId,
        blob: &LayerBlob,
        known: &[(Codec, LayerBlob)],
        compression: Compression,
    ) -> Result<LayerBlob, Cause> {
        let codec = Codec(format!("{compression} v{ENCODER_VERSION} of {}", blob.blob.digest()));
        if let Some((_, blob)) = known.iter().find(|(known, _)| *known == codec) {
            return Ok(blob.clone());
        }
        let file = self.stored(blob)?;
        let open = File::open(&file.path).map_err(Cause::io("open", &file.path))?;
        let (_, mut tar) = decompress(open).map_err(Cause::io("read", &file.path))?;
        self.encoded(id, codec, compression, |out| Ok(encode_tar(&mut tar, compression, out)?))
    }

    /// Makes a blob of a layer and remembers it.
    fn encoded(
        &self,
        id: &LayerId,
        codec: Codec,
        compression: Compression,
        encode: impl FnOnce(&mut dyn io::Write) -> Result<EncodedLayer, Cause>,
    ) -> Result<LayerBlob, Cause> {
        let (store, lease) = (&self.effects.store, &self.effects.lease);
        let mut writer = store.new_blob(lease)?;
        let encoded = encode(&mut Stoppable { stream: &mut writer, cancel: self.cancel })?;
        if let Some(why) = encoded.unindexed {
            let name = compression.name();
            let text = format!("a layer has no {name} index, and will be pulled as a whole: {why}");
            self.effects.warn_once("layer-without-index", &text);
        }
        let blob = LayerBlob {
            diff_id: encoded.diff_id,
            blob: encoded.blob,
            size_bytes: encoded.size_bytes,
            diff_size_bytes: encoded.diff_size_bytes,
            media_type: encoded.media_type,
            annotations: encoded.annotations,
        };
        writer.commit_as(id, &codec, &blob)?;
        if encoded.blocks.len() > 1 {
            store.add_blocks(lease, &blob.blob.digest(), &encoded.blocks.encode(compression))?;
        }
        Ok(blob)
    }
}

/// What an error says of a planned layer: that a file is not there, or not as long or not with the bytes that the manifest
/// says, means that someone has changed it.
fn changed(error: EncodeError, planned: &PlannedLayer) -> Cause {
    let clamp = |path: &str| LayerPath::clamp(path.as_bytes()).unwrap_or_default();
    let path = match &error {
        EncodeError::Tar(LayerTarError::Changed { path, .. } | LayerTarError::Written { path }) => {
            path.clone()
        }
        EncodeError::Tar(LayerTarError::Open { path, source }) if is_gone(source) => path.clone(),
        EncodeError::Tar(LayerTarError::Append(AppendError::Size { path, .. })) => clamp(path),
        // A folder is opened like a file, and cannot be read.
        EncodeError::Tar(LayerTarError::Append(AppendError::Read { path, source })) if is_gone(source) => {
            clamp(path)
        }
        _ => return error.into(),
    };
    match planned.plan().contents.get(&path) {
        Some(ContentSource::File { path, .. }) => FolderError::Changed { path }.into(),
        _ => error.into(),
    }
}

/// Whether there is no such file any more, or something that is no file stands in its place.
fn is_gone(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ISDIR | Errno::NXIO)
    )
}
