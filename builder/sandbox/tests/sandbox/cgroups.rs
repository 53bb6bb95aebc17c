//! Limits that the kernel keeps: real groups, where this machine lets one make them.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sandbox::{Cgroups, Group, GroupUsage, Membership, Resources, Status, Swap};

use crate::support::{Outcome, Step};

/// The groups of a build with these limits; none, after printing why, where there can be none.
fn cgroups(test: &str, resources: Resources) -> Option<Cgroups> {
    match Cgroups::open(resources, None) {
        Ok(cgroups) => Some(cgroups),
        Err(error) => {
            println!("SKIP {test}: {error}");
            None
        }
    }
}

/// Runs a script in a group of its own.
fn run(step: &mut Step, group: &Group, script: &str) -> (Outcome, GroupUsage) {
    step.spec.groups = group.memberships().to_vec();
    let outcome = step.run(script);
    (outcome, group.usage())
}

fn folders(group: &Group) -> Vec<PathBuf> {
    group.memberships().iter().map(|membership| membership.folder.clone()).collect()
}

fn all_are(there: bool, folders: &[PathBuf]) -> bool {
    !folders.is_empty() && folders.iter().all(|folder| folder.exists() == there)
}

#[test]
fn a_step_that_takes_too_much_memory_is_killed_for_it() {
    let Some(mut step) = Step::new() else { return };
    let memory_bytes = Some(64 << 20);
    let resources =
        Resources { memory_bytes, memory_swap: Some(Swap::Total(64 << 20)), ..Resources::default() };
    let Some(cgroups) = cgroups("a_step_that_takes_too_much_memory_is_killed_for_it", resources) else {
        return;
    };
    let group = cgroups.group().expect("the limits are good");
    // A block of dd is memory of its own.
    let (outcome, usage) = run(&mut step, &group, "dd if=/dev/zero of=/dev/null bs=256M count=1; echo $?");
    assert_eq!(outcome.stdout.trim(), "137", "{}", outcome.stderr);
    assert_eq!(usage.killed_for_memory, 1);
    let peak = usage.peak_memory_bytes.expect("the kernel tells");
    assert!((32 << 20..=64 << 20).contains(&peak), "{peak}");

    let next = cgroups.group().expect("another");
    let Some(mut step) = Step::new() else { return };
    let (outcome, usage) = run(&mut step, &next, "dd if=/dev/zero of=/dev/null bs=8M count=1");
    assert_eq!(outcome.report.status, Status::Exited(0));
    assert_eq!(usage.killed_for_memory, 0, "it is told of each group on its own");
}

#[test]
fn a_fork_bomb_stays_small() {
    let Some(mut step) = Step::new() else { return };
    let resources = Resources { pids: Some(50), ..Resources::default() };
    let Some(cgroups) = cgroups("a_fork_bomb_stays_small", resources) else { return };
    let group = cgroups.group().expect("the limits are good");
    // The shell itself is one of the fifty.
    let script = "i=0; while [ $i -lt 49 ]; do sleep 60 & i=$((i+1)); done; echo all; sleep 60 & echo more";
    let (outcome, _) = run(&mut step, &group, script);
    assert_eq!(outcome.stdout.trim(), "all", "{}", outcome.stderr);
    assert!(outcome.stderr.contains("fork"), "{}", outcome.stderr);
    let Some(mut step) = Step::new() else { return };
    let (bomb, _) = run(&mut step, &group, "bomb() { bomb | bomb & }; bomb; sleep 0.3; echo still here");
    assert_ne!(bomb.report.status, Status::Exited(127));
    let left = folders(&group);
    drop(group);
    assert!(all_are(false, &left), "{left:?}");
}

#[test]
fn a_quota_of_processor_time_is_kept() {
    let Some(mut step) = Step::new() else { return };
    let half = Resources {
        cpu_period_microseconds: Some(10_000),
        cpu_quota_microseconds: Some(5_000),
        ..Resources::default()
    };
    let Some(cgroups) = cgroups("a_quota_of_processor_time_is_kept", half) else { return };
    let group = cgroups.group().expect("the limits are good");
    let (outcome, usage) = run(&mut step, &group, "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done");
    assert_eq!(outcome.report.status, Status::Exited(0), "{}", outcome.stderr);
    // It works without a pause, for many periods: it has to be stopped in nearly all of them.
    assert!(usage.throttled_periods > 3, "{usage:?}");
}

#[test]
fn a_step_sees_its_own_group_as_the_first_one() {
    let Some(mut step) = Step::new() else { return };
    let resources = Resources { pids: Some(50), cpuset_cpus: Some("0".to_owned()), ..Resources::default() };
    let Some(cgroups) = cgroups("a_step_sees_its_own_group_as_the_first_one", resources) else { return };
    let group = cgroups.group().expect("the limits are good");
    let script = "grep -E ':(pids|cpuset|):' /proc/self/cgroup; grep Cpus_allowed_list /proc/self/status";
    let (outcome, _) = run(&mut step, &group, script);
    let (paths, allowed): (Vec<&str>, Vec<&str>) =
        outcome.stdout.lines().partition(|line| line.contains(':') && !line.starts_with("Cpus"));
    assert!(!paths.is_empty(), "{}", outcome.stdout);
    assert!(paths.iter().all(|line| line.ends_with(":/")), "{}", outcome.stdout);
    assert_eq!(allowed, ["Cpus_allowed_list:\t0"]);
}

#[test]
fn nothing_is_left_of_groups() {
    let resources = Resources { memory_bytes: Some(64 << 20), pids: Some(5), ..Resources::default() };
    let Some(cgroups) = cgroups("nothing_is_left_of_groups", resources) else { return };
    let group = cgroups.group().expect("the limits are good");
    let made = folders(&group);
    assert!(all_are(true, &made));
    let build: Vec<PathBuf> =
        made.iter().filter_map(|folder| folder.parent()).map(Path::to_path_buf).collect();
    // The groups of the build go with what is in them.
    std::mem::forget(group);
    drop(cgroups);
    assert!(all_are(false, &build), "{build:?}");
}

#[test]
fn a_value_that_the_kernel_refuses_is_named() {
    let resources = Resources { cpuset_cpus: Some("4000".to_owned()), ..Resources::default() };
    let Some(cgroups) = cgroups("a_value_that_the_kernel_refuses_is_named", resources) else { return };
    let error = cgroups.group().expect_err("there is no such processor");
    assert!(error.to_string().contains("cpuset-cpus=4000"), "{error}");
    assert!(error.help().expect("a line").contains("/sys/devices/system/cpu/online"));
}

#[test]
fn a_named_parent_is_made_and_holds_the_groups() {
    let resources = Resources { pids: Some(9), ..Resources::default() };
    let name = format!("kiln-test-{}", std::process::id());
    let opened = Cgroups::open(resources, Some(Path::new(&format!("/{name}/below"))));
    let cgroups = match opened {
        Ok(cgroups) => cgroups,
        Err(error) => return println!("SKIP a_named_parent_is_made_and_holds_the_groups: {error}"),
    };
    let group = cgroups.group().expect("the limits are good");
    let made = folders(&group);
    let parents: Vec<PathBuf> =
        made.iter().filter_map(|folder| folder.ancestors().nth(2)).map(Path::to_path_buf).collect();
    assert!(parents.iter().all(|parent| parent.ends_with(format!("{name}/below"))), "{parents:?}");
    if let Some(mut step) = Step::new() {
        let (outcome, _) = run(&mut step, &group, "echo in");
        assert_eq!(outcome.stdout, "in\n", "{}", outcome.stderr);
    }
    drop((group, cgroups));
    for parent in parents {
        fs::remove_dir(&parent).expect("it is empty, and stays for the next build");
        fs::remove_dir(parent.parent().expect("it has one")).expect("it is empty");
    }
}

/// Where version 2 is mounted, with or without controllers.
fn unified() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
    line.split(' ').nth(4).map(PathBuf::from)
}

#[test]
fn a_step_is_cloned_into_a_group_of_version_2() {
    let Some(mut step) = Step::new() else { return };
    let name = format!("kiln-test-v2-{}", std::process::id());
    let made = unified().map(|mount| mount.join(name)).filter(|folder| fs::create_dir(folder).is_ok());
    let Some(folder) = made else {
        return println!(
            "SKIP a_step_is_cloned_into_a_group_of_version_2: no group of version 2 can be made"
        );
    };
    step.spec.groups = vec![Membership { folder: folder.clone(), unified: true }];
    let started = step.script("echo in; grep ^0:: /proc/self/cgroup; sleep 1000").start();
    let (running, out, _) = started.expect("the group is there");
    let processes = fs::read_to_string(folder.join("cgroup.procs")).expect("the group is there");
    let (mut text, since) = (String::new(), Instant::now());
    while text.lines().count() < 2 {
        assert!(since.elapsed() < Duration::from_secs(20), "{text}");
        // Without a seek, which would move the step's own place in the file.
        let mut bytes = [0; 64];
        let length = out.read_at(&mut bytes, 0).expect("it is a file");
        text = String::from_utf8_lossy(&bytes[..length]).into_owned();
    }
    running.kill().expect("it runs");
    drop(running);
    // PID 1, and what it has started.
    assert!(processes.lines().count() >= 2, "{processes}");
    assert_eq!(text, "in\n0::/\n");
    // The kernel may be a moment late with the last process.
    let since = Instant::now();
    while fs::remove_dir(&folder).is_err() {
        assert!(since.elapsed() < Duration::from_secs(10), "something is in it");
    }
}
