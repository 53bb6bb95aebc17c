//! Groups in folders with files in place of the kernel's.

use super::*;

/// A group as version 2 has it, with controllers that it has and controllers that it gives.
fn group(folder: &Path, has: &str, gives: &str) {
    fs::create_dir_all(folder).expect("made");
    for (file, text) in [("cgroup.controllers", has), ("cgroup.subtree_control", gives), ("cgroup.procs", "")]
    {
        fs::write(folder.join(file), text).expect("written");
    }
}

fn unified(mount: &Path, own: &str) -> Hierarchies {
    let hierarchy = Hierarchy { mount: mount.to_owned(), own: mount.join(own) };
    Hierarchies { unified: Some(hierarchy), by_controller: BTreeMap::new() }
}

fn memory() -> Resources {
    Resources { memory_bytes: Some(1 << 20), ..Resources::default() }
}

/// The names of the folders in a folder.
fn folders(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("read").flatten();
    let folders = entries.filter(|entry| entry.path().is_dir());
    folders.map(|entry| entry.file_name().into_string().expect("text")).collect()
}

#[test]
fn a_group_that_gives_what_is_needed_is_used() {
    let root = tempfile::tempdir().expect("a folder");
    group(root.path(), "cpu memory", "memory");
    group(&root.path().join("own"), "memory", "");
    let found = unified(root.path(), "own");
    // Kiln's own group has nothing that it can give, for a file here cannot become one of the kernel's: the next is asked.
    fs::remove_file(root.path().join("own/cgroup.subtree_control")).expect("removed");
    let opened = Cgroups::on(&found, memory(), None);
    // The folder of the build has no control files either, and says so.
    let Err(CgroupError::NotOurs { folder, .. }) = opened else { panic!("{opened:?}") };
    assert!(folder.ends_with("own"), "{}", folder.display());
    assert_eq!(folders(root.path()), ["own"], "nothing is left of what could not be made");
}

#[test]
fn what_no_hierarchy_has_is_told_by_the_limit() {
    let root = tempfile::tempdir().expect("a folder");
    group(root.path(), "cpu", "");
    for found in [unified(root.path(), ""), Hierarchies::default()] {
        let error = Cgroups::on(&found, memory(), None).expect_err("no memory");
        let CgroupError::NoController { limit: "memory", controller: "memory" } = &error else {
            panic!("{error}")
        };
        assert!(error.help().expect("a line").contains("cgroup_enable=memory"));
    }
    let parent = Cgroups::on(&Hierarchies::default(), Resources::default(), Some(Path::new("/builds")));
    assert!(matches!(parent, Err(CgroupError::NoController { limit: "cgroup-parent", .. })), "{parent:?}");
}

#[test]
fn a_named_group_without_processors_is_given_some() {
    let root = tempfile::tempdir().expect("a folder");
    let named = root.path().join("builds/mine");
    fs::create_dir_all(&named).expect("made");
    for (folder, cpus) in [(root.path(), "0-3\n"), (&root.path().join("builds"), "0-1\n"), (&named, "\n")] {
        fs::write(folder.join("cpuset.cpus"), cpus).expect("written");
        fs::write(folder.join("cpuset.mems"), "0\n").expect("written");
    }
    let found = base::parent(root.path(), Path::new("builds/mine"), &[]).expect("it is there");
    assert_eq!(found, named);
    let cpus = |folder: &Path| fs::read_to_string(folder.join("cpuset.cpus")).expect("read");
    assert_eq!((cpus(&named).trim(), cpus(&root.path().join("builds")).trim()), ("0-1", "0-1"));
}

#[test]
fn one_of_version_1_is_made_in_the_own_group_and_goes_again() {
    let root = tempfile::tempdir().expect("a folder");
    fs::create_dir(root.path().join("own")).expect("made");
    let hierarchy = Hierarchy { mount: root.path().to_owned(), own: root.path().join("own") };
    let by_controller = [(Controller::Memory, hierarchy)].into();
    let found = Hierarchies { by_controller, unified: None };
    let cgroups = Cgroups::on(&found, memory(), None).expect("made");
    let [build] = &folders(&root.path().join("own"))[..] else { panic!("one build") };
    // No file of the kernel appears in a folder of a disk: the limit is refused by name, and the group is gone.
    let error = cgroups.group().expect_err("no file");
    let CgroupError::Refused { limit: "memory", value, .. } = &error else { panic!("{error}") };
    assert_eq!(value, "1048576");
    assert_eq!(folders(&root.path().join("own").join(build)), Vec::<String>::new());
    drop(cgroups);
    assert_eq!(folders(&root.path().join("own")), Vec::<String>::new());
}

#[test]
fn usage_is_read_from_either_version() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("written");
    write("memory.peak", "4096\n");
    write("memory.events", "low 0\noom 9\noom_kill 2\noom_group_kill 7\n");
    write("memory.max_usage_in_bytes", "8192\n");
    write("memory.oom_control", "oom_kill_disable 5\nunder_oom 0\noom_kill 3\n");
    write("cpu.stat", "nr_periods 10\nnr_throttled 6\n");
    let usage = |version| {
        let memory = Some((folder.path().to_owned(), version));
        Group { memberships: Vec::new(), memory, cpu: Some(folder.path().to_owned()) }.usage()
    };
    let expected = |peak, killed| GroupUsage {
        peak_memory_bytes: Some(peak),
        killed_for_memory: killed,
        throttled_periods: 6,
    };
    assert_eq!(usage(Version::Two), expected(4096, 2));
    assert_eq!(usage(Version::One), expected(8192, 3));
    fs::remove_file(folder.path().join("memory.peak")).expect("removed");
    assert_eq!(usage(Version::Two).peak_memory_bytes, None);
}
