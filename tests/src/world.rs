//! A host and an internet for tests of networks: two network namespaces that a test makes, and nothing of this machine.
//!
//! The host has one interface, `up0` at 203.0.113.1, and a route to everywhere through 203.0.113.9, which is the internet:
//! there a server answers what it is asked on port 8000, and a name server on port 53.

use std::cell::Cell;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::machine;
use crate::program::{program, run, said};

/// Where the internet's servers are.
pub const INTERNET: &str = "203.0.113.9";

/// Waits until its input ends, so that nothing is left when the test is gone.
const WAIT: &str = "echo ready; exec cat";

/// Answers every line on port 8000 with the address that it came from, and every question for a name with its own.
const SERVERS: &str = r#"
import socket, threading
def answer(family, address):
    server = socket.socket(family, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((address, 8000))
    server.listen(64)
    def serve():
        while True:
            client, place = server.accept()
            def talk(client=client, place=place):
                client.recv(100)
                client.sendall(("from " + place[0] + "\n").encode())
                client.close()
            threading.Thread(target=talk, daemon=True).start()
    threading.Thread(target=serve, daemon=True).start()
answer(socket.AF_INET, "203.0.113.9")
answer(socket.AF_INET6, "2001:db8::9")
names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
names.bind(("203.0.113.9", 53))
def resolve():
    while True:
        asked, place = names.recvfrom(512)
        end = 12
        while asked[end]: end += asked[end] + 1
        question = asked[12:end + 5]
        is_a = question[-4:-2] == b"\0\1"
        head = asked[:2] + b"\x81\x80\0\1" + (b"\0\1" if is_a else b"\0\0") + b"\0\0\0\0"
        record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton("203.0.113.9")
        names.sendto(head + question + (record if is_a else b""), place)
threading.Thread(target=resolve, daemon=True).start()
print("ready", flush=True)
import sys
sys.stdin.read()
"#;

/// Prints the names of all tables of nf_tables.
const TABLES: &str = r#"
import socket, struct
s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
s.send(struct.pack("=IHHII4s", 20, 0x0a01, 0x301, 1, 0, b"\1\0\0\0"))
print(s.recv(65536))
"#;

/// A name server on the host's loopback, which passes on what it is asked by UDP.
pub const NAME_SERVER: &str = "import socket, threading\n\
    own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); own.bind(('127.0.0.1', 53))\n\
    def serve():\n\
    \x20   while True:\n\
    \x20       asked, place = own.recvfrom(512)\n\
    \x20       other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); other.sendto(asked, ('203.0.113.9', 53))\n\
    \x20       own.sendto(other.recv(512), place)\n\
    threading.Thread(target=serve, daemon=True).start()";

/// The beginning of a Python program in a step's network that sends packets of its own making, as the root of a step can: `wire` takes
/// frames, `own` is the step's address, `sum16` makes checksums.
pub const RAW_PACKETS: &str = r#"
import random, socket, struct, subprocess, time
def sum16(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16: total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
wire.bind(("eth0", 0))
words = subprocess.check_output(["ip", "-o", "addr", "show", "eth0"], text=True).split()
own = words[words.index("inet") + 1].split("/")[0]
"#;

/// Of two steps that each print the name of their network namespace: it is one.
///
/// # Panics
/// When it is not.
pub fn assert_one_namespace(said: &str) {
    let lines = lines(said);
    let mut namespaces: Vec<_> = lines.iter().filter(|line| line.starts_with("net:[")).collect();
    assert_eq!(namespaces.len(), 2, "{said}");
    namespaces.dedup();
    assert_eq!(namespaces.len(), 1, "{said}");
}

/// An empty folder.
///
/// # Panics
/// When there is no place for it.
pub fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("kiln-network-").tempdir().expect("a temporary folder")
}

/// A command that asks the internet's server who asks.
pub fn ask() -> String {
    format!("echo hello | nc -w 5 {INTERNET} 8000")
}

/// The lines that steps wrote, without the step's number and the time.
pub fn lines(said: &str) -> Vec<&str> {
    said.lines().filter_map(|line| line.strip_prefix('#')?.splitn(3, ' ').nth(2)).collect()
}

/// Waits until something is so.
///
/// # Panics
/// When it is not for a long time.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// The two namespaces. They go with this.
#[derive(Debug)]
pub struct World {
    host: Child,
    internet: Child,
    servers: Child,
    hides_stack: Cell<bool>,
}

impl World {
    /// Makes them; `None` where this machine cannot, which is said.
    ///
    /// # Panics
    /// When what the machine has does not work.
    pub fn make(test: &str) -> Option<World> {
        let programs =
            ["unshare", "nsenter", "ip", "python3", "setpriv"].map(|name| format!("program:{name}"));
        let needs = ["root: it makes a host of network namespaces", "busybox"]
            .into_iter()
            .chain(programs.iter().map(String::as_str));
        if machine::cannot(test, needs) {
            return None;
        }
        let setup = format!("set -e; mount -t tmpfs tmpfs /run; ip link set lo up; {WAIT}");
        let host = ready(Command::new("unshare").args(["-n", "-m", "sh", "-c", &setup]));
        let internet = ready(Command::new("unshare").args(["-n", "sh", "-c", WAIT]));
        let (place, other) = (host.id(), internet.id());
        run("ip", &format!("link add up0 netns {place} type veth peer name inet0 netns {other}"));
        inside(
            other,
            "ip link set lo up; ip link set inet0 up; ip addr add 203.0.113.9/24 dev inet0; \
                       ip addr add 2001:db8::9/64 dev inet0 nodad",
        );
        inside(
            place,
            "ip link set up0 up; ip addr add 203.0.113.1/24 dev up0; ip addr add 2001:db8::1/64 dev up0 nodad; \
                       ip route add default via 203.0.113.9; echo nameserver 203.0.113.9 > /run/resolv.conf; \
                       mount --bind /run/resolv.conf /etc/resolv.conf",
        );
        let mut servers = Command::new("nsenter");
        servers.args(["-t", &other.to_string(), "-n", "python3", "-c", SERVERS]);
        Some(World { servers: ready(&mut servers), host, internet, hides_stack: Cell::new(false) })
    }

    /// A program on the host.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.host.id().to_string(), "-n", "-m", "--"]).arg(program);
        command
    }

    /// What a shell on the host writes, which must succeed.
    ///
    /// # Panics
    /// When it does not.
    pub fn sh(&self, script: &str) -> String {
        inside(self.host.id(), script)
    }

    /// A program on the host that says when it is ready, and ends when its input does.
    ///
    /// # Panics
    /// When it does not say so.
    pub fn server(&self, python: &str) -> Server {
        let python = format!("{python}\nprint('ready', flush=True)\nimport sys\nsys.stdin.read()");
        Server(ready(self.command("python3").args(["-c", &python])))
    }

    /// From here on the program `pasta` is not installed there.
    pub fn hide_pasta(&self) {
        self.sh(": > /run/no-program; for folder in $(echo $PATH | tr : ' '); do \
             place=$(readlink -e $folder/pasta) || continue; mount --bind /run/no-program $place; done");
    }

    /// From here on Kiln's own stack gets no packets there: it lacks the right to have raw sockets.
    pub fn hide_stack(&self) {
        self.hides_stack.set(true);
    }

    /// The tables of nf_tables on the host, as the kernel says them.
    pub fn tables(&self) -> String {
        let output = self.command("python3").args(["-c", TABLES]).output().expect("it is on the PATH");
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// `kiln build` of a Dockerfile on the host, in a folder that holds the state and the context.
    ///
    /// # Panics
    /// When there is no place for the Dockerfile.
    pub fn build(&self, folder: &Path, dockerfile: &str, flags: &[&str]) -> Command {
        let context = folder.join("context");
        fs::create_dir_all(&context).expect("a folder");
        fs::write(context.join("Dockerfile"), dockerfile).expect("written");
        let mut command = match self.hides_stack.get() {
            false => self.command(program()),
            true => {
                let mut command = self.command("setpriv");
                command.args(["--bounding-set", "-net_raw", "--inh-caps", "-all"]).arg(program());
                command
            }
        };
        command.arg("--root").arg(folder.join("root")).args(["build", "--progress=plain", "--no-cache"]);
        command.args(["--build-context", &machine::base_argument().expect("it was found")]);
        command.args(flags).arg(context).stdin(Stdio::null());
        command.env("XDG_CONFIG_HOME", "/nonexistent").env("DOCKER_CONFIG", "/nonexistent");
        command
    }

    /// Builds, which must succeed; what was said.
    ///
    /// # Panics
    /// When it fails.
    pub fn built(&self, folder: &Path, dockerfile: &str, flags: &[&str]) -> String {
        let output: Output = self.build(folder, dockerfile, flags).output().expect("the program was built");
        assert!(output.status.success(), "{}", said(&output));
        said(&output)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        [&mut self.servers, &mut self.internet, &mut self.host].into_iter().for_each(end);
    }
}

/// A server that ends with this.
#[derive(Debug)]
pub struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

fn end(child: &mut Child) {
    drop(child.stdin.take());
    // It ends with its input; one that does not is made to.
    let _killed = child.kill();
    let _ended = child.wait();
}

/// Starts a program and waits until it says that it is ready.
fn ready(command: &mut Command) -> Child {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it is on the PATH");
    let mut line = String::new();
    let stdout: &mut ChildStdout = child.stdout.as_mut().expect("it is piped");
    BufReader::new(stdout).read_line(&mut line).expect("text");
    assert_eq!(line, "ready\n", "{command:?}");
    child
}

fn inside(process: u32, script: &str) -> String {
    let mut command = Command::new("nsenter");
    command.args(["-t", &process.to_string(), "-n", "-m", "--", "sh", "-ec", script]);
    let output = command.output().expect("it is on the PATH");
    assert!(output.status.success(), "{script}: {}", said(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
