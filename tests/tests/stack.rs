//! The network of a step where neither NAT nor pasta can be: Kiln carries its packets itself. For root on a host that the test
//! makes, whose firewall drops what is forwarded, and for a user on the same host.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kiln_tests::machine::cannot;
use kiln_tests::mode::TestMode;
use kiln_tests::program::{program, said};
use kiln_tests::world::{
    INTERNET, NAME_SERVER, RAW_PACKETS, World, ask, assert_one_namespace, eventually, folder, lines,
};

const WHO: [TestMode; 2] = [TestMode::Root, TestMode::Single];

/// A host on which neither the kernel nor `pasta` would do.
fn closed(test: &str) -> Option<World> {
    let world = World::make(test)?;
    if cannot(test, ["program:iptables-nft", "program:unshare", "program:setpriv"]) {
        return None;
    }
    world.sh("iptables-nft -P FORWARD DROP");
    world.hide_pasta();
    Some(world)
}

/// `kiln build` on that host, in a new folder, by root or by a user.
fn build(who: TestMode, world: &World, folder: &Path, dockerfile: &str, flags: &[&str]) -> Command {
    let folder = folder.join(who.name());
    std::fs::create_dir_all(&folder).expect("a folder");
    let build = world.build(&folder, dockerfile, flags);
    if who == TestMode::Root {
        return build;
    }
    who.own(&folder).expect("root may give it");
    let user = who.command(program());
    let mut command = world.command(user.get_program());
    // nsenter -t PROCESS -n -m -- KILN …
    command.args(user.get_args()).args(build.get_args().skip(6)).stdin(Stdio::null());
    command.env("XDG_CONFIG_HOME", "/nonexistent").env("DOCKER_CONFIG", "/nonexistent");
    command
}

/// What a build says that must succeed.
fn built(who: TestMode, world: &World, folder: &Path, dockerfile: &str, flags: &[&str]) -> String {
    let output = build(who, world, folder, dockerfile, flags).output().expect("the program was built");
    assert!(output.status.success(), "{who:?}: {}", said(&output));
    said(&output)
}

/// A build of one step, which has written `running` and sleeps; and that step.
fn running(who: TestMode, world: &World, folder: &Path, sleep: &str) -> (Child, String) {
    let dockerfile = format!("FROM busybox\nRUN echo running; sleep {sleep}\n");
    let mut child = build(who, world, folder, &dockerfile, &[])
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program was built");
    let mut stderr = child.stderr.take().expect("it is piped");
    let (mut heard, mut buffer) = (String::new(), [0; 4096]);
    while !heard.contains(" running\n") {
        let length = stderr.read(&mut buffer).expect("text");
        assert!(length > 0, "{heard}");
        heard.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    let mut step = String::new();
    eventually("the step does not sleep", || {
        step = world.sh(&format!("pgrep -f '^sleep {sleep}' || true")).trim().to_owned();
        !step.is_empty()
    });
    (child, step)
}

/// What a program says that is in the network of a step.
fn in_network(world: &World, step: &str, python: &str) -> String {
    let output = world.command("nsenter").args(["-t", step, "-n", "python3", "-c", python]).output();
    let output = output.expect("it is on the PATH");
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn end(mut build: Child) {
    build.kill().expect("it runs");
    build.wait().expect("it was killed");
}

#[test]
fn a_step_reaches_the_world() {
    let Some(world) = closed("stack::a_step_reaches_the_world") else { return };
    let folder = folder();
    // It outlasts the end of the connection.
    let look = "ls /sys/class/net | tr '\\n' ' '; echo; readlink /proc/self/ns/net";
    let dockerfile = format!(
        "FROM busybox\nRUN {look}; {}; sleep 2\nRUN {look}; nslookup some.name | grep Address\nRUN cat /etc/resolv.conf /etc/hosts\n",
        ask()
    );
    for who in WHO {
        let said = built(who, &world, folder.path(), &dockerfile, &["--add-host", "outside:host-gateway"]);
        let lines = lines(&said);
        for expected in ["eth0 lo ", "from 203.0.113.1", "nameserver 203.0.113.9", "203.0.113.1\toutside"] {
            assert!(lines.contains(&expected), "{expected}: {said}");
        }
        assert!(lines.iter().any(|line| line.starts_with("Address") && line.ends_with(INTERNET)), "{said}");
        assert!(!said.contains("WARN"), "{said}");
        assert_one_namespace(&said);
    }
    assert!(!world.sh("ip -o link").contains("far") && !world.tables().contains("kiln"));
}

#[test]
fn a_name_server_on_the_hosts_loopback_answers() {
    let Some(world) = closed("stack::a_name_server_on_the_hosts_loopback_answers") else { return };
    // It tells by TCP that it is there, too.
    let by_tcp = "\nstream = socket.create_server(('127.0.0.1', 53))\n\
                  def tell():\n\
                  \x20   while True: stream.accept()[0].sendall(b'BY TCP\\n')\n\
                  threading.Thread(target=tell, daemon=True).start()";
    let _server = world.server(&format!("{NAME_SERVER}{by_tcp}"));
    world.sh("echo nameserver 127.0.0.1 > /run/resolv.conf");
    let folder = folder();
    let dockerfile = "FROM busybox\nRUN nslookup some.name | grep Address; \
                      nc -w 2 $(awk '/^nameserver/ { print $2 }' /etc/resolv.conf) 53 </dev/null\n";
    for who in WHO {
        let said = built(who, &world, folder.path(), dockerfile, &[]);
        let lines = lines(&said);
        assert!(lines.iter().any(|line| line.starts_with("Address") && line.ends_with(INTERNET)), "{said}");
        assert!(lines.contains(&"BY TCP") && !said.contains("WARN"), "{said}");
    }
}

/// Servers on the host: on its loopback alone, and on all of its addresses.
const SERVERS: &str = "import socket, threading, hashlib\n\
    def serve(address, port, talk):\n\
    \x20   s = socket.create_server((address, port), backlog=500)\n\
    \x20   def loop():\n\
    \x20       while True: threading.Thread(target=talk, args=(s.accept()[0],), daemon=True).start()\n\
    \x20   threading.Thread(target=loop, daemon=True).start()\n\
    def say(text):\n\
    \x20   def talk(c): c.sendall(text); c.close()\n\
    \x20   return talk\n\
    def hash_all(c):\n\
    \x20   found = hashlib.sha256()\n\
    \x20   while (part := c.recv(1 << 16)): found.update(part)\n\
    \x20   c.sendall(found.digest()); c.close()\n\
    def echo(c):\n\
    \x20   while (part := c.recv(1 << 16)): c.sendall(part)\n\
    \x20   c.close()\n\
    def hold(c):\n\
    \x20   open('/run/held', 'ab').write(b'came\\n')\n\
    \x20   try: c.recv(1)\n\
    \x20   except OSError: pass\n\
    \x20   open('/run/held', 'ab').write(b'gone\\n')\n\
    big = bytes(range(251)) * (64 << 10)\n\
    serve('127.0.0.1', 8001, say(b'LOOPBACK\\n'))\n\
    serve('0.0.0.0', 8002, say(b'GATEWAY\\n'))\n\
    serve('0.0.0.0', 8003, say(big))\n\
    serve('0.0.0.0', 8004, hash_all)\n\
    serve('0.0.0.0', 8005, echo)\n\
    serve('0.0.0.0', 8006, hold)\n\
    full = socket.socket(); full.bind(('0.0.0.0', 8007))\n\
    def datagrams():\n\
    \x20   u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(('0.0.0.0', 7000))\n\
    \x20   while True:\n\
    \x20       part, place = u.recvfrom(70000); u.sendto(part, place)\n\
    threading.Thread(target=datagrams, daemon=True).start()\n\
    def hear():\n\
    \x20   u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(('0.0.0.0', 7001))\n\
    \x20   while True: open('/run/heard', 'ab').write(u.recv(100).strip() + b'\\n')\n\
    threading.Thread(target=hear, daemon=True).start()";

#[test]
fn a_step_reaches_the_host_and_not_its_loopback() {
    let Some(world) = closed("stack::a_step_reaches_the_host_and_not_its_loopback") else { return };
    let _server = world.server(SERVERS);
    let folder = folder();
    let ask = "for host in 127.0.0.1 outside $(ip route | awk '/^default/ { print $3 }'); do for port in 8001 8002; do \
               nc -w 2 $(awk -v h=$host '$2 == h { print $1; h = \"\" } END { if (h) print h }' /etc/hosts) $port </dev/null; \
               done; done; echo done";
    let flags = ["--add-host", "outside:host-gateway"];
    for who in WHO {
        let said = built(who, &world, folder.path(), &format!("FROM busybox\nRUN {ask}\n"), &flags);
        let lines = lines(&said);
        assert_eq!(lines.iter().filter(|line| **line == "GATEWAY").count(), 1, "{said}");
        assert!(!lines.contains(&"LOOPBACK") && lines.contains(&"done"), "{said}");
    }
}

/// All that programs do with connections and datagrams.
const CLIENT: &str = r#"
import errno, hashlib, socket, threading, time
HOST = "203.0.113.1"
big = bytes(range(251)) * (64 << 10)
def dial(port, to=HOST):
    return socket.create_connection((to, port), timeout=20)
def all_of(s):
    parts = []
    while (part := s.recv(1 << 16)): parts.append(part)
    return b"".join(parts)
def refusal(port, to=HOST):
    started = time.monotonic()
    try: dial(port, to)
    except OSError as error: return errno.errorcode.get(error.errno), time.monotonic() - started < 5
    return "connected", True
assert all_of(dial(8003)) == big, "down"
s = dial(8004); s.sendall(big); s.shutdown(socket.SHUT_WR)
assert all_of(s) == hashlib.sha256(big).digest(), "up, and an answer after all was said"
s = dial(8005); s.sendall(b"one"); assert s.recv(9) == b"one"
s.shutdown(socket.SHUT_WR); assert s.recv(9) == b"", "the other end is heard"
# One that does not read for a while, and then does.
s = dial(8003); time.sleep(1); assert all_of(s) == big, "slow"
for port, to in [(9, HOST), (8007, HOST), (8001, "127.0.0.1"), (80, "0.0.0.0")]:
    assert refusal(port, to) == ("ECONNREFUSED", True), (port, to, refusal(port, to))
failures = []
def one(number):
    try:
        said = bytes([number % 251]) * (100 << 10)
        s = dial(8005)
        def say():
            s.sendall(said); s.shutdown(socket.SHUT_WR)
        threading.Thread(target=say).start()
        if all_of(s) != said: failures.append("other bytes")
    except Exception as error: failures.append(repr(error))
threads = [threading.Thread(target=one, args=(number,)) for number in range(200)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not failures, failures[:3]
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(10)
for length in [0, 1, 11, 12, 1472, 9000, 65507]:
    u.sendto(b"x" * length, (HOST, 7000)); assert len(u.recv(70000)) == length, length
u.connect((HOST, 7009)); u.send(b"x")
try: u.recv(9); assert False, "nobody is there"
except ConnectionRefusedError: pass
# Far more than there is room for: the quietest make room.
for number in range(2000):
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(10)
    u.sendto(b"x", (HOST, 7000))
    if number % 100 == 0: assert u.recv(9) == b"x", number
print("all")
"#;

#[test]
fn connections_and_datagrams_are_what_they_are_elsewhere() {
    let Some(world) = closed("stack::connections_and_datagrams_are_what_they_are_elsewhere") else { return };
    let _server = world.server(SERVERS);
    let folder = folder();
    for (who, sleep) in [(TestMode::Root, "91.5"), (TestMode::Single, "92.5")] {
        let (build, step) = running(who, &world, folder.path(), sleep);
        assert_eq!(in_network(&world, &step, CLIENT), "all\n", "{who:?}");
        end(build);
    }
}

/// Sends frames of its own making, as a root with `CAP_NET_RAW` can: to the host's loopback, noise, segments of no connection
/// and pieces; then an honest one.
const LIES: &str = r#"
def packet(source, to, protocol, payload):
    a, b = socket.inet_aton(source), socket.inet_aton(to)
    head = struct.pack("!BBHHHBB", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol)
    head += struct.pack("!H", sum16(head + b"\0\0" + a + b)) + a + b
    return b"\2kiln\1" + b"\2kiln\2" + b"\x08\0" + head + payload
def say(source, to, text):
    text = text.ljust(20).encode()
    wire.send(packet(source, to, 17, struct.pack("!HHHH", 5009, 7001, 28, 0) + text))
say(own, "127.0.0.1", "to loopback")
say("127.0.0.1", "127.0.0.1", "from loopback")
say("203.0.113.9", "203.0.113.1", "from another")
say(own, "0.0.0.0", "to nobody")
random.seed(7)
honest = packet(own, "203.0.113.1", 6, struct.pack("!HHIIBBHHH", 5010, 8002, 1, 0, 0x50, 2, 512, 0, 0))
for number in range(30000):
    if number % 3 == 0:
        wire.send(b"\2kiln\1\2kiln\2" + random.choice([b"\x08\0", b"\x86\xdd", b"\x08\6"]) + random.randbytes(random.randrange(1, 200)))
        continue
    lie = bytearray(honest)
    # Of the heads of TCP and IP, but for where it goes.
    for _ in range(random.randrange(1, 4)): lie[random.choice([*range(14, 30), *range(36, len(lie))])] = random.randrange(256)
    if number % 3 == 1: lie += random.randbytes(random.randrange(60))
    wire.send(bytes(lie))
# What came too fast is lost, as on any wire.
for _ in range(10):
    time.sleep(0.3)
    say(own, "203.0.113.1", "honest")
print(socket.create_connection(("203.0.113.1", 8002), timeout=20).recv(100))
"#;

#[test]
fn a_step_may_send_whatever_it_likes() {
    let Some(world) = closed("stack::a_step_may_send_whatever_it_likes") else { return };
    let _server = world.server(SERVERS);
    let folder = folder();
    for (who, sleep) in [(TestMode::Root, "93.5"), (TestMode::Single, "94.5")] {
        let (build, step) = running(who, &world, folder.path(), sleep);
        assert_eq!(in_network(&world, &step, &format!("{RAW_PACKETS}{LIES}")), "b'GATEWAY\\n'\n", "{who:?}");
        eventually("the host hears nothing", || world.sh("cat /run/heard || true").contains("honest"));
        end(build);
        assert_eq!(world.sh("sort -u /run/heard; rm /run/heard"), "honest\n", "{who:?}");
    }
}

#[test]
fn a_build_that_is_killed_leaves_no_connection() {
    let Some(world) = closed("stack::a_build_that_is_killed_leaves_no_connection") else { return };
    let _server = world.server(SERVERS);
    let folder = folder();
    for (who, sleep) in [(TestMode::Root, "95.5"), (TestMode::Single, "96.5")] {
        let (build, step) = running(who, &world, folder.path(), sleep);
        // It lives in the step's network, and not in its processes.
        let python =
            "import socket, time; s = socket.create_connection(('203.0.113.1', 8006)); time.sleep(60)";
        let mut client = world
            .command("nsenter")
            .args(["-t", &step, "-n", "python3", "-c", python])
            .spawn()
            .expect("it is there");
        eventually("the connection is not made", || world.sh("cat /run/held || true") == "came\n");
        let started = Instant::now();
        end(build);
        eventually("the connection is left", || world.sh("cat /run/held") == "came\ngone\n");
        assert!(started.elapsed() < Duration::from_secs(10), "{who:?}");
        client.kill().expect("it runs");
        client.wait().expect("it was killed");
        world.sh("rm /run/held");
    }
}

#[test]
fn a_step_has_ipv6_where_the_host_has() {
    let Some(world) = closed("stack::a_step_has_ipv6_where_the_host_has") else { return };
    let folder = folder();
    let ask6 = "echo hello | nc -w 5 2001:db8::9 8000 || echo NONE";
    let dockerfile = format!("FROM busybox\nRUN {ask6}; {}\n", ask());
    for (has_route, expected) in [(false, "NONE"), (true, "from 2001:db8::1")] {
        if has_route {
            world.sh("ip -6 route add default via 2001:db8::9");
        }
        for who in WHO {
            let said = built(who, &world, folder.path(), &dockerfile, &[]);
            let lines = lines(&said);
            assert!(lines.contains(&expected) && lines.contains(&"from 203.0.113.1"), "{who:?}: {said}");
            assert!(!said.contains("WARN"), "{said}");
        }
    }
}

#[test]
fn without_raw_sockets_steps_see_the_hosts_network() {
    let Some(world) = closed("stack::without_raw_sockets_steps_see_the_hosts_network") else { return };
    world.hide_stack();
    let folder = folder();
    let said = world.built(folder.path(), &format!("FROM busybox\nRUN {}\nRUN true\n", ask()), &[]);
    assert_eq!(said.matches("RUN steps see the host's network").count(), 1, "{said}");
    assert!(said.contains("; socket(AF_PACKET): Operation not permitted"), "{said}");
    assert!(lines(&said).contains(&"from 203.0.113.1"), "{said}");
}
