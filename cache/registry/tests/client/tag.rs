//! What a name stands for in the registry itself; and how long one waits for a host that says nothing.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::support::{Content, Reply, Server, amd64, client, image};
use oci::Reference;
use registry::{Anonymous, Client, Files, Settings};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

fn reference(host: &str, rest: &str) -> Reference {
    format!("{host}/{rest}").parse().expect("a reference")
}

#[tokio::test]
async fn the_registry_tells_what_a_name_is() {
    let image = image("linux/amd64");
    let content = Content::default().with_image("1", &image);
    let server = Server::start(move |seen| content.answer(seen)).await;
    let digest = image.descriptor.digest;
    let name = |rest: &str| reference(&server.host, rest);
    assert_eq!(client("").tagged(&name("app:1")).await.expect("told"), Some(digest));
    assert_eq!(server.lines(), ["HEAD /v2/app/manifests/1"]);
    assert_eq!(client("").tagged(&name("app:2")).await.expect("told"), None);
    // A mirror may be behind: it is not asked.
    let mirrored = format!("[registry.'{}']\nmirrors = ['http://127.0.0.1:1']", server.host);
    assert_eq!(client(&mirrored).tagged(&name("app:1")).await.expect("told"), Some(digest));
    assert!(client(&mirrored).is_mirrored(&name("app:1")) && !client("").is_mirrored(&name("app:1")));
}

#[test]
fn a_name_that_is_read_elsewhere_is_no_word_of_its_registry() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("registries.conf");
    let conf = "[[registry]]\nprefix = 'r.example/team'\nlocation = 'other.example/copy'";
    std::fs::write(&path, conf).expect("written");
    let files = Files { registries_conf: Some(path), ..Files::default() };
    let client = Client::new(Settings { files, ..Settings::default() }, Arc::new(Anonymous));
    assert!(client.is_mirrored(&reference("r.example", "team/app:1")));
    assert!(!client.is_mirrored(&reference("r.example", "app:1")));
}

#[tokio::test]
async fn a_registry_that_tells_no_digest_is_asked_for_the_document() {
    let image = image("linux/amd64");
    let bytes = image.manifest.clone();
    let media_type = image.descriptor.media_type.0.clone();
    let server =
        Server::start(move |_| Reply::new(200, bytes.as_slice()).with("Content-Type", media_type.as_str()))
            .await;
    let name = reference(&server.host, "app:1");
    assert_eq!(client("").tagged(&name).await.expect("told"), Some(image.descriptor.digest));
    assert_eq!(server.lines(), ["HEAD /v2/app/manifests/1", "GET /v2/app/manifests/1"]);
}

#[tokio::test]
async fn refusals_say_why_and_do_not_pass() {
    for (status, code) in [(401, "registry-login"), (403, "registry-denied"), (400, "registry-answer")] {
        let body = r#"{"errors":[{"code":"X","message":"because"}]}"#;
        let server = Server::start(move |_| Reply::new(status, body)).await;
        let error = client("").tagged(&reference(&server.host, "app:1")).await.expect_err("refused");
        assert_eq!(error.code(), code);
        assert!(error.to_string().contains("because"), "{error}");
        assert!(!error.may_pass(), "{status}");
    }
    let server = Server::start(|_| Reply::new(503, "")).await;
    let error = client("").tagged(&reference(&server.host, "app:1")).await.expect_err("in trouble");
    assert!(error.may_pass());
}

/// A port behind which connections are never made: the queue of those that nobody takes is full.
async fn hole() -> (String, TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let listener = socket.listen(1).expect("it was bound");
    let address = listener.local_addr().expect("an address");
    let mut queued = Vec::new();
    loop {
        match tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
            Ok(stream) => queued.push(stream.expect("queued")),
            Err(_) => return (address.to_string(), listener, queued),
        }
    }
}

#[tokio::test]
async fn a_host_that_nobody_reaches_is_given_up_after_three_limits() {
    let (host, _listener, _queued) = hole().await;
    let started = Instant::now();
    let name = reference(&host, "app:1");
    let error = client("").resolve(&name, &amd64(), None).await.expect_err("nobody is there");
    assert_eq!(error.code(), "registry-unreachable", "{error}");
    assert!(error.may_pass());
    // The limit of these tests is a second.
    let took = started.elapsed();
    assert!((Duration::from_secs(3)..Duration::from_secs(5)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn who_has_something_else_waits_no_longer_than_that() {
    let (host, _listener, _queued) = hole().await;
    let started = Instant::now();
    let (name, longest) = (reference(&host, "app:1"), Duration::from_millis(300));
    let error = client("").resolve_within(longest, &name, &amd64(), None).await.expect_err("silence");
    assert_eq!(error.code(), "registry-stalled", "{error}");
    assert!(error.may_pass());
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}
