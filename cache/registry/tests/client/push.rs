//! What a registry is sent, and what its answers change.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, atomic::AtomicU64},
};

use bytes::Bytes;
use oci::{Descriptor, Digest, MediaType, Reference, media_type::Compression};
use registry::{Client, Content, PushOptions, Pushed, Sessions};

use crate::support::{Reply, Seen, Server, client};

/// Bytes that no two places of have alike.
pub fn bytes(length: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

pub fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor::of(MediaType::layer(Compression::Gzip), bytes)
}

pub fn options<'a>(mount_from: &'a [String], sessions: Option<&'a dyn Sessions>) -> PushOptions<'a> {
    PushOptions { mount_from, sessions, moved: Arc::new(AtomicU64::new(0)) }
}

/// A registry of one upload at a time: `twist` may answer in its place.
#[derive(Default)]
pub struct Upload {
    received: Vec<u8>,
    pub blobs: BTreeMap<String, Vec<u8>>,
    asked: usize,
}

pub type Twist = dyn Fn(usize, &Seen) -> Option<Reply> + Send + Sync;

pub async fn server(twist: Box<Twist>) -> (Server, Arc<Mutex<Upload>>) {
    let state = Arc::new(Mutex::new(Upload::default()));
    let shared = state.clone();
    let server = Server::start(move |seen| {
        let mut state = shared.lock().expect("no test panicked");
        state.asked += 1;
        match twist(state.asked, seen) {
            Some(reply) => reply,
            None => state.answer(seen),
        }
    })
    .await;
    (server, state)
}

impl Upload {
    fn answer(&mut self, seen: &Seen) -> Reply {
        let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
        let has = |received: &Vec<u8>| format!("0-{}", received.len().saturating_sub(1));
        match (seen.method.as_str(), path) {
            ("HEAD", path) => {
                let there = self.blobs.contains_key(path.trim_start_matches("/v2/app/blobs/"));
                Reply::new(if there { 200 } else { 404 }, "")
            }
            ("POST", "/v2/app/blobs/uploads/") => {
                self.received.clear();
                Reply::new(202, "").with("Location", "/upload/1?state=a")
            }
            ("GET", "/upload/1") => {
                Reply::new(204, "").with("Location", "/upload/1?state=b").with("Range", has(&self.received))
            }
            ("PATCH", "/upload/1") => {
                let range = seen.header("content-range").unwrap_or_default().to_owned();
                if range.split('-').next() != Some(&self.received.len().to_string()) {
                    return Reply::new(416, "");
                }
                self.received.extend_from_slice(&seen.bytes);
                Reply::new(202, "").with("Location", "/upload/1?state=c").with("Range", has(&self.received))
            }
            ("PUT", "/upload/1") => {
                self.received.extend_from_slice(&seen.bytes);
                let digest = Digest::of(&self.received);
                let wanted =
                    query.split('&').find_map(|pair| pair.strip_prefix("digest=")).unwrap_or_default();
                if wanted.replace("%3A", ":") != digest.to_string() {
                    return Reply::new(
                        400,
                        r#"{"errors":[{"code":"DIGEST_INVALID","message":"not those bytes"}]}"#,
                    );
                }
                self.blobs.insert(digest.to_string(), std::mem::take(&mut self.received));
                Reply::new(201, "")
            }
            _ => Reply::new(404, ""),
        }
    }
}

async fn push(server: &Server, content: &dyn Content, blob: &Descriptor) -> Result<Pushed, registry::Error> {
    let to: Reference = format!("{}/app", server.host).parse().expect("a name");
    client("").push_blob(&to, blob, content, &options(&[], None)).await
}

fn paths(server: &Server) -> Vec<String> {
    let short = |line: String| line.split('?').next().unwrap_or_default().to_owned();
    server.lines().into_iter().map(short).collect()
}

#[tokio::test]
async fn a_small_blob_is_one_put_and_a_large_one_goes_in_parts() {
    for (length, parts) in [(0, 0), (1, 0), (1 << 20, 0), ((1 << 20) + 1, 2), (5 << 19, 3)] {
        let (server, state) = server(Box::new(|_, _| None)).await;
        let bytes = bytes(length);
        let blob = descriptor(&bytes);
        let pushed = push(&server, &Bytes::from(bytes.clone()), &blob).await.expect("it is taken");
        assert_eq!(pushed, Pushed::Sent { from_byte: 0 });
        assert_eq!(state.lock().expect("held").blobs.get(&blob.digest.to_string()), Some(&bytes));
        let sent = paths(&server).iter().filter(|line| line.starts_with("PATCH")).count();
        assert_eq!(sent, parts, "{length}");
        let again = push(&server, &Bytes::from(bytes), &blob).await.expect("it is there");
        assert_eq!(again, Pushed::Present);
    }
}

#[tokio::test]
async fn what_passes_is_tried_again() {
    // Which request fails, and how: all but the last are 429 and 5xx at each place of the way.
    for (at, status) in [(1, 503), (2, 429), (3, 500), (4, 502), (5, 504)] {
        let (server, state) = server(Box::new(move |asked, _| {
            (asked == at).then(|| Reply::new(status, "").with("Retry-After", "0"))
        }))
        .await;
        let bytes = bytes(5 << 19);
        let blob = descriptor(&bytes);
        push(&server, &Bytes::from(bytes.clone()), &blob).await.unwrap_or_else(|e| panic!("{at}: {e}"));
        assert_eq!(state.lock().expect("held").blobs.get(&blob.digest.to_string()), Some(&bytes), "{at}");
    }
}

#[tokio::test]
async fn a_registry_that_takes_no_parts_is_given_all_at_once() {
    for status in [400, 404, 405, 416] {
        let (server, state) =
            server(Box::new(move |_, seen| (seen.method == "PATCH").then(|| Reply::new(status, "")))).await;
        let bytes = bytes(5 << 19);
        let blob = descriptor(&bytes);
        push(&server, &Bytes::from(bytes.clone()), &blob).await.expect("it is taken");
        assert_eq!(state.lock().expect("held").blobs.len(), 1);
        let expected = ["HEAD", "POST", "PATCH", "POST", "PUT"];
        let methods: Vec<String> = server.seen().iter().map(|seen| seen.method.clone()).collect();
        assert_eq!(methods, expected, "{status}");
    }
}

#[tokio::test]
async fn wrong_and_missing_bytes_are_not_pushed() {
    let (server, state) = server(Box::new(|_, _| None)).await;
    let right = bytes(3 << 20);
    let mut wrong = right.clone();
    wrong[7] ^= 1;
    let error = push(&server, &Bytes::from(wrong), &descriptor(&right)).await.expect_err("other bytes");
    assert!(error.to_string().contains("DIGEST_INVALID"), "{error}");
    let short = Bytes::copy_from_slice(&right[..right.len() - 1]);
    let error = push(&server, &short, &descriptor(&right)).await.expect_err("too few bytes");
    assert_eq!(error.code(), "blob-read");
    assert!(error.to_string().contains("1 bytes too early"), "{error}");
    assert!(state.lock().expect("held").blobs.is_empty());
}

#[tokio::test]
async fn the_login_stays_with_the_registry() {
    let other = Server::start(|_| Reply::new(201, "")).await;
    let target = format!("http://{}/store", other.host);
    let (server, _) = server(Box::new(move |_, seen| {
        if seen.header("authorization").is_none() {
            return Some(Reply::new(401, "").with("WWW-Authenticate", "Basic realm=x"));
        }
        (seen.method == "POST").then(|| Reply::new(202, "").with("Location", target.clone()))
    }))
    .await;
    let text = format!(r#"{{"auths":{{"{}":{{"username":"ada","password":"p"}}}}}}"#, server.host);
    let ada = Arc::new(registry::DockerConfig::parse(&text, "config.json", Vec::new()).expect("valid"));
    let client: Client = crate::support::client_as("", ada);
    let to: Reference = format!("{}/app", server.host).parse().expect("a name");
    let bytes = Bytes::from_static(b"x");
    client.push_blob(&to, &descriptor(&bytes), &bytes, &options(&[], None)).await.expect("it is taken");
    let seen = other.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].header("authorization"), None);
}

#[tokio::test]
async fn a_document_that_was_understood_otherwise_is_an_error() {
    for (told, goes) in [(Digest::of(b"{}"), true), (Digest::of(b"{ }"), false)] {
        let server =
            Server::start(move |_| Reply::new(201, "").with("Docker-Content-Digest", told.to_string())).await;
        let to: Reference = format!("{}/app:1", server.host).parse().expect("a name");
        let pushed = client("").push_document(&to, &MediaType::manifest(), b"{}").await;
        assert_eq!(pushed.is_ok(), goes);
        assert_eq!(server.lines(), ["PUT /v2/app/manifests/1"]);
        assert_eq!(server.seen()[0].header("content-type"), Some(MediaType::manifest().as_str()));
    }
}
