//! A folder of the user's, with a context, and room for a state folder and outputs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use kiln_tests::image::Image;
use kiln_tests::machine;
use kiln_tests::mode::TestMode;
use kiln_tests::program::{kiln_in, said};

/// Starts the rest of its words in a user namespace with all ids of the machine's, in which no other can be made.
const NO_NAMESPACES: &str = r#"
import ctypes, os, sys
asked, answered = os.pipe(), os.pipe()
this = os.getpid()
if os.fork() == 0:
    os.read(asked[0], 1)
    for name in ("uid_map", "gid_map"):
        open(f"/proc/{this}/{name}", "w").write("0 0 4294967295")
    os.write(answered[1], b"x")
    os._exit(0)
if ctypes.CDLL(None).unshare(0x10000000) != 0:
    sys.exit("unshare")
os.write(asked[1], b"x")
os.read(answered[0], 1)
os.wait()
open("/proc/sys/user/max_user_namespaces", "w").write("0")
os.execvp(sys.argv[1], sys.argv[1:])
"#;

/// What [`Place::kiln`] puts for `{no-namespaces}`.
const START_IT: &str = "before='python3 {place}/no-namespaces.py'";

/// A folder of the user's.
pub struct Place {
    folder: tempfile::TempDir,
    /// How Kiln is started.
    pub mode: TestMode,
    /// A word that no other process has on its command line; `{marker}` in the Dockerfile.
    pub marker: String,
}

impl Place {
    /// With a context of a Dockerfile.
    pub fn new(mode: TestMode, dockerfile: &str) -> Place {
        let folder = tempfile::Builder::new().prefix("kiln-rootless-").tempdir().expect("a folder");
        let name = folder.path().file_name().expect("made with a name").display().to_string();
        let place = Place { folder, mode, marker: format!("marker-{name}") };
        for name in ["context", "out", "mount"] {
            fs::create_dir(place.at(name)).expect("its parent is empty");
        }
        fs::write(place.at("context/Dockerfile"), dockerfile.replace("{marker}", &place.marker))
            .expect("it can be written");
        fs::write(place.at("no-namespaces.py"), NO_NAMESPACES).expect("it can be written");
        mode.own(place.folder.path()).expect("root gives away what is root's");
        place
    }

    /// A path in it.
    pub fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// The state folder, unless one is named.
    pub fn root(&self) -> PathBuf {
        self.at("root")
    }

    /// `kiln` with this state folder, on a machine that `change` has changed: `{place}` in it is this folder, and
    /// `{no-namespaces}` takes user namespaces away.
    pub fn kiln(&self, root: &Path, change: &str, arguments: &[&str]) -> Command {
        let change = change
            .replace("{no-namespaces}", START_IT)
            .replace("{place}", &self.folder.path().display().to_string());
        let mut command = kiln_in(self.mode, &change);
        command.arg("--root").arg(root).args(arguments).stdin(Stdio::null());
        command.env("SOURCE_DATE_EPOCH", "1700000000");
        command
    }

    /// Runs it on the machine as it is.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.kiln(&self.root(), "", arguments).output().expect("it can be started")
    }

    /// Runs it, which must succeed; what it wrote to standard output.
    pub fn output(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{:?}: {arguments:?}:\n{}", self.mode, said(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// `kiln build` with these flags.
    pub fn build(&self, root: &Path, change: &str, flags: &[&str]) -> Command {
        let base = machine::base_argument().expect("the test asked for it");
        let mut command = self.kiln(root, change, &["build", "--progress=plain", "--build-context", &base]);
        command.args(flags).arg(self.at("context"));
        command
    }

    /// Builds an archive, which must succeed. The digest of its manifest, and what was said.
    pub fn built(&self, root: &Path, change: &str, flags: &[&str]) -> (String, String) {
        let out = format!("type=oci,rewrite-timestamp=true,dest={}", self.at("out/image.tar").display());
        let flags = [flags, &["-o", &out]].concat();
        let output = self.build(root, change, &flags).output().expect("it can be started");
        assert!(output.status.success(), "{:?}: {change}:\n{}", self.mode, said(&output));
        let image = Image::read(&self.at("out/image.tar")).expect("an image");
        (image.manifest.to_string(), said(&output))
    }
}

/// The digest that root's build of a Dockerfile has.
pub fn of_root(dockerfile: &str) -> String {
    let place = Place::new(TestMode::Root, dockerfile);
    place.built(&place.root(), "", &[]).0
}
