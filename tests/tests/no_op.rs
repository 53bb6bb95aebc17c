//! A build in which nothing changed: what it costs, that it shows what it showed, and all that must make it an ordinary one.
//!
//! Whether a build was answered without opening the state folder is seen by `strace`: nothing that it writes says so. A copy
//! of the program is another program to it, so that a build of the copy goes the ordinary way.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use kiln_tests::image::Image;
use kiln_tests::machine;
use kiln_tests::program::{kiln, program, said};

fn cannot(test: &str) -> bool {
    machine::cannot(test, ["steps", "program:strace", "program:busybox"])
}

const COPIES: &str = "\
ARG WORD=none
FROM scratch AS other
COPY a /other
FROM scratch
ARG WORD
LABEL word=$WORD
COPY a *.txt /copied/
COPY tree /tree
";

/// A context, a state folder, and an archive.
struct Place(tempfile::TempDir);

/// What a build said and left.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    status: Option<i32>,
    out: String,
    error: String,
    metadata: String,
    id: String,
}

impl Place {
    fn new() -> Place {
        Place::of(COPIES)
    }

    fn of(dockerfile: &str) -> Place {
        let folder = tempfile::Builder::new().prefix("kiln-no-op-").tempdir().expect("a temporary folder");
        let place = Place(folder);
        fs::create_dir_all(place.path("context/tree/deep")).expect("it is empty");
        for (name, text) in [
            ("Dockerfile", dockerfile),
            ("a", "one"),
            ("b.txt", "b"),
            ("tree/deep/c", "c"),
            ("tree/left-out", "x"),
            ("elsewhere", "y"),
            (".dockerignore", "tree/left-out\n"),
        ] {
            place.write(name, text);
        }
        symlink("c", place.path("context/tree/deep/l")).expect("it is empty");
        place.write("tree/h", "one");
        fs::hard_link(place.path("context/tree/h"), place.path("context/tree/h2")).expect("it is empty");
        place.settle();
        place
    }

    /// Lets the clock of the files go on: what was changed just now is not remembered.
    fn settle(&self) {
        sleep(Duration::from_millis(40));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path("context").join(name), text).expect("its folder is there");
    }

    fn command(&self, program: &Path, words: &str) -> Command {
        let mut command = kiln();
        let place = self.0.path().display().to_string();
        let mut own = Command::new(program);
        own.env_clear().envs(std::env::vars_os().filter(|(name, _)| name == "PATH" || name == "HOME"));
        own.envs(command.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))));
        if machine::is_user() {
            // What is traced by a user gains no rights, so newuidmap could give no sub-ids.
            own.env("KILN_SANDBOX", "single");
        }
        own.arg("--root").arg(self.path("root"));
        own.args(words.split(' ').map(|word| word.replace("PLACE", &place)));
        own.stdin(Stdio::null()).current_dir(self.0.path());
        command = own;
        command
    }

    fn kiln(&self, words: &str) -> Output {
        self.command(program(), words).output().expect("the program was built")
    }

    fn done(&self, words: &str) -> String {
        let output = self.kiln(words);
        assert!(output.status.success(), "kiln {words}: {}", said(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Builds under `strace`; what was traced as well.
    fn traced(&self, flags: &[&str], command: &Command) -> (Output, String) {
        let trace = self.path("trace");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o"]).arg(&trace).args(flags).arg("--").arg(command.get_program());
        strace.args(command.get_args()).env_clear().current_dir(self.0.path()).stdin(Stdio::null());
        strace.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = strace.output().expect("strace is there");
        (output, fs::read_to_string(&trace).expect("it was traced"))
    }

    /// Builds, and whether that was remembered: the database was not opened.
    fn build(&self, words: &str) -> (Output, bool) {
        let command = self.command(program(), &format!("build {words} PLACE/context"));
        let (output, trace) = self.traced(&["-e", "trace=open,openat,openat2"], &command);
        assert!(trace.contains("format.json"), "{trace}\n{}", said(&output));
        (output, !trace.contains("kiln.db"))
    }

    /// Builds until that is remembered.
    fn remembered(&self, words: &str) -> Output {
        self.build(words);
        let (output, remembered) = self.build(words);
        assert!(remembered && output.status.success(), "{words}: {}", said(&output));
        output
    }

    fn archive(&self) -> Vec<u8> {
        fs::read(self.path("out.tar")).expect("it was written")
    }

    fn copied(&self, path: &str) -> Option<String> {
        let image = Image::read(&self.path("out.tar")).expect("an archive");
        image.file(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    fn told(&self, program: &Path, words: &str) -> Told {
        let words = format!("build {words} --metadata-file PLACE/metadata --iidfile PLACE/id PLACE/context");
        let output = self.command(program, &words).output().expect("the program was built");
        let text = |bytes: &[u8]| timeless(&String::from_utf8_lossy(bytes));
        let file = |name: &str| fs::read_to_string(self.path(name)).unwrap_or_default();
        let (out, error) = (text(&output.stdout), text(&output.stderr));
        Told { status: output.status.code(), out, error, metadata: file("metadata"), id: file("id") }
    }
}

/// A copy of the program, which knows nothing of what the program itself remembers.
fn copy_of_program() -> &'static Path {
    static COPY: OnceLock<PathBuf> = OnceLock::new();
    COPY.get_or_init(|| {
        let copy = machine::made().join(format!("kiln-{}", std::process::id()));
        fs::copy(program(), &copy).expect("the folder can be written");
        copy
    })
}

/// Without times: those of the plain view, and of JSON.
fn timeless(text: &str) -> String {
    let mut line_by_line = String::new();
    for line in text.lines() {
        for word in line.split_inclusive([' ', ',', '}']) {
            let digits = word.trim_start_matches(|c: char| !c.is_ascii_digit());
            let is_time =
                digits.contains("s ") || digits.ends_with('s') || word.contains('T') && word.contains("Z\"");
            let is_number = digits.starts_with(|c: char| c.is_ascii_digit()) && digits.contains('.');
            line_by_line.push_str(if is_time && is_number { "TIME " } else { word });
        }
        line_by_line.push('\n');
    }
    line_by_line
}

/// Writes a file in place, with the length and the time that it had.
fn write_in_disguise(path: &Path, text: &str) {
    let before = fs::metadata(path).expect("it is there");
    assert_eq!(before.len(), text.len() as u64);
    let mut file = fs::OpenOptions::new().write(true).open(path).expect("it can be written");
    file.write_all(text.as_bytes()).expect("it can be written");
    file.set_modified(before.modified().expect("a time")).expect("it is ours");
}

#[test]
fn a_no_op_build_writes_locks_and_starts_nothing() {
    if cannot("a_no_op_build_writes_locks_and_starts_nothing") {
        return;
    }
    let place = Place::new();
    let files = 3_000;
    for at in 0..files {
        place.write(&format!("tree/{at}"), "text");
    }
    place.settle();
    for (words, threads) in [("-q -o type=cacheonly", true), ("-q --target other -o type=cacheonly", false)] {
        place.remembered(words);
        let command = place.command(program(), &format!("build {words} PLACE/context"));
        let (output, trace) = place.traced(&[], &command);
        assert!(output.status.success() && output.stderr.is_empty(), "{}", said(&output));
        let calls: Vec<&str> = trace
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(_, call)| call.trim_start())
            // The end of a call whose beginning stands above.
            .filter(|call| !call.starts_with("<..."))
            .collect();
        let writes = calls.iter().filter(|call| {
            let name = call.split('(').next().unwrap_or_default();
            let to_file =
                ["write", "writev", "pwrite64", "pwritev", "ftruncate", "fallocate", "copy_file_range"];
            let changes = [
                "rename", "unlink", "mkdir", "link", "symlink", "chmod", "chown", "utime", "setxattr",
                "flock",
            ];
            let flushes = ["fsync", "fdatasync", "syncfs", "sync", "msync"];
            // A thread that waits is woken by a write to an eventfd; nothing here has one.
            to_file.contains(&name)
                || flushes.contains(&name)
                || changes
                    .iter()
                    .any(|change| name.contains(change) && name != "readlink" && name != "readlinkat")
        });
        assert_eq!(writes.collect::<Vec<_>>(), Vec::<&&str>::new());
        let created = calls
            .iter()
            .filter(|call| call.contains("O_CREAT") || call.contains("O_WRONLY") || call.contains("O_RDWR"));
        assert_eq!(
            created.filter(|call| !call.contains("/dev/null")).collect::<Vec<_>>(),
            Vec::<&&str>::new()
        );
        let processes = calls.iter().filter(|call| {
            let is_fork = ["fork(", "vfork(", "clone(", "clone3("].iter().any(|name| call.starts_with(name));
            is_fork && !call.contains("CLONE_THREAD")
        });
        assert_eq!(processes.collect::<Vec<_>>(), Vec::<&&str>::new());
        assert_eq!(calls.iter().filter(|call| call.starts_with("execve(")).count(), 1);
        let started = calls.iter().any(|call| call.starts_with("clone"));
        assert!(threads || !started, "few files are no work for threads");
        let looked = if threads { files } else { 0 };
        let most = 2 * looked + 500;
        assert!(calls.len() < most, "{} calls", calls.len());
    }
}

#[test]
fn what_is_remembered_is_shown_as_it_was() {
    if cannot("what_is_remembered_is_shown_as_it_was") {
        return;
    }
    // A rule is broken, and a warning of the command line given.
    let place = Place::of(&format!("{COPIES}MAINTAINER me\n"));
    for words in [
        "--progress plain -o type=cacheonly",
        "--progress plain -t app -t app:2 --compress",
        "--progress rawjson -t app",
        "-q -t app",
        "-q -o type=cacheonly",
        "--progress plain -t app -o type=oci,dest=PLACE/out.tar",
        "--progress plain -o type=docker,dest=PLACE/docker.tar -o type=oci,dest=PLACE/out.tar",
        "--progress plain --platform linux/amd64,linux/arm64 -o type=oci,dest=PLACE/out.tar",
        "--progress plain -o type=oci,dest=PLACE/zstd.tar,compression=zstd,annotation.a=b",
    ] {
        place.remembered(words);
        let remembered = place.told(program(), words);
        let ordinary = place.told(copy_of_program(), words);
        assert_eq!(remembered, ordinary, "{words}");
        assert_eq!(remembered.status, Some(0), "{words}: {remembered:?}");
    }
}

#[test]
fn every_change_is_built() {
    if cannot("every_change_is_built") {
        return;
    }
    let words = "-q -o type=oci,dest=PLACE/out.tar";
    type Change = fn(&Place);
    let changes: [(&str, bool, Change); 14] = [
        ("bytes, with length and time as before", true, |place| {
            write_in_disguise(&place.path("context/a"), "two");
        }),
        ("a mode", true, |place| {
            fs::set_permissions(place.path("context/a"), PermissionsExt::from_mode(0o600)).expect("ours");
        }),
        ("a folder's mode", true, |place| {
            fs::set_permissions(place.path("context/tree/deep"), PermissionsExt::from_mode(0o700))
                .expect("ours");
        }),
        ("a file more", true, |place| place.write("tree/new", "")),
        ("a file more that a wildcard takes", true, |place| place.write("z.txt", "z")),
        ("a file less", true, |place| fs::remove_file(place.path("context/tree/deep/c")).expect("there")),
        ("a link's target", true, |place| {
            fs::remove_file(place.path("context/tree/deep/l")).expect("there");
            symlink("d", place.path("context/tree/deep/l")).expect("free");
        }),
        ("names of one file that are two", true, |place| {
            fs::remove_file(place.path("context/tree/h")).expect("there");
            place.write("tree/h", "one");
        }),
        ("files that change places", true, |place| {
            place.write("t", "tree");
            fs::rename(place.path("context/b.txt"), place.path("context/t")).expect("there");
            fs::copy(place.path("context/tree/deep/c"), place.path("context/b.txt")).expect("there");
        }),
        ("the ignore file", true, |place| place.write(".dockerignore", "")),
        ("the Dockerfile", true, |place| place.write("Dockerfile", &format!("{COPIES}LABEL x=y\n"))),
        ("what is left out", false, |place| place.write("tree/left-out", "changed")),
        ("what nothing takes", false, |place| place.write("elsewhere", "changed")),
        ("a name that nothing takes", false, |place| place.write("elsewhere2", "new")),
    ];
    for (what, matters, change) in changes {
        let place = Place::new();
        place.remembered(words);
        let before = place.archive();
        change(&place);
        let (output, remembered) = place.build(words);
        assert!(output.status.success() && remembered != matters, "{what}: {}", said(&output));
        let after = place.archive();
        assert_eq!(before != after, matters, "{what}");
        // As a builder makes it that has never seen it.
        place.done("build -q --no-cache -o type=oci,dest=PLACE/out.tar PLACE/context");
        assert_eq!(place.copied("copied/a"), fs::read_to_string(place.path("context/a")).ok(), "{what}");
    }
}

#[test]
fn a_file_is_never_taken_for_what_it_was_a_moment_ago() {
    if cannot("a_file_is_never_taken_for_what_it_was_a_moment_ago") {
        return;
    }
    let place = Place::new();
    let begun = Instant::now();
    for round in 0..40 {
        let text = format!("{round:03}");
        write_in_disguise(&place.path("context/a"), &text);
        place.done("build -q -o type=oci,dest=PLACE/out.tar PLACE/context");
        assert_eq!(place.copied("copied/a"), Some(text), "{round}, {:?}", begun.elapsed());
    }
}

#[test]
fn another_request_is_another_build() {
    if cannot("another_request_is_another_build") {
        return;
    }
    let place = Place::new();
    let words = "-q -o type=oci,dest=PLACE/out.tar";
    place.remembered(words);
    for (more, again) in [
        ("--build-arg WORD=w", true),
        ("--label a=b", true),
        ("--target other", true),
        ("--platform linux/arm64", true),
        ("--build-context x=PLACE/context/tree", true),
        ("--resolve-ttl 1h", true),
        // Never remembered.
        ("--pull", false),
        ("-o type=local,dest=PLACE/files", false),
        ("-o type=tar,dest=PLACE/files.tar", false),
    ] {
        let words = format!("{words} {more}");
        assert!(!place.build(&words).1, "{more}");
        assert_eq!(place.build(&words).1, again, "{more}");
    }
    assert!(place.build(words).1, "others have not made it another");
    assert!(!place.build(&format!("{words} --no-cache")).1);
    place.remembered(words);
    for (name, value) in
        [("SOURCE_DATE_EPOCH", "1"), ("KILN_LIMITS", "layer=1gb"), ("https_proxy", "http://p")]
    {
        let mut command = place.command(program(), &format!("build {words} PLACE/context"));
        command.env(name, value);
        let (output, trace) = place.traced(&["-e", "trace=open,openat,openat2"], &command);
        // A value that is none is told, too.
        assert!(trace.contains("kiln.db") || output.status.code() == Some(2), "{name}: {}", said(&output));
    }
}

#[test]
fn a_secret_counts_where_that_is_asked_for() {
    let test = "no_op::a_secret_counts_where_that_is_asked_for";
    if cannot(test) || machine::cannot(test, ["root: nobody else traces who holds a secret"]) {
        return;
    }
    let place = Place::new();
    let words = "-q -o type=oci,dest=PLACE/out.tar";
    let secret = place.path("secret");
    fs::write(&secret, "one").expect("it is ours");
    place.remembered(words);
    let given = format!("{words} --secret id=s,src=PLACE/secret");
    assert!(place.build(&given).1, "it is in no key");
    fs::write(&secret, "two").expect("it is ours");
    assert!(place.build(&given).1, "it is in no key");

    let counts = format!("{given},cache-key=content");
    place.remembered(&counts);
    fs::write(&secret, "one").expect("it is ours");
    assert!(!place.build(&counts).1, "it has changed");
    assert!(place.build(&counts).1);
    fs::write(&secret, "two").expect("it is ours");
    assert!(place.build(&counts).1, "it is what it was");
    let key = fs::metadata(place.path("root/secret-key")).expect("it was needed");
    assert_eq!((key.len(), key.permissions().mode() & 0o7777), (32, 0o600));
    // Another key, and nothing is known of what it was.
    fs::write(place.path("root/secret-key"), "cut short").expect("it is ours");
    assert!(!place.build(&counts).1);
    assert_eq!(fs::metadata(place.path("root/secret-key")).expect("it was made anew").len(), 32);
    assert!(place.build(&counts).1);
    fs::remove_file(&secret).expect("it is there");
    assert_eq!(place.kiln(&format!("build {counts} PLACE/context")).status.code(), Some(2));
}

#[test]
fn an_archive_that_is_there_is_left_alone_and_no_other() {
    if cannot("an_archive_that_is_there_is_left_alone_and_no_other") {
        return;
    }
    let place = Place::new();
    let words = "-q -o type=oci,dest=PLACE/out.tar";
    place.remembered(words);
    let (before, path) = (place.archive(), place.path("out.tar"));
    let state = || fs::metadata(&path).map(|found| (found.modified().ok(), found.len())).ok();
    let first = state();
    assert!(place.build(words).1);
    assert_eq!(state(), first, "it was written again");
    assert!(
        place
            .command(copy_of_program(), &format!("build {words} PLACE/context"))
            .status()
            .expect("run")
            .success()
    );
    assert_eq!(state(), first, "the ordinary way wrote it again");
    type Change = fn(&Path);
    let changes: [(&str, Change); 5] = [
        ("removed", |path| fs::remove_file(path).expect("there")),
        ("longer", |path| fs::write(path, "no archive").expect("ours")),
        ("other bytes in disguise", |path| {
            let mut bytes = fs::read(path).expect("there");
            let last = bytes.len() - 2000;
            bytes[last] ^= 1;
            let time = fs::metadata(path).and_then(|found| found.modified()).expect("there");
            let mut file = fs::OpenOptions::new().write(true).open(path).expect("ours");
            file.write_all(&bytes).expect("ours");
            file.set_modified(time).expect("ours");
        }),
        ("another file in its place", |path| {
            let aside = path.with_extension("aside");
            fs::copy(path, &aside).expect("there");
            fs::rename(aside, path).expect("ours");
        }),
        ("touched", |path| {
            let file = fs::OpenOptions::new().write(true).open(path).expect("ours");
            file.set_modified(SystemTime::now()).expect("ours");
        }),
    ];
    for (what, change) in changes {
        change(&path);
        let (output, _) = place.build(words);
        assert!(output.status.success(), "{what}: {}", said(&output));
        assert!(place.archive() == before, "{what}");
        assert!(place.build(words).1, "{what}: it is there again");
    }
    // At another place the same is written without being built.
    fs::create_dir(place.path("new")).expect("free");
    place.done("build -q -o type=oci,dest=PLACE/new/out.tar PLACE/context");
    assert!(fs::read(place.path("new/out.tar")).expect("written") == before);
    let unwritable = place.kiln("build -q -o type=oci,dest=PLACE/context/a/out.tar PLACE/context");
    assert_eq!(unwritable.status.code(), Some(1), "{}", said(&unwritable));
}

#[test]
fn what_happens_to_the_state_folder_counts() {
    if cannot("what_happens_to_the_state_folder_counts") {
        return;
    }
    type Change = fn(&Place);
    let changes: [(&str, Change); 8] = [
        ("the name goes to another image", |place| {
            place.done("build -q -t other --label a=b PLACE/context");
            place.done("tag other app");
        }),
        ("the name is removed", |place| drop(place.done("rmi app"))),
        ("all is removed", |place| {
            place.done("rmi app");
            place.done("prune -a --force");
        }),
        ("the cache is removed", |place| drop(place.done("prune -a --force"))),
        ("a blob is deleted by hand", |place| {
            let mut blobs = fs::read_dir(place.path("root/blobs/sha256")).expect("there");
            fs::remove_file(blobs.next().expect("one").expect("read").path()).expect("there");
        }),
        ("a layer's manifest is deleted by hand", |place| {
            for tree in fs::read_dir(place.path("root/trees")).expect("there") {
                fs::remove_file(tree.expect("read").path()).expect("there");
            }
        }),
        ("the database is deleted by hand", |place| {
            for name in ["kiln.db", "kiln.db-wal", "kiln.db-shm"] {
                let _maybe_none = fs::remove_file(place.path("root").join(name));
            }
        }),
        ("a folder is gone", |place| fs::remove_dir_all(place.path("root")).expect("ours")),
    ];
    for (what, change) in changes {
        let place = Place::new();
        place.remembered("-q -t app");
        change(&place);
        let command = place.command(program(), "build -q -t app PLACE/context");
        let (output, trace) = place.traced(&["-e", "trace=open,openat,openat2"], &command);
        assert!(output.status.success() && trace.contains("kiln.db"), "{what}: {}", said(&output));
        assert!(!place.done("inspect app").contains("\"a\":"), "{what}");
        place.done("save --format oci -o PLACE/out.tar app");
        assert_eq!(place.copied("copied/a").as_deref(), Some("one"), "{what}");
        assert!(place.build("-q -t app").1, "{what}: and from then on it is known again");
    }
}

#[test]
fn a_base_image_that_moves_is_another_build() {
    if cannot("a_base_image_that_moves_is_another_build") {
        return;
    }
    let place = Place::of("FROM scratch\nCOPY a /a\n");
    place.done("build -q -t base PLACE/context");
    place.done("build -q -t base:2 --label a=b PLACE/context");
    place.write("Dockerfile", "FROM base\nCOPY tree/deep/c /c\n");
    place.settle();
    let words = "-q -o type=oci,dest=PLACE/out.tar";
    place.remembered(words);
    let before = place.archive();
    place.done("tag base:2 base");
    assert!(!place.build(words).1, "its base is another one");
    assert!(place.archive() != before);
    place.done("rmi base base:2");
    let (output, remembered) = place.build(&format!("{words} --pull=never"));
    assert!(!output.status.success() && !remembered, "there is no base any more");
}

#[test]
fn a_step_that_ran_again_counts() {
    if cannot("a_step_that_ran_again_counts") {
        return;
    }
    let place = Place::of(
        "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"sh\", \"-c\", \"/bin/busybox head -c 8 /dev/urandom > /r\"]\n",
    );
    let busybox = Command::new("sh").args(["-c", "command -v busybox"]).output().expect("a shell").stdout;
    fs::copy(String::from_utf8_lossy(&busybox).trim(), place.path("context/busybox")).expect("there");
    place.settle();
    let words = "-q -o type=oci,dest=PLACE/out.tar";
    place.remembered(words);
    let before = place.archive();
    place.done("build -q --no-cache -o type=oci,dest=PLACE/other.tar PLACE/context");
    assert!(!place.build(words).1, "the step has another result now");
    assert!(place.archive() != before);
    assert!(place.archive() == fs::read(place.path("other.tar")).expect("written"));
}

#[test]
fn a_build_that_failed_is_not_remembered() {
    if cannot("a_build_that_failed_is_not_remembered") {
        return;
    }
    let place = Place::of("FROM scratch\nCOPY nowhere /\n");
    for _ in 0..3 {
        let (output, remembered) = place.build("--progress plain");
        assert!(output.status.code() == Some(1) && !remembered, "{}", said(&output));
        assert!(said(&output).contains("nowhere"));
    }
    place.write("nowhere", "here");
    assert_eq!(place.build("-q").0.status.code(), Some(0));
}
