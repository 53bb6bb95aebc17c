//! As whom the program is started: as root, or as a user who exists for the test alone.
//!
//! `KILN_TEST_MODE=single cargo test -p kiln-tests --test fixtures` runs all cases so. Without it those of the areas
//! [`OF_USERS`] are run so beside being run as root.
//!
//! Where a user runs the tests (`tests/user.sh`), Kiln is started as it is: in the mode that it takes for that user.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use serde::Deserialize;
use serde_json::Value;

use crate::machine;
use crate::program::{kiln, said};

/// A mode of Kiln, as `--sandbox` names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TestMode {
    /// Root starts it.
    #[default]
    Root,
    /// Root starts it, and layers are copied.
    Copy,
    /// Root starts it, and it uses no namespaces.
    Chroot,
    /// A user with sub-ids starts it.
    Subids,
    /// A user without sub-ids starts it.
    Single,
    /// The same, and layers are copied.
    #[serde(rename = "single,copy")]
    SingleCopy,
}

/// The areas whose cases are run in every mode of a user's, always.
pub const OF_USERS: [&str; 5] = ["add", "copy", "mount", "rootless", "run"];

/// Who the user is, whom no machine has.
pub const USER: u32 = 61_183;

/// Makes the user for the process and what it starts, in a mount namespace of its own: `/etc` stays as it is.
const BECOME: &str = include_str!("../as-user.sh");

/// The mode that Kiln takes for the user who runs the tests; `Root` where that is root.
///
/// # Errors
/// Why it takes none.
pub fn of_user() -> Result<TestMode, String> {
    static TAKEN: OnceLock<Result<TestMode, String>> = OnceLock::new();
    let ask = || {
        let output = kiln().args(["info", "--format", "json"]).output().map_err(|error| error.to_string())?;
        let told: Value = serde_json::from_slice(&output.stdout).map_err(|_| said(&output))?;
        let taken = told["mode"]["value"].as_str().unwrap_or_default();
        // Behind a comma stands how it is had.
        TestMode::named(taken.split(',').next().unwrap_or_default())
            .ok_or_else(|| format!("Kiln builds in no mode here: {}", told["mode"]))
    };
    if machine::is_user() { TAKEN.get_or_init(ask).clone() } else { Ok(TestMode::Root) }
}

impl TestMode {
    const ALL: [TestMode; 6] = [
        TestMode::Root,
        TestMode::Copy,
        TestMode::Chroot,
        TestMode::Subids,
        TestMode::Single,
        TestMode::SingleCopy,
    ];

    fn named(name: &str) -> Option<TestMode> {
        TestMode::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// The mode that `KILN_TEST_MODE` names for all cases, else that of who runs the tests.
    ///
    /// # Panics
    /// Where it names none.
    pub fn of_environment() -> TestMode {
        // Who cannot build in any mode is told so by the cases that need one.
        let Ok(name) = std::env::var("KILN_TEST_MODE") else { return of_user().unwrap_or_default() };
        let named = TestMode::named(&name);
        named.unwrap_or_else(|| {
            panic!("KILN_TEST_MODE={name}: root, copy, chroot, subids, single or single,copy")
        })
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            TestMode::Root => "root",
            TestMode::Copy => "copy",
            TestMode::Chroot => "chroot",
            TestMode::Subids => "subids",
            TestMode::Single => "single",
            TestMode::SingleCopy => "single,copy",
        }
    }

    /// Whether a user starts it who is not root.
    pub fn is_rootless(self) -> bool {
        matches!(self, TestMode::Subids | TestMode::Single | TestMode::SingleCopy)
    }

    /// Why it cannot be tested here.
    pub fn lacks(self) -> Option<String> {
        if machine::is_user() {
            let taken = of_user();
            let is_taken = taken == Ok(self);
            return (!is_taken).then(|| match taken {
                Ok(taken) => format!("needs root: it is {} that this user has", taken.name()),
                Err(why) => why,
            });
        }
        let needed: &[&str] = match self {
            TestMode::Root | TestMode::Copy | TestMode::Chroot => &[],
            TestMode::Single | TestMode::SingleCopy => &["root", "program:unshare", "program:setpriv"],
            TestMode::Subids => {
                &["root", "program:unshare", "program:setpriv", "program:newuidmap", "file:/etc/subuid"]
            }
        };
        needed.iter().find_map(|need| machine::lacks(need))
    }

    /// A command that starts `program` so.
    pub fn command(self, program: &Path) -> Command {
        self.command_on(program, "")
    }

    /// As [`TestMode::command`], on a machine that a script of root's has changed: mounts, and the files of `/etc` with accounts, are the
    /// command's own. What the script puts into the variable `before` starts the command.
    pub fn command_on(self, program: &Path, change: &str) -> Command {
        if !self.is_rootless() || machine::is_user() {
            assert!(change.is_empty() || !machine::is_user(), "who changes the machine is root");
            let mut command = Command::new(program);
            match self {
                TestMode::Copy => drop(command.env("KILN_SANDBOX", "root,copy")),
                TestMode::Chroot => drop(command.env("KILN_SANDBOX", "chroot")),
                TestMode::Root | TestMode::Subids | TestMode::Single | TestMode::SingleCopy => {}
            }
            return command;
        }
        let ids = if self == TestMode::Subids { "subids" } else { "single" };
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", BECOME, "sh", &USER.to_string(), ids, change]).arg(program);
        if self == TestMode::SingleCopy {
            command.env("KILN_SANDBOX", "single,copy");
        }
        command
    }

    /// Gives the user a folder with all that is in it.
    ///
    /// # Errors
    /// What could not be given.
    pub fn own(self, folder: &Path) -> Result<(), String> {
        if !self.is_rootless() || machine::is_user() {
            return Ok(());
        }
        give(folder).map_err(|error| format!("{}: {error}", folder.display()))
    }
}

/// Gives away what is not given yet: of what is, the user may have made another's in its namespace.
fn give(path: &Path) -> io::Result<()> {
    let found = path.symlink_metadata()?;
    if found.uid() == 0 {
        lchown(path, Some(USER), Some(USER))?;
        if !found.is_symlink() {
            // A change of owner takes set-id bits away.
            fs::set_permissions(path, found.permissions())?;
        }
    }
    if found.is_dir() && path.file_name().is_none_or(|name| name != "root") {
        for entry in fs::read_dir(path)? {
            give(&entry?.path())?;
        }
    }
    Ok(())
}
