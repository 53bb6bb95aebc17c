//! The network of a step where NAT cannot be, on a host that the test makes: the program `pasta` carries it.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use kiln_tests::machine::cannot;
use kiln_tests::program::said;
use kiln_tests::world::{
    INTERNET, NAME_SERVER, RAW_PACKETS, World, ask, assert_one_namespace, eventually, folder, lines,
};

/// A host whose firewall drops what is forwarded.
fn behind_a_firewall(test: &str) -> Option<World> {
    let world = World::make(test)?;
    if cannot(test, ["program:iptables-nft", "tun", "pasta"]) {
        return None;
    }
    world.sh("iptables-nft -P FORWARD DROP");
    Some(world)
}

/// Lets everybody on the host open the device for tunnels, as most hosts do.
fn open_tunnels(world: &World) {
    world.sh("mknod /run/tun c 10 200; chmod 666 /run/tun; mount --bind /run/tun /dev/net/tun");
}

/// The processes on the host that serve a namespace.
fn helpers(world: &World) -> String {
    world.sh(
        "for process in $(pgrep -f '[n]etns /proc/self/fd/0'); do \
         if [ \"$(readlink /proc/$process/ns/net)\" = \"$(readlink /proc/self/ns/net)\" ]; then echo $process; fi; done",
    )
}

#[test]
fn a_step_reaches_the_world_behind_a_firewall() {
    let Some(world) = behind_a_firewall("pasta::a_step_reaches_the_world_behind_a_firewall") else { return };
    let folder = folder();
    let look = "ls /sys/class/net | tr '\\n' ' '; echo; readlink /proc/self/ns/net";
    // It outlasts whatever the program does now and then.
    let dockerfile = format!(
        "FROM busybox\nRUN {look}; {}; sleep 3\nRUN {look}; nslookup some.name | grep Address\nRUN cat /etc/resolv.conf /etc/hosts\n",
        ask()
    );
    for everybody_opens_tunnels in [false, true] {
        if everybody_opens_tunnels {
            open_tunnels(&world);
        }
        let said = world.built(folder.path(), &dockerfile, &["--add-host", "outside:host-gateway"]);
        let lines = lines(&said);
        for expected in ["eth0 lo ", "from 203.0.113.1", "nameserver 203.0.113.9", "203.0.113.1\toutside"] {
            assert!(lines.contains(&expected), "{expected}: {said}");
        }
        assert!(lines.iter().any(|line| line.starts_with("Address") && line.ends_with(INTERNET)), "{said}");
        assert!(!said.contains("WARN"), "{said}");
        assert_one_namespace(&said);
        eventually("the program is left", || helpers(&world).is_empty());
    }
    assert!(!world.sh("ip -o link").contains("kiln") && !world.tables().contains("kiln"));
}

#[test]
fn a_name_server_on_the_hosts_loopback_answers() {
    let Some(world) = behind_a_firewall("pasta::a_name_server_on_the_hosts_loopback_answers") else { return };
    let _server = world.server(NAME_SERVER);
    world.sh("echo nameserver 127.0.0.1 > /run/resolv.conf");
    let folder = folder();
    let said = world.built(folder.path(), "FROM busybox\nRUN nslookup some.name | grep Address\n", &[]);
    assert!(
        lines(&said).iter().any(|line| line.starts_with("Address") && line.ends_with(INTERNET)),
        "{said}"
    );
    assert!(!said.contains("WARN"), "{said}");
}

/// Servers on the host: on its loopback alone, and on all of its addresses.
const SERVERS: &str = "import socket, threading\n\
    def serve(address, port, text):\n\
    \x20   s = socket.create_server((address, port))\n\
    \x20   def loop():\n\
    \x20       while True:\n\
    \x20           c, _ = s.accept(); c.sendall(text); c.close()\n\
    \x20   threading.Thread(target=loop, daemon=True).start()\n\
    serve('127.0.0.1', 8001, b'LOOPBACK\\n')\n\
    serve('0.0.0.0', 8002, b'GATEWAY\\n')\n\
    def hear():\n\
    \x20   u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(('0.0.0.0', 7001))\n\
    \x20   while True: open('/run/heard', 'ab').write(u.recv(100).strip() + b'\\n')\n\
    threading.Thread(target=hear, daemon=True).start()";

#[test]
fn a_step_reaches_the_host_and_not_its_loopback() {
    let Some(world) = behind_a_firewall("pasta::a_step_reaches_the_host_and_not_its_loopback") else {
        return;
    };
    let _server = world.server(SERVERS);
    let folder = folder();
    let ask = "for host in 127.0.0.1 outside $(ip route | awk '/^default/ { print $3 }'); do for port in 8001 8002; do \
               nc -w 2 $(awk -v h=$host '$2 == h { print $1; h = \"\" } END { if (h) print h }' /etc/hosts) $port </dev/null; \
               done; done; echo done";
    let flags = ["--add-host", "outside:host-gateway"];
    let said = world.built(folder.path(), &format!("FROM busybox\nRUN {ask}\n"), &flags);
    let lines = lines(&said);
    assert_eq!(lines.iter().filter(|line| **line == "GATEWAY").count(), 1, "{said}");
    assert!(!lines.contains(&"LOOPBACK") && lines.contains(&"done"), "{said}");
}

/// Sends packets of its own making, as a root with `CAP_NET_RAW` can: to the host's loopback, and then an honest one.
const LIES: &str = r#"
def say(source, to, text):
    a, b = socket.inet_aton(source), socket.inet_aton(to)
    text = text.ljust(20).encode()
    head = struct.pack("!BBHHHBB", 0x45, 0, 48, 1, 0, 64, 17)
    head += struct.pack("!H", sum16(head + b"\0\0" + a + b)) + a + b
    wire.send(b"\xff" * 6 + b"\2" * 6 + b"\x08\0" + head + struct.pack("!HHHH", 5009, 7001, 28, 0) + text)
say(own, "127.0.0.1", "to loopback")
say("127.0.0.1", "127.0.0.1", "from loopback")
say(own, "203.0.113.1", "honest")
"#;

#[test]
fn no_step_can_make_up_packets_for_the_hosts_loopback() {
    let Some(world) = behind_a_firewall("pasta::no_step_can_make_up_packets_for_the_hosts_loopback") else {
        return;
    };
    let _server = world.server(SERVERS);
    let folder = folder();
    let mut build = running(&world, folder.path(), "echo running; sleep 60.5");
    let step = world.sh("pgrep -f '^sleep 60\\.5'");
    let lies = format!("{RAW_PACKETS}{LIES}");
    let lies = world.command("nsenter").args(["-t", step.trim(), "-n", "python3", "-c", &lies]).output();
    let lies = lies.expect("it is on the PATH");
    assert!(lies.status.success(), "{}", said(&lies));
    eventually("the host hears nothing", || world.sh("cat /run/heard || true").contains("honest"));
    build.kill().expect("it runs");
    build.wait().expect("it was killed");
    assert_eq!(world.sh("cat /run/heard"), "honest\n");
}

/// A build of one step, which has written `running`.
fn running(world: &World, folder: &Path, command: &str) -> Child {
    let mut build = world.build(folder, &format!("FROM busybox\nRUN {command}\n"), &[]);
    let mut child = build.stderr(Stdio::piped()).spawn().expect("the program was built");
    let mut stderr = child.stderr.take().expect("it is piped");
    let (mut heard, mut buffer) = (String::new(), [0; 4096]);
    while !heard.contains(" running\n") {
        let length = stderr.read(&mut buffer).expect("text");
        assert!(length > 0, "{heard}");
        heard.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    child
}

#[test]
fn a_build_that_is_killed_takes_the_program_along() {
    let Some(world) = behind_a_firewall("pasta::a_build_that_is_killed_takes_the_program_along") else {
        return;
    };
    let folder = folder();
    for (everybody_opens_tunnels, user) in [(false, "0"), (true, "65534")] {
        if everybody_opens_tunnels {
            open_tunnels(&world);
        }
        let mut build = running(&world, folder.path(), "echo running; sleep 60");
        let helper = helpers(&world);
        assert_eq!(helper.lines().count(), 1, "{helper:?}");
        // It has given up what it does not need any more.
        let status = world.sh(&format!("cat /proc/{}/status", helper.trim()));
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        assert_eq!(field("Uid:").split_whitespace().next(), Some(user), "{status}");
        assert!(field("CapEff:").trim() == "0000000000200000" && field("Seccomp:").trim() == "2", "{status}");
        build.kill().expect("it runs");
        build.wait().expect("it was killed");
        eventually("the program is left", || helpers(&world).is_empty());
    }
}

#[test]
fn a_step_has_ipv6_where_the_program_has() {
    let Some(world) = behind_a_firewall("pasta::a_step_has_ipv6_where_the_program_has") else { return };
    let folder = folder();
    let ask6 = "echo hello | nc -w 5 2001:db8::9 8000 || echo NONE";
    let dockerfile = format!("FROM busybox\nRUN {ask6}; {}\n", ask());
    world.sh("ip -6 route add default via 2001:db8::9");
    let said = world.built(folder.path(), &dockerfile, &[]);
    assert!(!said.contains("WARN"), "{said}");
    assert!(
        lines(&said).contains(&"from 2001:db8::1") && lines(&said).contains(&"from 203.0.113.1"),
        "{said}"
    );
    // As with WireGuard: it makes nothing of an interface without an address of the link.
    world.sh("ip -6 addr flush dev up0 scope link");
    let said = world.built(folder.path(), &dockerfile, &[]);
    assert!(!said.contains("WARN"), "{said}");
    assert!(lines(&said).contains(&"from 203.0.113.1"), "{said}");
}

#[test]
fn a_program_that_ends_early_is_started_again() {
    let Some(world) = behind_a_firewall("pasta::a_program_that_ends_early_is_started_again") else { return };
    let folder = folder();
    // It ends while a step uses its network, and while none does.
    for steps in ["RUN sleep 4", "RUN true\nRUN --network=none sleep 4"] {
        let dockerfile = format!("FROM busybox\n{steps}\nRUN {}\n", ask());
        let build = world.build(folder.path(), &dockerfile, &[]).stderr(Stdio::piped()).spawn();
        let build = build.expect("the program was built");
        eventually("it does not run", || !helpers(&world).is_empty());
        world.sh(&format!("sleep 2; kill -9 {}", helpers(&world).trim()));
        let output = build.wait_with_output().expect("it ends");
        let said = said(&output);
        assert!(output.status.success() && lines(&said).contains(&"from 203.0.113.1"), "{said}");
        assert!(!said.contains("WARN"), "{said}");
    }
}

#[test]
fn a_file_that_is_no_program_is_told_of_in_words() {
    let Some(world) = behind_a_firewall("pasta::a_file_that_is_no_program_is_told_of_in_words") else {
        return;
    };
    world.hide_stack();
    let folder = folder();
    let (said, _) = with_program(&world, folder.path(), "\0 is no program");
    assert!(said.contains("programs/pasta\": it cannot be executed: Exec format error"), "{said}");
    assert!(lines(&said).contains(&"from 203.0.113.1"), "{said}");
}

/// A build on a host whose `pasta` is this script.
fn with_script(world: &World, folder: &Path, script: &str) -> (String, Duration) {
    with_program(world, folder, &format!("#!/bin/sh\n{script}\n"))
}

/// A build on a host whose `pasta` is this file.
fn with_program(world: &World, folder: &Path, text: &str) -> (String, Duration) {
    let programs = folder.join("programs");
    fs::create_dir_all(&programs).expect("a folder");
    let program = programs.join("pasta");
    fs::write(&program, text).expect("written");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is there");
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").expect("there is one"));
    let started = Instant::now();
    let output = world
        .build(folder, &format!("FROM busybox\nRUN {}\nRUN true\n", ask()), &[])
        .env("PATH", path)
        .output();
    let output = output.expect("the program was built");
    assert!(output.status.success(), "{}", said(&output));
    (said(&output), started.elapsed())
}

#[test]
fn a_program_that_fails_is_told_of_once() {
    let Some(world) = behind_a_firewall("pasta::a_program_that_fails_is_told_of_once") else { return };
    world.hide_stack();
    let folder = folder();
    let table = [
        (
            "case $1 in --help) echo --netns --map-host-loopback;; *) echo one; echo it is broken >&2; exit 1;; esac",
            "it is broken",
        ),
        ("echo --help is not known; exit 1", "--help is not known"),
        ("echo --netns", "it is older than August 2024, and would stall"),
        // With a child, which is to go too.
        (
            "case $1 in --help) echo --netns --map-host-loopback;; *) sleep 77.25 & sleep 77.25;; esac",
            "it was not ready after 5 seconds",
        ),
        ("sleep 77.25 & sleep 77.25", "--help did not end within 5 seconds"),
    ];
    for (script, reason) in table {
        let (said, took) = with_script(&world, folder.path(), script);
        assert_eq!(said.matches("RUN steps see the host's network").count(), 1, "{said}");
        assert!(said.contains(&format!("programs/pasta\": {reason}; ")), "{reason}: {said}");
        assert!(lines(&said).contains(&"from 203.0.113.1"), "{said}");
        assert!(took < Duration::from_secs(30), "{took:?}");
        assert_eq!(world.sh("pgrep -f '^sleep 77\\.25' || true"), "", "{reason}");
    }
}

#[test]
fn without_a_device_for_tunnels_the_program_is_not_tried() {
    let Some(world) = behind_a_firewall("pasta::without_a_device_for_tunnels_the_program_is_not_tried")
    else {
        return;
    };
    world.sh(": > /run/tun; mount --bind /run/tun /dev/net/tun");
    world.hide_stack();
    let folder = folder();
    let (said, _) = with_script(&world, folder.path(), "echo started > /run/started; sleep 77.5");
    assert!(said.contains("/dev/net/tun: it is not the device for tunnels; "), "{said}");
    assert_eq!(said.matches("WARN").count(), 1, "{said}");
    assert!(lines(&said).contains(&"from 203.0.113.1"), "{said}");
    assert_eq!(world.sh("ls /run/started 2>/dev/null || true"), "");
}
