//! Secrets and keys leave no trace: not in the state folder, in no output, in no log, in no process that was not given
//! them. Every test looks with the same eyes, which are shown first to see what was planted.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::{Compression, write::GzEncoder};
use kiln_tests::machine;
use kiln_tests::needle::Needle;
use kiln_tests::program::{kiln, run, said};

const FILE: &str = "No.Trace?of/9f27+c0ffee>in.a.file";
const VARIABLE: &str = "No.Trace?of/51ab+decade>in.a.variable";

/// All ways in which a step is given something, and what a step may do with it. The last one is given nothing.
const STEPS: &str = "\
FROM busybox
RUN --mount=type=secret,id=file,required --mount=type=secret,id=file,target=/deep/down/here \\
    --mount=type=secret,id=variable,env=TOKEN,required --mount=type=ssh,required \\
    test $(cat /run/secrets/file | wc -c) = 33 && cmp /run/secrets/file /deep/down/here && test ${#TOKEN} = 37 \\
    && test -S $SSH_AUTH_SOCK && echo in the first step && sleep PAUSE
WORKDIR /dump
RUN --mount=type=secret,id=variable,env=TOKEN ulimit -c unlimited; sh -c 'kill -SEGV $$'; test $? -ge 128
RUN echo in the last step && sleep PAUSE && test RIGHT = yes
";

/// A context, a state folder, secrets, and outputs.
struct Place(tempfile::TempDir);

impl Place {
    fn new(pause: &str, right: &str) -> Place {
        let folder = tempfile::Builder::new().prefix("kiln-secrets-").tempdir().expect("a temporary folder");
        let place = Place(folder);
        fs::create_dir(place.path("context")).expect("it is empty");
        fs::create_dir(place.path("given")).expect("it is empty");
        let steps = STEPS.replace("PAUSE", pause).replace("RIGHT", right);
        fs::write(place.path("context/Dockerfile"), steps).expect("its parent is there");
        fs::write(place.path("given/file"), FILE).expect("its parent is there");
        run("ssh-keygen", &format!("-q -t ed25519 -N  -C none -f {}", place.path("given/key").display()));
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, words: &str) -> Command {
        let mut command = kiln();
        let base = machine::base_argument().expect("the test asked for it");
        let place = self.0.path().display().to_string();
        let words = words.split(' ').map(|word| word.replace("PLACE", &place).replace("BASE", &base));
        command.arg("--root").arg(self.path("root")).args(words).stdin(Stdio::null()).env("TOKEN", VARIABLE);
        command
    }

    /// Builds with all that the steps ask for.
    fn build(&self, words: &str) -> Command {
        self.command(&format!(
            "build --secret id=file,src=PLACE/given/file --secret id=variable,env=TOKEN --ssh default=PLACE/given/key \
             --build-context BASE {words} PLACE/context"
        ))
    }

    /// What there is to find: both secrets, and the line of the key in which its secret half is.
    fn needles(&self) -> Vec<Needle> {
        let key = fs::read_to_string(self.path("given/key")).expect("it was made");
        let body: String = key.lines().filter(|line| !line.starts_with('-')).collect();
        let bytes = STANDARD.decode(body).expect("ssh-keygen writes base64");
        // Before the comment and the padding: the seed, then the public half.
        let seed = &bytes[bytes.len() - 8 - 64 - 5..][..32];
        vec![Needle::new(FILE.as_bytes()), Needle::new(VARIABLE.as_bytes()), Needle::new(seed)]
    }

    /// Nothing is found: in the state folder, in what was written, in what was said.
    fn holds_no_trace(&self, outputs: &[&Output]) {
        for needle in self.needles() {
            for entry in fs::read_dir(self.0.path()).expect("it is there").flatten() {
                if entry.file_name() != "given" {
                    let found = needle.found_below(&entry.path());
                    assert!(found.is_empty(), "{found:?}");
                }
            }
            for output in outputs {
                assert_eq!(needle.found_in(&output.stdout), None);
                assert_eq!(needle.found_in(&output.stderr), None, "{}", said(output));
            }
        }
    }
}

fn cannot(test: &str) -> bool {
    machine::cannot(test, ["steps", "busybox", "program:ssh-keygen", "program:script"])
}

/// The same on a terminal.
fn on_terminal(command: Command) -> Command {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let line: Vec<String> = words.map(|word| format!("'{}'", word.to_string_lossy())).collect();
    let mut script = kiln_tests::program::like_kiln("script");
    script.args(["-qefc", &line.join(" "), "/dev/null"]).stdin(Stdio::null()).env("TOKEN", VARIABLE);
    script
}

fn done(command: &mut Command) -> Output {
    let output = command.output().expect("the program was built");
    assert!(output.status.success(), "{command:?}: {}", said(&output));
    output
}

/// A build that goes on, and the process of it.
struct Going(Child);

impl Going {
    /// Until a step says something.
    fn until(command: &mut Command, says: &str) -> (Going, BufReader<std::process::ChildStderr>) {
        let mut child =
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program was built");
        let lines = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut going = (Going(child), lines);
        going.0.wait_for(&mut going.1, says);
        going
    }

    fn wait_for(&self, lines: &mut impl BufRead, says: &str) {
        let mut said = String::new();
        // The instruction itself says so too, in the line that begins the step.
        while lines.read_line(&mut said).expect("text") > 0 {
            if said.lines().last().is_some_and(|line| line.ends_with(says) && !line.contains("RUN")) {
                return;
            }
        }
        panic!("nobody said `{says}`:\n{said}");
    }

    /// Its children: what clones the steps, and the first processes of steps.
    fn children(&self) -> Vec<(String, PathBuf)> {
        let mine = format!("PPid:\t{}", self.0.id());
        let processes = fs::read_dir("/proc").expect("it is mounted").flatten().map(|entry| entry.path());
        processes
            .filter_map(|process| {
                let status = fs::read_to_string(process.join("status")).ok()?;
                let name = fs::read_to_string(process.join("comm")).ok()?;
                status.lines().any(|line| line == mine).then(|| (name.trim().to_owned(), process))
            })
            .collect()
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _gone = self.0.wait();
    }
}

/// A mapping that a process may write to.
struct Region {
    /// Its first line in `smaps`.
    name: String,
    /// Whether it is never swapped, in no core dump and in no forked process.
    is_kept: bool,
    bytes: Vec<u8>,
}

/// All that a process may write to.
fn regions(process: &Path) -> Vec<Region> {
    let maps = fs::read_to_string(process.join("smaps")).expect("it runs");
    let file = fs::File::open(process.join("mem")).expect("root may read it");
    let number = |text| u64::from_str_radix(text, 16).ok();
    let mut all: Vec<Region> = Vec::new();
    let mut is_written = false;
    for line in maps.lines() {
        let range = line.split(' ').next().and_then(|word| word.split_once('-'));
        if let Some((from, to)) = range.and_then(|(from, to)| number(from).zip(number(to))) {
            is_written = line.contains(" rw");
            let mut bytes = vec![0; if is_written { (to - from) as usize } else { 0 }];
            is_written = is_written && file.read_exact_at(&mut bytes, from).is_ok();
            if is_written {
                all.push(Region { name: line.to_owned(), is_kept: false, bytes });
            }
        } else if let (true, Some(flags)) = (is_written, line.strip_prefix("VmFlags:")) {
            let has = |wanted: &str| flags.split_whitespace().any(|flag| flag == wanted);
            all.last_mut().expect("its range came before").is_kept = has("lo") && has("dd") && has("dc");
        }
    }
    assert!(!all.is_empty(), "{maps}");
    all
}

fn memory(process: &Path) -> Vec<u8> {
    regions(process).into_iter().flat_map(|region| region.bytes).collect()
}

#[test]
fn what_is_planted_is_found() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let needle = Needle::new(FILE.as_bytes());
    let packed = |bytes: &[u8]| {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(bytes).expect("memory");
        gzip.finish().expect("memory")
    };
    let base64 = |before: &str| STANDARD.encode(format!("{before}{FILE} and more")).into_bytes();
    let hex: String = FILE.bytes().map(|byte| format!("{byte:02x}")).collect();
    for (at, planted) in [
        FILE.as_bytes().to_vec(),
        hex.clone().into_bytes(),
        hex.to_uppercase().into_bytes(),
        base64(""),
        base64("1"),
        base64("12"),
        packed(FILE.as_bytes()),
        [b"before".to_vec(), packed(&packed(&base64("1"))), b"behind".to_vec()].concat(),
    ]
    .into_iter()
    .enumerate()
    {
        let path = folder.path().join("deep").join(at.to_string());
        fs::create_dir_all(path.parent().expect("it has one")).expect("made");
        fs::write(&path, [b"some".to_vec(), planted, b"more".to_vec()].concat()).expect("written");
        assert_eq!(needle.found_below(folder.path()).len(), 1, "{at}");
        fs::remove_file(&path).expect("it is there");
    }
    assert!(needle.found_below(folder.path()).is_empty());
}

#[test]
fn a_build_leaves_none_in_any_output_or_log() {
    if cannot("a_build_leaves_none_in_any_output_or_log") {
        return;
    }
    let place = Place::new("0", "yes");
    let outputs = [
        "--progress plain --explain --metadata-file PLACE/metadata -o type=oci,dest=PLACE/oci.tar",
        "--progress rawjson --no-cache -o type=docker,dest=PLACE/docker.tar",
        "--progress plain --no-cache --explain -o type=local,dest=PLACE/local",
        "--progress quiet -o type=tar,dest=PLACE/out.tar",
        "--progress plain --no-cache -t app --iidfile PLACE/id",
        // Remembered as a whole by now.
        "--progress plain -t app --iidfile PLACE/id",
        "--progress plain -t app --iidfile PLACE/id",
    ];
    let mut all: Vec<Output> = outputs.iter().map(|words| done(&mut place.build(words))).collect();
    all.push(done(&mut on_terminal(place.build("--progress tty --no-cache --explain"))));
    all.push(done(&mut place.command("history app")));
    all.push(done(&mut place.command("inspect app")));
    let marked = place
        .command(
            "build --progress plain --secret id=file,src=PLACE/given/file,cache-key=content --ssh default=PLACE/given/key \
             --secret id=variable,env=TOKEN,cache-key=content --explain --build-context BASE PLACE/context",
        )
        .output();
    all.push(marked.expect("the program was built"));
    assert!(said(&all[all.len() - 1]).contains("secret file, secret variable changed"));
    place.holds_no_trace(&all.iter().collect::<Vec<_>>());
    // A dump was forbidden, and mount points are gone.
    assert_eq!(fs::read_dir(place.path("local/dump")).expect("WORKDIR made it").count(), 0);
    assert!(!place.path("local/deep").exists() && !place.path("local/run/secrets").exists());
}

#[test]
fn a_record_with_a_mark_says_that_it_stays_here() {
    if cannot("a_record_with_a_mark_says_that_it_stays_here") {
        return;
    }
    let place = Place::new("0", "yes");
    let records = || {
        let files = ["root/kiln.db", "root/kiln.db-wal"].map(|name| fs::read(place.path(name)));
        let text =
            String::from_utf8_lossy(&files.into_iter().flatten().flatten().collect::<Vec<u8>>()).into_owned();
        (
            text.contains("\"stays_here\":true"),
            text.contains("[\"secret file\"") || text.contains("\"name\":\"secret file\""),
        )
    };
    done(&mut place.build("--progress plain"));
    assert_eq!(records(), (false, false));
    assert!(!place.path("root/secret-key").exists(), "nobody needed it");
    let marked = "--progress plain --secret id=file,src=PLACE/given/file,cache-key=content";
    done(&mut place.build(marked));
    assert_eq!(records(), (true, true));
}

#[test]
fn a_failure_leaves_none() {
    if cannot("a_failure_leaves_none") {
        return;
    }
    let place = Place::new("0", "no");
    let build = |progress: &str| place.build(&format!("--explain --progress {progress}"));
    for mut command in [build("plain"), build("rawjson"), build("quiet"), on_terminal(build("tty"))] {
        let output = command.output().expect("the program was built");
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        place.holds_no_trace(&[&output]);
    }
}

#[test]
fn a_kill_in_the_middle_leaves_none() {
    if cannot("a_kill_in_the_middle_leaves_none") {
        return;
    }
    let place = Place::new("30", "yes");
    let (going, _lines) = Going::until(&mut place.build("--progress plain"), "in the first step");
    // What it has mounted is no file of the state folder even now.
    place.holds_no_trace(&[]);
    drop(going);
    place.holds_no_trace(&[]);
}

#[test]
fn nothing_but_the_step_has_them_while_it_runs() {
    let test = "secrets::nothing_but_the_step_has_them_while_it_runs";
    if cannot(test) || machine::cannot(test, ["root: nobody else looks into who holds a secret"]) {
        return;
    }
    let place = Place::new("3", "yes");
    let words = "--progress plain --secret id=file,src=PLACE/given/file,cache-key=content";
    let (going, mut lines) = Going::until(&mut place.build(words), "in the first step");
    let kiln = PathBuf::from("/proc").join(going.0.id().to_string());
    let needles = place.needles();
    let absent = |what: &str, bytes: Vec<u8>| {
        for (at, needle) in needles.iter().enumerate() {
            assert_eq!(needle.found_in(&bytes), None, "secret {at} in {what}");
        }
    };
    // The variable is in the environment of its own, as whoever started it wanted.
    absent("the command line", fs::read(kiln.join("cmdline")).expect("it runs"));
    let shown = |name: &str, process: &Path| {
        for file in ["cmdline", "environ"] {
            absent(&format!("{file} of {name}"), fs::read(process.join(file)).expect("it runs"));
        }
    };
    let first = going.children();
    assert_eq!(first.iter().filter(|(name, _)| name == "kiln-zygote").count(), 1, "{first:?}");
    assert!(first.iter().any(|(name, _)| name == "kiln-init"), "{first:?}");
    for (name, process) in &first {
        shown(name, process);
        if name == "kiln-zygote" {
            absent("the memory of what clones steps", memory(process));
        }
    }
    // What runs the build holds each in one place, in whatever form; and the variable where whoever started it put it.
    for (at, secret) in [FILE, VARIABLE].into_iter().enumerate() {
        let holds =
            |region: &Region| region.bytes.windows(secret.len()).any(|found| found == secret.as_bytes());
        let mut holding = regions(&kiln);
        holding.retain(holds);
        holding.retain(|region| !region.name.ends_with("[stack]"));
        let places: Vec<(&str, bool)> =
            holding.iter().map(|region| (region.name.as_str(), region.is_kept)).collect();
        assert!(matches!(places[..], [(_, true)]), "secret {at}: {places:?}");
    }
    going.wait_for(&mut lines, "in the last step");
    let started = Instant::now();
    let last = going.children();
    let mut first_processes = last.iter().filter(|(name, _)| name == "kiln-init").peekable();
    assert!(first_processes.peek().is_some(), "{last:?}");
    for (name, process) in first_processes {
        shown(name, process);
        absent("the memory of a step that was given nothing", memory(process));
    }
    assert!(started.elapsed() < Duration::from_secs(3), "the step may have ended meanwhile");
}

/// What `ssh-add` says to an agent, and whether it succeeded.
fn ssh_add(agent: &Path, words: &str) -> (bool, String) {
    let output = Command::new("ssh-add").args(words.split(' ')).env("SSH_AUTH_SOCK", agent).output();
    let output = output.expect("it is there");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The socket that a running step has.
fn socket_below(folder: &Path) -> Option<PathBuf> {
    use std::os::unix::fs::FileTypeExt;
    let entries = fs::read_dir(folder).ok()?.flatten();
    entries.filter_map(|entry| Some((entry.file_type().ok()?, entry.path()))).find_map(|(kind, path)| {
        if kind.is_dir() { socket_below(&path) } else { kind.is_socket().then_some(path) }
    })
}

#[test]
fn an_agent_is_asked_and_not_changed() {
    if cannot("an_agent_is_asked_and_not_changed")
        || machine::cannot("an_agent_is_asked_and_not_changed", ["program:ssh-agent", "program:ssh-add"])
    {
        return;
    }
    let place = Place::new("30", "yes");
    let key = place.path("given/key").display().to_string();
    let real = place.path("given/agent");
    let mut agent = Command::new("ssh-agent");
    let agent = agent.args(["-D", "-a"]).arg(&real).stdout(Stdio::null()).stderr(Stdio::null());
    let _agent = Going(agent.spawn().expect("it is there"));
    let started = Instant::now();
    while !ssh_add(&real, &format!("-q {key}")).0 {
        assert!(started.elapsed() < Duration::from_secs(10), "no agent listens");
    }
    let dockerfile = "FROM busybox\nRUN --mount=type=ssh,required echo it is there && sleep 30\n";
    fs::write(place.path("context/Dockerfile"), dockerfile).expect("it is there");
    for (given, may_change) in [("given/key", false), ("given/agent", false), ("given/agent,raw=true", true)]
    {
        let words =
            format!("build --progress plain --ssh default=PLACE/{given} --build-context BASE PLACE/context");
        let (_going, _lines) = Going::until(&mut place.command(&words), "it is there");
        let socket = socket_below(&place.path("root/tmp")).expect("the step has one");
        assert!(ssh_add(&socket, "-L").1.starts_with("ssh-ed25519 "), "{given}");
        assert!(ssh_add(&socket, &format!("-T {key}.pub")).0, "{given}");
        assert_eq!(ssh_add(&socket, &format!("-q {key}")).0, may_change, "{given}");
        assert_eq!(ssh_add(&socket, "-q -D").0, may_change, "{given}");
        assert_eq!(ssh_add(&real, "-L").0, !may_change, "{given}");
    }
}
