//! Logins: by name and password, by tokens, from the files of Docker and of containers.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use kiln_tests::registry::Registry;
use kiln_tests::token::{Rules, TokenServer};

use crate::place::{HTPASSWD, PASSWORD, Place, cannot};
use kiln_tests::program::said;

const IDENTITY: &str = "identity-of-ada";

/// `ada:hunter2`, in base64.
const ADA: &str = "YWRhOmh1bnRlcjI=";

fn htpasswd() -> Registry {
    let auth = "auth: {htpasswd: {realm: test, path: FOLDER/htpasswd}}";
    Registry::start_with(auth, &[("htpasswd", HTPASSWD)]).expect("it starts")
}

/// A registry that believes a token server.
fn tokens(place: &Place, posts: bool) -> (TokenServer, Registry) {
    let rules = Rules { user: format!("ada:{PASSWORD}"), identity: IDENTITY.to_owned(), posts };
    let server = TokenServer::start(&place.path("etc"), rules).expect("it starts");
    let registry = Registry::start_with(&server.registry_lines(), &[]).expect("it starts");
    (server, registry)
}

#[test]
fn without_a_login() {
    if cannot("without_a_login", &[]) {
        return;
    }
    Place::new().round(Registry::start().expect("it starts").address());
}

#[test]
fn by_name_and_password() {
    if cannot("by_name_and_password", &[]) {
        return;
    }
    let place = Place::new();
    let registry = htpasswd();
    let host = registry.address();
    place.build(host);
    let none = place.fails("a", &format!("push {host}/public/app:1"));
    assert!(none.contains("it wants a login") && none.contains(&format!("kiln login {host}")), "{none}");
    let wrong = place.log_in(host, "wrong");
    assert_eq!(wrong.status.code(), Some(1));
    assert!(said(&wrong).contains("refused the login") && said(&wrong).contains("correct the user name"));
    assert!(!place.path("home/.docker").exists(), "what is wrong is not kept");
    let right = place.log_in(host, PASSWORD);
    assert!(right.status.success() && said(&right).contains("unencrypted"), "{}", said(&right));
    place.round(host);
    place.done("a", &format!("logout {host}"));
    place.fails("b", &format!("pull {host}/team/built:1"));
    place.never_said([PASSWORD, ADA]);
    place.never_written("home", PASSWORD);
}

#[test]
fn of_two_logins_at_once_none_is_lost() {
    if cannot("of_two_logins_at_once_none_is_lost", &[]) {
        return;
    }
    let place = Place::new();
    let registry = htpasswd();
    let host = registry.address();
    place.write("home/.docker/config.json", "{}");
    let folder = fs::File::open(place.path("home/.docker")).expect("made above");
    folder.lock().expect("nobody else has it");
    std::thread::scope(|scope| {
        let login = scope.spawn(|| place.log_in(host, PASSWORD));
        std::thread::sleep(std::time::Duration::from_secs(2));
        assert!(!login.is_finished(), "it waits for who writes the file");
        place.write("home/.docker/config.json", r#"{"auths":{"other.example":{"auth":"YTpi"}}}"#);
        folder.unlock().expect("it is ours");
        let output = login.join().expect("no panic");
        assert!(output.status.success(), "{}", said(&output));
    });
    let text = fs::read_to_string(place.path("home/.docker/config.json")).expect("written");
    assert!(text.contains("other.example") && text.contains(host), "{text}");
}

#[test]
fn by_tokens() {
    if cannot("by_tokens", &["openssl"]) {
        return;
    }
    let place = Place::new();
    let (server, registry) = tokens(&place, true);
    let host = registry.address();
    place.build(host);
    let none = place.fails("a", &format!("push {host}/public/app:1"));
    assert!(none.contains(&format!("kiln login {host}")), "{none}");
    server.take_log();
    let wrong = place.log_in(host, "wrong");
    assert_eq!(wrong.status.code(), Some(1));
    assert!(said(&wrong).contains("incorrect username or password"), "{}", said(&wrong));
    // What the push had still asked when it failed may be answered by now.
    let asked: Vec<String> = server.take_log().into_iter().filter(|line| line != "GET nobody 200").collect();
    assert_eq!(asked, ["GET stranger 401"], "asked once");
    assert!(place.log_in(host, PASSWORD).status.success());
    server.take_log();
    place.done("a", &format!("push -q {host}/public/app:1"));
    assert!(server.take_log().len() <= 2, "a token is for all blobs of a repository");
    place.round(host);

    // A kept login that is wrong by now: one error, with what to do, and no storm.
    let config = place.path("home/.docker/config.json");
    let text = fs::read_to_string(&config).expect("kept");
    assert!(text.contains(ADA));
    fs::write(&config, text.replace(ADA, "YWRhOndyb25n")).expect("written");
    server.take_log();
    let stale = place.fails("a", &format!("push {host}/public/app:1 {host}/team/other:1"));
    assert_eq!(stale.matches("error[").count(), 1, "{stale}");
    assert!(stale.contains("not accepted") && stale.contains(&format!("kiln login {host}")), "{stale}");
    assert!(server.take_log().len() <= 4, "no more than one question a blob");

    place.done("a", &format!("logout {host}"));
    place.done("d", &format!("pull -q {host}/public/app:1"));
    place.fails("d", &format!("pull {host}/team/built:1"));
    let given = server.tokens();
    assert!(!given.is_empty());
    place.never_said([PASSWORD, ADA].into_iter().chain(given.iter().map(String::as_str)));
    for token in &given[given.len() - 2..] {
        ["a", "b", "c", "d", "home"].iter().for_each(|folder| place.never_written(folder, token));
    }
}

/// A credential helper that knows what it was told, in a file beside it, or the identity of `ada`.
fn helper(place: &mut Place, answer: &str) {
    place.write(
        "bin/docker-credential-test",
        &format!("#!/bin/sh\ncase $1 in\nstore) cat > PLACE/bin/kept ;;\nerase) rm PLACE/bin/kept ;;\nget) {answer} ;;\nesac\n"),
    );
    let program = place.path("bin/docker-credential-test");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("set");
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", place.path("bin").display());
    place.set("PATH", &path);
    place.write("home/.docker/config.json", "{\"credsStore\": \"test\"}");
}

#[test]
fn by_an_identity_token() {
    if cannot("by_an_identity_token", &["openssl"]) {
        return;
    }
    for posts in [true, false] {
        let mut place = Place::new();
        let (server, registry) = tokens(&place, posts);
        let host = registry.address();
        helper(&mut place, &format!("echo '{{\"Username\":\"<token>\",\"Secret\":\"{IDENTITY}\"}}'"));
        place.round(host);
        let log = server.take_log();
        let form = if posts { "POST user 200" } else { "POST stranger 405" };
        assert!(log.iter().any(|line| line.starts_with(&form[..4])), "{log:?}");
        assert_eq!(log.iter().any(|line| line == "GET user 200"), !posts, "{log:?}");
        place.write(
            "home/.docker/config.json",
            &format!("{{\"auths\":{{\"{host}\":{{\"identitytoken\":\"{IDENTITY}\"}}}}}}"),
        );
        place.done("e", &format!("pull -q {host}/team/built:1"));
        place.never_said([IDENTITY]);
    }
}

#[test]
fn with_a_helper_nothing_is_written() {
    if cannot("with_a_helper_nothing_is_written", &[]) {
        return;
    }
    let mut place = Place::new();
    helper(&mut place, "cat PLACE/bin/kept 2>/dev/null || { echo credentials not found; exit 1; }");
    let registry = htpasswd();
    let host = registry.address();
    let logged_in = place.log_in(host, PASSWORD);
    assert!(logged_in.status.success() && !said(&logged_in).contains("unencrypted"), "{}", said(&logged_in));
    place.round(host);
    place.never_written("home", PASSWORD);
    place.never_written("home", ADA);
    place.done("a", &format!("logout {host}"));
    assert!(!place.path("bin/kept").exists());
    place.fails("a", &format!("tags {host}/team/built"));
    place.never_said([PASSWORD, ADA]);
}

#[test]
fn from_the_files_of_containers() {
    if cannot("from_the_files_of_containers", &[]) {
        return;
    }
    let registry = htpasswd();
    let host = registry.address();
    let ada = format!("{{\"auths\":{{\"{host}\":{{\"auth\":\"{ADA}\"}}}}}}");
    let wrong = ada.replace(ADA, "YWRhOndyb25n");
    for file in ["run/containers/auth.json", "home/.config/containers/auth.json"] {
        let place = Place::new();
        place.write(file, &ada);
        place.round(host);
        assert!(place.told("a", &format!("logout {host}")).contains(&format!("podman logout {host}")));
    }
    let mut place = Place::new();
    place.write("named.json", &ada);
    place.write("run/containers/auth.json", &wrong);
    let named = place.path("named.json").display().to_string();
    place.set("REGISTRY_AUTH_FILE", &named);
    place.build(host);
    place.done("a", &format!("push -q {host}/public/app:1"));
    // Docker's file comes first.
    place.write("home/.docker/config.json", &wrong);
    place.fails("a", &format!("push {host}/public/app:2"));

    let place = Place::new();
    let keys = format!(
        "{{\"auths\":{{\"{host}\":{{\"auth\":\"YWRhOndyb25n\"}},\"{host}/public\":{{\"auth\":\"{ADA}\"}}}}}}"
    );
    place.write("run/containers/auth.json", &keys);
    place.build(host);
    place.done("a", &format!("push -q {host}/public/app:1"));
    let other = place.fails("a", &format!("push {host}/public/app:1 {host}/team/app:1"));
    assert!(other.contains("not accepted"), "{other}");
    place.never_said([PASSWORD, ADA]);
}
