//! What refers to a manifest: signatures, SBOMs, attestations (distribution-spec v1.1, § Listing Referrers).
//!
//! A registry that knows the question lists them. For one that does not, those who push keep an index under a tag that is
//! made of the digest (§ Referrers Tag Schema); it is read here, and kept up to date when a manifest with a `subject` is
//! pushed. Two who do that at the same moment can lose an entry: there is no way to lock a tag.

use oci::{Descriptor, Digest, Index, MediaType, Reference};
use reqwest::{Method, Response, Url, header::LINK};

use crate::{
    Client,
    copy::Whom,
    document::{Document, Parsed},
    error::{Error, Fault, What},
    list::next_page,
    route::Route,
    session::{Place, Question},
    wire::body,
};

/// How many pages are read.
const PAGES: usize = 1000;

/// How many bytes all pages may have, in those of the largest manifest.
const LARGEST: u64 = 16;

/// The tag under which a registry without the question keeps what refers to a digest.
pub fn referrers_tag(subject: &Digest) -> String {
    format!("sha256-{}", subject.hex())
}

impl Client {
    /// The manifests that refer to a manifest or index of a repository, in the registry's order, each with its
    /// `artifactType` and annotations; with `artifact_type` those of that type. None is no error.
    ///
    /// # Errors
    /// What the registry did, and [`Fault::TooLarge`] when it has no end of pages.
    pub async fn referrers(
        &self,
        repository: &Reference,
        subject: Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>, Error> {
        let named = Reference { tag: None, digest: Some(subject), ..repository.clone() };
        let listed = match self.listed_referrers(&named, subject, artifact_type).await? {
            Some(listed) => listed,
            None => self.tagged_referrers(&named, subject).await?,
        };
        // A registry need not filter, and the index of a tag never does.
        let fits = |one: &Descriptor| artifact_type.is_none_or(|wanted| one.artifact_type() == Some(wanted));
        Ok(listed.into_iter().filter(fits).collect())
    }

    /// By the registry's own list; `None` when it keeps none.
    async fn listed_referrers(
        &self,
        named: &Reference,
        subject: Digest,
        artifact_type: Option<&str>,
    ) -> Result<Option<Vec<Descriptor>>, Error> {
        let path = format!("referrers/{subject}");
        let filter: Vec<(&str, &str)> =
            artifact_type.map(|wanted| ("artifactType", wanted)).into_iter().collect();
        let mut route = self.push_route(named, What::Referrers)?;
        let (mut all, mut next, mut left) = (Vec::new(), None::<Url>, LARGEST * self.limits().manifest_bytes);
        for _ in 0..PAGES {
            let place = match &next {
                Some(url) => Place::At(url),
                None if filter.is_empty() => Place::Below(&path),
                None => Place::With(&path, &filter),
            };
            let Some(response) = self.referrers_page(&mut route, place).await? else { return Ok(None) };
            let from = next.clone().unwrap_or_else(|| route.endpoint().url(&path));
            let link = response.headers().get(LINK).and_then(|link| link.to_str().ok()).map(str::to_owned);
            let limits = self.limits();
            let page = body(response, limits.manifest_bytes.min(left), limits.idle).await.and_then(|bytes| {
                left -= bytes.len() as u64;
                Ok(Index::parse(&bytes)?)
            });
            all.extend(page.map_err(|fault| route.fail(fault))?.manifests);
            let Some(link) = link else { return Ok(Some(all)) };
            next = Some(next_page(&from, &link).map_err(|fault| route.fail(fault))?);
        }
        Err(route.fail(Fault::TooLarge { limit: LARGEST * self.limits().manifest_bytes }))
    }

    async fn referrers_page(&self, route: &mut Route, place: Place<'_>) -> Result<Option<Response>, Error> {
        let accept = Some("application/vnd.oci.image.index.v1+json");
        let question = Question { place, accept, ..Question::read(Method::GET, "") };
        loop {
            match self.ask(route.endpoint(), &question).await {
                Ok(response) => {
                    self.learn(route);
                    return Ok(Some(response));
                }
                // § Unavailable Referrers API: a 404. Some answer to what they do not know that it is not allowed.
                Err(Fault::NotFound { .. } | Fault::Status { status: 405, .. }) => return Ok(None),
                Err(fault) => route.after(fault).await?,
            }
        }
    }

    async fn tagged_referrers(&self, named: &Reference, subject: Digest) -> Result<Vec<Descriptor>, Error> {
        let found = self.referrers_index(named, subject).await?;
        Ok(found.map(|index| index.manifests).unwrap_or_default())
    }

    /// The index of the tag; `None` when there is no such tag.
    async fn referrers_index(&self, named: &Reference, subject: Digest) -> Result<Option<Index>, Error> {
        let tag = Reference { tag: Some(referrers_tag(&subject)), digest: None, ..named.clone() };
        match self.manifest(&tag, None, Whom::Itself).await {
            Ok(Document { parsed: Parsed::Index(index), .. }) => Ok(Some(index)),
            Ok(document) => {
                let announced = MediaType::index().0;
                let fault = Fault::MediaType { announced, document: document.descriptor.media_type.0 };
                Err(self.push_route(&tag, What::Referrers)?.fail(fault))
            }
            Err(error) if matches!(*error.fault, Fault::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// After a push: lists a manifest under the tag of its subject, unless the registry does that by itself.
    pub(crate) async fn tell_referrers(
        &self,
        to: &Reference,
        bytes: &[u8],
        media_type: &MediaType,
    ) -> Result<(), Error> {
        let Some((subject, referrer)) = referrer(bytes, media_type) else { return Ok(()) };
        let mut index = self.referrers_index(to, subject).await?.unwrap_or_else(|| Index::new(Vec::new()));
        if index.manifests.iter().any(|one| one.digest == referrer.digest) {
            return Ok(());
        }
        index.manifests.push(referrer);
        let tag = Reference { tag: Some(referrers_tag(&subject)), digest: None, ..to.clone() };
        self.put_document(&tag, &MediaType::index(), &index.bytes()).await.map(drop)
    }
}

/// What a document refers to, and how it is listed there.
fn referrer(bytes: &[u8], media_type: &MediaType) -> Option<(Digest, Descriptor)> {
    let document = Document::read(bytes.to_vec(), Some(media_type.as_str())).ok()?;
    let (subject, artifact_type, annotations) = match document.parsed {
        Parsed::Index(index) => {
            (index.subject()?, index.artifact_type().map(str::to_owned), index.annotations)
        }
        Parsed::Manifest(manifest) => {
            (manifest.subject()?, Some(manifest.artifact_type().to_owned()), manifest.annotations)
        }
    };
    let listed = document.descriptor.with_artifact_type(artifact_type.as_deref());
    Some((subject.digest, Descriptor { annotations, ..listed }))
}

/// Whether a registry told that it has listed what was pushed (§ Pushing Manifests with Subject).
pub(crate) fn is_listed(response: &Response) -> bool {
    response.headers().contains_key("oci-subject")
}

#[cfg(test)]
mod tests {
    use oci::Manifest;

    use super::*;

    #[test]
    fn a_referrer_is_listed_with_its_type_and_annotations() {
        let subject = Descriptor::of(MediaType::manifest(), b"image");
        let config = Descriptor::of("application/vnd.oci.empty.v1+json".into(), b"{}");
        let mut manifest = Manifest::new(config, Vec::new());
        assert_eq!(referrer(&manifest.bytes(), &MediaType::manifest()), None);
        manifest.extra.insert("subject".into(), serde_json::to_value(&subject).expect("JSON"));
        manifest.annotations.insert("a".into(), "b".into());
        let (of, listed) = referrer(&manifest.bytes(), &MediaType::manifest()).expect("it refers");
        assert_eq!(of, subject.digest);
        assert_eq!(listed.artifact_type(), Some("application/vnd.oci.empty.v1+json"));
        assert_eq!(listed.annotations, manifest.annotations);
        assert_eq!(listed.digest, Digest::of(&manifest.bytes()));

        let mut index = Index::new(Vec::new());
        index.extra.insert("subject".into(), serde_json::to_value(&subject).expect("JSON"));
        let (_, listed) = referrer(&index.bytes(), &MediaType::index()).expect("it refers");
        assert_eq!(listed.artifact_type(), None);
        assert_eq!(referrer(b"{}", &MediaType::manifest()), None);
    }
}
