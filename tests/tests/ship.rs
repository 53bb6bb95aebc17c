//! Images on their way to registries and archives and back, beside tools that others wrote.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use kiln_tests::machine;
use kiln_tests::program::{kiln, run, said};
use kiln_tests::registry::Registry;

/// `ada:hunter2`, bcrypt of cost 5.
const HTPASSWD: &str = "ada:$2y$05$abcdefghijklmnopqrstuuoXuKqgZXLiJqzfmMXDDhSFPIvxV7t8.\n";

/// Says why a test cannot run here, and whether.
fn cannot(test: &str, programs: &[&str]) -> bool {
    let programs: Vec<String> = programs.iter().map(|program| format!("program:{program}")).collect();
    machine::cannot(test, ["steps", "busybox"].into_iter().chain(programs.iter().map(String::as_str)))
}

/// A folder with a context, state folders, and a home without logins.
struct Place(tempfile::TempDir);

impl Place {
    fn new(dockerfile: &str) -> Place {
        let folder = tempfile::Builder::new().prefix("kiln-ship-").tempdir().expect("a temporary folder");
        fs::create_dir(folder.path().join("context")).expect("it is empty");
        fs::write(folder.path().join("context/Dockerfile"), dockerfile).expect("its parent is there");
        Place(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs Kiln with the state folder `root` and words, where `PLACE` is this place.
    fn kiln(&self, root: &str, words: &str) -> Output {
        self.kiln_with(root, words, Stdio::null())
    }

    fn kiln_with(&self, root: &str, words: &str, input: Stdio) -> Output {
        let place = self.0.path().display().to_string();
        let mut command = kiln();
        command.arg("--root").arg(self.path(root)).env("DOCKER_CONFIG", self.path("docker"));
        command.args(words.split(' ').map(|word| word.replace("PLACE", &place)));
        command.stdin(input).output().expect("the program was built")
    }

    /// As [`Place::kiln`], and it must succeed. What it wrote to standard output.
    fn done(&self, root: &str, words: &str) -> String {
        let output = self.kiln(root, words);
        assert!(output.status.success(), "kiln {words}: {}", said(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// As [`Place::kiln`], and it must fail with this status. What it wrote to standard error.
    fn fails(&self, root: &str, words: &str, status: i32) -> String {
        let output = self.kiln(root, words);
        assert_eq!(output.status.code(), Some(status), "kiln {words}: {}", said(&output));
        said(&output)
    }

    fn build(&self, words: &str) -> String {
        let base = machine::base_argument().expect("the test asked for it");
        self.done("root", &format!("build -q --build-context {base} {words} PLACE/context"))
    }
}

fn digest_of(registry: &Registry, name: &str) -> String {
    let words = format!("inspect --tls-verify=false --raw docker://{}/{name}", registry.address());
    let raw = run("skopeo", &words);
    format!("sha256:{}", oci::Digest::of(raw.as_bytes()).hex())
}

#[test]
fn a_built_image_is_pushed_and_pulled() {
    if cannot("ship::a_built_image_is_pushed_and_pulled", &["docker-registry", "skopeo"]) {
        return;
    }
    let registry = Registry::start().expect("it starts");
    let host = registry.address();
    let place = Place::new("FROM busybox\nRUN echo pushed > /said\n");
    let digest = place.build(&format!("--push -t {host}/a/app:1 -t {host}/a/app:latest -t {host}/b/app:1"));
    for name in ["a/app:1", "a/app:latest", "b/app:1"] {
        assert_eq!(digest_of(&registry, name), digest, "{name}");
    }
    run(
        "skopeo",
        &format!(
            "copy --src-tls-verify=false docker://{host}/a/app:1 oci:{}:x",
            place.path("copied").display()
        ),
    );
    assert_eq!(place.done("root", &format!("tags {host}/a/app")), "1\nlatest");

    assert_eq!(place.done("other", &format!("pull -q {host}/b/app:1")), digest);
    assert_eq!(place.done("other", &format!("run {host}/b/app:1 cat /said")), "pushed");
    // What the registry has is mounted, not sent.
    let pushed = place.kiln("other", &format!("push --progress plain {host}/b/app:1 {host}/c/app:2"));
    assert!(said(&pushed).contains("0 blobs sent (0 bytes), 0 were there, 3 mounted"), "{}", said(&pushed));
    let again = place.kiln("other", &format!("push --progress plain {host}/b/app:1 {host}/c/app:3"));
    assert!(said(&again).contains("0 blobs sent (0 bytes), 3 were there, 0 mounted"), "{}", said(&again));
    assert_eq!(digest_of(&registry, "c/app:3"), digest);
    let missing = place.fails("other", &format!("pull {host}/none:1"), 1);
    assert!(missing.contains("not found"), "{missing}");
}

#[test]
fn several_platforms_are_pushed_as_one_index() {
    if cannot("ship::several_platforms_are_pushed_as_one_index", &["docker-registry", "skopeo"]) {
        return;
    }
    let registry = Registry::start().expect("it starts");
    let host = registry.address();
    let place = Place::new("FROM scratch\nARG TARGETARCH\nCOPY Dockerfile /of-$TARGETARCH\n");
    let output = format!("type=registry,name={host}/app:1,store=false");
    let digest = place.build(&format!("--platform linux/amd64,linux/arm64 -o {output}"));
    assert_eq!(digest_of(&registry, "app:1"), digest);
    for arch in ["amd64", "arm64"] {
        let words = format!("--override-arch {arch} inspect --tls-verify=false docker://{host}/app:1");
        assert!(run("skopeo", &words).contains(&format!("\"Architecture\": \"{arch}\"")));
    }
    assert_eq!(place.done("root", "images -q"), "");
    let by_digest =
        place.build(&format!("-o type=image,push=true,push-by-digest=true,name={host}/by-digest"));
    let tags = place.fails("root", &format!("tags {host}/by-digest"), 1);
    assert!(tags.contains("NAME_UNKNOWN") || tags.contains("not found"), "{tags}");
    assert_eq!(place.done("root", &format!("pull -q {host}/by-digest@{by_digest}")), by_digest);
    let unnamed = place.fails("root", "build --push PLACE/context", 2);
    assert!(unnamed.contains("needs a name"), "{unnamed}");
}

#[test]
fn a_login_is_checked_kept_used_and_forgotten() {
    if cannot("ship::a_login_is_checked_kept_used_and_forgotten", &["docker-registry"]) {
        return;
    }
    let auth = "auth: {htpasswd: {realm: test, path: FOLDER/htpasswd}}";
    let registry = Registry::start_with(auth, &[("htpasswd", HTPASSWD)]).expect("it starts");
    let host = registry.address();
    let place = Place::new("FROM busybox\n");
    place.build(&format!("-t {host}/app:1"));
    let config = place.path("docker/config.json");

    let refused = place.fails("root", &format!("push {host}/app:1"), 1);
    assert!(refused.contains(&format!("kiln login {host}")), "{refused}");
    let wrong = place.fails("root", &format!("login -u ada -p wrong {host}"), 1);
    assert!(wrong.contains("refused the login"), "{wrong}");
    assert!(!config.exists());

    fs::write(place.path("password"), "hunter2\n").expect("written");
    let input = || fs::File::open(place.path("password")).expect("written").into();
    let logged_in = place.kiln_with("root", &format!("login -u ada --password-stdin {host}"), input());
    assert!(logged_in.status.success(), "{}", said(&logged_in));
    assert!(said(&logged_in).contains("unencrypted"), "{}", said(&logged_in));
    assert!(!fs::read_to_string(&config).expect("kept").contains("hunter2"));
    assert_eq!(mode(&config), 0o600);
    place.done("root", &format!("push -q {host}/app:1"));
    place.done("root", &format!("logout {host}"));
    place.fails("root", &format!("tags {host}/app"), 1);
    assert!(place.done("root", &format!("logout {host}")).contains("Not logged in"));
    let alone = place.fails("root", &format!("login -u ada {host}"), 2);
    assert!(alone.contains("--password-stdin"), "{alone}");
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

#[test]
fn images_are_saved_and_loaded() {
    if cannot("ship::images_are_saved_and_loaded", &["skopeo", "gzip"]) {
        return;
    }
    let place = Place::new("FROM busybox\nRUN echo saved > /said\n");
    let digest = place.build("-t app:1");
    place.done("root", "tag app:1 app:2");
    place.done("root", "save -o PLACE/docker.tar app:1 app:2");
    place.done("root", "save --format oci -o PLACE/oci.tar app:1");
    let file = |name: &str| place.path(name).display().to_string();
    // As Docker wrote before version 25: no index, layers by their names.
    run(
        "skopeo",
        &format!("copy -q oci-archive:{} docker-archive:{}:app:old", file("oci.tar"), file("old.tar")),
    );
    run("gzip", &format!("-k {}", file("docker.tar")));

    assert_eq!(place.done("a", "load -i PLACE/docker.tar"), "Loaded image: app:1\nLoaded image: app:2");
    assert_eq!(place.done("b", "load -i PLACE/oci.tar"), "Loaded image: app:1");
    assert_eq!(place.done("c", "load -i PLACE/docker.tar.gz"), "Loaded image: app:1\nLoaded image: app:2");
    for root in ["a", "b", "c"] {
        assert_eq!(place.done(root, "images -q"), digest);
        assert_eq!(place.done(root, "run app:1 cat /said"), "saved");
    }
    assert_eq!(place.done("d", "load -i PLACE/old.tar"), "Loaded image: app:old");
    assert_eq!(place.done("d", "run app:old cat /said"), "saved");

    let mut broken = fs::read(place.path("old.tar")).expect("written");
    let said = b"saved\n";
    let at = broken.windows(said.len()).position(|window| window == said).expect("layers are not compressed");
    broken[at] ^= 1;
    fs::write(place.path("broken.tar"), broken).expect("written");
    let error = place.fails("e", "load -i PLACE/broken.tar", 1);
    assert!(error.contains("sha256:"), "{error}");
    assert_eq!(place.done("e", "images -q"), "");
    let none = place.fails("e", "load -i PLACE/context/Dockerfile", 1);
    assert!(none.contains("archive"), "{none}");
    place.fails("e", "save -o PLACE/none.tar none", 1);
    assert!(!place.path("none.tar").exists());
}

#[test]
fn without_a_docker_engine_nothing_is_built_for_it() {
    if cannot("ship::without_a_docker_engine_nothing_is_built_for_it", &[]) {
        return;
    }
    let place = Place::new("FROM scratch\nCOPY Dockerfile /\n");
    let fails = |words: &str| {
        let nobody = format!("unix://{}", place.path("nobody.sock").display());
        let mut command = kiln();
        command.arg("--root").arg(place.path("root")).env("DOCKER_HOST", nobody).args(words.split(' '));
        let output = command.arg(place.path("context")).output().expect("the program was built");
        assert_eq!(output.status.code(), Some(1), "kiln {words}: {}", said(&output));
        said(&output)
    };
    for words in ["build --load", "build -o type=docker", "build --load -o type=cacheonly"] {
        let error = fails(words);
        assert!(error.contains("error[docker-not-there]") && error.contains("nobody.sock"), "{error}");
        assert!(error.contains("-o type=docker,dest="), "{error}");
        assert!(!error.contains("COPY"), "{error}");
    }
    place.done("root", "build -q -t app:1 PLACE/context");
    let text = place.fails("root", "push app:1 docker-daemon:UPPER", 2);
    assert!(text.contains("UPPER"), "{text}");
}

#[test]
fn dockers_media_types_and_annotations_reach_a_registry() {
    let test = "ship::dockers_media_types_and_annotations_reach_a_registry";
    if cannot(test, &["docker-registry", "skopeo"]) {
        return;
    }
    let registry = Registry::start().expect("it starts");
    let host = registry.address();
    let place = Place::new("FROM busybox\nARG TARGETARCH\nCOPY Dockerfile /of-$TARGETARCH\n");
    let raw = |name: &str| run("skopeo", &format!("inspect --tls-verify=false --raw docker://{host}/{name}"));
    for (tag, keys, layer) in [
        ("gzip", "", "rootfs.diff.tar.gzip"),
        ("plain", ",compression=uncompressed,force-compression=true", "rootfs.diff.tar\""),
        ("zstd", ",compression=zstd,force-compression=true", "rootfs.diff.tar.zstd"),
    ] {
        let digest =
            place.build(&format!("-o type=registry,oci-mediatypes=false,name={host}/app:{tag}{keys}"));
        let manifest = raw(&format!("app:{tag}"));
        assert!(manifest.contains("application/vnd.docker.distribution.manifest.v2+json"), "{manifest}");
        assert_eq!(manifest.matches(layer).count(), 2, "{manifest}");
        assert!(!manifest.contains("vnd.oci"), "{manifest}");
        assert_eq!(place.done(tag, &format!("pull -q {host}/app:{tag}")), digest);
    }
    fs::write(place.path("none"), "FROM scratch\nARG TARGETARCH\nCOPY none /of-$TARGETARCH\n")
        .expect("written");
    let output = format!("type=registry,compatibility-version=20,name={host}/app:both");
    place.done(
        "root",
        &format!("build -q --platform linux/amd64,linux/arm64 -o {output} -f PLACE/none PLACE"),
    );
    let list = raw("app:both");
    assert!(list.contains("application/vnd.docker.distribution.manifest.list.v2+json"), "{list}");
    assert_eq!(list.matches("application/vnd.docker.distribution.manifest.v2+json").count(), 2, "{list}");

    let annotated =
        format!("--annotation index:a=1 --annotation manifest:b=2 -o type=registry,name={host}/app:a");
    place.done(
        "root",
        &format!("build -q --platform linux/amd64,linux/arm64 {annotated} -f PLACE/none PLACE"),
    );
    let index = raw("app:a");
    assert!(index.contains("\"annotations\":{\"a\":\"1\"}"), "{index}");
    let manifest =
        run("skopeo", &format!("--override-arch arm64 inspect --tls-verify=false docker://{host}/app:a"));
    assert!(manifest.contains("arm64"), "{manifest}");
}

#[test]
fn an_image_without_a_tag_is_pushed_by_its_digest() {
    if cannot("ship::an_image_without_a_tag_is_pushed_by_its_digest", &["docker-registry"]) {
        return;
    }
    let registry = Registry::start().expect("it starts");
    let host = registry.address();
    let place = Place::new("FROM busybox\nCOPY Dockerfile /\n");
    let digest = place.build(&format!(
        "-o type=image,push=true,dangling-name-prefix={host}/dangling --metadata-file PLACE/metadata"
    ));
    let metadata = fs::read_to_string(place.path("metadata")).expect("it was asked for");
    assert!(metadata.contains(&format!("\"image.name\": \"{host}/dangling@{digest}\"")), "{metadata}");
    assert_eq!(place.done("other", &format!("pull -q {host}/dangling@{digest}")), digest);
    let tags = place.fails("root", &format!("tags {host}/dangling"), 1);
    assert!(tags.contains("NAME_UNKNOWN") || tags.contains("not found"), "{tags}");
    // One that has a name needs none.
    place.build(&format!(
        "-t app:1 -o type=image,dangling-name-prefix={host}/more,danging-name-empty-only=true --metadata-file PLACE/metadata"
    ));
    let metadata = fs::read_to_string(place.path("metadata")).expect("it was asked for");
    assert!(metadata.contains("\"image.name\": \"docker.io/library/app:1\""), "{metadata}");
    // `--push` is of all images, and with none makes one.
    place.build(&format!("--push -t {host}/pushed:1 -o type=image,store=false"));
    place.build(&format!("--push -t {host}/pushed:2 -o type=local,dest=PLACE/files"));
    assert_eq!(place.done("root", &format!("tags {host}/pushed")), "1\n2");
    assert!(place.path("files/Dockerfile").exists());
}

#[test]
fn one_output_may_reach_an_insecure_registry() {
    if cannot("ship::one_output_may_reach_an_insecure_registry", &["docker-registry", "openssl"]) {
        return;
    }
    let place = Place::new("FROM busybox\nCOPY Dockerfile /\n");
    let (key, certificate) = (place.path("key.pem"), place.path("certificate.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=elsewhere"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output();
    assert!(made.expect("openssl").status.success());
    let tls = format!("tls: {{certificate: {}, key: {}}}", certificate.display(), key.display());
    let registry = Registry::start_as(&tls, "", &[]).expect("it starts");
    let host = registry.address();
    let base = machine::base_argument().expect("the test asked for it");
    place.fails("root", &format!("build --build-context {base} --push -t {host}/app:1 PLACE/context"), 1);
    let output = format!("type=registry,name={host}/app:1,registry.insecure=true");
    let digest = place.build(&format!("-o {output}"));
    assert!(digest.starts_with("sha256:"), "{digest}");
}
