//! Why a mode cannot be had here, and the one line that would change that.

use std::{fs, io, path::PathBuf};

use super::ranges::ENOUGH;

/// What a machine lacks for a mode.
#[derive(Debug, thiserror::Error)]
pub enum Lack {
    /// Kiln is not root.
    #[error("Kiln runs as user {uid} and not as root")]
    NotRoot {
        /// As whom it runs.
        uid: u32,
    },
    /// It is root of a user namespace that somebody made.
    #[error("this root is one of a user namespace only")]
    NamespaceRoot,
    /// Root may not do what root may.
    #[error("this root lacks {capability}, as a container's root does")]
    NoCapability {
        /// The first that is missing.
        capability: &'static str,
    },
    /// User namespaces are forbidden, or the kernel has none.
    #[error("unshare(CLONE_NEWUSER) failed: {source}{}", found(.because.as_ref()))]
    NoUserNamespaces {
        /// Why.
        source: io::Error,
        /// What was found to be the reason.
        because: Option<Because>,
    },
    /// A user namespace was made, but its root has no rights in it.
    #[error("a user namespace can be made, but nothing can be done in it: {call} failed: {source}{}", found(.because.as_ref()))]
    Powerless {
        /// What was tried.
        call: &'static str,
        /// Why.
        source: io::Error,
        /// What was found to be the reason.
        because: Option<Because>,
    },
    /// A program of the package `uidmap` is missing.
    #[error("there is no program {program}, which gives a user namespace its sub-ids")]
    NoProgram {
        /// Its name.
        program: &'static str,
    },
    /// It is there, but would run without rights.
    #[error("{} {why}, and cannot give a user namespace its sub-ids", .path.display())]
    ProgramPowerless {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It failed.
    #[error("{program} failed: {said}{}", found(.because.as_ref()))]
    ProgramFailed {
        /// Its name.
        program: &'static str,
        /// What it wrote.
        said: String,
        /// What was found to be the reason.
        because: Option<Because>,
    },
    /// The user has no sub-ids.
    #[error("{file} gives no sub-ids to {user}")]
    NoSubIds {
        /// `/etc/subuid` or `/etc/subgid`.
        file: &'static str,
        /// The user.
        user: String,
        /// Where a range begins that nobody has.
        free: u32,
    },
    /// The user has too few.
    #[error("{file} gives {count} sub-ids to {user}, and images need 65535")]
    FewSubIds {
        /// `/etc/subuid` or `/etc/subgid`.
        file: &'static str,
        /// The user.
        user: String,
        /// How many.
        count: u32,
        /// Where a range begins that nobody has.
        free: u32,
    },
    /// The map could not be written.
    #[error("the ids of a user namespace could not be mapped: {file}: {source}{}", found(.because.as_ref()))]
    Unmapped {
        /// The file below `/proc/PID`.
        file: &'static str,
        /// Why.
        source: io::Error,
        /// What was found to be the reason.
        because: Option<Because>,
    },
    /// The state folder's file system has not what layers need.
    #[error(
        "the state folder {} is on a file system that cannot hold layers: {call} fails there: {source}; one of a disk of this \
         machine can (ext4, xfs, btrfs), and a volume of one in a container",
        .root.display()
    )]
    Unfit {
        /// The state folder.
        root: PathBuf,
        /// What was tried.
        call: &'static str,
        /// Why.
        source: io::Error,
        /// A folder that might do.
        other: PathBuf,
    },
    /// The kernel has nobody answer system calls, so that owners cannot be emulated.
    #[error("owners cannot be emulated: seccomp user notification, of Linux 5.19, is not there: {source}")]
    NoNotification {
        /// Why.
        source: io::Error,
    },
    /// A call of this process failed that should not.
    #[error("{call} failed: {source}")]
    Host {
        /// The call.
        call: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// What makes the kernel refuse a user namespace, or rights in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Because {
    /// `user.max_user_namespaces` is 0.
    MaxIsZero,
    /// All that may be are there.
    MaxIsReached,
    /// Debian's `kernel.unprivileged_userns_clone` is 0.
    CloneIsZero,
    /// Ubuntu's `kernel.apparmor_restrict_unprivileged_userns` is 1.
    AppArmor,
    /// A profile of AppArmor's, of this name, confines Kiln.
    Profile(String),
    /// The same, and it is an engine's for its containers.
    ContainerProfile(String),
    /// The kernel was built without.
    NotBuilt,
    /// A seccomp filter forbids it: a container's default.
    Filtered,
}

/// What is wrong with a program that has lost its rights, as some container images' have.
pub(super) const NOT_SETUID: &str = "is neither set-user-id root nor has it capabilities";

impl Because {
    fn found(&self) -> String {
        let found = match self {
            Because::MaxIsZero => "user.max_user_namespaces = 0",
            Because::MaxIsReached => "user.max_user_namespaces is reached",
            Because::CloneIsZero => "kernel.unprivileged_userns_clone = 0",
            Because::AppArmor => "kernel.apparmor_restrict_unprivileged_userns = 1",
            Because::Profile(name) | Because::ContainerProfile(name) => {
                return format!("the profile {name} of AppArmor");
            }
            Because::NotBuilt => "no /proc/self/ns/user: a kernel without CONFIG_USER_NS",
            Because::Filtered => "a seccomp filter, as containers have by default",
        };
        found.to_owned()
    }

    fn fix(&self) -> Option<String> {
        let fix = match self {
            Because::MaxIsZero | Because::MaxIsReached => "sudo sysctl -w user.max_user_namespaces=15000",
            Because::CloneIsZero => "sudo sysctl -w kernel.unprivileged_userns_clone=1",
            Because::AppArmor | Because::Profile(_) => return Some(profile()),
            Because::ContainerProfile(_) => "run the container with --security-opt apparmor=unconfined",
            Because::Filtered => "run the container with --security-opt seccomp=unconfined",
            Because::NotBuilt => return None,
        };
        Some(fix.to_owned())
    }
}

/// Makes a profile that lets Kiln have what other programs may not: the restriction stays for those.
fn profile() -> String {
    let found = fs::read_link("/proc/self/exe").ok();
    let program = found.as_deref().and_then(|path| path.to_str()).map_or_else(
        || "\"$(command -v kiln)\"".to_owned(),
        |path| format!("'{}'", path.replace('\'', "'\\''")),
    );
    format!(
        "printf 'abi <abi/4.0>,\\nprofile kiln \"%s\" flags=(unconfined) {{\\n  userns,\\n}}\\n' {program} \
         | sudo tee /etc/apparmor.d/kiln && sudo apparmor_parser -r /etc/apparmor.d/kiln"
    )
}

fn found(because: Option<&Because>) -> String {
    because.map(|because| format!(" (found: {})", because.found())).unwrap_or_default()
}

impl Lack {
    /// A command that would help, or an edit.
    pub fn fix(&self) -> Option<String> {
        match self {
            Lack::NotRoot { .. } => Some("sudo kiln …".to_owned()),
            Lack::NamespaceRoot => Some("kiln --sandbox=subids …".to_owned()),
            Lack::NoCapability { .. } => Some("run the container with --privileged".to_owned()),
            Lack::NoUserNamespaces { because, .. }
            | Lack::Powerless { because, .. }
            | Lack::Unmapped { because, .. }
            | Lack::ProgramFailed { because, .. } => because.as_ref().and_then(Because::fix),
            Lack::Unfit { other, .. } => Some(format!("kiln --root {} …", other.display())),
            Lack::NoProgram { .. } => Some(
                "sudo apt-get install uidmap (Debian, Ubuntu) or sudo dnf install shadow-utils (Fedora)"
                    .to_owned(),
            ),
            // The others are the container's to mend.
            Lack::ProgramPowerless { path, why } if *why == NOT_SETUID => {
                Some(format!("sudo chmod u+s {}", path.display()))
            }
            Lack::ProgramPowerless { .. } => Some("kiln --sandbox=single …".to_owned()),
            Lack::NoSubIds { user, free, .. } | Lack::FewSubIds { user, free, .. } => {
                let range = format!("{free}-{}", free + ENOUGH);
                Some(format!("sudo usermod --add-subuids {range} --add-subgids {range} {user}"))
            }
            Lack::NoNotification { .. } | Lack::Host { .. } => None,
        }
    }

    /// The number of the system call's error, if it was one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Lack::NoUserNamespaces { source, .. }
            | Lack::Powerless { source, .. }
            | Lack::Unmapped { source, .. }
            | Lack::Unfit { source, .. }
            | Lack::NoNotification { source }
            | Lack::Host { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}
