//! Builds that end badly: killed, interrupted, out of space, with a context that changes under them; and builds that
//! share. Afterwards nothing is left, and the same build succeeds.
//!
//! `KILN_KILLS` sets how many times the build is killed (10 where unset), `KILN_SEED` at which instants.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use kiln_tests::image::Image;
use kiln_tests::machine;
use kiln_tests::program::{Build, program, read_progress};
use kiln_tests::traces;
use rustix::process::{Pid, Signal, kill_process};

/// Says why a test cannot run here, and whether.
fn cannot(test: &str, needs: &[&str]) -> bool {
    machine::cannot(test, needs.iter().copied())
}

/// A context with a Dockerfile, and room for a state folder and an output beside it.
struct Place {
    folder: tempfile::TempDir,
    /// A word that no other process has on its command line.
    marker: String,
}

impl Place {
    /// `{marker}` in the Dockerfile becomes this place's own word.
    fn new(dockerfile: &str) -> Place {
        let folder = tempfile::Builder::new()
            .prefix("kiln-crash-")
            .tempdir()
            .expect("the temporary folder can be written");
        let name = folder.path().file_name().expect("made with a name").to_string_lossy().into_owned();
        let marker = format!("marker-{name}");
        let context = folder.path().join("context");
        fs::create_dir(&context).expect("its parent is empty");
        fs::write(context.join("Dockerfile"), dockerfile.replace("{marker}", &marker))
            .expect("its parent is there");
        Place { folder, marker }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn context(&self) -> PathBuf {
        self.folder.path().join("context")
    }

    fn archive(&self, name: &str) -> PathBuf {
        self.folder.path().join("out").join(name)
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.context().join(path);
        fs::create_dir_all(path.parent().expect("a file is in a folder"))
            .expect("the context can be written");
        fs::write(path, bytes).expect("the context can be written");
    }

    fn build(&self, root: &Path, archive: &str) -> Build {
        fs::create_dir_all(self.folder.path().join("out")).expect("the place can be written");
        let base = machine::base_argument().expect("the test asked for it");
        Build::new(root, &self.context())
            .argument("--build-context")
            .argument(base)
            .to_archive(&self.archive(archive))
    }

    fn start(&self, root: &Path, archive: &str) -> Started {
        let mut command = self.build(root, archive).command();
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        Started(command.spawn().expect("the program was built"))
    }

    fn assert_nothing_left(&self, root: &Path, when: &str) {
        let left = traces::left_by(root, &self.marker);
        assert!(left.is_empty(), "{when}, left behind:\n{}", left.join("\n"));
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

/// Waits until `ready` holds, at most for a minute.
fn wait_until(what: &str, mut ready: impl FnMut() -> bool) {
    let started = Instant::now();
    while !ready() {
        assert!(started.elapsed() < Duration::from_secs(60), "waited a minute for: {what}");
        sleep(Duration::from_millis(5));
    }
}

/// Waits for a child, at most `seconds`; its standard error without progress, and its exit status.
fn finish(mut started: Started, seconds: u64) -> (String, std::process::ExitStatus) {
    let child = &mut started.0;
    let since = Instant::now();
    let pipe = child.stderr.take().expect("started with a pipe");
    let reader = std::thread::spawn(move || std::io::read_to_string(pipe).unwrap_or_default());
    loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            return (reader.join().expect("reading does not panic"), status);
        }
        assert!(since.elapsed() < Duration::from_secs(seconds), "still running after {seconds} s");
        sleep(Duration::from_millis(5));
    }
}

/// SplitMix64: the same instants on every machine.
struct Instants(u64);

impl Instants {
    /// A number of at least 0 and less than 1.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

const MANY_STEPS: &str = "\
FROM busybox AS one
COPY tree /tree
RUN : {marker}; mkdir /many && for i in $(seq 200); do echo $i > /many/$i; done; sleep 0.1
RUN : {marker}; rm -r /many/1* && ln -s many /link && sleep 0.1
FROM busybox AS two
RUN : {marker}; head -c 3000000 /dev/zero > /zeros; sleep 0.1; chown -R 5:6 /var
RUN --mount=type=cache,target=/cache : {marker}; echo x >> /cache/x; sleep 0.1; echo done > /done
FROM busybox
COPY --from=one /many /many
COPY --from=two /zeros /done /
RUN : {marker}; ls /many | wc -l > /count
";

#[test]
fn killed_at_any_instant() {
    if cannot("crash::killed_at_any_instant", &["steps", "busybox"]) {
        return;
    }
    let place = Place::new(MANY_STEPS);
    for i in 0..200 {
        place.write(&format!("tree/{}/{i}", i % 7), format!("file {i}\n").repeat(i).as_bytes());
    }
    let reference_root = place.folder.path().join("reference");
    let started = Instant::now();
    let run = place.build(&reference_root, "reference.tar").run();
    let seconds = started.elapsed().as_secs_f64();
    assert_eq!(run.status, Some(0), "{}", run.stderr);
    let reference =
        Image::read(&place.archive("reference.tar")).and_then(|image| image.show(0)).expect("a whole image");

    let mut instants = Instants(setting("KILN_SEED", 2));
    for number in 0..setting("KILN_KILLS", 10) {
        let root = place.folder.path().join(format!("root-{number}"));
        let wait = instants.next() * seconds * 1.1;
        let build = place.start(&root, "image.tar");
        sleep(Duration::from_secs_f64(wait));
        drop(build);
        let when = format!("kill {number}, after {wait:.3} s of {seconds:.3} s");
        place.assert_nothing_left(&root, &when);

        let again = place.build(&root, "image.tar").run();
        assert_eq!(again.status, Some(0), "{when}: the same build again:\n{}", again.stderr);
        place.assert_nothing_left(&root, &when);
        let half_made = traces::half_made(&root);
        assert!(half_made.is_empty(), "{when}, after the next build:\n{}", half_made.join("\n"));
        let outputs: Vec<_> =
            fs::read_dir(place.folder.path().join("out")).expect("made above").flatten().collect();
        assert_eq!(outputs.len(), 2, "{when}: besides two images: {outputs:?}");
        let shown =
            Image::read(&place.archive("image.tar")).and_then(|image| image.show(0)).expect("a whole image");
        assert_eq!(shown, reference, "{when}: another image");
        fs::remove_file(place.archive("image.tar")).expect("just read");
        // Nothing is mounted in it. What sub-ids own, a user cannot remove so.
        let removed = fs::remove_dir_all(&root);
        assert!(removed.is_ok() || machine::is_user(), "{removed:?}");
    }
}

#[test]
fn two_builds_run_a_common_step_once() {
    if cannot("crash::two_builds_run_a_common_step_once", &["steps", "busybox"]) {
        return;
    }
    let place = Place::new(
        "FROM busybox\nRUN --mount=type=cache,target=/c : {marker}; echo x >> /c/ran; sleep 1; date > /when\nRUN cp /when /copy\n",
    );
    let root = place.root();
    let (one, two) = (place.start(&root, "one.tar"), place.start(&root, "two.tar"));
    for child in [one, two] {
        let (stderr, status) = finish(child, 60);
        assert!(status.success(), "{status}:\n{}", read_progress(&stderr).1);
    }
    let digest = |name: &str| Image::read(&place.archive(name)).expect("a whole image").manifest;
    assert_eq!(digest("one.tar"), digest("two.tar"));
    place.write("Dockerfile", b"FROM busybox\nRUN --mount=type=cache,target=/c wc -l < /c/ran > /count\n");
    let run = place.build(&root, "count.tar").run();
    assert_eq!(run.status, Some(0), "{}", run.stderr);
    let count = Image::read(&place.archive("count.tar"))
        .and_then(|image| image.file("count"))
        .expect("the step wrote it");
    assert_eq!(String::from_utf8_lossy(&count).trim(), "1", "times that the common step ran");
    place.assert_nothing_left(&root, "after two builds");
}

#[test]
fn interrupted() {
    if cannot("crash::interrupted", &["steps", "busybox"]) {
        return;
    }
    for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 130)] {
        let place = Place::new("FROM busybox\nRUN echo kept > /kept\nRUN : {marker}; sleep 600; :\n");
        let root = place.root();
        let build = place.start(&root, "image.tar");
        let id = Pid::from_child(&build.0);
        wait_until("the step to run", || traces::is_running(&format!(": {}", place.marker)));
        kill_process(id, signal).expect("it runs");
        let (stderr, ended) = finish(build, 20);
        assert_eq!(
            ended.code(),
            Some(status),
            "{signal:?}: signal {:?}\n{}",
            ended.signal(),
            read_progress(&stderr).1
        );
        place.assert_nothing_left(&root, "interrupted");
        assert!(!place.archive("image.tar").exists(), "an interrupted build has no output");

        place.write("Dockerfile", b"FROM busybox\nRUN echo kept > /kept\n");
        let run = place.build(&root, "image.tar").run();
        assert_eq!((run.status, run.ran()), (Some(0), vec![]), "the finished step is kept:\n{}", run.stderr);
    }
}

/// A small file system in memory at `at`, unmounted when dropped.
struct Memory<'a>(&'a Path);

impl Memory<'_> {
    fn mount(at: &Path, options: &str) -> Result<(), String> {
        let run = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).output();
        match run {
            Ok(run) if run.status.success() => Ok(()),
            Ok(run) => Err(String::from_utf8_lossy(&run.stderr).into_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Drop for Memory<'_> {
    fn drop(&mut self) {
        // The test has ended; a mount that stays is seen by the next one.
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn full_disk() {
    if cannot("crash::full_disk", &["root: it mounts a disk", "busybox"]) {
        return;
    }
    let place = Place::new(
        "FROM busybox\nRUN echo kept > /kept\nRUN : {marker}; dd if=/dev/urandom of=/large bs=1000000 count=60\n",
    );
    let root = place.root();
    fs::create_dir(&root).expect("its parent is empty");
    if let Err(reason) = Memory::mount(&root, "size=40m") {
        machine::skip("crash::full_disk", &format!("no tmpfs can be mounted: {reason}"));
        return;
    }
    let mounted = Memory(&root);
    let run = place.build(&root, "image.tar").run();
    assert_eq!(run.status, Some(1), "{}", run.stderr);
    assert!(run.stderr.contains("No space left on device") || run.stderr.contains("full"), "{}", run.stderr);
    assert!(run.stderr.contains("Dockerfile:3"), "the place is named:\n{}", run.stderr);
    assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
    assert!(!place.archive("image.tar").exists(), "a failed build has no output");

    // Context that does not fit: no step is at fault.
    place.write("Dockerfile", b"FROM busybox\nCOPY large /large\nRUN test -s /large\n");
    let mut state = 7u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(60_000_000)
    .collect();
    place.write("large", &noise);
    let run = place.build(&root, "image.tar").run();
    assert_eq!(run.status, Some(1), "{}", run.stderr);
    assert!(run.stderr.contains("No space left on device") || run.stderr.contains("full"), "{}", run.stderr);
    assert!(!run.stderr.contains("panicked"), "{}", run.stderr);

    Memory::mount(&root, "remount,size=600m").expect("it was mounted");
    let run = place.build(&root, "image.tar").run();
    assert_eq!(run.status, Some(0), "with room, the same build:\n{}", run.stderr);
    assert_eq!(
        Image::read(&place.archive("image.tar")).and_then(|image| image.file("large")).expect("copied"),
        noise
    );
    drop(mounted);
}

#[test]
fn a_record_that_cannot_be_written() {
    if cannot("crash::a_record_that_cannot_be_written", &["steps", "busybox"]) {
        return;
    }
    let place =
        Place::new("FROM busybox\nRUN echo one > /one\nRUN sleep 1\nRUN : {marker}; echo three > /three\n");
    let (root, archive) = (place.root(), place.archive("image.tar"));
    let run = place.build(&root, "image.tar").run();
    assert_eq!(run.status, Some(0), "{}", run.stderr);
    fs::remove_file(&archive).expect("built");

    // Before a further record of a key is written, this file is replaced.
    let generation = root.join("generation");
    fs::remove_file(&generation).expect("it is there");
    fs::create_dir(&generation).expect("the state folder can be written");
    let run = place.build(&root, "image.tar").argument("--no-cache").run();
    assert_eq!(run.status, Some(1), "{}", run.stderr);
    let told: Vec<&str> = run.stderr.lines().filter(|line| line.starts_with("error")).collect();
    assert!(matches!(told[..], [one] if one.contains("/generation")), "told once:\n{}", run.stderr);
    let is_begun = run.steps.iter().any(|step| step.name.contains("three"));
    assert!(!is_begun, "nothing is begun that would be for nobody: {:?}", run.steps);
    assert!(!archive.exists(), "a failed build has no output");

    fs::remove_dir(&generation).expect("it is empty");
    let run = place.build(&root, "image.tar").argument("--no-cache").run();
    assert_eq!(run.status, Some(0), "{}", run.stderr);
}

#[test]
fn a_file_that_changes_while_it_is_read() {
    let place = Place::new("FROM scratch\nCOPY grows /grows\n");
    place.write("grows", &vec![b'.'; 40_000_000]);
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (stop, path) = (Arc::clone(&stop), place.context().join("grows"));
        std::thread::spawn(move || {
            let mut file = OpenOptions::new().append(true).open(path).expect("written above");
            while !stop.load(Ordering::Relaxed) {
                file.write_all(b"more").expect("the disk has room");
                sleep(Duration::from_micros(200));
            }
        })
    };
    let archive = place.folder.path().join("image.tar");
    let run = Build::new(&place.root(), &place.context()).to_archive(&archive).run();
    stop.store(true, Ordering::Relaxed);
    writer.join().expect("appending does not panic");
    assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
    if run.status == Some(0) {
        // It was quicker than the writer: then what it took is what the file was at one instant.
        let taken = Image::read(&archive).and_then(|image| image.file("grows")).expect("a whole image");
        let now = fs::read(place.context().join("grows")).expect("written above");
        assert!(now.starts_with(&taken), "a mixture of two states of the file");
    } else {
        assert_eq!(run.status, Some(1), "{}", run.stderr);
        assert!(run.stderr.contains("grows"), "the file is named:\n{}", run.stderr);
    }
}

#[test]
fn in_an_empty_chroot() {
    if cannot("crash::in_an_empty_chroot", &["root: it changes the root", "busybox", "program:chroot"]) {
        return;
    }
    let place =
        Place::new("FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"touch\", \"/made\"]\n");
    fs::copy("/bin/busybox", place.context().join("busybox")).expect("the base image was made of it");
    fs::copy(program(), place.folder.path().join("kiln")).expect("the program was built");
    let run = Command::new("chroot")
        .arg(place.folder.path())
        .args([
            "/kiln",
            "--root",
            "/root",
            "build",
            "--progress",
            "plain",
            "-o",
            "type=oci,dest=/image.tar",
            "/context",
        ])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .output()
        .expect("chroot is there");
    assert!(run.status.success(), "{}\n{}", run.status, String::from_utf8_lossy(&run.stderr));
    let image = Image::read(&place.folder.path().join("image.tar")).expect("a whole image");
    assert_eq!(image.file("made").expect("the step made it"), b"");
}
