//! From names to images, against a server that does what the test says.

use std::{collections::BTreeMap, sync::Arc};

use crate::support::{Content, Reply, Seen, Server, amd64, client, image, quick};
use oci::{Descriptor, Digest, Index, MediaType, Platform, Reference};
use registry::{Anonymous, Client, Fault, Held, Proxies, Secret, Settings};

fn reference(server: &Server, rest: &str) -> Reference {
    format!("{}/{rest}", server.host).parse().expect("a reference")
}

#[tokio::test]
async fn a_manifest_is_resolved_with_its_config() {
    let image = image("linux/amd64");
    let content = Content::default().with_image("1", &image);
    let server = Server::start(move |seen| content.answer(seen)).await;
    let resolved =
        client("").resolve(&reference(&server, "app:1"), &amd64(), None).await.expect("it is there");
    assert_eq!(resolved.manifest_bytes, image.manifest);
    assert_eq!(resolved.config_bytes, image.config);
    assert_eq!(resolved.descriptor.digest, image.descriptor.digest);
    assert_eq!(resolved.config.platform(), amd64());
    assert!(resolved.index.is_none());
    assert_eq!(resolved.top(), &resolved.descriptor);
    assert_eq!(server.lines()[0], "GET /v2/app/manifests/1");
    let accept = server.seen()[0].header("accept").expect("said").to_owned();
    assert!(
        accept.contains("oci.image.index.v1+json") && accept.contains("manifest.list.v2+json"),
        "{accept}"
    );
}

#[tokio::test]
async fn an_index_is_followed_to_the_platform() {
    let images = [image("linux/arm64"), image("linux/amd64"), image("linux/arm/v7")];
    let content = Content::default().with_index("1", &images);
    let server = Server::start(move |seen| content.answer(seen)).await;
    let (client, reference) = (client(""), reference(&server, "app:1"));
    for image in &images {
        let platform = image.descriptor.platform.clone().expect("named");
        let resolved = client.resolve(&reference, &platform, None).await.expect("it is there");
        assert_eq!(resolved.manifest_bytes, image.manifest);
        assert_eq!(resolved.descriptor.platform, Some(platform));
        let index = resolved.index.as_ref().expect("an index");
        assert_eq!(resolved.top().digest, Digest::of(&index.bytes));
    }
    let missing: Platform = "linux/s390x".parse().expect("a platform");
    let error = client.resolve(&reference, &missing, None).await.expect_err("not there");
    assert_eq!(error.code(), "image-platform");
    assert!(error.to_string().contains("linux/arm64, linux/amd64, linux/arm/v7"), "{error}");
    assert!(error.help().expect("some").contains("--platform linux/arm/v7"));
}

#[tokio::test]
async fn an_index_without_platforms_is_decided_by_the_configs() {
    let images = [image("linux/arm64"), image("linux/amd64")].map(|mut image| {
        image.descriptor.platform = None;
        image
    });
    let content = Content::default().with_index("1", &images);
    let server = Server::start(move |seen| content.answer(seen)).await;
    let (client, reference) = (client(""), reference(&server, "app:1"));
    let resolved = client.resolve(&reference, &amd64(), None).await.expect("it is there");
    assert_eq!(resolved.manifest_bytes, images[1].manifest);
    let missing: Platform = "linux/s390x".parse().expect("a platform");
    let error = client.resolve(&reference, &missing, None).await.expect_err("not there");
    assert!(matches!(&*error.fault, Fault::Platform { available, .. } if available.len() == 2), "{error}");
}

#[tokio::test]
async fn indexes_in_indexes_end() {
    let mut content = Content::default();
    let mut inner = Descriptor::of(MediaType::index(), b"");
    inner.platform = Some(amd64());
    for depth in 0..8 {
        let index = Index::new(vec![inner.clone()]).bytes();
        content = content.with_manifest(&format!("{depth}"), MediaType::index().as_str(), &index);
        inner = Descriptor { platform: Some(amd64()), ..Descriptor::of(MediaType::index(), &index) };
    }
    let server = Server::start(move |seen| content.answer(seen)).await;
    let error = client("").resolve(&reference(&server, "app:7"), &amd64(), None).await.expect_err("too deep");
    assert!(matches!(*error.fault, Fault::Nesting { .. }), "{error}");
}

struct Memory(BTreeMap<Digest, Vec<u8>>);

impl Held for Memory {
    fn document(&self, digest: Digest) -> Option<Vec<u8>> {
        self.0.get(&digest).cloned()
    }
}

#[tokio::test]
async fn what_is_held_is_not_fetched_again() {
    let image = image("linux/amd64");
    let content = Content::default().with_index("1", std::slice::from_ref(&image));
    let server = Server::start(move |seen| content.answer(seen)).await;
    let (client, name) = (client(""), reference(&server, "app:1"));
    let nothing = Memory(BTreeMap::new());
    let resolved = client.resolve(&name, &amd64(), Some(&nothing)).await.expect("it is there");
    let index = resolved.index.clone().expect("an index");
    let all = [index.bytes, resolved.manifest_bytes.clone(), resolved.config_bytes.clone()];
    let held = Memory(all.into_iter().map(|bytes| (Digest::of(&bytes), bytes)).collect());
    let before = server.lines().len();
    let again = client.resolve(&name, &amd64(), Some(&held)).await.expect("it is there");
    assert_eq!(again.config_bytes, resolved.config_bytes);
    assert_eq!(server.lines()[before..], ["HEAD /v2/app/manifests/1"]);
    // With a digest, nobody is asked at all.
    let pinned = Reference { digest: Some(index.descriptor.digest), ..name };
    client.resolve(&pinned, &amd64(), Some(&held)).await.expect("it is held");
    assert_eq!(server.lines().len(), before + 1);
    // What is held under a wrong digest is not believed.
    let lying = Memory(held.0.keys().map(|digest| (*digest, b"{}".to_vec())).collect());
    let honest = client.resolve(&pinned, &amd64(), Some(&lying)).await.expect("it is there");
    assert_eq!(honest.config_bytes, image.config);
}

#[tokio::test]
async fn head_tells_what_a_name_stands_for() {
    let image = image("linux/amd64");
    let content = Content::default().with_image("1", &image);
    let silent = content.clone();
    let server = Server::start(move |seen| content.answer(seen)).await;
    let told = client("").head(&reference(&server, "app:1")).await.expect("it is there");
    assert_eq!((told.digest, told.size), (image.descriptor.digest, image.descriptor.size));
    assert_eq!(server.lines(), ["HEAD /v2/app/manifests/1"]);
    // Without a digest in the answer, the document is read.
    let server = Server::start(move |seen| {
        let mut reply = silent.answer(seen);
        reply.headers.retain(|(name, _)| name != "Docker-Content-Digest");
        reply
    })
    .await;
    let told = client("").head(&reference(&server, "app:1")).await.expect("it is there");
    assert_eq!(told.digest, image.descriptor.digest);
    let error = client("").head(&reference(&server, "app:2")).await.expect_err("not there");
    assert_eq!(error.code(), "image-not-found");
    assert!(error.to_string().contains("MANIFEST_UNKNOWN: manifest unknown"), "{error}");
}

#[tokio::test]
async fn bytes_that_are_wrong_are_refused() {
    let good = image("linux/amd64");
    let other = image("linux/arm64");
    let (manifest, lie) = (good.manifest.clone(), other.descriptor.digest);
    let server = Server::start(move |seen| {
        let reply = Reply::new(200, manifest.as_slice()).with("Content-Type", MediaType::manifest().as_str());
        match seen.path.rsplit('/').next() {
            Some("lie") => reply.with("Docker-Content-Digest", lie.to_string()),
            Some("huge") => Reply { chunked: true, ..Reply::new(200, vec![b' '; 5 << 20]) },
            Some("announced") => Reply::new(200, vec![b' '; 5 << 20]),
            Some("index") => {
                Reply::new(200, manifest.as_slice()).with("Content-Type", MediaType::index().as_str())
            }
            Some("old") => Reply::new(200, r#"{"schemaVersion":1,"fsLayers":[]}"#),
            _ => reply,
        }
    })
    .await;
    let client = client("");
    for (rest, code) in [
        ("app:lie".to_owned(), "registry-wrong-bytes"),
        (format!("app@{}", other.descriptor.digest), "registry-wrong-bytes"),
        ("app:huge".to_owned(), "image-too-large"),
        ("app:announced".to_owned(), "image-too-large"),
        ("app:index".to_owned(), "image-invalid"),
        ("app:old".to_owned(), "image-format"),
        // The config is answered with the manifest's bytes.
        ("app:config".to_owned(), "registry-wrong-bytes"),
    ] {
        let error = client.resolve(&reference(&server, &rest), &amd64(), None).await.expect_err(&rest);
        assert_eq!(error.code(), code, "{rest}: {error}");
        assert!(error.to_string().contains(&server.host), "{error}");
    }
}

#[tokio::test]
async fn manifest_and_config_agree_on_the_layers() {
    let mut image = image("linux/amd64");
    let mut manifest = oci::Manifest::parse(&image.manifest).expect("ours");
    manifest.layers.clear();
    image.manifest = manifest.bytes();
    let content = Content::default().with_image("1", &image);
    let server = Server::start(move |seen| content.answer(seen)).await;
    let error =
        client("").resolve(&reference(&server, "app:1"), &amd64(), None).await.expect_err("no layers");
    assert!(matches!(*error.fault, Fault::Layers { layers: 0, diff_ids: 1 }), "{error}");
}

#[tokio::test]
async fn a_mirror_is_asked_first_and_the_registry_after_it() {
    let image = image("linux/amd64");
    let content = Content::default().with_image("1", &image);
    let full = content.clone();
    let origin = Server::start(move |seen| full.answer(seen)).await;
    let mirror = Server::start(move |seen| content.answer(seen)).await;
    let empty = Server::start(|_| Reply::new(503, "")).await;
    let settings = |mirrors: &str| format!("[registry.'{}']\nmirrors = [{mirrors}]", origin.host);
    let name = reference(&origin, "app:1");

    let first = client(&settings(&format!("'http://{}'", mirror.host)));
    first.resolve(&name, &amd64(), None).await.expect("the mirror has it");
    assert_eq!(origin.lines().len(), 0);
    assert!(
        mirror
            .seen()
            .iter()
            .all(|seen| seen.path.contains(&format!("ns={}", origin.host.replace(':', "%3A"))))
    );

    let after = client(&settings(&format!("'http://{}', 'http://127.0.0.1:1'", empty.host)));
    let resolved = after.resolve(&name, &amd64(), None).await.expect("the registry has it");
    assert_eq!(resolved.manifest_bytes, image.manifest);
    assert!(!empty.lines().is_empty() && !origin.lines().is_empty());

    let error = after.resolve(&reference(&origin, "app:2"), &amd64(), None).await.expect_err("nobody has it");
    assert_eq!(error.code(), "image-not-found");
    let told: Vec<_> = error.asked.tried.iter().map(|tried| (tried.address.clone(), tried.code)).collect();
    assert_eq!(
        told,
        [
            (format!("http://{}", empty.host), "registry-answer"),
            ("http://127.0.0.1:1".to_owned(), "registry-unreachable")
        ]
    );
}

/// The server waits for the end of a request, as it would for a very slow client, so TLS ends by its time
/// limit.
#[tokio::test]
async fn a_registry_without_tls_is_found_where_it_may_be_insecure() {
    let image = image("linux/amd64");
    let content = Content::default().with_image("1", &image);
    let server = Server::start(move |seen| content.answer(seen)).await;
    let client = client(&format!("[registry.'{}']\ninsecure = true", server.host));
    client.resolve(&reference(&server, "app:1"), &amd64(), None).await.expect("plain HTTP is tried");
    assert_eq!(server.lines().len(), 2);
}

#[tokio::test]
async fn proxies_are_used_where_they_should_be() {
    let image = image("linux/amd64");
    let content = Content::default().with_image("1", &image);
    let direct = content.clone();
    let proxy = Server::start(move |seen| {
        let path = seen.path.strip_prefix("http://registry.invalid").unwrap_or_default().to_owned();
        content.answer(&Seen { path, ..seen.clone() })
    })
    .await;
    let server = Server::start(move |seen| direct.answer(seen)).await;
    let settings = Settings {
        limits: quick(),
        proxies: Proxies {
            http: Some(Secret::new(format!("http://ada:hunter2@{}", proxy.host))),
            ..Proxies::default()
        },
        ..Settings::parse("[registry.'registry.example']\nmirrors = ['http://registry.invalid']")
            .expect("valid")
    };
    let client = Client::new(settings, Arc::new(Anonymous));
    assert!(!format!("{client:?}").contains("hunter2"));
    let name = "registry.example/app:1".parse().expect("a reference");
    let resolved = client.resolve(&name, &amd64(), None).await.expect("through the proxy");
    assert_eq!(resolved.manifest_bytes, image.manifest);
    assert_eq!(proxy.seen()[0].path, "http://registry.invalid/v2/app/manifests/1?ns=registry.example");
    let before = proxy.lines().len();
    client.resolve(&reference(&server, "app:1"), &amd64(), None).await.expect("directly");
    assert_eq!(proxy.lines().len(), before, "loopback has no proxy");
}
