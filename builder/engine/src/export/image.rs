//! From layers and a config to an image: blobs encoded where they are not there yet, then the documents.

use std::collections::BTreeMap;

use image::{
    annotations::Level,
    assemble::{Image, ImageLayer, assemble, assemble_index},
    layout::NamedImage,
};
use oci::{Descriptor, Epoch, Platform, Reference};
use rayon::prelude::*;
use store::ResultLayer;

use super::Exporter;
use crate::{
    build::internal::Internal,
    effect::blob::LayerForms,
    error::Cause,
    request::{ImageForm, OutputEpoch},
};

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
    /// Its names, each once. One with a digest has that of `top`.
    pub(crate) names: Vec<Reference>,
}

impl ImageSet {
    /// As a writer of layouts and archives takes it.
    pub(crate) fn named(&self) -> Vec<NamedImage> {
        vec![NamedImage { descriptor: self.top.clone(), names: self.names.clone() }]
    }
}

impl ImageForm {
    /// The time that files of its own layers get where they are later.
    pub(crate) fn latest(&self, of_build: Option<Epoch>) -> Option<Epoch> {
        self.epoch.of(of_build).filter(|_| self.rewrite_timestamp != Some(false))
    }
}

impl Exporter<'_> {
    /// Puts the images of all platforms together.
    pub(crate) fn image_set(&self, form: &ImageForm, shown: &Internal<'_>) -> Result<ImageSet, Cause> {
        let epoch = form.epoch.of(self.epoch);
        if form.rewrite_timestamp == Some(true) && epoch.is_none() {
            let why = "`rewrite-timestamp` changes nothing: the build has no SOURCE_DATE_EPOCH";
            self.effects.warn_once("rewrite-timestamp", why);
        }
        let mut images = Vec::new();
        for built in self.built {
            let blobs =
                shown.part("exporting layers", 0, || self.layer_blobs(built.result.as_layers(), form))?;
            let mut config = built.config.clone();
            // A time that is only this output's may lie ahead: then the image is as old as its newest layer.
            if let (Some(epoch), OutputEpoch::OfBuild) = (epoch, form.epoch) {
                config.created = Some(epoch.rfc3339());
            }
            let of = |level| form.annotations.of(level, Some(&built.platform));
            let assembled = assemble(config, &blobs, of(Level::Manifest), form.dialect);
            let mut image = assembled.map_err(|error| Cause::Task(error.to_string()))?;
            image.manifest_descriptor.annotations = of(Level::ManifestDescriptor);
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
                let of = |level| form.annotations.of(level, None);
                let (bytes, mut top) = assemble_index(manifests.collect(), of(Level::Index), form.dialect);
                top.annotations = of(Level::IndexDescriptor);
                documents.insert(top.digest, bytes);
                top
            }
        };
        for bytes in documents.values() {
            self.effects.store.add_blob(&self.effects.lease, bytes)?;
        }
        let names = self.names(form, &top);
        Ok(ImageSet { images, top, names })
    }

    fn names(&self, form: &ImageForm, top: &Descriptor) -> Vec<Reference> {
        let mut names: Vec<Reference> = Vec::new();
        for name in self.tags.iter().chain(&form.names) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        match &form.dangling {
            Some(dangling) if names.is_empty() || !dangling.only_unnamed => {
                names.push(Reference { tag: None, digest: Some(top.digest), ..dangling.prefix.clone() });
            }
            _ => {}
        }
        names
    }

    fn layer_blobs(&self, layers: &[ResultLayer], form: &ImageForm) -> Result<Vec<ImageLayer>, Cause> {
        let epoch = form.epoch.of(self.epoch);
        let forms =
            LayerForms { effects: self.effects, form, latest: form.latest(self.epoch), cancel: self.cancel };
        // Not by a thread of the pool: those do the work that is waited for.
        self.effects.encoding.wait();
        let one = |at: usize| {
            let blob = forms.blob(layers, at)?;
            let created = layers[at].created.map(|created| epoch.map_or(created, |epoch| created.min(epoch)));
            let mut descriptor = Descriptor::new(blob.media_type, blob.blob.digest(), blob.size_bytes);
            descriptor.annotations = blob.annotations;
            if form.prefer_foreign_layers && descriptor.media_type.is_foreign() {
                // Where it is had from: only the base's own manifest knows.
                let named = self.effects.images.layer(descriptor.digest).unwrap_or(descriptor.clone());
                descriptor.extra.extend(named.extra.into_iter().filter(|(key, _)| key == "urls"));
            }
            Ok(ImageLayer {
                descriptor,
                diff_id: blob.diff_id,
                created: created.map(Epoch::rfc3339),
                created_by: None,
            })
        };
        (0..layers.len()).into_par_iter().map(one).collect()
    }
}
