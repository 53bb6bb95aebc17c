//! Steps that are kept in by `chroot` alone.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use sandbox::{Mode, Rootfs, Status};

use crate::support::Step;

/// A step on a copy of the busybox layer.
fn step() -> Option<Step> {
    let mut step = Step::but_in(&[Mode::SINGLE], "a chroot alone is for who has several ids")?;
    let path = step.at("base");
    for name in ["dev", "proc", "etc"] {
        fs::create_dir_all(path.join(name)).expect("the folder can be made");
    }
    step.spec.mode = Mode::CHROOT;
    step.spec.rootfs = Rootfs::Directory { path };
    Some(step)
}

/// Whether a process with this word in its command line runs. Zombies have none.
fn runs(word: &str) -> bool {
    let processes = fs::read_dir("/proc").expect("there is /proc").flatten();
    processes.map(|entry| entry.path().join("cmdline")).any(|path| {
        let line = fs::read(path).unwrap_or_default();
        line.windows(word.len()).any(|window| window == word.as_bytes())
    })
}

#[test]
fn a_step_sees_its_root_and_writes_to_it() {
    let Some(mut step) = step() else { return };
    assert_eq!(step.output("pwd; echo out > /made; ls /"), "/\nbin\ndev\netc\nmade\nproc\ntmp\n");
    assert_eq!(fs::read_to_string(step.at("base/made")).expect("it was made"), "out\n");
    assert_eq!(step.run("exit 7").report.status, Status::Exited(7));
    step.spec.user.uid = 1000;
    assert_eq!(step.output("id -u; touch /tmp/x || echo refused"), "1000\nrefused\n");
}

#[test]
fn root_cannot_climb_out_by_a_second_chroot() {
    let Some(mut step) = step() else { return };
    std::os::unix::fs::symlink("busybox", step.at("base/bin/chroot")).expect("the link is new");
    let outcome = step.run("mkdir /inner && cd / && chroot /inner /bin/true; echo $?");
    assert_eq!(outcome.stdout, "1\n", "{}", outcome.stderr);
    assert!(outcome.stderr.contains("Operation not permitted"), "{}", outcome.stderr);
}

#[test]
fn nothing_that_a_step_began_outlives_it() {
    let Some(mut step) = step() else { return };
    // Orphans of orphans, in sessions of their own, and one that shows no mercy to a signal.
    let script = "(nohup sh -c 'sleep 417.25 & sleep 417.25 & trap \"\" TERM HUP; sleep 417.25' >/tmp/l 2>&1 &) ; \
                  (setsid sleep 417.25 </dev/null >/tmp/m 2>&1 &) 2>/tmp/n; sleep 0.2; echo done";
    std::os::unix::fs::symlink("busybox", step.at("base/bin/setsid")).expect("the link is new");
    fs::write(step.at("base/dev/null"), "").expect("a file for it");
    assert_eq!(step.output(script), "done\n");
    assert!(!runs("417.25"), "something is left");
}

#[test]
fn a_step_that_is_killed_takes_its_processes_along() {
    let Some(mut step) = step() else { return };
    step.script("(sleep 418.75 &); (sh -c 'sleep 418.75; true' &); echo ready > /ready; sleep 418.75");
    let (running, _out, _err) = step.start().expect("it starts");
    wait_for(&step.at("base/ready"));
    assert!(runs("418.75"));
    running.kill().expect("it runs");
    let report = running.wait().expect("it can be waited for");
    assert_eq!(report.status, Status::Signaled(9));
    assert!(!runs("418.75"), "something is left");
}

#[test]
fn a_step_that_is_dropped_is_gone() {
    let Some(mut step) = step() else { return };
    step.script("(sleep 419.5 &); echo ready > /ready; sleep 419.5");
    let (running, _out, _err) = step.start().expect("it starts");
    wait_for(&step.at("base/ready"));
    drop(running);
    assert!(!runs("419.5"), "something is left");
}

fn wait_for(path: &Path) {
    let began = Instant::now();
    while !path.exists() {
        assert!(began.elapsed() < Duration::from_secs(20), "{} did not come", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}
