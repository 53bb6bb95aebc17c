//! What `registries.conf`, `daemon.json` and `hosts.toml` say about who is asked.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::thread;

use kiln_tests::registry::Registry;

use crate::place::{HTPASSWD, PASSWORD, Place, cannot};

const NAME: &str = "registry.invalid/public/app:1";

/// A registry with the image of [`Place::build`], and the place.
fn filled(place: &Place) -> Registry {
    let registry = Registry::start().expect("it starts");
    place.build(registry.address());
    place.done("a", &format!("push -q {}/public/app:1", registry.address()));
    registry
}

#[test]
fn names_are_looked_for_where_the_files_say() {
    if cannot("names_are_looked_for_where_the_files_say", &[]) {
        return;
    }
    for (file, text) in [
        ("etc/kiln/registries.toml", "[registry.'registry.invalid']\nmirrors = ['http://HOST']\n"),
        (
            "etc/containers/registries.conf",
            "[[registry]]\nlocation = 'registry.invalid'\n[[registry.mirror]]\nlocation = 'HOST'\n",
        ),
        ("etc/containers/registries.conf", "[[registry]]\nprefix = '*.invalid'\nlocation = 'HOST'\n"),
        (
            "etc/containers/registries.conf",
            "[[registry]]\nprefix = 'registry.invalid/public/app'\nlocation = 'HOST/public/app'\n",
        ),
        (
            "etc/docker/certs.d/registry.invalid/hosts.toml",
            "[host.'http://HOST']\ncapabilities = ['pull', 'resolve']\n",
        ),
        ("etc/docker/certs.d/_default/hosts.toml", "server = 'http://HOST'\n"),
    ] {
        let place = Place::new();
        let registry = filled(&place);
        place.write(file, &text.replace("HOST", registry.address()));
        place.done("b", &format!("pull -q {NAME}"));
        place.write("context/Dockerfile", &format!("FROM {NAME}\nRUN grep first /said\n"));
        place.done("c", "build -q PLACE/context");
        // What is written goes to the registry itself.
        place.done("a", &format!("tag {}/public/app:1 {NAME}", registry.address()));
        if !text.contains("server") {
            let lost = place.fails("a", &format!("push {NAME}"));
            assert!(lost.contains("cannot push") && lost.contains("https://registry.invalid"), "{lost}");
        }
    }
    let place = Place::new();
    let registry = filled(&place);
    place.write(
        "etc/docker/daemon.json",
        &format!("{{\"registry-mirrors\": [\"http://{}\"]}}", registry.address()),
    );
    place.done("b", "pull -q public/app:1");
}

#[test]
fn a_mirror_that_is_no_help_is_said_once() {
    if cannot("a_mirror_that_is_no_help_is_said_once", &[]) {
        return;
    }
    let place = Place::new();
    let registry = filled(&place);
    let down = "127.0.0.1:9";
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let broken = silent.local_addr().expect("bound").to_string();
    thread::spawn(move || {
        for mut stream in silent.incoming().flatten() {
            let _asked = stream.read(&mut [0; 1024]);
        }
    });
    let mirrors = [down, &broken, registry.address()]
        .map(|host| format!("[[registry.mirror]]\nlocation = '{host}'\n"))
        .concat();
    place.write(
        "etc/containers/registries.conf",
        &format!("[[registry]]\nlocation = 'registry.invalid'\n{mirrors}"),
    );
    let said = place.told("b", &format!("pull --progress plain {NAME}"));
    assert_eq!(
        said.matches("the mirror http://127.0.0.1:9 of registry.invalid is passed over").count(),
        1,
        "{said}"
    );
    assert_eq!(said.matches(&format!("the mirror http://{broken} of")).count(), 1, "{said}");

    // The registry itself, where no mirror helps.
    let text = format!(
        "[[registry]]\nprefix = 'registry.invalid'\nlocation = '{}'\n[[registry.mirror]]\nlocation = '{down}'\n",
        registry.address()
    );
    place.write("etc/containers/registries.conf", &text);
    place.done("c", &format!("pull -q {NAME}"));
}

#[test]
fn a_mirror_is_not_given_the_login_of_the_registry() {
    if cannot("a_mirror_is_not_given_the_login_of_the_registry", &[]) {
        return;
    }
    let place = Place::new();
    let auth = "auth: {htpasswd: {realm: test, path: FOLDER/htpasswd}}";
    let registry = Registry::start_with(auth, &[("htpasswd", HTPASSWD)]).expect("it starts");
    let host = registry.address().to_owned();
    assert!(place.log_in(&host, PASSWORD).status.success());
    place.build(&host);
    place.done("a", &format!("push -q {host}/public/app:1"));
    // A mirror that wants a login gets none, and the registry gives the image.
    let mirror = Registry::start_with(auth, &[("htpasswd", HTPASSWD)]).expect("it starts");
    let text = format!(
        "[[registry]]\nlocation = '{host}'\n[[registry.mirror]]\nlocation = '{}'\n",
        mirror.address()
    );
    place.write("etc/containers/registries.conf", &text);
    let said = place.told("b", &format!("pull --progress plain {host}/public/app:1"));
    assert!(said.contains(&format!("the mirror http://{} of {host}", mirror.address())), "{said}");
    assert!(said.contains("it wants a login"), "no login was sent: {said}");
    place.done("a", &format!("push -q {host}/public/app:1"));
    assert!(!mirror.data().join("docker").exists(), "nothing was pushed to the mirror");
}

#[test]
fn what_is_blocked_unknown_or_broken_is_told() {
    if cannot("what_is_blocked_unknown_or_broken_is_told", &[]) {
        return;
    }
    let place = Place::new();
    let registry = filled(&place);
    let host = registry.address();
    let conf = |text: &str| place.write("etc/containers/registries.conf", &text.replace("HOST", host));
    let path = place.path("etc/containers/registries.conf").display().to_string();
    conf("[[registry]]\nlocation = 'HOST/public'\nblocked = true\n");
    for words in [format!("pull {host}/public/app:1"), format!("push {host}/public/app:1")] {
        let blocked = place.fails("a", &words);
        assert!(blocked.contains("error[registry-blocked]") && blocked.contains(&path), "{blocked}");
    }
    place.write("context/Dockerfile", &format!("FROM {host}/public/app:1\n"));
    assert!(place.fails("b", "build PLACE/context").contains("registry-blocked"));

    conf(
        "unqualified-search-registries = ['x.invalid']\nnew-key = 1\n[[registry]]\nlocation = 'HOST'\nfuture = true\n[aliases]\na = 'b/c'\n",
    );
    let told = place.told("b", &format!("pull --progress plain {host}/public/app:1"));
    for what in ["not used: `new-key`", "not used: `future` of [[registry]]"] {
        assert_eq!(told.matches(what).count(), 1, "{told}");
    }
    assert!(!told.contains("unqualified") && !told.contains("aliases"), "{told}");

    conf("[[registry]]\nlocation = 7\n");
    let broken = place.fails("c", &format!("pull {host}/public/app:1"));
    assert!(broken.contains(&format!("{path}:2: ")) && broken.contains("registry-settings"), "{broken}");
    // Only who asks a registry needs to know.
    place.done("a", "images -q");
}

/// Turns a bit in every layer that a registry has.
fn spoil(folder: &Path) -> usize {
    let mut spoiled = 0;
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            spoiled += spoil(&path);
            continue;
        }
        let mut bytes = fs::read(&path).expect("a file");
        if path.ends_with("data") && bytes.starts_with(&[0x1f, 0x8b]) {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(&path, bytes).expect("it is there");
            spoiled += 1;
        }
    }
    spoiled
}

#[test]
fn layers_that_a_mirror_has_spoiled_come_from_the_registry() {
    if cannot("layers_that_a_mirror_has_spoiled_come_from_the_registry", &[]) {
        return;
    }
    let place = Place::new();
    let (registry, mirror) = (filled(&place), filled(&place));
    assert_eq!(spoil(&mirror.data()), 2);
    let text = format!(
        "[[registry]]\nprefix = 'registry.invalid'\nlocation = '{}'\n[[registry.mirror]]\nlocation = '{}'\n",
        registry.address(),
        mirror.address()
    );
    place.write("etc/containers/registries.conf", &text);
    let said = place.told("b", &format!("pull --progress plain {NAME}"));
    assert_eq!(said.matches(&format!("the mirror http://{}", mirror.address())).count(), 1, "{said}");
    assert_eq!(place.done("b", &format!("run {NAME} cat /said")), "first");
    place.write("context/Dockerfile", &format!("FROM {NAME}\nRUN grep first /said\n"));
    let said = place.told("c", "build --progress plain PLACE/context");
    assert_eq!(said.matches("WARN: registry: the mirror").count(), 1, "{said}");

    // Without another place the error names the host.
    place.write("etc/containers/registries.conf", "");
    let error = place.fails("d", &format!("pull {}/public/app:1", mirror.address()));
    assert!(error.contains("registry-wrong-bytes") && error.contains(mirror.address()), "{error}");
}
