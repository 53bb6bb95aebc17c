//! A layer's blob for an image: one that is there, or another form of it, or a new one.

use std::fs::File;

use image::{
    compress::{Codec as Compression, ENCODER_VERSION},
    contents::Folder,
    detect::decompress,
    encode::{EncodedLayer, encode_layer, encode_tar},
    layer_tar::TarOptions,
    seekable::{is_estargz, is_zstd_chunked},
};
use oci::{Epoch, media_type};
use store::{BlobFile, Codec, LayerBlob, ResultLayer};
use tree::LayerId;

use super::Exporter;
use crate::{effect::pull::PULLED, error::Cause, request::ImageForm};

impl Exporter<'_> {
    /// The blob of layer `at`: the one that it was pulled as, or one that is there, or a new one.
    pub(super) fn layer_blob(
        &self,
        layers: &[ResultLayer],
        at: usize,
        form: &ImageForm,
        latest: Option<Epoch>,
    ) -> Result<LayerBlob, Cause> {
        let (store, lease) = (&self.effects.store, &self.effects.lease);
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
        let folder = self.effects.folder(layers, at)?;
        let contents = Folder::open(&folder).map_err(Cause::io("open", &folder))?;
        let options = TarOptions { epoch: latest, verify: false };
        let tree = store.tree(id)?;
        self.encoded(id, codec, form.codec, |out| {
            Ok(encode_layer(&tree, &contents, options, form.codec, out)?)
        })
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
        encode: impl FnOnce(&mut dyn std::io::Write) -> Result<EncodedLayer, Cause>,
    ) -> Result<LayerBlob, Cause> {
        let (store, lease) = (&self.effects.store, &self.effects.lease);
        let mut writer = store.blob_writer(lease)?;
        let encoded = encode(&mut self.stoppable(&mut writer))?;
        writer.commit(Some(&encoded.blob.digest()))?;
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
        store.add_layer_blob(lease, id, &codec, &blob)?;
        Ok(blob)
    }
}
