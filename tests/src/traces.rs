//! What a build that has ended may have left behind, and should not have.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// All that is left of builds in the state folder `root`, one sentence each; waits up to ten seconds for it to go.
///
/// Looked for: mounts (here and in any other mount namespace), processes that name the folder or `marker` on their
/// command line, held locks, leases, and half-made files. `marker` is a word that only the build's own steps use.
pub fn left_by(root: &Path, marker: &str) -> Vec<String> {
    let started = Instant::now();
    loop {
        let left = left_now(root, marker);
        if left.is_empty() || started.elapsed() > Duration::from_secs(10) {
            return left;
        }
        sleep(Duration::from_millis(20));
    }
}

fn left_now(root: &Path, marker: &str) -> Vec<String> {
    let mut left = running(root, marker);
    left.extend(mounted(root));
    left.extend(locked(root));
    left
}

/// Half-made files and leases under `root`: what the next build must have swept.
pub fn half_made(root: &Path) -> Vec<String> {
    ["tmp", "leases"]
        .iter()
        .flat_map(|folder| fs::read_dir(root.join(folder)).into_iter().flatten().flatten())
        .map(|entry| format!("half-made: {}", entry.path().display()))
        .collect()
}

/// The numbers of all processes, but for this one.
fn others() -> Vec<u32> {
    let own = std::process::id();
    let names = fs::read_dir("/proc").into_iter().flatten().flatten();
    names.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(|id| *id != own).collect()
}

/// Whether a process that is neither this one nor a zombie has `word` on its command line.
pub fn is_running(word: &str) -> bool {
    others().iter().any(|id| command_line(*id).contains(word))
}

fn command_line(id: u32) -> String {
    // A process may end between being listed and being read: then it has no command line, which is right.
    let bytes = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

fn running(root: &Path, marker: &str) -> Vec<String> {
    let root = root.display().to_string();
    let named = |line: &String| line.contains(&root) || (!marker.is_empty() && line.contains(marker));
    others()
        .into_iter()
        .map(|id| (id, command_line(id)))
        .filter(|(_, line)| named(line))
        .map(|(id, line)| format!("running: {id} {line}"))
        .collect()
}

fn mounted(root: &Path) -> Vec<String> {
    let root = root.display().to_string();
    let mut left = BTreeSet::new();
    for id in others().into_iter().chain([std::process::id()]) {
        let mounts = fs::read_to_string(format!("/proc/{id}/mountinfo")).unwrap_or_default();
        left.extend(
            mounts.lines().filter(|line| line.contains(&root)).map(|line| format!("mounted: {id} {line}")),
        );
    }
    left.into_iter().collect()
}

/// Locks of the kernel's list whose inode is one of the state folder's.
fn locked(root: &Path) -> Vec<String> {
    let mut inodes = BTreeSet::new();
    collect_inodes(root, &mut inodes);
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let inode = |line: &str| {
        line.split_whitespace().find(|word| word.matches(':').count() == 2)?.rsplit(':').next()?.parse().ok()
    };
    locks
        .lines()
        .filter(|line| inode(line).is_some_and(|inode: u64| inodes.contains(&inode)))
        .map(|line| format!("locked: {line}"))
        .collect()
}

fn collect_inodes(folder: &Path, inodes: &mut BTreeSet<u64>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        inodes.insert(metadata.ino());
        // Layers hold no locks, and are large.
        if metadata.is_dir() && entry.file_name() != "layers" {
            collect_inodes(&entry.path(), inodes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use rustix::fs::{FlockOperation, flock};

    use super::*;

    #[test]
    fn what_is_left_is_seen() {
        let root = tempfile::tempdir().expect("the temporary folder can be written");
        let marker = format!("marker-{}", root.path().file_name().expect("it has a name").display());
        assert_eq!(left_now(root.path(), &marker), Vec::<String>::new());

        // One that starts no other: between fork and exec, that one would have the same command line.
        let mut step = Command::new("sh")
            .args(["-c", &format!(": {marker}; read -r line")])
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell");
        while !is_running(&marker) {
            sleep(Duration::from_millis(1));
        }
        assert_eq!(left_now(root.path(), &marker).len(), 1);
        step.kill().expect("it is our child");
        step.wait().expect("it is our child");

        fs::create_dir(root.path().join("locks")).expect("the folder is empty");
        let lock = fs::File::create(root.path().join("locks/a")).expect("the folder can be written");
        flock(&lock, FlockOperation::LockExclusive).expect("nobody else has it");
        let left = left_now(root.path(), &marker);
        assert!(left.len() == 1 && left[0].starts_with("locked"), "{left:?}");
        drop(lock);
        assert_eq!(left_now(root.path(), &marker), Vec::<String>::new());

        fs::create_dir_all(root.path().join("tmp/lease")).expect("the folder can be written");
        assert_eq!(half_made(root.path()).len(), 1);
    }
}
