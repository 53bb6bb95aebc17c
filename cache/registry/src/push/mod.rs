//! Blobs and documents on their way to a registry (distribution-spec v1.1, § Push).
//!
//! A blob that is there is not sent, one that another repository of the registry has is mounted, and a large one goes in
//! parts, so that what arrived before a break is not sent again: the registry is asked how much it has. A registry that
//! takes no parts is given all of it at once.

mod content;
mod tag;
mod upload;

use std::sync::{Arc, atomic::AtomicU64};

use oci::{Descriptor, Digest, MediaType, Reference, Version};
use reqwest::{Method, StatusCode};

pub use content::{Content, FileContent, Pieces};

use crate::{
    Client,
    error::{Error, Fault, What},
    referrers::is_listed,
    route::Route,
    session::{Place, Question},
    token::Access,
    wire::{Sent, told_digest},
};
use upload::Upload;

/// How many repositories are tried to be mounted from: each costs a request.
const MOUNTS: usize = 3;

/// What helps a blob on its way.
pub struct PushOptions<'a> {
    /// Repositories of the same registry that may have the blob, likeliest first.
    pub mount_from: &'a [String],
    /// Where unfinished uploads are remembered; a later run takes them up.
    pub sessions: Option<&'a dyn Sessions>,
    /// Counts the bytes that were sent, those that had to be sent again included.
    pub moved: Arc<AtomicU64>,
}

/// A memory of unfinished uploads.
pub trait Sessions: Send + Sync {
    /// The address of an upload of this blob to this repository that was not finished.
    fn held(&self, registry: &str, repository: &str, blob: Digest) -> Option<String>;
    /// Remembers an upload; `None` when it ended.
    fn hold(&self, registry: &str, repository: &str, blob: Digest, address: Option<&str>);
}

/// How a blob came to be in a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Present,
    /// The registry took it from another of its repositories.
    Mounted {
        /// The other repository.
        from: String,
    },
    /// It was sent.
    Sent {
        /// The first byte that was sent: not 0 where an earlier upload was taken up.
        from_byte: u64,
    },
}

impl Client {
    /// Makes a repository have a blob.
    ///
    /// # Errors
    /// What the registry did, after the tries that [`crate::Limits`] allows, and [`Fault::Source`] when the bytes cannot be
    /// read or are fewer than the descriptor says. A blob whose bytes are not those of the digest is refused by the registry.
    pub async fn push_blob(
        &self,
        to: &Reference,
        blob: &Descriptor,
        content: &dyn Content,
        options: &PushOptions<'_>,
    ) -> Result<Pushed, Error> {
        let mut route = self.push_route(to, What::PushedBlob(blob.digest))?;
        if self.has(&mut route, blob.digest).await? {
            return Ok(Pushed::Present);
        }
        let mut upload = Upload::new(self, to, blob, content, options, route);
        for from in options.mount_from.iter().filter(|from| **from != to.repository).take(MOUNTS) {
            if upload.mount(from).await? {
                return Ok(Pushed::Mounted { from: from.clone() });
            }
        }
        upload.run().await
    }

    /// Whether a repository has a blob, by HEAD.
    async fn has(&self, route: &mut Route, blob: Digest) -> Result<bool, Error> {
        let path = format!("blobs/{blob}");
        let question = Question { access: &Access::PUSH, ..Question::read(Method::HEAD, &path) };
        loop {
            match self.ask(route.endpoint(), &question).await {
                Ok(_) => {
                    self.learn(route);
                    return Ok(true);
                }
                // A registry that has no such question is sent the blob.
                Err(Fault::NotFound { .. } | Fault::Status { status: 405, .. }) => {
                    self.learn(route);
                    return Ok(false);
                }
                Err(fault) => route.after(fault).await?,
            }
        }
    }

    /// Puts a manifest or an index under the name of `to`: its tag, or its digest where it has one. All that it names
    /// must be there. One that refers to another is listed there, by the registry or under the tag of the other's digest.
    ///
    /// # Errors
    /// What the registry did, and [`Fault::Digest`] when it understood other bytes than those that were sent.
    pub async fn push_document(
        &self,
        to: &Reference,
        media_type: &MediaType,
        bytes: &[u8],
    ) -> Result<(), Error> {
        match self.put_document(to, media_type, bytes).await? {
            true => Ok(()),
            false => self.tell_referrers(to, bytes, media_type).await,
        }
    }

    /// As [`Client::push_document`], and lists nothing. Whether the registry told that it did.
    pub(crate) async fn put_document(
        &self,
        to: &Reference,
        media_type: &MediaType,
        bytes: &[u8],
    ) -> Result<bool, Error> {
        let mut route = self.push_route(to, What::PushedImage)?;
        let digest = Digest::of(bytes);
        let path = match to.version() {
            Version::Tag(tag) => format!("manifests/{tag}"),
            Version::Digest(digest) => format!("manifests/{digest}"),
        };
        let moved = AtomicU64::new(0);
        let body = || reqwest::Body::from(bytes.to_vec());
        let sent = Sent {
            content_type: media_type.as_str(),
            length: bytes.len() as u64,
            first: None,
            body: &body,
            moved: &moved,
        };
        let question = Question {
            method: Method::PUT,
            place: Place::Below(&path),
            accept: None,
            from: None,
            sent: Some(&sent),
            access: &Access::PUSH,
        };
        loop {
            match self.ask(route.endpoint(), &question).await {
                Ok(response) => {
                    self.learn(&route);
                    let found = told_digest(response.headers());
                    let listed = is_listed(&response);
                    let Some(found) = found.filter(|found| *found != digest) else { return Ok(listed) };
                    return Err(route.fail(Fault::Digest { wanted: digest, found }));
                }
                Err(fault) => route.after(fault).await?,
            }
        }
    }
}

/// Whether an answer to a mount or a finished upload says that the blob is there.
fn is_created(status: StatusCode) -> bool {
    status == StatusCode::CREATED
}
