//! One file over http or https.
//!
//! [`get`] asks once for a file, with what is known of an earlier answer. The server may say that nothing has changed in two ways: 304,
//! or a header that shows the same `ETag`; some servers send tags and do not understand `If-None-Match`. Else there is a
//! [`Body`] to read, which goes on where a connection broke.
//!
//! Two bodies are joined only where both are of one version: the server says so by a strong `ETag` (RFC 9110, § 13.1.5), or whoever asks
//! will check the digest of all of it.

use std::io::{self, Write};

use bytes::Bytes;
use registry::{Client, Fault, Secret, WebAnswer, WebRequest};
use tokio::time::sleep;

use crate::{Error, shown};

/// So many bytes must have come for earlier failures to be forgotten: a server that breaks off after every byte is not
/// asked for ever.
const PROGRESS_BYTES: u64 = 1 << 20;

/// A longer `ETag` is not taken for one: a server that sends what it refuses to read would be asked in vain from then on.
const LONGEST_TAG: usize = 1024;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct File<'a> {
    /// The address.
    pub url: &'a str,
    /// The value of `Authorization`.
    pub authorization: Option<&'a Secret>,
    /// What an earlier answer said of its version.
    pub known: Option<&'a Version>,
    /// Whether the bytes will be compared with a digest: then what comes later is joined to what came earlier, whatever the
    /// server says of versions.
    pub pinned: bool,
}

/// What a server says of the version of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// `ETag`, as it stands in the header.
    pub etag: Option<String>,
    /// `Last-Modified`, as it stands in the header; none where the file may have changed again in the second that it names.
    pub unchanged_since: Option<String>,
    /// `Last-Modified`, in seconds since 1970.
    pub modified: Option<u64>,
}

/// What came back.
#[derive(Debug)]
pub enum Answer {
    /// The file is what it was.
    Unchanged,
    /// Here it is.
    Body(Box<Body>),
}

/// Where a body is written to.
pub trait Sink: Write {
    /// How many bytes are there, those of an earlier attempt included.
    fn length(&self) -> u64;

    /// Throws away what is there.
    ///
    /// # Errors
    /// It cannot be thrown away.
    fn restart(&mut self) -> io::Result<()>;
}

/// A file on its way.
#[derive(Debug)]
pub struct Body {
    client: Client,
    url: String,
    authorization: Option<Secret>,
    pinned: bool,
    version: Version,
    answer: WebAnswer,
    total: Option<u64>,
    failures: u32,
    joined: bool,
}

/// Asks for a file, and again as long as failures may pass.
///
/// # Errors
/// [`Error::Http`].
pub async fn get(client: &Client, file: &File<'_>) -> Result<Answer, Error> {
    let mut failures = 0;
    let answer = loop {
        match client.web(&request(file, None, None)).await {
            Ok(answer) => break answer,
            Err(fault) => wait(client, file.url, fault, &mut failures).await?,
        }
    };
    let version = version(&answer);
    let same_tag = |known: &Version| known.etag.is_some() && weak(&known.etag) == weak(&version.etag);
    if answer.status() == 304 || file.known.is_some_and(same_tag) {
        return Ok(Answer::Unchanged);
    }
    Ok(Answer::Body(Box::new(Body {
        client: client.clone(),
        url: file.url.to_owned(),
        authorization: file.authorization.cloned(),
        pinned: file.pinned,
        version,
        total: answer.length(),
        answer,
        failures,
        joined: false,
    })))
}

impl Body {
    /// What the server says of its version.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// How many bytes it has, where the server says so.
    pub fn length(&self) -> Option<u64> {
        self.total
    }

    /// A text that stands for this version alone: what an earlier download under the same text left is its beginning. None where the server says too
    /// little.
    pub fn strong_tag(&self) -> Option<&str> {
        self.version.etag.as_deref().filter(|tag| !tag.starts_with("W/"))
    }

    /// Whether what was read is joined of two answers.
    pub fn was_joined(&self) -> bool {
        self.joined
    }

    /// Reads all of it into `sink`, behind what is there if that is of the same version. `told` is called with the number of bytes
    /// that are there after each piece.
    ///
    /// # Errors
    /// [`Error::Http`] once failures have not passed; [`Error::Io`] where the sink cannot be written. The sink then holds what has come.
    pub async fn read(&mut self, sink: &mut dyn Sink, told: &mut dyn FnMut(u64)) -> Result<(), Error> {
        if sink.length() > 0 && !self.go_on(sink).await? {
            return Ok(());
        }
        // The furthest that a failed attempt came: to come as far once more is no progress.
        let mut furthest = sink.length();
        loop {
            match self.answer.chunk().await {
                Ok(Some(bytes)) => {
                    self.write(sink, &bytes)?;
                    told(sink.length());
                    if sink.length() > furthest + PROGRESS_BYTES {
                        (self.failures, furthest) = (0, sink.length());
                    }
                }
                Ok(None) if self.total.is_none_or(|total| sink.length() >= total) => return Ok(()),
                other => {
                    let fault =
                        other.err().unwrap_or_else(|| Fault::Broken { why: "it ended early".to_owned() });
                    furthest = furthest.max(sink.length());
                    wait(&self.client, &self.url, fault, &mut self.failures).await?;
                    if !self.go_on(sink).await? {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn write(&self, sink: &mut dyn Sink, bytes: &Bytes) -> Result<(), Error> {
        sink.write_all(bytes).map_err(Error::io("write", shown(&self.url)))
    }

    /// Asks for the rest behind what the sink holds, or for all of it where parts may not be joined. Whether there is a rest.
    async fn go_on(&mut self, sink: &mut dyn Sink) -> Result<bool, Error> {
        let tag = self.strong_tag().map(str::to_owned);
        if tag.is_none() && !self.pinned {
            return self.start_again(sink).await;
        }
        let from = sink.length();
        if from == 0 {
            return self.start_again(sink).await;
        }
        let answer = self.ask(Some(from), tag.as_deref()).await?;
        match answer.status() {
            206 if first_byte(answer.header("content-range")) == Some(from) => {
                self.total = answer.length().map(|length| from + length);
                (self.answer, self.joined) = (answer, true);
                Ok(true)
            }
            // All of it is there.
            416 if whole_length(answer.header("content-range")) == Some(from) => {
                self.joined = true;
                Ok(false)
            }
            200 => {
                sink.restart().map_err(Error::io("write", shown(&self.url)))?;
                self.take(answer);
                Ok(true)
            }
            _ => self.start_again(sink).await,
        }
    }

    async fn start_again(&mut self, sink: &mut dyn Sink) -> Result<bool, Error> {
        let answer = self.ask(None, None).await?;
        sink.restart().map_err(Error::io("write", shown(&self.url)))?;
        self.joined = false;
        self.take(answer);
        Ok(true)
    }

    fn take(&mut self, answer: WebAnswer) {
        self.version = version(&answer);
        self.total = answer.length();
        self.answer = answer;
    }

    async fn ask(&mut self, from: Option<u64>, tag: Option<&str>) -> Result<WebAnswer, Error> {
        loop {
            let file = File {
                url: &self.url,
                authorization: self.authorization.as_ref(),
                known: None,
                pinned: self.pinned,
            };
            match self.client.web(&request(&file, from, tag)).await {
                Ok(answer) => return Ok(answer),
                Err(fault) => wait(&self.client, &self.url, fault, &mut self.failures).await?,
            }
        }
    }
}

fn request<'a>(file: &File<'a>, from: Option<u64>, tag: Option<&str>) -> WebRequest<'a> {
    let mut headers = Vec::new();
    if let Some(known) = file.known {
        headers.extend(known.etag.clone().map(|tag| ("if-none-match", tag)));
        headers.extend(known.unchanged_since.clone().map(|date| ("if-modified-since", date)));
    }
    headers.extend(tag.map(|tag| ("if-range", tag.to_owned())));
    WebRequest { url: file.url, headers, authorization: file.authorization, from }
}

async fn wait(client: &Client, url: &str, fault: Fault, failures: &mut u32) -> Result<(), Error> {
    match client.wait_after(&fault, *failures) {
        Some(wait) => sleep(wait).await,
        None => {
            return Err(Error::Http {
                url: shown(url),
                host: host(url).to_owned(),
                fault: Box::new(fault),
                known: None,
            });
        }
    }
    *failures += 1;
    Ok(())
}

/// The host of an address, without login and port: the name that its secrets go by.
pub fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match host.strip_prefix('[') {
        Some(six) => six.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    }
}

fn version(answer: &WebAnswer) -> Version {
    let text = |name: &str| answer.header(name).map(|value| value.trim().to_owned());
    let modified = answer.date("last-modified");
    // A file that was changed in this very second may be changed once more in it (RFC 9110, § 8.8.2.2).
    let settled = matches!((modified, answer.date("date")), (Some(at), Some(now)) if at + 1 < now);
    Version {
        etag: text("etag").filter(|tag| tag.contains('"') && tag.len() <= LONGEST_TAG),
        unchanged_since: text("last-modified").filter(|_| settled),
        modified,
    }
}

/// A tag as it is compared: a weak one, too, says that nothing has changed, as BuildKit has it.
fn weak(tag: &Option<String>) -> Option<&str> {
    tag.as_deref().map(|tag| tag.strip_prefix("W/").unwrap_or(tag))
}

/// `bytes 100-199/200` begins at 100.
fn first_byte(range: Option<&str>) -> Option<u64> {
    range?.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}

/// `bytes */200` is of 200 bytes.
fn whole_length(range: Option<&str>) -> Option<u64> {
    range?.strip_prefix("bytes */")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_addresses() {
        for (url, wanted) in [
            ("https://u:p@h.example:8443/a@b?c", "h.example"),
            ("http://[::1]:80/x", "::1"),
            ("http://127.0.0.1", "127.0.0.1"),
            ("https://h?x@y", "h"),
        ] {
            assert_eq!(host(url), wanted, "{url}");
        }
    }

    #[test]
    fn ranges_are_read() {
        assert_eq!(first_byte(Some("bytes 5-9/10")), Some(5));
        assert_eq!(first_byte(Some("bytes */10")), None);
        assert_eq!(whole_length(Some("bytes */10")), Some(10));
        assert_eq!(whole_length(Some("bytes 0-9/10")), None);
        assert_eq!((first_byte(None), whole_length(None)), (None, None));
    }
}
