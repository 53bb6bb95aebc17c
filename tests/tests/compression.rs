//! How layers are compressed: what an output's keys make of them, and who reads it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use kiln_tests::machine;
use kiln_tests::program::kiln;
use kiln_tests::registry::Registry;
use serde_json::Value;

const TOC_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";
const CHUNKED: &str = "io.github.containers.zstd-chunked.manifest-checksum";

/// Says why a test cannot run here, and whether.
fn cannot(test: &str, programs: &[&str]) -> bool {
    let programs: Vec<String> = programs.iter().map(|program| format!("program:{program}")).collect();
    machine::cannot(test, ["steps", "busybox"].into_iter().chain(programs.iter().map(String::as_str)))
}

/// A folder with a context, a state folder and layouts.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        let folder =
            tempfile::Builder::new().prefix("kiln-compression-").tempdir().expect("a temporary folder");
        let context = folder.path().join("context");
        fs::create_dir(&context).expect("it is empty");
        fs::write(
            context.join("Dockerfile"),
            "FROM busybox\nCOPY large small /files/\nRUN ln -f /files/small /hard\n",
        )
        .expect("written");
        fs::write(context.join("small"), "small\n").expect("written");
        fs::write(context.join("large"), "not so much the same\n".repeat(300_000)).expect("written");
        Place(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn kiln(&self, words: &[&str]) -> Output {
        let mut command = kiln();
        command.arg("--root").arg(self.path("root")).env("DOCKER_CONFIG", self.path("docker"));
        command.args(words).stdin(Stdio::null()).output().expect("the program was built")
    }

    /// Builds the context on the base that all tests have, or on a layout of this place; writes a layout.
    fn layout(&self, name: &str, keys: &str, base: Option<&str>) -> Layout {
        let to = self.path(name);
        let base = match base {
            Some(base) => format!("busybox=oci-layout://{}", self.path(base).display()),
            None => machine::base_argument().expect("the test asked for it"),
        };
        let output = format!("type=oci,tar=false,dest={},{keys}", to.display());
        let context = self.path("context");
        let built = self.kiln(&[
            "build",
            "-q",
            "--build-context",
            &base,
            "-o",
            &output,
            &context.display().to_string(),
        ]);
        assert!(built.status.success(), "{keys}: {}", String::from_utf8_lossy(&built.stderr));
        Layout::read(&to)
    }
}

/// The only image of a layout.
struct Layout {
    layers: Vec<Value>,
    diff_ids: Vec<Value>,
}

impl Layout {
    fn read(folder: &Path) -> Layout {
        let read = |path: &Path| -> Value {
            serde_json::from_slice(&fs::read(path).expect("it is there")).expect("JSON")
        };
        let blob = |descriptor: &Value| {
            read(
                &folder
                    .join("blobs")
                    .join(descriptor["digest"].as_str().expect("a digest").replace(':', "/")),
            )
        };
        let manifest = blob(&read(&folder.join("index.json"))["manifests"][0]);
        let config = blob(&manifest["config"]);
        let list = |value: &Value| value.as_array().expect("a list").clone();
        Layout { layers: list(&manifest["layers"]), diff_ids: list(&config["rootfs"]["diff_ids"]) }
    }

    fn all(&self, holds: impl Fn(&Value) -> bool) -> bool {
        self.layers.iter().all(holds)
    }

    fn is_of(&self, kind: &str) -> bool {
        self.all(|layer| layer["mediaType"].as_str().is_some_and(|media_type| media_type.ends_with(kind)))
    }

    fn has(&self, annotation: &str) -> bool {
        self.all(|layer| layer["annotations"].get(annotation).is_some())
    }
}

#[test]
fn a_forced_codec_is_that_of_all_layers_and_keeps_diff_ids() {
    if cannot("compression::a_forced_codec_is_that_of_all_layers_and_keeps_diff_ids", &[]) {
        return;
    }
    let place = Place::new();
    let usual = place.layout("usual", "compression=gzip", None);
    assert!(usual.is_of("tar+gzip") && usual.all(|layer| layer.get("annotations").is_none()));
    let unforced = place.layout("unforced", "compression=zstd", None);
    assert_eq!(unforced.layers[0], usual.layers[0], "a base is handed on as it came");
    let forced = place.layout("gzip", "compression=gzip,force-compression=true", None);
    assert_eq!(forced.layers, usual.layers, "and where it has the codec already");
    for (name, codec, kind) in [
        ("zstd", "zstd", "tar+zstd"),
        ("plain", "uncompressed", ".tar"),
        ("chunked", "zstd:chunked", "tar+zstd"),
    ] {
        let forced = place.layout(name, &format!("compression={codec},force-compression=true"), None);
        assert!(forced.is_of(kind), "{:?}", forced.layers);
        assert_eq!(forced.diff_ids, usual.diff_ids, "{codec}");
        assert_eq!(forced.has(CHUNKED), codec == "zstd:chunked");
        // And back: a base of that codec, packed anew.
        let back =
            place.layout(&format!("{name}-back"), "compression=gzip,force-compression=true", Some(name));
        assert!(back.is_of("tar+gzip"));
        assert_eq!(back.diff_ids[..usual.diff_ids.len()], usual.diff_ids, "{codec}");
    }
    let chunked = place.layout("on-chunked", "compression=gzip", Some("chunked"));
    assert!(chunked.layers[0]["annotations"].get(CHUNKED).is_some(), "an index stays known");
    let again = place.layout("again", "compression=zstd:chunked,force-compression=true", Some("chunked"));
    assert_eq!(again.layers[0], chunked.layers[0]);
}

#[test]
fn estargz_has_its_index_in_the_diff_id_and_no_file_more() {
    if cannot("compression::estargz_has_its_index_in_the_diff_id_and_no_file_more", &[]) {
        return;
    }
    let place = Place::new();
    let usual = place.layout("usual", "compression=gzip", None);
    let indexed = place.layout("estargz", "compression=estargz,force-compression=true", None);
    assert!(indexed.is_of("tar+gzip") && indexed.has(TOC_DIGEST));
    assert!(indexed.has("io.containers.estargz.uncompressed-size"));
    let differ =
        |one: &Layout, two: &Layout| one.diff_ids.iter().zip(&two.diff_ids).all(|(one, two)| one != two);
    assert!(differ(&indexed, &usual));
    fs::write(
        place.path("context/Dockerfile"),
        "FROM busybox\nRUN test -f /hard && test ! -e /stargz.index.json && test ! -e /.no.prefetch.landmark\n",
    )
    .expect("written");
    let on = place.layout("on", "compression=estargz,force-compression=true", Some("estargz"));
    assert_eq!(on.layers[..indexed.layers.len()], indexed.layers, "what has an index keeps it");
    let back = place.layout("back", "compression=zstd,force-compression=true", Some("estargz"));
    assert!(back.is_of("tar+zstd"));
    assert_eq!(back.diff_ids[..indexed.diff_ids.len()], indexed.diff_ids);
    let gzip = place.layout("gzip", "compression=gzip,force-compression=true", Some("estargz"));
    assert!(gzip.all(|layer| layer.get("annotations").is_none()), "plain gzip has no index");

    let built = place.kiln(&[
        "build",
        "--build-context",
        &format!("busybox=oci-layout://{}", place.path("estargz").display()),
        "-o",
        &format!("type=oci,oci-mediatypes=false,compression=estargz,dest={}", place.path("x.tar").display()),
        &place.path("context").display().to_string(),
    ]);
    let said = String::from_utf8_lossy(&built.stderr).into_owned();
    assert!(built.status.success() && said.contains("`oci-mediatypes`"), "{said}");
}

#[test]
fn podman_fetches_files_by_the_index() {
    if cannot("compression::podman_fetches_files_by_the_index", &["docker-registry", "podman"]) {
        return;
    }
    if machine::cannot("compression::podman_fetches_files_by_the_index", ["root: podman mounts an image"]) {
        return;
    }
    let registry = Registry::start().expect("it starts");
    let host = registry.address();
    let place = Place::new();
    let output = format!("type=registry,name={host}/app:1,compression=estargz,force-compression=true");
    let base = machine::base_argument().expect("the test asked for it");
    let built = place.kiln(&[
        "build",
        "-q",
        "--build-context",
        &base,
        "-o",
        &output,
        &place.path("context").display().to_string(),
    ]);
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let storage = format!(
        "[storage]\ndriver = \"overlay\"\nrunroot = \"{0}/run\"\ngraphroot = \"{0}/graph\"\n\
         [storage.options]\npull_options = {{enable_partial_images = \"true\"}}\n",
        place.path("podman").display()
    );
    fs::write(place.path("storage.conf"), storage).expect("written");
    let podman = |words: &[&str]| {
        let mut command = Command::new("podman");
        command.env("CONTAINERS_STORAGE_CONF", place.path("storage.conf"));
        command.args(words).stdin(Stdio::null()).output().expect("podman")
    };
    let image = format!("{host}/app:1");
    let pulled = podman(&["--log-level=debug", "pull", "--tls-verify=false", &image]);
    let said = String::from_utf8_lossy(&pulled.stderr).into_owned();
    assert!(pulled.status.success(), "{said}");
    assert_eq!(said.matches("Retrieved partial blob").count(), 3, "{said}");
    let mounted = podman(&["image", "mount", &image]);
    assert!(mounted.status.success(), "{}", String::from_utf8_lossy(&mounted.stderr));
    let root = PathBuf::from(String::from_utf8_lossy(&mounted.stdout).trim());
    for name in ["large", "small"] {
        let found = fs::read(root.join("files").join(name)).expect("it is there");
        assert!(found == fs::read(place.path("context").join(name)).expect("it is there"), "{name}");
    }
    assert!(root.join("hard").exists() && !root.join(".no.prefetch.landmark").exists());
    podman(&["image", "unmount", &image]);
    podman(&["rmi", "-f", &image]);
}
