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

fn restricted() -> Option<Because> {
    (setting("kernel/apparmor_restrict_unprivileged_userns") == Some(1)).then_some(Because::AppArmor)
}
