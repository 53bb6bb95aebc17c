//! What refers to a manifest: asked for, paged through, kept under a tag where the registry keeps no list.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use oci::{Descriptor, Digest, Index, Manifest, MediaType, Reference};
use registry::{Anonymous, Client, Fault, Limits, Settings, referrers_tag};

use crate::{
    process::{Registry, installed},
    support::{Reply, Server, client, quick},
};

fn app(server: &Server) -> Reference {
    format!("{}/app:1", server.host).parse().expect("a name")
}

fn subject() -> Descriptor {
    Descriptor::of(MediaType::manifest(), b"the image")
}

/// The manifest of an artifact of this type.
fn artifact(kind: &str, subject: Option<&Descriptor>) -> Vec<u8> {
    let config = Descriptor::of("application/vnd.oci.empty.v1+json".into(), b"{}");
    let mut manifest = Manifest::new(config, Vec::new());
    manifest.extra.insert("artifactType".into(), kind.into());
    manifest.annotations.insert("of".into(), kind.into());
    if let Some(subject) = subject {
        manifest.extra.insert("subject".into(), serde_json::to_value(subject).expect("JSON"));
    }
    manifest.bytes()
}

fn listed(kind: &str) -> Descriptor {
    Descriptor::of(MediaType::manifest(), kind.as_bytes()).with_artifact_type(Some(kind))
}

#[tokio::test]
async fn a_list_is_read_to_its_last_page_and_filtered() {
    let path = format!("/v2/app/referrers/{}", subject().digest);
    let server = Server::start(move |seen| {
        let first = Index::new(vec![listed("a"), listed("b")]).bytes();
        let second = Index::new(vec![listed("c"), listed("a")]).bytes();
        match seen.path.split_once('?').unwrap_or((&seen.path, "")) {
            (asked, "page=2") if asked == path => Reply::new(200, second),
            (asked, _) if asked == path => {
                Reply::new(200, first).with("Link", format!("<{path}?page=2>; rel=\"next\""))
            }
            _ => Reply::new(404, ""),
        }
    })
    .await;
    let (client, name, digest) = (client(""), app(&server), subject().digest);
    let kinds = |found: Vec<Descriptor>| -> Vec<String> {
        found.iter().filter_map(Descriptor::artifact_type).map(str::to_owned).collect()
    };
    let all = client.referrers(&name, digest, None).await.expect("it answers");
    assert_eq!(kinds(all), ["a", "b", "c", "a"]);
    let some = client.referrers(&name, digest, Some("a")).await.expect("it answers");
    assert_eq!(kinds(some), ["a", "a"]);
    assert!(server.lines()[2].ends_with("?artifactType=a"), "{:?}", server.lines());
}

#[tokio::test]
async fn a_list_without_an_end_or_at_another_host_is_given_up() {
    for (next, code) in [("?page=", "image-too-large"), ("http://127.0.0.2:1/", "registry-answer")] {
        let page = Index::new((0..100).map(|_| listed("a-kind-of-artifact")).collect()).bytes();
        let count = AtomicUsize::new(0);
        let server = Server::start(move |_| {
            let link = format!("<{next}{}>; rel=\"next\"", count.fetch_add(1, Ordering::SeqCst));
            Reply::new(200, page.clone()).with("Link", link)
        })
        .await;
        let limits = Limits { manifest_bytes: 64 << 10, ..quick() };
        let client = Client::new(Settings { limits, ..Settings::default() }, Arc::new(Anonymous));
        let error = client.referrers(&app(&server), subject().digest, None).await.expect_err("no end");
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains("cannot list what refers to"), "{error}");
    }
    let server = Server::start(|_| Reply::new(200, "<html>")).await;
    let error = client("").referrers(&app(&server), subject().digest, None).await.expect_err("a page");
    assert_eq!(error.code(), "image-invalid");
    let server = Server::start(|_| Reply::new(401, "")).await;
    let error = client("").referrers(&app(&server), subject().digest, None).await.expect_err("a refusal");
    assert!(matches!(*error.fault, Fault::Unauthorized { .. }), "{error}");
}

/// A registry that keeps manifests, and lists what refers to one where `lists`.
#[derive(Default)]
struct Manifests {
    held: BTreeMap<String, Vec<u8>>,
}

async fn manifests(lists: bool) -> (Server, Arc<Mutex<Manifests>>) {
    let state: Arc<Mutex<Manifests>> = Arc::default();
    let shared = state.clone();
    let server = Server::start(move |seen| {
        let mut state = shared.lock().expect("no test panicked");
        let Some(name) = seen.path.strip_prefix("/v2/app/manifests/") else { return Reply::new(404, "") };
        match seen.method.as_str() {
            "PUT" => {
                state.held.insert(name.to_owned(), seen.bytes.clone());
                let reply = Reply::new(201, "");
                if lists { reply.with("OCI-Subject", subject().digest.to_string()) } else { reply }
            }
            _ => state.held.get(name).map_or(Reply::new(404, ""), |bytes| Reply::new(200, bytes.as_slice())),
        }
    })
    .await;
    (server, state)
}

#[tokio::test]
async fn a_push_keeps_the_tag_where_the_registry_keeps_no_list() {
    let (server, state) = manifests(false).await;
    let (client, name) = (client(""), app(&server));
    let push = async |kind: &str, subject: Option<&Descriptor>| {
        let bytes = artifact(kind, subject);
        let to = Reference { digest: Some(Digest::of(&bytes)), ..name.clone() };
        client.push_document(&to, &MediaType::manifest(), &bytes).await.expect("it goes");
        Digest::of(&bytes)
    };
    let first = push("a", Some(&subject())).await;
    let second = push("b", Some(&subject())).await;
    push("a", Some(&subject())).await;
    push("c", None).await;
    let found = client.referrers(&name, subject().digest, None).await.expect("it answers");
    let found: Vec<_> =
        found.iter().map(|one| (one.digest, one.artifact_type(), one.annotations["of"].as_str())).collect();
    assert_eq!(found, [(first, Some("a"), "a"), (second, Some("b"), "b")]);
    let only = client.referrers(&name, subject().digest, Some("b")).await.expect("it answers");
    assert_eq!(only.len(), 1);
    assert_eq!(client.referrers(&name, first, None).await.expect("it answers"), []);
    let tag = state.lock().expect("no test panicked").held[&referrers_tag(&subject().digest)].clone();
    assert_eq!(Index::parse(&tag).expect("an index").manifests.len(), 2);
}

#[tokio::test]
async fn a_push_leaves_the_tag_alone_where_the_registry_says_that_it_lists() {
    let (server, state) = manifests(true).await;
    let bytes = artifact("a", Some(&subject()));
    client("").push_document(&app(&server), &MediaType::manifest(), &bytes).await.expect("it goes");
    assert_eq!(state.lock().expect("no test panicked").held.keys().collect::<Vec<_>>(), ["1"]);
    assert_eq!(server.lines(), ["PUT /v2/app/manifests/1"]);
}

#[tokio::test]
async fn the_tag_of_something_else_is_an_error() {
    let (server, state) = manifests(false).await;
    let tag = referrers_tag(&subject().digest);
    state.lock().expect("no test panicked").held.insert(tag, artifact("a", None));
    let error = client("").referrers(&app(&server), subject().digest, None).await.expect_err("no index");
    assert_eq!(error.code(), "image-invalid");
}

#[tokio::test]
async fn dockers_registry_keeps_the_tag() {
    if !installed(&["docker-registry"]) {
        return;
    }
    let registry = Registry::start("", "", |_| {});
    let (client, name) = (client(""), registry.reference("app:1"));
    let empty = Descriptor::of("application/vnd.oci.empty.v1+json".into(), b"{}");
    let content = bytes::Bytes::from_static(b"{}");
    client.push_blob(&name, &empty, &content, &crate::push::options(&[], None)).await.expect("it goes");
    let image = artifact("image", None);
    client.push_document(&name, &MediaType::manifest(), &image).await.expect("it goes");
    let of = Descriptor::of(MediaType::manifest(), &image);
    assert_eq!(client.referrers(&name, of.digest, None).await.expect("it answers"), []);
    let signature = artifact("signature", Some(&of));
    let to = Reference { digest: Some(Digest::of(&signature)), ..name.clone() };
    client.push_document(&to, &MediaType::manifest(), &signature).await.expect("it goes");
    let found = client.referrers(&name, of.digest, None).await.expect("it answers");
    assert_eq!(found.iter().map(|one| one.digest).collect::<Vec<_>>(), [Digest::of(&signature)]);
    assert_eq!(client.tags(&name).await.expect("it answers"), ["1".to_owned(), referrers_tag(&of.digest)]);
}
