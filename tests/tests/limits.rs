//! Limits of steps: memory, processes, processor time, time; what a step took; and builds beside builds.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use kiln_tests::machine;
use kiln_tests::program::{Build, Run, kiln, program, said};
use kiln_tests::traces;
use serde_json::Value;

/// A context with Dockerfiles, and a state folder beside it.
struct Place {
    folder: tempfile::TempDir,
    marker: String,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::Builder::new().prefix("kiln-limits-").tempdir().expect("a folder");
        let name = folder.path().file_name().expect("made with a name").to_string_lossy().into_owned();
        fs::create_dir(folder.path().join("context")).expect("its parent is empty");
        Place { folder, marker: format!("marker-{name}") }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// A build of these instructions on busybox; `{marker}` is a word that no other process has.
    fn build(&self, instructions: &str, flags: &[&str]) -> Build {
        let text = format!("FROM busybox\n{}\n", instructions.replace("{marker}", &self.marker));
        self.build_of(&text, flags)
    }

    fn build_of(&self, dockerfile: &str, flags: &[&str]) -> Build {
        let context = self.folder.path().join("context");
        fs::write(context.join("Dockerfile"), dockerfile).expect("the context can be written");
        let base = machine::base_argument().expect("the test asked for it");
        let build = Build::new(&self.root(), &context).argument("--build-context").argument(base);
        let build = build.argument("-o").argument("type=cacheonly");
        flags.iter().fold(build, |build, flag| build.argument(*flag))
    }
}

/// A build in the background; killed when dropped, so that a test that fails leaves nothing running.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        // It has ended by itself, or the test has failed already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a build said, every line that is an event.
fn events(build: &Build) -> (Vec<Value>, String) {
    let output = build.command().output().expect("the program was built");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect(), text)
}

fn fails(run: &Run, parts: &[&str]) {
    assert_eq!(run.status, Some(1), "{}", run.stderr);
    for part in parts {
        assert!(run.stderr.contains(part), "no `{part}` in:\n{}", run.stderr);
    }
}

/// The control groups that the process of that id has made, anywhere.
fn groups_of(process: u32) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            match entry.file_name().to_string_lossy().starts_with(&format!("kiln.{process}.")) {
                true => found.push(entry.path()),
                false => left.push(entry.path()),
            }
        }
    }
    found
}

const HOG: &str = r#"RUN echo before && awk 'BEGIN { s = "x"; while (1) s = s s }'"#;

#[test]
fn a_step_that_takes_too_much_memory_is_told_of_it() {
    if machine::cannot(
        "a_step_that_takes_too_much_memory_is_told_of_it",
        ["steps", "busybox", "cgroup:memory"],
    ) {
        return;
    }
    let place = Place::new();
    let run = place.build(HOG, &["--memory", "64m"]).run();
    fails(&run, &["error[out-of-memory]", "it may have 64m", "Dockerfile:2:1", "--memory 128m", "| before"]);
    let run = place.build(HOG, &["--resource", "memory=64m,memory-swap=64m"]).run();
    fails(&run, &["error[out-of-memory]"]);
}

#[test]
fn a_shell_in_a_step_has_the_limits_of_its_flags() {
    let test = "a_shell_in_a_step_has_the_limits_of_its_flags";
    if machine::cannot(test, ["steps", "busybox", "cgroup:memory", "cgroup:pids"]) {
        return;
    }
    let place = Place::new();
    assert_eq!(place.build("RUN echo made", &[]).run().status, Some(0));
    let enter = |flags: &[&str], text: &str| {
        let mut shell = kiln();
        shell.arg("--root").arg(place.root()).arg("shell").args(flags).args(["stage-0:2", "sh", "-c", text]);
        shell.stdin(Stdio::null()).output().expect("the program was built")
    };
    let hog = HOG.trim_start_matches("RUN ");
    let killed = enter(&["--memory", "64m"], hog);
    assert!(!killed.status.success(), "{}", said(&killed));
    assert!(
        said(&killed).contains("warning: a process was killed because its memory limit"),
        "{}",
        said(&killed)
    );
    let crowd = "for i in 1 2 3 4 5 6; do sleep 1 & done; wait";
    assert!(said(&enter(&["--resource", "pids=3"], crowd)).contains("can't fork"));
    assert!(enter(&[], crowd).status.success());
}

#[test]
fn no_limit_is_one_of_the_values() {
    if machine::cannot("no_limit_is_one_of_the_values", ["steps", "busybox", "cgroup:memory"]) {
        return;
    }
    let flags = ["--memory", "64m", "--memory-swap", "-1", "--cpu-quota", "-1", "--cpu-shares", "0"];
    let run = Place::new().build("RUN true", &flags).run();
    assert_eq!(run.status, Some(0), "{}", run.stderr);
}

#[test]
fn a_fork_bomb_ends_with_its_step() {
    if machine::cannot("a_fork_bomb_ends_with_its_step", ["steps", "busybox", "cgroup:pids"]) {
        return;
    }
    let place = Place::new();
    let bomb = "RUN bomb() { : {marker}; bomb | bomb & }; bomb; sleep 0.5; echo over";
    let run = place.build(bomb, &["--resource", "pids=50"]).run();
    assert!(run.status == Some(0) || run.stderr.contains("error[run-failed]"), "{}", run.stderr);
    let left = traces::left_by(&place.root(), &place.marker);
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn limits_are_in_no_key() {
    if machine::cannot("limits_are_in_no_key", ["steps", "busybox", "cgroup:memory", "cgroup:pids"]) {
        return;
    }
    let place = Place::new();
    assert_eq!(place.build("RUN echo once > /made", &[]).run().ran().len(), 1);
    let limited = ["--memory", "64m", "--resource", "pids=9", "--timeout", "5m"];
    assert_eq!(place.build("RUN echo once > /made", &limited).run().ran(), [""; 0]);
}

#[test]
fn a_step_over_its_time_is_ended_with_what_it_started() {
    if machine::cannot("a_step_over_its_time_is_ended_with_what_it_started", ["steps", "busybox"]) {
        return;
    }
    let place = Place::new();
    let step = "RUN (setsid sh -c 'sleep 1000; : {marker}' &) ; echo begun; sleep 1000";
    let run = place.build(step, &["--timeout", "1s"]).run();
    fails(&run, &["error[run-timeout]", "Dockerfile:2:1", "--timeout 2s", "| begun"]);
    let ran =
        run.stderr.split("was ended after ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
    assert!(ran.is_some_and(|seconds: u64| seconds < 9), "it ends when it is asked to: {}", run.stderr);
    let left = traces::left_by(&place.root(), &place.marker);
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_step_that_does_not_listen_is_killed() {
    if machine::cannot("a_step_that_does_not_listen_is_killed", ["steps", "busybox"]) {
        return;
    }
    let place = Place::new();
    let step = "RUN trap '' TERM; echo stubborn; while :; do sleep 1; : {marker}; done";
    let run = place.build(step, &["--timeout", "1s"]).run();
    fails(&run, &["error[run-timeout]", "was ended after 11 s", "it may run for 1 s", "| stubborn"]);
    let left = traces::left_by(&place.root(), &place.marker);
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn who_was_killed_from_outside_hears_what_it_may_have_been() {
    if machine::cannot("who_was_killed_from_outside_hears_what_it_may_have_been", ["steps", "busybox"]) {
        return;
    }
    let run = Place::new().build("RUN kill -9 $$", &[]).run();
    fails(&run, &["error[run-killed]", "and not by Kiln", "iB are available now", "dmesg"]);
}

#[test]
fn what_a_killed_build_leaves_the_next_one_removes() {
    let test = "what_a_killed_build_leaves_the_next_one_removes";
    if machine::cannot(test, ["steps", "busybox", "cgroup:memory", "cgroup:pids"]) {
        return;
    }
    let place = Place::new();
    let flags = ["--resource", "memory=64m,pids=9"];
    let mut command = place.build("RUN sleep 1000; : {marker}", &flags).command();
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let Started(child) = &mut Started(command.spawn().expect("the program was built"));
    let since = Instant::now();
    while !traces::is_running(&format!("sleep 1000; : {}", place.marker)) || groups_of(child.id()).is_empty()
    {
        assert!(since.elapsed() < Duration::from_secs(60), "waited a minute for the step");
        sleep(Duration::from_millis(5));
    }
    child.kill().expect("it runs");
    child.wait().expect("it is our child");
    let left = traces::left_by(&place.root(), &place.marker);
    assert!(left.is_empty(), "{left:?}");
    assert!(!groups_of(child.id()).is_empty(), "nobody was there to remove them");

    let output =
        place.build("RUN true", &flags).command().spawn().and_then(|mut next| next.wait().map(|_| next.id()));
    let next = output.expect("the program was built");
    assert_eq!(groups_of(child.id()), Vec::<PathBuf>::new());
    assert_eq!(groups_of(next), Vec::<PathBuf>::new());
}

#[test]
fn what_a_step_took_is_told() {
    if machine::cannot("what_a_step_took_is_told", ["steps", "busybox", "cgroup:memory"]) {
        return;
    }
    let place = Place::new();
    let work =
        "RUN dd if=/dev/zero of=/dev/null bs=32M count=1; i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done";
    let usage = |flags: &[&str]| {
        let (events, text) = events(&place.build(work, flags));
        let usages = events.iter().find_map(|event| event.get("usages").cloned());
        usages.unwrap_or_else(|| panic!("no usage in:\n{text}"))[0].clone()
    };
    let plain = usage(&[]);
    assert!(plain["userMicroseconds"].as_u64() > Some(1000), "{plain}");
    assert!(plain["systemMicroseconds"].is_u64(), "{plain}");
    let largest = plain["largestProcessBytes"].as_u64().expect("dd is larger than Kiln's own process");
    assert!((32 << 20..48 << 20).contains(&largest), "{plain}");
    assert!(plain.get("peakMemoryBytes").is_none(), "nothing was there that could measure it");
    let limited = usage(&["--memory", "256m", "--no-cache"]);
    let peak = limited["peakMemoryBytes"].as_u64().expect("its group knows");
    assert!((32 << 20..256 << 20).contains(&peak), "{limited}");
}

/// When vertices began and ended, in nanoseconds of the day, by a word of their name.
fn times(events: &[Value], word: &str) -> (String, String) {
    let vertices = events.iter().filter_map(|event| event["vertexes"].as_array()).flatten();
    let mut named = vertices.filter(|vertex| vertex["name"].as_str().is_some_and(|name| name.contains(word)));
    let ended =
        named.find(|vertex| vertex["completed"].is_string()).unwrap_or_else(|| panic!("{word} ended"));
    let text = |key: &str| ended[key].as_str().expect("a time").to_owned();
    (text("started"), text("completed"))
}

#[test]
fn steps_that_do_not_fit_into_memory_together_run_one_after_the_other() {
    let test = "steps_that_do_not_fit_into_memory_together_run_one_after_the_other";
    if machine::cannot(test, ["steps", "busybox", "cgroup:memory"]) {
        return;
    }
    // The group that Kiln itself is in. Version 2 wants more than a folder for that.
    let limited = Path::new("/sys/fs/cgroup/memory").join(format!("kiln-test-{}", std::process::id()));
    if fs::create_dir(&limited).is_err() {
        return machine::skip(test, "no control groups of version 1");
    }
    let place = Place::new();
    let step = |name: &str| {
        format!(
            "FROM busybox AS {name}\nRUN dd if=/dev/zero of=/dev/null bs=160M count=1; sleep 0.2; echo {name} > /{name}\n"
        )
    };
    let last = "FROM busybox\nCOPY --from=first /first /\nCOPY --from=second /second /\n";
    let dockerfile = format!("{}{}{last}", step("first"), step("second"));
    let run = place.build_of(&dockerfile, &["--jobs", "1"]).run();
    assert_eq!(run.status, Some(0), "{}", run.stderr);

    fs::write(limited.join("memory.limit_in_bytes"), "300M").expect("the group is ours");
    let build = place.build_of(&dockerfile, &["--no-cache"]).command();
    let mut within = Command::new("sh");
    within
        .args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""])
        .arg(&limited)
        .arg(build.get_program());
    within.args(build.get_args()).envs(build.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = within.output().expect("there is a shell");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    // The kernel takes a moment to be done with the last process.
    let since = Instant::now();
    while fs::remove_dir(&limited).is_err() && since.elapsed() < Duration::from_secs(10) {
        sleep(Duration::from_millis(5));
    }
    assert!(output.status.success(), "{text}");
    let events: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let mut both = [times(&events, "> /first"), times(&events, "> /second")];
    both.sort();
    let [(_, one_ended), (other_began, _)] = &both;
    assert!(one_ended <= other_began, "{both:?}");
}

#[test]
fn many_builds_share_a_state_folder() {
    if machine::cannot("many_builds_share_a_state_folder", ["steps", "busybox"]) {
        return;
    }
    const BUILDS: usize = 32;
    let place = Place::new();
    let base = machine::base_argument().expect("it is there");
    let context = |index: usize| place.folder.path().join(format!("context-{index}"));
    for index in 0..BUILDS {
        // Every fourth is one of its own, the others are the same eight times.
        let own = if index % 4 == 0 { index } else { index % 4 };
        let text = format!(
            "FROM busybox\nRUN echo shared; cat /proc/sys/kernel/random/uuid > /shared\nCOPY file /file\n\
             RUN echo {own} > /own; cat /proc/sys/kernel/random/uuid > /unique\n"
        );
        fs::create_dir(context(index)).expect("the folder is new");
        fs::write(context(index).join("Dockerfile"), text).expect("written");
        fs::write(context(index).join("file"), format!("{own}\n")).expect("written");
    }
    let builds: Vec<_> = (0..BUILDS)
        .map(|index| {
            let build = Build::new(&place.root(), &context(index))
                .argument("--build-context")
                .argument(&base)
                .argument("--iidfile")
                .argument(place.folder.path().join(format!("digest-{index}")))
                .argument("-t")
                .argument(format!("many:{index}"));
            thread::spawn(move || build.run())
        })
        .collect();
    let runs: Vec<Run> = builds.into_iter().map(|build| build.join().expect("it does not panic")).collect();
    let mut made: BTreeMap<String, usize> = BTreeMap::new();
    for (index, run) in runs.iter().enumerate() {
        assert_eq!(run.status, Some(0), "build {index}: {}", run.stderr);
        assert_eq!(run.stderr, "", "build {index}");
        for step in run.ran().into_iter().filter(|step| step.contains("RUN")) {
            *made.entry(step.to_owned()).or_default() += 1;
        }
    }
    // Eight of their own and three kinds of the others, and what is the same in all.
    assert_eq!(made.len(), 8 + 3 + 1, "{made:?}");
    assert!(made.values().all(|times| *times == 1), "{made:?}");
    let digest = |index: usize| {
        fs::read_to_string(place.folder.path().join(format!("digest-{index}"))).expect("it was written")
    };
    for index in 0..BUILDS {
        let same = if index % 4 == 0 { index } else { index % 4 };
        assert_eq!(digest(index), digest(same), "build {index}");
    }
    let output =
        kiln().arg("--root").arg(place.root()).args(["images", "-q"]).output().expect("it was built");
    assert!(output.status.success(), "{}", said(&output));
    assert!(program().exists() && traces::half_made(&place.root()).is_empty(), "nothing half made is left");
    let left = traces::left_by(&place.root(), "");
    assert!(left.is_empty(), "{left:?}");
}
