//! Docker's own registry as a process, and the programs that fill it.

use std::{
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use oci::Reference;
use tempfile::TempDir;

/// `ada:hunter2`, bcrypt of cost 5.
pub const HTPASSWD: &str = "ada:$2y$05$abcdefghijklmnopqrstuuoXuKqgZXLiJqzfmMXDDhSFPIvxV7t8.\n";

/// Whether the programs are there; says which is not.
pub fn installed(programs: &[&str]) -> bool {
    let missing = |program: &&&str| {
        Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err()
    };
    match programs.iter().find(missing) {
        Some(program) => {
            eprintln!("skipped: `{program}` is not installed");
            false
        }
        None => true,
    }
}

pub fn run(program: &str, folder: &Path, arguments: &[&str]) {
    let output = Command::new(program).current_dir(folder).args(arguments).output().expect(program);
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A registry that ends with this value.
pub struct Registry {
    pub host: String,
    pub folder: TempDir,
    process: Child,
}

impl Registry {
    /// Starts it with further lines of configuration; `FOLDER` in them is its folder, which `prepare` may fill.
    pub fn start(http: &str, more: &str, prepare: impl FnOnce(&Path)) -> Registry {
        let folder = tempfile::tempdir().expect("a folder");
        prepare(folder.path());
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let host = free.local_addr().expect("an address").to_string();
        drop(free);
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: FOLDER/data}}}}\nhttp:\n  addr: {host}\n{http}\n{more}\n"
        );
        let text = text.replace("FOLDER", folder.path().to_str().expect("UTF-8"));
        let config = folder.path().join("config.yml");
        std::fs::write(&config, text).expect("written");
        let log = std::fs::File::create(folder.path().join("log")).expect("created");
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("it starts");
        let registry = Registry { host, folder, process };
        registry.wait();
        registry
    }

    fn wait(&self) {
        for _ in 0..200 {
            if TcpStream::connect(&self.host).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        panic!("docker-registry does not listen on {}: {log}", self.host);
    }

    pub fn push(&self, layout: &Path, tag: &str, options: &[&str]) {
        let (from, to) =
            (format!("oci:{}:all", layout.display()), format!("docker://{}/app:{tag}", self.host));
        let mut arguments = vec!["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"];
        arguments.extend(options);
        arguments.extend([from.as_str(), to.as_str()]);
        run("skopeo", self.folder.path(), &arguments);
    }

    pub fn reference(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.host).parse().expect("a reference")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
