//! Each system call of a small build is made to fail in turn: in Kiln, in the process that clones steps, in a step's first
//! process and in its command before it begins. The build says what went wrong and ends with 1, or does without that call and
//! makes the same image; nothing of it is left, and the next build makes that image too.
//!
//! `inject.c` stands between Kiln and the kernel. By default each kind of call fails once, another one each day; with
//! `KILN_FAULTS=N` at most N of each kind fail, with every error that fits, and with `KILN_FAULTS=role:call:number:errno` that one.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_tests::image::Image;
use kiln_tests::machine;
use kiln_tests::program::{Build, program, read_progress, said};
use kiln_tests::traces;

const DOCKERFILE: &str = "FROM busybox\nCOPY file folder/ /there/\nRUN echo one > /one; mkdir -p /a/b; ln -s one /two\nRUN cat /one /there/file > /three\n";

/// Builds at once; each has a state folder of its own.
const AT_ONCE: usize = 3;

/// One failure.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Fault {
    /// `role:call:number`.
    which: String,
    errno: i32,
}

/// What can go wrong with a call.
fn errors(call: &str) -> &'static [i32] {
    const PERM: i32 = 1;
    const INTR: i32 = 4;
    const IO: i32 = 5;
    const AGAIN: i32 = 11;
    const NOMEM: i32 = 12;
    const ACCES: i32 = 13;
    const MFILE: i32 = 24;
    const NOTTY: i32 = 25;
    const NOSPC: i32 = 28;
    const NOLCK: i32 = 37;
    match call {
        "open" | "openat" | "openat2" => &[MFILE, ACCES],
        "read" | "pread64" | "splice" | "sendfile" => &[IO, INTR],
        "write" | "pwrite64" | "writev" => &[NOSPC, INTR],
        "copy_file_range" | "fallocate" | "ftruncate" | "fsync" | "fdatasync" | "syncfs" => &[NOSPC, IO],
        "mkdir" | "mkdirat" | "mknodat" | "symlink" | "symlinkat" | "link" | "linkat" | "rename"
        | "renameat" | "renameat2" => &[NOSPC, IO],
        "clone" | "clone3" => &[AGAIN, NOMEM],
        "pipe2" | "socketpair" | "memfd_create" | "epoll_create1" | "eventfd2" | "signalfd4" | "socket"
        | "fsopen" | "fsmount" | "open_tree" | "dup3" => &[MFILE, NOMEM],
        "poll" | "ppoll" | "getrandom" => &[INTR],
        "flock" => &[NOLCK, INTR],
        "sendmsg" | "recvmsg" => &[INTR, NOMEM],
        "ioctl" => &[NOTTY, IO],
        "prlimit64" | "bpf" | "setns" | "unshare" | "capset" | "setgroups" => &[PERM],
        _ => &[IO, NOMEM],
    }
}

struct Bench {
    folder: tempfile::TempDir,
    inject: PathBuf,
    base: String,
    /// The image's digest, where nothing fails.
    expected: String,
}

impl Bench {
    fn new() -> Bench {
        // In memory: thousands of small builds are about calls, and not about a disk.
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let folder =
            tempfile::Builder::new().prefix("kiln-faults-").tempdir_in(parent).expect("it can be written");
        let context = folder.path().join("context");
        fs::create_dir_all(context.join("folder/deep")).expect("its parent is empty");
        for (name, content) in
            [("Dockerfile", DOCKERFILE), ("file", "content\n"), ("folder/deep/other", "more\n")]
        {
            fs::write(context.join(name), content).expect("its folder is there");
        }
        let inject = folder.path().join("inject");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/inject.c");
        let compiler = Command::new("gcc").args(["-O1", "-o"]).args([&inject, &source]).status();
        assert!(compiler.is_ok_and(|status| status.success()), "gcc compiles inject.c");
        let base = machine::base_argument().expect("the test asked for it");
        Bench { folder, inject, base, expected: String::new() }
    }

    fn build(&self, place: &Path) -> Build {
        let mut build = Build::new(&place.join("root"), &self.folder.path().join("context"))
            .argument("--build-context")
            .argument(&self.base)
            .argument("-t")
            .argument("made")
            .to_archive(&place.join("image.tar"));
        build.env.insert("SOURCE_DATE_EPOCH".into(), "1700000000".into());
        build
    }

    /// A build in which one call fails, or none; the calls that it made are written to `counts`.
    fn inject(&self, place: &Path, fault: Option<&Fault>) -> Output {
        let build = self.build(place).command();
        let (which, errno) = fault.map_or(("-", 0), |fault| (fault.which.as_str(), fault.errno));
        let mut command = Command::new(&self.inject);
        command.arg(program()).arg(place.join("counts")).args([which, &errno.to_string(), "--"]);
        command.arg(build.get_program()).args(build.get_args());
        for (name, value) in build.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.stdin(Stdio::null()).output().expect("it was built")
    }

    fn place(&self, name: &str) -> PathBuf {
        let place = self.folder.path().join(name);
        fs::create_dir_all(&place).expect("it can be written");
        place
    }

    fn digest(place: &Path) -> Result<String, String> {
        Image::read(&place.join("image.tar")).map(|image| image.manifest).map_err(|error| error.to_string())
    }

    /// All failures, at most so many of each kind.
    fn faults(&self, place: &Path, most: u64, shift: u64) -> Vec<Fault> {
        let counts = fs::read_to_string(place.join("counts")).expect("it was written");
        let mut faults = Vec::new();
        for (line, text) in counts.lines().enumerate() {
            let words: Vec<&str> = text.split(' ').collect();
            let [role, call, count] = words[..] else { panic!("{text}") };
            let count: u64 = count.parse().expect("a number");
            let wanted = most.min(count);
            let numbers: BTreeSet<u64> =
                (0..wanted).map(|index| (index * count / wanted + shift) % count + 1).collect();
            for number in numbers {
                let all = errors(call);
                let some = if most == 1 { &all[(line + shift as usize) % all.len()..][..1] } else { all };
                let which = format!("{role}:{call}:{number}");
                faults.extend(some.iter().map(|errno| Fault { which: which.clone(), errno: *errno }));
            }
        }
        faults
    }

    /// Lets one call fail; what is wrong with what came of it.
    fn check(&self, fault: &Fault, number: usize) -> Result<(), String> {
        let place = self.place(&number.to_string());
        let output = self.inject(&place, Some(fault));
        let (_, stderr) = read_progress(&said(&output));
        let complain = |why: &str| Err(format!("{}:{}: {why}\n{stderr}", fault.which, fault.errno));
        match output.status.code() {
            Some(0) if Bench::digest(&place).as_ref() != Ok(&self.expected) => {
                return complain("it succeeds with another image");
            }
            Some(0) => {}
            Some(1) if !stderr.contains("error") => return complain("no error is told"),
            Some(1) => {}
            Some(124) => return complain("it does not end"),
            other => return complain(&format!("it ends with {other:?}")),
        }
        for word in ["panicked", "internal", "stack backtrace", "a bug"] {
            if stderr.contains(word) {
                return complain(&format!("it says `{word}`"));
            }
        }
        if place.join("image.tar").exists() && Bench::digest(&place).as_ref() != Ok(&self.expected) {
            return complain("half an image has its name");
        }
        let left = traces::left_by(&place.join("root"), "");
        if !left.is_empty() {
            return complain(&format!("left: {}", left.join("\n")));
        }
        let again = self.build(&place).run();
        if again.status != Some(0) {
            return complain(&format!("the next build ends with {:?}: {}", again.status, again.stderr));
        }
        if Bench::digest(&place).as_ref() != Ok(&self.expected) {
            return complain("the next build makes another image");
        }
        // What is left of a failed attempt is looked at.
        fs::remove_dir_all(&place).map_err(|error| error.to_string())
    }
}

#[test]
fn every_call_can_fail() {
    if machine::cannot(
        "every_call_can_fail",
        ["root: it listens to calls, as what emulates owners does", "busybox", "program:gcc"],
    ) {
        return;
    }
    let mut bench = Bench::new();
    let place = bench.place("none");
    let output = bench.inject(&place, None);
    assert!(output.status.success(), "without a failure: {}", said(&output));
    bench.expected = Bench::digest(&place).expect("there is an image");
    let asked = std::env::var("KILN_FAULTS").unwrap_or_else(|_| "1".into());
    let today = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / 86400);
    let faults = match asked.rsplit_once(':') {
        Some((which, errno)) => {
            vec![Fault { which: which.to_owned(), errno: errno.parse().expect("an errno") }]
        }
        None => bench.faults(&place, asked.parse().expect("KILN_FAULTS is a number"), today),
    };
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let number = next.fetch_add(1, Ordering::Relaxed)
                    && let Some(fault) = faults.get(number)
                {
                    if let Err(why) = bench.check(fault, number) {
                        println!("{why}");
                        wrong.lock().expect("nobody panics with it").push(why);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().expect("nobody panics with it");
    println!("{} calls failed, {} of them badly", faults.len(), wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
