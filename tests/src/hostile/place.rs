//! A place where Kiln meets something hostile, and what it may have done there.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use super::{Hostile, image::Content};
use crate::program::kiln;

/// The most memory that a command may take. A debug build that pulls a small image takes 40 MiB; what an archive's reader,
/// a hasher and an unpacker hold is 10 MiB of chunks and buffers; a manifest of the longest kind, read, 30 MiB.
pub const MOST_KIBIBYTES: u64 = 200 << 10;

/// The longest that a command may take.
pub const MOST_SECONDS: u64 = 60;

/// A folder with a state folder, a context, and files around them that nobody may touch.
pub struct Place {
    folder: tempfile::TempDir,
    before: BTreeMap<PathBuf, String>,
    /// The registry.
    pub registry: Hostile,
    /// Variables that commands are given.
    pub env: Vec<(&'static str, String)>,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// Its words.
    pub words: String,
    /// The exit status; none where it was killed for taking too long.
    pub status: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// The most memory that it had, in KiB; 0 where it ended before anybody looked.
    pub kibibytes: u64,
}

impl Place {
    /// An empty state folder, and a registry without content.
    ///
    /// # Panics
    /// Where no folder can be made.
    pub fn new() -> Place {
        let folder = tempfile::Builder::new().prefix("kiln-hostile-").tempdir().expect("a temporary folder");
        let path = |name: &str| folder.path().join(name);
        for name in ["context", "docker", "outside", "outside/folder"] {
            fs::create_dir(path(name)).expect("its parent is there");
        }
        for name in ["canary", "outside/file", "outside/folder/file", "context/file"] {
            fs::write(path(name), "untouched\n").expect("its parent is there");
        }
        let registry = Hostile::start().expect("a free port");
        let host = registry.host();
        fs::write(path("context/Dockerfile"), format!("FROM {host}/evil:1\nRUN [\"/x\"]\n"))
            .expect("written");
        fs::write(path("context/of-layout"), "FROM evil\nRUN [\"/x\"]\n").expect("written");
        let before = snapshot(folder.path());
        Place { folder, before, registry, env: Vec::new() }
    }

    /// A path in it. `root` is the state folder, `layout` and `work` are nobody's; all else may not change.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The name of the image.
    pub fn image(&self) -> String {
        format!("{}/evil:1", self.registry.host())
    }

    /// Makes the registry have this, and nothing else.
    pub fn serve(&self, content: &Content) {
        let content = content.clone();
        self.registry.answer_with(move |asked| content.answer(asked));
    }

    /// Takes for the surroundings what is there now.
    pub fn settle(&mut self) {
        self.before = snapshot(self.folder.path());
    }

    /// Runs Kiln with words, where `PLACE` is this place and `IMAGE` the image, and waits.
    ///
    /// # Panics
    /// Where the program cannot be started.
    pub fn kiln(&self, words: &str) -> Ended {
        let place = self.folder.path().display().to_string();
        let mut command = kiln();
        command.arg("--root").arg(self.path("root")).env("DOCKER_CONFIG", self.path("docker"));
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        let word = |word: &str| word.replace("PLACE", &place).replace("IMAGE", &self.image());
        command.args(words.split(' ').map(word)).stdin(Stdio::null());
        let (out, err) = (tempfile::tempfile().expect("a file"), tempfile::tempfile().expect("a file"));
        let shared = |file: &fs::File| file.try_clone().expect("an open file");
        let mut child = command.stdout(shared(&out)).stderr(shared(&err)).spawn().expect("it was built");
        let (started, mut kibibytes) = (Instant::now(), 0);
        let status = loop {
            // The high-water mark only grows: what is read last counts.
            kibibytes = most_kibibytes(child.id()).unwrap_or(kibibytes);
            match child.try_wait().expect("it is ours") {
                Some(status) => break status.code(),
                None if started.elapsed() > Duration::from_secs(MOST_SECONDS) => {
                    child.kill().and_then(|()| child.wait()).expect("it is ours");
                    break None;
                }
                None => thread::sleep(Duration::from_millis(3)),
            }
        };
        Ended { words: words.to_owned(), status, stdout: text(out), stderr: text(err), kibibytes }
    }

    /// A command that must fail with an error that has one of these words, and leave nothing behind but in the state folder.
    ///
    /// # Panics
    /// Where it did something else.
    pub fn refuses(&self, case: &str, words: &str, says: &[&str]) -> Ended {
        let ended = self.kiln(words);
        let shown = format!("{case}: {ended:#?}");
        assert_eq!(ended.status, Some(1), "{shown}");
        assert!(says.iter().any(|said| ended.stderr.contains(said)), "none of {says:?} is said:\n{shown}");
        self.harmless(case, &ended);
        let listed = self.kiln("images -q");
        assert_eq!((listed.status, listed.stdout.as_str()), (Some(0), ""), "something is listed:\n{shown}");
        ended
    }

    /// What holds however a command ends: it took little, said nothing that turns a terminal, touched nothing.
    ///
    /// # Panics
    /// Where it did something else.
    pub fn harmless(&self, case: &str, ended: &Ended) {
        let shown = format!("{case}: {ended:#?}");
        assert!(ended.kibibytes < MOST_KIBIBYTES, "too much memory:\n{shown}");
        assert!(!ended.stderr.contains("panicked"), "{shown}");
        for said in [&ended.stdout, &ended.stderr] {
            let order = |c: char| {
                (c.is_control() && c != '\n' && c != '\t') || ('\u{202a}'..='\u{202e}').contains(&c)
            };
            assert!(!said.contains(order), "a terminal would obey:\n{shown}");
            assert!(said.len() < 20_000, "too much is said:\n{shown}");
        }
        let after = snapshot(self.folder.path());
        assert_eq!(after, self.before, "something outside the state folder changed:\n{shown}");
    }
}

impl Default for Place {
    fn default() -> Place {
        Place::new()
    }
}

/// `VmHWM` of a process that runs; the name of a zombie's file is there, and nothing in it.
fn most_kibibytes(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

fn text(mut file: fs::File) -> String {
    use std::io::{Read, Seek};
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("it was just written");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// All that stands around the state folder, with mode, owner and content; and the names of the folder above.
fn snapshot(place: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![place.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("it is a folder") {
            let path = entry.expect("it can be read").path();
            if folder == place && ["root", "layout", "work"].iter().any(|name| path.ends_with(name)) {
                continue;
            }
            let metadata = fs::symlink_metadata(&path).expect("it was just listed");
            let content = match metadata.is_file() {
                true => fs::read_to_string(&path).expect("it is a text"),
                false => String::new(),
            };
            found.insert(
                path.clone(),
                format!(
                    "{:o} {}:{} {} {content}",
                    metadata.mode(),
                    metadata.uid(),
                    metadata.gid(),
                    metadata.nlink()
                ),
            );
            if metadata.is_dir() {
                folders.push(path);
            }
        }
    }
    found
}
