//! A folder with an image of random bytes, state folders, and what can be asked of them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use kiln_tests::{
    machine,
    program::{kiln, said},
    registry::Registry,
};
use oci::{Digest, Hasher};

/// Settings under which what fails does not take long.
fn settings(idle_seconds: u32) -> String {
    format!(
        "[transfer]\nconnect_seconds = {idle_seconds}\nidle_seconds = {idle_seconds}\nretries = 3\n\
         first_wait_seconds = 0.02\nlongest_wait_seconds = 2\npart_mib = 1\n"
    )
}

/// Says why a test cannot run here, and whether.
pub fn cannot(test: &str) -> bool {
    machine::cannot(test, ["steps", "program:docker-registry", "program:skopeo"])
}

/// A folder of a test.
pub struct Place(tempfile::TempDir);

impl Place {
    /// With a context whose Dockerfile makes `layers` layers of random bytes, so many each.
    pub fn new(layers: usize, bytes: usize) -> Place {
        let place =
            Place(tempfile::Builder::new().prefix("kiln-wire-").tempdir().expect("a temporary folder"));
        fs::create_dir(place.path("context")).expect("it is empty");
        let mut dockerfile = "FROM scratch\n".to_owned();
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for layer in 0..layers {
            fs::write(place.path(&format!("context/{layer}")), random.bytes(bytes)).expect("written");
            dockerfile += &format!("COPY {layer} /\n");
        }
        fs::write(place.path("context/Dockerfile"), dockerfile).expect("written");
        place.wait_for(30);
        place
    }

    /// From now on a silent registry is waited for so long. A busy machine is silent, too.
    pub fn wait_for(&self, idle_seconds: u32) {
        fs::write(self.path("registries.toml"), settings(idle_seconds)).expect("written");
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Kiln with the state folder `root` and words, where `PLACE` is this place.
    pub fn command(&self, root: &str, words: &str) -> Command {
        let place = self.0.path().display().to_string();
        let mut command = kiln();
        command.arg("--root").arg(self.path(root)).env("DOCKER_CONFIG", self.path("docker"));
        // The same image whenever it is built.
        command.env("SOURCE_DATE_EPOCH", "0");
        command.env("KILN_REGISTRIES", self.path("registries.toml"));
        command.args(words.split(' ').map(|word| word.replace("PLACE", &place)));
        command.stdin(Stdio::null());
        command
    }

    /// Runs it.
    pub fn kiln(&self, root: &str, words: &str) -> Output {
        self.command(root, words).output().expect("the program was built")
    }

    /// Starts it, to be killed.
    pub fn start(&self, root: &str, words: &str) -> Child {
        let mut command = self.command(root, words);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program was built")
    }

    /// Runs it, and it must succeed. What it wrote to standard output.
    pub fn done(&self, root: &str, words: &str) -> String {
        let output = self.kiln(root, words);
        assert!(output.status.success(), "kiln {words}: {}", said(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The blobs of the OCI archive of an image, each compared with its name.
    pub fn exported(&self, root: &str, image: &str) -> Vec<String> {
        let folder = self.path("exported");
        self.done(root, &format!("save --format oci -o PLACE/exported.tar {image}"));
        let archive = fs::File::open(self.path("exported.tar")).expect("it was made");
        tar::Archive::new(archive).unpack(&folder).expect("it is an archive");
        check_blobs(&folder);
        let blobs = fs::read_dir(folder.join("blobs/sha256")).expect("a layout has blobs").flatten();
        let mut blobs: Vec<String> =
            blobs.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        blobs.sort();
        fs::remove_dir_all(folder).expect("it was just made");
        blobs
    }

    /// Bytes of all unfinished downloads of a state folder.
    pub fn partial_bytes(&self, root: &str) -> u64 {
        bytes_below(&self.path(root).join("partial"))
    }

    /// Bytes of all blobs and unfinished downloads of a state folder.
    pub fn kept_bytes(&self, root: &str) -> u64 {
        self.partial_bytes(root) + bytes_below(&self.path(root).join("blobs"))
    }

    /// Bytes of what is being unpacked in a state folder.
    pub fn unpacked_bytes(&self, root: &str) -> u64 {
        bytes_below(&self.path(root).join("tmp"))
    }

    /// Compares the blobs of a state folder with their names.
    pub fn check_blobs(&self, root: &str) {
        check_blobs(&self.path(root).join("blobs"));
    }
}

fn bytes_below(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = |path: PathBuf| match path.is_dir() {
        true => bytes_below(&path),
        false => path.metadata().map_or(0, |file| file.len()),
    };
    entries.map(|entry| bytes(entry.path())).sum()
}

/// Compares each file below a folder that is named by a digest with its name.
pub fn check_blobs(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            check_blobs(&path);
            continue;
        }
        // A registry calls each `data` in a folder of that name.
        let named = if path.ends_with("data") { path.parent().expect("it has one") } else { &path };
        let name = named.file_name().expect("it has one").to_string_lossy().into_owned();
        if name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit()) {
            assert_eq!(digest_of(&path).hex(), name, "{} holds something else", path.display());
        }
    }
}

fn digest_of(path: &Path) -> Digest {
    let mut hasher = Hasher::new();
    hasher.update(&fs::read(path).expect("it is there"));
    hasher.finish()
}

/// The digest that a name has in a registry, by skopeo, which also reads and checks all blobs of it.
pub fn digest_there(registry: &Registry, name: &str) -> Option<String> {
    let address = format!("docker://{}/{name}", registry.address());
    let skopeo = |words: &[&str]| Command::new("skopeo").args(words).output().expect("it is installed");
    let raw = skopeo(&["inspect", "--tls-verify=false", "--raw", &address]);
    if !raw.status.success() {
        return None;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let to = format!("dir:{}", folder.path().display());
    let copied = skopeo(&["copy", "-q", "--src-tls-verify=false", &address, &to]);
    assert!(copied.status.success(), "{name} is there and broken: {}", said(&copied));
    Some(Digest::of(&raw.stdout).to_string())
}

/// Waits for something that comes soon.
pub fn wait(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < Duration::from_secs(120), "{what} did not come");
        sleep(Duration::from_millis(5));
    }
}

/// Bytes that nothing can compress: xorshift64.
struct Random(u64);

impl Random {
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            bytes.extend_from_slice(&self.0.to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}
