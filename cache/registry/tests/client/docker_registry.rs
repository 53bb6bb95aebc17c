//! Docker's own registry, filled by skopeo. Where one of them is not installed, the tests say so and do
//! nothing.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use oci::{Descriptor, Digest, Index, Reference};
use registry::{Anonymous, Client, DockerConfig, Roots, Settings};
use tempfile::TempDir;

use crate::{
    process::{HTPASSWD, Registry, installed, run},
    support::{Image, amd64, client, client_as, image, quick},
};

/// An OCI layout with an index of these images, named `all`.
fn layout(images: &[Image]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let blobs = folder.path().join("blobs/sha256");
    std::fs::create_dir_all(&blobs).expect("created");
    let write = |bytes: &[u8]| std::fs::write(blobs.join(Digest::of(bytes).hex()), bytes).expect("written");
    for image in images {
        [&image.layer, &image.config, &image.manifest].into_iter().for_each(|bytes| write(bytes));
    }
    let inner = Index::new(images.iter().map(|image| image.descriptor.clone()).collect()).bytes();
    write(&inner);
    let mut named = Descriptor::of(oci::MediaType::index(), &inner);
    named.annotations.insert("org.opencontainers.image.ref.name".into(), "all".into());
    std::fs::write(folder.path().join("index.json"), Index::new(vec![named]).bytes()).expect("written");
    std::fs::write(folder.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("written");
    folder
}

async fn layers(client: &Client, reference: &Reference, layers: &[Descriptor]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for layer in layers {
        let mut bytes = Vec::new();
        client.download(reference, layer, &mut bytes, |_| {}).await.expect("it comes");
        all.push(bytes);
    }
    all
}

#[tokio::test]
async fn images_are_pulled_as_they_were_pushed() {
    if !installed(&["docker-registry", "skopeo"]) {
        return;
    }
    let images = [image("linux/arm64"), image("linux/amd64")];
    let registry = Registry::start("", "", |_| {});
    let layout = layout(&images);
    registry.push(layout.path(), "oci", &["--all", "--preserve-digests"]);
    registry.push(layout.path(), "docker", &["--format=v2s2"]);
    let client = client("");

    let reference = registry.reference("app:oci");
    for image in &images {
        let platform = image.descriptor.platform.as_ref().expect("named");
        let resolved = client.resolve(&reference, platform, None).await.expect("it is there");
        assert_eq!(resolved.manifest_bytes, image.manifest);
        assert_eq!(layers(&client, &reference, &resolved.manifest.layers).await, [image.layer.as_slice()]);
        assert_eq!(client.head(&reference).await.expect("it is there").digest, resolved.top().digest);
        let pinned = registry.reference(&format!("app@{}", resolved.descriptor.digest));
        let pinned = client.resolve(&pinned, platform, None).await.expect("it is there");
        assert_eq!(pinned.config_bytes, image.config);
    }

    let reference = registry.reference("app:docker");
    let resolved = client.resolve(&reference, &amd64(), None).await.expect("it is there");
    assert_eq!(resolved.descriptor.media_type.as_str(), oci::media_type::DOCKER_MANIFEST);
    assert_eq!(resolved.config.platform(), amd64());
    assert_eq!(layers(&client, &reference, &resolved.manifest.layers).await.len(), 1);

    let insecure = crate::support::client(&format!("[registry.'{}']\ninsecure = true", registry.host));
    insecure.resolve(&reference, &amd64(), None).await.expect("plain HTTP is tried after TLS");

    let missing = registry.reference("app:missing");
    let error = client.resolve(&missing, &amd64(), None).await.expect_err("not there");
    assert_eq!(error.code(), "image-not-found");
    assert!(error.to_string().contains("MANIFEST_UNKNOWN"), "{error}");
}

#[tokio::test]
async fn a_registry_with_passwords_lets_in_who_has_one() {
    if !installed(&["docker-registry", "skopeo"]) {
        return;
    }
    let image = image("linux/amd64");
    let auth = "auth: {htpasswd: {realm: test, path: FOLDER/htpasswd}}";
    let registry = Registry::start("", auth, |folder| {
        std::fs::write(folder.join("htpasswd"), HTPASSWD).expect("written");
    });
    let layout = layout(std::slice::from_ref(&image));
    registry.push(layout.path(), "1", &["--all", "--preserve-digests", "--dest-creds=ada:hunter2"]);
    let reference = registry.reference("app:1");

    let error = client("").resolve(&reference, &amd64(), None).await.expect_err("no login");
    assert_eq!(error.code(), "registry-login");
    let config = |password: &str| {
        let text =
            format!(r#"{{"auths":{{"{}":{{"username":"ada","password":"{password}"}}}}}}"#, registry.host);
        Arc::new(DockerConfig::parse(&text, "config.json", Vec::new()).expect("valid"))
    };
    let ada = client_as("", config("hunter2"));
    let resolved = ada.resolve(&reference, &amd64(), None).await.expect("ada may");
    assert_eq!(layers(&ada, &reference, &resolved.manifest.layers).await, [image.layer.as_slice()]);
    let error = client_as("", config("wrong")).resolve(&reference, &amd64(), None).await.expect_err("wrong");
    assert!(error.to_string().contains("refused the login"), "{error}");
}

/// A certificate authority, and a certificate for 127.0.0.1 that it signed.
fn certificates(folder: &Path) {
    let openssl = |line: &str| run("openssl", folder, &line.split(' ').collect::<Vec<_>>());
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=test-ca -days 2"));
    openssl(&format!("req {key} -keyout key.pem -out request.pem -subj /CN=test"));
    std::fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1").expect("written");
    openssl(
        "x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -out cert.pem -days 2 -extfile names",
    );
}

#[tokio::test]
async fn certificates_are_checked_as_the_settings_say() {
    if !installed(&["docker-registry", "skopeo", "openssl"]) {
        return;
    }
    let tls = "  tls: {certificate: FOLDER/cert.pem, key: FOLDER/key.pem}";
    let registry = Registry::start(tls, "", certificates);
    let image = image("linux/amd64");
    registry.push(layout(std::slice::from_ref(&image)).path(), "1", &["--all", "--preserve-digests"]);
    let (reference, host) = (registry.reference("app:1"), registry.host.clone());
    let ca: PathBuf = registry.folder.path().join("ca.pem");
    let table = |line: &str| format!("[registry.'{host}']\n{line}");

    for line in [format!("ca = '{}'", ca.display()), "insecure = true".to_owned()] {
        let client = client(&table(&line));
        let resolved = client.resolve(&reference, &amd64(), None).await.expect(&line);
        assert_eq!(resolved.manifest_bytes, image.manifest);
    }
    let strict = Settings { limits: quick(), ..Settings::parse(&table("insecure = false")).expect("valid") };
    let roots = Roots { file: Some(ca), folders: Vec::new() };
    let told = Client::new(Settings { roots, ..strict.clone() }, Arc::new(Anonymous));
    told.resolve(&reference, &amd64(), None).await.expect("its authority is trusted");

    let error =
        Client::new(strict, Arc::new(Anonymous)).head(&reference).await.expect_err("an unknown authority");
    assert_eq!(error.code(), "registry-tls");
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
    assert!(error.help().expect("some").contains(&host), "{error}");

    let error = client("").resolve(&reference, &amd64(), None).await.expect_err("plain HTTP to a TLS port");
    assert!(error.help().expect("some").contains("it speaks TLS"), "{error}");

    let missing = client(&table("ca = '/nowhere/ca.pem'"));
    let error = missing.head(&reference).await.expect_err("no such file");
    assert_eq!(error.code(), "registry-settings");
    assert!(error.to_string().contains("/nowhere/ca.pem"), "{error}");
}
