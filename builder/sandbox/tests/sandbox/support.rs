//! A busybox root, a step in it, and what came out.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use sandbox::emulate::Emulation;
use sandbox::userns::{Asked, enter};
use sandbox::{
    CapabilitySet, Error, Kernel, Mode, Mount, MountKind, Network, Report, Rootfs, Running, Spec, Status,
    Stdio, User, Wish, Writable, Zygote, start_on,
};
use tempfile::TempDir;

const BUSYBOX: &str = "/bin/busybox";
const APPLETS: [&str; 35] = [
    "sh", "cat", "ls", "id", "grep", "wc", "echo", "sleep", "mkdir", "touch", "ps", "env", "hostname", "ip",
    "stat", "dd", "kill", "mount", "true", "false", "pwd", "rm", "ln", "readlink", "tty", "stty", "nohup",
    "head", "awk", "test", "chmod", "sync", "mknod", "mv", "tr",
];

/// A step that is about to run, in a folder of its own.
pub struct Step {
    pub folder: TempDir,
    pub spec: Spec,
    pub kernel: Kernel,
    /// What clones it; if none, the test does.
    pub zygote: Option<Arc<Zygote>>,
}

/// What a step wrote, and how it ended.
pub struct Outcome {
    pub stdout: String,
    pub stderr: String,
    pub report: Report,
}

impl Step {
    /// A step with a busybox layer; `None`, after printing why, on a machine that cannot run one.
    pub fn new() -> Option<Step> {
        let test = this_test();
        if !rustix::process::geteuid().is_root() {
            println!("SKIP {test}: needs root: it is run in no user namespace");
            return None;
        }
        if !Path::new(BUSYBOX).exists() {
            println!("SKIP {test}: needs a static {BUSYBOX}");
            return None;
        }
        let mode = mode();
        let folder = tempfile::tempdir().expect("there is room for a folder");
        for name in ["base/bin", "base/etc", "base/tmp", "upper", "work", "empty"] {
            fs::create_dir_all(folder.path().join(name)).expect("the folder is new");
        }
        let base = folder.path().join("base");
        fs::copy(BUSYBOX, base.join("bin/busybox")).expect("busybox can be read");
        for applet in APPLETS {
            symlink("busybox", base.join("bin").join(applet)).expect("the link is new");
        }
        let at = |name: &str| folder.path().join(name);
        let spec = Spec {
            mode,
            rootfs: Rootfs::Overlay {
                lowers: vec![base],
                writable: Writable { upper: at("upper"), work: at("work") },
            },
            empty: at("empty"),
            readonly_root: false,
            mounts: vec![],
            argv: vec![],
            env: vec![("PATH".into(), "/bin".into())],
            secret_env: Vec::new(),
            cwd: "/".into(),
            user: User::default(),
            hostname: "buildkitsandbox".into(),
            network: Network::Host,
            capabilities: CapabilitySet::docker_default(),
            protect_kernel_paths: true,
            filter_calls: true,
            shm_size_bytes: Spec::DEFAULT_SHM_SIZE_BYTES,
            limits: vec![],
            groups: vec![],
            emulation: (mode == Mode::SINGLE).then(emulation),
        };
        Some(Step { folder, spec, kernel: *Kernel::get(), zygote: None })
    }

    /// As [`Step::new`], but in these modes of a user's.
    pub fn but_in(modes: &[Mode], why: &str) -> Option<Step> {
        let step = Step::new()?;
        if modes.contains(&step.spec.mode) {
            let test = this_test();
            println!("SKIP {test}: needs root: {why}");
            return None;
        }
        Some(step)
    }

    /// A path in the step's folder.
    pub fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Writes a file in the step's folder, and folders to hold it.
    pub fn write(&self, path: &str, content: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().expect("it is below the folder")).expect("the folder can be made");
        fs::write(path, content).expect("the file can be written");
    }

    /// The layers below, top first.
    pub fn lowers(&mut self) -> &mut Vec<PathBuf> {
        match &mut self.spec.rootfs {
            Rootfs::Overlay { lowers, .. } => lowers,
            Rootfs::Directory { .. } => panic!("the root is no overlay"),
        }
    }

    /// Adds a mount.
    pub fn mount(&mut self, target: &str, kind: MountKind) {
        self.spec.mounts.push(Mount { target: target.into(), kind });
    }

    /// Adds a bind mount of a path in the step's folder.
    pub fn bind(&mut self, target: &str, path: &str, readonly: bool) {
        let kind = MountKind::Bind { root: self.folder.path().into(), path: path.into(), readonly };
        self.mount(target, kind);
    }

    /// Makes the command `sh -c script`.
    pub fn script(&mut self, script: &str) -> &mut Step {
        self.spec.argv = vec!["sh".into(), "-c".into(), script.into()];
        self
    }

    /// Starts with an empty input, and files for the output.
    pub fn start(&self) -> Result<(Running, File, File), Error> {
        let out = tempfile::tempfile().expect("there is room for a file");
        let err = tempfile::tempfile().expect("there is room for a file");
        let stdio = Stdio::Streams {
            stdin: None,
            stdout: out.try_clone().expect("there are descriptors").into(),
            stderr: err.try_clone().expect("there are descriptors").into(),
        };
        let running = match &self.zygote {
            Some(zygote) => zygote.start(&self.spec, stdio),
            None => start_on(&self.spec, stdio, &self.kernel),
        };
        Ok((running?, out, err))
    }

    /// Runs a script to its end.
    pub fn run(&mut self, script: &str) -> Outcome {
        self.script(script).finish()
    }

    /// Runs the command to its end.
    pub fn finish(&self) -> Outcome {
        let (running, out, err) = self.start().unwrap_or_else(|error| panic!("{}", chain(&error)));
        let report = running.wait().expect("the step can be waited for");
        Outcome { stdout: text(out), stderr: text(err), report }
    }

    /// The output of a script that must succeed.
    pub fn output(&mut self, script: &str) -> String {
        let outcome = self.run(script);
        assert_eq!(outcome.report.status, Status::Exited(0), "{script}: {}", outcome.stderr);
        outcome.stdout
    }

    /// Gives the next run folders of its own to write to.
    pub fn renew(&mut self) {
        for name in ["upper", "work"] {
            fs::remove_dir_all(self.at(name)).expect("nothing is mounted there");
            fs::create_dir(self.at(name)).expect("it is gone");
        }
    }

    /// Everything below the upper folder, sorted.
    pub fn upper(&self) -> Vec<String> {
        fn walk(folder: &Path, top: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(folder).expect("it is a folder") {
                let path = entry.expect("it can be read").path();
                found.push(path.strip_prefix(top).expect("it is below").display().to_string());
                if path.symlink_metadata().expect("it is there").is_dir() {
                    walk(&path, top, found);
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.at("upper"), &self.at("upper"), &mut found);
        found.sort();
        found
    }
}

/// The name of the test that runs; the other programs have no threads for theirs.
fn this_test() -> String {
    let name = std::thread::current().name().filter(|name| *name != "main").map(str::to_owned);
    name.unwrap_or_else(|| "zygote".to_owned())
}

/// The mode that Kiln takes here: in a user namespace that somebody made for this process (`tests/user.sh`) that of a user.
pub fn mode() -> Mode {
    static MODE: OnceLock<Mode> = OnceLock::new();
    *MODE.get_or_init(|| {
        let root = std::env::temp_dir().join(format!("kiln-sandbox-{}", std::process::id()));
        let asked = Asked { wish: Wish::default(), recorded: None, root, user: None };
        enter(&asked).unwrap_or_else(|lack| panic!("{lack}: {:?}", lack.fix())).mode
    })
}

/// What owners are emulated by, of an image in which all is root's.
fn emulation() -> Emulation {
    Emulation { owners: Arc::new(()), records: Arc::default(), mounts: Default::default() }
}

/// An error with its causes, as the command line prints it.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// What was written to a file.
pub fn text(mut file: File) -> String {
    let mut text = String::new();
    file.rewind().expect("it is a file");
    file.read_to_string(&mut text).expect("it is UTF-8");
    text
}
