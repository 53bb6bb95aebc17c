//! The bytes of a blob, as they come.

use bytes::Bytes;
use oci::{Descriptor, Digest, Hasher, Reference};
use reqwest::{
    Method, Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap},
};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::{
    Client,
    error::{Error, Fault, What},
    route::Route,
    session::Question,
    wire::{Pace, chunk},
};

/// So many bytes must have come for earlier failures to be forgotten: a server that breaks off after every
/// byte is not asked for ever.
const PROGRESS_BYTES: u64 = 1 << 20;

/// A blob on its way: read it with [`Blob::chunk`] until it gives `None`.
///
/// A connection that breaks is taken up again at the byte where it broke, at the same host or the next.
/// Dropping it ends the transfer.
///
/// The bytes are not proven to be right before the end: act on them only in ways that can be undone.
pub struct Blob {
    client: Client,
    wanted: Descriptor,
    route: Route,
    /// Who looks at the digest: this, or with `None` the caller.
    hasher: Option<Hasher>,
    received: u64,
    /// `received` when the last failure was.
    failed_at: u64,
    /// Whether the rest is asked for by itself. No more once a server could not answer that.
    ranges: bool,
    state: State,
}

enum State {
    /// No response is open.
    Closed,
    /// A response is open; that many of its next bytes are known already.
    Open { response: Response, known: u64, pace: Pace },
    /// All came and was right.
    Done,
}

impl Client {
    /// The bytes of a blob of a repository. Nothing is asked before the first [`Blob::chunk`].
    ///
    /// # Errors
    /// [`Fault::Setup`] when the reference's registry is no host.
    pub fn blob(&self, reference: &Reference, descriptor: &Descriptor) -> Result<Blob, Error> {
        Blob::new(self, reference, descriptor, What::Blob(descriptor.digest))
    }

    /// Writes a blob to `sink` and flushes it. `progress` is told how many bytes have come, after each piece.
    ///
    /// # Errors
    /// Those of [`Blob::chunk`], and [`Fault::Sink`]. The sink then holds a part, or bytes that are wrong;
    /// the caller throws them away.
    pub async fn download(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        mut sink: impl AsyncWrite + Unpin,
        mut progress: impl FnMut(u64),
    ) -> Result<(), Error> {
        let mut blob = self.blob(reference, descriptor)?;
        while let Some(bytes) = blob.chunk().await? {
            sink.write_all(&bytes).await.map_err(|error| blob.route.fail(Fault::Sink(error)))?;
            progress(blob.received());
        }
        sink.flush().await.map_err(|error| blob.route.fail(Fault::Sink(error)))
    }
}

impl Blob {
    pub(crate) fn new(
        client: &Client,
        reference: &Reference,
        wanted: &Descriptor,
        what: What,
    ) -> Result<Blob, Error> {
        Ok(Blob {
            client: client.clone(),
            wanted: wanted.clone(),
            route: client.route(reference, what)?,
            hasher: Some(Hasher::new()),
            received: 0,
            failed_at: 0,
            ranges: true,
            state: State::Closed,
        })
    }

    /// Goes on behind `length` bytes that the caller has, for instance in a file that an earlier run left, and leaves the
    /// digest to the caller, who hashes what is written anyway: bytes that are not those of the descriptor end as if they
    /// were, and [`Blob::wrong`] makes the error.
    pub fn behind(self, length: u64) -> Blob {
        Blob { hasher: None, received: length, failed_at: length, state: State::Closed, ..self }
    }

    /// The error of a blob whose bytes turned out to have another digest.
    pub fn wrong(&self, found: Digest) -> Error {
        self.route.fail(Fault::Digest { wanted: self.wanted.digest, found })
    }

    /// When some of the bytes are a mirror's and they turned out to have another digest: passes that mirror over, so that
    /// asking again from the first byte gets others. Whether there was one.
    pub fn pass_over_mirrors(&self, found: Digest) -> bool {
        self.route.pass_over_all(&Fault::Digest { wanted: self.wanted.digest, found })
    }

    /// How many bytes have come, those of [`Blob::behind`] included.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The next bytes, never an empty piece; no byte is lost when the future is dropped. `None`: all have
    /// come, and size and digest are those of the descriptor; after [`Blob::behind`] only the size is.
    ///
    /// # Errors
    /// [`Fault::Size`] or [`Fault::Digest`] when they are not; otherwise what the last host did, after the
    /// tries that [`crate::Limits`] allows. Calling it again after an error asks again.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            match self.step().await {
                Ok(Step::Bytes(bytes)) => return Ok(Some(bytes)),
                Ok(Step::End) => return Ok(None),
                Ok(Step::Opened) => {}
                // Bytes that are wrong were handed out already; nobody else can mend that.
                Err(fault @ Fault::Digest { .. }) => return Err(self.route.fail(fault)),
                Err(fault) => {
                    self.state = State::Closed;
                    if self.ranges && self.received > 0 && is_about_range(&fault) {
                        self.ranges = false;
                        continue;
                    }
                    if self.received - self.failed_at >= PROGRESS_BYTES {
                        self.route.progressed();
                    }
                    self.failed_at = self.received;
                    self.route.after(fault).await?;
                }
            }
        }
    }

    /// All bytes; for blobs whose size was looked at.
    pub(crate) async fn collect(mut self) -> Result<Vec<u8>, Error> {
        let mut all = Vec::new();
        while let Some(bytes) = self.chunk().await? {
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }

    async fn step(&mut self) -> Result<Step, Fault> {
        let wanted = self.wanted.size;
        match &mut self.state {
            State::Done => Ok(Step::End),
            State::Closed if self.received == wanted => self.finish(),
            State::Closed => self.open().await.map(|()| Step::Opened),
            State::Open { response, known, pace } => {
                let Some(mut bytes) = chunk(response, pace, self.client.limits().idle).await? else {
                    if self.received < wanted {
                        return Err(Fault::Size { wanted, found: self.received });
                    }
                    return self.finish();
                };
                let skipped = (*known).min(bytes.len() as u64);
                *known -= skipped;
                let bytes = bytes.split_off(skipped as usize);
                if bytes.is_empty() {
                    return Ok(Step::Opened);
                }
                let found = self.received + bytes.len() as u64;
                if found > wanted {
                    return Err(Fault::Size { wanted, found });
                }
                if let Some(hasher) = &mut self.hasher {
                    hasher.update(&bytes);
                }
                self.received = found;
                Ok(Step::Bytes(bytes))
            }
        }
    }

    fn finish(&mut self) -> Result<Step, Fault> {
        if let Some(hasher) = &self.hasher {
            let (wanted, found) = (self.wanted.digest, hasher.clone().finish());
            if found != wanted {
                return Err(Fault::Digest { wanted, found });
            }
        }
        self.state = State::Done;
        Ok(Step::End)
    }

    async fn open(&mut self) -> Result<(), Fault> {
        let path = format!("blobs/{}", self.wanted.digest);
        let from = Some(self.received).filter(|received| self.ranges && *received > 0);
        let question = Question { from, ..Question::read(Method::GET, &path) };
        let response = self.client.ask(self.route.endpoint(), &question).await?;
        let partial = response.status() == StatusCode::PARTIAL_CONTENT;
        let first = if partial { first_byte(response.headers(), self.received)? } else { 0 };
        check_length(response.headers(), first, self.wanted.size)?;
        self.client.learn(&self.route);
        // A server that knows no ranges sends all from the start.
        self.state = State::Open { response, known: self.received - first, pace: Pace::new() };
        Ok(())
    }
}

enum Step {
    Bytes(Bytes),
    Opened,
    End,
}

/// Where a 206 begins (RFC 9110, § 14.4): `bytes 100-199/200`. Earlier than wanted is fine, later is not.
fn first_byte(headers: &HeaderMap, wanted: u64) -> Result<u64, Fault> {
    let answered = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let first =
        answered.strip_prefix("bytes ").and_then(|rest| rest.split_once('-')).map(|(first, _)| first.trim());
    match first.and_then(|first| first.parse().ok()) {
        Some(first) if first <= wanted => Ok(first),
        _ => Err(Fault::Range { wanted, answered: crate::wire::clean(answered, 100) }),
    }
}

/// Whether a server could not answer a question for a part: asked for all, it may.
fn is_about_range(fault: &Fault) -> bool {
    matches!(fault, Fault::Range { .. } | Fault::Status { status: 416, .. })
}

/// Refuses a body of the wrong length before its bytes are handed out.
fn check_length(headers: &HeaderMap, first: u64, wanted: u64) -> Result<(), Fault> {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    match length.map(|length| first.saturating_add(length)).filter(|found| *found != wanted) {
        Some(found) => Err(Fault::Size { wanted, found }),
        None => Ok(()),
    }
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digest: Digest = self.wanted.digest;
        f.debug_struct("Blob")
            .field("digest", &digest)
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_begins_where_it_was_asked_for_or_before() {
        for (text, first) in [
            ("bytes 5-9/10", Some(5)),
            ("bytes 0-9/*", Some(0)),
            ("bytes 6-9/10", None),
            ("bytes */10", None),
            ("", None),
        ] {
            let headers = [(CONTENT_RANGE, text.parse().expect("a header"))].into_iter().collect();
            assert_eq!(first_byte(&headers, 5).ok(), first, "{text}");
        }
    }
}
