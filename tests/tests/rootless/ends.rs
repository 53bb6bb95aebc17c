//! A build that is interrupted or killed leaves nothing behind.

use std::fs;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use kiln_tests::traces;
use rustix::process::{Pid, Signal, kill_process};

use crate::place::Place;
use crate::{MODES, cannot};

/// The step waits to be ended, the first time.
const DOCKERFILE: &str = "FROM busybox
RUN mkdir /d && touch /d/f && chown -R 5:6 /d
RUN --mount=type=cache,target=/c : {marker}; rm -r /d; test -e /c/f || { touch /c/f; sleep 600; echo; }; echo
RUN --mount=type=cache,target=/c rm /c/f
";

/// Ended with this, so that a test that fails leaves nothing running.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        // It has ended by itself, or the test has failed already.
        let _killed = self.0.kill();
        let _ended = self.0.wait();
    }
}

#[test]
fn nothing_is_left() {
    if cannot("ends::nothing_is_left") {
        return;
    }
    for mode in MODES {
        for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
            let place = Place::new(mode, DOCKERFILE);
            let root = place.root();
            let mut command = place.build(&root, "", &[]);
            let mut build =
                Started(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts"));
            let started = Instant::now();
            while !traces::is_running(&place.marker) {
                assert!(started.elapsed() < Duration::from_secs(60), "{mode:?}: the step does not start");
                assert_eq!(build.0.try_wait().expect("it is ours"), None, "{mode:?}: the build has ended");
                sleep(Duration::from_millis(5));
            }
            // What it does first is done.
            while !below_mounts_is(&root, "f") {
                assert!(started.elapsed() < Duration::from_secs(60), "{mode:?}: the step does not write");
                sleep(Duration::from_millis(5));
            }
            let process = Pid::from_child(&build.0);
            kill_process(process, signal).expect("it runs");
            let status = build.0.wait().expect("it is ours");
            assert_eq!(status.code(), (signal != Signal::KILL).then_some(130), "{mode:?}: {signal:?}");
            let left = traces::left_by(&root, &place.marker);
            assert!(left.is_empty(), "{mode:?}: {signal:?}: left behind:\n{}", left.join("\n"));

            // Nor what a process left that was killed while it looked at what there is.
            fs::create_dir_all(root.join("tmp/.kiln-look.4000000/upper")).expect("root may");
            mode.own(&root.join("tmp")).expect("root gives away what is root's");
            place.built(&root, "", &[]);
            let half_made = traces::half_made(&root);
            assert!(half_made.is_empty(), "{mode:?}: {signal:?}: {half_made:?}");
            let left = traces::left_by(&root, &place.marker);
            assert!(left.is_empty(), "{mode:?}: {signal:?}: left behind:\n{}", left.join("\n"));
        }
    }
}

/// Whether a cache mount's folder has such a file.
fn below_mounts_is(root: &std::path::Path, name: &str) -> bool {
    let folders = fs::read_dir(root.join("mounts")).into_iter().flatten().flatten();
    folders
        .flat_map(|folder| fs::read_dir(folder.path()).into_iter().flatten().flatten())
        .any(|entry| entry.file_name() == name || entry.path().join(name).exists())
}
