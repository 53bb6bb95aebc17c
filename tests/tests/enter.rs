//! Entering a step: `kiln build --on-error=shell` and `kiln shell`, on a terminal as a person has it.

use std::ffi::OsString;
use std::fs::{self, DirEntry, File, OpenOptions};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use kiln_tests::machine;
use kiln_tests::program::{kiln, program, said};
use kiln_tests::traces;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// How long anything is waited for.
const LONG: Duration = Duration::from_secs(60);

fn cannot(test: &str) -> bool {
    machine::cannot(test, ["steps", "busybox", "program:setsid"])
}

/// Two stages; the last step of the first fails unless it is given `RIGHT=yes`.
const STEPS: &str = "\
FROM busybox AS build
ENV GREETING=hello
WORKDIR /src
COPY a.txt .
RUN --mount=type=cache,target=/cache echo one >> /cache/log; cp a.txt b.txt
ARG RIGHT=no
RUN --mount=type=cache,target=/cache --mount=type=bind,source=a.txt,target=/ctx/a.txt --mount=type=tmpfs,target=/tmp/t \\
    --mount=type=secret,id=token \\
    echo left > left.txt; echo two >> /cache/log; echo ran; test $RIGHT = yes || exit 1
FROM busybox
COPY --from=build /src/left.txt /
RUN cat /left.txt > /right.txt
";

/// A context, a state folder, and a word that no other process has on its command line.
struct Place(tempfile::TempDir);

impl Place {
    fn new(dockerfile: &str) -> Place {
        let folder = tempfile::Builder::new().prefix("kiln-enter-").tempdir().expect("a temporary folder");
        let place = Place(folder);
        fs::create_dir(place.path("context")).expect("it is empty");
        fs::write(place.path("context/Dockerfile"), dockerfile).expect("its parent is there");
        fs::write(place.path("context/a.txt"), "text\n").expect("its parent is there");
        fs::write(place.path("token"), "s3cr3t\n").expect("the folder is there");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn words(&self, words: &str) -> Vec<String> {
        let base = machine::base_argument().expect("the test asked for it");
        let place = self.0.path().display().to_string();
        let given = words.split(' ').map(|word| word.replace("PLACE", &place).replace("BASE", &base));
        let root = self.path("root").display().to_string();
        ["--root".to_owned(), root].into_iter().chain(given).collect()
    }

    /// Without a terminal.
    fn kiln(&self, words: &str) -> Output {
        kiln().args(self.words(words)).stdin(Stdio::null()).output().expect("the program was built")
    }

    /// As [`Place::kiln`], with a shell's command as the last word; it must succeed. What it wrote to standard output.
    fn shell(&self, words: &str, command: &str) -> String {
        let mut kiln = kiln();
        let output = kiln.args(self.words(words)).args(["sh", "-c", command]).stdin(Stdio::null()).output();
        let output = output.expect("the program was built");
        assert!(output.status.success(), "{words}: {}", said(&output));
        String::from_utf8(output.stdout).expect("the tests write text")
    }

    fn on_terminal(&self, words: &str) -> Person {
        Person::new(&self.words(words))
    }

    fn nothing_is_left(&self) {
        let left = traces::left_by(&self.path("root"), "");
        assert!(left.is_empty(), "{left:#?}");
    }
}

const BUILD: &str = "build --progress=plain --build-context BASE --secret id=token,src=PLACE/token";

/// Someone at a terminal of 24 lines, which are long: a shell breaks longer ones where it shows them.
struct Person {
    child: Child,
    master: OwnedFd,
    /// Held open, so that the terminal outlives the program, and its mode can be asked for.
    slave: File,
    seen: String,
    /// What was read of it.
    read: usize,
}

impl Person {
    fn new(words: &[String]) -> Person {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&master).expect("it is ours");
        unlockpt(&master).expect("it is ours");
        let name = ptsname(&master, Vec::new()).expect("it has one");
        let slave = rustix::fs::open(&*name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty());
        let slave = File::from(slave.expect("it is unlocked"));
        resize(&master, 24, 200);
        let end = || Stdio::from(slave.try_clone().expect("a descriptor"));
        // A session with this terminal: signals of keys reach nobody else.
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(program()).args(words).stdin(end()).stdout(end()).stderr(end());
        command.env("NO_COLOR", "1").env_remove("KILN_ROOT").env_remove("BUILDKIT_PROGRESS");
        let child = command.spawn().expect("setsid is there");
        Person { child, master, slave, seen: String::new(), read: 0 }
    }

    /// Reads until a text appears behind what was read before.
    fn sees(&mut self, text: &str) {
        let started = Instant::now();
        loop {
            if let Some(at) = self.seen[self.read..].find(text) {
                self.read += at + text.len();
                return;
            }
            assert!(started.elapsed() < LONG, "`{text}` is not seen in:\n{}", self.seen);
            self.look();
        }
    }

    fn look(&mut self) {
        let wait = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        let mut polled = [PollFd::new(&self.master, PollFlags::IN)];
        if poll(&mut polled, Some(&wait)).expect("it can be waited for") > 0 {
            let mut buffer = [0; 4096];
            if let Ok(length) = rustix::io::read(&self.master, &mut buffer) {
                self.seen += &String::from_utf8_lossy(&buffer[..length]);
            }
        }
    }

    fn types(&mut self, keys: &str) {
        let mut to = File::from(self.master.try_clone().expect("a descriptor"));
        to.write_all(keys.as_bytes()).expect("the terminal takes it");
    }

    /// Waits for the shell's prompt, types a line, and waits for what comes of it.
    fn line(&mut self, line: &str, answer: &str) {
        self.sees("# ");
        self.types(&format!("{line}\n"));
        // The line itself comes back.
        self.sees("\n");
        self.sees(answer);
    }

    /// Starts something that does not end by itself, and waits until the terminal's keys are its.
    fn starts(&mut self, command: &str) {
        self.line(&format!("sh -c 'echo u\"\"p; exec {command}'"), "up\r\n");
    }

    /// Waits for the program's end; what it wrote in all.
    fn ends(mut self) -> (ExitStatus, String) {
        let started = Instant::now();
        loop {
            self.look();
            if let Some(status) = self.child.try_wait().expect("it is ours") {
                self.look();
                let modes = tcgetattr(&self.slave).expect("a terminal").local_modes;
                let cooked = LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
                assert!(modes.contains(cooked), "the terminal is as it was: {modes:?}");
                return (status, self.seen);
            }
            assert!(started.elapsed() < LONG, "it does not end:\n{}", self.seen);
        }
    }

    fn signal(&self, signal: Signal) {
        let process = Pid::from_child(&self.child);
        kill_process(process, signal).expect("it runs");
    }
}

fn resize(master: &OwnedFd, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(master, size).expect("a terminal");
}

#[test]
fn a_failed_step_is_entered_as_it_was_left() {
    if cannot("a_failed_step_is_entered_as_it_was_left") {
        return;
    }
    let place = Place::new(STEPS);
    let mut person = place.on_terminal(&format!("{BUILD} --on-error=shell PLACE/context"));
    person.sees("error[run-failed]");
    person.sees("exited with 1");
    person.sees("in the step as it failed");
    person.sees("(eval \"$KILN_COMMAND\")");
    person.line("cat left.txt b.txt; echo $GREETING", "left\r\ntext\r\nhello");
    person.line(
        "cat /cache/log /run/secrets/token; ls /ctx; stat -f -c %T /tmp/t",
        "one\r\ntwo\r\ns3cr3t\r\na.txt\r\ntmpfs",
    );
    // Also a command that says `exit`, or `set -e`, leaves the shell.
    person.line("(eval \"$KILN_COMMAND\"); echo again $?", "ran\r\nagain 1");
    // Keys are the shell's business, and a window is as large as the terminal.
    person.line("tty; stty size", "/dev/pts/0\r\n24 200");
    resize(&person.master, 50, 132);
    let started = Instant::now();
    while !person.seen.contains("50 132") {
        assert!(started.elapsed() < LONG, "{}", person.seen);
        person.line("stty size", "\n");
    }
    person.starts("sleep 1000");
    person.types("\x03");
    person.line("echo interrupted $?", "interrupted 130");
    person.starts("cat");
    person.types("\x1a");
    person.sees("Stopped");
    person.line("kill -9 %1; wait; echo unwelcome > /unwelcome; echo unwelcome >> /src/left.txt", "");
    // The same build, meanwhile and in the same state folder.
    let other =
        place.kiln(&format!("{BUILD} --build-arg RIGHT=yes -t done --iidfile PLACE/id PLACE/context"));
    assert!(other.status.success(), "{}", said(&other));
    // Not `exit`: a shell that has not heard yet of the end of a job of its asks again.
    person.line("exec sh -c 'exit 3'", "");
    let (status, seen) = person.ends();
    assert_eq!(status.code(), Some(1), "{seen}");
    assert_eq!(seen.matches("error[run-failed]").count(), 1, "{seen}");
    place.nothing_is_left();
    // Nothing of what was written there is anywhere: neither for the build that failed nor for the one that did not.
    let right = place.shell("run done", "ls /; cat /right.txt");
    assert!(!right.contains("unwelcome") && right.ends_with("left\n"), "{right}");
    let failed = place.kiln(&format!("{BUILD} PLACE/context"));
    assert_eq!(failed.status.code(), Some(1));
    assert!(!said(&failed).contains("unwelcome"));
    let grep = Command::new("grep")
        .args(["-rl", "unwelcome"])
        .arg(place.path("root"))
        .output()
        .expect("it is there");
    assert_eq!(String::from_utf8_lossy(&grep.stdout), "");
}

#[test]
fn a_shell_without_a_terminal_is_refused_before_anything_is_built() {
    if cannot("a_shell_without_a_terminal_is_refused_before_anything_is_built") {
        return;
    }
    let place = Place::new(STEPS);
    let refused = place.kiln(&format!("{BUILD} --on-error=shell PLACE/context"));
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(said(&refused).contains("`--on-error=shell` needs a terminal"), "{}", said(&refused));
    assert!(!place.path("root").exists());
    let refused = place.kiln(&format!("{BUILD} --on-error=bash PLACE/context"));
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    let refused = place.kiln("shell busybox");
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
}

#[test]
fn the_shell_of_the_stage_is_opened_and_a_root_without_one_is_told() {
    if cannot("the_shell_of_the_stage_is_opened_and_a_root_without_one_is_told") {
        return;
    }
    let place = Place::new(
        "FROM busybox AS own\nSHELL [\"/bin/busybox\", \"ash\", \"-e\", \"-c\"]\nRUN echo a; false\n\
         FROM busybox AS gone\nSHELL [\"/bin/false-shell\", \"-c\"]\nRUN [\"/bin/false\", \"it's\"]\n\
         FROM scratch AS none\nCOPY --from=busybox /bin/busybox /app/false\nRUN [\"/app/false\"]\n",
    );
    let build = "build --progress=plain --build-context BASE --on-error=shell PLACE/context --target";
    let mut person = place.on_terminal(&format!("{build} own"));
    person.sees("/bin/busybox ash in the step as it failed");
    // A shell that ends at the first mistake would be none to look around with.
    person.line("false", "");
    person.line("echo still here", "still here");
    person.sees("# ");
    person.types("\x04");
    assert_eq!(person.ends().0.code(), Some(1));
    let mut person = place.on_terminal(&format!("{build} gone"));
    person.sees("/bin/sh in the step as it failed");
    person.line("echo \"[$KILN_COMMAND]\"", "[/bin/false 'it'\\''s']");
    person.line("exit", "");
    assert_eq!(person.ends().0.code(), Some(1));
    let (status, seen) = place.on_terminal(&format!("{build} none")).ends();
    assert_eq!(status.code(), Some(1));
    assert!(seen.contains("error[run-failed]") && seen.contains("error[no-shell]"), "{seen}");
    assert!(seen.contains("--mount=type=bind,from=busybox:musl"), "{seen}");
    place.nothing_is_left();
}

#[test]
fn a_shell_ends_with_the_program_however_that_ends() {
    if cannot("a_shell_ends_with_the_program_however_that_ends") {
        return;
    }
    let place = Place::new("FROM busybox\nRUN false\n");
    for signal in [Signal::KILL, Signal::TERM, Signal::HUP] {
        let words = "build --progress=plain --no-cache --build-context BASE --on-error=shell PLACE/context";
        let mut person = place.on_terminal(words);
        person.sees("in the step as it failed");
        person.line("/bin/busybox sleep 1234567 &", "");
        person.starts("/bin/busybox sleep 7654321");
        let started = Instant::now();
        while !["1234567", "7654321"].iter().all(|word| traces::is_running(&format!("sleep {word}"))) {
            assert!(started.elapsed() < LONG, "{}", person.seen);
        }
        person.signal(signal);
        if signal == Signal::KILL {
            person.child.wait().expect("it is ours");
        } else {
            let (status, seen) = person.ends();
            assert_eq!(status.code(), Some(1), "{signal:?}: {seen}");
        }
        for marker in ["sleep 1234567", "sleep 7654321"] {
            let left = traces::left_by(&place.path("root"), marker);
            assert!(left.is_empty(), "{signal:?}: {left:#?}");
        }
    }
}

/// The numbers of the listed steps by a part of their line.
fn number(list: &str, part: &str) -> String {
    let line = list.lines().find(|line| line.contains(part));
    let line = line.unwrap_or_else(|| panic!("{part} is not in:\n{list}"));
    line.split_whitespace().next().expect("it has a number").to_owned()
}

#[test]
fn the_steps_of_the_last_build_are_listed_and_opened() {
    if cannot("the_steps_of_the_last_build_are_listed_and_opened") {
        return;
    }
    let place = Place::new(STEPS);
    let none = place.kiln("shell");
    assert_eq!(none.status.code(), Some(1));
    assert!(said(&none).contains("error[no-build]"), "{}", said(&none));
    let failed = place.kiln(&format!("{BUILD} PLACE/context"));
    assert_eq!(failed.status.code(), Some(1), "{}", said(&failed));
    let list = place.shell_list("");
    let failing = number(&list, "RUN --mount=type=cache,target=/cache --mount");
    assert!(said(&failed).contains(&format!("\n#{failing} [build 5/5] RUN --mount")), "{}", said(&failed));
    assert!(list.contains("Dockerfile:7 ") && list.contains(" failed ") && list.contains(" ran "), "{list}");
    // Of what ran as a process, also the processor time.
    let times = |part: &str| {
        let line = list.lines().find(|line| line.contains(part)).expect("it is listed");
        line.split('[').next().expect("the name begins so").matches(" ms ").count()
    };
    assert_eq!((times("echo one >>"), times("COPY a.txt")), (2, 1), "{list}");

    // The step that failed: before it, with its mounts, and nothing stays.
    let look = "pwd; ls; cat /cache/log; ls /ctx; echo $GREETING; echo more >> /cache/log";
    let inside = place.shell(&format!("shell {failing}"), look);
    assert_eq!(inside, "/src\na.txt\nb.txt\none\ntwo\na.txt\nhello\n");
    for step in ["build:5", "Dockerfile:7", "Dockerfile:9"] {
        let inside = place.shell(&format!("shell {step}"), "cat /cache/log; ls");
        assert_eq!(inside, "one\ntwo\na.txt\nb.txt\n", "{step}");
    }
    let notes = place.kiln(&format!("shell {failing} true"));
    assert!(
        said(&notes).contains("/run/secrets/token is not mounted: give it with --secret id=token"),
        "{}",
        said(&notes)
    );
    let given = place.shell(
        &format!("shell --secret id=token,src=PLACE/token -u 77:88 {failing}"),
        "id -u; id -g; cat /run/secrets/token 2>/dev/null || echo refused",
    );
    assert_eq!(given, "77\n88\nrefused\n");
    let root = place.shell(
        &format!("shell --secret id=token,src=PLACE/token --root-user {failing}"),
        "cat /run/secrets/token",
    );
    assert_eq!(root, "s3cr3t\n");
    let after = place.kiln(&format!("shell --after {failing} true"));
    assert_eq!(after.status.code(), Some(1));
    assert!(
        said(&after).contains("error[step-gone]") && said(&after).contains("it failed"),
        "{}",
        said(&after)
    );

    // Other steps, before and after.
    assert_eq!(place.shell("shell build:4", "ls /src"), "a.txt\n");
    assert_eq!(place.shell("shell --after build:4", "ls /src; rm -r /src; exit 0"), "a.txt\nb.txt\n");
    assert_eq!(place.shell("shell --after build:4", "ls /src"), "a.txt\nb.txt\n");
    assert_eq!(place.shell("shell --after Dockerfile:1", "test -d /src || echo none"), "none\n");
    for (wrong, code) in [
        ("99", "no-step"),
        ("build:9", "no-step"),
        ("Dockerfile:2", "no-step"),
        ("Dockerfile:1", "step-gone"),
    ] {
        let refused = place.kiln(&format!("shell {wrong} true"));
        assert_eq!(refused.status.code(), Some(1), "{wrong}");
        assert!(said(&refused).contains(&format!("error[{code}]")), "{wrong}: {}", said(&refused));
    }

    // What a cache is asked to keep, it keeps.
    place.shell("shell --write-caches build:4", "echo kept >> /cache/log");
    assert_eq!(place.shell("shell build:4", "cat /cache/log"), "one\ntwo\nkept\n");

    // The exit status is the command's own.
    let exit = kiln().args(place.words("shell build:4 sh -c")).arg("exit 7").stdin(Stdio::null()).status();
    assert_eq!(exit.expect("the program was built").code(), Some(7));
    place.nothing_is_left();
}

impl Place {
    fn shell_list(&self, words: &str) -> String {
        let output = self.kiln(format!("shell {words}").trim());
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).expect("the list is text")
    }
}

#[test]
fn steps_that_were_cached_are_opened_too() {
    if cannot("steps_that_were_cached_are_opened_too") {
        return;
    }
    let place = Place::new(STEPS);
    let build = format!("{BUILD} --build-arg RIGHT=yes -t app PLACE/context");
    assert!(place.kiln(&build).status.success());
    // Another last step: all below is answered by the cache from above, and nobody has its layers in hand.
    let text = STEPS.replace("/right.txt", "/other.txt");
    fs::write(place.path("context/Dockerfile"), &text).expect("it is ours");
    for round in ["one ran", "none ran"] {
        let built = place.kiln(&build);
        assert!(built.status.success(), "{round}: {}", said(&built));
        let list = place.shell_list("");
        assert!(list.contains(" cached "), "{round}: {list}");
        assert_eq!(place.shell("shell build:5", "ls; cat /cache/log"), "a.txt\nb.txt\none\ntwo\n", "{round}");
        assert_eq!(place.shell("shell --after build:5", "cat left.txt"), "left\n", "{round}");
        assert_eq!(place.shell("shell build:2", "ls -d /src /bin 2>/dev/null; true"), "/bin\n", "{round}");
        assert_eq!(place.shell("shell stage-1:3", "ls /*.txt"), "/left.txt\n", "{round}");
        assert_eq!(place.shell("shell --after stage-1:3", "ls /*.txt"), "/left.txt\n/other.txt\n", "{round}");
    }
    // An image of the store, and one that is not there.
    assert_eq!(place.shell("shell app", "cat /other.txt"), "left\n");
    let missing = place.kiln("shell nothing:3 true");
    assert!(said(&missing).contains("error[no-image]"), "{}", said(&missing));

    // A Dockerfile that was built before, as it was; and one that never was.
    fs::write(place.path("Dockerfile.old"), STEPS).expect("the folder is there");
    assert!(place.shell_list("-f PLACE/Dockerfile.old").contains("/right.txt"));
    assert!(place.shell_list("-f PLACE/context/Dockerfile").contains("/other.txt"));
    fs::write(place.path("Dockerfile.new"), "FROM scratch\n").expect("the folder is there");
    let unknown = place.kiln("shell -f PLACE/Dockerfile.new");
    assert!(said(&unknown).contains("error[no-build]"), "{}", said(&unknown));

    // What the collector has taken is told, and the next build brings it back.
    let pruned = place.kiln("prune --all --force");
    assert!(pruned.status.success(), "{}", said(&pruned));
    let removed = place.kiln("rmi app");
    assert!(removed.status.success(), "{}", said(&removed));
    assert!(place.kiln("prune --all --force").status.success());
    let gone = place.kiln("shell build:5 true");
    assert_eq!(gone.status.code(), Some(1));
    assert!(said(&gone).contains("error[step-gone]"), "{}", said(&gone));
    assert!(place.kiln(&build).status.success());
    assert_eq!(place.shell("shell build:5", "ls"), "a.txt\nb.txt\n");
}

#[test]
fn an_image_that_is_only_mounted_is_there_again() {
    if cannot("an_image_that_is_only_mounted_is_there_again") {
        return;
    }
    let place = Place::new("FROM busybox\nRUN mkdir /tool; echo tool > /tool/name\n");
    let build = "build -q --build-context BASE PLACE/context";
    assert!(place.kiln(&format!("{build} -t tool:1")).status.success());
    let text = "FROM tool:1 AS tool\nFROM busybox\n\
                RUN --mount=type=bind,from=tool,source=/tool,target=/mnt cp /mnt/name /copy\n";
    fs::write(place.path("context/Dockerfile"), text).expect("it is ours");
    let built = place.path("root/built");
    // Made, then cached from above, then told as before, then as part of another Dockerfile.
    let mut told = None;
    for (round, more) in ["", "", "", "RUN true\n"].into_iter().enumerate() {
        fs::write(place.path("context/Dockerfile"), format!("{text}{more}")).expect("it is ours");
        let output = place.kiln(build);
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(place.shell("shell Dockerfile:3", "cat /mnt/name"), "tool\n", "{round}");
        assert_eq!(place.shell("shell --after Dockerfile:1", "cat /tool/name"), "tool\n", "{round}");
        let files = files_of(&built);
        if round == 2 {
            assert_eq!(told, Some(files), "a build that comes to what the last one came to writes nothing");
            told = None;
        } else {
            assert_ne!(told, Some(files.clone()), "{round}");
            told = Some(files);
        }
    }
    // Not the last that was written down any more: then it is written down that it is again.
    fs::write(place.path("context/Dockerfile"), text).expect("it is ours");
    assert!(place.kiln(build).status.success());
    assert!(!place.shell_list("").contains("RUN true"));
}

/// Names and times of the files of a folder.
fn files_of(folder: &Path) -> Vec<(OsString, SystemTime)> {
    let entries =
        fs::read_dir(folder).expect("a build was made").map(|entry| entry.expect("nobody else writes"));
    let modified =
        |entry: &DirEntry| entry.metadata().and_then(|found| found.modified()).expect("it has a time");
    let mut files: Vec<_> = entries.map(|entry| (entry.file_name(), modified(&entry))).collect();
    files.sort();
    files
}

#[test]
fn a_build_answered_from_memory_writes_nothing_and_what_is_written_holds_no_secret() {
    if cannot("a_build_answered_from_memory_writes_nothing_and_what_is_written_holds_no_secret") {
        return;
    }
    // An image of the local store: nobody remembers what a layout held.
    let place = Place::new("FROM busybox\n");
    assert!(place.kiln("build -q --build-context BASE -t box PLACE/context").status.success());
    fs::write(place.path("context/Dockerfile"), "FROM box\nRUN test -n $HTTP_PROXY; date > /d\n")
        .expect("it is ours");
    let build = "build -q --build-arg HTTP_PROXY=http://me:pa55word@proxy.test:1 PLACE/context";
    assert!(place.kiln(build).status.success());
    // A damaged file of another build is no build.
    let built = place.path("root/built");
    OpenOptions::new().create(true).append(true).open(built.join("0".repeat(64))).expect("it can be written");
    let before = files_of(&built);
    assert!(place.kiln(build).status.success());
    assert_eq!(files_of(&built), before);
    assert!(place.shell_list("").contains("RUN test"));
    let grep = Command::new("grep").args(["-rl", "pa55word"]).arg(&built).output().expect("it is there");
    assert_eq!(String::from_utf8_lossy(&grep.stdout), "");
}

#[test]
fn the_only_stage_has_a_name_and_what_is_entered_has_limits() {
    if cannot("the_only_stage_has_a_name_and_what_is_entered_has_limits") {
        return;
    }
    let place = Place::new("FROM busybox\nRUN --mount=type=ssh true\n");
    let build = "build -q --build-context BASE --ulimit nofile=50 --shm-size 1m -t app PLACE/context";
    assert!(place.kiln(build).status.success());
    let look = "set -- $(df -k /dev/shm | tail -n 1); echo ${SSH_AUTH_SOCK-none} $(ulimit -n) $2";
    for (words, seen) in [
        ("shell stage-0:2", "none 50 1024\n"),
        ("shell --ulimit nofile=60 --shm-size 2m STAGE-0:2", "none 60 2048\n"),
        ("shell --after --ulimit nofile=60 Dockerfile:1", "none 60 1024\n"),
        ("shell --ulimit nofile=70 --shm-size 3m app", "none 70 3072\n"),
        ("run --ulimit nofile=70 --shm-size 3m app", "none 70 3072\n"),
    ] {
        assert_eq!(place.shell(words, look), seen, "{words}");
    }
    let refused = place.kiln("shell --ulimit nofile=2:1 stage-0:2 true");
    assert!(said(&refused).contains("the soft limit is above the hard one"), "{}", said(&refused));
}

#[test]
fn an_image_and_a_step_are_entered_with_a_terminal() {
    if cannot("an_image_and_a_step_are_entered_with_a_terminal") {
        return;
    }
    let place = Place::new(STEPS);
    assert!(place.kiln(&format!("{BUILD} --build-arg RIGHT=yes -t app PLACE/context")).status.success());
    for (words, prompt, title) in [
        ("shell app", "/ # ", "/bin/sh app;"),
        ("shell build:5", "/src # ", "/bin/sh before [build 5/5] RUN"),
        ("shell --after build:5", "/src # ", "/bin/sh after [build 5/5] RUN"),
    ] {
        let mut person = place.on_terminal(words);
        person.sees(title);
        person.sees(prompt);
        person.read -= "# ".len();
        person.line("tty; stty size; echo x > /x", "/dev/pts/0\r\n24 200");
        person.starts("sleep 1000");
        person.types("\x03");
        person.line("exit 5", "");
        assert_eq!(person.ends().0.code(), Some(5), "{words}");
    }
    assert_eq!(place.shell("shell app", "ls /x 2>/dev/null || echo none"), "none\n");
    place.nothing_is_left();
}
