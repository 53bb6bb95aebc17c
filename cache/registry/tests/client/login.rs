//! Logins: what a 401 asks for, and who is told what.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;

use crate::support::{Content, Reply, Seen, Server, amd64, client, client_as, image};
use oci::{Descriptor, MediaType, Reference};
use registry::{Credentials, CredentialsError, DockerConfig, Fault, Login, Secret};

fn reference(server: &Server, rest: &str) -> Reference {
    format!("{}/{rest}", server.host).parse().expect("a reference")
}

struct Fixed(Result<Option<Login>, CredentialsError>);

impl Credentials for Fixed {
    fn for_registry(&self, _: &str, _: &str) -> Result<Option<Login>, CredentialsError> {
        self.0.clone()
    }
}

fn ada() -> Arc<Fixed> {
    Arc::new(Fixed(Ok(Some(Login::Password { username: "ada".into(), password: Secret::new("hunter2") }))))
}

/// `ada:hunter2`
const ADA: &str = "Basic YWRhOmh1bnRlcjI=";

/// A registry whose tokens come from `auth`, and that wants the one that `wanted` says.
async fn registry(auth: &Server, content: Content, wanted: &'static str) -> Server {
    let challenge = format!(
        "Bearer realm=\"http://{}/token?x=1\",service=\"the registry\",scope=\"repository:app:pull\"",
        auth.host
    );
    Server::start(move |seen| {
        if seen.header("authorization") == Some(wanted) {
            return content.answer(seen);
        }
        Reply::new(401, r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#)
            .with("WWW-Authenticate", challenge.clone())
    })
    .await
}

fn token(seen: &Seen) -> Reply {
    match seen.header("authorization") {
        None => Reply::new(200, r#"{"token":"anyone"}"#),
        Some(ADA) => Reply::new(200, r#"{"access_token":"of-ada","expires_in":300}"#),
        Some(_) => Reply::new(401, r#"{"details":"incorrect username or password"}"#),
    }
}

#[tokio::test]
async fn anyone_gets_a_token_and_keeps_it() {
    let image = image("linux/amd64");
    let auth = Server::start(token).await;
    let server = registry(&auth, Content::default().with_image("1", &image), "Bearer anyone").await;
    let client = client("");
    let name = reference(&server, "app:1");
    client.resolve(&name, &amd64(), None).await.expect("public");
    let mut layer = Vec::new();
    client.clone().download(&name, &image.layer_descriptor(), &mut layer, |_| {}).await.expect("public");
    assert_eq!(layer, image.layer);
    assert_eq!(auth.lines(), ["GET /token?x=1&service=the+registry&scope=repository%3Aapp%3Apull"]);
    let sent: Vec<bool> =
        server.seen().iter().map(|seen| seen.headers.contains_key("authorization")).collect();
    assert_eq!(sent, [false, true, true, true]);
}

#[tokio::test]
async fn a_password_is_exchanged_for_a_token() {
    let image = image("linux/amd64");
    let auth = Server::start(token).await;
    let server = registry(&auth, Content::default().with_image("1", &image), "Bearer of-ada").await;
    let name = reference(&server, "app:1");
    client_as("", ada()).resolve(&name, &amd64(), None).await.expect("ada may");
    assert!(
        server.seen().iter().all(|seen| seen.header("authorization") != Some(ADA)),
        "the token server only"
    );
    // Without the login, anyone's token is not enough.
    let error = client("").resolve(&name, &amd64(), None).await.expect_err("anyone may not");
    assert_eq!(error.code(), "registry-login");
    assert!(error.to_string().contains("wants a login"), "{error}");
    assert!(error.help().expect("some").contains(&format!("kiln login {}", server.host)));
}

#[tokio::test]
async fn a_wrong_password_is_told_and_not_shown() {
    let auth = Server::start(|_| Reply::new(401, r#"{"details":"incorrect username or password"}"#)).await;
    let server = registry(&auth, Content::default(), "Bearer none").await;
    let error = client_as("", ada()).resolve(&reference(&server, "app:1"), &amd64(), None).await;
    let error = error.expect_err("refused");
    assert!(error.to_string().contains("incorrect username or password"), "{error}");
    assert!(error.help().expect("some").contains("not accepted"), "{error}");
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}

#[tokio::test]
async fn an_identity_token_is_posted() {
    let image = image("linux/amd64");
    let auth = Server::start(|_| Reply::new(200, r#"{"access_token":"of-ada"}"#)).await;
    let server = registry(&auth, Content::default().with_image("1", &image), "Bearer of-ada").await;
    let login = Arc::new(Fixed(Ok(Some(Login::Identity(Secret::new("refresh&more"))))));
    client_as("", login).resolve(&reference(&server, "app:1"), &amd64(), None).await.expect("ada may");
    let asked = &auth.seen()[0];
    assert_eq!((asked.method.as_str(), asked.path.as_str()), ("POST", "/token?x=1"));
    assert_eq!(
        asked.body,
        "service=the+registry&scope=repository%3Aapp%3Apull&client_id=kiln&grant_type=refresh_token&refresh_token=refresh%26more"
    );
}

#[tokio::test]
async fn a_registry_token_is_sent_as_it_is() {
    let image = image("linux/amd64");
    let auth = Server::start(|_| Reply::new(500, "")).await;
    let server = registry(&auth, Content::default().with_image("1", &image), "Bearer given").await;
    let login = Arc::new(Fixed(Ok(Some(Login::Token(Secret::new("given"))))));
    client_as("", login).resolve(&reference(&server, "app:1"), &amd64(), None).await.expect("it is accepted");
    assert!(auth.lines().is_empty());
    let login = Arc::new(Fixed(Ok(Some(Login::Token(Secret::new("other"))))));
    let error = client_as("", login).resolve(&reference(&server, "app:1"), &amd64(), None).await;
    assert!(matches!(*error.expect_err("refused").fault, Fault::Unauthorized { login: true, .. }));
}

#[tokio::test]
async fn basic_logins_are_sent_only_when_asked_for() {
    let image = image("linux/amd64");
    let content = Content::default().with_image("1", &image);
    let server = Server::start(move |seen| match seen.header("authorization") {
        Some(ADA) => content.answer(seen),
        _ => Reply::new(401, "").with("WWW-Authenticate", "Basic realm=\"the registry\""),
    })
    .await;
    let name = reference(&server, "app:1");
    client_as("", ada()).resolve(&name, &amd64(), None).await.expect("ada may");
    let sent: Vec<bool> =
        server.seen().iter().map(|seen| seen.headers.contains_key("authorization")).collect();
    assert_eq!(sent, [false, true, true]);
    let error = client("").resolve(&name, &amd64(), None).await.expect_err("no login");
    assert!(matches!(*error.fault, Fault::Unauthorized { login: false, .. }), "{error}");
    let wrong = Login::Password { username: "ada".into(), password: Secret::new("wrong") };
    let error = client_as("", Arc::new(Fixed(Ok(Some(wrong))))).resolve(&name, &amd64(), None).await;
    assert!(matches!(*error.expect_err("refused").fault, Fault::Unauthorized { login: true, .. }));
}

#[tokio::test]
async fn a_token_that_ended_early_is_replaced() {
    let image = image("linux/amd64");
    let count = AtomicUsize::new(0);
    let auth = Server::start(move |_| {
        Reply::new(200, format!(r#"{{"token":"number-{}"}}"#, count.fetch_add(1, Ordering::SeqCst)))
    })
    .await;
    let content = Content::default().with_image("1", &image);
    let challenge = format!("Bearer realm=\"http://{}/token\"", auth.host);
    let server = Server::start(move |seen| {
        // The manifest takes the first token, blobs the second.
        let wanted = if seen.path.contains("manifests") { "Bearer number-0" } else { "Bearer number-1" };
        match seen.header("authorization") == Some(wanted) {
            true => content.answer(seen),
            false => Reply::new(401, "").with("WWW-Authenticate", challenge.clone()),
        }
    })
    .await;
    client("").resolve(&reference(&server, "app:1"), &amd64(), None).await.expect("both are had");
    assert_eq!(auth.lines(), ["GET /token?scope=repository%3Aapp%3Apull"; 2]);
}

#[tokio::test]
async fn many_at_once_get_one_token() {
    let layers: Vec<Vec<u8>> = (0..8u8).map(|number| vec![number; 100]).collect();
    let content = layers.iter().fold(Content::default(), |content, layer| content.with_blob(layer));
    let auth = Server::start(token).await;
    let server = registry(&auth, content, "Bearer anyone").await;
    let (client, name) = (client(""), reference(&server, "app:1"));
    let downloads = layers.into_iter().map(|layer| {
        let (client, name) = (client.clone(), name.clone());
        tokio::spawn(async move {
            let wanted = Descriptor::of(MediaType("x/y".into()), &layer);
            let mut got = Vec::new();
            client.download(&name, &wanted, &mut got, |_| {}).await.expect("public");
            assert_eq!(got, layer);
        })
    });
    for download in downloads.collect::<Vec<_>>() {
        download.await.expect("no panic");
    }
    assert_eq!(auth.lines().len(), 1);
}

#[tokio::test]
async fn a_login_that_cannot_be_read_matters_only_where_one_is_needed() {
    let image = image("linux/amd64");
    let auth = Server::start(token).await;
    let content = Content::default().with_image("1", &image);
    let public = registry(&auth, content.clone(), "Bearer anyone").await;
    let private = registry(&auth, content, "Bearer of-ada").await;
    let missing = || {
        let text = r#"{"credsStore":"nowhere"}"#;
        Arc::new(DockerConfig::parse(text, "/h/config.json", Vec::new()).expect("valid"))
    };
    client_as("", missing()).resolve(&reference(&public, "app:1"), &amd64(), None).await.expect("public");
    let error = client_as("", missing()).resolve(&reference(&private, "app:1"), &amd64(), None).await;
    let error = error.expect_err("a login is needed");
    assert_eq!(error.code(), "registry-credentials");
    assert!(error.to_string().contains("docker-credential-nowhere"), "{error}");
    assert!(error.help().expect("some").contains("/h/config.json"));
}

#[tokio::test]
async fn refusals_keep_their_words() {
    for (reply, code, says) in [
        (
            Reply::new(403, r#"{"errors":[{"code":"DENIED","message":"not for you"}]}"#),
            "registry-denied",
            "not for you",
        ),
        (Reply::new(401, "").with("WWW-Authenticate", "Negotiate"), "registry-login", "Negotiate"),
        (Reply::new(401, ""), "registry-login", "wants a login"),
        (Reply::new(418, "short and stout"), "registry-answer", "418 (short and stout)"),
        (
            Reply::new(401, "").with("WWW-Authenticate", "Bearer realm=\"ftp://x/\""),
            "registry-login",
            "neither HTTP nor HTTPS",
        ),
        (
            Reply::new(401, "").with("WWW-Authenticate", "Bearer realm=\"http://127.0.0.1:1/\""),
            "registry-token",
            "http://127.0.0.1:1: no connection",
        ),
    ] {
        let server = Server::start(move |_| reply.clone()).await;
        let error = client("").resolve(&reference(&server, "app:1"), &amd64(), None).await.expect_err(code);
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[tokio::test]
async fn a_token_server_that_gives_none_is_named() {
    for (body, why) in
        [("{}", "are missing"), ("<html>", "not the expected JSON"), (r#"{"token":"a\nb"}"#, "letters")]
    {
        let auth = Server::start(move |_| Reply::new(200, body)).await;
        let server = registry(&auth, Content::default(), "Bearer none").await;
        let error = client("").resolve(&reference(&server, "app:1"), &amd64(), None).await.expect_err(body);
        assert_eq!(error.code(), "registry-token");
        assert!(error.to_string().contains(why) && error.to_string().contains(&auth.host), "{error}");
    }
}

#[tokio::test]
async fn an_identity_token_is_shown_to_a_server_that_only_knows_get() {
    let image = image("linux/amd64");
    for status in [404, 405] {
        let auth = Server::start(move |seen| match (seen.method.as_str(), seen.header("authorization")) {
            ("POST", _) => Reply::new(status, ""),
            // `:refresh`
            (_, Some("Basic OnJlZnJlc2g=")) => Reply::new(200, r#"{"token":"of-ada"}"#),
            _ => Reply::new(401, ""),
        })
        .await;
        let server = registry(&auth, Content::default().with_image("1", &image), "Bearer of-ada").await;
        let login = Arc::new(Fixed(Ok(Some(Login::Identity(Secret::new("refresh"))))));
        client_as("", login).resolve(&reference(&server, "app:1"), &amd64(), None).await.expect("ada may");
        assert!(auth.lines()[0].starts_with("POST") && auth.lines()[1].starts_with("GET"));
        assert!(auth.lines().iter().all(|line| !line.contains("refresh")), "not in an address");
    }
}

#[tokio::test]
async fn a_token_that_ends_in_the_middle_of_an_upload_is_renewed() {
    use crate::push::{bytes, descriptor, options, server};
    let count = Arc::new(AtomicUsize::new(0));
    let given = count.clone();
    let auth = Server::start(move |_| {
        Reply::new(200, format!(r#"{{"token":"number-{}"}}"#, given.fetch_add(1, Ordering::SeqCst)))
    })
    .await;
    let challenge = format!("Bearer realm=\"http://{}/token\"", auth.host);
    // Every fourth question meets the end of a token.
    let (server, state) = server(Box::new(move |asked, seen| {
        let newest = format!("Bearer number-{}", count.load(Ordering::SeqCst).saturating_sub(1));
        let good = seen.header("authorization") == Some(newest.as_str()) && asked % 4 != 0;
        (!good).then(|| Reply::new(401, "").with("WWW-Authenticate", challenge.clone()))
    }))
    .await;
    let all = bytes(5 << 20);
    let blob = descriptor(&all);
    let content = Bytes::from(all.clone());
    client_as("", ada())
        .push_blob(&reference(&server, "app:1"), &blob, &content, &options(&[], None))
        .await
        .expect("it arrives");
    assert_eq!(state.lock().expect("no panic").blobs.values().next(), Some(&all));
    assert!(auth.lines().len() > 2, "{:?}", auth.lines());
}
