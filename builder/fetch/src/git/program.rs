//! The program `git`, in an environment made here.
//!
//! | What could change the result, or run something | What is done |
//! |---|---|
//! | configuration of the system and of the user | not read; one file of ours instead |
//! | variables of the environment | none is handed on |
//! | hooks, templates, file system monitors | turned off |
//! | filters (`git lfs`) | not configured, so files stay as they are in the repository |
//! | prompts for a password or a host's key | turned off: they would wait for ever |
//! | `ext::`, `file://` and other transports | only https, http, ssh and git, submodules included (CVE-2022-39253) |
//! | the user's ssh settings and keys | not read; keys come from the agent alone |
//!
//! A login is in git's environment, where the user's own processes can read it and the list of processes does not show it; never
//! in an argument, and in no file.

use std::{
    collections::{BTreeMap, VecDeque},
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, BufRead, BufReader, Read},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use registry::{Secret, Settings};
use rustix::process::{Pid, Signal, kill_process_group};

use super::Remote;
use crate::{Error, GitFault};

/// How much git may answer, in bytes.
const ANSWER_BYTES: u64 = 64 << 20;

/// How many lines of git's complaints an error holds.
const LINES: usize = 5;

/// Answers git, once a server wants a login, with the one of the address. A shell's own `printf` writes it, so that no list of
/// processes shows it.
const HELPER: &str = "!f() { test \"$1\" = get || return 0; \
    printf 'username=%s\\npassword=%s\\n' \"$KILN_GIT_USER\" \"$KILN_GIT_PASSWORD\"; }; f";

/// How many of the lines that git writes are kept, and how many bytes of one: some come from the server, which need not stop.
const COMPLAINTS: usize = 1000;
const LINE_BYTES: u64 = 64 << 10;

/// What git and ssh say beside every failure to connect.
const IDLE: [&str; 4] = [
    "Could not read from remote repository",
    "Please make sure you have the correct access rights",
    "and the repository exists.",
    "Warning: Permanently added",
];

/// How often is looked whether the work was cancelled.
const LOOK: Duration = Duration::from_millis(20);

/// Git's settings, the same for everybody. Objects are kept as one pack, which is there whole or not at all.
const CONFIG: &str = "\
[safe]\n\tdirectory = *\n\
[core]\n\thooksPath = /dev/null\n\tfsmonitor = false\n\tattributesFile = /dev/null\n\texcludesFile = /dev/null\n\tlogAllRefUpdates = false\n\
[init]\n\tdefaultBranch = master\n\
[gc]\n\tauto = 0\n\
[maintenance]\n\tauto = false\n\
[transfer]\n\tunpackLimit = 1\n\
[uploadpack]\n\tallowAnySHA1InWant = true\n\
[pack]\n\tthreads = 1\n\
[advice]\n\tdetachedHead = false\n\
[credential]\n\thelper =\n\
[http]\n\tlowSpeedLimit = 1\n\tlowSpeedTime = 60\n";

/// What git needs of the machine.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// `PATH`: where `git` is, and `ssh`.
    pub path: OsString,
}

/// How a repository is logged in to.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// The value of `Authorization`, for http and https.
    pub authorization: Option<Secret>,
    /// The socket of an agent, for ssh.
    pub agent: Option<PathBuf>,
    /// The file of the keys that hosts had when they were first seen, for ssh.
    pub known_hosts: PathBuf,
}

impl Access {
    /// The header of a token, as GitHub, GitLab and Bitbucket take it.
    pub fn token(token: &Secret) -> Secret {
        Secret::new(format!("basic {}", STANDARD.encode(format!("x-access-token:{}", token.reveal()))))
    }
}

/// `git` for one remote repository.
pub struct Git<'a> {
    program: PathBuf,
    environment: BTreeMap<OsString, OsString>,
    remote: &'a Remote,
    scratch: PathBuf,
    known_hosts: PathBuf,
    lock: Option<File>,
    cancelled: &'a dyn Fn() -> bool,
    say: &'a dyn Fn(&str),
}

/// One run of git: its arguments, and what is special about it.
pub(super) struct Run<'a> {
    /// What for, for messages: `fetch`.
    pub doing: &'static str,
    pub arguments: Vec<OsString>,
    pub folder: &'a Path,
    /// More variables.
    pub environment: Vec<(&'static str, OsString)>,
    /// Whether a failure is to be told: else it is an answer.
    pub loud: bool,
}

impl<'a> Git<'a> {
    /// Prepares git. `scratch` is an empty folder for this value alone; `cancelled` is asked while git runs, and `say` is given what
    /// git says.
    ///
    /// # Errors
    /// [`Error::NoProgram`]; `scratch` cannot be written.
    pub fn new(
        surroundings: &Surroundings,
        settings: &Settings,
        access: &Access,
        remote: &'a Remote,
        scratch: &Path,
        cancelled: &'a dyn Fn() -> bool,
        say: &'a dyn Fn(&str),
    ) -> Result<Git<'a>, Error> {
        let program = find(&surroundings.path, "git").ok_or(Error::NoProgram)?;
        let config = scratch.join("config");
        fs::write(&config, CONFIG).map_err(Error::io("write", &config))?;
        let empty = scratch.join("empty");
        fs::create_dir(&empty).map_err(Error::io("create", &empty))?;
        let mut environment: BTreeMap<OsString, OsString> = BTreeMap::new();
        let mut set = |name: &str, value: &OsStr| environment.insert(name.into(), value.to_owned());
        set("PATH", &surroundings.path);
        for name in ["HOME", "TMPDIR"] {
            set(name, scratch.as_os_str());
        }
        set("GIT_CONFIG_GLOBAL", config.as_os_str());
        set("GIT_TEMPLATE_DIR", empty.as_os_str());
        for (name, value) in [
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_NO_REPLACE_OBJECTS", "1"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_ALLOW_PROTOCOL", "https:http:ssh:git"),
            ("GIT_LFS_SKIP_SMUDGE", "1"),
            ("LC_ALL", "C"),
            ("TZ", "UTC"),
        ] {
            set(name, OsStr::new(value));
        }
        if remote.is_web() {
            web(&mut set, settings, access, remote);
        }
        if remote.is_ssh() {
            set("GIT_SSH_COMMAND", &ssh_command(&access.known_hosts));
        }
        if let Some(agent) = &access.agent {
            set("SSH_AUTH_SOCK", agent.as_os_str());
        }
        let (scratch, known_hosts) = (scratch.to_owned(), access.known_hosts.clone());
        Ok(Git { program, environment, remote, scratch, known_hosts, lock: None, cancelled, say })
    }

    /// Works under a lock: `file` is the locked file, which git holds open too. If this process is killed while git writes, the lock
    /// ends when git does.
    pub fn under(self, file: File) -> Git<'a> {
        Git { lock: Some(file), ..self }
    }

    pub(super) fn remote(&self) -> &Remote {
        self.remote
    }

    /// The folder that is this value's alone.
    pub(super) fn scratch(&self) -> &Path {
        &self.scratch
    }

    pub(super) fn say(&self, text: &str) {
        (self.say)(text);
    }

    /// Runs git to its end; gives what it wrote to standard output.
    pub(super) fn run(&self, run: Run<'_>) -> Result<Vec<u8>, Error> {
        let mut command = Command::new(&self.program);
        command.args(&run.arguments).current_dir(run.folder).env_clear().envs(&self.environment);
        command.envs(run.environment.iter().map(|(name, value)| (name, value)));
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        command.stdin(match &self.lock {
            Some(file) => Stdio::from(file.try_clone().map_err(Error::io("open", &self.scratch))?),
            None => Stdio::null(),
        });
        let mut child = command.spawn().map_err(Error::io("run", &self.program))?;
        let pieces = read_both(&mut child, &self.program)?;
        let (answer, lines) = self.gather(&child, &pieces, run.loud)?;
        let status = child.wait().map_err(Error::io("wait for", &self.program))?;
        if (self.cancelled)() {
            return Err(Error::Cancelled);
        }
        if status.success() {
            return Ok(answer);
        }
        let fault = classify(&lines);
        let remedy = (fault == GitFault::HostKey).then(|| forget_key(&self.known_hosts, self.remote.host()));
        let lines: Vec<String> =
            lines.into_iter().filter(|line| !IDLE.iter().any(|words| line.contains(words))).collect();
        let kept = lines.len().saturating_sub(LINES);
        Err(Error::Git {
            doing: run.doing,
            remote: self.remote.shown(),
            host: self.remote.host().to_owned(),
            fault,
            lines: lines.into_iter().skip(kept).collect(),
            remedy,
        })
    }

    /// Takes in what git writes until both its outputs have ended. Its whole group is killed when the work is cancelled.
    fn gather(
        &self,
        child: &Child,
        pieces: &Receiver<io::Result<Piece>>,
        loud: bool,
    ) -> Result<(Vec<u8>, Vec<String>), Error> {
        let (mut answer, mut lines, mut killed) = (Vec::new(), VecDeque::new(), false);
        loop {
            match pieces.recv_timeout(LOOK) {
                Ok(Ok(Piece::Answer(bytes))) => answer = bytes,
                Ok(Ok(Piece::Line(line))) => {
                    let line = cleaned(line.trim_end());
                    if !line.is_empty() {
                        if loud {
                            self.say(&line);
                        }
                        lines.push_back(line);
                        lines.drain(..lines.len().saturating_sub(COMPLAINTS));
                    }
                }
                Ok(Err(error)) => return Err(Error::io("read from", &self.program)(error)),
                Err(RecvTimeoutError::Disconnected) => return Ok((answer, lines.into())),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if !killed && (self.cancelled)() {
                killed = true;
                if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                    // It may have ended by itself.
                    let _gone = kill_process_group(pid, Signal::KILL);
                }
            }
        }
    }
}

/// Proxies, authorities and the login of http and https.
fn web(
    set: &mut impl FnMut(&str, &OsStr) -> Option<OsString>,
    settings: &Settings,
    access: &Access,
    remote: &Remote,
) {
    let proxies = &settings.proxies;
    for (name, proxy) in [("http_proxy", &proxies.http), ("https_proxy", &proxies.https)] {
        if let Some(proxy) = proxy {
            set(name, OsStr::new(proxy.reveal()));
        }
    }
    // As for registries: a proxy would look for its own loopback, not for ours.
    let except = proxies.except.as_deref().unwrap_or_default();
    set("no_proxy", OsStr::new(&format!("localhost,127.0.0.1,::1,{except}")));
    if let Some(file) = &settings.roots.file {
        set("GIT_SSL_CAINFO", file.as_os_str());
    }
    if let Some(folder) = settings.roots.folders.first() {
        set("GIT_SSL_CAPATH", folder.as_os_str());
    }
    if let Some(authorization) = &access.authorization {
        set("GIT_CONFIG_COUNT", OsStr::new("1"));
        set("GIT_CONFIG_KEY_0", OsStr::new(&format!("http.{}.extraHeader", remote.login_scope())));
        let header = format!("Authorization: {}", authorization.reveal().trim_end());
        set("GIT_CONFIG_VALUE_0", OsStr::new(&header));
    } else if let Some(login) = remote.login() {
        set("GIT_CONFIG_COUNT", OsStr::new("1"));
        set("GIT_CONFIG_KEY_0", OsStr::new(&format!("credential.{}.helper", remote.site())));
        set("GIT_CONFIG_VALUE_0", OsStr::new(HELPER));
        set("KILN_GIT_USER", OsStr::new(&login.user));
        set("KILN_GIT_PASSWORD", OsStr::new(login.password.reveal()));
    }
}

/// What git runs for ssh: without the user's settings and keys. A host's key is taken when it is first seen and must
/// stay the same from then on.
fn ssh_command(known_hosts: &Path) -> OsString {
    let mut command = OsString::from(
        "ssh -F /dev/null -o BatchMode=yes -o IdentityFile=none -o ConnectTimeout=30 -o ServerAliveInterval=20 \
         -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile=",
    );
    // A shell reads this, and ssh takes quotes and `%` off once more.
    let path = known_hosts.to_string_lossy().replace('%', "%%").replace('\'', "'\\''");
    command.push(format!("'\"{path}\"'"));
    command
}

/// The command that forgets the key of a host.
fn forget_key(known_hosts: &Path, host: &str) -> String {
    let name = match host.rsplit_once(':') {
        Some((host, port)) if port != "22" => format!("[{host}]:{port}"),
        Some((host, _)) => host.to_owned(),
        None => host.to_owned(),
    };
    format!("ssh-keygen -f '{}' -R '{name}'", known_hosts.display())
}

/// The first file of that name on a `PATH` that may be executed.
fn find(path: &OsStr, name: &str) -> Option<PathBuf> {
    let runs = |file: &PathBuf| {
        fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    let absolute = |folder: &PathBuf| folder.is_absolute();
    std::env::split_paths(path).filter(absolute).map(|folder| folder.join(name)).find(runs)
}

/// A line as a terminal may get it.
fn cleaned(line: &str) -> String {
    line.chars().filter(|c| !c.is_control() || *c == '\t').collect()
}

enum Piece {
    /// All of standard output.
    Answer(Vec<u8>),
    /// A line of standard error.
    Line(String),
}

/// Reads both outputs of a process, each by a thread of its own, so that it never waits for us.
fn read_both(child: &mut Child, program: &Path) -> Result<Receiver<io::Result<Piece>>, Error> {
    let (sender, pieces) = channel();
    let spawn = |work: Box<dyn FnOnce() + Send>| {
        thread::Builder::new().name("git".to_owned()).spawn(work).map_err(Error::io("read from", program))
    };
    if let Some(stdout) = child.stdout.take() {
        let sender = sender.clone();
        spawn(Box::new(move || {
            let mut bytes = Vec::new();
            let read = stdout.take(ANSWER_BYTES).read_to_end(&mut bytes);
            send(&sender, read.map(|_| Piece::Answer(bytes)));
        }))?;
    }
    if let Some(stderr) = child.stderr.take() {
        spawn(Box::new(move || {
            let mut stderr = BufReader::new(stderr);
            loop {
                let mut line = Vec::new();
                match (&mut stderr).take(LINE_BYTES).read_until(b'\n', &mut line) {
                    Ok(0) => return,
                    Ok(_) => send(&sender, Ok(Piece::Line(String::from_utf8_lossy(&line).into_owned()))),
                    Err(error) => return send(&sender, Err(error)),
                }
            }
        }))?;
    }
    Ok(pieces)
}

fn send(sender: &Sender<io::Result<Piece>>, piece: io::Result<Piece>) {
    // Nobody listens any more where reading has failed.
    let _heard = sender.send(piece);
}

/// What kind of failure git's words tell of. `LC_ALL=C` makes them the same everywhere; versions may differ, and then it is
/// [`GitFault::Other`], with the words beside it.
fn classify(lines: &[String]) -> GitFault {
    const WORDS: [(GitFault, &[&str]); 9] = [
        (GitFault::HostKey, &["Host key verification failed", "REMOTE HOST IDENTIFICATION HAS CHANGED"]),
        (GitFault::Key, &["Permission denied (publickey"]),
        (
            GitFault::Login,
            &[
                "could not read Username",
                "could not read Password",
                "Authentication failed",
                "returned error: 401",
                "returned error: 403",
            ],
        ),
        (GitFault::NoSsh, &["ssh: not found", "cannot run ssh", "cannot exec 'ssh"]),
        (GitFault::Transport, &["not allowed", "disallowed submodule"]),
        (
            GitFault::NotFound,
            &[
                "returned error: 404",
                "not found",
                "does not appear to be a git repository",
                "access denied or repository not exported",
                "Repository not found",
            ],
        ),
        (
            GitFault::Tls,
            &["SSL certificate problem", "server certificate verification failed", "SSL_ERROR", "gnutls"],
        ),
        (
            GitFault::Unreachable,
            &[
                "Could not resolve host",
                "unable to look up",
                "Connection refused",
                "Failed to connect",
                "unable to connect",
                "timed out",
                "No route to host",
                "Couldn't connect",
            ],
        ),
        (GitFault::Other, &[]),
    ];
    let has = |words: &[&str]| lines.iter().any(|line| words.iter().any(|word| line.contains(word)));
    WORDS.iter().find(|(_, words)| has(words)).map_or(GitFault::Other, |(fault, _)| *fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_understood() {
        for (line, fault) in [
            ("fatal: could not read Username for 'https://h': terminal prompts disabled", GitFault::Login),
            (
                "fatal: unable to access 'https://h/x/': The requested URL returned error: 403",
                GitFault::Login,
            ),
            ("fatal: repository 'https://h/x.git/' not found", GitFault::NotFound),
            ("fatal: remote error: access denied or repository not exported: /x", GitFault::NotFound),
            ("fatal: unable to access 'http://h/': Could not resolve host: h", GitFault::Unreachable),
            ("fatal: unable to connect to 127.0.0.1:", GitFault::Unreachable),
            ("git@h: Permission denied (publickey).", GitFault::Key),
            ("fatal: transport 'file' not allowed", GitFault::Transport),
            ("fatal: bad object", GitFault::Other),
        ] {
            assert_eq!(classify(&["x".to_owned(), line.to_owned()]), fault, "{line}");
        }
    }

    #[test]
    fn the_login_is_in_no_argument_and_no_file() {
        let scratch = tempfile::tempdir().expect("a folder");
        let remote = Remote::parse("https://h/x.git").expect("an address");
        let surroundings = Surroundings { path: std::env::var_os("PATH").unwrap_or_default() };
        let token = Access::token(&Secret::new("hunter2"));
        let access = Access { authorization: Some(token), ..Access::default() };
        let git = Git::new(
            &surroundings,
            &Settings::default(),
            &access,
            &remote,
            scratch.path(),
            &|| false,
            &|_| {},
        );
        let Ok(git) = git else {
            println!("SKIP the_login_is_in_no_argument_and_no_file: no git on the PATH");
            return;
        };
        let header = "Authorization: basic eC1hY2Nlc3MtdG9rZW46aHVudGVyMg==";
        assert_eq!(git.environment[OsStr::new("GIT_CONFIG_VALUE_0")], header);
        assert_eq!(git.environment[OsStr::new("GIT_CONFIG_KEY_0")], "http.https://h/x.git.extraHeader");
        let config = fs::read_to_string(scratch.path().join("config")).expect("written");
        assert!(!config.contains("eC1h"));
        assert!(!git.environment.contains_key(OsStr::new("SSH_AUTH_SOCK")));
    }

    #[test]
    fn lines_cannot_drive_a_terminal() {
        assert_eq!(cleaned("remote: \u{1b}[2Jx\ty\r"), "remote: [2Jx\ty");
    }

    #[test]
    fn keys_are_forgotten_by_the_name_that_ssh_has() {
        for (host, name) in [("h", "h"), ("h:22", "h"), ("h:2222", "[h]:2222")] {
            let command = forget_key(Path::new("/a/known_hosts"), host);
            assert_eq!(command, format!("ssh-keygen -f '/a/known_hosts' -R '{name}'"));
        }
    }

    #[test]
    fn a_path_is_quoted_for_the_shell_and_for_ssh() {
        let command = ssh_command(Path::new("/a b/it's %h"));
        assert!(command.to_string_lossy().ends_with("UserKnownHostsFile='\"/a b/it'\\''s %%h\"'"));
    }
}
