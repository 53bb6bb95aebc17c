//! The local machine as the engine's client, and the only place that asks for the environment and the time.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, Read},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use engine::{Client, Clock, Surroundings, Time};

use crate::flags::SecretSource;

/// Contexts, secrets and agents of this machine.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Folders by context name.
    pub contexts: BTreeMap<String, PathBuf>,
    /// The beginning of the archive on standard input, where that is the main context.
    pub archive: Option<Vec<u8>>,
    /// Secrets by id.
    pub secrets: BTreeMap<String, SecretSource>,
    /// Sockets by id.
    pub agents: BTreeMap<String, PathBuf>,
}

impl Client for Machine {
    fn context(&self, name: &str) -> io::Result<Option<PathBuf>> {
        match self.contexts.get(name) {
            Some(folder) => fs::canonicalize(folder).map(Some),
            None if name == "context" => Ok(None),
            None => Err(io::Error::other("nobody named it")),
        }
    }

    fn archive(&self) -> io::Result<Box<dyn Read + Send>> {
        let start = self.archive.clone().ok_or_else(|| io::Error::other("there is no archive"))?;
        Ok(Box::new(io::Cursor::new(start).chain(io::stdin())))
    }

    fn secret(&self, id: &str) -> io::Result<Option<Vec<u8>>> {
        use std::os::unix::ffi::OsStringExt;
        match self.secrets.get(id) {
            None => Ok(None),
            Some(SecretSource::File(path)) => {
                let named = |error| io::Error::other(format!("{}: {error}", path.display()));
                fs::read(path).map(Some).map_err(named)
            }
            Some(SecretSource::Variable(name)) => Ok(env::var_os(name).map(OsStringExt::into_vec)),
        }
    }

    fn ssh_agent(&self, id: &str) -> Option<PathBuf> {
        self.agents.get(id).cloned()
    }

    fn docker_engine(&self, context: Option<&str>) -> Result<docker::Address, docker::Error> {
        let around = docker::Surroundings {
            host: variable("DOCKER_HOST"),
            context: variable("DOCKER_CONTEXT"),
            tls: variable("DOCKER_TLS_VERIFY").is_some(),
            certificates: variable("DOCKER_CERT_PATH").map(PathBuf::from),
            config: docker_config(),
        };
        docker::Address::find(context, &around)
    }
}

/// The time of this machine.
pub fn clock() -> Clock {
    Clock::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Time(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    })
}

/// What the programs that the engine runs need of this machine.
pub fn surroundings() -> Surroundings {
    Surroundings { path: env::var_os("PATH").unwrap_or_default() }
}

/// A variable of the environment that is text and not empty.
pub fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Tells this program from every other, and from what it was before it was built anew.
pub fn program() -> String {
    use std::os::unix::fs::MetadataExt;
    let file = fs::metadata("/proc/self/exe").map_or(String::new(), |found| {
        let (changed, rest) = (found.ctime(), found.ctime_nsec());
        format!("{}:{} {} {changed}.{rest}", found.dev(), found.ino(), found.size())
    });
    format!("kiln {} {file}", env!("CARGO_PKG_VERSION"))
}

/// The state folder where none is named.
pub fn default_root() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/kiln");
    }
    let data = variable("XDG_DATA_HOME").map(PathBuf::from);
    data.unwrap_or_else(|| home().join(".local/share")).join("kiln")
}

/// Whether files may be given the owners that they have in an image.
pub fn may_unpack() -> bool {
    rustix::process::geteuid().is_root()
}

/// The user's home folder.
pub fn home() -> PathBuf {
    variable("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from)
}

/// The folder of the system's settings.
pub fn etc() -> PathBuf {
    variable("KILN_ETC").map_or_else(|| PathBuf::from("/etc"), PathBuf::from)
}

/// The folder of the user's settings.
pub fn config() -> PathBuf {
    variable("XDG_CONFIG_HOME").map_or_else(|| home().join(".config"), PathBuf::from)
}

/// A file of Kiln's settings: the one that a variable names, else the user's, else the system's; none where none is there.
pub fn settings(named_by: &str, file: &str) -> Option<PathBuf> {
    let named = variable(named_by).map(PathBuf::from);
    let usual = [config(), etc()].map(|folder| folder.join("kiln").join(file));
    named.or_else(|| usual.into_iter().find(|path| path.exists()))
}

/// The folder with Docker's `config.json`.
pub fn docker_config() -> PathBuf {
    variable("DOCKER_CONFIG").map_or_else(|| home().join(".docker"), PathBuf::from)
}

/// Whether a path can be read as a folder.
pub fn is_folder(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_dir())
}
