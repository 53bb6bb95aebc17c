//! Where this process stands in the control groups, as `/proc/self/cgroup` and `/proc/self/mountinfo` tell it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::settings::Controller;

/// One tree of groups, and where in it this process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// The folder of the group that this process is in.
    pub own: PathBuf,
}

/// The trees that have limits. A controller is in one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hierarchies {
    /// Those of version 1.
    pub by_controller: BTreeMap<Controller, Hierarchy>,
    /// That of version 2.
    pub unified: Option<Hierarchy>,
}

impl Hierarchies {
    /// Reads the two texts. What is mounted twice counts once, where it is mounted first.
    pub fn parse(cgroup: &str, mountinfo: &str) -> Hierarchies {
        let mut found = Hierarchies::default();
        for line in mountinfo.lines() {
            let Some(mounted) = Mounted::parse(line) else { continue };
            if mounted.kind == "cgroup2" {
                let own = own_group(cgroup, |controllers| controllers.is_empty());
                found.unified = found.unified.or_else(|| own.map(|own| mounted.hierarchy(own)));
            } else if mounted.kind == "cgroup" {
                for controller in Controller::ALL {
                    let names = |list: &str| list.split(',').any(|name| name == controller.name());
                    if names(mounted.options)
                        && let Some(own) = own_group(cgroup, names)
                    {
                        found.by_controller.entry(controller).or_insert_with(|| mounted.hierarchy(own));
                    }
                }
            }
        }
        found
    }
}

/// The path of this process's group in the tree whose controllers are those.
fn own_group(cgroup: &str, controllers: impl Fn(&str) -> bool) -> Option<&str> {
    cgroup.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (list, path) = rest.split_once(':')?;
        controllers(list).then_some(path)
    })
}

/// A line of `/proc/self/mountinfo`.
struct Mounted<'a> {
    /// The group that is shown at the mount point.
    root: &'a str,
    at: PathBuf,
    kind: &'a str,
    options: &'a str,
}

impl Mounted<'_> {
    fn parse(line: &str) -> Option<Mounted<'_>> {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, at) = (mount.next()?, mount.next()?);
        let mut file_system = file_system.split(' ');
        let (kind, _source, options) = (file_system.next()?, file_system.next()?, file_system.next()?);
        Some(Mounted { root, at: unescaped(at), kind, options })
    }

    fn hierarchy(&self, own: &str) -> Hierarchy {
        // A group outside of what is mounted is shown as what is mounted.
        let below = match own.strip_prefix(self.root.trim_end_matches('/')) {
            Some(below) if below.is_empty() || below.starts_with('/') => below.trim_start_matches('/'),
            _ => "",
        };
        let below = if below.split('/').any(|part| part == "..") { "" } else { below };
        let own = if below.is_empty() { self.at.clone() } else { self.at.join(below) };
        Hierarchy { mount: self.at.clone(), own }
    }
}

/// The kernel writes blanks, tabs, newlines and backslashes of paths as three octal digits.
fn unescaped(path: &str) -> PathBuf {
    let table = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    PathBuf::from(table.iter().fold(path.to_owned(), |path, (code, c)| path.replace(code, c)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
33 24 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct
36 24 0:32 / /sys/fs/cgroup/memory rw,relatime shared:5 - cgroup cgroup rw,memory
42 24 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
43 24 0:38 / /somewhere\\040else rw,relatime - cgroup2 cgroup2 rw
44 24 0:39 / /tmp rw - tmpfs tmpfs rw
nonsense
";

    #[test]
    fn hierarchies_of_both_versions_are_found() {
        let found = Hierarchies::parse("4:memory:/a/b\n1:cpu,cpuacct:/\n0::/c\n", HYBRID);
        let hierarchy = |mount: &str, own: &str| Hierarchy { mount: mount.into(), own: own.into() };
        assert_eq!(
            found.by_controller.into_iter().collect::<Vec<_>>(),
            [
                (Controller::Cpu, hierarchy("/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu/")),
                (Controller::Memory, hierarchy("/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/a/b")),
            ]
        );
        assert_eq!(found.unified, Some(hierarchy("/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified/c")));
    }

    #[test]
    fn a_container_sees_its_own_part() {
        let mounted = |root: &str| format!("36 24 0:32 {root} /cg rw - cgroup2 cgroup2 rw\n");
        for (root, own, expected) in [
            ("/docker/x", "/docker/x", "/cg"),
            ("/docker/x", "/docker/x/y", "/cg/y"),
            ("/docker/x", "/docker/xy", "/cg"),
            ("/docker/x", "/", "/cg"),
            ("/", "/../outside", "/cg"),
            ("/", "/", "/cg"),
        ] {
            let found = Hierarchies::parse(&format!("0::{own}\n"), &mounted(root)).unified;
            assert_eq!(found.map(|found| found.own), Some(PathBuf::from(expected)), "{root} {own}");
        }
        assert_eq!(Hierarchies::parse("", ""), Hierarchies::default());
        assert_eq!(Hierarchies::parse("4:memory:/\n", &mounted("/")), Hierarchies::default());
    }
}
