//! Images between registries: indexes made of them, copies, what refers to them, artifacts that are none. What others wrote
//! reads the results.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use kiln_tests::machine;
use kiln_tests::program::{kiln, program, run, said};
use kiln_tests::registry::Registry;
use kiln_tests::wire::{Fault, On, What, Wire};
use oci::{Descriptor, Digest, Index, Manifest, MediaType};
use rustix::process::{Pid, Signal, kill_process};

/// Larger blobs go in parts.
const PART_BYTES: u64 = 4 << 20;

/// Says why a test cannot run here, and whether.
fn cannot(test: &str, programs: &[&str]) -> bool {
    let programs: Vec<String> = programs.iter().map(|program| format!("program:{program}")).collect();
    machine::cannot(
        &format!("index::{test}"),
        ["steps", "program:docker-registry"].into_iter().chain(programs.iter().map(String::as_str)),
    )
}

/// A folder with a state folder, a context and a home without logins.
struct Place(tempfile::TempDir);

impl Place {
    /// `layer_bytes` is how many bytes each platform's image has.
    fn new(layer_bytes: usize) -> Place {
        let folder = tempfile::Builder::new().prefix("kiln-index-").tempdir().expect("a temporary folder");
        let context = folder.path().join("context");
        fs::create_dir(&context).expect("it is empty");
        let dockerfile = "FROM scratch\nARG TARGETARCH\nCOPY file /of-$TARGETARCH/\n";
        fs::write(context.join("Dockerfile"), dockerfile).expect("written");
        let transfer = format!("[transfer]\npart_mib = {}\n", PART_BYTES >> 20);
        fs::write(folder.path().join("registries.toml"), transfer).expect("written");
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        fs::write(context.join("file"), (0..layer_bytes).map(|_| next()).collect::<Vec<u8>>())
            .expect("written");
        Place(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Kiln with words, where `PLACE` is this place.
    fn command(&self, words: &str) -> Command {
        let mut command = kiln();
        command.arg("--root").arg(self.path("root"));
        self.add(&mut command, words);
        command
    }

    fn add(&self, command: &mut Command, words: &str) {
        let place = self.0.path().display().to_string();
        command
            .env("DOCKER_CONFIG", self.path("docker"))
            .env("KILN_REGISTRIES", self.path("registries.toml"));
        command.args(words.split(' ').map(|word| word.replace("PLACE", &place)));
    }

    /// It must succeed. What it wrote to standard output.
    fn done(&self, words: &str) -> String {
        let output = self.command(words).output().expect("the program was built");
        assert!(output.status.success(), "kiln {words}: {}", said(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// It must succeed. What it wrote to standard error.
    fn shown(&self, words: &str) -> String {
        let output = self.command(words).output().expect("the program was built");
        assert!(output.status.success(), "kiln {words}: {}", said(&output));
        said(&output)
    }

    /// It must fail with this status. What it wrote to standard error.
    fn fails(&self, words: &str, status: i32) -> String {
        let output = self.command(words).output().expect("the program was built");
        assert_eq!(output.status.code(), Some(status), "kiln {words}: {}", said(&output));
        said(&output)
    }

    /// Builds for these platforms into a registry and nowhere else.
    fn build(&self, platforms: &str, name: &str) -> String {
        self.done(&format!(
            "build -q --platform {platforms} -o type=registry,name={name},store=false PLACE/context"
        ))
    }
}

fn raw(name: &str) -> String {
    run("skopeo", &format!("inspect --tls-verify=false --raw docker://{name}"))
}

fn digest_of(name: &str) -> String {
    Digest::of(raw(name).as_bytes()).to_string()
}

/// Skopeo fetches all platforms, which checks every digest and size.
fn is_whole(place: &Place, name: &str) {
    let folder = place.path("whole");
    run(
        "skopeo",
        &format!("copy -q --all --src-tls-verify=false docker://{name} oci:{}:x", folder.display()),
    );
    fs::remove_dir_all(folder).expect("skopeo made it");
}

#[test]
fn an_index_is_made_of_images_of_several_registries() {
    if cannot("an_index_is_made_of_images_of_several_registries", &["skopeo"]) {
        return;
    }
    let (one, two) = (Registry::start().expect("it starts"), Registry::start().expect("it starts"));
    let (one, two) = (one.address(), two.address());
    let place = Place::new(1000);
    let amd = place.build("linux/amd64", &format!("{one}/amd:1"));
    place.build("linux/arm64", &format!("{two}/arm:1"));
    let sources = format!("{one}/amd:1 {two}/arm:1");
    let annotated = "--annotation a=b --annotation manifest-descriptor[linux/arm64]:c=d";
    let create = format!(
        "index create {annotated} --metadata-file PLACE/meta -t {one}/all:1 -t {two}/all:2 {sources}"
    );
    let digest = place.done(&create);
    for name in [format!("{one}/all:1"), format!("{two}/all:2")] {
        assert_eq!(digest_of(&name), digest);
        is_whole(&place, &name);
    }
    let index = Index::parse(raw(&format!("{one}/all:1")).as_bytes()).expect("an index");
    let platforms: Vec<String> =
        index.manifests.iter().filter_map(|one| one.platform.as_ref()).map(ToString::to_string).collect();
    assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
    assert_eq!((index.annotations["a"].as_str(), index.manifests[1].annotations["c"].as_str()), ("b", "d"));
    assert!(index.manifests[0].annotations.is_empty());
    let metadata: serde_json::Value =
        serde_json::from_slice(&fs::read(place.path("meta")).expect("written")).expect("JSON");
    assert_eq!(metadata["containerimage.digest"], digest);
    // What is there is not sent again, and the same sources give the same bytes.
    assert!(place.shown(&create).contains("0 manifests sent, 3 were there; 0 blobs sent (0 bytes)"));
    assert_eq!(place.done(&format!("index inspect --format {{{{.Manifest.Digest}}}} {one}/all:1")), digest);
    let bytes =
        place.command(&format!("index inspect --raw {one}/all:1")).output().expect("it starts").stdout;
    assert_eq!(Digest::of(&bytes).to_string(), digest);

    // A single index is copied as it is, a single image gets an index around it unless that is not wanted.
    assert_eq!(place.done(&format!("index create -t {one}/copy {one}/all:1")), digest);
    assert_eq!(place.done(&format!("index create -t {one}/copy --prefer-index=false {one}/amd:1")), amd);
    assert_ne!(place.done(&format!("index create -t {one}/copy {one}/amd:1")), amd);
    // Appended, by digest and with another platform; shown, and put nowhere.
    let s390 = place.build("linux/s390x", &format!("{one}/all:s390"));
    place.done(&format!(
        "index create -t {one}/all:1 --append {{\"digest\":\"{s390}\",\"platform\":{{\"variant\":\"z\"}}}}"
    ));
    let shown = place.done(&format!("index inspect {one}/all:1"));
    assert!(
        shown.contains("Platform:  linux/s390x/z") && shown.contains("Platform:  linux/amd64"),
        "{shown}"
    );
    let dry =
        place.done(&format!("index create --dry-run -t {one}/none:1 --platform linux/arm64 {one}/all:1"));
    let dry = Index::parse(dry.as_bytes()).expect("an index");
    assert_eq!(dry.manifests.len(), 1);
    place.fails(&format!("tags {one}/none"), 1);
    let none = place.fails(&format!("index create --dry-run --platform linux/386 {one}/all:1"), 1);
    assert!(none.contains("has no linux/386") && none.contains("--platform linux/arm64"), "{none}");
}

#[test]
fn dockers_manifests_make_a_docker_list() {
    if cannot("dockers_manifests_make_a_docker_list", &["skopeo"]) {
        return;
    }
    let registry = Registry::start().expect("it starts");
    let host = registry.address();
    let place = Place::new(1000);
    for arch in ["amd64", "arm64"] {
        place.build(&format!("linux/{arch}"), &format!("{host}/oci:{arch}"));
        let (from, to) = (format!("docker://{host}/oci:{arch}"), format!("docker://{host}/docker:{arch}"));
        let tls = "--src-tls-verify=false --dest-tls-verify=false";
        run("skopeo", &format!("--override-arch {arch} copy -q {tls} --format v2s2 {from} {to}"));
    }
    let create = format!("{host}/docker:amd64 {host}/docker:arm64");
    place.done(&format!("index create -t {host}/list:1 {create}"));
    assert!(raw(&format!("{host}/list:1")).contains("manifest.list.v2+json"));
    is_whole(&place, &format!("{host}/list:1"));
    // Where annotations have no place, the index is OCI's.
    place.done(&format!("index create -t {host}/list:2 --annotation a=b {create}"));
    assert!(raw(&format!("{host}/list:2")).contains("image.index.v1+json"));
    is_whole(&place, &format!("{host}/list:2"));
}

#[test]
fn a_copy_keeps_digests_and_touches_no_disk() {
    if machine::cannot("index::a_copy_keeps_digests_and_touches_no_disk", ["root: it mounts a small disk"]) {
        return;
    }
    if cannot("a_copy_keeps_digests_and_touches_no_disk", &["skopeo", "unshare"]) {
        return;
    }
    let (one, two) = (Registry::start().expect("it starts"), Registry::start().expect("it starts"));
    let (one, two) = (one.address(), two.address());
    let place = Place::new(8 << 20);
    let digest = place.build("linux/amd64,linux/arm64", &format!("{one}/a/app:1"));
    // The state folder has room for a database, and for a tenth of one layer.
    fs::create_dir(place.path("tiny")).expect("it is new");
    let script = r#"mount -t tmpfs -o size=2m none "$1" && shift && exec "$@""#;
    let mut copy = Command::new("unshare");
    copy.args(["-m", "sh", "-ec", script, "sh"]).arg(place.path("tiny")).arg(program());
    copy.arg("--root").arg(place.path("tiny")).env("TMPDIR", place.path("tiny"));
    place.add(&mut copy, &format!("copy --progress plain {one}/a/app:1 {two}/b/app:1 {two}/c/app:1"));
    let copied = copy.output().expect("it starts");
    assert!(copied.status.success(), "{}", said(&copied));
    assert_eq!(String::from_utf8_lossy(&copied.stdout).trim(), digest);
    let counted = said(&copied);
    assert!(counted.contains("3 manifests sent, 0 were there; 4 blobs sent"), "{counted}");
    assert!(counted.contains("0 blobs sent (0 bytes), 0 were there, 4 mounted"), "{counted}");
    for name in ["b/app:1", "c/app:1"] {
        assert_eq!(digest_of(&format!("{two}/{name}")), digest);
        is_whole(&place, &format!("{two}/{name}"));
    }
    let again = place.shown(&format!("copy --progress plain {one}/a/app:1 {two}/b/app:2"));
    assert!(again.contains("0 manifests sent, 3 were there; 0 blobs sent (0 bytes)"), "{again}");
    // Within one registry, by one whose state folder knows nothing of it.
    let mounted = place.shown(&format!("copy --progress plain {one}/a/app:1 {one}/z/app:1"));
    assert!(mounted.contains("0 blobs sent (0 bytes), 0 were there, 4 mounted"), "{mounted}");

    let arm = place.done(&format!("copy -q --platform linux/arm64 {one}/a/app:1 {two}/arm"));
    assert_eq!(digest_of(&format!("{two}/arm")), arm);
    assert!(raw(&format!("{one}/a/app:1")).contains(&arm));
    let both = place.done(&format!("copy -q --platform linux/arm64,linux/amd64 {one}/a/app:1 {two}/both"));
    assert_eq!(both, digest);
    assert_eq!(place.done(&format!("copy -q {one}/a/app:1 {two}/d@{digest}")), digest);
    let other = place.fails(&format!("copy {one}/a/app:1 {two}/d@{arm}"), 1);
    assert!(other.contains("error[other-digest]") && other.contains(&digest), "{other}");
}

#[test]
fn a_copy_over_broken_wires_goes_on_where_it_stopped() {
    if cannot("a_copy_over_broken_wires_goes_on_where_it_stopped", &["skopeo"]) {
        return;
    }
    let (one, two) = (Registry::start().expect("it starts"), Registry::start().expect("it starts"));
    let size: u64 = 14 << 20;
    let place = Place::new(14 << 20);
    let digest = place.build("linux/amd64", &format!("{}/app:1", one.address()));
    let (from, to) = (Wire::to(one.address()).expect("a port"), Wire::to(two.address()).expect("a port"));
    let copy = |to_name: &str| format!("copy -q {}/app:1 {}/{to_name}", from.address(), to.address());
    // What the state folder knows of one target would be mounted from there.
    let forget = || fs::remove_dir_all(place.path("root")).expect("it is there");

    from.break_it(Fault { on: On::Blob, what: What::Reset(4 << 20), times: 2 });
    assert_eq!(place.done(&copy("down:1")), digest);
    // What had come is not asked for again, but for what the sockets held. Else it would be twice the 4 MiB.
    assert!(from.down() < size + (7 << 20), "{} came", from.down());
    is_whole(&place, &format!("{}/down:1", two.address()));

    forget();
    from.break_it(Fault { on: On::Blob, what: What::Change(10 << 20), times: 1 });
    let wrong = place.fails(&copy("wrong:1"), 1);
    assert!(wrong.contains("error[registry-wrong-bytes]") && wrong.contains(&from.address()), "{wrong}");
    place.fails(&format!("index inspect {}/wrong:1", two.address()), 1);
    assert_eq!(place.done(&copy("wrong:1")), digest);
    is_whole(&place, &format!("{}/wrong:1", two.address()));

    forget();
    let before = to.up();
    to.break_it(Fault { on: On::Upload, what: What::Reset(2 << 20), times: 1 });
    assert_eq!(place.done(&copy("up:1")), digest);
    assert!(to.up() - before < size + PART_BYTES, "{} were sent", to.up() - before);
    is_whole(&place, &format!("{}/up:1", two.address()));

    // Stopped between two parts: no name is given, and the next one sends the rest.
    forget();
    let before = to.up();
    to.hold_requests_after(2 * PART_BYTES);
    let mut stopped = place.command(&copy("stop:1")).spawn().expect("it starts");
    let started = Instant::now();
    while !(to.up() - before >= 2 * PART_BYTES && to.is_quiet_before(1)) {
        assert!(started.elapsed() < Duration::from_secs(60), "{} were sent", to.up() - before);
        sleep(Duration::from_millis(20));
    }
    let pid = Pid::from_raw(i32::try_from(stopped.id()).expect("a process id")).expect("not 0");
    kill_process(pid, Signal::INT).expect("it was started here");
    assert_eq!(stopped.wait().expect("it ends").code(), Some(130));
    to.mend();
    place.fails(&format!("index inspect {}/stop:1", two.address()), 1);
    assert_eq!(place.done(&copy("stop:1")), digest);
    assert!(to.up() - before < size + PART_BYTES / 2, "{} were sent", to.up() - before);
    is_whole(&place, &format!("{}/stop:1", two.address()));
}

/// An OCI layout of one artifact, named `x`: its folder's name is that of the type.
fn artifact(place: &Place, folder: &str, subject: Option<&Descriptor>, files: &[(&str, &str)]) -> Descriptor {
    let path = place.path(folder);
    let blobs = path.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("created");
    let write = |media_type: &str, bytes: &[u8]| {
        fs::write(blobs.join(Digest::of(bytes).hex()), bytes).expect("written");
        Descriptor::of(media_type.into(), bytes)
    };
    let layer = |(title, text): &(&str, &str)| {
        let mut layer = write("text/plain", text.as_bytes());
        if !title.is_empty() {
            layer.annotations.insert("org.opencontainers.image.title".into(), (*title).into());
        }
        layer
    };
    let layers = files.iter().map(layer).collect();
    let mut manifest = Manifest::new(write("application/vnd.oci.empty.v1+json", b"{}"), layers);
    manifest.extra.insert("artifactType".into(), format!("application/vnd.example.{folder}").into());
    if let Some(subject) = subject {
        manifest.extra.insert("subject".into(), serde_json::to_value(subject).expect("JSON"));
    }
    let found = write(MediaType::manifest().as_str(), &manifest.bytes());
    let mut named = found.clone();
    named.annotations.insert("org.opencontainers.image.ref.name".into(), "x".into());
    fs::write(path.join("index.json"), Index::new(vec![named]).bytes()).expect("written");
    fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("written");
    found
}

#[test]
fn what_refers_to_an_image_is_listed_and_goes_with_it() {
    if cannot("what_refers_to_an_image_is_listed_and_goes_with_it", &["skopeo"]) {
        return;
    }
    let (one, two) = (Registry::start().expect("it starts"), Registry::start().expect("it starts"));
    let (one, two) = (one.address(), two.address());
    let place = Place::new(1000);
    let digest = place.build("linux/amd64,linux/arm64", &format!("{one}/app:1"));
    let image = Descriptor::of(MediaType::index(), raw(&format!("{one}/app:1")).as_bytes());
    let sbom = artifact(&place, "sbom", Some(&image), &[("sbom.json", "{}")]);
    let signature = artifact(&place, "signature", Some(&sbom), &[("", "signed")]);
    artifact(&place, "cosign", None, &[("", "payload")]);
    let tag = format!("sha256-{}", image.digest.hex());
    place.done(&format!("copy -q oci-layout://PLACE/sbom {one}/app@{}", sbom.digest));
    place.done(&format!("copy -q oci-layout://PLACE/signature:x {one}/app@{}", signature.digest));
    place.done(&format!("copy -q oci-layout://PLACE/cosign {one}/app:{tag}.sig"));

    let listed = |name: &str| {
        let text = place.done(&format!("referrers --format json {name}"));
        let index = Index::parse(text.as_bytes()).expect("an index");
        index
            .manifests
            .iter()
            .map(|one| (one.digest, one.artifact_type().map(str::to_owned)))
            .collect::<Vec<_>>()
    };
    let kind = |kind: &str| Some(format!("application/vnd.example.{kind}"));
    assert_eq!(listed(&format!("{one}/app:1")), [(sbom.digest, kind("sbom"))]);
    assert_eq!(listed(&format!("{one}/app@{}", sbom.digest)), [(signature.digest, kind("signature"))]);
    let table = place.done(&format!("referrers --artifact-type application/vnd.example.none {one}/app:1"));
    assert_eq!(table.lines().count(), 1);
    let table = place.done(&format!("referrers {one}/app:1"));
    assert!(table.contains(&sbom.digest.to_string()) && table.contains("vnd.example.sbom"), "{table}");

    assert_eq!(place.done(&format!("copy -q {one}/app:1 {two}/alone:1")), digest);
    assert_eq!(place.done(&format!("tags {two}/alone")), "1");
    for _ in 0..2 {
        assert_eq!(place.done(&format!("copy -q --referrers {one}/app:1 {two}/app:1")), digest);
        let tags = place.done(&format!("tags {two}/app"));
        let of_sbom = format!("sha256-{}", sbom.digest.hex());
        let mut expected = vec!["1".to_owned(), tag.clone(), format!("{tag}.sig"), of_sbom];
        expected.sort();
        assert_eq!(tags.lines().collect::<Vec<_>>(), expected);
        assert_eq!(listed(&format!("{two}/app:1")), [(sbom.digest, kind("sbom"))]);
        assert_eq!(listed(&format!("{two}/app@{}", sbom.digest)), [(signature.digest, kind("signature"))]);
    }
    run(
        "skopeo",
        &format!(
            "copy -q --src-tls-verify=false docker://{two}/app@{} oci:{}:x",
            signature.digest,
            place.path("signature-again").display()
        ),
    );
    let layout = place.fails(&format!("copy --referrers oci-layout://PLACE/sbom {two}/app:2"), 2);
    assert!(layout.contains("it is in no registry"), "{layout}");
}

#[test]
fn the_files_of_an_artifact_stay_in_their_folder() {
    if cannot("the_files_of_an_artifact_stay_in_their_folder", &[]) {
        return;
    }
    let registry = Registry::start().expect("it starts");
    let host = registry.address();
    let place = Place::new(1000);
    let give = |folder: &str, files: &[(&str, &str)]| {
        artifact(&place, folder, None, files);
        place.done(&format!("copy -q oci-layout://PLACE/{folder} {host}/{folder}:1"));
    };
    give("chart", &[("chart.tgz", "chart"), ("docs/read.me", "text"), ("", "untitled")]);
    let untitled = format!("sha256-{}", Digest::of(b"untitled").hex());
    let written = place.done(&format!("artifact fetch -q -o PLACE/out {host}/chart:1"));
    let path = |name: &str| place.path("out").join(name);
    let expected: Vec<String> =
        ["chart.tgz", "docs/read.me", &untitled].map(|name| path(name).display().to_string()).into();
    assert_eq!(written.lines().collect::<Vec<_>>(), expected);
    assert_eq!(fs::read_to_string(path("docs/read.me")).expect("written"), "text");
    fs::write(path("chart.tgz"), "older").expect("it is there");
    place.done(&format!("artifact fetch -q -o PLACE/out {host}/chart:1"));
    assert_eq!(fs::read_to_string(path("chart.tgz")).expect("written"), "chart");
    assert_eq!(names(&place.path("out")).len(), 3);

    for (folder, title) in [("up", "../out/chart.tgz"), ("absolute", "/etc/kiln-was-here"), ("dots", "..")] {
        give(folder, &[("good", "good"), (title, "bad")]);
        let error = place.fails(&format!("artifact fetch -o PLACE/{folder}-out {host}/{folder}:1"), 1);
        assert!(error.contains("error[artifact-title]") && error.contains(title), "{error}");
        assert!(!place.path(&format!("{folder}-out")).exists());
    }
    // A link that was there before is not followed.
    give("linked", &[("docs/bad", "bad")]);
    fs::create_dir(place.path("elsewhere")).expect("it is new");
    fs::create_dir(place.path("linked-out")).expect("it is new");
    std::os::unix::fs::symlink(place.path("elsewhere"), place.path("linked-out/docs")).expect("made");
    place.fails(&format!("artifact fetch -o PLACE/linked-out {host}/linked:1"), 1);
    assert_eq!(names(&place.path("elsewhere")), Vec::<String>::new());

    // An artifact is no image, and an image is no artifact.
    let inspected = place.done(&format!("index inspect {host}/chart:1"));
    assert!(inspected.contains("ArtifactType: application/vnd.example.chart"), "{inspected}");
    assert!(inspected.contains("text/plain docs/read.me"), "{inspected}");
    fs::write(place.path("context/From"), format!("FROM {host}/chart:1\n")).expect("written");
    let from = place.fails("build --progress none -f PLACE/context/From PLACE/context", 1);
    assert!(from.contains("error[image-format]") && from.contains("kiln artifact fetch"), "{from}");
    fs::write(place.path("context/From"), "FROM chart\n").expect("written");
    let named = "--build-context chart=oci-layout://PLACE/chart:x";
    let from = place.fails(&format!("build --progress none {named} -f PLACE/context/From PLACE/context"), 1);
    assert!(from.contains("error[image-format]") && from.contains("vnd.example.chart"), "{from}");
    let loaded = place.done("load -i PLACE/chart");
    let id = loaded.rsplit(':').next().expect("a digest");
    let ran = place.fails(&format!("run {id}"), 1);
    assert!(ran.contains("error[image-format]") && ran.contains("local-store://"), "{ran}");
    place.build("linux/amd64", &format!("{host}/image:1"));
    let image = place.fails(&format!("artifact fetch {host}/image:1"), 1);
    assert!(image.contains("error[image-format]") && image.contains("kiln pull"), "{image}");
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("it is there");
    entries.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn what_cannot_be_meant_is_said() {
    if machine::lacks("steps").is_some_and(|reason| {
        machine::skip("index::what_cannot_be_meant_is_said", &reason);
        true
    }) {
        return;
    }
    let place = Place::new(10);
    let digest = Digest::of(b"");
    for (words, says) in [
        ("index create a.b/c:1".to_owned(), "--dry-run"),
        ("index create -t a.b/c".to_owned(), "at least one source"),
        ("index create --dry-run --append a.b/c".to_owned(), "--append"),
        (format!("index create --dry-run a.b/c a.b/d {digest}"), "does not tell its repository"),
        ("index create -t a.b/c sha256:1".to_owned(), "64 lower-case hex digits"),
        ("index create -t a.b/c {\"size\":1}".to_owned(), "no descriptor"),
        ("index create -t a.b/c --annotation manifest:a=b a.b/d".to_owned(), "manifest-descriptor"),
        ("index create -t a.b/c --annotation a a.b/d".to_owned(), "--annotation"),
        ("index create -t a.b/c --platform x/y/z/w a.b/d".to_owned(), "--platform"),
        ("index create -t a.b/c -f PLACE/none".to_owned(), "--file"),
        ("index create -t A.b/C a.b/d".to_owned(), "repository"),
        ("index inspect --format x a.b/c".to_owned(), "--format json"),
        ("copy what://a.b/c d.e/f".to_owned(), "local-store://NAME"),
        ("copy a.b/c oci-layout://x".to_owned(), "expected a name in a registry"),
        ("copy local-store:// a.b/c".to_owned(), "empty"),
        ("referrers --format yaml a.b/c".to_owned(), "--format json"),
    ] {
        let said = place.fails(&words, 2);
        assert!(said.contains(says), "kiln {words}: {said}");
    }
    for (words, code) in [
        ("copy local-store://none a.b/c", "no-image"),
        ("copy oci-layout://PLACE/none a.b/c", "oci-layout"),
        ("copy 127.0.0.1:1/a 127.0.0.1:1/b", "registry-unreachable"),
        ("index create -t 127.0.0.1:1/a 127.0.0.1:1/b", "registry-unreachable"),
    ] {
        let said = place.fails(words, 1);
        assert!(said.contains(&format!("error[{code}]")), "kiln {words}: {said}");
    }
}
