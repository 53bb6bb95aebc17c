//! Blobs and documents on their way from one registry to another.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use oci::{Descriptor, Digest, Manifest, MediaType, Reference};
use registry::{Content as _, Parsed, Pushed, RemoteContent, Whom};

use crate::{
    push::{bytes, descriptor, options, server},
    support::{Content, Reply, Seen, Server, client},
};

fn app(server: &Server) -> Reference {
    format!("{}/app:1", server.host).parse().expect("a name")
}

/// A registry with one blob that understands ranges, `twist`ed by the number of the request.
async fn source(blob: Vec<u8>, twist: impl Fn(usize, Reply) -> Reply + Send + Sync + 'static) -> Server {
    let count = Mutex::new(0);
    Server::start(move |seen| {
        let mut count = count.lock().expect("no test panicked");
        *count += 1;
        twist(*count, ranged(seen, &blob))
    })
    .await
}

fn ranged(seen: &Seen, blob: &[u8]) -> Reply {
    let from = seen.header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
    match from.map(|from| from.parse::<usize>().expect("a number")) {
        Some(from) => Reply::new(206, &blob[from..])
            .with("Content-Range", format!("bytes {from}-{}/{}", blob.len() - 1, blob.len())),
        None => Reply::new(200, blob),
    }
}

fn ranges(server: &Server) -> Vec<Option<String>> {
    server.seen().iter().map(|seen| seen.header("range").map(str::to_owned)).collect()
}

async fn all(content: &RemoteContent, from: u64) -> std::io::Result<Vec<u8>> {
    let pieces = content.open(from);
    pieces.try_fold(Vec::new(), |all, piece| async move { Ok([all, piece.to_vec()].concat()) }).await
}

#[tokio::test]
async fn a_large_blob_is_asked_for_once_whatever_parts_it_goes_in() {
    let blob = bytes((3 << 20) + 7);
    let from = source(blob.clone(), |_, reply| reply).await;
    let (to, upload) = server(Box::new(|_, _| None)).await;
    let client = client("");
    let content = RemoteContent::new(&client, &app(&from), &descriptor(&blob));
    let pushed = client.push_blob(&app(&to), &descriptor(&blob), &content, &options(&[], None)).await;
    assert_eq!(pushed.expect("it goes"), Pushed::Sent { from_byte: 0 });
    assert_eq!(upload.lock().expect("no test panicked").blobs.values().next(), Some(&blob));
    let parts = to.lines().iter().filter(|line| line.starts_with("PATCH")).count();
    assert_eq!((parts, ranges(&from)), (4, vec![None]));
}

#[tokio::test]
async fn a_source_that_breaks_off_is_asked_for_the_rest() {
    let blob = bytes(300_000);
    let from = source(blob.clone(), |count, reply| match count {
        1 => Reply { cut: Some(100_000), ..reply },
        2 => Reply::new(503, ""),
        _ => reply,
    })
    .await;
    let content = RemoteContent::new(&client(""), &app(&from), &descriptor(&blob));
    assert_eq!(all(&content, 0).await.expect("it comes"), blob);
    assert_eq!(ranges(&from), [None, Some("bytes=100000-".to_owned()), Some("bytes=100000-".to_owned())]);
}

#[tokio::test]
async fn a_target_that_breaks_off_costs_what_it_did_not_take() {
    let blob = bytes(3 << 20);
    let from = source(blob.clone(), |_, reply| reply).await;
    // The second part is refused once, when it has come.
    let refused = AtomicBool::new(false);
    let (to, upload) = server(Box::new(move |_, seen| {
        let second = seen.header("content-range").is_some_and(|range| range.starts_with("1048576-"));
        (second && !refused.swap(true, Ordering::SeqCst)).then(|| Reply::new(502, ""))
    }))
    .await;
    let client = client("");
    let content = RemoteContent::new(&client, &app(&from), &descriptor(&blob));
    client
        .push_blob(&app(&to), &descriptor(&blob), &content, &options(&[], None))
        .await
        .expect("the second try goes");
    assert_eq!(upload.lock().expect("no test panicked").blobs.values().next(), Some(&blob));
    // What was read and not taken is read again, from the start of the digest's last known state.
    assert_eq!(ranges(&from), [None, None]);
}

#[tokio::test]
async fn bytes_come_from_any_place_on_and_in_any_order() {
    let blob = bytes(500_000);
    let from = source(blob.clone(), |_, reply| reply).await;
    let content = RemoteContent::new(&client(""), &app(&from), &descriptor(&blob));
    for at in [250_000, 0, 499_999, 250_000, 500_000, 700_000] {
        let rest = blob.get(at..).unwrap_or_default();
        assert_eq!(all(&content, at as u64).await.expect("it comes"), rest, "{at}");
    }
    // A try that is given up in the middle leaves nothing wrong behind.
    let mut pieces = content.open(0);
    pieces.next().await.expect("a piece").expect("it comes");
    drop(pieces);
    assert_eq!(all(&content, 10).await.expect("it comes"), &blob[10..]);
}

#[tokio::test]
async fn wrong_bytes_never_finish_an_upload() {
    let blob = bytes(200_000);
    let mut wrong = blob.clone();
    wrong[100] ^= 1;
    let from = source(wrong, |_, reply| reply).await;
    // A registry that would take anything.
    let (to, upload) = server(Box::new(|_, _| None)).await;
    let client = client("");
    let content = RemoteContent::new(&client, &app(&from), &descriptor(&blob));
    let error = client.push_blob(&app(&to), &descriptor(&blob), &content, &options(&[], None)).await;
    assert_eq!(error.expect_err("wrong bytes").code(), "blob-read");
    let why = content.take_error().expect("the source is to blame");
    assert_eq!(why.code(), "registry-wrong-bytes");
    assert!(why.to_string().contains(&from.host), "{why}");
    assert!(content.take_error().is_none());
    assert!(upload.lock().expect("no test panicked").blobs.is_empty());
}

#[tokio::test]
async fn documents_of_any_artifact_are_read_and_found() {
    let config = Descriptor::of("application/vnd.oci.empty.v1+json".into(), b"{}");
    let mut manifest = Manifest::new(config, Vec::new());
    manifest.extra.insert("artifactType".into(), "application/vnd.example".into());
    let media_type = MediaType::manifest();
    let registry = Content::default().with_manifest("1", media_type.as_str(), &manifest.bytes());
    let server = Server::start(move |seen| registry.answer(seen)).await;
    let (client, name, digest) = (client(""), app(&server), Digest::of(&manifest.bytes()));

    let document = client.manifest(&name, None, Whom::Anyone).await.expect("it is there");
    assert_eq!((document.descriptor.digest, document.bytes), (digest, manifest.bytes()));
    let Parsed::Manifest(parsed) = document.parsed else { panic!("it is a manifest") };
    assert_eq!(parsed.artifact_type(), "application/vnd.example");
    assert!(!registry::is_image(&parsed));
    let mut of = Descriptor::of(media_type, &manifest.bytes());
    client.manifest(&name, Some(&of), Whom::Itself).await.expect("it is what the descriptor says");
    of.size += 1;
    let error = client.manifest(&name, Some(&of), Whom::Itself).await.expect_err("another size");
    assert_eq!(error.code(), "registry-wrong-bytes");
    let error = client.head(&name).await.map(|found| found.digest);
    assert_eq!(error.expect("a name has a digest, whatever it is"), digest);

    assert!(client.has_manifest(&name, digest).await.expect("it answers"));
    assert!(!client.has_manifest(&name, Digest::of(b"none")).await.expect("it answers"));
}

#[tokio::test]
async fn an_empty_blob_is_sent() {
    let from = source(Vec::new(), |_, reply| reply).await;
    let (to, upload) = server(Box::new(|_, _| None)).await;
    let client = client("");
    let content = Arc::new(RemoteContent::new(&client, &app(&from), &descriptor(b"")));
    client
        .push_blob(&app(&to), &descriptor(b""), &*content, &options(&[], None))
        .await
        .expect("nothing can be sent");
    assert_eq!(upload.lock().expect("no test panicked").blobs.values().next(), Some(&Vec::new()));
    assert_eq!(Bytes::new().len(), from.seen().len());
}
