//! A machine of its own: a home, a folder of system settings, and a program that sees nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;

use kiln_tests::machine;
use kiln_tests::program::{program, said};

/// The password of `ada`.
pub const PASSWORD: &str = "hunter2";

/// `ada:hunter2`, bcrypt of cost 5.
pub const HTPASSWD: &str = "ada:$2y$05$abcdefghijklmnopqrstuuoXuKqgZXLiJqzfmMXDDhSFPIvxV7t8.\n";

/// Says why a test cannot run here, and whether.
pub fn cannot(test: &str, programs: &[&str]) -> bool {
    let programs: Vec<String> = programs.iter().map(|program| format!("program:{program}")).collect();
    machine::cannot(
        &format!("registries::{test}"),
        ["steps", "busybox", "program:docker-registry"]
            .into_iter()
            .chain(programs.iter().map(String::as_str)),
    )
}

/// Folders `etc`, `home`, `run` and `context`, and everything that Kiln said.
pub struct Place {
    folder: tempfile::TempDir,
    said: Mutex<String>,
    variables: Vec<(String, String)>,
}

impl Place {
    pub fn new() -> Place {
        let folder =
            tempfile::Builder::new().prefix("kiln-registries-").tempdir().expect("a temporary folder");
        for name in ["etc", "home", "run", "context"] {
            fs::create_dir(folder.path().join(name)).expect("it is empty");
        }
        Place { folder, said: Mutex::default(), variables: Vec::new() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file in which `PLACE` is this place.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("below the place")).expect("made");
        fs::write(path, text.replace("PLACE", &self.folder.path().display().to_string())).expect("written");
    }

    /// Sets a variable for all that runs from now on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// Runs Kiln with the state folder `root` and words, where `PLACE` is this place, and `input` on standard input.
    pub fn kiln(&self, root: &str, words: &str, input: &str) -> Output {
        let place = self.folder.path().display().to_string();
        let mut command = Command::new(program());
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.path("home")).env("XDG_RUNTIME_DIR", self.path("run"));
        command.env("KILN_ETC", self.path("etc")).envs(self.variables.iter().cloned());
        command
            .arg("--root")
            .arg(self.path(root))
            .args(words.split(' ').map(|word| word.replace("PLACE", &place)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program was built");
        // One that does not read it may end before.
        let _unread = child.stdin.take().expect("it was asked for").write_all(input.as_bytes());
        let output = child.wait_with_output().expect("it ends");
        let mut said = self.said.lock().expect("no test panicked");
        said.push_str(&String::from_utf8_lossy(&output.stdout));
        said.push_str(&String::from_utf8_lossy(&output.stderr));
        output
    }

    /// As [`Place::kiln`], and it must succeed. What it wrote to standard output.
    pub fn done(&self, root: &str, words: &str) -> String {
        let output = self.kiln(root, words, "");
        assert!(output.status.success(), "kiln {words}: {}", said(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// As [`Place::done`]. What it wrote to standard error.
    pub fn told(&self, root: &str, words: &str) -> String {
        let output = self.kiln(root, words, "");
        assert!(output.status.success(), "kiln {words}: {}", said(&output));
        said(&output)
    }

    /// As [`Place::kiln`], and it must fail with status 1. What it wrote to standard error.
    pub fn fails(&self, root: &str, words: &str) -> String {
        let output = self.kiln(root, words, "");
        assert_eq!(output.status.code(), Some(1), "kiln {words}: {}", said(&output));
        said(&output)
    }

    /// `kiln login` as `ada`, with the password on standard input.
    pub fn log_in(&self, host: &str, password: &str) -> Output {
        self.kiln("a", &format!("login -u ada --password-stdin {host}"), &format!("{password}\n"))
    }

    /// An image in the state folder `a`, named for a host.
    pub fn build(&self, host: &str) -> String {
        self.write("context/Dockerfile", "FROM busybox\nRUN echo first > /said\n");
        let base = machine::base_argument().expect("the test asked for it");
        self.done("a", &format!("build -q --build-context {base} -t {host}/public/app:1 PLACE/context"))
    }

    /// Pushes an image from one state folder, and pulls it, builds from it and pushes that with another.
    pub fn round(&self, host: &str) {
        let digest = self.build(host);
        self.done("a", &format!("push -q {host}/public/app:1"));
        assert_eq!(self.done("b", &format!("pull -q {host}/public/app:1")), digest);
        self.write("context/Dockerfile", &format!("FROM {host}/public/app:1\nRUN cat /said > /again\n"));
        let built = self.done("c", &format!("build -q --pull --push -t {host}/team/built:1 PLACE/context"));
        assert_eq!(self.done("b", &format!("pull -q {host}/team/built:1")), built);
        assert_eq!(self.done("b", &format!("run {host}/team/built:1 cat /again")), "first");
        assert_eq!(self.done("b", &format!("tags {host}/team/built")), "1");
    }

    /// Nothing that Kiln said holds one of these texts.
    pub fn never_said<'a>(&self, secrets: impl IntoIterator<Item = &'a str>) {
        let said = self.said.lock().expect("no test panicked");
        for secret in secrets {
            assert!(!said.contains(secret), "a secret was said");
        }
    }

    /// No file below a folder of this place holds the text.
    pub fn never_written(&self, folder: &str, secret: &str) {
        let mut folders = vec![self.path(folder)];
        // A layer of busybox is one file with hundreds of names.
        let mut looked_at = BTreeSet::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a folder").flatten() {
                let path = entry.path();
                let found = fs::symlink_metadata(&path).expect("nobody removes it");
                if path.is_symlink() || !looked_at.insert(found.ino()) {
                    continue;
                }
                if path.is_dir() {
                    folders.push(path);
                } else if let Ok(bytes) = fs::read(&path) {
                    let text = String::from_utf8_lossy(&bytes);
                    assert!(!text.contains(secret), "{} holds it", path.display());
                }
            }
        }
    }
}

/// A certificate authority, a certificate for 127.0.0.1 and one for a client, both signed by it.
pub fn certificates(folder: &Path) {
    let openssl = |words: &str| {
        kiln_tests::token::openssl(folder, words, b"").expect("it is there");
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("req -x509 {key} -keyout ca.key -out ca.crt -subj /CN=test-ca -days 2"));
    for (name, extension) in
        [("server", "subjectAltName=IP:127.0.0.1"), ("client", "extendedKeyUsage=clientAuth")]
    {
        fs::write(folder.join("extension"), extension).expect("written");
        openssl(&format!("req {key} -keyout {name}.key -out {name}.csr -subj /CN={name}"));
        openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out {name}.cert -days 2 -extfile extension"
        ));
    }
}
