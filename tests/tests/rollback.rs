//! Names and their past: what they stood for, and back to it, here and in a registry.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use kiln_tests::{
    machine,
    program::{kiln, said},
    registry::Registry,
};
use serde_json::Value;

/// Whether a test cannot run here; says why.
fn cannot(test: &str, programs: &[&str]) -> bool {
    let programs: Vec<String> = programs.iter().map(|program| format!("program:{program}")).collect();
    machine::cannot(
        &format!("rollback::{test}"),
        ["steps", "busybox"].into_iter().chain(programs.iter().map(String::as_str)),
    )
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        let folder = tempfile::Builder::new().prefix("kiln-rollback-").tempdir().expect("a temporary folder");
        fs::create_dir(folder.path().join("context")).expect("it is empty");
        let text = "FROM scratch\nARG SAID\nLABEL said=$SAID\n";
        fs::write(folder.path().join("context/Dockerfile"), text).expect("its parent is there");
        Place(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs Kiln with words, where `PLACE` is this place.
    fn kiln(&self, words: &str) -> Output {
        let place = self.0.path().display().to_string();
        let mut command = kiln();
        command.arg("--root").arg(self.path("root")).env("DOCKER_CONFIG", self.path("docker"));
        command.args(words.split(' ').map(|word| word.replace("PLACE", &place)));
        command.stdin(Stdio::null()).output().expect("the program was built")
    }

    /// As [`Place::kiln`], and it must succeed. What it wrote to standard output.
    fn done(&self, words: &str) -> String {
        let output = self.kiln(words);
        assert!(output.status.success(), "kiln {words}: {}", said(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// As [`Place::kiln`], and it must fail with this code of an error. What it wrote to standard error.
    fn fails(&self, words: &str, code: &str) -> String {
        let output = self.kiln(words);
        assert!(!output.status.success(), "kiln {words}");
        let said = said(&output);
        assert!(said.contains(&format!("error[{code}]")), "kiln {words}: {said}");
        said
    }

    /// Builds an image that says this, under `words`. Its digest.
    fn build(&self, label: &str, words: &str) -> String {
        self.done(&format!("build -q --build-arg SAID={label} {words} PLACE/context"))
    }

    /// The past of a name: digest, by what, whether it is current, whether it is here.
    fn history(&self, words: &str) -> Vec<(String, String, bool, bool)> {
        let lines = self.done(&format!("history --tag --json {words}"));
        let entry = |line: &str| {
            let line: Value = serde_json::from_str(line).expect("it is JSON");
            let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
            let is = |name: &str| line[name].as_bool().expect("a truth");
            (text("digest"), text("by"), is("current"), is("here"))
        };
        lines.lines().map(entry).collect()
    }
}

#[test]
fn a_name_goes_back_to_what_it_was() {
    if cannot("a_name_goes_back_to_what_it_was", &[]) {
        return;
    }
    let place = Place::new();
    let past = ["a", "b", "c"].map(|label| place.build(label, "-t app:1"));
    let [a, b, c] = &past;
    assert_eq!(place.build("c", "-t app:1"), *c, "the same again is nothing new");
    let short = |digest: &str| digest[7..13].to_owned();

    let entry = |digest: &String, by: &str, current| (digest.clone(), by.to_owned(), current, true);
    let built = [entry(c, "build", true), entry(b, "build", false), entry(a, "build", false)];
    assert_eq!(place.history("app:1"), built);
    assert_eq!(place.done("rollback app:1"), *b);
    assert_eq!(place.done("inspect app:1").matches(b.as_str()).count(), 1);
    assert_eq!(place.done("rollback app:1"), *a, "one further, not to and fro");
    let end = place.fails("rollback app:1", "no-history");
    assert!(end.contains("kiln tag IMAGE app:1"), "{end}");
    assert_eq!(place.done(&format!("rollback app:1 {}", short(c))), *c);
    assert_eq!(place.done(&format!("rollback app:1 {c}")), *c, "nothing to do");
    let by: Vec<_> = place.history("app:1").into_iter().map(|entry| (entry.1, entry.2)).collect();
    let expected = [("rollback", true), ("rollback", false), ("rollback", false), ("build", false)];
    assert_eq!(by[..4], expected.map(|(by, current)| (by.to_owned(), current)));

    place.fails("rollback app:1 12345", "digest");
    place.fails("rollback app:1 0000000", "no-history");
    place.fails("rollback other", "no-history");
    place.fails(&format!("rollback app@{a}"), "usage");
    place.fails("history --tag other", "usage");

    place.done(&format!("rmi {b}"));
    let gone = place.fails(&format!("rollback app:1 {}", short(b)), "image-gone");
    assert!(gone.contains(&format!("kiln rollback app:1 {}", &a[7..19])), "{gone}");
    assert!(place.done("history --tag app:1").contains("no longer here"));

    place.done(&format!("tag {a} app:2"));
    place.done("save -o PLACE/app.tar app:2");
    place.done("rmi app:2");
    assert_eq!(place.history("app:2").len(), 1, "what a name was outlives it");
    assert!(!place.history("app:2")[0].2);
    place.done("load -i PLACE/app.tar");
    let by: Vec<_> = place.history("app:2").into_iter().map(|entry| entry.1).collect();
    assert_eq!(by, ["load", "tag"]);
}

#[test]
fn a_name_of_a_registry_goes_back_to_what_it_was() {
    if cannot("a_name_of_a_registry_goes_back_to_what_it_was", &["docker-registry", "skopeo"]) {
        return;
    }
    let registry = Registry::start().expect("it starts");
    let name = format!("{}/app:1", registry.address());
    let place = Place::new();
    let is = || {
        let output = Command::new("skopeo")
            .args(["inspect", "--tls-verify=false", "--raw", &format!("docker://{name}")])
            .output()
            .expect("it is installed");
        format!("sha256:{}", oci::Digest::of(&output.stdout).hex())
    };
    place.fails(&format!("history --tag --registry {name}"), "usage");
    let unknown = place.fails(&format!("rollback --registry {name}"), "no-history");
    assert!(unknown.contains("sha256:"), "{unknown}");
    let [a, b] = ["a", "b"].map(|label| place.build(label, &format!("--push -t {name}")));
    assert_eq!(is(), b);
    assert_eq!(place.done(&format!("rollback --registry {name}")), a);
    assert_eq!(is(), a);
    // The local name is another thing.
    assert_eq!(place.history(&name)[0].0, b);
    let by: Vec<_> = place.history(&format!("--registry {name}")).into_iter().map(|entry| entry.1).collect();
    assert_eq!(by, ["rollback", "push", "push"]);
    assert_eq!(place.done(&format!("rollback --registry {name} {}", &b[7..15])), b);
    assert_eq!(is(), b);

    // Somebody else pushes.
    let other = place.build("other", "-t other");
    place.done("save --format oci -o PLACE/other.tar other");
    let archive = format!("oci-archive:{}", place.path("other.tar").display());
    let copied = Command::new("skopeo")
        .args(["copy", "-q", "--dest-tls-verify=false", &archive, &format!("docker://{name}")])
        .status()
        .expect("it is installed");
    assert!(copied.success());
    assert_eq!(is(), other);
    let moved = place.fails(&format!("rollback --registry {name}"), "tag-moved");
    assert!(moved.contains(&other) && moved.contains(&b) && moved.contains("--force"), "{moved}");
    assert_eq!(is(), other, "it is as it was");
    assert_eq!(place.done(&format!("rollback --registry --force {name}")), b);
    assert_eq!(is(), b);
    let past: Vec<_> =
        place.history(&format!("--registry {name}")).into_iter().map(|entry| entry.0).collect();
    assert_eq!(past[..2], [b.clone(), other.clone()], "what it replaced is known");

    // By its whole digest an image that this machine knows nothing of; and one that the registry has not.
    let stranger = Place::new();
    assert_eq!(stranger.done(&format!("rollback --registry {name} {a}")), a);
    assert_eq!(is(), a);
    let none = format!("sha256:{:064}", 0);
    stranger.fails(&format!("rollback --registry {name} {none}"), "image-gone");
    assert_eq!(is(), a);
    // What is gone there and is here can be pushed again.
    let only_here = place.build("here", "-t here");
    let help = place.fails(&format!("rollback --registry --force {name} {only_here}"), "image-gone");
    assert!(help.contains(&format!("kiln push {only_here} {name}")), "{help}");
}
