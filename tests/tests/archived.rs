//! Layers that are archived from where their files are, and get a folder only when a step wants one.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use kiln_tests::{
    machine,
    program::{kiln, run, said},
};

const COPY: &str = "FROM scratch\nCOPY busybox /bin/busybox\nCOPY src /src\n";
const LIST: &str = "RUN [\"/bin/busybox\", \"find\", \"/src\", \"-exec\", \"/bin/busybox\", \"stat\", \"-c\", \"%n %A %y\", \"{}\", \";\"]\n";

/// What somebody does to a file.
type Edit = fn(&Path);

struct Place(tempfile::TempDir);

impl Place {
    /// A context with files of all sorts; nothing where this test cannot run here.
    fn new(test: &str) -> Option<Place> {
        if machine::cannot(&format!("archived::{test}"), ["steps", "busybox", "program:tar"]) {
            return None;
        }
        let folder = tempfile::Builder::new().prefix("kiln-archived-").tempdir().expect("a temporary folder");
        let place = Place(folder);
        let source = place.path("context/src/deep");
        fs::create_dir_all(&source).expect("an empty place");
        fs::write(source.join("text"), "a text\n").expect("its folder is there");
        fs::write(source.join("empty"), "").expect("its folder is there");
        fs::hard_link(source.join("text"), source.join("twin")).expect("its folder is there");
        symlink("text", source.join("link")).expect("its folder is there");
        fs::copy("/bin/busybox", place.path("context/busybox")).expect("busybox is here");
        Some(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn build(&self, root: &str, dockerfile: &str, output: &str) -> Output {
        fs::write(self.path("context/Dockerfile"), dockerfile).expect("the context is there");
        let mut command = kiln();
        command.arg("--root").arg(self.path(root)).args(["build", "--progress=plain", "-o"]);
        let place = self.0.path().display().to_string();
        let output = command.arg(output.replace("PLACE", &place)).arg(self.path("context")).output();
        output.expect("the program was built")
    }

    /// What a build said that must succeed.
    fn built(&self, root: &str, dockerfile: &str, output: &str) -> String {
        let built = self.build(root, dockerfile, output);
        assert!(built.status.success(), "{}", said(&built));
        said(&built)
    }

    /// How many layers of a state folder have a folder.
    fn folders(&self, root: &str) -> usize {
        fs::read_dir(self.path(root).join("layers")).expect("a state folder").count()
    }

    /// The digests of an archive's blobs.
    fn blobs(&self, archive: &str) -> Vec<String> {
        let listed = run("tar", &format!("-tf {}", self.path(archive).display()));
        let mut blobs: Vec<String> =
            listed.lines().filter(|line| line.contains("/sha256/")).map(str::to_owned).collect();
        blobs.sort();
        blobs
    }
}

/// The lines that a step wrote, without the clock.
fn listed(said: &str) -> Vec<String> {
    let lines = said.lines().filter_map(|line| line.split_once(" /src").map(|(_, rest)| rest.to_owned()));
    let mut lines: Vec<String> = lines.filter(|line| line.contains("20")).collect();
    lines.sort();
    lines
}

#[test]
fn a_copy_that_only_the_image_has_makes_no_folder() {
    let Some(place) = Place::new("a_copy_that_only_the_image_has_makes_no_folder") else { return };
    place.built("lazy", COPY, "type=oci,dest=PLACE/lazy.tar");
    assert_eq!(place.folders("lazy"), 0);
    let again = place.built("lazy", COPY, "type=oci,dest=PLACE/again.tar");
    assert_eq!(again.matches("CACHED").count(), 2, "{again}");
    assert_eq!(
        fs::read(place.path("lazy.tar")).expect("written"),
        fs::read(place.path("again.tar")).expect("written")
    );
    // With a folder first: the same layers.
    place.built("eager", COPY, "type=cacheonly");
    assert_eq!(place.folders("eager"), 2);
    place.built("eager", COPY, "type=oci,dest=PLACE/eager.tar");
    let (lazy, eager) = (place.blobs("lazy.tar"), place.blobs("eager.tar"));
    let shared = lazy.iter().filter(|blob| eager.contains(blob)).count();
    assert!(shared >= 2, "{lazy:?} and {eager:?} have both layers in common");
}

#[test]
fn a_step_finds_what_was_archived_as_it_was() {
    let Some(place) = Place::new("a_step_finds_what_was_archived_as_it_was") else { return };
    let with_step = format!("{COPY}{LIST}");
    let fresh = place.built("fresh", &with_step, "type=oci,dest=PLACE/fresh.tar");
    place.built("lazy", COPY, "type=oci,dest=PLACE/lazy.tar");
    let later = place.built("lazy", &with_step, "type=oci,dest=PLACE/later.tar");
    assert_eq!(later.matches("CACHED").count(), 2, "{later}");
    assert!(place.folders("lazy") >= 2, "the step's layers were made of their archives");
    let expected = listed(&fresh);
    assert!(expected.len() >= 6, "{fresh}");
    assert_eq!(listed(&later), expected, "names, modes and times to the nanosecond");
}

#[test]
fn a_file_named_as_a_whiteout_stays_a_file_for_the_next_step() {
    let Some(place) = Place::new("a_file_named_as_a_whiteout_stays_a_file_for_the_next_step") else { return };
    fs::write(place.path("context/src/.wh.text"), "no whiteout\n").expect("its folder is there");
    place.built("root", COPY, "type=oci,dest=PLACE/image.tar");
    let step = format!("{COPY}RUN [\"/bin/busybox\", \"cat\", \"/src/.wh.text\"]\n");
    let said = place.built("root", &step, "type=cacheonly");
    assert!(said.contains("no whiteout"), "{said}");
    assert_eq!(said.matches("CACHED").count(), 2, "{said}");
}

#[test]
fn a_build_whose_output_fails_leaves_nothing_that_is_believed_and_not_there() {
    let Some(place) = Place::new("a_build_whose_output_fails_leaves_nothing_that_is_believed_and_not_there")
    else {
        return;
    };
    let failed = place.build("root", COPY, "type=oci,dest=PLACE/context/busybox/image.tar");
    assert!(!failed.status.success());
    let step = format!("{COPY}{LIST}");
    let said = place.built("root", &step, "type=oci,dest=PLACE/image.tar");
    assert!(listed(&said).len() >= 6, "{said}");
}

#[test]
fn an_archive_that_the_disk_has_damaged_is_made_again() {
    let Some(place) = Place::new("an_archive_that_the_disk_has_damaged_is_made_again") else { return };
    place.built("root", COPY, "type=oci,dest=PLACE/image.tar");
    for blob in fs::read_dir(place.path("root/blobs/sha256")).expect("a state folder") {
        let path = blob.expect("listed").path();
        let mut bytes = fs::read(&path).expect("it was listed");
        // Of the archives, which are compressed: as long as before.
        if bytes.starts_with(&[0x1f, 0x8b]) {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x55;
            fs::write(&path, bytes).expect("it is ours");
        }
    }
    let step = format!("{COPY}{LIST}");
    // Each build finds one of the two damaged.
    let told = (0..3).map(|_| place.build("root", &step, "type=cacheonly")).find(|built| {
        let lost = said(built).contains("error[layer-lost]");
        assert!(lost || built.status.success(), "{}", said(built));
        built.status.success()
    });
    assert!(listed(&said(&told.expect("it was made again"))).len() >= 6);
}

/// Builds an image whose last layer is planned a second after the context was read, and changes the context meanwhile.
/// What was said, if the build failed.
fn edited(place: &Place, number: usize, edit: Edit) -> Option<String> {
    let wait = format!("RUN [\"/bin/busybox\", \"sleep\", \"1\", \"0.{number}\"]\n");
    let dockerfile = format!("FROM scratch\nCOPY busybox /bin/busybox\n{wait}COPY src /src\n");
    fs::write(place.path("context/Dockerfile"), dockerfile).expect("the context is there");
    let mut command = kiln();
    command.arg("--root").arg(place.path("root")).args(["build", "--progress=plain", "-o"]);
    command.arg(format!("type=oci,dest={}", place.path("image.tar").display())).arg(place.path("context"));
    let mut building = command.stderr(Stdio::piped()).spawn().expect("the program was built");
    let (mut said, mut edit) = (String::new(), Some(edit));
    for line in BufReader::new(building.stderr.take().expect("a pipe")).lines() {
        let line = line.expect("text");
        if line.contains("] RUN ") {
            edit.take().into_iter().for_each(|edit| edit(&place.path("context/src/edited")));
        }
        said.push_str(&line);
        said.push('\n');
    }
    (!building.wait().expect("it was started").success()).then_some(said)
}

#[test]
fn a_file_that_changes_before_it_is_archived_is_told_by_its_name() {
    let Some(place) = Place::new("a_file_that_changes_before_it_is_archived_is_told_by_its_name") else {
        return;
    };
    let edits: [(&str, Edit); 6] = [
        ("other bytes", |path| fs::write(path, "SOME BYTES").expect("written")),
        ("longer", |path| fs::write(path, "some bytes and more").expect("written")),
        ("gone", |path| fs::remove_file(path).expect("removed")),
        ("a folder", |path| {
            fs::remove_file(path).expect("removed");
            fs::create_dir(path).expect("made");
        }),
        ("a pipe", |path| {
            fs::remove_file(path).expect("removed");
            run("mkfifo", &path.display().to_string());
        }),
        ("a link", |path| {
            fs::rename(path, path.with_file_name("away")).expect("renamed");
            symlink("away", path).expect("linked");
        }),
    ];
    let path = place.path("context/src/edited");
    for (number, (what, edit)) in edits.into_iter().enumerate() {
        let _not_there = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
        fs::write(&path, "some bytes").expect("its folder is there");
        let said = edited(&place, number, edit).unwrap_or_else(|| panic!("{what}: it was built"));
        assert!(said.contains("`/src/edited` changed while the build was running"), "{what}: {said}");
    }
}
