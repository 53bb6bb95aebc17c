//! Base images by tags: who is asked what they stand for, and what a build says that it stood on.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use kiln_tests::{
    machine,
    program::kiln,
    registry::Registry,
    wire::{Fault, On, What, Wire},
};
use serde_json::Value;

/// Whether a test cannot run here; says why.
fn cannot(test: &str) -> bool {
    machine::cannot(
        &format!("pins::{test}"),
        ["steps", "busybox", "program:docker-registry", "program:skopeo"],
    )
}

/// A registry that holds `base:1`, the wire to it, and a context that stands on that.
struct Place {
    folder: tempfile::TempDir,
    registry: Registry,
    wire: Option<Wire>,
    /// What the wire's port is, also when it is gone.
    host: String,
}

impl Place {
    fn new() -> Place {
        let registry = Registry::start().expect("it starts");
        let layout = machine::base_layout().expect("the test asked for it");
        registry.push(layout, "busybox:latest", "base:1").expect("it is there");
        let wire = Wire::to(registry.address()).expect("a port is free");
        let folder = tempfile::Builder::new().prefix("kiln-pins-").tempdir().expect("a temporary folder");
        fs::create_dir(folder.path().join("context")).expect("it is empty");
        let place = Place { folder, registry, host: wire.address(), wire: Some(wire) };
        place.dockerfile(&format!("FROM {}/base:1\nRUN echo step > /said\n", place.host));
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn dockerfile(&self, text: &str) {
        fs::write(self.path("context/Dockerfile"), text).expect("its parent is there");
    }

    fn wire(&self) -> &Wire {
        self.wire.as_ref().expect("it was not cut")
    }

    fn kiln(&self, words: &[&str]) -> Output {
        let mut command = kiln();
        command.arg("--root").arg(self.path("root")).env("DOCKER_CONFIG", self.path("docker"));
        command.args(words).stdin(Stdio::null()).output().expect("the program was built")
    }

    /// Builds with these flags: the status, and what was written to standard error.
    fn tries(&self, flags: &[&str]) -> (Option<i32>, String) {
        let context = self.path("context").display().to_string();
        let output = self.kiln(&[&["build", "--progress", "plain"], flags, &[&context]].concat());
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Builds, which must succeed: the image's digest, and what was written to standard error.
    fn builds(&self, flags: &[&str]) -> (String, String) {
        let id = self.path("id");
        let (status, said) = self.tries(&[&["--iidfile", &id.display().to_string()], flags].concat());
        assert_eq!(status, Some(0), "{flags:?}: {said}");
        (fs::read_to_string(id).expect("the build wrote it"), said)
    }

    /// How many questions a build with these flags puts to the registry.
    fn questions(&self, flags: &[&str]) -> usize {
        self.wire().take_log();
        self.builds(flags);
        self.wire().take_log().len()
    }

    /// The digest of `base:1`, as another program sees it.
    fn base(&self) -> String {
        let name = format!("docker://{}/base:1", self.registry.address());
        let output = Command::new("skopeo").args(["inspect", "--tls-verify=false", "--raw", &name]).output();
        format!("sha256:{}", oci::Digest::of(&output.expect("it is installed").stdout).hex())
    }

    /// Makes `base:1` another image.
    fn move_base(&self) {
        let other = self.path("other");
        fs::create_dir_all(&other).expect("its parent is there");
        fs::write(other.join("Dockerfile"), "FROM busybox\nRUN echo moved > /moved\n").expect("written");
        let base = machine::base_argument().expect("the test asked for it");
        let output = format!("type=registry,name={}/base:1,store=false", self.registry.address());
        let other = other.display().to_string();
        let pushed = self.kiln(&["build", "-q", "--build-context", &base, "-o", &output, &other]);
        assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
    }

    fn trouble(&self, status: u16) {
        let what = What::Answer(status, &[]);
        self.wire().break_it(Fault { on: On::Manifest, what, times: u32::MAX });
    }
}

#[test]
fn a_build_in_which_nothing_changed_asks_nobody() {
    if cannot("a_build_in_which_nothing_changed_asks_nobody") {
        return;
    }
    let place = Place::new();
    assert!(place.questions(&[]) > 0);
    assert_eq!(place.questions(&[]), 0);
    assert!(place.builds(&[]).1.contains("ago; --pull asks again"));
    // A collection takes the documents of the base, which no image needs; they are remembered all the same.
    place.builds(&["-t", "gone"]);
    assert!(place.kiln(&["rmi", "gone"]).status.success());
    assert_eq!(place.questions(&[]), 0);
    for flags in [&["--pull"][..], &["--pull=always"], &["--pull=newer"], &["--resolve-ttl", "0"]] {
        assert!(place.questions(flags) > 0, "{flags:?}");
    }
    // What was built is gone through once more, to be remembered; nobody is asked for that.
    place.dockerfile(&format!("FROM {}/base:1\nRUN echo other > /said\n", place.host));
    let once = place.questions(&["--resolve-ttl", "0"]);
    assert_eq!(once, place.questions(&["--resolve-ttl", "0"]));
    for flags in [&["--pull=false"][..], &["--pull=missing"], &["--pull=never"], &["--resolve-ttl=1h30m"]] {
        assert_eq!(place.questions(flags), 0, "{flags:?}");
    }
    // Another platform is another question, and several are asked about at once.
    place.dockerfile(&format!("FROM {}/base:1\nLABEL a=b\n", place.host));
    let several = ["--platform", "linux/amd64,linux/arm64,linux/arm/v7,linux/s390x"];
    assert!(place.questions(&several) > 0);
    assert_eq!(place.questions(&several), 0);
}

#[test]
fn a_tag_that_moved_is_seen_when_its_answer_is_old_or_asked_for() {
    if cannot("a_tag_that_moved_is_seen_when_its_answer_is_old_or_asked_for") {
        return;
    }
    let place = Place::new();
    let (before, _) = place.builds(&[]);
    let was = place.base();
    place.move_base();
    let is = place.base();
    assert_ne!(was, is);
    let (still, said) = place.builds(&[]);
    assert_eq!(still, before);
    assert!(said.contains(&format!("resolve {}/base:1@{was}", place.host)), "{said}");
    let (after, said) = place.builds(&["--pull"]);
    assert_ne!(after, before);
    assert!(said.contains(&format!("resolve {}/base:1@{is}", place.host)), "{said}");
    // From now on that is the answer.
    assert_eq!(place.builds(&[]).0, after);

    place.dockerfile(&format!("FROM {}/base@{was}\nRUN echo step > /said\n", place.host));
    assert_eq!(place.questions(&[]), 0, "its documents are here");
    assert_eq!(place.questions(&["--pull"]), 0, "a digest does not move");
}

#[test]
fn a_pushed_name_is_not_answered_from_before() {
    if cannot("a_pushed_name_is_not_answered_from_before") {
        return;
    }
    let place = Place::new();
    let (before, _) = place.builds(&[]);
    let (app, _) = place.builds(&["-t", "app"]);
    assert_eq!(app, before);
    // To the wire's name, which is that of the answer.
    let pushed = place.kiln(&["push", "-q", "app", &format!("{}/base:1", place.host)]);
    assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
    let (_, said) = place.builds(&[]);
    assert!(said.contains(&format!("base:1@{app}")), "{said}");
}

#[test]
fn the_last_answer_stands_in_for_a_registry_in_trouble() {
    if cannot("the_last_answer_stands_in_for_a_registry_in_trouble") {
        return;
    }
    let mut place = Place::new();
    let (before, _) = place.builds(&[]);
    let is = place.base();
    let old = ["--resolve-ttl", "0"];
    let stands_in = |place: &Place, trouble: &str| {
        let started = Instant::now();
        let (digest, said) = place.builds(&old);
        assert_eq!(digest, before, "{trouble}");
        assert!(
            said.contains("registry-not-asked: using ") && said.contains(" as it was ") && said.contains(&is),
            "{trouble}: {said}"
        );
        assert!(started.elapsed() < Duration::from_secs(40), "{trouble}: {:?}", started.elapsed());
    };
    place.trouble(503);
    stands_in(&place, "503");
    place.wire().mend();
    for (status, code) in [(403, "registry-denied"), (404, "image-not-found")] {
        place.trouble(status);
        let (failed, said) = place.tries(&old);
        assert_eq!(failed, Some(1), "{status}: {said}");
        assert!(said.contains(&format!("error[{code}]")), "{status}: {said}");
        place.wire().mend();
    }
    place.wire().hold_requests_after(0);
    stands_in(&place, "silence");
    place.wire = None;
    stands_in(&place, "refused");
    let (failed, said) = place.tries(&["--pull"]);
    assert_eq!(failed, Some(1), "{said}");
    assert!(said.contains("error[registry-unreachable]"), "{said}");
    assert!(said.contains("without --pull, the registry's answer of ") && said.contains(&is), "{said}");
    assert_eq!(place.builds(&["--pull=newer"]).0, before);
}

#[test]
fn offline_the_last_answer_comes_before_an_image_for_another_platform() {
    if cannot("offline_the_last_answer_comes_before_an_image_for_another_platform") {
        return;
    }
    let mut place = Place::new();
    let text = fs::read_to_string(place.path("context/Dockerfile")).expect("written above");
    let (before, _) = place.builds(&[]);
    place.dockerfile("FROM scratch\nLABEL for=other\n");
    let other = if cfg!(target_arch = "aarch64") { "linux/amd64" } else { "linux/arm64" };
    place.builds(&["--platform", other, "-t", &format!("{}/base:1", place.host)]);
    place.dockerfile(&text);
    place.wire = None;
    let (after, said) = place.builds(&["--resolve-ttl", "0"]);
    assert!(
        said.contains("registry-not-asked: using ") && !said.contains("InvalidBaseImagePlatform"),
        "{said}"
    );
    assert_eq!(after, before);
}

#[test]
fn with_never_nobody_is_asked() {
    if cannot("with_never_nobody_is_asked") {
        return;
    }
    let place = Place::new();
    let absent = |what: &str| {
        place.wire().take_log();
        let (failed, said) = place.tries(&["--pull=never"]);
        assert_eq!(failed, Some(1), "{said}");
        assert!(said.contains("error[image-not-here]") && said.contains(what), "{said}");
        assert!(said.contains(&format!("kiln pull {}/base:1", place.host)), "{said}");
        assert_eq!(place.wire().take_log(), Vec::<String>::new());
    };
    absent("the image `");
    // What the name is will be known then, and no layer is fetched.
    assert_eq!(place.tries(&["--check"]).0, Some(0));
    absent("the layer sha256:");
    let (built, _) = place.builds(&[]);
    assert_eq!(place.builds(&["--pull=never", "--resolve-ttl=0"]).0, built);
    let bad = place.tries(&["--pull=maybe"]);
    assert!(bad.0 == Some(2) && bad.1.contains("--pull=always"), "{}", bad.1);
    let bad = place.tries(&["--resolve-ttl", "soon"]);
    assert!(bad.0 == Some(2) && bad.1.contains("--resolve-ttl 10m"), "{}", bad.1);
}

#[test]
fn a_build_tells_what_it_stood_on() {
    if cannot("a_build_tells_what_it_stood_on") {
        return;
    }
    let place = Place::new();
    let metadata = place.path("metadata.json");
    let file = metadata.display().to_string();
    let layout = machine::base_argument().expect("the test asked for it");
    place.dockerfile(&format!(
        "FROM busybox AS other\nFROM {}/base:1\nCOPY --from=other /bin /b\n",
        place.host
    ));
    let flags = ["--build-context", &layout, "--metadata-file", &file];
    let read = || -> Vec<Value> {
        let text = fs::read(&metadata).expect("the build wrote it");
        let all: Value = serde_json::from_slice(&text).expect("it is JSON");
        all["kiln.build.materials"].as_array().expect("a list").clone()
    };
    let platform = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };
    for (more, from) in
        [(&[][..], "registry"), (&[], "remembered"), (&["-o", "type=cacheonly"], "remembered")]
    {
        place.builds(&[&flags[..], more].concat());
        let materials = read();
        assert_eq!(materials.len(), 2, "{materials:?}");
        let base = &materials[0];
        let escaped = place.host.replace(':', "%3A");
        let uri = format!("pkg:docker/{escaped}/base@1?platform={}", platform.replace('/', "%2F"));
        assert_eq!(base["uri"], uri);
        assert_eq!(base["digest"]["sha256"], place.base().trim_start_matches("sha256:"));
        assert_eq!(base["name"], format!("{}/base:1", place.host));
        assert_eq!(base["annotations"]["platform"], platform);
        assert_eq!(base["annotations"]["from"], from);
        assert_eq!(materials[1]["annotations"]["from"], "oci-layout");
    }
    let context = place.path("context").display().to_string();
    let raw = place.kiln(&["build", "--progress", "rawjson", "--build-context", &layout, &context]);
    let told = String::from_utf8_lossy(&raw.stderr).into_owned();
    assert!(told.contains(&format!("\"id\":\"resolve {}/base:1@{}\"", place.host, place.base())), "{told}");
}
