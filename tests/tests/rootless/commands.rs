//! What is done with an image that a user built: as root does it, and the user owns what comes of it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use kiln_tests::mode::{TestMode, USER};
use kiln_tests::program::said;

use crate::place::{Place, of_root};
use crate::{MODES, cannot};

const DOCKERFILE: &str = "FROM busybox
RUN echo 1 > /1 && chown 5:6 /1 && mkdir -p /d/e && chown -R 7:8 /d
COPY --chown=7:8 Dockerfile /d/
RUN rm -r /d && mkdir /d && touch /d/new
CMD stat -c %u:%g /1
";

/// All that is in a folder, and it.
fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    let mut at = 0;
    while let Some(path) = found.get(at).cloned() {
        at += 1;
        if path.symlink_metadata().is_ok_and(|found| found.is_dir()) {
            let entries = fs::read_dir(&path).expect("root reads it");
            found.extend(entries.map(|entry| entry.expect("it can be read").path()));
        }
    }
    found
}

/// What is not the user's.
fn not_the_users(folder: &Path) -> Vec<PathBuf> {
    let is_another = |path: &PathBuf| {
        path.symlink_metadata().is_ok_and(|found| (found.uid(), found.gid()) != (USER, USER))
    };
    below(folder).into_iter().filter(is_another).collect()
}

#[test]
fn from_build_to_prune() {
    if cannot("commands::from_build_to_prune") {
        return;
    }
    let expected = of_root(DOCKERFILE);
    for mode in MODES {
        let place = Place::new(mode, DOCKERFILE);
        let root = place.root();
        assert_eq!(place.built(&root, "", &[]).0, expected, "{mode:?}");
        let named = place.build(&root, "", &["-t", "app:1"]).output().expect("it starts");
        assert!(named.status.success(), "{mode:?}: {}", said(&named));
        assert!(place.output(&["images"]).contains("app "), "{mode:?}");
        assert_eq!(place.output(&["run", "app:1"]), "5:6\n", "{mode:?}");
        assert_eq!(place.output(&["shell", "Dockerfile:4", "stat", "-c", "%u:%g", "/d/Dockerfile"]), "7:8\n");
        let listed = place.output(&["shell"]);
        assert!(listed.contains("Dockerfile:4"), "{listed}");

        let saved = place.at("out/saved.tar").display().to_string();
        place.output(&["save", "-o", &saved, "app:1"]);
        let other = place.at("other");
        let load = place.kiln(&other, "", &["load", "-i", &saved]).output().expect("it starts");
        assert!(load.status.success(), "{}", said(&load));
        let run = place.kiln(&other, "", &["run", "app:1"]).output().expect("it starts");
        assert_eq!(String::from_utf8_lossy(&run.stdout), "5:6\n", "{}", said(&run));
        assert_eq!(not_the_users(&place.at("out")), Vec::<PathBuf>::new(), "{mode:?}");

        // With sub-ids, layers are other users' files.
        assert_eq!(not_the_users(&root).is_empty(), mode == TestMode::Single);
        let untagged = place.output(&["rmi", "app:1"]);
        assert!(untagged.starts_with("Untagged: app:1\n"), "{untagged}");
        place.output(&["prune", "-af"]);
        assert_eq!(not_the_users(&root), Vec::<PathBuf>::new(), "{mode:?}: after prune");
        let layers = fs::read_dir(root.join("layers")).expect("it is there").count();
        assert_eq!(layers, 0, "{mode:?}: after prune");
    }
}

#[test]
fn outputs_are_roots() {
    if cannot("commands::outputs_are_roots") {
        return;
    }
    let written = |mode: TestMode| {
        let place = Place::new(mode, DOCKERFILE);
        let (tar, folder) = (place.at("out/root.tar"), place.at("out/root"));
        let flags =
            [format!("type=tar,dest={}", tar.display()), format!("type=local,dest={}", folder.display())];
        let output = place
            .build(&place.root(), "", &["-o", &flags[0], "-o", &flags[1]])
            .output()
            .expect("it can be started");
        assert!(output.status.success(), "{mode:?}: {}", said(&output));
        if mode.is_rootless() {
            assert_eq!(not_the_users(&place.at("out")), Vec::<PathBuf>::new(), "{mode:?}");
        }
        assert!(folder.join("d/new").exists() && !folder.join("d/Dockerfile").exists(), "{mode:?}");
        let names: Vec<PathBuf> = below(&folder)
            .iter()
            .map(|path| path.strip_prefix(&folder).expect("it is below").to_owned())
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect();
        (fs::read(tar).expect("it was written"), names)
    };
    let (tar, names) = written(TestMode::Root);
    assert!(names.len() > 10);
    for mode in MODES {
        let (other_tar, other_names) = written(mode);
        assert_eq!(other_names, names, "{mode:?}");
        assert!(other_tar == tar, "{mode:?}: another archive");
    }
}

#[test]
fn a_build_that_is_remembered_enters_nothing() {
    if cannot("commands::a_build_that_is_remembered_enters_nothing") {
        return;
    }
    for mode in MODES {
        let place = Place::new(mode, "FROM scratch\nCOPY Dockerfile /\n");
        // What was changed just now is not remembered.
        sleep(Duration::from_millis(40));
        let out = format!("type=oci,dest={}", place.at("out/image.tar").display());
        let context = place.at("context").display().to_string();
        let build = |change: &str, flags: &[&str]| {
            let words = [&["build", "-q", "-t", "app:1", "-o", &out], flags, &[&context]].concat();
            place.kiln(&place.root(), change, &words).output().expect("it starts")
        };
        let first = build("", &[]);
        assert!(first.status.success(), "{mode:?}: {}", said(&first));
        // Where no user namespace can be had, so that nothing else than the memo can answer.
        let again = build("{no-namespaces}", &[]);
        assert_eq!(
            (again.status.code(), &again.stdout),
            (Some(0), &first.stdout),
            "{mode:?}: {}",
            said(&again)
        );
        let other = build("{no-namespaces}", &["--no-cache"]);
        assert_eq!(other.status.code(), Some(1), "{mode:?}: {}", said(&other));
    }
}
