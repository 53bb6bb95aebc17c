//! A registry on this machine, as long as a value lives.

use std::fs;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Debian's docker-registry on a free loopback port; stopped when dropped.
pub struct Registry {
    server: Child,
    address: String,
    folder: tempfile::TempDir,
}

impl Registry {
    /// Starts one without content.
    ///
    /// # Errors
    /// It cannot be started, or does not answer within ten seconds.
    pub fn start() -> io::Result<Registry> {
        Registry::start_with("", &[])
    }

    /// Starts one with further lines of configuration, in which `FOLDER` is its folder, and files in that folder.
    ///
    /// # Errors
    /// As [`Registry::start`].
    pub fn start_with(lines: &str, files: &[(&str, &str)]) -> io::Result<Registry> {
        Registry::start_as("", lines, files)
    }

    /// Starts one with further settings of how it speaks, `tls: {…}`, besides lines and files as [`Registry::start_with`]
    /// takes them.
    ///
    /// # Errors
    /// As [`Registry::start`].
    pub fn start_as(http: &str, lines: &str, files: &[(&str, &str)]) -> io::Result<Registry> {
        let folder = tempfile::tempdir()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = format!("127.0.0.1:{port}");
        let data = folder.path().join("data");
        let settings = folder.path().join("config.yml");
        fs::write(
            &settings,
            format!(
                "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: {address}, {http}}}\n{}\n",
                data.display(),
                lines.replace("FOLDER", &folder.path().display().to_string())
            ),
        )?;
        for (name, text) in files {
            fs::write(folder.path().join(name), text)?;
        }
        let log = fs::File::create(folder.path().join("log"))?;
        let server = Command::new("docker-registry")
            .arg("serve")
            .arg(&settings)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let registry = Registry { server, address, folder };
        let started = Instant::now();
        while TcpStream::connect(&registry.address).is_err() {
            if started.elapsed() > Duration::from_secs(10) {
                let log = fs::read_to_string(registry.folder.path().join("log"))?;
                return Err(io::Error::other(format!("docker-registry does not answer: {log}")));
            }
            sleep(Duration::from_millis(20));
        }
        Ok(registry)
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where it keeps what it has.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Copies `reference` of the OCI layout to `repository:tag` of this registry, with skopeo.
    ///
    /// # Errors
    /// What skopeo said.
    pub fn push(&self, layout: &Path, reference: &str, repository_and_tag: &str) -> io::Result<()> {
        let copied = Command::new("skopeo")
            .args(["copy", "-q", "--dest-tls-verify=false"])
            .arg(format!("oci:{}:{reference}", layout.display()))
            .arg(format!("docker://{}/{repository_and_tag}", self.address))
            .output()?;
        if copied.status.success() {
            return Ok(());
        }
        Err(io::Error::other(format!("skopeo copy: {}", String::from_utf8_lossy(&copied.stderr))))
    }

    /// Writes Kiln's registry settings in which this registry is docker.io's mirror, and returns their path.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn settings_as_docker_io(&self) -> io::Result<PathBuf> {
        let path = self.folder.path().join("registries.toml");
        fs::write(&path, format!("[registry.\"docker.io\"]\nmirrors = [\"http://{}\"]\n", self.address))?;
        Ok(path)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself; either way nothing more can be done here.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
