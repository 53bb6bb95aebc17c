//! The local machine as the engine's client, and the only place that asks for the environment and the time.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, Read},
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use engine::{Client, Clock, SecretBytes, SshAgent, Surroundings, Time};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use ssh::Keyring;
use zeroize::{Zeroize, Zeroizing};

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
    /// Agents by id.
    pub agents: BTreeMap<String, AgentSource>,
    /// The keys of agents, once they were read.
    pub keyrings: BTreeMap<String, Arc<Keyring>>,
    /// What was read of the secrets: the key of a step and the step itself are made of the same bytes, and a pipe can be
    /// read once only.
    pub read: Arc<Mutex<BTreeMap<String, Option<SecretBytes>>>>,
}

impl Machine {
    /// Keeps core dumps, and other processes of the same user, from what Kiln is confided, if it is confided anything. A
    /// refusal leaves it as it is.
    pub fn hide_memory(&self) {
        if !self.secrets.is_empty() || !self.agents.is_empty() {
            let _hidden = set_dumpable_behavior(DumpableBehavior::NotDumpable);
        }
    }
}

/// Where an agent is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentSource {
    /// Behind a socket.
    Socket {
        /// The socket.
        path: PathBuf,
        /// As of [`SshAgent::Socket`].
        raw: bool,
    },
    /// Here, with the keys of these files.
    Keys(Vec<PathBuf>),
}

/// A secret takes no more than this, in bytes, as with BuildKit.
const LARGEST_SECRET_BYTES: u64 = 500 << 10;

/// The bytes of a secret's file.
fn read_secret(path: &Path) -> io::Result<SecretBytes> {
    let file = fs::File::open(path)?;
    let found = file.metadata()?;
    let length = if found.is_file() { found.len() } else { LARGEST_SECRET_BYTES };
    // With room for all of it and the end: what grows leaves copies behind.
    let room = usize::try_from(length.min(LARGEST_SECRET_BYTES) + 64).unwrap_or_default();
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    file.take(LARGEST_SECRET_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_SECRET_BYTES {
        return Err(io::Error::other("it is larger than 500 KiB"));
    }
    Ok(std::mem::take(&mut *bytes).into())
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

    fn secret(&self, id: &str) -> io::Result<Option<SecretBytes>> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = read.get(id) {
            return Ok(known.clone());
        }
        let secret = match self.secrets.get(id) {
            None => None,
            Some(SecretSource::File(path)) => {
                let named = |error| io::Error::other(format!("{}: {error}", path.display()));
                Some(read_secret(path).map_err(named)?)
            }
            Some(SecretSource::Variable(name)) => env::var_os(name).map(|value| value.into_vec().into()),
        };
        read.insert(id.to_owned(), secret.clone());
        Ok(secret)
    }

    fn ssh_agent(&self, id: &str) -> Option<SshAgent> {
        match self.agents.get(id)? {
            AgentSource::Socket { path, raw } => Some(SshAgent::Socket { path: path.clone(), raw: *raw }),
            AgentSource::Keys(_) => self.keyrings.get(id).cloned().map(SshAgent::Keys),
        }
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

/// Whether a variable is set; of its value nothing is left in memory but where it always was.
pub fn has_variable(name: &str) -> bool {
    let Some(value) = env::var_os(name) else { return false };
    value.into_vec().zeroize();
    true
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

/// Whether this is root: of the machine, of a container, or of a user namespace.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
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
