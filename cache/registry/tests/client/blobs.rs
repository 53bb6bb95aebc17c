//! Blobs over connections that break, from servers that lie.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::support::{Reply, Seen, Server, client};
use oci::{Descriptor, Digest, MediaType, Reference};
use registry::{Anonymous, Client, Error, Fault, Proxies, Secret, Settings};

fn reference(server: &Server) -> Reference {
    format!("{}/app:1", server.host).parse().expect("a reference")
}

/// Bytes that differ everywhere, so that a part in the wrong place is seen.
fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 256 + at * 7) as u8).collect()
}

fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor::of(MediaType("application/octet-stream".into()), bytes)
}

async fn download(client: &Client, server: &Server, wanted: &Descriptor) -> Result<Vec<u8>, Error> {
    let mut all = Vec::new();
    let mut told = 0;
    client.download(&reference(server), wanted, &mut all, |received| told = received).await?;
    assert_eq!(told, all.len() as u64);
    Ok(all)
}

/// The first byte of a `Range` header.
fn from(seen: &Seen) -> Option<usize> {
    seen.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}

fn ranged(seen: &Seen, all: &[u8]) -> Reply {
    match from(seen) {
        None => Reply::new(200, all),
        Some(first) => Reply::new(206, &all[first..])
            .with("Content-Range", format!("bytes {first}-{}/{}", all.len() - 1, all.len())),
    }
}

#[tokio::test]
async fn a_blob_comes_whole() {
    for (length, chunked) in [(0, false), (1, false), (300_000, false), (300_000, true)] {
        let all = bytes(length);
        let wanted = descriptor(&all);
        let server = Server::start(move |_| Reply { chunked, ..Reply::new(200, all.as_slice()) }).await;
        assert_eq!(download(&client(""), &server, &wanted).await.expect("it comes"), bytes(length));
    }
}

#[tokio::test]
async fn a_broken_transfer_goes_on_where_it_broke() {
    let all = bytes(300_000);
    let wanted = descriptor(&all);
    let served = all.clone();
    let server = Server::start(move |seen| Reply { cut: Some(100_000), ..ranged(seen, &served) }).await;
    assert_eq!(download(&client(""), &server, &wanted).await.expect("it comes"), all);
    let ranges: Vec<Option<usize>> = server.seen().iter().map(from).collect();
    assert_eq!(ranges, [None, Some(100_000), Some(200_000)]);
}

#[tokio::test]
async fn a_server_without_ranges_sends_again_and_what_is_known_is_passed_over() {
    let all = bytes(300_000);
    let wanted = descriptor(&all);
    let (served, count) = (all.clone(), AtomicUsize::new(0));
    let server = Server::start(move |_| {
        let cut = (count.fetch_add(1, Ordering::SeqCst) == 0).then_some(123_456);
        Reply { cut, ..Reply::new(200, served.as_slice()) }
    })
    .await;
    assert_eq!(download(&client(""), &server, &wanted).await.expect("it comes"), all);
    assert_eq!(server.lines().len(), 2);
}

#[tokio::test]
async fn a_stalled_transfer_is_taken_up_again() {
    let all = bytes(1000);
    let wanted = descriptor(&all);
    let (served, count) = (all.clone(), AtomicUsize::new(0));
    let server = Server::start(move |seen| {
        let stall = count.fetch_add(1, Ordering::SeqCst) == 0;
        Reply { cut: stall.then_some(400), stall, ..ranged(seen, &served) }
    })
    .await;
    assert_eq!(download(&client(""), &server, &wanted).await.expect("it comes"), all);
    assert_eq!(from(&server.seen()[1]), Some(400));
}

#[tokio::test]
async fn a_transfer_that_never_goes_on_ends() {
    let all = bytes(1000);
    let wanted = descriptor(&all);
    let server = Server::start(move |seen| Reply { cut: Some(1), ..ranged(seen, &all) }).await;
    let error = download(&client(""), &server, &wanted).await.expect_err("a byte each time is no progress");
    assert_eq!(error.code(), "registry-broken-connection", "{error}");
    assert_eq!(server.lines().len(), 6);
}

#[tokio::test]
async fn an_earlier_part_is_kept() {
    let all = bytes(5000);
    let wanted = descriptor(&all);
    let served = all.clone();
    let server = Server::start(move |seen| ranged(seen, &served)).await;
    let mut blob = client("").blob(&reference(&server), &wanted).expect("a route").behind(2000);
    let mut rest = Vec::new();
    while let Some(bytes) = blob.chunk().await.expect("it comes") {
        rest.extend_from_slice(&bytes);
    }
    assert_eq!(rest, all[2000..]);
    assert_eq!(blob.received(), 5000);
    assert!(blob.chunk().await.expect("still at its end").is_none());
    assert_eq!(from(&server.seen()[0]), Some(2000));
    // The caller compares the digest, and this words what it found.
    let error = blob.wrong(Digest::of(b"other"));
    assert_eq!(error.code(), "registry-wrong-bytes");
    assert!(error.to_string().contains(&wanted.digest.to_string()), "{error}");
}

#[tokio::test]
async fn a_server_that_gives_no_part_is_asked_for_all() {
    let all = bytes(5000);
    let wanted = descriptor(&all);
    for refused in
        [Reply::new(416, ""), Reply::new(206, &all[3000..]).with("Content-Range", "bytes 3000-4999/5000")]
    {
        let served = all.clone();
        let server = Server::start(move |seen| match from(seen) {
            Some(_) => refused.clone(),
            None => Reply::new(200, &served[..]),
        })
        .await;
        let mut blob = client("").blob(&reference(&server), &wanted).expect("a route").behind(2000);
        let mut rest = Vec::new();
        while let Some(bytes) = blob.chunk().await.expect("it comes") {
            rest.extend_from_slice(&bytes);
        }
        assert_eq!(rest, all[2000..]);
        assert_eq!(server.lines().len(), 2);
    }
}

#[tokio::test]
async fn wrong_bytes_are_found() {
    let all = bytes(1000);
    let wanted = descriptor(&all);
    let mut flipped = all.clone();
    flipped[500] ^= 1;
    for (reply, code) in [
        (Reply::new(200, flipped), "registry-wrong-bytes"),
        (Reply::new(200, &all[..999]), "registry-wrong-bytes"),
        (Reply::new(200, bytes(1001)), "registry-wrong-bytes"),
        (Reply { chunked: true, ..Reply::new(200, bytes(1001)) }, "registry-wrong-bytes"),
        (Reply { chunked: true, ..Reply::new(200, &all[..999]) }, "registry-wrong-bytes"),
        (Reply::new(206, &all[..]).with("Content-Range", "bytes 7-1006/2000"), "registry-answer"),
        (Reply::new(404, r#"{"errors":[{"code":"BLOB_UNKNOWN"}]}"#), "image-not-found"),
    ] {
        let sent = reply.clone();
        let server = Server::start(move |_| sent.clone()).await;
        let error = download(&client(""), &server, &wanted).await.expect_err(code);
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(&wanted.digest.to_string()), "{error}");
        assert_eq!(server.lines().len(), 1, "{error}: it would be the same next time");
    }
}

#[tokio::test]
async fn passing_failures_are_tried_again() {
    for status in [408, 429, 500, 502, 503, 504] {
        let (all, count) = (bytes(100), AtomicUsize::new(0));
        let wanted = descriptor(&all);
        let server = Server::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
            0..2 => Reply::new(status, ""),
            _ => Reply::new(200, all.as_slice()),
        })
        .await;
        download(&client(""), &server, &wanted).await.expect("the third time");
        assert_eq!(server.lines().len(), 3, "{status}");
    }
}

#[tokio::test]
async fn retry_after_is_waited_for() {
    let (all, count) = (bytes(100), AtomicUsize::new(0));
    let wanted = descriptor(&all);
    let server = Server::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::new(429, "").with("Retry-After", "1"),
        _ => Reply::new(200, all.as_slice()),
    })
    .await;
    let start = Instant::now();
    download(&client(""), &server, &wanted).await.expect("the second time");
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_wait_that_is_too_long_is_an_error() {
    let server = Server::start(|_| {
        Reply::new(429, r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#)
            .with("Retry-After", "3600")
    })
    .await;
    let error = download(&client(""), &server, &descriptor(b"x")).await.expect_err("an hour");
    assert_eq!(error.code(), "registry-rate-limit");
    assert!(error.to_string().contains("TOOMANYREQUESTS: slow down"), "{error}");
    assert!(
        matches!(*error.fault, Fault::TooManyRequests { after: Some(after), .. } if after.as_secs() == 3600)
    );
}

#[tokio::test]
async fn a_redirect_to_another_host_gets_no_login() {
    let all = bytes(1000);
    let wanted = descriptor(&all);
    let storage = Server::start(move |seen| ranged(seen, &all)).await;
    let to = format!("http://{}/storage?signature=secret", storage.host);
    let server = Server::start(move |seen| match seen.header("authorization") {
        None => Reply::new(401, "").with("WWW-Authenticate", "Basic realm=\"x\""),
        Some(_) if seen.path.starts_with("/v2/") => Reply::new(307, "").with("Location", "/moved"),
        Some(_) => Reply::new(302, "").with("Location", to.clone()),
    })
    .await;
    let docker = r#"{"auths":{"HOST":{"auth":"YTpi"}}}"#.replace("HOST", &server.host);
    let docker = registry::DockerConfig::parse(&docker, "config.json", Vec::new()).expect("valid");
    let client = crate::support::client_as("", std::sync::Arc::new(docker));
    download(&client, &server, &wanted).await.expect("it comes");
    let seen: Vec<_> = server.seen().iter().map(|seen| seen.headers.contains_key("authorization")).collect();
    assert_eq!(seen, [false, true, true], "the same host gets it");
    assert_eq!(storage.seen().len(), 1);
    assert_eq!(storage.seen()[0].header("authorization"), None);
}

#[tokio::test]
async fn redirects_end_and_do_not_tell_signatures() {
    let server = Server::start(|_| Reply::new(302, "").with("Location", "/again?signature=secret")).await;
    let error = download(&client(""), &server, &descriptor(b"x")).await.expect_err("round and round");
    assert!(matches!(*error.fault, Fault::Redirect { .. }), "{error}");
    assert!(!format!("{error} {error:?}").contains("secret"));
    assert_eq!(server.lines().len(), 11);
    let server =
        Server::start(|_| Reply::new(302, "").with("Location", "http://127.0.0.1:1/x?signature=secret"))
            .await;
    let error = download(&client(""), &server, &descriptor(b"x")).await.expect_err("nobody there");
    assert!(!format!("{error} {error:?}").contains("secret"));
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_named_and_its_password_is_not() {
    let https = Some(Secret::new("http://ada:hunter2@127.0.0.1:1"));
    let proxies = Proxies { https, ..Proxies::default() };
    let client = Client::new(Settings { proxies, ..Settings::default() }, Arc::new(Anonymous));
    let reference: Reference = "registry.invalid/app".parse().expect("a reference");
    let error = client.head(&reference).await.expect_err("nobody there");
    assert!(error.to_string().contains("through the proxy 127.0.0.1:1: "), "{error}");
    assert!(error.help().expect("some").contains("`registry.invalid` in NO_PROXY"));
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}

#[tokio::test]
async fn nobody_there_is_said_soon() {
    let reference: Reference = "127.0.0.1:1/app".parse().expect("a reference");
    let start = Instant::now();
    let error = client("").head(&reference).await.expect_err("nobody there");
    assert_eq!(error.code(), "registry-unreachable");
    assert!(error.to_string().contains("refused"), "{error}");
    assert!(error.help().expect("some").contains("127.0.0.1:1"));
    assert!(start.elapsed() < Duration::from_secs(5));
    let error =
        client("").head(&"localhost:1/app".parse().expect("a reference")).await.expect_err("nobody there");
    assert!(error.to_string().contains("refused"), "localhost is known: {error}");
}

#[tokio::test]
async fn a_mirror_that_breaks_is_replaced_in_the_middle() {
    let all = bytes(300_000);
    let wanted = descriptor(&all);
    let (half, whole) = (all.clone(), all.clone());
    let count = AtomicUsize::new(0);
    let mirror = Server::start(move |seen| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Reply { cut: Some(100_000), ..ranged(seen, &half) },
        _ => Reply::new(500, ""),
    })
    .await;
    let server = Server::start(move |seen| ranged(seen, &whole)).await;
    let client = client(&format!("[registry.'{}']\nmirrors = ['http://{}']", server.host, mirror.host));
    assert_eq!(download(&client, &server, &wanted).await.expect("the registry has the rest"), all);
    assert_eq!(server.seen().iter().map(from).collect::<Vec<_>>(), [Some(100_000)]);
}

#[tokio::test]
async fn a_sink_that_fails_ends_the_transfer() {
    let all = bytes(100);
    let wanted = descriptor(&all);
    let server = Server::start(move |_| Reply::new(200, all.as_slice())).await;
    let mut small = [0u8; 10];
    let sink = std::io::Cursor::new(&mut small[..]);
    let error =
        client("").download(&reference(&server), &wanted, sink, |_| {}).await.expect_err("it is full");
    assert_eq!(error.code(), "blob-write");
}
