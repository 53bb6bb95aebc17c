//! What a copy from one registry to another needs: documents of any artifact, whether they are there already, and the
//! bytes of a blob as something to send.
//!
//! A blob goes through memory piece by piece, as fast as the slower side. Its digest is looked at here before the last
//! piece goes out, so that an upload of wrong bytes is never closed, whatever the registry that takes it checks.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use futures_util::stream;
use oci::{Descriptor, Digest, Hasher, Reference};
use reqwest::Method;

use crate::{
    Blob, Client, Content, Pieces,
    document::{ACCEPT, Document},
    error::{Error, Fault, What},
    resolve::Wanted,
    session::Question,
    token::Access,
};

/// So often the state of the digest is kept, so that a try that begins in the middle reads little twice.
const CHECKPOINT_BYTES: u64 = 8 << 20;

/// Who is asked for a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// The mirrors, then the registry.
    Anyone,
    /// The registry alone: what it has now is what counts.
    Itself,
}

impl Client {
    /// A manifest or an index of any artifact, by tag or digest. With `of`, that of this digest, and size and media type
    /// must be those of the descriptor.
    ///
    /// # Errors
    /// [`Error`]: it is not there, no index and no manifest, or not what its digest or descriptor says.
    pub async fn manifest(
        &self,
        reference: &Reference,
        of: Option<&Descriptor>,
        whom: Whom,
    ) -> Result<Document, Error> {
        let wanted = of.map_or_else(|| Wanted::of(reference), Wanted::by).of_any();
        let mut route = match whom {
            Whom::Anyone => self.route(reference, What::Image)?,
            Whom::Itself => self.push_route(reference, What::Image)?,
        };
        loop {
            match self.document_from(route.endpoint(), &wanted).await {
                Ok(document) => {
                    self.learn(&route);
                    return Ok(document);
                }
                Err(fault) => route.after(fault).await?,
            }
        }
    }

    /// Whether a repository has a manifest or an index, by HEAD. Its registry is asked, and no mirror.
    ///
    /// # Errors
    /// What the registry did instead of answering.
    pub async fn has_manifest(&self, repository: &Reference, digest: Digest) -> Result<bool, Error> {
        let path = format!("manifests/{digest}");
        let accept = Some(ACCEPT);
        let question = Question { accept, access: &Access::PUSH, ..Question::read(Method::HEAD, &path) };
        let mut route = self.push_route(repository, What::PushedImage)?;
        loop {
            match self.ask(route.endpoint(), &question).await {
                Ok(_) => {
                    self.learn(&route);
                    return Ok(true);
                }
                // A registry without that question, or without that repository, is sent what it may have.
                Err(Fault::NotFound { .. } | Fault::Status { status: 405, .. }) => {
                    self.learn(&route);
                    return Ok(false);
                }
                Err(fault) => route.after(fault).await?,
            }
        }
    }
}

/// A blob of a registry, to be sent to another.
pub struct RemoteContent {
    source: Arc<Source>,
}

struct Source {
    client: Client,
    from: Reference,
    blob: Descriptor,
    tap: tokio::sync::Mutex<Tap>,
    failed: Mutex<Option<Error>>,
}

/// The transfer that is open, shared by all tries: one that goes on where another stopped asks for nothing again.
#[derive(Default)]
struct Tap {
    open: Option<(Blob, Hasher)>,
    /// The piece that came last, and where it begins.
    last: Bytes,
    at: u64,
    /// States of the digest behind so many bytes.
    checkpoints: BTreeMap<u64, Hasher>,
}

impl RemoteContent {
    /// The blob of this descriptor in the repository of `from`. Nothing is asked before bytes are wanted.
    pub fn new(client: &Client, from: &Reference, blob: &Descriptor) -> RemoteContent {
        let (client, from, blob) = (client.clone(), from.clone(), blob.clone());
        let (tap, failed) = (tokio::sync::Mutex::default(), Mutex::default());
        RemoteContent { source: Arc::new(Source { client, from, blob, tap, failed }) }
    }

    /// Why its bytes could not be had, once: what a push fails with only says that they could not.
    pub fn take_error(&self) -> Option<Error> {
        self.source.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Content for RemoteContent {
    fn open(&self, from: u64) -> Pieces {
        let state = (self.source.clone(), from);
        Box::pin(stream::try_unfold(state, |(source, position)| async move {
            let bytes = source.piece(position).await?;
            Ok(bytes.map(|bytes| {
                let next = position + bytes.len() as u64;
                (bytes, (source, next))
            }))
        }))
    }
}

impl Source {
    /// The bytes at this position, as many as are at hand; `None` behind the last.
    async fn piece(&self, position: u64) -> io::Result<Option<Bytes>> {
        if position >= self.blob.size {
            return Ok(None);
        }
        let mut tap = self.tap.lock().await;
        loop {
            if let Some(bytes) = tap.held(position) {
                return Ok(Some(bytes));
            }
            if let Err(error) = self.fill(&mut tap, position).await {
                (tap.open, tap.last) = (None, Bytes::new());
                let why = error.to_string();
                *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                return Err(io::Error::other(why));
            }
        }
    }

    /// Reads one piece more, from a transfer that will come to the position.
    async fn fill(&self, tap: &mut Tap, position: u64) -> Result<(), Error> {
        let end = tap.at + tap.last.len() as u64;
        // A try that was dropped while it waited may have read a piece that nobody has.
        let fits = tap.open.as_ref().is_some_and(|(blob, _)| blob.received() == end && end <= position);
        if !fits {
            let (at, hasher) = tap.checkpoint(position);
            let blob = self.client.blob(&self.from, &self.blob)?.behind(at);
            tap.open = Some((blob, hasher));
            (tap.at, tap.last) = (at, Bytes::new());
        }
        let Some((blob, hasher)) = &mut tap.open else { return Ok(()) };
        let at = blob.received();
        // The size was looked at above: there are bytes before the end.
        let Some(bytes) = blob.chunk().await? else { return Ok(()) };
        hasher.update(&bytes);
        let end = at + bytes.len() as u64;
        if end == self.blob.size {
            let found = hasher.clone().finish();
            if found != self.blob.digest {
                return Err(blob.wrong(found));
            }
        }
        if end - tap.checkpoints.last_key_value().map_or(0, |(at, _)| *at) >= CHECKPOINT_BYTES {
            tap.checkpoints.insert(end, hasher.clone());
        }
        (tap.at, tap.last) = (at, bytes);
        Ok(())
    }
}

impl Tap {
    fn held(&self, position: u64) -> Option<Bytes> {
        let into = usize::try_from(position.checked_sub(self.at)?).ok()?;
        (into < self.last.len()).then(|| self.last.slice(into..))
    }

    /// The last place at or before the position from which the digest can go on.
    fn checkpoint(&self, position: u64) -> (u64, Hasher) {
        let before = self.checkpoints.range(..=position).next_back();
        before.map_or_else(|| (0, Hasher::new()), |(at, hasher)| (*at, hasher.clone()))
    }
}
