//! Where an image is taken from that goes somewhere else: a registry, an OCI layout, the local store.

use std::{
    io::{self, Read},
    path::PathBuf,
    sync::Arc,
};

use dockerfile::LayoutVersion;
use futures_util::{StreamExt, stream};
use image::{
    blobs::{BlobReader, BlobSource, MAX_DOCUMENT, read_document},
    layout::{Layout, LayoutError},
};
use oci::{Descriptor, Digest, ImageConfig, Manifest, Platform, Reference};
use registry::{Content, Document, FileContent, Pieces, RemoteContent, Whom};

use super::transfer::TransferError;
use crate::{build::facts, effect::Effects, engine::Engine, error::Cause};

/// So much is read at once.
const PIECE_BYTES: u64 = 256 << 10;

/// Where an image is that is read as it is, without being pulled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageSource {
    /// In a registry.
    Registry(Reference),
    /// In an OCI layout, a folder or an archive.
    Layout {
        /// The layout.
        path: PathBuf,
        /// Which of its images.
        version: LayoutVersion,
    },
    /// In the local store: a name or the first digits of a digest.
    Store(String),
}

/// An image source that was found.
pub(crate) struct Origin {
    /// As people see it.
    pub(crate) name: String,
    place: Place,
}

enum Place {
    Registry(registry::Client, Reference, Whom),
    Layout(Arc<Layout>, Descriptor),
    Store(Arc<Effects>, Descriptor),
}

impl Origin {
    /// Looks it up; a registry is not asked yet.
    pub(crate) fn find(
        engine: &Engine,
        effects: &Arc<Effects>,
        source: &ImageSource,
    ) -> Result<Origin, Cause> {
        Ok(match source {
            ImageSource::Registry(name) => Origin::in_registry(effects, name),
            ImageSource::Layout { path, version } => {
                let layout = Layout::open(path)?;
                let top = facts::select(&layout, version)?;
                // What nobody wrote is the only image that there is.
                let latest = *version == LayoutVersion::Tag("latest".to_owned());
                let version = if latest { String::new() } else { version.to_string() };
                let name = format!("oci-layout://{}{version}", path.display());
                Origin { name, place: Place::Layout(Arc::new(layout), top) }
            }
            ImageSource::Store(name) => {
                let top = engine.find(&effects.lease, name)?.descriptor;
                Origin { name: format!("local-store://{name}"), place: Place::Store(effects.clone(), top) }
            }
        })
    }

    fn in_registry(effects: &Effects, name: &Reference) -> Origin {
        Origin {
            name: name.to_string(),
            place: Place::Registry(effects.registry.clone(), name.clone(), Whom::Anyone),
        }
    }

    /// The same, as its registry has it now, whatever its mirrors have.
    pub(crate) fn current(self) -> Origin {
        let place = match self.place {
            Place::Registry(client, name, _) => Place::Registry(client, name, Whom::Itself),
            other => other,
        };
        Origin { place, ..self }
    }

    /// Its name where it is in a registry.
    pub(crate) fn reference(&self) -> Option<&Reference> {
        match &self.place {
            Place::Registry(_, name, _) => Some(name),
            Place::Layout(..) | Place::Store(..) => None,
        }
    }

    /// What the name stands for.
    pub(crate) async fn top(&self) -> Result<Document, Cause> {
        match &self.place {
            Place::Registry(client, name, whom) => Ok(client.manifest(name, None, *whom).await?),
            Place::Layout(_, top) | Place::Store(_, top) => self.document(top).await,
        }
    }

    /// A document that another names.
    pub(crate) async fn document(&self, of: &Descriptor) -> Result<Document, Cause> {
        let bytes = match &self.place {
            Place::Registry(client, name, whom) => return Ok(client.manifest(name, Some(of), *whom).await?),
            Place::Layout(layout, _) => read_document(&**layout, of).map_err(LayoutError::from)?,
            Place::Store(effects, _) => effects.store.blob_bytes(&effects.lease, &of.digest)?,
        };
        Document::read(bytes, Some(of.media_type.as_str())).map_err(|why| self.unreadable(of.digest, &why))
    }

    /// The bytes of a blob, to be sent.
    pub(crate) fn content(&self, blob: &Descriptor) -> Result<Bytes, Cause> {
        Ok(match &self.place {
            Place::Registry(client, name, _) => Bytes::Remote(RemoteContent::new(client, name, blob)),
            Place::Layout(layout, _) => Bytes::Here(Box::new(LayoutContent(layout.clone(), blob.digest))),
            Place::Store(effects, _) => {
                let file = effects.store.blob(&effects.lease, &blob.digest)?;
                let file = file.ok_or_else(|| Cause::LayerLost { layer: blob.digest.to_string() })?;
                Bytes::Here(Box::new(FileContent::new(&file.path)))
            }
        })
    }

    /// The platform that an image's config tells; none of another artifact.
    pub(crate) async fn platform(&self, manifest: &Manifest) -> Result<Option<Platform>, Cause> {
        let config = &manifest.config;
        if !registry::is_image(manifest) {
            return Ok(None);
        }
        if config.size > MAX_DOCUMENT {
            let limit = format!("{} MiB of config", MAX_DOCUMENT >> 20);
            return Err(TransferError::TooLarge { name: self.name.clone(), limit }.into());
        }
        let content = self.content(config)?;
        let mut pieces = content.as_content().open(0);
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.next().await {
            let piece =
                piece.map_err(|error| content.failed(Cause::io("read", config.digest.to_string())(error)))?;
            bytes.extend_from_slice(&piece);
            if bytes.len() as u64 > config.size {
                break;
            }
        }
        let found = Digest::of(&bytes);
        if found != config.digest {
            return Err(self.unreadable(config.digest, &format!("its bytes have the digest {found}")));
        }
        Ok(Some(ImageConfig::parse(&bytes)?.platform()))
    }

    pub(crate) fn unreadable(&self, digest: Digest, why: &dyn ToString) -> Cause {
        TransferError::Unreadable { name: self.name.clone(), digest, why: why.to_string() }.into()
    }
}

/// The bytes of a blob.
pub(crate) enum Bytes {
    Remote(RemoteContent),
    Here(Box<dyn Content>),
}

impl Bytes {
    pub(crate) fn as_content(&self) -> &dyn Content {
        match self {
            Bytes::Remote(remote) => remote,
            Bytes::Here(here) => &**here,
        }
    }

    /// Why it failed: what the source did, where that is it.
    pub(crate) fn failed(&self, cause: Cause) -> Cause {
        match self {
            Bytes::Remote(remote) => remote.take_error().map_or(cause, Cause::from),
            Bytes::Here(_) => cause,
        }
    }
}

/// A blob of a layout.
struct LayoutContent(Arc<Layout>, Digest);

impl Content for LayoutContent {
    fn open(&self, from: u64) -> Pieces {
        let (layout, digest) = (self.0.clone(), self.1);
        Box::pin(stream::try_unfold(None, move |reader: Option<BlobReader>| {
            let layout = layout.clone();
            async move {
                let piece = tokio::task::spawn_blocking(move || {
                    let mut reader = match reader {
                        Some(reader) => reader,
                        None => behind(BlobSource::open(&*layout, &digest)?.reader, from)?,
                    };
                    let mut bytes = Vec::new();
                    reader.by_ref().take(PIECE_BYTES).read_to_end(&mut bytes)?;
                    Ok::<_, io::Error>((!bytes.is_empty()).then_some((bytes.into(), Some(reader))))
                });
                piece.await.map_err(io::Error::other)?
            }
        }))
    }
}

fn behind(mut reader: BlobReader, from: u64) -> io::Result<BlobReader> {
    io::copy(&mut reader.by_ref().take(from), &mut io::sink())?;
    Ok(reader)
}
