//! A case of `tests/fixtures/<area>/<case>/`: a folder that is data.
//!
//! `case.toml`, all of it optional:
//!
//! ```toml
//! needs = ["steps", "busybox"]    # what the machine must have (machine::lacks); `busybox` also gives FROM busybox
//! setup = "mkfifo context/pipe"   # shell, in a copy of the case: what git cannot keep
//! serve = "www"                   # a folder that is served while the case runs, as http://any.host (kiln_tests::server)
//! context = "{server}/a.tar"      # what is built in place of the folder `context`, if there is one
//! stdin = "context.tar"           # a file of the case
//! output = "oci-mediatypes=false" # further keys of the output that is compared
//! args = ["--target", "x"]        # {case} is the copy's path, {server} the address of what is served
//! env = { TOKEN = "x" }           # variables that the program is given
//! exit = 1
//! stderr_has = ["Dockerfile:2"]
//! stderr_lacks = ["panicked"]
//! without_capabilities = ["dac_override"]
//! modes = ["chroot"]              # modes in which it is run too (kiln_tests::mode)
//! not_in = { subids = "why" }     # modes in which it cannot be, and why: docs/rootless.md has it
//! requests = ["GET /a 200"]       # what the server was asked, in this order
//! ran = ["RUN a"]                 # what ran and was not cached, by a part of its name; no other instruction did
//! digest = "same"                 # or "new": beside the build before
//!
//! [[then]]                        # more builds in the same state folder; args, needs and exit as above
//! write = { "context/a" = "new" }
//! append = { "Dockerfile" = "# a comment" }
//! remove = ["context/b"]
//! touch = ["context/a"]
//! run = "rm -r context/b"         # shell, in the copy
//! ran = []
//! digest = "same"
//! ```

use std::collections::BTreeMap;
use std::fs::{self, FileTimes, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use crate::mode::TestMode;

/// What `case.toml` says.
#[derive(Debug, Default, Deserialize)]
pub struct Case {
    /// What the machine must have.
    #[serde(default)]
    pub needs: Vec<String>,
    /// Shell commands that make what git cannot keep.
    pub setup: Option<String>,
    /// A folder of the case that is served over http.
    pub serve: Option<String>,
    /// Capabilities that the program is started without.
    #[serde(default)]
    pub without_capabilities: Vec<String>,
    /// Modes in which it is run too.
    #[serde(default)]
    pub modes: Vec<TestMode>,
    /// Modes in which it cannot be, and why.
    #[serde(default)]
    pub not_in: BTreeMap<TestMode, String>,
    /// The first build.
    #[serde(flatten)]
    pub first: Expected,
    /// The builds after it.
    #[serde(default)]
    pub then: Vec<Then>,
}

/// What a build is given and what is expected of it.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Expected {
    /// Flags; none for those of the build before.
    pub args: Option<Vec<String>>,
    /// The context; none for that of the build before, and at first the folder.
    pub context: Option<String>,
    /// The file of the case that is standard input; none for that of the build before.
    pub stdin: Option<String>,
    /// Further keys of the output that is compared; none for those of the build before.
    pub output: Option<String>,
    /// Variables that the program is given, those of the builds before too.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// What the server was asked; none where nobody cares.
    pub requests: Option<Vec<String>>,
    /// The exit status.
    #[serde(default)]
    pub exit: i32,
    /// What standard error says, in any order.
    #[serde(default)]
    pub stderr_has: Vec<String>,
    /// What standard error does not say.
    #[serde(default)]
    pub stderr_lacks: Vec<String>,
    /// A part of the name of each instruction that ran; none where nobody cares.
    pub ran: Option<Vec<String>>,
    /// How the image's digest stands to that of the build before.
    pub digest: Option<Standing>,
}

/// One digest beside another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// They are equal.
    Same,
    /// They are not.
    New,
}

/// One more build, after some edits.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Then {
    /// Files to write, by path in the case.
    #[serde(default)]
    pub write: BTreeMap<String, String>,
    /// Lines to add to the end of files.
    #[serde(default)]
    pub append: BTreeMap<String, String>,
    /// Files to remove.
    #[serde(default)]
    pub remove: Vec<String>,
    /// Files that get another modification time and nothing else.
    #[serde(default)]
    pub touch: Vec<String>,
    /// Shell commands.
    pub run: Option<String>,
    /// What is expected.
    #[serde(flatten)]
    pub expected: Expected,
}

impl Case {
    /// Reads the `case.toml` of a case's folder; a folder without one expects a build that succeeds.
    ///
    /// # Errors
    /// It is no TOML, or has a key that does not exist.
    pub fn read(folder: &Path) -> Result<Case, String> {
        let path = folder.join("case.toml");
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text.map_err(|error| format!("{}: {error}", path.display()))?,
        };
        Case::parse(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Reads the text of a `case.toml`.
    ///
    /// # Errors
    /// As [`Case::read`].
    pub fn parse(text: &str) -> Result<Case, String> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
        // By hand, because serde cannot refuse unknown keys beside a flattened struct.
        let known = |table: &toml::Table, own: &[&str]| match table
            .keys()
            .find(|key| !own.contains(&key.as_str()) && !Expected::KEYS.contains(&key.as_str()))
        {
            Some(key) => Err(format!("no key `{key}` is known here")),
            None => Ok(()),
        };
        known(&table, &["needs", "setup", "serve", "without_capabilities", "modes", "not_in", "then"])?;
        for then in table.get("then").and_then(toml::Value::as_array).into_iter().flatten() {
            known(
                then.as_table().ok_or("`then` is a list of tables")?,
                &["write", "append", "remove", "touch", "run"],
            )?;
        }
        table.try_into().map_err(|error: toml::de::Error| error.to_string())
    }
}

impl Expected {
    /// The keys of `case.toml` that this type holds.
    const KEYS: [&str; 11] = [
        "args",
        "env",
        "requests",
        "exit",
        "stderr_has",
        "stderr_lacks",
        "ran",
        "digest",
        "context",
        "stdin",
        "output",
    ];
}

impl Then {
    /// Makes the edits in `copy`.
    ///
    /// # Errors
    /// A file that is not there or cannot be written.
    pub fn edit(&self, copy: &Path) -> io::Result<()> {
        for (path, text) in &self.write {
            fs::write(copy.join(path), text)?;
        }
        for (path, line) in &self.append {
            writeln!(OpenOptions::new().append(true).open(copy.join(path))?, "{line}")?;
        }
        for path in &self.remove {
            fs::remove_file(copy.join(path))?;
        }
        for path in &self.touch {
            set_time(&copy.join(path), 1_800_000_000)?;
        }
        match &self.run {
            Some(script) => set_up(script, copy).map_err(io::Error::other),
            None => Ok(()),
        }
    }
}

fn set_time(path: &Path, seconds: u64) -> io::Result<()> {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    fs::File::open(path)?.set_times(FileTimes::new().set_modified(time))
}

/// Copies a case, with what a checkout leaves to chance made equal everywhere: modes and times.
///
/// # Errors
/// A file that cannot be read or written.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path())?, &target)?;
        } else if kind.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
            let mode = if entry.metadata()?.permissions().mode() & 0o100 != 0 { 0o755 } else { 0o644 };
            fs::set_permissions(&target, Permissions::from_mode(mode))?;
            set_time(&target, 1_700_000_000)?;
        }
    }
    fs::set_permissions(to, Permissions::from_mode(0o755))?;
    set_time(to, 1_700_000_000)
}

/// Runs the case's `setup` in its copy.
///
/// # Errors
/// What the shell said.
pub fn set_up(script: &str, copy: &Path) -> Result<(), String> {
    // Git minds whose a repository is, and the copy may be another user's by now.
    let owner = fs::metadata(copy).map_err(|error| error.to_string())?.uid();
    let mut command = match owner == rustix::process::geteuid().as_raw() {
        true => Command::new("sh"),
        false => {
            let owner = owner.to_string();
            let mut command = Command::new("setpriv");
            command.args(["--reuid", &owner, "--regid", &owner, "--clear-groups", "sh"]);
            command
        }
    };
    let run = command.args(["-ec", script]).current_dir(copy).output().map_err(|error| error.to_string())?;
    if run.status.success() {
        return Ok(());
    }
    Err(format!("setup: {}", String::from_utf8_lossy(&run.stderr)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_is_refused() {
        assert!(Case::parse("exit = 1\n[[then]]\nran = []\ntouch = [\"a\"]").is_ok());
        assert!(Case::parse("exot = 1").is_err());
        assert!(Case::parse("[[then]]\ntuoch = [\"a\"]").is_err());
    }
}
