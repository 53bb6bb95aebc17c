//! One request on the wire: redirects followed, time limited, refusals read.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use oci::Digest;
use reqwest::{
    Method, Response, StatusCode, Url,
    header::{
        ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap,
        HeaderValue, LOCATION, RANGE,
    },
};
use serde::Deserialize;
use tokio::time::Instant;

use crate::{
    error::{Fault, Said},
    retry::retry_after,
    transport::{Transports, Trust, deepest},
};

/// How many redirects are followed.
const REDIRECTS: u32 = 10;

/// The fewest bytes in a second: a tenth of what the slowest modems brought.
const SLOWEST: f64 = 64.0;

/// How much of a refusal is read.
const REFUSAL_BYTES: u64 = 64 << 10;

/// One request.
#[derive(Clone)]
pub(crate) struct Call<'a> {
    pub method: Method,
    pub url: Url,
    pub trust: &'a Trust,
    /// Media types, separated by commas.
    pub accept: Option<&'a str>,
    /// The first byte that is wanted, when it is not the first that there is.
    pub from: Option<u64>,
    pub authorization: Option<HeaderValue>,
    /// The body of a POST, `application/x-www-form-urlencoded`.
    pub form: Option<String>,
    /// What else the request says.
    pub headers: HeaderMap,
    /// Another body.
    pub sent: Option<&'a Sent<'a>>,
}

/// A body that is sent, made anew for each try.
pub(crate) struct Sent<'a> {
    pub content_type: &'a str,
    /// Its length in bytes.
    pub length: u64,
    /// `Content-Range` of a part: its first byte; the last follows from the length.
    pub first: Option<u64>,
    /// The bytes. Whoever makes them counts in `moved` what has been taken of them.
    pub body: &'a (dyn Fn() -> reqwest::Body + Sync),
    /// How much went out so far, in this and earlier tries; a transfer that moves is not stalled.
    pub moved: &'a AtomicU64,
}

impl<'a> Call<'a> {
    pub(crate) fn get(url: Url, trust: &'a Trust) -> Call<'a> {
        Call {
            method: Method::GET,
            url,
            trust,
            accept: None,
            from: None,
            authorization: None,
            form: None,
            headers: HeaderMap::new(),
            sent: None,
        }
    }
}

/// What came back.
pub(crate) struct Answer {
    pub response: Response,
    /// Whether it is from the host that was asked, not from one that it redirected to.
    pub from_asked: bool,
}

impl Transports {
    /// Sends a request and follows redirects. Any status that is no redirect is an answer.
    ///
    /// The login goes to the host that was asked and to no other, whatever a redirect says.
    pub(crate) async fn send(&self, mut call: Call<'_>, idle: Duration) -> Result<Answer, Fault> {
        let asked = call.url.origin();
        for _ in 0..=REDIRECTS {
            let response = self.send_once(&call, idle).await?;
            let followed = matches!(call.method, Method::GET | Method::HEAD);
            if !followed || !is_redirect(response.status()) {
                return Ok(Answer { response, from_asked: call.url.origin() == asked });
            }
            call.url = target(&call.url, response.headers())?;
            if call.url.origin() != asked {
                call.authorization = None;
            }
        }
        Err(Fault::Redirect { to: host_of(&call.url), why: "after too many other redirects" })
    }

    async fn send_once(&self, call: &Call<'_>, idle: Duration) -> Result<Response, Fault> {
        let client = self.client(&call.url, call.trust).await?;
        // A body that is compressed on the way would have another digest and no ranges.
        let mut request =
            client.request(call.method.clone(), call.url.clone()).header(ACCEPT_ENCODING, "identity");
        request = request.headers(call.headers.clone());
        if let Some(accept) = call.accept {
            request = request.header(ACCEPT, accept);
        }
        if let Some(from) = call.from {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        if let Some(authorization) = &call.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Some(form) = &call.form {
            request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form.clone());
        }
        if let Some(sent) = call.sent {
            request = request.header(CONTENT_TYPE, sent.content_type).header(CONTENT_LENGTH, sent.length);
            if let Some(first) = sent.first {
                // Not RFC 9110's form: the distribution specification has the bare bounds.
                let last = (first + sent.length).saturating_sub(1);
                request = request.header(CONTENT_RANGE, format!("{first}-{last}"));
            }
            request = request.body((sent.body)());
        }
        // The time to connect has a limit of its own, so that a host that never speaks TLS counts as
        // unreachable.
        let longest = self.connect_limit() + idle;
        let response = std::pin::pin!(request.send());
        answered(response, call.sent.map(|sent| sent.moved), longest).await.map_err(|fault| match fault {
            Fault::Unreachable { why, firm, .. } => {
                Fault::Unreachable { proxy: self.proxy_of(&call.url), why, firm }
            }
            other => other,
        })
    }
}

/// Waits for a response, as long as bytes go out or for `longest` after the last.
async fn answered(
    mut response: std::pin::Pin<&mut impl Future<Output = reqwest::Result<Response>>>,
    moved: Option<&AtomicU64>,
    longest: Duration,
) -> Result<Response, Fault> {
    let count = || moved.map_or(0, |moved| moved.load(Ordering::Relaxed));
    loop {
        let before = count();
        match tokio::time::timeout(longest, response.as_mut()).await {
            Ok(result) => return result.map_err(network_fault),
            Err(_) if count() > before => {}
            Err(_) => return Err(Fault::Stalled { after: longest }),
        }
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

pub(crate) fn target(from: &Url, headers: &HeaderMap) -> Result<Url, Fault> {
    let text = headers.get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let bad = |why| Fault::Redirect { to: format!("`{}`", clean(text, 200)), why };
    let url = from.join(text).map_err(|_| bad("which is no address"))?;
    match (from.scheme(), url.scheme()) {
        _ if text.is_empty() => Err(bad("which is no address")),
        (_, "https") | ("http", "http") => Ok(url),
        (_, "http") => {
            Err(Fault::Redirect { to: host_of(&url), why: "which would lose the protection of TLS" })
        }
        _ => Err(bad("which is neither HTTP nor HTTPS")),
    }
}

/// Scheme, host and port. Paths and queries of storage services hold signatures, so they are not told.
pub(crate) fn host_of(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// How fast a body comes. A server that sends a byte now and then is never idle, and has no end.
#[derive(Debug)]
pub(crate) struct Pace {
    since: Instant,
    bytes: u64,
}

impl Pace {
    /// Begins to count.
    pub(crate) fn new() -> Pace {
        Pace { since: Instant::now(), bytes: 0 }
    }

    /// Looks at what came, once in twice the time that a server may send nothing.
    fn came(&mut self, bytes: usize, idle: Duration) -> Result<(), Fault> {
        self.bytes += bytes as u64;
        let after = self.since.elapsed();
        if after < 2 * idle {
            return Ok(());
        }
        let came = std::mem::replace(self, Pace::new()).bytes;
        match (came as f64) < after.as_secs_f64() * SLOWEST {
            true => Err(Fault::Slow { bytes: came, after }),
            false => Ok(()),
        }
    }
}

/// The next bytes of a body; `None` at its end.
pub(crate) async fn chunk(
    response: &mut Response,
    pace: &mut Pace,
    idle: Duration,
) -> Result<Option<Bytes>, Fault> {
    match tokio::time::timeout(idle, response.chunk()).await {
        Err(_) => Err(Fault::Stalled { after: idle }),
        Ok(Err(error)) => Err(Fault::Broken { why: deepest(&error.without_url()) }),
        Ok(Ok(bytes)) => {
            pace.came(bytes.as_ref().map_or(0, Bytes::len), idle)?;
            Ok(bytes)
        }
    }
}

/// A whole body of at most `limit` bytes.
pub(crate) async fn body(mut response: Response, limit: u64, idle: Duration) -> Result<Vec<u8>, Fault> {
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(Fault::TooLarge { limit });
    }
    let mut body = Vec::new();
    let mut pace = Pace::new();
    while let Some(bytes) = chunk(&mut response, &mut pace, idle).await? {
        if body.len() as u64 + bytes.len() as u64 > limit {
            return Err(Fault::TooLarge { limit });
        }
        body.extend_from_slice(&bytes);
    }
    Ok(body)
}

/// The fault that a response without success is. `login` tells whether it was asked for with one.
pub(crate) async fn refusal(response: Response, login: bool, idle: Duration) -> Fault {
    let status = response.status().as_u16();
    let after = retry_after(response.headers());
    // A refusal that cannot be read is a refusal all the same.
    let said = body(response, REFUSAL_BYTES, idle).await.map(|bytes| said(&bytes)).unwrap_or_default();
    match status {
        401 => Fault::Unauthorized { login, said },
        403 => Fault::Denied { login, said },
        404 => Fault::NotFound { said },
        429 => Fault::TooManyRequests { after, said },
        _ => Fault::Status { status, after, said },
    }
}

/// What a registry or a token server says in the body of a refusal.
///
/// The shape is distribution-spec v1.1, § Error Codes, read leniently: registries use codes of their own,
/// and a code that we do not know must not hide the message.
fn said(bytes: &[u8]) -> Said {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        errors: Vec<Entry>,
        #[serde(default)]
        details: Option<serde_json::Value>,
        #[serde(default)]
        error: Option<serde_json::Value>,
        #[serde(default)]
        error_description: Option<String>,
    }
    #[derive(Default, Deserialize)]
    struct Entry {
        #[serde(default)]
        code: serde_json::Value,
        #[serde(default)]
        message: Option<String>,
    }
    let text = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => clean(text, 300),
        serde_json::Value::Null => String::new(),
        other => clean(&other.to_string(), 300),
    };
    if let Ok(mut body) = serde_json::from_slice::<Body>(bytes) {
        if !body.errors.is_empty() {
            let first = body.errors.swap_remove(0);
            return Said { code: text(&first.code), message: clean(&first.message.unwrap_or_default(), 300) };
        }
        // Docker's token server says `details`, OAuth 2 (RFC 6749, § 5.2) says `error`.
        let code = body.error.as_ref().map(&text).unwrap_or_default();
        let message = body.error_description.map(serde_json::Value::String).or(body.details);
        return Said { code, message: message.as_ref().map(&text).unwrap_or_default() };
    }
    let line = String::from_utf8_lossy(bytes);
    let line = line.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    // A page for a browser tells a person nothing.
    let message = if line.starts_with('<') { String::new() } else { clean(line, 200) };
    Said { code: String::new(), message }
}

/// Without control characters, which could move a terminal's cursor, and not longer than a reader wants.
pub(crate) fn clean(text: &str, longest: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(longest).collect()
}

/// The digest that a registry says its answer has. Not believed, only compared.
pub(crate) fn told_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get("docker-content-digest")?.to_str().ok()?.parse().ok()
}

fn network_fault(error: reqwest::Error) -> Fault {
    let (connect, timeout, firm) = (error.is_connect(), error.is_timeout(), error.is_dns());
    let why = deepest(&error.without_url());
    // The TLS library's error is wrapped in an I/O error by a crate between; its words are all that is left
    // of its type.
    let tls = [
        "invalid peer certificate",
        "received fatal alert",
        "received corrupt message",
        "peer is incompatible",
    ];
    if tls.iter().any(|words| why.contains(words)) {
        return Fault::Tls { why };
    }
    if connect {
        // A host that nobody can reach takes the whole limit each time.
        let firm = firm || timeout || why.contains("refused");
        let why = if timeout { "it did not answer in time".to_owned() } else { why };
        return Fault::Unreachable { proxy: None, why, firm };
    }
    Fault::Broken { why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_read() {
        for (body, code, message) in [
            (
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"unknown","detail":{"Tag":"x"}}]}"#,
                "MANIFEST_UNKNOWN",
                "unknown",
            ),
            (r#"{"errors":[{"code":"OUR_OWN","message":null}]}"#, "OUR_OWN", ""),
            (r#"{"errors":[{"code":403}]}"#, "403", ""),
            (r#"{"details":"incorrect username or password"}"#, "", "incorrect username or password"),
            (r#"{"error":"invalid_grant","error_description":"expired"}"#, "invalid_grant", "expired"),
            ("\n  Client sent an HTTP request.\nx", "", "Client sent an HTTP request."),
            ("<html>\n<body>", "", ""),
            ("a\x1b[2Jb", "", "a[2Jb"),
            ("", "", ""),
            ("plain words", "", "plain words"),
        ] {
            assert_eq!(said(body.as_bytes()), Said { code: code.into(), message: message.into() }, "{body}");
        }
    }

    #[test]
    fn redirects_keep_their_protection() {
        let location =
            |text: &str| [(LOCATION, text.parse().expect("a header"))].into_iter().collect::<HeaderMap>();
        for (from, to, goes) in [
            ("https://a.example/v2/", "https://b.example/x?sig=1", true),
            ("https://a.example/v2/", "/x", true),
            ("http://127.0.0.1:1/v2/", "http://127.0.0.1:2/x", true),
            ("https://a.example/v2/", "http://a.example/x", false),
            ("https://a.example/v2/", "file:///etc/passwd", false),
            ("https://a.example/v2/", "", false),
        ] {
            let from = from.parse().expect("an address");
            assert_eq!(target(&from, &location(to)).is_ok(), goes, "{to}");
        }
        assert!(target(&"https://a.example".parse().expect("an address"), &HeaderMap::new()).is_err());
    }
}
