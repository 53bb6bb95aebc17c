//! Steps that do what a build does not expect, and contexts that change under it: the build ends right, and the machine is as
//! it was before.
//!
//! `KILN_LOG_MIB` sets how large the large log is (32 where unset).

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use kiln_tests::image::Image;
use kiln_tests::machine;
use kiln_tests::program::{Build, Run};
use kiln_tests::traces;
use rustix::process::{Pid, Signal, kill_process};

/// How long a build of these may take.
const PATIENCE: Duration = Duration::from_secs(90);

/// A context with a Dockerfile, a state folder, and a word that its steps have on their command lines.
struct Place {
    folder: tempfile::TempDir,
    root: PathBuf,
    marker: String,
    before: BTreeSet<PathBuf>,
}

/// Where the control groups of version 2 are mounted.
fn unified_groups() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let line = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
    line.split(' ').nth(4).map(PathBuf::from)
}

/// Kiln's control groups without a process where steps without limits are, and network namespaces that a mount keeps. What has
/// processes is found by them.
fn pinned() -> BTreeSet<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let named = mounts.lines().filter(|line| line.contains(" - nsfs "));
    let mut found: BTreeSet<PathBuf> =
        named.filter_map(|line| line.split(' ').nth(4).map(PathBuf::from)).collect();
    if let Some(groups) = unified_groups() {
        collect_empty_groups(&groups, &mut found);
    }
    found
}

/// Kiln's groups in which no process is.
fn collect_empty_groups(group: &Path, empty: &mut BTreeSet<PathBuf>) {
    for below in fs::read_dir(group).into_iter().flatten().flatten() {
        let path = below.path();
        if !below.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let ours = below.file_name().to_string_lossy().starts_with("kiln.");
        if ours && fs::read_to_string(path.join("cgroup.procs")).is_ok_and(|list| list.is_empty()) {
            empty.insert(path.clone());
        }
        collect_empty_groups(&path, empty);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The folders of a layer can be deeper than a recursive removal can go.
        let _removed = Command::new("rm").arg("-rf").arg(self.folder.path()).status();
    }
}

impl Place {
    /// `None`, after saying why, where steps cannot run. `{marker}` in the Dockerfile becomes the place's own word.
    fn new(test: &str, dockerfile: &str) -> Option<Place> {
        if machine::cannot(&format!("hostile_steps::{test}"), ["steps", "busybox"]) {
            return None;
        }
        let folder = tempfile::Builder::new().prefix("kiln-hostile-").tempdir().expect("it can be written");
        let name = folder.path().file_name().expect("made with a name").to_string_lossy().into_owned();
        let root = folder.path().join("root");
        let place = Place { folder, root, marker: format!("marker-{name}"), before: pinned() };
        fs::create_dir(place.context()).expect("its parent is empty");
        place.dockerfile(dockerfile);
        Some(place)
    }

    fn context(&self) -> PathBuf {
        self.folder.path().join("context")
    }

    fn root(&self) -> PathBuf {
        self.root.clone()
    }

    fn archive(&self) -> PathBuf {
        self.folder.path().join("image.tar")
    }

    fn dockerfile(&self, text: &str) {
        fs::write(self.context().join("Dockerfile"), text.replace("{marker}", &self.marker))
            .expect("the context can be written");
    }

    fn build(&self) -> Build {
        let base = machine::base_argument().expect("the place was made with it");
        Build::new(&self.root(), &self.context())
            .argument("--build-context")
            .argument(base)
            .to_archive(&self.archive())
    }

    /// Runs the build to its end; that it comes, and soon, is half of each test.
    fn run(&self, build: &Build) -> Run {
        let started = Instant::now();
        let run = build.run();
        assert!(started.elapsed() < PATIENCE, "{:?}: {}", started.elapsed(), run.stderr);
        for word in ["panicked", "internal error"] {
            assert!(!run.stderr.contains(word), "{}", run.stderr);
        }
        self.assert_as_before();
        run
    }

    /// Builds, which succeeds.
    fn image(&self) -> Image {
        let run = self.run(&self.build());
        assert_eq!(run.status, Some(0), "{}", run.stderr);
        Image::read(&self.archive()).expect("a whole image")
    }

    fn file(&self, path: &str) -> String {
        let content = self.image().file(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        String::from_utf8_lossy(&content).into_owned()
    }

    fn assert_as_before(&self) {
        let left = traces::left_by(&self.root(), &self.marker);
        assert!(left.is_empty(), "left behind:\n{}", left.join("\n"));
        let half_made = traces::half_made(&self.root());
        assert!(half_made.is_empty(), "{}", half_made.join("\n"));
        let since = Instant::now();
        // Other builds on the machine come and go.
        while let now = pinned()
            && !now.is_subset(&self.before)
        {
            assert!(since.elapsed() < Duration::from_secs(20), "{:?}", now.difference(&self.before));
            sleep(Duration::from_millis(50));
        }
    }

    fn start(&self, build: &Build) -> Started {
        let mut command = build.command();
        Started(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program was built"))
    }
}

/// A build in the background; killed when dropped, so that a test that fails leaves nothing running.
struct Started(Child);

impl Started {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).expect("it runs");
    }

    fn status(mut self) -> Option<i32> {
        let since = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().expect("it is our child") {
                return status.code();
            }
            assert!(since.elapsed() < PATIENCE, "it does not end");
            sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // It has ended by itself, or the test has failed already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_until(what: &str, ready: impl Fn() -> bool) {
    let since = Instant::now();
    while !ready() {
        assert!(since.elapsed() < PATIENCE, "waited in vain for: {what}");
        sleep(Duration::from_millis(10));
    }
}

#[test]
fn daemons_that_hold_the_log() {
    let script = "(setsid sh -c ': {marker}; while :; do sleep 1; done' &); (sh -c ': {marker}; sleep 600; :' &); \
                  sh -c ': {marker}; trap \"\" TERM HUP; while :; do echo still; sleep 1; done' & echo done > /done";
    let Some(place) = Place::new("daemons", &format!("FROM busybox\nRUN {script}\nRUN test -f /done\n"))
    else {
        return;
    };
    let started = Instant::now();
    assert_eq!(place.file("done"), "done\n");
    assert!(started.elapsed() < Duration::from_secs(60), "daemons are not waited for");
}

#[test]
fn signals_that_are_ignored() {
    let dockerfile = "FROM busybox\nRUN trap '' INT TERM HUP QUIT; : {marker}; while :; do sleep 0.1; done\n";
    for times in [1, 2] {
        let Some(place) = Place::new("signals", dockerfile) else { return };
        let build = place.start(&place.build());
        wait_until("the step runs", || traces::is_running(&format!(": {}", place.marker)));
        build.signal(Signal::INT);
        if times == 2 {
            // The first may have ended it.
            let _ = kill_process(Pid::from_child(&build.0), Signal::INT);
        }
        assert_eq!(build.status(), Some(130), "{times} times Ctrl-C");
        assert!(!place.archive().exists());
        let left = traces::left_by(&place.root(), &place.marker);
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn a_step_against_its_init() {
    // With one id a shell that hears of an ended process while it opens a file may be told `EINTR`: it hears of it before.
    let script = "sleep 600 & kill -9 1; kill -STOP 1; kill -9 $!; wait; echo alive > /alive";
    let Some(place) = Place::new("init", &format!("FROM busybox\nRUN {script}\n")) else { return };
    assert_eq!(place.file("alive"), "alive\n");
    // A step that kills itself is told.
    place.dockerfile("FROM busybox\nRUN kill -9 $$; echo alive > /alive\n");
    let run = place.run(&place.build());
    assert_eq!(run.status, Some(1), "{}", run.stderr);
    assert!(run.stderr.contains("error[run-"), "{}", run.stderr);
}

#[test]
fn output_that_is_closed() {
    let script = "exec >&- 2>&-; sleep 0.2; echo x > /made; sleep 0.1";
    let Some(place) = Place::new("output", &format!("FROM busybox\nRUN {script}\n")) else { return };
    assert_eq!(place.file("made"), "x\n");
}

#[test]
fn processes_without_end() {
    let dockerfile =
        "FROM busybox\nUSER 54321\nRUN f() { : {marker}; f | f & }; f 2> /dev/null; sleep 0.5; true\n";
    let Some(place) = Place::new("processes", dockerfile) else { return };
    let run = place.run(&place.build().argument("--ulimit").argument("nproc=60:60"));
    assert!(matches!(run.status, Some(0 | 1)), "{}", run.stderr);
}

#[test]
fn strange_files() {
    // A path of 3,300 bytes; the kernel takes 4,095.
    let script = "\
n=$(head -c 255 /dev/zero | tr '\\0' n); echo long > /$n; mkdir /deep; cd /deep; i=0; \
while [ $i -lt 300 ]; do mkdir deeperfold; cd deeperfold; i=$((i+1)); done; echo bottom > file; cd /; \
mkdir /links; for i in $(seq 50); do echo $i > /links/$i; done; for i in $(seq 20); do cp -al /links /links$i; done; \
mkfifo /fifo; mknod /block b 8 0; mknod /character c 1 3; mkdir /closed; echo shut > /closed/file; chmod 000 /closed/file /closed; \
printf x > \"/$(printf 'new\\nline\\377')\"; chmod 7777 /links/1; chattr +i /links/2 2> /dev/null && exit 1; truncate -s 8M /sparse; true";
    // What a step makes, another reads.
    let reading =
        "cd /deep; i=0; while [ $i -lt 300 ]; do cd deeperfold; i=$((i+1)); done; cat file > /bottom";
    let Some(place) = Place::new("files", &format!("FROM busybox\nRUN {script}\nRUN {reading}\n")) else {
        return;
    };
    let image = place.image();
    assert_eq!(image.file("closed/file").expect("it is in the layer"), b"shut\n");
    assert_eq!(image.file("links/50").expect("it is in the layer"), b"50\n");
    assert_eq!(image.file("bottom").expect("it is in the layer"), b"bottom\n");
    // A path that no call of the kernel takes as one.
    place.dockerfile(
        "FROM busybox\nRUN i=0; while [ $i -lt 500 ]; do mkdir deeperfold; cd deeperfold; i=$((i+1)); done\n",
    );
    let run = place.run(&place.build());
    assert_eq!(run.status, Some(1), "{}", run.stderr);
    assert!(run.stderr.contains("longer than the kernel takes") && run.stderr.len() < 3000, "{}", run.stderr);
    place.dockerfile("FROM busybox\nRUN chmod -R 000 /etc /var /tmp; chmod 000 /\n");
    place.image();
}

/// The process that clones the steps of a build.
fn zygote_of(build: &Started) -> Option<u32> {
    let id = build.0.id();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
    let is_zygote = |child: &&str| {
        fs::read_to_string(format!("/proc/{child}/comm")).is_ok_and(|name| name == "kiln-zygote\n")
    };
    children.split_whitespace().find(is_zygote)?.parse().ok()
}

#[test]
fn a_build_that_is_killed_with_its_zygote() {
    let Some(place) = Place::new("killed", "FROM busybox\nRUN : {marker}; sleep 600; :\n") else { return };
    let build = place.start(&place.build());
    wait_until("the step runs", || traces::is_running(&format!(": {}", place.marker)));
    let zygote = zygote_of(&build).expect("steps are cloned by it");
    // What may be opened of devices is a matter of root's.
    let group = unified_groups().filter(|_| !machine::is_user()).map(|groups| {
        let own = fs::read_to_string(format!("/proc/{zygote}/cgroup")).expect("it runs");
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).expect("the hierarchy is mounted");
        groups.join(own.trim_start_matches('/')).join(format!("kiln.{zygote}.0"))
    });
    if let Some(group) = &group {
        assert!(group.exists(), "{}: the group of steps", group.display());
    }
    let zygote = Pid::from_raw(i32::try_from(zygote).expect("a process")).expect("not 0");
    kill_process(zygote, Signal::KILL).expect("it runs");
    build.signal(Signal::KILL);
    assert_eq!(build.status(), None);
    place.dockerfile("FROM busybox\nRUN true\n");
    place.image();
    if let Some(group) = group {
        assert!(!group.exists(), "{} is left", group.display());
    }
}

#[test]
fn a_large_log() {
    let mebibytes: u64 = std::env::var("KILN_LOG_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(32);
    let half = mebibytes / 2 * (1 << 20);
    let script = format!(
        ": {{marker}}; yes 'a line of the log' | head -c {half}; echo; head -c {half} /dev/zero | tr '\\0' x; echo end > /end"
    );
    let Some(place) = Place::new("log", &format!("FROM busybox\nRUN {script}\n")) else { return };
    let build = place.start(&place.build());
    let id = build.0.id();
    let peak = || {
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default()
    };
    let (stop, most) = (AtomicBool::new(false), std::sync::Mutex::new(0));
    let status = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let mut most = most.lock().expect("nobody panics with it");
                *most = peak().max(*most);
                drop(most);
                sleep(Duration::from_millis(20));
            }
        });
        let status = build.status();
        stop.store(true, Ordering::Relaxed);
        status
    });
    assert_eq!(status, Some(0));
    let most = *most.lock().expect("nobody panics with it");
    println!("a log of {mebibytes} MiB: {most} KiB of memory");
    assert!(most > 0 && most < 100 << 10, "{most} KiB of memory");
    let written = Command::new("du").args(["-sk"]).arg(place.root()).output().expect("du is everywhere");
    let written = String::from_utf8_lossy(&written.stdout);
    let kibibytes: u64 = written.split_whitespace().next().expect("a number").parse().expect("a number");
    assert!(kibibytes < 24 << 10, "{kibibytes} KiB in the state folder");
    place.assert_as_before();
}

/// A small file system of its own on a file, unmounted when dropped.
struct Disk<'a>(&'a Path);

impl Disk<'_> {
    fn make<'a>(at: &'a Path, file: &Path, bytes: u64) -> Result<Disk<'a>, String> {
        let run = |program: &str, words: &[&str]| {
            let output = Command::new(program).args(words).output().map_err(|e| format!("{program}: {e}"))?;
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            output.status.success().then_some(()).ok_or(format!("{program}: {said}"))
        };
        fs::create_dir(at)
            .and_then(|()| fs::File::create(file)?.set_len(bytes))
            .map_err(|e| e.to_string())?;
        let (at_text, file) = (at.to_string_lossy(), file.to_string_lossy());
        // A quarter of it is for root alone.
        run("mkfs.ext4", &["-q", "-F", "-m", "25", &file])?;
        run("mount", &["-o", "loop", &file, &at_text])?;
        Ok(Disk(at))
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        // The test has ended; a mount that stays is seen by the next one.
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn a_disk_that_a_step_fills() {
    let fill = "FROM busybox\nRUN echo kept > /kept\nRUN : {marker}; dd if=/dev/zero of=/fill bs=65536\n";
    if machine::cannot("hostile_steps::a_disk_that_a_step_fills", ["root: it mounts a disk"]) {
        return;
    }
    let Some(mut place) = Place::new("disk", fill) else { return };
    let [at, file] = ["mounted", "disk"].map(|name| place.folder.path().join(name));
    place.root = at.join("root");
    let root = place.root();
    let disk = match Disk::make(&at, &file, 64 << 20) {
        Ok(disk) => disk,
        Err(why) => return machine::skip("hostile_steps::a_disk_that_a_step_fills", &why),
    };
    let mounts = || fs::read_to_string("/proc/self/mountinfo").expect("it is mounted");
    let before = mounts();
    for step in [
        fill.to_owned(),
        // Who writes to a mapped file hears of it so.
        fill.replace("bs=65536", "bs=65536; kill -BUS $$"),
        fill.replace(
            "dd if=/dev/zero of=/fill bs=65536",
            "mkdir /many; cd /many; i=0; while echo > $i; do i=$((i+1)); done 2> /dev/null; false",
        ),
    ] {
        place.dockerfile(&step);
        let run = place.run(&place.build());
        assert_eq!(run.status, Some(1), "{}", run.stderr);
        let named = format!("the disk of {} is full", root.display());
        for part in ["error[disk-full]", "Dockerfile:3:1", &named, "`kiln prune`"] {
            assert!(run.stderr.contains(part), "no `{part}` in {}", run.stderr);
        }
        assert!(!place.archive().exists());
        assert_eq!(mounts(), before);
        // The step has given back what it took.
        place.dockerfile("FROM busybox\nRUN echo kept > /kept\nRUN : {marker}; echo small > /fill\n");
        let run = place.run(&place.build());
        assert_eq!(run.status, Some(0), "{}", run.stderr);
        assert!(run.ran().iter().all(|step| !step.contains("kept")), "{:?}", run.ran());
        fs::remove_file(place.archive()).expect("it was built");
    }
    // What is full for others is not for root: a step that fails there fails for something else.
    let full = at.join("others");
    let found = rustix::fs::statvfs(&at).expect("it is mounted");
    let filled = Command::new("fallocate")
        .arg("-l")
        .arg((found.f_bavail * found.f_frsize + (1 << 20)).to_string())
        .arg(&full)
        .status();
    assert!(
        filled.expect("it is everywhere").success()
            && rustix::fs::statvfs(&at).is_ok_and(|f| f.f_bavail == 0)
    );
    place.dockerfile("FROM busybox\nRUN : {marker}; exit 3\n");
    let run = place.run(&place.build());
    assert!(run.stderr.contains("error[run-failed]"), "{}", run.stderr);
    place.dockerfile("FROM busybox\nRUN echo kept > /kept\nRUN : {marker}; echo small > /fill\n");
    // What others fill, nobody gives back; and then somebody does.
    let filled =
        Command::new("dd").args(["if=/dev/zero", "bs=4096"]).arg(format!("of={}", full.display())).output();
    assert!(!filled.expect("dd is everywhere").status.success(), "it is full");
    let run = place.run(&place.build().argument("--no-cache"));
    assert_eq!(run.status, Some(1), "{}", run.stderr);
    assert!(
        run.stderr.contains("`kiln prune`") && run.stderr.contains(&*root.to_string_lossy()),
        "{}",
        run.stderr
    );
    fs::remove_file(&full).expect("it is ours");
    let run = place.run(&place.build().argument("--no-cache"));
    assert_eq!(run.status, Some(0), "{}", run.stderr);
    drop(disk);
}

/// A folder outside, and a link to it that takes turns with a real folder while it is read.
fn swap(at: &Path, outside: &Path, stop: &AtomicBool) {
    let (real, link) = (at.with_extension("real"), at.with_extension("link"));
    while !stop.load(Ordering::Relaxed) {
        // Any of these may fail, because a build holds what they work on; the next turn goes on from what there is.
        let _ = fs::create_dir(&real);
        let _ = fs::write(real.join("file"), "inside\n");
        let _ = symlink(outside, &link);
        let _ = fs::remove_file(at);
        let _ = fs::remove_dir_all(at);
        let _ = fs::rename(&real, at);
        let _ = fs::rename(at, &real);
        let _ = fs::rename(&link, at);
    }
}

#[test]
fn a_folder_of_the_context_that_becomes_a_link() {
    let Some(place) = Place::new("context", "FROM busybox\nCOPY d /d\nRUN cat /d/* > /all 2>&1; true\n")
    else {
        return;
    };
    let outside = place.folder.path().join("outside");
    fs::create_dir(&outside).expect("it is new");
    fs::write(outside.join("file"), "hidden\n").expect("it is ours");
    let (stop, at) = (AtomicBool::new(false), place.context().join("d"));
    std::thread::scope(|scope| {
        scope.spawn(|| swap(&at, &outside, &stop));
        for _ in 0..12 {
            let run = place.build().run();
            assert!(matches!(run.status, Some(0 | 1)) && !run.stderr.contains("panicked"), "{}", run.stderr);
            if run.status == Some(0) {
                let all = Image::read(&place.archive()).and_then(|image| image.file("all"));
                let all = String::from_utf8_lossy(&all.expect("the step wrote it")).into_owned();
                assert!(!all.contains("hidden"), "a file from outside of the context is in the image: {all}");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    place.assert_as_before();
}

#[test]
fn a_cache_in_which_a_folder_becomes_a_link() {
    let Some(place) = Place::new("cache", "FROM scratch\n") else { return };
    let outside = place.folder.path().join("outside");
    fs::create_dir(&outside).expect("it is new");
    fs::write(outside.join("file"), "hidden\n").expect("it is ours");
    let swapping = format!(
        "FROM busybox\nRUN --mount=type=cache,id=shared,target=/c : {{marker}}; cd /c; for i in $(seq 400); do mkdir -p d; rm -rf d; ln -s {0} d; \
         rm -f d; ln -s ../../../../../../../../..{0} d; rm -f d; done; mkdir -p d\n",
        outside.display()
    );
    place.dockerfile(&swapping);
    let build = place.start(&place.build());
    let reading = place.folder.path().join("reading");
    fs::create_dir(&reading).expect("it is new");
    let base = machine::base_argument().expect("the place was made with it");
    for number in 0..12 {
        let dockerfile = format!(
            "FROM busybox\nRUN --mount=type=cache,id=shared,source=d,target=/m echo {number}; cat /m/* > /all 2>&1; ! grep hidden /all\n"
        );
        fs::write(reading.join("Dockerfile"), dockerfile).expect("it is ours");
        let run = Build::new(&place.root(), &reading).argument("--build-context").argument(&base).run();
        // Where the folder is a link, it leads to what is not there.
        let passed = run.status == Some(0) || !run.stderr.contains("error[run-");
        assert!(passed && !run.stderr.contains("panicked"), "{}", run.stderr);
    }
    assert_eq!(build.status(), Some(0));
    place.assert_as_before();
}
