//! Mirrors that are no help: passed over, told of once, and told nothing.

use std::sync::{Arc, Mutex};

use oci::Reference;
use registry::{Client, Credentials, CredentialsError, Login, Secret};

use crate::support::{Content, Image, Reply, Server, amd64, client, client_as, image};

/// A registry with an image, and its name there.
async fn origin(image: &Image) -> (Server, Reference) {
    let content = Content::default().with_image("1", image);
    let server = Server::start(move |seen| content.answer(seen)).await;
    let name = format!("{}/app:1", server.host).parse().expect("a reference");
    (server, name)
}

fn mirrored(origin: &Server, mirrors: &[&str]) -> String {
    let mirrors: Vec<String> = mirrors.iter().map(|host| format!("'http://{host}'")).collect();
    format!("[registry.'{}']\nmirrors = [{}]", origin.host, mirrors.join(", "))
}

/// Notices, as they come.
fn hearing(client: &Client) -> (Client, Arc<Mutex<Vec<String>>>) {
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = heard.clone();
    (client.hearing(move |notice| kept.lock().expect("no panic").push(notice.to_string())), heard)
}

async fn all_of(client: &Client, name: &Reference, image: &Image) {
    let resolved = client.resolve(name, &amd64(), None).await.expect("somebody has it");
    assert_eq!(resolved.manifest_bytes, image.manifest);
    let mut layer = Vec::new();
    client.download(name, &image.layer_descriptor(), &mut layer, |_| {}).await.expect("somebody has it");
    assert_eq!(layer, image.layer);
}

#[tokio::test]
async fn a_mirror_that_is_no_help_is_not_asked_again() {
    let image = image("linux/amd64");
    for (reply, says) in [
        (Reply { stall: true, ..Reply::new(200, "x").with("Content-Length", "100") }, "it sent nothing"),
        (Reply::new(200, "{}").with("Content-Type", "application/json"), "digest"),
        (Reply::new(503, ""), "503"),
        (Reply::new(302, "").with("Location", "ftp://x/"), "redirects"),
    ] {
        let (origin, name) = origin(&image).await;
        let body = reply.clone();
        // What a name stands for is answered; what has a digest is not.
        let digest = image.descriptor.digest.to_string();
        let mirror =
            Server::start(move |seen| match seen.path.contains("manifests/1") && seen.method == "HEAD" {
                true => Reply::new(404, ""),
                false => body.clone().with("Docker-Content-Digest", digest.clone()),
            })
            .await;
        let (client, heard) = hearing(&client(&mirrored(&origin, &[&mirror.host])));
        all_of(&client, &name, &image).await;
        let asked = mirror.lines().len();
        all_of(&client, &name, &image).await;
        assert_eq!(mirror.lines().len(), asked, "{says}: it is left alone");
        let heard = heard.lock().expect("no panic").clone();
        assert_eq!(heard.len(), 1, "{heard:?}");
        assert!(heard[0].contains(&mirror.host) && heard[0].contains(says), "{heard:?}");
    }
}

#[tokio::test]
async fn a_mirror_that_lacks_something_is_no_news() {
    let image = image("linux/amd64");
    let (origin, name) = origin(&image).await;
    let mirror = Server::start(|_| Reply::new(404, "")).await;
    let (client, heard) = hearing(&client(&mirrored(&origin, &[&mirror.host])));
    all_of(&client, &name, &image).await;
    let asked = mirror.lines().len();
    all_of(&client, &name, &image).await;
    assert_eq!(mirror.lines().len(), 2 * asked, "it is asked each time");
    assert!(heard.lock().expect("no panic").is_empty());
}

#[tokio::test]
async fn a_blob_of_a_lying_mirror_can_be_had_from_elsewhere() {
    let image = image("linux/amd64");
    let (origin, name) = origin(&image).await;
    let length = image.layer.len();
    let mirror = Server::start(move |_| Reply::new(200, vec![b'x'; length])).await;
    let (client, heard) = hearing(&client(&mirrored(&origin, &[&mirror.host])));
    let mut blob = client.blob(&name, &image.layer_descriptor()).expect("a route").behind(0);
    let mut all = Vec::new();
    while let Some(bytes) = blob.chunk().await.expect("it comes") {
        all.extend_from_slice(&bytes);
    }
    assert_ne!(all, image.layer);
    assert!(blob.pass_over_mirrors(oci::Digest::of(&all)));
    all_of(&client, &name, &image).await;
    assert_eq!(heard.lock().expect("no panic").len(), 1);
    let again = client.blob(&name, &image.layer_descriptor()).expect("a route");
    assert!(!again.pass_over_mirrors(oci::Digest::of(&all)), "the registry itself is nobody's mirror");
}

/// Remembers who was asked for.
#[derive(Default)]
struct Asked(Mutex<Vec<String>>);

impl Credentials for Asked {
    fn for_registry(&self, host: &str, _: &str) -> Result<Option<Login>, CredentialsError> {
        self.0.lock().expect("no panic").push(host.to_owned());
        let password = Secret::new(format!("of-{host}"));
        Ok(Some(Login::Password { username: "ada".into(), password }))
    }
}

#[tokio::test]
async fn each_host_is_sent_its_own_login_alone() {
    let image = image("linux/amd64");
    let content = Content::default().with_image("1", &image);
    let wants = || Reply::new(401, "").with("WWW-Authenticate", "Basic realm=\"x\"");
    let origin = Server::start(move |seen| match seen.header("authorization") {
        Some(_) => content.answer(seen),
        None => wants(),
    })
    .await;
    let mirror = Server::start(move |_| wants()).await;
    let name: Reference = format!("{}/app:1", origin.host).parse().expect("a reference");
    let asked = Arc::new(Asked::default());
    let client = client_as(&mirrored(&origin, &[&mirror.host]), asked.clone());
    client.resolve(&name, &amd64(), None).await.expect("the registry lets us in");
    let hosts = asked.0.lock().expect("no panic").clone();
    assert!(hosts.contains(&mirror.host) && hosts.contains(&origin.host), "{hosts:?}");
    for (server, other) in [(&mirror, &origin), (&origin, &mirror)] {
        let sent = server.seen();
        let sent: Vec<&str> = sent.iter().filter_map(|seen| seen.header("authorization")).collect();
        let secret = base64(&format!("ada:of-{}", other.host));
        assert!(!sent.is_empty() && sent.iter().all(|header| !header.contains(&secret)), "{sent:?}");
    }
}

fn base64(text: &str) -> String {
    use base64::{Engine, prelude::BASE64_STANDARD};
    BASE64_STANDARD.encode(text)
}
