//! Sources on the network whose builds end badly: killed or interrupted in the middle of a download or a fetch. Afterwards
//! nothing is left, and the next build goes on where this one was.
//!
//! What succeeds, and what is refused, is in `tests/fixtures/remote/`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use kiln_tests::{image::Image, machine, program::Build, server::Server};
use rustix::process::{Pid, Signal, kill_process};

/// A served folder, a context, and room for a state folder and an output.
struct Place {
    folder: tempfile::TempDir,
    server: Server,
}

impl Place {
    fn new(dockerfile: &str) -> Place {
        let folder = tempfile::Builder::new().prefix("kiln-remote-").tempdir().expect("it can be written");
        for name in ["context", "www"] {
            fs::create_dir(folder.path().join(name)).expect("its parent is empty");
        }
        fs::write(folder.path().join("context/Dockerfile"), dockerfile).expect("its parent is there");
        let server = Server::start(&folder.path().join("www")).expect("a port is free");
        Place { folder, server }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn build(&self) -> Build {
        let mut build =
            Build::new(&self.path("root"), &self.path("context")).to_archive(&self.path("out.tar"));
        build.env.insert("http_proxy".to_owned(), self.server.url());
        build
    }

    fn start(&self) -> Child {
        let mut command = self.build().command();
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("the program was built, so it can be started")
    }

    fn shell(&self, script: &str) {
        let status = Command::new("sh").args(["-ec", script]).current_dir(self.folder.path()).status();
        assert!(status.expect("there is a shell").success(), "{script}");
    }

    /// Waits until the state folder holds that many bytes of a download.
    fn wait_for_partial(&self, bytes: u64) {
        let folder = self.path("root/partial");
        wait("a part of the download", || {
            let files = fs::read_dir(&folder).into_iter().flatten().flatten();
            files.filter_map(|file| file.metadata().ok()).any(|file| file.len() >= bytes)
        });
    }
}

fn wait(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what} did not come");
        sleep(Duration::from_millis(5));
    }
}

fn end(child: &mut Child, signal: Signal) -> std::process::ExitStatus {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id")).expect("not 0");
    kill_process(pid, signal).expect("it was started here and not waited for");
    child.wait().expect("it was started here")
}

/// The line about the file `/big` of the image that was made.
fn big(archive: &Path) -> String {
    let image = Image::read(archive).expect("the build succeeded");
    image
        .show(0)
        .expect("its layers can be read")
        .lines()
        .find(|line| line.contains(" big file "))
        .expect("it is there")
        .to_owned()
}

#[test]
fn a_download_that_was_killed_goes_on() {
    for (flag, query) in [("", "hang=3000000"), ("checksum", "hang=3000000&etag=none")] {
        let place = Place::new("");
        place.shell("seq 1 2000000 | head -c 8000000 > www/big; sha256sum < www/big | cut -d' ' -f1 > sum");
        let sum = fs::read_to_string(place.path("sum")).expect("written above");
        let flag = if flag.is_empty() { String::new() } else { format!("--checksum=sha256:{} ", sum.trim()) };
        let dockerfile = format!("FROM scratch\nADD {flag}http://files.test/big?{query} /big\n");
        fs::write(place.path("context/Dockerfile"), dockerfile).expect("the context can be written");
        let mut first = place.start();
        place.wait_for_partial(2_900_000);
        end(&mut first, Signal::KILL);
        place.server.take_log();
        let run = place.build().run();
        assert_eq!(run.status, Some(0), "{}", run.stderr);
        let asked = place.server.take_log();
        let ranges: Vec<_> = asked.iter().filter(|line| line.contains(" 206 bytes=")).collect();
        assert_eq!(ranges.len(), 1, "{asked:?}");
        assert!(big(&place.path("out.tar")).contains(&sum.trim()[..12]), "{sum}");
        let left = fs::read_dir(place.path("root/partial")).expect("a state folder").count();
        assert_eq!(left, 0, "the partial download is still there");
    }
}

#[test]
fn an_interrupted_download_ends_at_once() {
    let place = Place::new("FROM scratch\nADD http://files.test/big?hang=1000000 /big\n");
    place.shell("head -c 4000000 /dev/zero > www/big");
    let mut build = place.start();
    place.wait_for_partial(900_000);
    let start = Instant::now();
    let status = end(&mut build, Signal::INT);
    assert_eq!(status.code(), Some(130));
    assert!(start.elapsed() < Duration::from_secs(5), "it took {:?}", start.elapsed());
}

#[test]
fn a_fetch_that_hangs_ends_with_ctrl_c() {
    if let Some(reason) = machine::lacks("program:git") {
        return machine::skip("a_fetch_that_hangs_ends_with_ctrl_c", &reason);
    }
    // Nobody answers what is accepted here.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = silent.local_addr().expect("it is bound");
    let place = Place::new(&format!("FROM scratch\nADD git://{address}/x.git /\n"));
    let mut build = place.start();
    let _connection = silent.accept().expect("git connects");
    let start = Instant::now();
    let status = end(&mut build, Signal::INT);
    assert_eq!(status.code(), Some(130));
    assert!(start.elapsed() < Duration::from_secs(5), "it took {:?}", start.elapsed());
}

#[test]
fn a_fetch_that_was_killed_is_repeated() {
    if let Some(reason) = machine::lacks("program:git") {
        return machine::skip("a_fetch_that_was_killed_is_repeated", &reason);
    }
    let place = Place::new("FROM scratch\nADD http://git.test/app.git /\n");
    place.shell(
        "export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
         mkdir work; cd work; git init -q -b main; seq 1 300000 | split -l 500 - f; git add .; git commit -qm one
         cd ..; git clone -q --mirror work www/app.git",
    );
    for after_ms in [20, 60, 120, 200, 300] {
        let mut build = place.start();
        sleep(Duration::from_millis(after_ms));
        end(&mut build, Signal::KILL);
    }
    // What git leaves behind when it is killed while it writes.
    for entry in fs::read_dir(place.path("root/git")).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            fs::write(entry.path().join("shallow.lock"), "").expect("the copy can be written");
        }
    }
    let run = place.build().run();
    assert_eq!(run.status, Some(0), "{}", run.stderr);
    let shown = Image::read(&place.path("out.tar")).expect("an image").show(0).expect("its layers");
    assert_eq!(shown.lines().filter(|line| line.contains(" file ")).count(), 600, "{shown}");
}

#[test]
fn a_damaged_copy_of_a_repository_is_made_anew() {
    if let Some(reason) = machine::lacks("program:git") {
        return machine::skip("a_damaged_copy_of_a_repository_is_made_anew", &reason);
    }
    let place = Place::new("FROM scratch\nADD http://git.test/app.git /\n");
    place.shell(
        "export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
         mkdir work; cd work; git init -q -b main; echo one > a; git add .; git commit -qm one
         cd ..; git clone -q --mirror work www/app.git",
    );
    assert_eq!(place.build().run().status, Some(0));
    place.shell("for pack in root/git/*/objects/pack/*.pack; do chmod u+w $pack; echo damaged > $pack; done");
    let run = place.build().argument("--no-cache").run();
    assert_eq!(run.status, Some(0), "{}", run.stderr);
}

#[test]
fn a_login_in_an_address_is_kept_nowhere() {
    if let Some(reason) = machine::lacks("program:git") {
        return machine::skip("a_login_in_an_address_is_kept_nowhere", &reason);
    }
    let place = Place::new("");
    // A `git` that writes down what every process of this machine can read of it.
    place.shell(
        "export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
         mkdir work bin www/private; cd work; git init -q -b main; printf 'FROM scratch\nCOPY . /\n' > Dockerfile
         git add .; git commit -qm one; cd ..; git clone -q --mirror work www/private/app.git
         printf 'Basic %s' $(printf joe:hunter2 | base64) > www/private/authorization
         printf 'FROM scratch\n' > www/private/file
         printf '#!/bin/sh\necho \"$@\" >> %s/arguments\nexec %s \"$@\"\n' $PWD $(command -v git) > bin/git
         chmod +x bin/git",
    );
    let path = format!("{}:{}", place.path("bin").display(), std::env::var("PATH").unwrap_or_default());
    for address in ["http://joe:hunter2@git.test/private/app.git", "http://joe:hunter2@git.test/private/file"]
    {
        let mut build =
            Build::new(&place.path("root"), Path::new(address)).to_archive(&place.path("out.tar"));
        build.env.insert("http_proxy".to_owned(), place.server.url());
        build.env.insert("PATH".to_owned(), path.clone());
        let run = build.argument("--build-arg").argument("BUILDKIT_CONTEXT_KEEP_GIT_DIR=1").run();
        assert_eq!(run.status, Some(0), "{}", run.stderr);
        assert!(!run.stderr.contains("hunter2"), "{}", run.stderr);
        assert!(run.steps.iter().all(|step| !step.name.contains("hunter2")), "{:?}", run.steps);
    }
    let arguments = fs::read_to_string(place.path("arguments")).expect("git was run");
    assert!(arguments.contains("http://git.test/private/app.git"), "{arguments}");
    assert!(!arguments.contains("hunter2"), "{arguments}");
    place.shell("! grep -rq hunter2 root out.tar");
}

/// An ssh server and an agent of this test's own.
struct Ssh {
    server: Child,
    agent: Child,
    port: u16,
}

impl Drop for Ssh {
    fn drop(&mut self) {
        for child in [&mut self.server, &mut self.agent] {
            let _ended = child.kill().and_then(|()| child.wait());
        }
    }
}

impl Ssh {
    /// `sshd` must be called by its whole path.
    fn start(place: &Place) -> Ssh {
        // Free a moment ago, and by nobody asked for since.
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|bound| bound.local_addr());
        let port = port.expect("a port is free").port();
        place.shell(&format!(
            "mkdir -p /run/sshd; [ -f user ] || ssh-keygen -q -t ed25519 -N '' -f user
             rm -f host host.pub agent; ssh-keygen -q -t ed25519 -N '' -f host; cp user.pub keys
             printf '%s\n' 'Port {port}' 'ListenAddress 127.0.0.1' \"HostKey $PWD/host\" \"AuthorizedKeysFile $PWD/keys\" \
               'StrictModes no' 'PidFile none' 'PermitRootLogin yes' 'UsePAM no' > sshd.conf"
        ));
        let quiet = |command: &mut Command| {
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program is there")
        };
        let agent = quiet(Command::new("ssh-agent").args(["-D", "-a"]).arg(place.path("agent")));
        let server = quiet(Command::new("/usr/sbin/sshd").args(["-D", "-f"]).arg(place.path("sshd.conf")));
        wait("the agent", || place.path("agent").exists());
        wait("the ssh server", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        place.shell("SSH_AUTH_SOCK=$PWD/agent ssh-add -q user");
        Ssh { server, agent, port }
    }
}

#[test]
fn a_repository_over_ssh() {
    const NAME: &str = "a_repository_over_ssh";
    for need in ["root: sshd lets nobody in otherwise", "program:git", "program:sshd", "program:ssh-agent"] {
        if let Some(reason) = machine::lacks(need) {
            return machine::skip(NAME, &reason);
        }
    }
    let place = Place::new("");
    place.shell(
        "export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
         mkdir work; cd work; git init -q -b main; echo one > a; git add .; git commit -qm one",
    );
    let ssh = Ssh::start(&place);
    let dockerfile =
        format!("FROM scratch\nADD ssh://root@127.0.0.1:{}{} /\n", ssh.port, place.path("work").display());
    fs::write(place.path("context/Dockerfile"), dockerfile).expect("the context can be written");
    let run = place.build().run();
    assert!(
        run.stderr.contains("error[ssh-missing]") && run.stderr.contains("--ssh default"),
        "{}",
        run.stderr
    );
    let agent = format!("default={}", place.path("agent").display());
    let with_agent = || place.build().argument("--ssh").argument(agent.as_str());
    assert_eq!(with_agent().run().status, Some(0));
    // The host has another key than before.
    let port = ssh.port.to_string();
    drop(ssh);
    place.shell(&format!(
        "ssh-keygen -q -t ed25519 -N '' -f other; sed -i 's/ .*//' root/git/known_hosts
         [ \"$(cat root/git/known_hosts)\" = '[127.0.0.1]:{port}' ]"
    ));
    let again = Ssh::start(&place);
    let other = fs::read_to_string(place.path("other.pub")).expect("made above");
    let other = other.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let line = format!("[127.0.0.1]:{} {other}\n", again.port);
    fs::write(place.path("root/git/known_hosts"), line).expect("the state folder can be written");
    let dockerfile =
        format!("FROM scratch\nADD ssh://root@127.0.0.1:{}{} /\n", again.port, place.path("work").display());
    fs::write(place.path("context/Dockerfile"), dockerfile).expect("the context can be written");
    let run = with_agent().run();
    assert!(run.stderr.contains("error[git-host-key]"), "{}", run.stderr);
    assert!(run.stderr.contains(&format!("-R '[127.0.0.1]:{}'", again.port)), "{}", run.stderr);
}
