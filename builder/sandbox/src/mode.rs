//! How steps are kept apart, by what a machine lets this user do.
//!
//! Three things are independent of each other: whose the files of a layer are ([`Ids`]), what a step is kept in by
//! ([`Isolation`]), and how its root file system is made ([`Snapshots`]). A [`Mode`] is a choice of each. It is made once, at
//! the start of the program, and handed down: nothing below guesses. The same build has the same digest in every mode.
//!
//! | `--sandbox` | Ids    | Isolation  | Snapshots | Needs                                                     |
//! |-------------|--------|------------|-----------|-----------------------------------------------------------|
//! | `root`      | host   | namespaces | overlay   | CAP_SYS_ADMIN                                             |
//! | `subids`    | mapped | namespaces | overlay   | user namespaces; for a user `newuidmap` and sub-ids       |
//! | `single`    | single | namespaces | overlay   | user namespaces, seccomp user notification                |
//! | `chroot`    | host   | chroot     | copy      | CAP_SYS_CHROOT and CAP_CHOWN, as a container's root has them |
//!
//! `MODE,copy` takes copies where the table says overlay.

use std::fmt;
use std::str::FromStr;

/// A choice of all three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// Whose files are.
    pub ids: Ids,
    /// What a step is kept in by.
    pub isolation: Isolation,
    /// How its root file system is made.
    pub snapshots: Snapshots,
}

/// Whose the files in the state folder are, and who a step's processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    /// The owner in an image is the owner on the disk. Kiln is root.
    Host,
    /// A user namespace with a range of ids: owners in an image are others on the disk, each its own.
    Mapped,
    /// A user namespace with one id: everything on the disk is the user's, who is 0 inside. Owners stand in tree manifests and
    /// nowhere else; a step is shown them by emulation.
    Single,
}

/// What a step is kept in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Mount, pid, ipc, uts, cgroup and network namespaces.
    Namespaces,
    /// `chroot` alone, where no namespace can be made.
    Chroot,
}

/// How a step's root file system is made of layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snapshots {
    /// overlayfs stacks them.
    Overlay,
    /// They are copied into one folder.
    Copy,
}

impl Mode {
    /// Kiln is root.
    pub const ROOT: Mode =
        Mode { ids: Ids::Host, isolation: Isolation::Namespaces, snapshots: Snapshots::Overlay };
    /// A user with sub-ids.
    pub const SUBIDS: Mode = Mode { ids: Ids::Mapped, ..Mode::ROOT };
    /// A user without sub-ids.
    pub const SINGLE: Mode = Mode { ids: Ids::Single, ..Mode::ROOT };
    /// A container's root.
    pub const CHROOT: Mode =
        Mode { ids: Ids::Host, isolation: Isolation::Chroot, snapshots: Snapshots::Copy };
    /// All that have a name, the best first.
    pub const NAMED: [Mode; 4] = [Mode::ROOT, Mode::SUBIDS, Mode::SINGLE, Mode::CHROOT];

    /// The name without `,copy`.
    pub fn name(self) -> &'static str {
        match (self.ids, self.isolation) {
            (_, Isolation::Chroot) => "chroot",
            (Ids::Host, Isolation::Namespaces) => "root",
            (Ids::Mapped, Isolation::Namespaces) => "subids",
            (Ids::Single, Isolation::Namespaces) => "single",
        }
    }

    /// The same with copies for snapshots.
    pub fn copying(self) -> Mode {
        Mode { snapshots: Snapshots::Copy, ..self }
    }

    /// Whether it is in a user namespace of its own, where the kernel permits less.
    pub fn has_user_namespace(self) -> bool {
        self.ids != Ids::Host
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let copies = self.snapshots == Snapshots::Copy && self.isolation == Isolation::Namespaces;
        write!(formatter, "{}{}", self.name(), if copies { ",copy" } else { "" })
    }
}

/// What is asked for with `--sandbox`: `auto`, a mode's name, and either with `,copy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// The mode; `None` is the best that the machine offers.
    pub mode: Option<Mode>,
    /// Whether snapshots are to be copies in any case.
    pub copy: bool,
}

/// A text that asks for no mode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no mode: auto, root, subids, single or chroot, and with `,copy` behind it copies instead of overlayfs"
)]
pub struct BadWish {
    /// The text.
    pub text: String,
}

impl FromStr for Wish {
    type Err = BadWish;

    fn from_str(text: &str) -> Result<Wish, BadWish> {
        let bad = || BadWish { text: text.to_owned() };
        let (name, copy) = match text.split_once(',') {
            None => (text, false),
            Some((name, "copy")) => (name, true),
            Some(_) => return Err(bad()),
        };
        let named = || Mode::NAMED.into_iter().find(|mode| mode.name() == name).ok_or_else(bad);
        let mode = if name == "auto" { None } else { Some(named()?) };
        Ok(Wish { mode: mode.map(|mode| if copy { mode.copying() } else { mode }), copy })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_asked_for_by_name() {
        let single = Mode::SINGLE;
        for (text, expected) in [
            ("auto", Some(Wish::default())),
            ("auto,copy", Some(Wish { mode: None, copy: true })),
            ("root", Some(Wish { mode: Some(Mode::ROOT), copy: false })),
            ("single,copy", Some(Wish { mode: Some(single.copying()), copy: true })),
            ("chroot,copy", Some(Wish { mode: Some(Mode::CHROOT), copy: true })),
            ("", None),
            ("Root", None),
            ("root,", None),
            ("root,copy,copy", None),
            ("root,overlay", None),
        ] {
            assert_eq!(text.parse::<Wish>().ok(), expected, "{text}");
        }
        let error = "rootless".parse::<Wish>().expect_err("there is none of that name").to_string();
        assert!(error.starts_with("`rootless` is no mode: auto, root"), "{error}");
    }

    #[test]
    fn a_mode_is_shown_as_it_is_asked_for() {
        for mode in Mode::NAMED.into_iter().chain([Mode::ROOT.copying(), Mode::SINGLE.copying()]) {
            assert_eq!(mode.to_string().parse::<Wish>().map(|wish| wish.mode), Ok(Some(mode)));
        }
    }
}
