//! Images that are written are read by us, by skopeo, umoci and podman, and found sound; damaged ones are not.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
    path::Path,
    process::Command,
};

use crate::archive::{Made, archive, everything, file, hard_link, has, is_machines_root, run, symlink};
use image::{
    assemble::{Dialect, Image, ImageLayer, assemble, assemble_index},
    blobs::{BlobSource, Chained, closure},
    compress::Codec,
    detect::decompress,
    encode::encode_layer,
    layer_tar::TarOptions,
    layout::{
        DockerArchive, Layout, LayoutError, NamedImage, Wanted, write_archive, write_docker_archive,
        write_folder,
    },
    validate::{Finding, validate},
};
use oci::{Config, Descriptor, Digest, History, ImageConfig, Index, Reference};

type Blobs = BTreeMap<Digest, Vec<u8>>;

/// An image of two layers, with its blobs.
fn image(codec: Codec, dialect: Dialect) -> (Image, Blobs) {
    let upper = Made::default().folder("etc", 0o755).file("etc/hostname", b"kiln\n");
    let mut blobs = Blobs::new();
    let mut layers = Vec::new();
    for made in [everything(), upper] {
        let mut blob = Vec::new();
        let encoded = encode_layer(&made.layer, &made.contents, TarOptions::default(), codec, &mut blob)
            .expect("encoded");
        blobs.insert(encoded.blob.digest(), blob);
        layers.push(ImageLayer {
            descriptor: encoded.descriptor(),
            diff_id: encoded.diff_id,
            created: None,
            created_by: None,
        });
    }
    let entry = |text: &str, empty_layer| History {
        created_by: Some(text.to_owned()),
        empty_layer,
        ..History::default()
    };
    let config = ImageConfig {
        os: "linux".to_owned(),
        architecture: "amd64".to_owned(),
        created: Some("2026-11-22T00:00:00Z".to_owned()),
        config: Config {
            env: vec!["A=1".to_owned()],
            cmd: Some(vec!["/bin/tool".to_owned()]),
            ..Config::default()
        },
        history: vec![
            entry("ADD everything", false),
            entry("ENV A=1", true),
            entry("COPY hostname /etc/", false),
        ],
        ..ImageConfig::default()
    };
    let image = assemble(config, &layers, BTreeMap::new(), dialect).expect("assembled");
    blobs.insert(image.manifest_descriptor.digest, image.manifest.clone());
    blobs.insert(image.config_descriptor.digest, image.config.clone());
    (image, blobs)
}

fn named(image: &Image) -> NamedImage {
    let names = ["app:v1", "ghcr.io/a/b"].map(|name| Reference::parse(name).expect("a name"));
    NamedImage { descriptor: image.manifest_descriptor.clone(), names: names.to_vec() }
}

fn assert_sound(blobs: &dyn BlobSource, image: &Descriptor) {
    let findings: Vec<_> = validate(blobs, image).iter().map(ToString::to_string).collect();
    assert!(findings.is_empty(), "{findings:#?}");
}

fn write(path: &Path, write: impl FnOnce(&mut File) -> Result<(), LayoutError>) {
    write(&mut File::create(path).expect("made")).expect("written");
}

#[test]
fn what_is_written_is_read_and_sound() {
    let folder = tempfile::tempdir().expect("a folder");
    for codec in [Codec::Uncompressed, Codec::GZIP, Codec::ZSTD] {
        for dialect in [Dialect::Oci, Dialect::Docker] {
            let (image, blobs) = image(codec, dialect);
            assert_sound(&blobs, &image.manifest_descriptor);
            let at = |name: &str| folder.path().join(format!("{name}-{codec}-{dialect:?}"));
            write(&at("oci.tar"), |out| write_archive(&[named(&image)], &blobs, out));
            write(&at("docker.tar"), |out| write_docker_archive(&[named(&image)], &blobs, out));
            write_folder(&[named(&image)], &blobs, &at("oci")).expect("written");
            for path in [at("oci.tar"), at("docker.tar"), at("oci")] {
                let layout = Layout::open(&path).expect("opened");
                for wanted in [
                    "v1",
                    "app:v1",
                    "docker.io/library/app:v1",
                    "ghcr.io/a/b",
                    &image.manifest_descriptor.digest.to_string(),
                ] {
                    let found = layout.select(&Wanted::parse(wanted)).expect(wanted);
                    assert_eq!(found.digest, image.manifest_descriptor.digest, "{wanted}");
                    assert_sound(&layout, &found);
                }
                let by_blob = Wanted::parse(&format!("x@{}", image.config_descriptor.digest));
                assert!(matches!(layout.select(&by_blob), Err(LayoutError::NoSuchImage { .. })));
                assert!(matches!(layout.select(&Wanted::Only), Err(LayoutError::NoSuchImage { .. })));
                let error = layout.select(&Wanted::parse("other")).expect_err("not there").to_string();
                assert!(error.contains("docker.io/library/app:v1"), "{error}");
            }
        }
    }
}

#[test]
fn archives_are_the_same_every_time() {
    let (image, blobs) = image(Codec::GZIP, Dialect::Oci);
    let archive = || {
        let mut out = Vec::new();
        write_docker_archive(&[named(&image)], &blobs, &mut out).expect("written");
        out
    };
    assert_eq!(archive(), archive());
}

#[test]
fn a_folder_takes_more_images() {
    let folder = tempfile::tempdir().expect("a folder");
    let (first, first_blobs) = image(Codec::GZIP, Dialect::Oci);
    let (second, second_blobs) = image(Codec::ZSTD, Dialect::Oci);
    let name = |image: &Image, name: &str| NamedImage {
        descriptor: image.manifest_descriptor.clone(),
        names: vec![Reference::parse(name).expect("a name")],
    };
    for (image, text, blobs) in
        [(&first, "a", &first_blobs), (&second, "b", &second_blobs), (&second, "a", &second_blobs)]
    {
        write_folder(&[name(image, text)], blobs, folder.path()).expect("written");
    }
    let layout = Layout::open(folder.path()).expect("opened");
    assert_eq!(layout.index().manifests.len(), 2);
    for wanted in ["docker.io/library/a:latest", "b"] {
        let found = layout.select(&Wanted::parse(wanted)).expect(wanted);
        assert_eq!(found.digest, second.manifest_descriptor.digest);
    }
    // The image that lost its name is still found by its digest.
    let lost = layout.select(&Wanted::Digest(first.manifest_descriptor.digest)).expect("a blob");
    assert_sound(&layout, &lost);
    let parts = fs::read_dir(folder.path().join("blobs/sha256")).expect("read");
    assert!(
        parts.map(|e| e.expect("read").file_name()).all(|name| name.len() == 64),
        "nothing half-written is left"
    );
}

#[test]
fn an_index_of_platforms_is_one_image() {
    let (one, mut blobs) = image(Codec::GZIP, Dialect::Oci);
    let (two, more) = image(Codec::ZSTD, Dialect::Oci);
    blobs.extend(more);
    let (bytes, descriptor) = assemble_index(
        vec![one.manifest_descriptor.clone(), two.manifest_descriptor],
        BTreeMap::new(),
        Dialect::Oci,
    );
    let documents = Blobs::from([(descriptor.digest, bytes)]);
    let all = Chained(vec![&documents, &blobs]);
    assert_sound(&all, &descriptor);
    assert_eq!(closure(&all, std::slice::from_ref(&descriptor)).expect("whole").len(), 8);
    let image = NamedImage { descriptor: descriptor.clone(), names: vec![] };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.tar");
    write(&path, |out| write_archive(std::slice::from_ref(&image), &all, out));
    let layout = Layout::open(&path).expect("opened");
    assert_sound(&layout, &layout.select(&Wanted::Only).expect("the only one"));
    let error = write_docker_archive(&[image], &all, &mut Vec::new());
    assert!(matches!(error, Err(LayoutError::SeveralPlatforms { .. })));
}

#[test]
fn skopeo_umoci_and_podman_take_it() {
    if !is_machines_root() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let (image, blobs) = image(Codec::GZIP, Dialect::Oci);
    let one = NamedImage { names: named(&image).names[..1].to_vec(), ..named(&image) };
    write_folder(std::slice::from_ref(&one), &blobs, &at("oci")).expect("written");
    write(&at("oci.tar"), |out| write_archive(std::slice::from_ref(&one), &blobs, out));
    write(&at("docker.tar"), |out| write_docker_archive(std::slice::from_ref(&one), &blobs, out));
    let shown = |transport: &str, name: &str| format!("{transport}:{}", at(name).display());
    if has("skopeo") {
        for from in
            [shown("oci", "oci:v1"), shown("oci-archive", "oci.tar"), shown("docker-archive", "docker.tar")]
        {
            let inspected = run(Command::new("skopeo").args(["inspect", "--raw", &from]));
            if !from.starts_with("docker-archive") {
                assert_eq!(inspected, image.manifest, "{from}");
            }
            let to = shown("oci", &format!("copy-{}", from.split(':').next().expect("a transport")));
            run(Command::new("skopeo").args(["--insecure-policy", "copy", "-q", &from, &format!("{to}:x")]));
            let copied = Layout::open(Path::new(&to[4..])).expect("opened");
            assert_sound(&copied, &copied.select(&Wanted::parse("x")).expect("copied"));
        }
    }
    if has("umoci") {
        run(Command::new("umoci")
            .args(["unpack", "--image", &format!("{}:v1", at("oci").display())])
            .arg(at("bundle")));
        let read = |name: &str| fs::read(at("bundle/rootfs").join(name)).expect(name);
        assert_eq!(read("etc/hostname"), b"kiln\n");
        assert_eq!(read("bin/tool"), [0x7f; 70_000]);
    }
    if has("podman") {
        let podman = || {
            let mut podman = Command::new("podman");
            podman
                .args(["--storage-driver", "vfs", "--root"])
                .arg(at("root"))
                .arg("--runroot")
                .arg(at("run"));
            podman
        };
        for file in ["docker.tar", "oci.tar"] {
            run(podman().args(["load", "-q", "-i"]).arg(at(file)));
            let id = run(podman().args(["images", "-q", "--no-trunc"]));
            assert_eq!(
                String::from_utf8_lossy(&id).trim(),
                image.config_descriptor.digest.to_string(),
                "{file}"
            );
            run(podman().args(["rmi", "-a", "-f"]));
        }
    }
}

#[test]
fn archives_of_docker_are_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let (image, blobs) = image(Codec::GZIP, Dialect::Oci);
    let ours = folder.path().join("docker.tar");
    write(&ours, |out| write_docker_archive(&[named(&image)], &blobs, out));
    let mut archives = vec![ours.clone()];
    if has("skopeo") {
        // In the form from before there were layouts in it.
        let theirs = folder.path().join("old.tar");
        let (from, to) = (
            format!("docker-archive:{}", ours.display()),
            format!("docker-archive:{}:x:y", theirs.display()),
        );
        run(Command::new("skopeo").args(["--insecure-policy", "copy", "-q", &from, &to]));
        archives.push(theirs);
    }
    for path in archives {
        let archive = DockerArchive::open(&path).expect("opened");
        let [found] = archive.images() else { panic!("one image") };
        assert!(!found.names.is_empty());
        let config = ImageConfig::parse(&found.config).expect("a config");
        assert_eq!(config.rootfs.diff_ids.len(), 2);
        for (layer, diff_id) in found.layers.iter().zip(&config.rootfs.diff_ids) {
            let mut tar = Vec::new();
            decompress(archive.layer(layer).expect("there"))
                .expect("opened")
                .1
                .read_to_end(&mut tar)
                .expect("read");
            assert_eq!(Digest::of(&tar), diff_id.digest());
        }
    }
}

#[test]
fn links_in_an_archive_are_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("old.tar");
    let saved =
        br#"[{"Config":"c.json","RepoTags":null,"Layers":["a/layer.tar","b/layer.tar","c/layer.tar"]}]"#;
    let members = [
        file("manifest.json", saved),
        file("c.json", b"{}"),
        file("a/layer.tar", b"bytes"),
        symlink("b/layer.tar", "../a/layer.tar"),
        hard_link("c/layer.tar", "a/layer.tar"),
        symlink("d/layer.tar", "../../a/layer.tar"),
    ];
    fs::write(&path, archive(&members)).expect("written");
    let opened = DockerArchive::open(&path).expect("opened");
    for layer in &opened.images()[0].layers {
        let mut bytes = Vec::new();
        opened.layer(layer).expect(layer).read_to_end(&mut bytes).expect("read");
        assert_eq!(bytes, b"bytes", "{layer}");
    }
    assert!(opened.layer("d/layer.tar").is_err(), "a link out of the archive");
}

#[test]
fn hostile_layouts_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let (image, blobs) = image(Codec::GZIP, Dialect::Oci);
    let digest = image.manifest_descriptor.digest;
    let blob = |layout: &str| at(layout).join("blobs/sha256").join(digest.hex());
    let fresh = |name: &str| {
        write_folder(&[named(&image)], &blobs, &at(name)).expect("written");
        blob(name)
    };
    // A blob that is a link out of the layout, or a pipe on which a reader would wait for ever.
    fs::write(at("secret"), &image.manifest).expect("written");
    let link = fresh("link");
    fs::remove_file(&link).expect("removed");
    std::os::unix::fs::symlink(at("secret"), &link).expect("linked");
    assert!(Layout::open(&at("link")).expect("opened").open(&digest).is_err());
    let pipe = fresh("pipe");
    fs::remove_file(&pipe).expect("removed");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).expect("made");
    assert!(Layout::open(&at("pipe")).expect("opened").open(&digest).is_err());
    // Another manifest under this digest.
    let other = fresh("other");
    fs::write(&other, b"{}").expect("written");
    let index = Index::new(vec![]).bytes();
    fs::write(at("other/index.json"), index).expect("written");
    let layout = Layout::open(&at("other")).expect("opened");
    assert!(matches!(layout.select(&Wanted::Digest(digest)), Err(LayoutError::Blob(_))));

    for (name, bytes) in [("empty", &b""[..]), ("text", b"text"), ("gz", b"\x1f\x8b\x08\0\0\0")] {
        fs::write(at(name), bytes).expect("written");
        assert!(Layout::open(&at(name)).is_err(), "{name}");
    }
    fs::create_dir(at("none")).expect("made");
    assert!(matches!(Layout::open(&at("none")), Err(LayoutError::NotALayout { .. })));
    let mut cut = Vec::new();
    write_archive(&[named(&image)], &blobs, &mut cut).expect("written");
    fs::write(at("cut"), &cut[..3000]).expect("written");
    assert!(Layout::open(&at("cut")).is_err());
}

#[test]
fn damage_is_found() {
    let (image, blobs) = image(Codec::GZIP, Dialect::Oci);
    let root = &image.manifest_descriptor;
    let layer = image.layers[0].digest;
    let damage = |change: &dyn Fn(&mut Blobs)| {
        let mut blobs = blobs.clone();
        change(&mut blobs);
        validate(&blobs, root)
    };
    let text = |findings: &[Finding]| findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    for (change, part) in [
        (&(|b: &mut Blobs| drop(b.remove(&layer))) as &dyn Fn(&mut Blobs), "there is no blob"),
        (&|b: &mut Blobs| b.get_mut(&layer).expect("there").push(0), "bytes long"),
        (&|b: &mut Blobs| b.get_mut(&layer).expect("there")[4] ^= 1, "has the digest"),
        (&|b: &mut Blobs| b.get_mut(&layer).expect("there")[30] ^= 1, "has the digest"),
        (&|b: &mut Blobs| drop(b.insert(root.digest, b"{}".to_vec())), "bytes long"),
        (&|b: &mut Blobs| drop(b.remove(&image.config_descriptor.digest)), "there is no blob"),
    ] {
        let findings = damage(change);
        assert!(text(&findings).contains(part), "expected `{part}`, found: {}", text(&findings));
    }
    // Documents that fit their digests and not each other.
    let mut config = ImageConfig::parse(&image.config).expect("a config");
    config.rootfs.diff_ids.reverse();
    let resealed = |config: &ImageConfig, layers: Vec<Descriptor>| {
        let bytes = config.bytes();
        let manifest = oci::Manifest::new(Descriptor::of(oci::MediaType::config(), &bytes), layers).bytes();
        let mut root = Descriptor::of(oci::MediaType::manifest(), &manifest);
        root.platform = Some("linux/arm64".parse().expect("a platform"));
        let mut all = blobs.clone();
        all.insert(Digest::of(&bytes), bytes);
        all.insert(root.digest, manifest);
        validate(&all, &root)
    };
    let findings = resealed(&config, image.layers.clone());
    assert_eq!(findings.iter().filter(|finding| matches!(finding, Finding::DiffId { .. })).count(), 2);
    assert!(findings.iter().any(|finding| matches!(finding, Finding::Platform { .. })));
    let findings = resealed(&config, image.layers[..1].to_vec());
    assert_eq!(findings.iter().filter(|finding| matches!(finding, Finding::Count { .. })).count(), 2);
    let mut mislabelled = image.layers.clone();
    mislabelled[0].media_type = oci::MediaType::layer(Codec::ZSTD.compression());
    assert!(resealed(&config, mislabelled).iter().any(|f| matches!(f, Finding::Compression { .. })));
}
