//! A layer that is much like an earlier one is made of the earlier one's blocks, and is the same as if there had been none.

use std::{fs, path::PathBuf};

use kiln_tests::{
    machine,
    program::{kiln, run, said},
};

/// Words and numbers, which compress to about half.
fn text(mut seed: u64, length: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(length + 32);
    while text.len() < length {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.extend_from_slice(format!("layer {:x}\n", seed >> 32).as_bytes());
    }
    text.truncate(length);
    text
}

struct Place(tempfile::TempDir);

impl Place {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The digests of the blobs that a build gave.
    fn build(&self, root: &str, codec: &str) -> Vec<String> {
        let mut command = kiln();
        command.env("SOURCE_DATE_EPOCH", "1000").arg("--root").arg(self.path(root));
        let output = format!("type=oci,dest={},compression={codec}", self.path("out.tar").display());
        let built = command.args(["build", "-o", &output]).arg(self.path("context")).output();
        let built = built.expect("the program was built");
        assert!(built.status.success(), "{}", said(&built));
        let listed = run("tar", &format!("-tf {}", self.path("out.tar").display()));
        let mut blobs: Vec<String> =
            listed.lines().filter(|line| line.contains("/sha256/")).map(str::to_owned).collect();
        blobs.sort();
        blobs
    }

    /// The files of a folder of the state folder.
    fn files(&self, root: &str, folder: &str) -> Vec<PathBuf> {
        let found = fs::read_dir(self.path(root).join(folder)).expect("a folder of the state folder");
        found.map(|entry| entry.expect("listed").path()).collect()
    }
}

#[test]
fn an_edited_layer_is_that_of_a_build_from_nothing() {
    let test = "reuse::an_edited_layer_is_that_of_a_build_from_nothing";
    if machine::cannot(test, ["steps", "program:tar"]) {
        return;
    }
    let folder = tempfile::Builder::new().prefix("kiln-reuse-").tempdir().expect("a temporary folder");
    let place = Place(folder);
    let files = place.path("context/files");
    fs::create_dir_all(&files).expect("an empty place");
    fs::write(place.path("context/Dockerfile"), "FROM scratch\nCOPY files /files\n").expect("written");
    for at in 0..200 {
        fs::write(files.join(format!("{at:03}")), text(at, 20_000)).expect("written");
    }
    fs::write(files.join("large"), text(1000, 3_000_000)).expect("written");
    for codec in ["gzip", "zstd"] {
        place.build("kept", codec);
    }
    assert_eq!(place.files("kept", "blocks").len(), 2, "one list for each blob of several blocks");

    fs::write(files.join("100"), text(7, 21_000)).expect("written");
    let from_nothing = place.build("new-1", "gzip");
    assert_eq!(place.build("kept", "gzip"), from_nothing);
    assert_eq!(place.build("kept", "zstd"), place.build("new-1", "zstd"));

    // Whatever became of lists and blobs, what is made is right.
    for (at, path) in place.files("kept", "blocks").into_iter().enumerate() {
        let mut list = fs::read(&path).expect("a list");
        let middle = list.len() / 2;
        match at {
            0 => list.truncate(middle),
            1 => list[middle] ^= 1,
            _ => continue,
        }
        fs::write(&path, list).expect("written");
    }
    for path in place.files("kept", "blobs/sha256") {
        let mut blob = fs::read(&path).expect("a blob");
        if blob.len() > 1_000_000 {
            let zeros = blob.len() / 4..blob.len() / 2;
            blob[zeros].fill(0);
            fs::write(&path, blob).expect("written");
        }
    }
    fs::write(files.join("large"), text(1000, 2_999_999)).expect("written");
    for codec in ["gzip", "zstd"] {
        assert_eq!(place.build("kept", codec), place.build("new-2", codec), "{codec}");
    }
}
