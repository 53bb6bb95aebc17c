//! `kiln copy`: images from registry to registry, through memory.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use futures_util::{StreamExt, TryStreamExt, stream};
use oci::{Descriptor, Digest, Index, MediaType, Platform, Reference};
use registry::{Document, Fault, Parsed, Whom, referrers_tag};
use store::TaggedBy;

use super::{
    origin::{ImageSource, Origin},
    transfer::TransferError,
    tree::{DOCUMENT_BYTES, Node, Tree, for_platforms},
};
use crate::{
    build::internal::Internal,
    cancel::Cancel,
    client::Client,
    effect::Effects,
    engine::Engine,
    error::{Cause, Error},
    progress::SharedSink,
    push::{AT_ONCE, Moved, Naming, blobs::BlobPush, repositories},
};

/// What follows a digest in the tags under which cosign keeps signatures, attestations and SBOMs.
const COSIGN: [&str; 3] = ["sig", "att", "sbom"];

/// How many manifests may refer to an image, directly or to one another.
const REFERRERS: usize = 10_000;

/// What is to be copied.
#[derive(Clone, Debug)]
pub struct CopyRequest {
    /// The image, or any other artifact.
    pub from: ImageSource,
    /// The names that it gets, each in its registry.
    pub to: Vec<Reference>,
    /// For which platforms; none is all of them.
    pub platforms: Vec<Platform>,
    /// Whether what refers to it is copied as well.
    pub referrers: bool,
}

impl Engine {
    /// Copies an image or any other artifact to registries. Nothing of it is written to the state folder. Its manifest or
    /// index, as it is there.
    ///
    /// # Errors
    /// There is no such image, it is not there for a platform, or what a registry did. Targets before it have the image; a
    /// name is given only when all that it needs is there.
    pub async fn copy(
        &self,
        request: CopyRequest,
        client: Arc<dyn Client>,
        sink: SharedSink,
        cancel: &Cancel,
    ) -> Result<Descriptor, Error> {
        let effects = Arc::new(self.effects(client, sink, false)?);
        let origin = Arc::new(Origin::find(self, &effects, &request.from)?);
        Ok(copy(&effects, &origin, &request, cancel).await?)
    }
}

async fn copy(
    effects: &Arc<Effects>,
    origin: &Arc<Origin>,
    request: &CopyRequest,
    cancel: &Cancel,
) -> Result<Descriptor, Cause> {
    let shown = Internal::start(effects, &format!("reading {}", origin.name));
    let read = cancel.unless(read(origin, &request.platforms)).await;
    shown.end(read.as_ref().err());
    let tree = read?;
    send_to_all(effects, &tree, &request.to, cancel).await?;
    let top = tree.top().map(|node| node.descriptor.clone());
    if let (true, Some(from)) = (request.referrers, origin.reference()) {
        let shown = Internal::start(effects, &format!("reading what refers to {from}"));
        let found = cancel.unless(referring(effects, origin, from, &tree)).await;
        shown.end(found.as_ref().err());
        let found = found?;
        for to in repositories(&request.to).into_values().filter_map(|names| names.first().copied()) {
            send_referring(effects, &found, to, cancel).await?;
        }
    }
    top.ok_or_else(|| Cause::Task("an image without a document".to_owned()))
}

/// All that is to be copied.
async fn read(origin: &Arc<Origin>, platforms: &[Platform]) -> Result<Tree, Cause> {
    let top = origin.top().await?;
    let mut tree = Tree::default();
    match (&top.parsed, platforms) {
        (_, []) => tree.add(origin, top).await?,
        (Parsed::Index(index), [platform]) => {
            let kept = for_platforms(&origin.name, &index.manifests, std::slice::from_ref(platform))?;
            // Without an index there is no place for an attestation.
            let first = kept.iter().find(|one| super::tree::attests(one).is_none());
            tree.add_named(origin, first.unwrap_or(&kept[0])).await?;
        }
        (Parsed::Index(index), several) => {
            let kept = for_platforms(&origin.name, &index.manifests, several)?;
            if kept.len() == index.manifests.len() {
                tree.add(origin, top).await?;
                return Ok(tree);
            }
            for one in &kept {
                tree.add_named(origin, one).await?;
            }
            let index = Index { manifests: kept, ..index.clone() };
            tree.push(node(&top.descriptor.media_type, index.bytes(), origin));
        }
        (Parsed::Manifest(manifest), wanted) => {
            let own = origin.platform(manifest).await?;
            let missing =
                wanted.iter().find(|one| own.as_ref().is_none_or(|own| own.distance(one).is_none()));
            if let Some(missing) = missing {
                let (name, wanted) = (origin.name.clone(), Box::new(missing.clone()));
                let available = own.into_iter().collect();
                return Err(TransferError::Platform { name, wanted, available }.into());
            }
            tree.add(origin, top).await?;
        }
    }
    Ok(tree)
}

/// A document that was made here and whose parts go before it.
pub(crate) fn node(media_type: &MediaType, bytes: Vec<u8>, origin: &Arc<Origin>) -> Node {
    let descriptor = Descriptor::of(media_type.clone(), &bytes);
    Node { descriptor, bytes, blobs: Vec::new(), origin: origin.clone() }
}

/// Makes registries have an image under these names.
pub(crate) async fn send_to_all(
    effects: &Arc<Effects>,
    tree: &Tree,
    names: &[Reference],
    cancel: &Cancel,
) -> Result<(), Cause> {
    if let Some(found) = tree.top().map(|top| top.descriptor.digest) {
        let other = names.iter().find(|name| name.digest.is_some_and(|own| own != found));
        other.map_or(Ok(()), |name| Err(TransferError::OtherDigest { name: name.to_string(), found }))?;
    }
    for ((registry, repository), names) in repositories(names) {
        let shown = Internal::start(effects, &format!("copying to {registry}/{repository}"));
        let sending = Sending { effects, shown: &shown, to: names[0] };
        let sent = cancel.unless(sending.image(tree, &names)).await;
        if let Ok(sent) = &sent {
            effects.say(shown.digest(), &format!("{sent}\n"));
        }
        shown.end(sent.as_ref().err());
        sent?;
    }
    Ok(())
}

/// What went to a repository.
#[derive(Clone, Copy, Default)]
struct Sent {
    manifests: usize,
    present: usize,
    moved: Moved,
}

impl std::fmt::Display for Sent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Sent { manifests, present, moved } = self;
        write!(f, "{manifests} manifests sent, {present} were there; {moved}")
    }
}

struct Sending<'a> {
    effects: &'a Arc<Effects>,
    shown: &'a Internal<'a>,
    /// The repository.
    to: &'a Reference,
}

impl Sending<'_> {
    /// Sends what the repository lacks of an image: blobs, then the documents that name them, then the names.
    async fn image(&self, tree: &Tree, names: &[&Reference]) -> Result<Sent, Cause> {
        let Some(top) = tree.top() else { return Ok(Sent::default()) };
        let lacking = self.lacking(tree).await?;
        let moved = self.blobs(&lacking).await?;
        let mut sent = Sent { manifests: 0, present: tree.nodes.len() - lacking.len(), moved };
        let registry = &self.effects.registry;
        for node in &lacking {
            let is_top = node.descriptor.digest == top.descriptor.digest;
            // One that gets a tag needs no request of its own.
            if !is_top || names.iter().all(|name| name.tag.is_none()) {
                registry
                    .push_document(&self.by_digest(node), &node.descriptor.media_type, &node.bytes)
                    .await?;
            }
            sent.manifests += 1;
        }
        let naming = Naming { registry, store: &self.effects.store, clock: &self.effects.clock };
        for name in names.iter().filter(|name| name.tag.is_some()) {
            let name = &Reference { digest: None, ..(*name).clone() };
            let before = registry.tagged(name).await?;
            if before != Some(top.descriptor.digest) {
                let media_type = &top.descriptor.media_type;
                naming.give(name, before, media_type, &top.bytes, TaggedBy::Push).await?;
            }
        }
        Ok(sent)
    }

    fn by_digest(&self, node: &Node) -> Reference {
        Reference { tag: None, digest: Some(node.descriptor.digest), ..self.to.clone() }
    }

    /// The documents that the repository does not have. One that is there has all that it names.
    async fn lacking<'t>(&self, tree: &'t Tree) -> Result<Vec<&'t Node>, Cause> {
        let (registry, to) = (&self.effects.registry, self.to);
        let has = |node: &'t Node| async move {
            Ok::<_, Cause>((node, registry.has_manifest(to, node.descriptor.digest).await?))
        };
        if let Some(top) = tree.top()
            && has(top).await?.1
        {
            return Ok(Vec::new());
        }
        let (_, below) = tree.nodes.split_last().map_or((None, &[][..]), |(top, below)| (Some(top), below));
        let found = stream::iter(below.iter().map(has)).buffered(AT_ONCE);
        let found: Vec<(&Node, bool)> = found.try_collect().await?;
        let lacking = found.into_iter().filter(|(_, has)| !has).map(|(node, _)| node);
        Ok(lacking.chain(tree.top()).collect())
    }

    async fn blobs(&self, lacking: &[&Node]) -> Result<Moved, Cause> {
        let mut seen = BTreeSet::new();
        // What registries refuse to distribute has an address of its own.
        let wanted = |blob: &Descriptor| !blob.media_type.is_foreign();
        let each = lacking.iter().flat_map(|node| node.blobs.iter().map(move |blob| (*node, blob)));
        let each: Vec<_> = each.filter(|(_, blob)| wanted(blob) && seen.insert(blob.digest)).collect();
        let sent = stream::iter(each.into_iter().map(|(node, blob)| self.blob(node, blob)));
        let sent = sent.buffer_unordered(AT_ONCE);
        sent.try_fold(Moved::default(), |all, one| async move { Ok(all.and(one)) }).await
    }

    async fn blob(&self, node: &Node, blob: &Descriptor) -> Result<Moved, Cause> {
        let content = node.origin.content(blob)?;
        let same = |from: &&Reference| from.registry == self.to.registry;
        let mount_first = node.origin.reference().filter(same).map(|from| from.repository.as_str());
        let vertex = self.shown.digest();
        let (effects, registry) = (self.effects, &self.effects.registry);
        let push = BlobPush { effects, registry, vertex, to: self.to, blob, mount_first };
        push.run(content.as_content()).await.map_err(|cause| content.failed(cause))
    }
}

/// Something that refers to an image.
struct Referring {
    tree: Tree,
    /// The tag that it has; of others the `subject` tells.
    tag: Option<String>,
}

/// All that refers to the documents of an image, and what refers to that.
async fn referring(
    effects: &Arc<Effects>,
    origin: &Arc<Origin>,
    from: &Reference,
    image: &Tree,
) -> Result<Vec<Referring>, Cause> {
    let mut seen: BTreeSet<Digest> = image.nodes.iter().map(|node| node.descriptor.digest).collect();
    let mut asked: VecDeque<Digest> = seen.iter().copied().collect();
    let mut found = Found { of: from, all: Vec::new(), size_bytes: 0 };
    while let Some(subject) = asked.pop_front() {
        for descriptor in effects.registry.referrers(from, subject, None).await? {
            // Under the tag of one registry stands what another may list twice.
            if !seen.insert(descriptor.digest) {
                continue;
            }
            match origin.document(&descriptor).await {
                Ok(document) => found.add(origin, document, None).await?,
                // An index under a tag is not told when what it lists is deleted.
                Err(Cause::Registry(error)) if matches!(*error.fault, Fault::NotFound { .. }) => {
                    let gone = format!(
                        "{} is listed as referring to {subject}, and is not there",
                        descriptor.digest
                    );
                    effects.warn_once("referrer-gone", &gone);
                }
                Err(cause) => return Err(cause),
            }
            asked.push_back(descriptor.digest);
        }
        let tags = COSIGN.map(|kind| format!("{}.{kind}", referrers_tag(&subject)));
        let tagged = stream::iter(tags).map(|tag| tagged(effects, from, tag)).buffered(COSIGN.len());
        for (tag, document) in tagged.try_collect::<Vec<_>>().await?.into_iter().flatten() {
            if seen.insert(document.descriptor.digest) {
                asked.push_back(document.descriptor.digest);
                found.add(origin, document, Some(tag)).await?;
            }
        }
    }
    Ok(found.all)
}

/// What was found so far, all of it in memory.
struct Found<'a> {
    of: &'a Reference,
    all: Vec<Referring>,
    size_bytes: u64,
}

impl Found<'_> {
    async fn add(
        &mut self,
        origin: &Arc<Origin>,
        document: Document,
        tag: Option<String>,
    ) -> Result<(), Cause> {
        let mut tree = Tree::default();
        tree.add(origin, document).await?;
        self.size_bytes += tree.size_bytes();
        self.all.push(Referring { tree, tag });
        let limit = if self.all.len() > REFERRERS {
            format!("{REFERRERS} manifests that refer to it")
        } else if self.size_bytes > DOCUMENT_BYTES {
            format!("{} MiB of manifests that refer to it", DOCUMENT_BYTES >> 20)
        } else {
            return Ok(());
        };
        Err(TransferError::TooLarge { name: self.of.to_string(), limit }.into())
    }
}

async fn tagged(
    effects: &Arc<Effects>,
    from: &Reference,
    tag: String,
) -> Result<Option<(String, Document)>, Cause> {
    let name = Reference { tag: Some(tag.clone()), digest: None, ..from.clone() };
    match effects.registry.manifest(&name, None, Whom::Itself).await {
        Ok(document) => Ok(Some((tag, document))),
        Err(error) if matches!(*error.fault, Fault::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn send_referring(
    effects: &Arc<Effects>,
    found: &[Referring],
    to: &Reference,
    cancel: &Cancel,
) -> Result<(), Cause> {
    let shown = Internal::start(effects, &format!("copying what refers to it to {}", to.name()));
    let sending = Sending { effects, shown: &shown, to };
    let sent = async {
        let mut all = Sent::default();
        // One after the other: each may change the index that lists it.
        for one in found {
            let digest = one.tree.top().map(|top| top.descriptor.digest);
            let digest = digest.filter(|_| one.tag.is_none());
            let name = Reference { tag: one.tag.clone(), digest, ..to.clone() };
            let sent = sending.image(&one.tree, &[&name]).await?;
            if let (0, Some(top), None) = (sent.manifests, one.tree.top(), &one.tag) {
                // It may have come without being listed; putting it again lists it.
                effects.registry.push_document(&name, &top.descriptor.media_type, &top.bytes).await?;
            }
            let (manifests, present) = (all.manifests + sent.manifests, all.present + sent.present);
            all = Sent { manifests, present, moved: all.moved.and(sent.moved) };
        }
        Ok::<Sent, Cause>(all)
    };
    let sent = cancel.unless(sent).await;
    if let Ok(sent) = &sent {
        effects.say(shown.digest(), &format!("{sent}\n"));
    }
    shown.end(sent.as_ref().err());
    sent.map(drop)
}
