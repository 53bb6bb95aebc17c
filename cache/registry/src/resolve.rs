//! From a name to one image: which manifest and which config it means on a platform.

use oci::{Descriptor, Digest, ImageConfig, Index, Manifest, MediaType, Platform, Reference, Version};
use reqwest::{Method, header::CONTENT_TYPE};

use crate::{
    Client,
    blob::Blob,
    client::error,
    document::{ACCEPT, Document, Parsed, read, read_any},
    error::{Error, Fault, What},
    route::Endpoint,
    session::Question,
    wire::{body, told_digest},
};

/// How many indexes may stand in one another.
const NESTING: u32 = 4;

/// How many manifests of an index are looked into that do not tell their platform.
const UNNAMED: usize = 8;

/// Documents that are here already. Asked by digest, so that what is held is not fetched again; what it
/// gives is checked.
pub trait Held: Send + Sync {
    /// The bytes of a manifest, index or config, if they are held. Called on a task of the network, so it
    /// should be quick.
    fn document(&self, digest: Digest) -> Option<Vec<u8>>;
}

/// One image, with the bytes of its documents: their digests are about these bytes, not about what parsing
/// kept.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The manifest's media type, digest and size, with the platform where an index told it.
    pub descriptor: Descriptor,
    /// The manifest's bytes.
    pub manifest_bytes: Vec<u8>,
    /// The manifest.
    pub manifest: Manifest,
    /// The config's bytes.
    pub config_bytes: Vec<u8>,
    /// The config. Its platform may differ from what was wanted when the name leads to a single manifest.
    pub config: ImageConfig,
    /// The index that the name leads to, when it leads to one.
    pub index: Option<ResolvedIndex>,
}

/// The index through which an image was found.
#[derive(Clone, Debug)]
pub struct ResolvedIndex {
    /// Its media type, digest and size.
    pub descriptor: Descriptor,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The index.
    pub index: Index,
}

impl Resolved {
    /// What the name itself stands for: the index where there is one, else the manifest.
    pub fn top(&self) -> &Descriptor {
        self.index.as_ref().map_or(&self.descriptor, |index| &index.descriptor)
    }
}

impl Client {
    /// What a name stands for now: media type, digest and size of a manifest or an index.
    ///
    /// Costs one HEAD, which registries do not count as a pull; a registry that answers it without a digest
    /// is asked for the whole.
    ///
    /// # Errors
    /// [`Error`]: no host answered, or what it answered is no image.
    pub async fn head(&self, reference: &Reference) -> Result<Descriptor, Error> {
        match self.told(reference).await? {
            Some(descriptor) => Ok(descriptor),
            None => Ok(self.document(reference, &Wanted::of(reference)).await?.descriptor),
        }
    }

    /// The image that a name means on a platform.
    ///
    /// With `held`, a tag costs one HEAD when its documents are held already.
    ///
    /// Every document is checked against its digest and size; manifest and config agree on the number of
    /// layers. A name that leads to a single manifest gives it whatever its platform; compare
    /// [`ImageConfig::platform`].
    ///
    /// # Errors
    /// [`Error`]: no host answered, the image is not there for the platform ([`Fault::Platform`] lists those
    /// it has), or a document is too large, too old, or not what its digest says.
    ///
    /// # Source
    /// distribution-spec v1.1, § Pulling manifests; image-spec v1.1, image-index.md and manifest.md.
    pub async fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
        held: Option<&dyn Held>,
    ) -> Result<Resolved, Error> {
        let mut document = self.first(reference, held).await?;
        let mut top: Option<ResolvedIndex> = None;
        let mut named: Option<Platform> = None;
        for _ in 0..=NESTING {
            let index = match document.parsed {
                Parsed::Manifest(manifest) => {
                    let Document { mut descriptor, bytes, .. } = document;
                    descriptor.platform = named;
                    let (config_bytes, config) = self.config(reference, &manifest, held).await?;
                    let (manifest, manifest_bytes, index) = (*manifest, bytes, top);
                    return Ok(Resolved {
                        descriptor,
                        manifest_bytes,
                        manifest,
                        config_bytes,
                        config,
                        index,
                    });
                }
                Parsed::Index(index) => index,
            };
            let chosen = match index.select(platform) {
                Some(chosen) => chosen.clone(),
                None => self.among_unnamed(reference, &index, platform, held).await?,
            };
            named = chosen.platform.clone();
            top.get_or_insert(ResolvedIndex {
                descriptor: document.descriptor,
                bytes: document.bytes,
                index,
            });
            document = self.held_or_asked(reference, &chosen, held).await?;
        }
        Err(error(reference, What::Image, Fault::Nesting { limit: NESTING }))
    }

    /// As [`Client::resolve`], but no longer than this: for one who has something else to take.
    ///
    /// # Errors
    /// As those of [`Client::resolve`]; when the time is over, [`Fault::Stalled`].
    pub async fn resolve_within(
        &self,
        longest: std::time::Duration,
        reference: &Reference,
        platform: &Platform,
        held: Option<&dyn Held>,
    ) -> Result<Resolved, Error> {
        match tokio::time::timeout(longest, self.resolve(reference, platform, held)).await {
            Ok(resolved) => resolved,
            Err(_) => Err(error(reference, What::Image, Fault::Stalled { after: longest })),
        }
    }

    /// What the name itself leads to.
    async fn first(&self, reference: &Reference, held: Option<&dyn Held>) -> Result<Document, Error> {
        let wanted = Wanted::of(reference);
        let told = match (wanted.digest, held) {
            (Some(digest), _) => Some(Descriptor::new(MediaType(String::new()), digest, 0)),
            (None, Some(_)) => self.told(reference).await?,
            (None, None) => None,
        };
        match told.and_then(|told| from_held(&told, held)) {
            Some(document) => Ok(document),
            None => self.document(reference, &wanted).await,
        }
    }

    async fn held_or_asked(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        held: Option<&dyn Held>,
    ) -> Result<Document, Error> {
        match from_held(descriptor, held) {
            Some(document) => Ok(document),
            None => self.document(reference, &Wanted::by(descriptor)).await,
        }
    }

    /// The manifest that fits best among those of an index that do not tell their platform; their configs do.
    async fn among_unnamed(
        &self,
        reference: &Reference,
        index: &Index,
        platform: &Platform,
        held: Option<&dyn Held>,
    ) -> Result<Descriptor, Error> {
        let unnamed: Vec<&Descriptor> = index.manifests.iter().filter(|one| one.platform.is_none()).collect();
        if let [only] = unnamed[..]
            && index.manifests.len() == 1
        {
            return Ok(only.clone());
        }
        let mut available: Vec<Platform> =
            index.manifests.iter().filter_map(|one| one.platform.clone()).collect();
        // Attestations are filed under this name.
        available.retain(|platform| platform.os != "unknown");
        let mut best: Option<(u32, &Descriptor)> = None;
        for descriptor in unnamed.into_iter().take(UNNAMED) {
            let document = self.held_or_asked(reference, descriptor, held).await?;
            let Parsed::Manifest(manifest) = document.parsed else { continue };
            let own = self.config(reference, &manifest, held).await?.1.platform();
            if let Some(distance) = own.distance(platform)
                && best.is_none_or(|(least, _)| distance < least)
            {
                best = Some((distance, descriptor));
            }
            available.push(own);
        }
        let missing = || {
            let fault = Fault::Platform { wanted: Box::new(platform.clone()), available };
            error(reference, What::Image, fault)
        };
        best.map(|(_, descriptor)| descriptor.clone()).ok_or_else(missing)
    }

    async fn config(
        &self,
        reference: &Reference,
        manifest: &Manifest,
        held: Option<&dyn Held>,
    ) -> Result<(Vec<u8>, ImageConfig), Error> {
        let failed = |fault| error(reference, What::Image, fault);
        let limit = self.limits().config_bytes;
        if manifest.config.size > limit {
            return Err(failed(Fault::TooLarge { limit }));
        }
        let bytes = match held_bytes(manifest.config.digest, held) {
            Some(bytes) => bytes,
            None => Blob::new(self, reference, &manifest.config, What::Image)?.collect().await?,
        };
        let config = ImageConfig::parse(&bytes).map_err(|bad| failed(bad.into()))?;
        let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
        if layers != diff_ids {
            return Err(failed(Fault::Layers { layers, diff_ids }));
        }
        Ok((bytes, config))
    }

    /// What a HEAD tells about a name; `None` when the answer is of no use and the document itself must be
    /// asked for.
    async fn told(&self, reference: &Reference) -> Result<Option<Descriptor>, Error> {
        let wanted = Wanted::of(reference);
        let path = format!("manifests/{}", wanted.version);
        let question = Question { accept: Some(ACCEPT), ..Question::read(Method::HEAD, &path) };
        let mut route = self.route(reference, What::Image)?;
        loop {
            match self.ask(route.endpoint(), &question).await {
                Ok(response) => {
                    self.learn(&route);
                    let headers = response.headers();
                    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
                    let size = text("content-length").and_then(|length| length.parse().ok());
                    let (Some(digest), Some(media_type), Some(size)) =
                        (told_digest(headers), text("content-type"), size)
                    else {
                        return Ok(None);
                    };
                    let known = wanted.digest.is_none_or(|wanted| wanted == digest);
                    return Ok(known.then(|| Descriptor::new(media_type.into(), digest, size)));
                }
                // A refused HEAD has no body; the same question as a GET says why.
                Err(Fault::NotFound { .. } | Fault::Denied { .. } | Fault::Unauthorized { .. }) => {
                    return Ok(None);
                }
                Err(Fault::Status { status: 400..=499, .. }) => return Ok(None),
                Err(fault) => route.after(fault).await?,
            }
        }
    }

    async fn document(&self, reference: &Reference, wanted: &Wanted) -> Result<Document, Error> {
        let mut route = self.route(reference, What::Image)?;
        loop {
            match self.document_from(route.endpoint(), wanted).await {
                Ok(document) => {
                    self.learn(&route);
                    return Ok(document);
                }
                Err(fault) => route.after(fault).await?,
            }
        }
    }

    pub(crate) async fn document_from(
        &self,
        endpoint: &Endpoint,
        wanted: &Wanted,
    ) -> Result<Document, Fault> {
        let path = format!("manifests/{}", wanted.version);
        let question = Question { accept: Some(ACCEPT), ..Question::read(Method::GET, &path) };
        let response = self.ask(endpoint, &question).await?;
        let told = told_digest(response.headers());
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let announced = content_type.map(str::to_owned);
        let limits = self.limits();
        let bytes = body(response, limits.manifest_bytes, limits.idle).await?;
        wanted.check(&bytes, told)?;
        let document = match wanted.any {
            true => read_any(bytes, announced.as_deref())?,
            false => read(bytes, announced.as_deref())?,
        };
        if let Some(media_type) = &wanted.media_type {
            let document = &document.descriptor.media_type;
            let manifests = |a: &MediaType, b: &MediaType| a.is_manifest() && b.is_index();
            if manifests(media_type, document) || manifests(document, media_type) {
                let (announced, document) = (media_type.0.clone(), document.0.clone());
                return Err(Fault::MediaType { announced, document });
            }
        }
        Ok(document)
    }
}

/// Which document is asked for, and what is known of it.
pub(crate) struct Wanted {
    /// Tag or digest, as it stands in the address.
    version: String,
    digest: Option<Digest>,
    size: Option<u64>,
    media_type: Option<MediaType>,
    /// Whether it may be something else than an image.
    any: bool,
}

impl Wanted {
    pub(crate) fn of(reference: &Reference) -> Wanted {
        let (version, digest) = match reference.version() {
            Version::Tag(tag) => (tag.to_owned(), None),
            Version::Digest(digest) => (digest.to_string(), Some(digest)),
        };
        Wanted { version, digest, size: None, media_type: None, any: false }
    }

    pub(crate) fn by(descriptor: &Descriptor) -> Wanted {
        Wanted {
            version: descriptor.digest.to_string(),
            digest: Some(descriptor.digest),
            size: Some(descriptor.size),
            media_type: Some(descriptor.media_type.clone()),
            any: false,
        }
    }

    /// The same, of any artifact.
    pub(crate) fn of_any(self) -> Wanted {
        Wanted { any: true, ..self }
    }

    /// Compares what came with what was wanted, or with what the registry itself said that it sends.
    fn check(&self, bytes: &[u8], told: Option<Digest>) -> Result<(), Fault> {
        let found = bytes.len() as u64;
        if let Some(wanted) = self.size.filter(|size| *size != found) {
            return Err(Fault::Size { wanted, found });
        }
        let found = Digest::of(bytes);
        match self.digest.or(told).filter(|wanted| *wanted != found) {
            Some(wanted) => Err(Fault::Digest { wanted, found }),
            None => Ok(()),
        }
    }
}

fn held_bytes(digest: Digest, held: Option<&dyn Held>) -> Option<Vec<u8>> {
    held?.document(digest).filter(|bytes| Digest::of(bytes) == digest)
}

/// A held document. One that cannot be read is asked for instead, so that the error is about what the
/// registry has.
fn from_held(descriptor: &Descriptor, held: Option<&dyn Held>) -> Option<Document> {
    read(held_bytes(descriptor.digest, held)?, Some(descriptor.media_type.as_str())).ok()
}
