use std::{fs, path::Path};

use super::*;
use crate::settings::Settings;

/// Files of three programs, and Kiln's own settings.
fn configured(own: &str, files: &[(&str, &str)]) -> (Configured, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("below")).expect("made");
        fs::write(path, text).expect("written");
    }
    let at = |name: &str| folder.path().join(name);
    let there = |name: &str| Some(at(name)).filter(|path| path.exists());
    let files = Files {
        registries_conf: there("registries.conf"),
        registries_conf_folders: vec![at("system.d"), at("user.d")],
        containers_certificates: vec![at("containers/certs.d")],
        docker_certificates: vec![at("docker/certs.d")],
        docker_daemon: there("daemon.json"),
    };
    let settings = Settings { files, ..Settings::parse(own).expect(own) };
    (Configured::new(&settings, Notices::default()), folder)
}

fn places(configured: &Configured, name: &str, purpose: Purpose) -> Vec<String> {
    let spots = configured.spots(&name.parse().expect(name), purpose).expect(name);
    let shown = |spot: &Spot| {
        let scheme = match spot.scheme {
            Some(Scheme::Http) => "http://",
            Some(Scheme::Https) => "https://",
            None => "",
        };
        let api = spot.api.trim_start_matches("/v2");
        format!(
            "{scheme}{}{api}/{}{}",
            spot.registry,
            spot.repository,
            if spot.mirror { " mirror" } else { "" }
        )
    };
    spots.iter().map(shown).collect()
}

fn spot(configured: &Configured, name: &str) -> Spot {
    let spots = configured.spots(&name.parse().expect(name), Purpose::ReadName).expect(name);
    spots.into_iter().next_back().expect("the registry itself")
}

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn mirrors_are_those_of_the_first_file_that_names_some() {
    let conf = "[[registry]]\nlocation = 'docker.io'\n[[registry.mirror]]\nlocation = 'containers.lab/hub'\n";
    let hosts = "[host.'http://hosts.lab']\n";
    let daemon = r#"{"registry-mirrors": ["https://daemon.lab"]}"#;
    let all =
        [("registries.conf", conf), ("docker/certs.d/docker.io/hosts.toml", hosts), ("daemon.json", daemon)];
    let own = "[registry.'docker.io']\nmirrors = ['https://own.lab/x']";
    for (own, files, first) in [
        (own, &all[..], "https://own.lab/x/library/a mirror"),
        ("", &all[..], "containers.lab/hub/library/a mirror"),
        ("", &all[1..], "http://hosts.lab/library/a mirror"),
        ("", &all[2..], "https://daemon.lab/library/a mirror"),
        ("", &[], ""),
    ] {
        let (configured, _folder) = configured(own, files);
        let mut expected = vec!["docker.io/library/a"];
        if !first.is_empty() {
            expected.insert(0, first);
        }
        assert_eq!(places(&configured, "a", Purpose::ReadName), expected);
        assert_eq!(
            places(&configured, "a", Purpose::Write),
            ["docker.io/library/a"],
            "no mirror is written to"
        );
    }
}

#[test]
fn names_are_rewritten_for_reading() {
    let conf = r#"
        [[registry]]
        prefix = "example.com/foo"
        location = "internal.example.net/bar"
        [[registry.mirror]]
        location = "mirror-0.local/mirror-for-foo"
        [[registry.mirror]]
        location = "mirror-1.local"
        pull-from-mirror = "digest-only"
        [[registry.mirror]]
        location = "mirror-2.local"
        pull-from-mirror = "tag-only"
        [[registry]]
        prefix = "*.wild.example"
        location = "there.example/all"
        [[registry]]
        prefix = "gone.example/all"
        location = "elsewhere.example"
    "#;
    let (configured, _folder) = configured("", &[("registries.conf", conf)]);
    let read = |name: &str| places(&configured, name, Purpose::ReadName);
    assert_eq!(
        read("example.com/foo/image:1"),
        [
            "mirror-0.local/mirror-for-foo/image mirror",
            "mirror-2.local/image mirror",
            "internal.example.net/bar/image"
        ]
    );
    assert_eq!(
        read(&format!("example.com/foo/image@{DIGEST}")),
        [
            "mirror-0.local/mirror-for-foo/image mirror",
            "mirror-1.local/image mirror",
            "internal.example.net/bar/image"
        ]
    );
    assert_eq!(places(&configured, "example.com/foo/image:1", Purpose::Write), ["example.com/foo/image"]);
    assert_eq!(read("example.com/food/image"), ["example.com/food/image"]);
    assert_eq!(read("a.b.wild.example/x"), ["there.example/all/x"]);
    let nothing = configured.spots(&"gone.example/all".parse().expect("a name"), Purpose::ReadName);
    assert!(nothing.expect_err("no repository is left").to_string().contains("`elsewhere.example`"));
}

#[test]
fn a_server_is_another_place_for_reading_and_writing() {
    let hosts =
        "server = 'https://real.lab:8443'\nca = 'ca.pem'\n[host.'https://m.lab']\ncapabilities = ['pull']\n";
    let (configured, folder) = configured("", &[("docker/certs.d/r.lab/hosts.toml", hosts)]);
    let real = "https://real.lab:8443/x";
    assert_eq!(places(&configured, "r.lab/x", Purpose::ReadName), [real], "it is not trusted with names");
    assert_eq!(places(&configured, "r.lab/x", Purpose::ReadDigest), ["https://m.lab/x mirror", real]);
    assert_eq!(places(&configured, "r.lab/x", Purpose::Write), [real]);
    let ca = folder.path().join("docker/certs.d/r.lab/ca.pem");
    assert_eq!(spot(&configured, "r.lab/x").authorities, [ca]);
}

#[test]
fn each_question_is_answered_by_the_first_who_knows() {
    let conf = "[[registry]]\nlocation = 'c.lab'\ninsecure = true\n[[registry]]\nlocation = 'k.lab'\ninsecure = true\n";
    let daemon = r#"{"insecure-registries": ["d.lab", "c.lab"]}"#;
    let files = [
        ("registries.conf", conf),
        ("daemon.json", daemon),
        ("containers/certs.d/c.lab/ca.crt", ""),
        ("docker/certs.d/c.lab/other.crt", ""),
        ("docker/certs.d/c.lab/me.cert", ""),
        ("docker/certs.d/c.lab/me.key", ""),
        ("docker/certs.d/k.lab/ca.crt", ""),
    ];
    let own = "[registry.'k.lab']\ninsecure = false\n[registry.'o.lab']\nca = '/own.pem'";
    let (configured, folder) = configured(own, &files);
    let at = |name: &str| folder.path().join(name);
    let of = |host: &str| spot(&configured, &format!("{host}/x"));
    assert_eq!(of("c.lab").insecure, Some(true));
    assert_eq!(of("c.lab").authorities, [at("containers/certs.d/c.lab/ca.crt")]);
    assert_eq!(of("c.lab").client.map(|client| client.key), Some(at("docker/certs.d/c.lab/me.key")));
    assert_eq!(
        (of("k.lab").insecure, of("k.lab").authorities),
        (Some(false), vec![at("docker/certs.d/k.lab/ca.crt")])
    );
    assert_eq!(of("d.lab").insecure, Some(true));
    assert_eq!((of("o.lab").insecure, of("o.lab").authorities), (None, vec!["/own.pem".into()]));
}

#[test]
fn drop_ins_replace_tables_about_the_same_names() {
    let files = [
        (
            "registries.conf",
            "[[registry]]\nlocation = 'a.lab'\nblocked = true\n[[registry]]\nlocation = 'b.lab'\nblocked = true",
        ),
        ("system.d/2.conf", "[[registry]]\nlocation = 'a.lab'\ninsecure = true"),
        ("system.d/1.conf", "[[registry]]\nlocation = 'a.lab'\ninsecure = false"),
        ("system.d/3.txt", "nonsense"),
        ("user.d/1.conf", "[[registry]]\nlocation = 'c.lab'\nblocked = true"),
    ];
    let (configured, folder) = configured("", &files);
    assert_eq!(spot(&configured, "a.lab/x").insecure, Some(true));
    for (name, file) in [("b.lab/x", "registries.conf"), ("c.lab/x", "user.d/1.conf")] {
        for purpose in [Purpose::ReadName, Purpose::Write] {
            let fault = configured.spots(&name.parse().expect(name), purpose).expect_err("blocked");
            let file = folder.path().join(file).display().to_string();
            assert!(matches!(fault, Fault::Blocked { .. }) && fault.to_string().contains(&file), "{fault}");
        }
    }
}

#[test]
fn a_broken_file_is_told_by_whoever_needs_it() {
    let (configured, folder) = configured("", &[("user.d/1.conf", "[[registry]]\nlocation = 5")]);
    let fault = configured.spots(&"a.lab/x".parse().expect("a name"), Purpose::ReadName).expect_err("broken");
    let path = folder.path().join("user.d/1.conf").display().to_string();
    assert!(fault.to_string().starts_with(&format!("{path}:2: ")), "{fault}");
    let missing = Files { docker_daemon: Some(Path::new("/nowhere/daemon.json").into()), ..Files::default() };
    let settings = Settings { files: missing, ..Settings::default() };
    let fault =
        Configured::new(&settings, Notices::default()).spots(&"a/x".parse().expect("a name"), Purpose::Write);
    assert!(
        fault.expect_err("it is not there").to_string().contains("/nowhere/daemon.json: it cannot be read")
    );
}
