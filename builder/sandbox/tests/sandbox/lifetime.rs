//! When a step ends, everything of it ends; when the caller ends, so does the step.

use std::fs;
use std::process::{Command, Stdio as ProcessStdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sandbox::Status;

use crate::support::{Step, text};

/// Set for the process that a test kills; it names the folder to tell about itself in.
const HELPER: &str = "KILN_SANDBOX_HELPER";

/// Whether a process whose arguments hold this text is running.
fn is_running(marker: &str) -> bool {
    let Ok(processes) = fs::read_dir("/proc") else { return false };
    processes.flatten().any(|process| {
        let status = fs::read_to_string(process.path().join("status")).unwrap_or_default();
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        !status.contains("State:\tZ") && String::from_utf8_lossy(&line).contains(marker)
    })
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "waited in vain until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn daemons_end_with_the_step() {
    let Some(mut step) = Step::new() else { return };
    step.output("nohup sleep 98761 >/dev/null 2>&1 & (sleep 98761 &) ; true");
    assert!(!is_running("98761"));
}

#[test]
fn a_signal_reaches_the_process_and_a_kill_ends_all() {
    let Some(mut step) = Step::new() else { return };
    step.script("trap 'echo caught; exit 7' TERM; echo ready; while :; do sleep 0.01; done");
    let (running, out, _) = step.start().expect("the step starts");
    let ready = out.try_clone().expect("there are descriptors");
    wait_until("the trap is set", || ready.metadata().expect("it is open").len() > 0);
    running.signal(libc::SIGTERM).expect("it runs");
    assert_eq!(running.wait().expect("it ends").status, Status::Exited(7));
    assert_eq!(text(out), "ready\ncaught\n");
    step.renew();
    step.script("sleep 98762");
    let (running, _, _) = step.start().expect("the step starts");
    let handle = running.handle();
    let waiter = thread::spawn(move || running.wait().expect("it ends").status);
    handle.kill().expect("it runs");
    assert_eq!(waiter.join().expect("the thread does not panic"), Status::Signaled(9));
    assert!(!is_running("98762"));
    assert!(handle.kill().is_err(), "there is nobody left");
}

#[test]
fn a_dropped_step_is_killed() {
    let Some(mut step) = Step::new() else { return };
    step.script("sleep 98763");
    drop(step.start().expect("the step starts"));
    assert!(!is_running("98763"));
}

#[test]
fn the_pidfd_tells_the_end() {
    let Some(mut step) = Step::new() else { return };
    step.script("sleep 0.2");
    let (running, _, _) = step.start().expect("the step starts");
    let ready = |seconds| {
        let limit = Timespec { tv_sec: seconds, tv_nsec: 0 };
        poll(&mut [PollFd::from_borrowed_fd(running.pidfd(), PollFlags::IN)], Some(&limit))
            .expect("it is open")
    };
    assert_eq!((ready(0), ready(10)), (0, 1));
    assert!(running.wait().expect("it ends").status.is_success());
}

/// Not a test of its own: the process that `kill_of_the_caller_ends_the_step` kills.
#[test]
fn helper_that_is_killed() {
    let Some(folder) = std::env::var_os(HELPER) else { return };
    let Some(mut step) = Step::new() else { return };
    step.script("sleep 98764 & sleep 98764");
    let steps: Vec<_> = (0..3)
        .map(|_| {
            step.renew();
            step.start().expect("the step starts")
        })
        .collect();
    fs::write(folder, steps.len().to_string()).expect("the test waits for it");
    thread::sleep(Duration::from_secs(100));
}

#[test]
fn kill_of_the_caller_ends_the_step() {
    let Some(step) = Step::new() else { return };
    let told = step.at("told");
    let mut helper = Command::new(std::env::current_exe().expect("there is /proc"))
        .args(["--exact", "lifetime::helper_that_is_killed"])
        .env(HELPER, &told)
        .env("TMPDIR", step.folder.path())
        .stdout(ProcessStdio::null())
        .spawn()
        .expect("this test can be started again");
    wait_until("the helper's steps run", || told.exists() && is_running("98764"));
    helper.kill().expect("it runs");
    helper.wait().expect("it ends");
    wait_until("nothing of its steps is left", || !is_running("98764"));
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("there is /proc");
    assert!(!mounts.contains(&*step.folder.path().to_string_lossy()), "{mounts}");
}

/// A step that is cloned while another runs must not hold the other's life line.
#[test]
fn steps_run_side_by_side() {
    if Step::new().is_none() {
        return;
    }
    let threads: Vec<_> = (0..8)
        .map(|number| {
            thread::spawn(move || {
                for round in 0..10 {
                    let mut step = Step::new().expect("it was possible before");
                    let expected = format!("{number} {round}\n");
                    assert_eq!(step.output(&format!("echo {number} {round}")), expected);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("the steps succeed");
    }
}
