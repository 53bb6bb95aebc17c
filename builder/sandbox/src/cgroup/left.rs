//! How much memory there is for further processes.

use std::fs;
use std::path::Path;

use super::hierarchy::Hierarchies;
use super::settings::Controller;

/// How many bytes of memory more processes could take now: what the machine has (`MemAvailable`), or what the limits of this
/// process's own groups leave, if that is less. `None` where the kernel does not tell.
pub fn available_memory() -> Option<u64> {
    let machine = available(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let texts = (fs::read_to_string("/proc/self/cgroup"), fs::read_to_string("/proc/self/mountinfo"));
    let groups = match texts {
        (Ok(cgroup), Ok(mountinfo)) => left_by_groups(&Hierarchies::parse(&cgroup, &mountinfo)),
        _ => None,
    };
    Some(groups.map_or(machine, |left| left.min(machine)))
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// What the tightest of the own group and those above it leaves.
fn left_by_groups(found: &Hierarchies) -> Option<u64> {
    let (hierarchy, limit, used) = match (found.by_controller.get(&Controller::Memory), &found.unified) {
        (Some(hierarchy), _) => (hierarchy, "memory.limit_in_bytes", "memory.usage_in_bytes"),
        (None, Some(hierarchy)) => (hierarchy, "memory.max", "memory.current"),
        (None, None) => return None,
    };
    let number = |file: &Path| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
    let left = |folder: &Path| {
        let limit = number(&folder.join(limit))?;
        let used = number(&folder.join(used))?;
        let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        // Files that nobody has touched for a while are given up first.
        let idle = stat.lines().find_map(|line| line.strip_prefix("inactive_file ")?.parse::<u64>().ok());
        Some(limit.saturating_sub(used.saturating_sub(idle.unwrap_or(0))))
    };
    let groups = hierarchy.own.ancestors().take_while(|folder| folder.starts_with(&hierarchy.mount));
    groups.filter_map(left).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::hierarchy::Hierarchy;

    #[test]
    fn the_tightest_group_counts() {
        let root = tempfile::tempdir().expect("a folder");
        let own = root.path().join("a/b");
        fs::create_dir_all(&own).expect("made");
        let group = |folder: &Path, files: &[(&str, &str)]| {
            files.iter().for_each(|(name, text)| fs::write(folder.join(name), text).expect("written"));
        };
        group(&own, &[("memory.max", "max\n"), ("memory.current", "50\n")]);
        group(
            &root.path().join("a"),
            &[
                ("memory.max", "1000\n"),
                ("memory.current", "700\n"),
                ("memory.stat", "anon 5\ninactive_file 200\n"),
            ],
        );
        group(root.path(), &[("memory.max", "9000\n"), ("memory.current", "700\n")]);
        let hierarchy = Hierarchy { mount: root.path().to_owned(), own };
        let found = Hierarchies { unified: Some(hierarchy), ..Hierarchies::default() };
        assert_eq!(left_by_groups(&found), Some(500));
        assert_eq!(left_by_groups(&Hierarchies::default()), None);
    }

    #[test]
    fn the_machine_says_what_it_has() {
        assert_eq!(available("MemTotal: 8 kB\nMemAvailable:      12 kB\n"), Some(12288));
        assert_eq!(available("MemTotal: 8 kB\n"), None);
        assert_eq!(available("MemAvailable: x kB\n"), None);
        assert!(available_memory().is_some_and(|bytes| bytes > 0));
    }
}
