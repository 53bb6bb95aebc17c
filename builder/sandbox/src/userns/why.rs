//! What makes the kernel refuse: read from where its settings are.

use std::{fs, io, path::Path};

use super::lack::{Because, Lack};

/// A setting that is a number.
fn setting(name: &str) -> Option<u64> {
    fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?.trim().parse().ok()
}

/// `unshare(CLONE_NEWUSER)` failed.
pub(super) fn no_namespace(source: io::Error) -> Lack {
    let is_filtered = || {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2"))
    };
    let because = if !Path::new("/proc/self/ns/user").exists() {
        Some(Because::NotBuilt)
    } else if setting("user/max_user_namespaces") == Some(0) {
        Some(Because::MaxIsZero)
    } else if source.raw_os_error() == Some(libc::ENOSPC) {
        Some(Because::MaxIsReached)
    } else if setting("kernel/unprivileged_userns_clone") == Some(0) {
        Some(Because::CloneIsZero)
    } else {
        restricted().or_else(|| is_filtered().then_some(Because::Filtered))
    };
    Lack::NoUserNamespaces { source, because }
}

/// There is a namespace, and a call failed in it that its root may make.
pub(super) fn powerless(call: &'static str, source: io::Error) -> Lack {
    Lack::Powerless { call, source, because: restricted() }
}

/// A namespace was made, and its ids could not be mapped.
pub(super) fn unmapped(file: &'static str, source: io::Error) -> Lack {
    Lack::Unmapped { file, source, because: restricted() }
}

/// The same, where another program was to do it.
pub(super) fn program_failed(program: &'static str, said: String) -> Lack {
    Lack::ProgramFailed { program, said, because: restricted() }
}

fn restricted() -> Option<Because> {
    if setting("kernel/apparmor_restrict_unprivileged_userns") == Some(1) {
        return Some(Because::AppArmor);
    }
    let label = fs::read_to_string("/proc/self/attr/apparmor/current").ok()?;
    let name = confining(&label)?.to_owned();
    let is_engines = ENGINES.iter().any(|start| name.starts_with(start));
    Some(if is_engines { Because::ContainerProfile(name) } else { Because::Profile(name) })
}

/// How the names begin of the profiles that Docker, Podman and containerd give their containers.
const ENGINES: [&str; 3] = ["docker-default", "containers-default", "cri-containerd.apparmor.d"];

/// The profile that a label of AppArmor's names, if it confines.
fn confining(label: &str) -> Option<&str> {
    let (name, mode) = label.trim().rsplit_once(" (")?;
    ["enforce)", "kill)", "mixed)"].contains(&mode).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::confining;

    #[test]
    fn a_label_says_who_confines() {
        let table = [
            ("unconfined\n", None),
            ("kiln (unconfined)\n", None),
            ("kiln (complain)", None),
            ("docker-default (enforce)\n", Some("docker-default")),
            ("a b (kill)", Some("a b")),
            ("one//&two (mixed)", Some("one//&two")),
            ("", None),
        ];
        for (label, expected) in table {
            assert_eq!(confining(label), expected, "{label:?}");
        }
    }
}
