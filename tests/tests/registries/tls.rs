//! Certificates: whose are believed, and which we show.

use std::fs;

use kiln_tests::registry::Registry;

use crate::place::{Place, cannot, certificates};

/// A registry that speaks TLS with a certificate of a private authority, in the place's `tls`.
fn registry(place: &Place, more: &str) -> Registry {
    fs::create_dir(place.path("tls")).expect("it is not there yet");
    certificates(&place.path("tls"));
    let tls = place.path("tls").display().to_string();
    let http = format!(
        "tls: {{certificate: {tls}/server.cert, key: {tls}/server.key{}}}",
        more.replace("TLS", &tls)
    );
    Registry::start_as(&http, "", &[]).expect("it starts")
}

#[test]
fn a_private_authority_is_believed_where_it_is_named() {
    if cannot("a_private_authority_is_believed_where_it_is_named", &["openssl"]) {
        return;
    }
    for (file, text) in [
        ("home/.config/kiln/registries.toml", "[registry.\"HOST\"]\nca = \"PLACE/tls/ca.crt\"\n"),
        ("etc/kiln/registries.toml", "[registry.\"HOST\"]\ninsecure = true\n"),
        ("etc/containers/registries.conf", "[[registry]]\nlocation = \"HOST\"\ninsecure = true\n"),
        (
            "home/.config/containers/registries.conf.d/1.conf",
            "[[registry]]\nlocation = \"HOST\"\ninsecure = true\n",
        ),
        ("etc/docker/daemon.json", "{\"insecure-registries\": [\"HOST\"]}"),
        ("etc/docker/certs.d/HOST/hosts.toml", "server = \"https://HOST\"\nca = \"PLACE/tls/ca.crt\"\n"),
        ("etc/docker/certs.d/HOST/hosts.toml", "server = \"https://HOST\"\nskip_verify = true\n"),
    ] {
        let place = Place::new();
        let registry = registry(&place, "");
        let host = registry.address();
        place.write(&file.replace("HOST", host), &text.replace("HOST", host));
        place.round(host);
    }
    for folder in ["etc/containers/certs.d", "etc/docker/certs.d", "home/.config/containers/certs.d"] {
        let place = Place::new();
        let registry = registry(&place, "");
        let host = registry.address();
        let ca = fs::read_to_string(place.path("tls/ca.crt")).expect("made");
        place.write(&format!("{folder}/{host}/ca.crt"), &ca);
        place.round(host);
    }
    let mut place = Place::new();
    let registry = registry(&place, "");
    let host = registry.address();
    place.write("etc/kiln/registries.toml", &format!("[registry.\"{host}\"]\ninsecure = false\n"));
    place.build(host);
    let unknown = place.fails("a", &format!("push {host}/public/app:1"));
    assert!(unknown.contains("UnknownIssuer"), "{unknown}");
    assert!(unknown.contains(&format!("/etc/docker/certs.d/{host}/ca.crt")), "{unknown}");
    let ca = place.path("tls/ca.crt").display().to_string();
    place.set("SSL_CERT_FILE", &ca);
    place.round(host);
}

#[test]
fn a_client_certificate_is_shown_to_who_asks_for_it() {
    if cannot("a_client_certificate_is_shown_to_who_asks_for_it", &["openssl"]) {
        return;
    }
    let place = Place::new();
    let registry = registry(&place, ", clientcas: [TLS/ca.crt]");
    let host = registry.address();
    let ours = format!("[registry.\"{host}\"]\nca = \"PLACE/tls/ca.crt\"\n");
    place.write("etc/kiln/registries.toml", &ours);
    place.build(host);
    let refused = place.fails("a", &format!("push {host}/public/app:1"));
    assert!(refused.contains(&format!("/etc/docker/certs.d/{host}/client.cert")), "{refused}");

    let with = format!("{ours}cert = \"PLACE/tls/client.cert\"\nkey = \"PLACE/tls/client.key\"\n");
    place.write("etc/kiln/registries.toml", &with);
    place.round(host);

    fs::remove_file(place.path("etc/kiln/registries.toml")).expect("written");
    let read = |name: &str| fs::read_to_string(place.path("tls").join(name)).expect("made");
    for name in ["ca.crt", "client.cert", "client.key"] {
        place.write(&format!("etc/docker/certs.d/{host}/{name}"), &read(name));
    }
    let tags = || place.done("a", &format!("tags {host}/team/built"));
    assert_eq!(tags(), "1");
    fs::remove_file(place.path(&format!("etc/docker/certs.d/{host}/client.key"))).expect("written");
    let half = place.fails("a", &format!("tags {host}/team/built"));
    assert!(half.contains("client.cert: it needs client.key beside it"), "{half}");

    fs::remove_dir_all(place.path("etc/docker")).expect("written");
    let hosts = "server = \"https://HOST\"\nca = \"PLACE/tls/ca.crt\"\nclient = [[\"PLACE/tls/client.cert\", \"PLACE/tls/client.key\"]]\n";
    place.write(&format!("etc/containerd/certs.d/{host}/hosts.toml"), &hosts.replace("HOST", host));
    assert_eq!(tags(), "1");

    place.write("tls/client.key", "no key");
    let bad = place.fails("a", &format!("tags {host}/team/built"));
    assert!(bad.contains("error[registry-settings]") && bad.contains("client.key"), "{bad}");
}
