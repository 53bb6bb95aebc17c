//! As whom the program is started: as root, or as a user who exists for the test alone.
//!
//! `KILN_TEST_MODE=single cargo test -p kiln-tests --test fixtures` runs all cases so. Without it those of the areas
//! [`OF_USERS`] are run so beside being run as root.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use crate::machine;

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
}

/// The areas whose cases are run in every mode of a user's, always.
pub const OF_USERS: [&str; 5] = ["add", "copy", "mount", "rootless", "run"];

/// Who the user is, whom no machine has.
pub const USER: u32 = 61_183;

/// Makes the user for the process and what it starts, in a mount namespace of its own: `/etc` stays as it is.
const BECOME: &str = include_str!("../as-user.sh");

impl TestMode {
    /// The mode that `KILN_TEST_MODE` names for all cases.
    ///
    /// # Panics
    /// Where it names none.
    pub fn of_environment() -> TestMode {
        let Ok(name) = std::env::var("KILN_TEST_MODE") else { return TestMode::Root };
        let all = [TestMode::Root, TestMode::Copy, TestMode::Chroot, TestMode::Subids, TestMode::Single];
        let named = all.into_iter().find(|mode| mode.name() == name);
        named.unwrap_or_else(|| panic!("KILN_TEST_MODE={name}: root, copy, chroot, subids or single"))
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            TestMode::Root => "root",
            TestMode::Copy => "copy",
            TestMode::Chroot => "chroot",
            TestMode::Subids => "subids",
            TestMode::Single => "single",
        }
    }

    /// Whether a user starts it who is not root.
    pub fn is_rootless(self) -> bool {
        matches!(self, TestMode::Subids | TestMode::Single)
    }

    /// Why it cannot be tested here.
    pub fn lacks(self) -> Option<String> {
        let needed: &[&str] = match self {
            TestMode::Root | TestMode::Copy | TestMode::Chroot => &[],
            TestMode::Single => &["root", "program:unshare", "program:setpriv"],
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
        if !self.is_rootless() {
            let mut command = Command::new(program);
            match self {
                TestMode::Copy => drop(command.env("KILN_SANDBOX", "root,copy")),
                TestMode::Chroot => drop(command.env("KILN_SANDBOX", "chroot")),
                TestMode::Root | TestMode::Subids | TestMode::Single => {}
            }
            return command;
        }
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", BECOME, "sh", &USER.to_string(), self.name(), change])
            .arg(program);
        command
    }

    /// Gives the user a folder with all that is in it.
    ///
    /// # Errors
    /// What could not be given.
    pub fn own(self, folder: &Path) -> Result<(), String> {
        if !self.is_rootless() {
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
