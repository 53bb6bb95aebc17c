//! From layers and a config to an image: blobs encoded where they are not there yet, then the documents.

use std::collections::BTreeMap;

use image::{
    assemble::{Dialect, Image, ImageLayer, assemble, assemble_index},
    compress::ENCODER_VERSION,
    contents::Folder,
    encode::encode_layer,
    layer_tar::TarOptions,
};
use oci::{Descriptor, Epoch, Platform};
use rayon::prelude::*;
use store::{Codec, LayerBlob, ResultLayer};

use super::Exporter;
use crate::{build::internal::Internal, effect::pull::PULLED, error::Cause, request::ImageForm};

/// One platform's image.
pub(crate) struct BuiltImage {
    pub(crate) platform: Platform,
    pub(crate) image: Image,
}

/// The images of a build, and what names them all.
pub(crate) struct ImageSet {
    pub(crate) images: Vec<BuiltImage>,
    /// The manifest of the only platform, or the index of all.
    pub(crate) top: Descriptor,
}

impl Exporter<'_> {
    /// Puts the images of all platforms together.
    pub(crate) fn image_set(&self, form: &ImageForm, shown: &Internal<'_>) -> Result<ImageSet, Cause> {
        let mut images = Vec::new();
        for built in self.built {
            let blobs =
                shown.part("exporting layers", 0, || self.layer_blobs(built.result.as_layers(), form))?;
            let mut config = built.config.clone();
            if let Some(epoch) = self.epoch {
                config.created = Some(epoch.rfc3339());
            }
            let assembled = assemble(config, &blobs, form.annotations.clone(), Dialect::Oci);
            let image = assembled.map_err(|error| Cause::Task(error.to_string()))?;
            images.push(BuiltImage { platform: built.platform.clone(), image });
        }
        let mut documents = BTreeMap::new();
        for built in &images {
            documents.insert(built.image.manifest_descriptor.digest, built.image.manifest.clone());
            documents.insert(built.image.config_descriptor.digest, built.image.config.clone());
        }
        let top = match images.as_slice() {
            [only] if !self.several => only.image.manifest_descriptor.clone(),
            several => {
                let manifests = several.iter().map(|built| Descriptor {
                    platform: Some(built.platform.clone()),
                    ..built.image.manifest_descriptor.clone()
                });
                let (bytes, top) = assemble_index(manifests.collect(), BTreeMap::new(), Dialect::Oci);
                documents.insert(top.digest, bytes);
                top
            }
        };
        for bytes in documents.values() {
            self.effects.store.add_blob(&self.effects.lease, bytes)?;
        }
        // What was made is flushed before anything takes its name or is called done.
        self.effects.store.keep()?;
        Ok(ImageSet { images, top })
    }

    fn layer_blobs(&self, layers: &[ResultLayer], form: &ImageForm) -> Result<Vec<ImageLayer>, Cause> {
        let one = |at: usize| {
            let blob = self.layer_blob(layers, at, form)?;
            let created =
                layers[at].created.map(|created| self.epoch.map_or(created, |epoch| created.min(epoch)));
            Ok(ImageLayer {
                descriptor: Descriptor::new(blob.media_type, blob.blob.digest(), blob.size_bytes),
                diff_id: blob.diff_id,
                created: created.map(Epoch::rfc3339),
                created_by: None,
            })
        };
        (0..layers.len()).into_par_iter().map(one).collect()
    }

    /// The blob of layer `at`: the one that it was pulled as, or one that is there, or a new one.
    fn layer_blob(&self, layers: &[ResultLayer], at: usize, form: &ImageForm) -> Result<LayerBlob, Cause> {
        let (store, lease) = (&self.effects.store, &self.effects.lease);
        let id = &layers[at].layer;
        let epoch = self.epoch.map_or(String::new(), |epoch| format!(" epoch {}", epoch.0));
        let codec = Codec(format!("{} v{ENCODER_VERSION}{epoch}", form.codec));
        let known = store.layer_blobs(lease, id)?;
        // One tree may have come in several blobs: that of this build's base is the one to hand on.
        let pulled =
            || known.iter().filter(|(codec, _)| codec.0.starts_with(PULLED) && !form.force_compression);
        let own = pulled().find(|(_, blob)| self.effects.images.has_layer(blob.blob.digest()));
        let pulled = own.or_else(|| pulled().next());
        if let Some((_, blob)) = pulled.or_else(|| known.iter().find(|(known, _)| *known == codec)) {
            return Ok(blob.clone());
        }
        let folder = self.effects.folder(layers, at)?;
        let contents = Folder::open(&folder).map_err(Cause::io("open", &folder))?;
        let mut writer = store.blob_writer(lease)?;
        let options = TarOptions { epoch: self.epoch, verify: false };
        let mut out = self.stoppable(&mut writer);
        let encoded = encode_layer(&*store.tree(id)?, &contents, options, form.codec, &mut out)?;
        writer.commit(Some(&encoded.blob.digest()))?;
        let blob = LayerBlob {
            diff_id: encoded.diff_id,
            blob: encoded.blob,
            size_bytes: encoded.size_bytes,
            diff_size_bytes: encoded.diff_size_bytes,
            media_type: encoded.media_type,
        };
        store.add_layer_blob(lease, id, &codec, &blob)?;
        Ok(blob)
    }
}
