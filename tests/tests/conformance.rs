//! Every case of `tests/conformance` is a test: Kiln's image beside BuildKit's.
//!
//! The names in `tests/conformance/passing.txt` must pass, so the count may only rise. A case that is not listed may
//! fail; when it passes, the run says that it can be added, and `BLESS=1` adds it. Cases that differ on purpose are
//! listed in `docs/comparison.md`, with the reason.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use kiln_tests::machine;
use kiln_tests::mode::{self, TestMode};
use kiln_tests::program::{program, workspace};
use kiln_tests::registry::Registry;
use libtest_mimic::{Arguments, Completion, Trial};

const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/conformance");

/// Cases whose setup makes files of others, devices, or archives of what is then root's.
const OF_ROOT: [&str; 8] = [
    "add-glob-tars",
    "add-tar-chown-chmod",
    "add-tar-over-existing",
    "add-tar-variants",
    "add-tar-whiteout-names",
    "copy-chmod-symbolic",
    "copy-dir-merge-modes",
    "copy-fifo-device-socket-in-context",
];

fn main() {
    let arguments = Arguments::from_args();
    let cases = match cases() {
        Ok(cases) => cases,
        Err(reason) => {
            machine::skip("conformance", &reason);
            return;
        }
    };
    let listed = listed(&Path::new(HERE).join("passing.txt"));
    let differing = on_purpose();
    let passed = Arc::new(Mutex::new(listed.clone()));
    let names = fs::read_to_string(cases.join("names")).expect("made together with the cases");
    let trials = names.lines().map(|name| {
        let (name, cases, passed) = (name.to_owned(), cases.clone(), Arc::clone(&passed));
        let (must, differs) = (listed.contains(&name), differing.contains(&name));
        Trial::ignorable_test(name.clone(), move || {
            if OF_ROOT.contains(&name.as_str()) && machine::is_user() {
                machine::skip(&format!("conformance::{name}"), "needs root: its setup makes what others own");
                return Ok(Completion::ignored_with("needs root"));
            }
            if name == "run-big-ids" && mode::of_user() == Ok(TestMode::Subids) {
                machine::skip("conformance::run-big-ids", "needs root: sub-ids end at 65535");
                return Ok(Completion::ignored_with("needs root"));
            }
            let result = compare(&cases, &name);
            match (result, must) {
                (Ok(()), true) => Ok(Completion::Completed),
                (Ok(()), false) => {
                    println!(
                        "NEW {name}: passes; add it to tests/conformance/passing.txt, or let BLESS=1 do it"
                    );
                    passed.lock().expect("no holder panics").insert(name.clone());
                    Ok(Completion::Completed)
                }
                (Err(found), true) => Err(found.into()),
                (Err(_), false) if differs => {
                    Ok(Completion::ignored_with("differs on purpose: docs/comparison.md"))
                }
                (Err(found), false) => {
                    println!("NOT YET {name}:\n{found}");
                    Ok(Completion::ignored_with("not in passing.txt"))
                }
            }
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    drop(DOCKER_IO.lock().expect("no holder panics").take());
    if std::env::var_os("BLESS").is_some() {
        let names = passed.lock().expect("no holder panics").iter().cloned().collect::<Vec<_>>().join("\n");
        fs::write(Path::new(HERE).join("passing.txt"), names + "\n").expect("the checkout can be written");
    }
    conclusion.exit();
}

/// The lines of a list; none where there is no such file.
fn listed(path: &Path) -> BTreeSet<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// The names of cases that docs/comparison.md has, each in backticks.
fn on_purpose() -> BTreeSet<String> {
    let text = fs::read_to_string(workspace().join("docs/comparison.md")).unwrap_or_default();
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The folder of the written cases, made anew where the script that writes them is younger.
fn cases() -> Result<PathBuf, String> {
    for need in
        ["steps", "busybox", "program:gcc", "program:python3", "program:docker-registry", "program:skopeo"]
    {
        if let Some(reason) = machine::lacks(need) {
            return Err(reason);
        }
    }
    let folder = machine::made().join("conformance");
    let script = Path::new(HERE).join("gen.py");
    let time = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    if time(&folder.join("names")) < time(&script) {
        let made =
            Command::new("python3").arg(&script).arg(&folder).output().map_err(|error| error.to_string())?;
        if !made.status.success() {
            return Err(format!("gen.py: {}", String::from_utf8_lossy(&made.stderr)));
        }
        let mut names: Vec<_> = fs::read_dir(&folder)
            .map_err(|error| error.to_string())?
            .flatten()
            .filter(|entry| entry.path().join("case.json").exists())
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        fs::write(folder.join("names"), names.join("\n") + "\n").map_err(|error| error.to_string())?;
    }
    Ok(folder)
}

/// A registry that stands in for docker.io, for the case that names an image there, and the settings that say so. It
/// starts when first asked for; `main` ends it, because what a static holds is not dropped.
static DOCKER_IO: Mutex<Option<(Registry, PathBuf)>> = Mutex::new(None);

/// The path of the settings by which [`DOCKER_IO`] is found.
fn docker_io() -> Result<PathBuf, String> {
    let mut started = DOCKER_IO.lock().map_err(|error| error.to_string())?;
    if let Some((_, settings)) = &*started {
        return Ok(settings.clone());
    }
    let start = || {
        let registry = Registry::start()?;
        registry.push(
            machine::base_layout().map_err(io::Error::other)?,
            "busybox:latest",
            "library/busybox:latest",
        )?;
        let settings = registry.settings_as_docker_io()?;
        io::Result::Ok((registry, settings))
    };
    let (registry, settings) = start().map_err(|error| error.to_string())?;
    *started = Some((registry, settings.clone()));
    Ok(settings)
}

/// Builds one case and compares it with its reference; what differs is the error.
fn compare(cases: &Path, name: &str) -> Result<(), String> {
    let state = tempfile::tempdir().map_err(|error| error.to_string())?;
    let quoted = |path: &Path| format!("'{}'", path.display());
    let build = format!(
        "{} --root {} build --progress plain -f {{dockerfile}} -o type=oci,dest={{out}} --build-context '{}' {{args}} {{context}}",
        quoted(program()),
        quoted(state.path()),
        machine::base_argument()?,
    );
    let mut run = Command::new("python3");
    run.arg(Path::new(HERE).join("diffbuild.py")).arg("--cases").arg(cases.join("cases.json"));
    run.arg("--ref").arg(Path::new(HERE).join("expected")).args(["--check-expect", "-v", "--b-name", "kiln"]);
    run.args(["--match", &format!("^{name}$"), "--b-cmd", &build]).stdin(Stdio::null());
    run.env("KILN_REGISTRIES", docker_io()?);
    let output = run.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}
