//! The shape of the house: who may import whom, which crates are pure, where `unsafe` is, and that the documents name
//! what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use kiln_tests::program::workspace;
use kiln_tests::sources;

/// Who may import whom among our crates, outside tests. A new arrow is a decision: it needs a line here, and where it
/// goes against the layers, a record in docs/decisions.
const ARROWS: [(&str, &[&str]); 18] = [
    ("oci", &[]),
    ("tree", &["oci"]),
    ("store", &["oci", "tree"]),
    ("registry", &["oci"]),
    ("graph", &["oci"]),
    ("dockerfile-parser", &[]),
    ("dockerfile", &["dockerfile-parser", "graph", "oci"]),
    ("solver", &["graph", "oci"]),
    ("image", &["oci", "tree"]),
    ("network-stack", &[]),
    ("sandbox", &["network-stack"]),
    ("ssh", &[]),
    ("fetch", &["oci", "registry"]),
    ("docker", &["oci", "registry"]),
    (
        "engine",
        &[
            "docker",
            "dockerfile",
            "dockerfile-parser",
            "fetch",
            "graph",
            "image",
            "oci",
            "registry",
            "sandbox",
            "solver",
            "ssh",
            "store",
            "tree",
        ],
    ),
    (
        "kiln",
        &[
            "docker",
            "dockerfile",
            "dockerfile-parser",
            "engine",
            "graph",
            "image",
            "oci",
            "registry",
            "sandbox",
            "solver",
            "ssh",
            "store",
            "tree",
        ],
    ),
    ("fuzz-targets", &["dockerfile", "dockerfile-parser", "image", "oci", "tree"]),
    ("kiln-tests", &["dockerfile", "dockerfile-parser", "oci"]),
];

/// Crates that touch nothing: their results follow from their arguments alone.
const PURE: [&str; 6] = ["dockerfile", "dockerfile-parser", "graph", "oci", "solver", "tree"];

/// What a pure crate may import from others: data structures, and readers of text.
const PURE_IMPORTS: [&str; 7] = ["oci-spec", "petgraph", "regex", "serde", "serde_json", "sha2", "thiserror"];

struct Member {
    folder: String,
    ours: BTreeSet<String>,
    others: BTreeSet<String>,
}

fn toml(path: &Path) -> toml::Table {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn root() -> toml::Table {
    toml(&workspace().join("Cargo.toml"))
}

fn members() -> BTreeMap<String, Member> {
    let root = root();
    let folders: Vec<String> = root["workspace"]["members"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|f| f.as_str().expect("text").to_owned())
        .collect();
    let manifests: BTreeMap<String, (String, toml::Table)> = folders
        .into_iter()
        .map(|folder| {
            let manifest = toml(&workspace().join(&folder).join("Cargo.toml"));
            (manifest["package"]["name"].as_str().expect("text").to_owned(), (folder, manifest))
        })
        .collect();
    let names: BTreeSet<String> = manifests.keys().cloned().collect();
    let member = |(folder, manifest): &(String, toml::Table)| {
        let imports: BTreeSet<String> = manifest
            .get("dependencies")
            .and_then(toml::Value::as_table)
            .map(|table| table.keys().cloned().collect())
            .unwrap_or_default();
        let (ours, others) = imports.into_iter().partition(|name| names.contains(name));
        Member { folder: folder.clone(), ours, others }
    };
    manifests.iter().map(|(name, manifest)| (name.clone(), member(manifest))).collect()
}

fn sources_of(folder: &str) -> Vec<(String, String)> {
    let files = sources::rust_files(&workspace().join(folder).join("src")).expect("every member has sources");
    let relative =
        |path: &Path| path.strip_prefix(workspace()).expect("below the workspace").display().to_string();
    files.iter().map(|path| (relative(path), fs::read_to_string(path).expect("a source is text"))).collect()
}

#[test]
fn no_new_arrows() {
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        ARROWS.iter().map(|(name, to)| (*name, to.iter().copied().collect())).collect();
    for (name, member) in members() {
        let allowed = allowed
            .get(name.as_str())
            .unwrap_or_else(|| panic!("{name} is a new crate: it needs a line in ARROWS"));
        for other in &member.ours {
            assert!(allowed.contains(other.as_str()), "{name} imports {other}: a new arrow");
        }
    }
}

#[test]
fn pure_crates_touch_nothing() {
    let members = members();
    for name in PURE {
        let member = &members[name];
        for other in &member.others {
            assert!(PURE_IMPORTS.contains(&other.as_str()), "{name} is pure, but imports {other}");
        }
        for (path, text) in sources_of(&member.folder) {
            for module in sources::std_modules(&sources::code_without_tests(&text)) {
                let head = module.split("::").next().unwrap_or_default();
                let touches =
                    ["env", "fs", "net", "os", "process", "time"].contains(&head) && module != "env::consts";
                assert!(!touches, "{path} is of a pure crate, but names std::{module}");
            }
        }
    }
}

#[test]
fn unsafe_is_in_the_sandbox_alone() {
    for (name, member) in members().into_iter().filter(|(name, _)| name != "sandbox") {
        for (path, text) in sources_of(&member.folder) {
            let code = sources::code(&text);
            let mut words = code.split(|c: char| !(c.is_alphanumeric() || c == '_'));
            assert!(!words.any(|word| word == "unsafe"), "{path}, of {name}, says `unsafe`");
            let spared: String = code.split_whitespace().collect();
            for lint in ["allow(unsafe_code", "expect(unsafe_code"] {
                assert!(!spared.contains(lint), "{path}, of {name}, lifts the ban of `unsafe`");
            }
        }
    }
}

#[test]
fn every_dependency_has_its_reason() {
    let path = workspace().join("docs/dependencies.md");
    let reasons = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let root = root();
    let dependencies = root["workspace"]["dependencies"].as_table().expect("a table");
    let without: Vec<&String> = dependencies
        .iter()
        .filter(|(_, how)| how.get("path").is_none())
        .map(|(name, _)| name)
        .filter(|name| !reasons.contains(&format!("`{name}`")))
        .collect();
    assert!(without.is_empty(), "docs/dependencies.md has no line for {without:?}");
}

#[test]
fn documents_name_what_is_there() {
    for document in ["docs/architecture.md", "docs/tour.md"] {
        let path = workspace().join(document);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for name in text.split('`').skip(1).step_by(2).filter(|name| is_path(name)) {
            let named = name.split([':', '#']).next().unwrap_or(name);
            assert!(workspace().join(named).exists(), "{document} names `{name}`, which is not there");
        }
    }
}

/// Whether a word in backticks is meant as a path of the checkout: it begins with one of the top folders.
fn is_path(word: &str) -> bool {
    let below = |folder: &str| word.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
    let plain = !word.contains(['*', '{', '<', ' ', '…']);
    plain
        && ["builder", "cache", "frontend", "tests", "docs", "examples", ".ci"]
            .iter()
            .any(|folder| below(folder))
}

#[test]
fn files_can_be_read_in_a_sitting() {
    for (_, member) in members() {
        for (path, text) in sources_of(&member.folder) {
            let lines = text.lines().count();
            assert!(lines <= 600, "{path} has {lines} lines: is it one concept?");
        }
    }
}
